# SPDX-License-Identifier: Apache-2.0
"""A penstockd of one's own, OpenCL programs under its contracts, and how fast they get on.

Programs are tenant.c on the null driver (its kernels last as long as NULLICD_COST_NS says, whatever the machine does),
with the real layer. Each process has a null device of its own, so what makes neighbours wait is Penstock alone.
"""
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'daemon'))
import fake                                                     # noqa: E402  pylint: disable=wrong-import-position
from fake import BOUND, Daemon, wait_for                        # noqa: E402,F401  pylint: disable=wrong-import-position

MB = 1 << 20
MS = 1000000
CL_NO_DEVICE = -1
CL_NO_PLATFORM = -1001
CL_OUT_OF_MEMORY = -4


class Node(Daemon):
    """A system daemon as a test starts it, with one directory for its programs' files."""

    def add(self, name, **fields):
        status, t = self.create(name, **fields)
        assert status == 201, (status, t)
        return t['dir']

    def used(self, name):
        place = self.place(name)
        return place['mem_used_bytes'] if place else 0

    def clients(self, name):
        """{pid: seat}"""
        place = self.place(name)
        return {c['pid']: c['seat'] for c in place['clients']} if place else {}


class Program:
    """tenant.c under the contract of a tenant directory. `cost_ns`: of its kernels; `managed`: told where its tenant is."""

    def __init__(self, folder, where, cost_ns=MS, managed=True, layer=True, prefix=(), opened=True, **env):
        self.progress_path = tempfile.mktemp(dir=folder, prefix='progress-')
        with open(self.progress_path, 'wb') as f:
            f.write(bytes(32))
        with open(self.progress_path, 'r+b') as f:
            self.words = mmap.mmap(f.fileno(), 32)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('PENSTOCK_', 'OPENCL_LAYERS', 'NULLICD'))}
        clean.update(OCL_ICD_VENDORS=os.environ['NULLICD_ICD'], NULLICD_COST_NS=str(cost_ns), PROGRESS=self.progress_path,
                     HOME=folder, LC_ALL='C')
        if layer:
            clean['OPENCL_LAYERS'] = os.environ['LAYER']
        if managed:
            clean['PENSTOCK_TENANT'] = where
        self.err_path = self.progress_path.replace('progress', 'stderr')
        with open(self.err_path, 'wb') as err:
            self.proc = subprocess.Popen([*prefix, os.environ['TENANT']], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
                                         env={**clean, **env}, bufsize=0)
        self.buffer = b''
        word, pid = self.line().split()
        assert word == 'ready'
        self.pid = int(pid)
        if opened:
            self.say('open', '0')

    def line(self):
        until = time.monotonic() + BOUND
        while b'\n' not in self.buffer:
            left = until - time.monotonic()
            got, _, _ = select.select([self.proc.stdout], [], [], max(left, 0))
            data = os.read(self.proc.stdout.fileno(), 4096) if got else b''
            if not data:
                raise AssertionError(('ended' if got else 'no answer in time') + ': ' + self.stderr())
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line.decode()

    def send(self, command):
        self.proc.stdin.write(command.encode() + b'\n')

    def ask(self, command):
        self.send(command)
        return self.line()

    def say(self, command, wanted):
        got = self.ask(command)
        assert got == wanted, f'{command}: {got!r} instead of {wanted!r}; {self.stderr()}'

    def stderr(self):
        with open(self.err_path, encoding='utf-8', errors='replace') as f:
            return f.read()

    # the load thread's words
    def rounds(self):
        return struct.unpack_from('<Q', self.words, 0)[0]

    def longest_ns(self):
        """Between two rounds, since it was asked last."""
        v = struct.unpack_from('<Q', self.words, 16)[0]
        struct.pack_into('<Q', self.words, 16, 0)
        return v

    def failure(self):
        """What ended the load, or 0."""
        return struct.unpack_from('<q', self.words, 24)[0]

    def goes_on(self, n=20):
        """Waits until that many more rounds are done."""
        was = self.rounds()
        wait_for(lambda: self.rounds() >= was + n, f'{n} more rounds')

    def rate(self, seconds=0.5):
        """Rounds a second over a stretch of time."""
        was, began = self.rounds(), time.monotonic()
        time.sleep(seconds)
        return (self.rounds() - was) / (time.monotonic() - began)

    def signal(self, sig):
        os.kill(self.pid, sig)

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def end(self):
        """Returns its exit code."""
        self.proc.stdin.close()
        return self.proc.wait(BOUND)


def share_equally(*programs, seconds=1.0):
    """
    Programs with `load sync` and kernels of a millisecond: each has its part, and all together have no more than one device.
    Their null devices are one for each process, so two that do not see each other would have two.
    """
    was, began = [p.rounds() for p in programs], time.monotonic()
    time.sleep(seconds)
    rates = [(p.rounds() - w) / (time.monotonic() - began) for p, w in zip(programs, was)]
    assert min(rates) > 0.5 * max(rates), rates
    assert sum(rates) < 1150, rates
    return rates


class Stage:
    """A node with programs on it; everything ends with the block."""

    def __init__(self, *args, **kw):
        self.node = Node(*args, **kw)
        self.programs = []

    def program(self, where, **kw):
        p = Program(self.node.dir, where, **kw)
        self.programs.append(p)
        return p

    def tenant(self, name, fields=None, **kw):
        """A new contract and a program under it."""
        return self.program(self.node.add(name, **(fields or {})), **kw)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        for p in self.programs:
            if p.proc.poll() is None:
                for pid in {p.pid, p.proc.pid}:
                    try:
                        os.kill(pid, signal.SIGCONT)
                    except ProcessLookupError:
                        pass
                p.kill()
            if kind:
                sys.stderr.write(f'program {p.pid}: {p.stderr()}\n')
        self.node.__exit__(kind, *rest)


def has_answer(program):
    """A line can be read from it, or it has ended."""
    return b'\n' in program.buffer or bool(select.select([program.proc.stdout], [], [], 0)[0])


def run(module):
    """Runs every test_* of a module; names on the command line choose."""
    fake.run(module)
