# SPDX-License-Identifier: Apache-2.0
"""`penstock run`: exit codes, signals, the private daemon's beginning and end, the queue, refusals."""
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import lib
from lib import BOUND, MB, Node, Program, wait_for

PENSTOCK = os.environ['PENSTOCK']


class Place:
    """A user's runtime directory of one's own, so that a private daemon in it is nobody else's."""

    def __init__(self, prefix='pr-'):
        self.prefix = prefix

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix=self.prefix)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(('PENSTOCK_', 'OPENCL_LAYERS', 'NULLICD_'))}
        self.env.update(XDG_RUNTIME_DIR=self.dir, HOME=self.dir, LC_ALL='C', OCL_ICD_VENDORS=os.environ['NULLICD_ICD'])
        self.programs = []
        return self

    def __exit__(self, kind, *rest):
        for p in self.programs:
            if p.proc.poll() is None:
                p.kill()
        for pid in self.daemons() if kind else []:
            os.kill(pid, signal.SIGKILL)
        if kind and os.path.exists(self.dir + '/penstock/penstockd.log'):
            with open(self.dir + '/penstock/penstockd.log', encoding='utf-8') as f:
                sys.stderr.write(f.read())
        if not kind:
            self.ended()
        shutil.rmtree(self.dir, ignore_errors=True)

    def daemons(self):
        """Processes that are told this directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/cmdline', 'rb') as f:
                    argv = f.read().split(b'\0')
            except OSError:
                continue
            if argv[0] == b'penstockd' and (self.dir + '/penstock').encode() in argv:
                found.append(int(pid))
        return found

    def ended(self):
        wait_for(lambda: not self.daemons(), 'the end of the private daemon')

    def run(self, *args, **kw):
        return subprocess.run([PENSTOCK, 'run', *args], env=self.env, capture_output=True, text=True, timeout=BOUND,
                              stdin=subprocess.DEVNULL, check=False, **kw)

    def start(self, *args, **kw):
        return subprocess.Popen([PENSTOCK, 'run', *args], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **kw)

    def program(self, *options, **kw):
        p = Program(self.dir, None, managed=False, layer=False, prefix=(PENSTOCK, 'run', *options, '--'),
                    XDG_RUNTIME_DIR=self.dir, **kw)
        self.programs.append(p)
        return p


def test_exit_codes():
    """The program's own; 128 + n for its signal; 125, 126 and 127 for what Penstock, the file and the name are to blame for."""
    with Place() as place:
        for code in (0, 1, 7, 125, 255):
            assert place.run('--', 'sh', '-c', f'exit {code}').returncode == code
        for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGUSR1):
            assert place.run('--', 'sh', '-c', f'kill -{int(sig)} $$').returncode == 128 + sig
        for args, words in ((('--memory', 'much', '--', 'true'), ('memory', 'much', 'allowed')),
                            (('--compute', '150%', '--', 'true'), ('compute', '150%', 'allowed')),
                            (('--no-such-thing', '--', 'true'), ('--no-such-thing',)), ((), ('program',)),
                            (('--contract', place.dir + '/none.yaml', '--', 'true'), ('none.yaml',))):
            r = place.run(*args)
            assert r.returncode == 125 and all(w in r.stderr for w in words), (args, r)
        with open(place.dir + '/text', 'w', encoding='ascii') as f:
            f.write('text')
        r = place.run('--', place.dir + '/text')
        assert r.returncode == 126 and place.dir + '/text' in r.stderr, r
        r = place.run('--', 'no-such-program-at-all')
        assert r.returncode == 127 and 'no-such-program-at-all' in r.stderr, r


def test_long_paths():
    """The longest name, below a directory that is as long as the control socket allows."""
    with Place('pr-' + 50 * 'd') as place:
        p = place.program('--name', 63 * 'n')
        p.say(f'alloc {MB}', '0 1')
        p.end()


def test_signals():
    """TERM, HUP, USR1 sent to `penstock run` reach the program; its answer is the exit code."""
    with Place() as place:
        script = 'trap "exit 41" TERM; trap "exit 42" HUP; trap "exit 43" USR1; echo on; while :; do sleep 0.05; done'
        for sig, code in ((signal.SIGTERM, 41), (signal.SIGHUP, 42), (signal.SIGUSR1, 43)):
            p = place.start('--', 'sh', '-c', script, start_new_session=True)
            assert p.stdout.readline() == 'on\n'
            p.send_signal(sig)
            assert p.wait(BOUND) == code
        p = place.start('--', 'sh', '-c', 'echo on; exec sleep 1000')
        assert p.stdout.readline() == 'on\n'
        p.send_signal(signal.SIGTERM)
        assert p.wait(BOUND) == 128 + signal.SIGTERM


def read_until(fd, wanted):
    data, until = b'', time.monotonic() + BOUND
    while wanted not in data and time.monotonic() < until:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                data += os.read(fd, 4096)
            except OSError:
                break
    assert wanted in data, data
    return data


def test_terminal():
    """Ctrl-C in a terminal reaches the program once; what it then exits with is the exit code."""
    with Place() as place:
        count = ('import os, signal, time\nn = 0\ndef on(*a):\n    global n\n    n += 1\nsignal.signal(signal.SIGINT, on)\n'
                 'print("on", flush=True)\nuntil = time.monotonic() + 20\n'
                 'while not n and time.monotonic() < until: time.sleep(0.01)\n'
                 'time.sleep(0.3)\nprint("interrupts", n, flush=True)\nos._exit(9)\n')
        for args, code in (([sys.executable, '-c', count], 9), (['sh', '-c', 'echo on; exec sleep 1000'], 128 + signal.SIGINT)):
            pid, fd = pty.fork()
            if pid == 0:
                os.execve(PENSTOCK, [PENSTOCK, 'run', '--', *args], place.env)
            read_until(fd, b'on\r\n')
            os.write(fd, b'\x03')
            if code == 9:
                read_until(fd, b'interrupts 1\r\n')
            while True:                      # else the summary finds no reader
                try:
                    if not os.read(fd, 4096):
                        break
                except OSError:
                    break
            _, status = os.waitpid(pid, 0)
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == code, status
            os.close(fd)


def test_many_at_once():
    """Eight `penstock run` started at once where no daemon is: one private daemon, all eight under it."""
    with Place() as place:
        eight = []
        for i in range(8):
            eight.append(place.start('--name', f'p{i}', '--', 'sh', '-c', 'echo on; exec cat', start_new_session=True))
        for p in eight:
            assert p.stdout.readline() == 'on\n', p.stderr.read()
            assert p.wait(BOUND) == 0, p.stderr.read()      # cat reads /dev/null
        for p in eight:
            err = p.stderr.read()
            assert 'another penstockd' not in err and 'error' not in err, err
    for _ in range(3):
        with Place() as place:
            four = [subprocess.Popen([PENSTOCK, 'run', '--name', f'p{i}', '--', os.environ['TENANT']], env=place.env, text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1)
                    for i in range(4)]
            for p in four:
                assert p.stdout.readline().startswith('ready'), p.stderr.read()
            assert len(place.daemons()) == 1, place.daemons()
            for p in four:
                p.stdin.write('open\n')
                assert p.stdout.readline() == '0\n'
            names = subprocess.run([PENSTOCK, 'ps', '-o', 'json'], env=place.env, capture_output=True, text=True, check=True).stdout
            assert all(f'"p{i}"' in names for i in range(4)), names
            for p in four:
                p.stdin.close()
                assert p.wait(BOUND) == 0


def test_foreign_directory():
    """Below /tmp anybody can be there first: a directory that others can write to is no place for one's daemon."""
    with Place() as place, socket.socket(socket.AF_UNIX) as trap:
        where = place.dir + '/penstock'
        os.mkdir(where)
        trap.bind(where + '/penstock.sock')
        trap.listen()
        trap.setblocking(False)
        os.chmod(where, 0o777)
        cases = [0] + ([65534] if os.geteuid() == 0 else [])
        for uid in cases:
            if uid:
                os.chmod(where, 0o755)
                os.chown(where, uid, uid)
            r = place.run('--', 'true')
            assert r.returncode == 125 and where in r.stderr, r
            try:
                trap.accept()
                raise AssertionError('it asked whoever was there')
            except BlockingIOError:
                pass


def test_summary():
    """The closing lines tell what was used, and a contract that would have fitted; -q says nothing."""
    with Place() as place:
        p = place.program('--name', 'x', '--memory', '512M')
        p.say(f'alloc {100 * MB}', '0 1')
        p.say(f'alloc {450 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')
        p.say('run 30', '0')
        assert p.end() == 0
        # what it would have had with the refused one is what fits
        assert re.search(r'x used 100 MiB of memory \(limit 512 MiB\), \S+ of device time \(.*\), 30 commands.*, '
                         r'1 allocation refused \(up to 550 MiB in all\)\n.*a contract for as much: --memory 576M --compute \d+%', p.stderr()), p.stderr()
        p = place.program('-q')
        p.say('run 1', '0')
        assert p.end() == 0 and p.stderr() == '', p.stderr()


def test_summary_of_failure():
    """A program that reads how much there is and gives up, as hashcat does below 768 MiB: no "fits", but what it was shown."""
    with Place() as place:
        p = place.program('--name', 'x', '--memory', '512M')
        p.signal(signal.SIGSEGV)
        assert p.proc.wait(BOUND) == 128 + signal.SIGSEGV and 'ended with 139' in p.stderr(), p.stderr()
        p = place.program('--name', 'x', '--memory', '512M')
        p.signal(signal.SIGTERM)
        assert p.proc.wait(BOUND) == 128 + signal.SIGTERM and 'ended with' not in p.stderr(), p.stderr()
        for options, kernels, code, shown in ((('--memory', '512M'), 1, 252, True), (('--memory', '512M'), 1, 0, False),
                                              (('--memory', '512M'), 200, 1, False), ((), 1, 3, False),
                                              (('--memory', '..900G'), 1, 3, False)):
            p = place.program('--name', 'x', *options)
            p.ask('limit')
            p.say(f'run {kernels}', '0')
            p.send(f'exit {code}')
            assert p.proc.wait(BOUND) == code
            assert ('for as much' not in p.stderr()) == shown, p.stderr()
            assert (re.search(rf'shown 512 MiB of memory and ended with {code};.* --memory 1G\n', p.stderr()) is not None) == shown, p.stderr()


def test_summary_beyond_device():
    """No limit is suggested that the device could not give."""
    with Place() as place:
        p = place.program('--name', 'x', '--memory', '512M', NULLICD_MEM_MB='520')
        p.say(f'alloc {100 * MB} 6', f'{lib.CL_OUT_OF_MEMORY} 5')
        assert p.end() == 0
        assert '1 allocation refused (up to more than the device has)' in p.stderr() and '--memory 520M' in p.stderr(), p.stderr()


def test_refused_alone():
    """A private daemon whose first contract is refused says why, and ends."""
    with Place() as place:
        r = place.run('--memory', '900T', '--', 'true')
        assert r.returncode == 125 and 'memory: 900 TiB cannot be guaranteed: the device has' in r.stderr and 'iB to promise' in r.stderr, r
        assert not re.search(r'\d{7}', r.stderr), r


def left_over(place):
    return sorted(os.path.relpath(os.path.join(d, f), place.dir) for d, _, files in os.walk(place.dir + '/penstock') for f in files)


def test_private_daemon_ends():
    """With the last tenant the private daemon ends, and leaves neither sockets nor tokens nor tenants behind."""
    with Place() as place:
        p, q = place.program('--name', 'p'), place.program('--name', 'q')
        p.say('run 1', '0')
        assert len(place.daemons()) == 1 and os.path.exists(place.dir + '/penstock/penstock.sock')
        assert os.path.exists(place.dir + '/penstock/tenants/p/token')
        p.end()
        q.say('run 1', '0')
        assert len(place.daemons()) == 1
        q.end()
        place.ended()
        assert left_over(place) == [], left_over(place)
        # and the next one starts as the first did
        assert place.run('--', 'true').returncode == 0


def test_run_killed():
    """`penstock run` is SIGKILLed: its program goes on under the contract, which ends with it, and the daemon after that."""
    with Place() as place:
        p = place.program('--name', 'p', '--memory', '64M')
        p.say(f'alloc {60 * MB}', '0 1')
        p.proc.kill()
        p.proc.wait()
        p.say('run 5', '0')
        p.say(f'alloc {10 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')
        assert len(place.daemons()) == 1
        p.proc.stdin.close()


def small_node():
    """A daemon that knows a device of 1 GiB before anybody uses it."""
    return Node('--probe', os.environ['PROBE'], env={'OCL_ICD_VENDORS': os.environ['NULLICD_ICD'], 'NULLICD_MEM_MB': '1024'})


def test_refused_names_holder():
    """A contract that cannot be kept is refused: by which field, who holds what."""
    with Place() as place, small_node() as node:
        wait_for(lambda: node.get('/v1/devices')['devices'], 'the device')
        node.add('first-holder', memory='600M')
        node.add('second-holder', memory='300M', compute='70%..')
        r = place.run('--socket', node.sock, '--name', 'late', '--memory', '512M', '--', 'true')
        assert r.returncode == 125, r
        for word in ('memory', 'first-holder', '600', 'second-holder', '300'):
            assert word in r.stderr, (word, r.stderr)
        r = place.run('--socket', node.sock, '--name', 'late', '--compute', '40%', '--', 'true')
        assert r.returncode == 125 and 'compute' in r.stderr and 'second-holder' in r.stderr and '70' in r.stderr, r
        assert node.tenant('late') is None
        assert place.run('--socket', node.sock, '--memory', '100M', '--', 'true').returncode == 0


def test_wait_order():
    """--wait: in the order of asking, also where a later one would fit at once; who gives up leaves the queue."""
    with Place() as place, small_node() as node:
        wait_for(lambda: node.get('/v1/devices')['devices'], 'the device')
        node.add('holder', memory='900M')

        def queue(name, memory):
            p = place.start('--socket', node.sock, '--name', name, '--memory', memory, '--wait', '--', 'sh', '-c',
                            'echo on; exec sleep 1000', start_new_session=True)
            wait_for(lambda: node.tenant(name), name)
            return p

        def state(name):
            t = node.tenant(name)
            return t['state'] if t else None
        a, b, small, gone = queue('a', '800M'), queue('b', '700M'), queue('small', '50M'), queue('gone', '10M')
        assert [state(n) for n in ('a', 'b')] == ['waiting'] * 2
        gone.kill()
        gone.wait()
        wait_for(lambda: state('gone') is None, 'the one that gave up to leave the queue')
        assert node.request('DELETE', '/v1/tenants/holder')[0] == 200
        assert a.stdout.readline() == 'on\n'
        assert state('b') == 'waiting'
        order = []
        os.killpg(a.pid, signal.SIGTERM)
        assert a.wait(BOUND) == 128 + signal.SIGTERM
        assert b.stdout.readline() == 'on\n'
        assert small.stdout.readline() == 'on\n'
        for e in node.get('/v1/events?since=0&limit=1000')['events']:
            if e['kind'] == 'tenant-created' and e['tenant'] in ('a', 'b', 'small'):
                order.append(e['tenant'])
        assert order in (['a', 'b', 'small'], ['small', 'a', 'b']), order
        for p in (b, small):
            os.killpg(p.pid, signal.SIGTERM)
            p.wait(BOUND)


if __name__ == '__main__':
    lib.run(sys.modules[__name__])
