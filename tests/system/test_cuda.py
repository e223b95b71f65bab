# SPDX-License-Identifier: Apache-2.0
"""`penstock run` on CUDA: unmodified programs on the driver interface, on a simulated card, beside each version of the driver.

Argument: the version of the stand-in driver. Everything else is as it is installed: penstockd with its probe and its watch, our
libcuda.so.1 trimmed to the driver, our view of NVML.
"""
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'daemon'))
import fake                                                     # noqa: E402  pylint: disable=wrong-import-position
from fake import BOUND, Daemon, wait_for                        # noqa: E402  pylint: disable=wrong-import-position

BUILD = os.environ['BUILD']
GB = 1 << 30
OUT_OF_MEMORY = 2
VERSION = None


class Card:
    """A simulated card, and what makes programs find its driver."""

    def __init__(self, card='T4'):
        self.dir = tempfile.mkdtemp(prefix='pd-cuda-')
        os.mkdir(self.dir + '/run', 0o700)
        self.server = subprocess.Popen([os.environ['SIMGPU'], '--card', card, '--socket', self.dir + '/card', '--foreground'], stdout=subprocess.PIPE, text=True,
                                       preexec_fn=os.setsid)
        assert 'ready' in self.server.stdout.readline()
        nvml = {'11.4': 'nvml-470', '12.2': 'nvml-535'}.get(VERSION, 'nvml')
        self.libraries = f'{BUILD}/simgpu/nvidia/cuda-{VERSION}:{BUILD}/simgpu/nvidia/{nvml}'
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('PENSTOCK_', 'OPENCL_LAYERS', 'LD_LIBRARY_PATH'))}
        self.env = {**clean, 'PENSTOCK_SIMGPU': self.dir + '/card', 'LD_LIBRARY_PATH': self.libraries, 'XDG_RUNTIME_DIR': self.dir + '/run',
                    'LC_ALL': 'C', 'OCL_ICD_VENDORS': self.dir}
        self.programs = []

    def close(self):
        for p in self.programs:
            p.end()
        self.server.terminate()
        self.server.wait()
        self.server.stdout.close()
        subprocess.run(['rm', '-r', self.dir], check=True)


class Program:
    """cutenant.c, under `penstock run` with these options, or by itself."""

    def __init__(self, card, *command):
        self.err = open(f'{card.dir}/stderr-{len(card.programs)}', 'w+', encoding='utf-8')
        self.proc = subprocess.Popen([*command, os.environ['CUTENANT']], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.err, env=card.env, bufsize=0)
        card.programs.append(self)
        self.buffer = b''
        word, pid = self.line().split()
        assert word == 'ready', word
        self.pid = int(pid)

    def line(self):
        until = time.monotonic() + BOUND
        while b'\n' not in self.buffer:
            got, _, _ = select.select([self.proc.stdout], [], [], max(until - time.monotonic(), 0))
            data = os.read(self.proc.stdout.fileno(), 4096) if got else b''
            assert data, ('ended' if got else 'no answer in time') + ': ' + self.stderr()
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line.decode()

    def ask(self, command):
        self.proc.stdin.write(command.encode() + b'\n')
        return [int(v) for v in self.line().split()]

    def say(self, command, *wanted):
        got = self.ask(command)
        assert got == list(wanted), f'{command}: {got} instead of {wanted}; {self.stderr()}'

    def stderr(self):
        self.err.seek(0)
        return self.err.read()

    def end(self):
        """Returns its exit code; nothing stays."""
        if not self.proc.stdin.closed:
            self.proc.stdin.close()
        try:
            code = self.proc.wait(BOUND)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            code = self.proc.wait()
        self.proc.stdout.close()
        return code


class Node:
    """A card, the daemon of its node, and programs."""

    def __init__(self, config='audit: {period: 100ms}\n'):
        self.card = Card()
        self.daemon = Daemon('--probe', os.environ['PROBE'], env=self.card.env, config=config)

    def run(self, name, *options):
        return Program(self.card, os.environ['PENSTOCK'], '--socket', self.daemon.sock, 'run', '--name', name, *options, '--')

    def penstock(self, *args):
        r = subprocess.run([os.environ['PENSTOCK'], '--socket', self.daemon.sock, *args], env=self.card.env, capture_output=True, text=True, check=False,
                           timeout=BOUND)
        return r.stdout + r.stderr

    def device(self):
        return self.daemon.get('/v1/devices')['devices'][0]

    def __enter__(self):
        self.daemon.create('first')                                # waits for the probe
        self.daemon.request('DELETE', '/v1/tenants/first')
        return self

    def __exit__(self, kind, *rest):
        if kind:
            sys.stderr.write(''.join(p.stderr() for p in self.card.programs))
        try:
            self.card.close()
        finally:
            self.daemon.__exit__(kind, *rest)


def test_memory():
    """Over-allocation is refused with the driver's own code; both views agree with the contract and with each other."""
    with Node() as n:
        assert [a['name'] for a in n.device()['apis']] == ['cuda'] and n.device()['units'] == (0 if VERSION == '11.4' else 40)   # 470 does not tell
        p = n.run('p', '--memory', '4G', '--compute', '30%')
        p.say('open', 0)
        p.say(f'alloc {3 * GB}', 0)
        p.say(f'alloc {2 * GB}', OUT_OF_MEMORY)
        wait_for(lambda: n.daemon.place('p')['mem_overhead_bytes'], 'the audit to see its context')
        over = n.daemon.place('p')['mem_overhead_bytes']
        assert n.daemon.place('p')['mem_used_bytes'] == 3 * GB and 0 < over < GB // 2
        wait_for(lambda: p.ask('memory') == [GB - over, 4 * GB], 'the overhead to be shown as used')
        free, total, used = p.ask('nvml')
        assert (free, total, used) == (GB - over, 4 * GB, 3 * GB + over), (free, total, used, over)
        p.say(f'alloc {GB - over + 1}', OUT_OF_MEMORY)             # its context is a part of the 4G
        p.say(f'alloc {GB - over - (1 << 21)}', 0)
        p.say('spin 20 500', 0)
        p.say('spin 20 500', 0)
        text = n.penstock('ps')
        assert re.search(r'^p +normal +active +(?:4|3\.\d+)G +\d+M +4G ', text, re.M), text
        v, = [t for t in json.loads(n.penstock('top', '-o', 'json'))['tenants'] if t['name'] == 'p']
        assert v['devices'][0]['denials'] == 2 and v['devices'][0]['commands'] == 40, v
        wait_for(lambda: n.daemon.place('p')['device_ns'] >= 5000000, 'the device time of kernels of half a millisecond to be charged')
        p.say('free', 0)
        wait_for(lambda: n.daemon.place('p')['mem_used_bytes'] == 0, 'all to be given back')
        assert p.end() == 0
        assert 'beside it for contexts and modules' in p.stderr() and '2 allocations refused' in p.stderr(), p.stderr()


def proposed(p):
    return re.findall(r'a contract for as much: (.*)', p.stderr())


def test_proposal():
    """What `run` proposes lets the same program run: contexts are in it, and of a run that was too short to see them it names no memory."""
    with Node(config='audit: {period: 1m}\n') as n:
        p = n.run('p')
        p.say('open', 0)
        p.say(f'alloc {1 << 20}', 0)
        p.say('spin 5 500', 0)
        assert p.end() == 0
        assert len(proposed(p)) == 1 and '--memory' not in proposed(p)[0] and 'too short' in p.stderr(), p.stderr()
    with Node() as n:
        p = n.run('p')
        p.say('open', 0)
        p.say(f'alloc {1 << 20}', 0)
        wait_for(lambda: n.daemon.place('p')['mem_overhead_bytes'], 'the audit to see its context')
        assert p.end() == 0
        memory = re.findall(r'--memory (\S+)', proposed(p)[0])
        assert len(memory) == 1 and 'too short' not in p.stderr(), p.stderr()
        p = n.run('p', '--memory', memory[0])
        p.say('open', 0)
        wait_for(lambda: n.daemon.place('p')['mem_overhead_bytes'], 'the audit to see its context')
        p.say(f'alloc {1 << 20}', 0)


def test_target_below_what_it_needs():
    """A target that the program alone cannot keep is told as such, with one that it can, by `run` and by `why`."""
    with Node() as n:
        p = n.run('p', '--class', 'latency', '--duty', '30%', '--sla', '1us')
        p.say('open', 0)
        for _ in range(5):
            p.say('spin 1 2000', 0)
        text = n.penstock('why', '--for', '50ms', 'p')
        assert 'it could have --sla ' in text, text
        assert p.end() == 0
        could = re.search(r'than its target of 1us.*could have --sla (\S+)', p.stderr())
        assert could, p.stderr()
        p = n.run('p', '--class', 'latency', '--duty', '30%', '--sla', '1h')
        p.say('open', 0)
        p.say('spin 1 2000', 0)
        assert p.end() == 0 and 'it could have --sla' not in p.stderr(), p.stderr()
        train = n.run('train', '--class', 'besteffort')
        train.say('open', 0)
        train.say('load 5000', 0)
        p = n.run('p', '--class', 'latency', '--duty', '30%', '--sla', '1ms')
        p.say('open', 0)
        for _ in range(15):
            p.say('spin 1 50', 0)
        text = n.penstock('why', '--for', '50ms', 'p')      # late behind another's kernels, which are no hold
        train.end()                                         # nor is that forgotten
        wait_for(lambda: n.daemon.tenant('train') is None, 'its end')
        assert p.end() == 0 and 'it could have --sla' not in text + p.stderr(), text + p.stderr()


def test_unmanaged():
    """A program beside Penstock is seen, named, and its memory is not lent; one under it is not."""
    with Node() as n:
        p = n.run('p')
        p.say('open', 0)
        stranger = Program(n.card)
        stranger.say('open', 0)
        stranger.say(f'alloc {2 * GB}', 0)
        # its parent is no tenant: not attached, not watched
        wait_for(lambda: (n.device()['audit'] or {}).get('unknown'), 'it to be seen')
        v, = n.device()['audit']['unknown']
        assert v['pid'] == stranger.pid and v['mem_bytes'] >= 2 * GB
        assert f'process {stranger.pid} (cutenant) belongs to no tenant' in n.penstock('device', 'ls')
        wait_for(lambda: n.device()['audit']['mem_outside_bytes'] >= 2 * GB, 'it to count')
        status, e = n.daemon.create('big', memory='14G')
        assert status == 409 and '(no tenant)' in e['error']['message'], e
        assert stranger.ask('memory')[1] > 14 * GB                 # nobody's: it sees the card as it is


def test_exclusive():
    """An engine build that nobody disturbs."""
    with Node() as n:
        other = n.run('other')
        other.say('open', 0)
        other.say('load 300', 0)
        wait_for(lambda: other.ask('rounds')[0] > 20, 'it to run')
        build = n.run('build', '--exclusive')
        build.say('open', 0)
        build.say('spin 1 100', 0)
        wait_for(lambda: [h['reason'] for h in n.daemon.get('/v1/tenants/other/why')['holds']] == ['exclusive'], 'it to be held')
        was = other.ask('rounds')
        for _ in range(5):
            build.say('spin 5 200', 0)
        assert other.ask('rounds') == was
        build.end()
        wait_for(lambda: other.ask('rounds') > was, 'it to go on')


def test_doctor():
    """What doctor says of this driver."""
    with Node() as n:
        wait_for(lambda: n.device()['audit'], 'the first reading')
        checks = json.loads(n.penstock('doctor', '-o', 'json'))['checks']
        cuda = [c for c in checks if c['id'] == 'cuda']
        assert cuda and cuda[0]['status'] == 'ok' and '/run/penstock/cuda/' in cuda[0]['text'], checks
        assert not [c for c in checks if c['id'] in ('cuda-trim', 'cuda-view', 'cuda-driver', 'nvml')], checks
        assert any(c['id'] == 'audit' and c['status'] == 'ok' for c in checks), checks
        # by which mechanism each promise is kept on this driver
        promises = {p['field']: p for p in json.loads(n.penstock('doctor', '-o', 'json'))['promises']}
        assert set(promises) == {'memory', 'compute', 'class', 'bandwidth', 'sla', 'units', 'isolation'}
        assert {p['api'] for p in promises.values()} == {'cuda'} and promises['memory']['kind'] == 'exact'
        assert all('not yet run on hardware' in p['evidence'] for f, p in promises.items() if f != 'isolation')
        assert promises['units']['version'] == {'11.4': 11040, '12.2': 12020, '13.0': 13000}[VERSION]
        assert ('no green contexts' in promises['units']['mechanism']) == (VERSION != '13.0')
        assert ('cuStreamWaitValue32' in promises['class']['mechanism']) == (VERSION != '11.4')
        n.daemon.create('p')
        assert f'through CUDA {VERSION}, driver ' in n.penstock('inspect', 'p')


if __name__ == '__main__':
    VERSION = sys.argv.pop(1)
    fake.run(sys.modules[__name__])
