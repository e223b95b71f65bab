# SPDX-License-Identifier: Apache-2.0
"""For tests of the audit: a probe that says what the test wants it to, a daemon that watches it, and processes for it to speak of."""
import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import fake
from fake import Client, Daemon, wait_for

MB = 1 << 20
KEY = 'pci:0000:65:00.0'
TOTAL = 1000 * MB
CAP, MOST, OVERHEAD, FLAGS = 16, 160, 176, 8      # in struct pen_terms
STOP = 2                                          # PEN_TERMS_STOP
PROBE = '''#!{python}
import json, os, select, signal, sys
here = {here!r}
with open(here + '/starts', 'a') as f:
    f.write(json.dumps(sys.argv[1:]) + '\\n')
if len(sys.argv) == 1:
    print(open(here + '/devices').read())
    sys.exit(0)
with open(here + '/pid', 'w') as f:
    f.write(str(os.getpid()))
while not select.select([0], [], [], 0.02)[0]:
    if os.path.exists(here + '/once'):
        for line in open(here + '/once').readlines():
            print(line, end='', flush=True)
            select.select([0], [], [], 0.02)
        os.unlink(here + '/once')
    line = open(here + '/line').read()
    if line == 'CRASH':
        os.kill(os.getpid(), signal.SIGSEGV)
    if line == 'END':
        sys.exit(3)
    if line != 'HANG':
        print(line, flush=True)
'''


class Probe:
    """A penstock-probe whose lines the test writes. `api`: of its one device."""

    def __init__(self, api='cuda', mem=TOTAL):
        self.dir = tempfile.mkdtemp(prefix='pd-probe-')
        self.path = self.dir + '/probe'
        with open(self.path, 'w', encoding='ascii') as f:
            f.write(PROBE.format(python=sys.executable, here=self.dir))
        os.chmod(self.path, 0o700)
        self.put('devices', json.dumps({'devices': [{'api': api, 'key': KEY, 'model': 'Card', 'mem_bytes': mem, 'units': 8}], 'backends': []}))
        self.say()

    def put(self, name, text):
        with open(f'{self.dir}/{name}.new', 'w', encoding='utf-8') as f:
            f.write(text)
        os.rename(f'{self.dir}/{name}.new', f'{self.dir}/{name}')

    def raw(self, text):
        self.put('line', text)

    def once(self, *readings):
        """Each of them one time, in this order; then what it says from now on again. A reading: processes as of say()."""
        self.put('once', ''.join(self.line(r) + '\n' for r in readings))
        wait_for(lambda: not os.path.exists(self.dir + '/once'), 'them to be printed')

    def say(self, *processes, **facts):
        """From now on. A process: (pid, MiB or None, {more})."""
        self.raw(self.line(processes, **facts))

    def line(self, processes, **facts):
        listed = []
        for pid, mib, *more in processes:
            listed.append({'pid': pid, **({} if mib is None else {'mem_bytes': mib * MB}), **(more[0] if more else {})})
        if 'mem_used_bytes' not in facts:
            facts['mem_used_bytes'] = sum(p.get('mem_bytes', 0) for p in listed)
        return json.dumps({'schema': 'penstock-probe/watch/v1', 'devices': [{'key': KEY, 'lost': False, **facts, 'processes': listed}]})

    def starts(self):
        with open(self.dir + '/starts', encoding='utf-8') as f:
            return [json.loads(line) for line in f]

    def pid(self):
        with open(self.dir + '/pid', encoding='ascii') as f:
            return int(f.read())


class Audited:
    """A daemon with such a probe, watching."""

    def __init__(self, config='', api='cuda', mem=TOTAL, **more):
        self.probe = Probe(api, mem)
        self.daemon = Daemon('--probe', self.probe.path, config='audit: {period: 100ms}\n' + config if 'audit' not in config else config, **more)

    def __enter__(self):
        self.daemon.create('first')
        wait_for(lambda: self.device()['audit'], 'the first reading')
        self.daemon.request('DELETE', '/v1/tenants/first')
        return self.daemon, self.probe, self

    def __exit__(self, *what):
        self.daemon.__exit__(*what)
        subprocess.run(['rm', '-r', self.probe.dir], check=True)

    def device(self):
        return (self.daemon.get('/v1/devices')['devices'] or [{'audit': None}])[0]

    def audit(self):
        return self.device()['audit']

    def readings(self, n=6):
        """Time passes: so many more lines have been printed and looked at. Each is 20 ms after the one before."""
        for _ in range(n):
            age = self.audit()['age_ns']
            wait_for(lambda was=age: self.audit()['age_ns'] < was or self.audit()['age_ns'] < 5e6, 'a reading')
            time.sleep(0.02)

    def events(self, kind, since=0):
        return [e for e in self.daemon.get(f'/v1/events?since={since}&limit=1000')['events'] if e['kind'] == kind]


def attach(d, name, **fields):
    return Client(d.create(name, **fields)[1]['dir']).attach(KEY, mem=TOTAL)


def overhead(d, name):
    return d.place(name)['mem_overhead_bytes'] // MB


started = []


@atexit.register
def clean():
    """Of a test that failed: nothing stays."""
    for pid in started:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def client(d, name, before=None):
    """A process that attaches for a tenant and does nothing more. Returns its pid."""
    def run(say, where):
        atexit.unregister(clean)
        if before:
            before()
        Client(where).attach(KEY)
        say('here')
        signal.pause()
    pid, out = fake.child(run, d.tenant(name)['dir'])
    started.append(pid)
    assert out.readline() == 'here\n'
    out.close()
    return pid


def orphan(*argv, before=None):
    """A process that descends from nobody here. Returns its pid."""
    r, w = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            if before:
                before()
            os.write(w, str(os.getpid()).encode())
            os.close(w)
            os.execvp(argv[0], argv)
        os._exit(0)
    os.wait()
    os.close(w)
    pid = int(os.read(r, 20))
    os.close(r)
    started.append(pid)
    return pid


def gone(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
            return f.read().rsplit(')', 1)[1].split()[0] in 'ZX'
    except OSError:
        return True


def end(*pids):
    for pid in pids:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda p=pid: gone(p), 'its end')
