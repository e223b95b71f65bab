# SPDX-License-Identifier: Apache-2.0
"""A penstockd of its own, a control API client and a fake tenant process that speaks the attach protocol by hand.

The struct formats repeat board/proto.h and board/layout.h on purpose: a test that shared the C headers would not notice
a change of the layout.
"""
import http.client
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

MAGIC = 0x414e4550
(HELLO, ADOPT, HELLO_REPLY, DEVICE, SEAT, MAPPED, READY, NEIGHBOUR, RESEND, DETACH) = range(1, 11)
SIZE = {HELLO: 16 + 32 + 8 + 4 + 4 + 16, ADOPT: 16 + 128 + 8 + 8, HELLO_REPLY: 16 + 8 + 128,
        DEVICE: 16 + 128 + 64 + 8 + 8, SEAT: 16 + 24 + 8 + 128, MAPPED: 24, READY: 24, NEIGHBOUR: 40, RESEND: 24, DETACH: 24}
BOUND = float(os.environ.get('PENSTOCK_TEST_BOUND', '20'))    # generous: a loaded machine, sanitizers
TERMS_BYTES, LEDGER_BYTES, SIGNAL_BYTES = 16384, 32768, 4096
LEASE_AT, EPOCH_AT, CLIENT_AT, CLIENT_BYTES = 128, 64, 256, 256
KEY = 'test:platform/device#0'


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost', timeout=BOUND)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(BOUND)
        self.sock.connect(self.path)


class Daemon:
    """One penstockd in a directory of its own. `env`, `args`: more of them."""
    wrapper = ()     # what starts it

    def __init__(self, *args, env=None, private=False, config=None, directory=None):
        self.dir = directory or tempfile.mkdtemp(prefix='pd-')
        self.own_dir = directory is None
        self.run, self.state = self.dir + '/r', self.dir + '/s'
        self.sock = self.run + '/penstock.sock'
        self.config = self.dir + '/penstock.yaml'
        if config is not None or not os.path.exists(self.config):
            with open(self.config, 'w', encoding='utf-8') as f:
                f.write(config or '')
        self.env, self.private, self.args = env or {}, private, list(args)
        self.proc = None
        self.log_path = self.dir + '/log'
        self.start()

    def start(self):
        exe = os.environ['PENSTOCKD']
        argv = [*self.wrapper, exe, '--runtime-dir', self.run, '--state-dir', self.state, '--http', 'none', '--log-level', 'debug',
                '--config', self.config, *self.args]
        if '--probe' not in self.args:
            argv.append('--no-probe')
        if self.private:
            argv.append('--private')
        with open(self.log_path, 'ab') as log:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.env})
        wait_for(lambda: self.proc.poll() is not None or self.answers(), 'the daemon to answer')
        assert self.proc.poll() is None, self.log()

    def answers(self):
        try:
            return self.get('/v1/version')['schema'] == 'penstock/v1'
        except OSError:
            return False

    def log(self):
        with open(self.log_path, encoding='utf-8', errors='replace') as f:
            return f.read()

    def request(self, method, path, body=None, raw=None):
        c = Unix(self.sock)
        c.request(method, path, raw if raw is not None else json.dumps(body) if body is not None else None)
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, json.loads(data) if 'json' in (r.getheader('Content-Type') or '') else data.decode()

    def get(self, path):
        return self.request('GET', path)[1]

    def create(self, name, **fields):
        extra = {k: fields.pop(k) for k in ('wait', 'pid', 'ephemeral') if k in fields}
        return self.request('POST', '/v1/tenants', {'contract': {'name': name, **fields}, **extra})

    def tenant(self, name):
        status, t = self.request('GET', '/v1/tenants/' + name)
        return t if status == 200 else None

    def place(self, name):
        return (self.tenant(name)['devices'] or [None])[0]

    def wait_event(self, kind, since=0, tenant=None):
        """The first event of a kind after `since`."""
        def find():
            for e in self.get(f'/v1/events?since={since}&limit=1000')['events']:
                if e['kind'] == kind and tenant in (None, e['tenant']):
                    return e
            return None
        return wait_for(find, 'event ' + kind)

    def last_event(self):
        return self.get('/v1/events?limit=1')['last']

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def stop(self):
        """Ends it. Returns its exit code."""
        if self.proc.poll() is None:
            self.proc.terminate()
        try:
            return self.proc.wait(BOUND)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close(self):
        if self.proc.poll() is None:
            assert self.stop() == 0, self.log()
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind:
            sys.stderr.write(self.log())
            self.kill()
            shutil.rmtree(self.dir, ignore_errors=True)
        else:
            self.close()


def wait_for(fn, what):
    """Asks until there is an answer: every condition here becomes true by an event, not by time."""
    until = time.monotonic() + BOUND
    while True:
        v = fn()
        if v:
            return v
        if time.monotonic() > until:
            raise AssertionError('waited in vain for ' + what)
        time.sleep(0.002)


def head(kind):
    return struct.pack('<IHHII', MAGIC, 1, 0, kind, SIZE[kind])


def text(s, n):
    return s.encode().ljust(n, b'\0')


def start_time(pid='self'):
    with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
        return int(f.read().rsplit(')', 1)[1].split()[19])


class Page:
    def __init__(self, fd, size, write=False):
        self.fd = fd
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if write else 0))

    def u32(self, at):
        return struct.unpack_from('<I', self.map, at)[0]

    def u64(self, at):
        return struct.unpack_from('<Q', self.map, at)[0]

    def put32(self, at, v):
        struct.pack_into('<I', self.map, at, v)

    def put64(self, at, v):
        struct.pack_into('<Q', self.map, at, v)


class Client:
    """A connection of this process (or of a child that runs this code)."""

    def __init__(self, directory):
        self.dir = directory
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.settimeout(BOUND)
        self.s.connect(directory + '/attach.sock')
        self.neighbours = {}

    def token(self):
        with open(self.dir + '/token', encoding='ascii') as f:
            return bytes.fromhex(f.read().strip())

    def send(self, data, fds=()):
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f'{len(fds)}i', *fds))] if fds else []
        self.s.sendmsg([data], anc)

    def recv(self):
        """(type, packet, descriptors); (0, b'', []) at a hang-up."""
        try:
            data, anc, _, _ = self.s.recvmsg(512, socket.CMSG_SPACE(12))
        except ConnectionResetError:
            return 0, b'', []
        fds = []
        for level, kind, blob in anc:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += struct.unpack(f'{len(blob) // 4}i', blob)
        return (struct.unpack_from('<I', data, 8)[0] if len(data) >= 16 else 0), data, fds

    def expect(self, kind):
        """Takes packets until one of that type; notes neighbours on the way."""
        while True:
            got, data, fds = self.recv()
            if got == NEIGHBOUR:
                self.note(data, fds)
            if got == kind:
                return data, fds
            assert got, f'hung up while waiting for packet {kind}'
            assert got == NEIGHBOUR, f'packet {got} instead of {kind}'

    def note(self, data, fds):
        _, seat, generation, epoch = struct.unpack_from('<QIIQ', data, 16)
        self.neighbours[seat] = (generation, fds[0])
        self.fds_epoch = epoch

    def hello(self, token=None, nadopt=0):
        self.send(head(HELLO) + (token or self.token()) + struct.pack('<QII', start_time(), os.getpid(), nadopt) + text('fake', 16))

    def greet(self, token=None):
        self.hello(token)
        data, _ = self.expect(HELLO_REPLY)
        return struct.unpack_from('<i', data, 16)[0]

    def ask(self, key=KEY, mem=1 << 30, units=4):
        self.send(head(DEVICE) + text(key, 128) + text('test model', 64) + struct.pack('<QII', mem, units, 0))

    def take_seat(self):
        data, fds = self.expect(SEAT)
        (self.status, self.seat, self.generation, self.slot, self.client, self.adopted,
         self.device_id) = struct.unpack_from('<iIIIIIQ', data, 16)
        if self.status < 0:
            return self.status
        self.fds = fds
        self.terms = Page(fds[0], TERMS_BYTES)
        if not self.adopted:
            self.ledger = Page(fds[1], LEDGER_BYTES, True)
            self.signal = Page(fds[2], SIGNAL_BYTES, True)
        return 0

    def ref(self, kind):
        self.send(head(kind) + struct.pack('<Q', self.device_id))

    def attach(self, key=KEY, **facts):
        assert self.greet() == 0
        self.ask(key, **facts)
        assert self.take_seat() == 0, self.status
        self.ref(MAPPED)
        self.expect(READY)
        return self

    # what the gate does
    def charge(self, n):
        at = CLIENT_AT + CLIENT_BYTES * self.client
        self.ledger.put64(at + 8, self.ledger.u64(at + 8) + 1)
        self.ledger.put64(64, self.ledger.u64(64) + n)
        self.ledger.put64(at + 24, self.ledger.u64(at + 24) + n)
        self.ledger.put64(at + 16, self.ledger.u64(at + 16) + 1)

    def busy(self, state):
        self.signal.put32(64, ((self.signal.u32(64) | 3) + 1 | state) & 0xffffffff)

    def lease(self):
        return self.terms.u64(LEASE_AT)

    def copy(self, at, fmt):
        """A field of the terms copy in force; at: offset in struct pen_terms."""
        copy_bytes = 8 + 192 + 24 * 128 + 8
        return struct.unpack_from(fmt, self.terms.map, 192 + copy_bytes * self.terms.u32(72) + 8 + at)[0]

    def seat_generation(self, seat):
        return self.copy(192 + 24 * seat, '<I')

    def close(self):
        self.s.close()


def child(fn, *args):
    """Runs fn(write, *args) in a child, which writes lines to the pipe. Returns (pid, readable file)."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(r)
            fn(lambda line: os.write(w, (line + '\n').encode()), *args)
        except BaseException as e:    # pylint: disable=broad-except
            os.write(w, f'failed: {e!r}\n'.encode())
        os._exit(0)
    os.close(w)
    return pid, os.fdopen(r)


def kill_child(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def run(module):
    """Runs every test_* of a module; names on the command line choose. One daemon per test."""
    names = sys.argv[1:] or [n for n in dir(module) if n.startswith('test_')]
    for n in names:
        began = time.monotonic()
        getattr(module, n)()
        print(f'ok {n} ({time.monotonic() - began:.1f} s)', flush=True)
