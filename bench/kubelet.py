# SPDX-License-Identifier: Apache-2.0
"""kubelet: from the moment that kubelet.sock appears to the first list of slots, and how long Allocate takes beside 64 tenants.

The kubelet is played by hand, frame by frame, since Python's gRPC alone takes longer than what is measured. Both times are taken
outside of the daemon and include this program's own part: the socket is bound and the list has been read; the request is sent and the
answer has been read.
"""
import http.client
import json
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile

from harness import HERE, Skip, Surroundings, now
from stats import Report, interval, median, pooled, quantile, table

sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'daemon'))

CARDS, PER_CARD = 4, 16
LIST_MS, ALLOCATE_MS = 10, 1
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8


def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + struct.pack('>BBI', kind, flags, stream) + payload


def literal(*fields):
    return b''.join(b'\0' + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in fields)


def request(stream, method, message):
    head = literal((':method', 'POST'), (':scheme', 'http'), (':path', method), (':authority', 'localhost'),
                   ('content-type', 'application/grpc'), ('te', 'trailers'))
    return frame(HEADERS, 4, stream, head) + frame(DATA, 1, stream, struct.pack('>BI', 0, len(message)) + message)


def field(number, data):
    """A length-delimited field of protobuf, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


class Wire:
    """Frames of one connection."""

    def __init__(self, s):
        self.s, self.buf = s, b''
        s.settimeout(30)

    def take(self, n):
        while len(self.buf) < n:
            more = self.s.recv(65536)
            if not more:
                raise RuntimeError('the other side hung up')
            self.buf += more
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def next(self):
        head = self.take(9)
        kind, flags, stream = struct.unpack('>BBI', head[3:])
        payload = self.take(int.from_bytes(head[:3], 'big'))
        if kind == SETTINGS and not flags & 1:
            self.s.sendall(frame(SETTINGS, 1, 0))
        if kind == DATA and payload:
            self.s.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack('>I', len(payload))))
        return kind, flags, stream, payload

    def message(self, stream):
        """The first message of a stream; its trailers, if it has any already, stay to be read."""
        body = b''
        while len(body) < 5 or len(body) < 5 + int.from_bytes(body[1:5], 'big'):
            kind, flags, sid, payload = self.next()
            if sid == stream and kind == DATA:
                body += payload
            elif sid == stream and kind == HEADERS and flags & 1:
                raise RuntimeError(f'refused: {payload!r}')
        return body[5:]

    def to_end(self, stream):
        while True:
            kind, flags, sid, _ = self.next()
            if sid == stream and kind in (DATA, HEADERS) and flags & 1:
                return


class Node:
    """penstockd with four made-up cards, and a directory in which a kubelet can appear."""

    def __init__(self, bench):
        self.dir = bench.tmp
        # Sockets and tenant directories lie in memory, as in /run; the database on the disk.
        self.run = tempfile.mkdtemp(prefix='penstock-bench-', dir='/dev/shm' if os.path.isdir('/dev/shm') else None)
        self.kubelet_dir = self.dir + '/k'
        os.makedirs(self.kubelet_dir)
        cards = [{'api': 'test', 'key': f'test:p/card{i}#0', 'model': 'Card', 'mem_bytes': 64 << 30, 'units': 80} for i in range(CARDS)]
        with open(self.dir + '/probe', 'w', encoding='utf-8') as f:
            f.write(f"#!/bin/sh\ncat <<'END'\n{json.dumps({'devices': cards, 'backends': []})}\nEND\n")
        os.chmod(self.dir + '/probe', stat.S_IRWXU)
        with open(self.dir + '/penstock.yaml', 'w', encoding='utf-8') as f:
            f.write(f'kubernetes:\n  enabled: true\n  directory: {self.kubelet_dir}\n  pods: none\n  profiles:\n'
                    '    - {name: bench, memory: 256M, compute: 1%, count: 60}\n')
        self.sock = self.run + '/penstock.sock'
        self.log = open(self.dir + '/log', 'wb')
        self.proc = bench.start([bench.program('src/daemon/penstockd'), '--config', self.dir + '/penstock.yaml', '--runtime-dir',
                                 self.run, '--state-dir', self.dir + '/state', '--http', 'none', '--probe', self.dir + '/probe'],
                                bench.env(), stdin=-3, stdout=self.log, stderr=self.log)
        from fake import wait_for    # pylint: disable=import-outside-toplevel
        wait_for(lambda: os.path.exists(self.sock) and len(self.ask('GET', '/v1/devices')['devices']) == CARDS, 'the daemon')
        status = self.ask('GET', '/v1/integrations')['integrations']['kubelet']
        if 'absent' in status:
            raise Skip(f'penstockd is built without the device plugin: {status["absent"]}')

    def ask(self, method, path, body=None):
        c = http.client.HTTPConnection('localhost')
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(self.sock)
        c.request(method, path, json.dumps(body) if body is not None else None)
        answer = json.loads(c.getresponse().read())
        c.close()
        return answer

    def rss_mib(self):
        with open(f'/proc/{self.proc.pid}/status', encoding='ascii') as f:
            return next(int(line.split()[1]) for line in f if line.startswith('VmRSS')) / 1024


def take_register(listener):
    """(connection, file name of the plugin's socket). A call may be given up for another one right behind it."""
    while True:
        w = Wire(listener.accept()[0])
        try:
            w.take(len(PREFACE))
            w.s.sendall(frame(SETTINGS, 0, 0))
            body = w.message(1)
        except (RuntimeError, OSError):
            continue
        at = body.index(b'\x12') + 1             # RegisterRequest.endpoint
        return w.s, body[at + 1:at + 1 + body[at]].decode()


def appear(node):
    """A kubelet starts. Return: (ms from the bind of its socket to the first list, the stream's connection, the plugin's path)."""
    path = node.kubelet_dir + '/kubelet.sock'
    for name in os.listdir(node.kubelet_dir):    # as it does
        os.unlink(os.path.join(node.kubelet_dir, name))
    with socket.socket(socket.AF_UNIX) as listener:
        t0 = now()
        listener.bind(path)
        listener.listen(8)
        listener.settimeout(30)
        conn, endpoint = take_register(listener)
    plugin = node.kubelet_dir + '/' + endpoint
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(plugin)
    lw = Wire(stream)
    stream.sendall(PREFACE + frame(SETTINGS, 0, 0) + request(1, '/v1beta1.DevicePlugin/GetDevicePluginOptions', b''))
    lw.to_end(1)                                 # within Register, as kubelets do
    conn.sendall(frame(HEADERS, 4, 1, b'\x88' + literal(('content-type', 'application/grpc'))) + frame(DATA, 0, 1, bytes(5)) +
                 frame(HEADERS, 5, 1, literal(('grpc-status', '0'))))
    stream.sendall(request(3, '/v1beta1.DevicePlugin/ListAndWatch', b''))
    devices = lw.message(3).count(b'Healthy')
    ms = (now() - t0) / 1e6
    if devices != CARDS * 60:
        raise RuntimeError(f'{devices} slots listed')
    conn.close()
    return ms, lw, plugin


class Allocator:
    def __init__(self, plugin):
        s = socket.socket(socket.AF_UNIX)
        s.connect(plugin)
        self.w, self.stream = Wire(s), 1
        s.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def allocate(self, ids):
        """(ms, the tenant's directory)"""
        message = field(1, b''.join(field(1, i.encode()) for i in ids))
        data = request(self.stream, '/v1beta1.DevicePlugin/Allocate', message)
        t0 = now()
        self.w.s.sendall(data)
        body = self.w.message(self.stream)
        ms = (now() - t0) / 1e6
        self.w.to_end(self.stream)
        self.stream += 2
        at = body.index(b'/run/penstock/tenant') + len(b'/run/penstock/tenant') + 1    # Mount.host_path
        return ms, body[at + 1:at + 1 + body[at]].decode()


def tenants(node, allocator):
    """64 tenants, each with a process's connection and commands on its card."""
    import fake    # pylint: disable=import-outside-toplevel
    clients = []
    for card in range(CARDS):
        for slot in range(PER_CARD):
            _, directory = allocator.allocate([f'g{card}-s{slot}'])
            c = fake.Client(directory).attach(f'test:p/card{card}#0')
            c.busy(3)
            clients.append(c)
    return clients


def run(bench):
    report = Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    node = Node(bench)
    blocks, per_block = (10, 30) if bench.full else (3, 10)
    lists, streams = [], []
    for _ in range(blocks):
        lists.append([])
        for _ in range(per_block):
            ms, wire, plugin = appear(node)
            lists[-1].append(ms)
            for s in streams:                    # the old kubelet's goes with it
                s.s.close()
            streams = [wire]
    allocator = Allocator(plugin)
    clients = tenants(node, allocator)
    times = []
    for block in range(blocks):
        times.append([])
        for i in range(per_block * 4):
            # Another slot each time, so that each is a new tenant: one that nobody has claimed is given again for nothing.
            card, slot = i % CARDS, PER_CARD + (i // CARDS + block) % 40
            ms, directory = allocator.allocate([f'g{card}-s{slot}'])
            times[-1].append(ms)
            node.ask('DELETE', '/v1/tenants/' + os.path.basename(directory))
    report.figure('resident memory of penstockd', node.rss_mib(), unit='MiB')
    around.finish()
    table(['ms', 'median', 'p90', 'p99', 'max', 'n'],
          [[what, *(f'{quantile(pooled(b), q):.3f}' for q in (0.5, 0.9, 0.99, 1)), len(pooled(b))]
           for what, b in (('first list after kubelet.sock', lists), ('Allocate beside 64 tenants', times))])
    print(f'  penstockd: {node.rss_mib():.1f} MiB resident, {len(clients)} tenants attached')
    report.figure('first list, median', median(pooled(lists)), unit='ms')
    report.figure('Allocate, median', median(pooled(times)), unit='ms')
    report.goal('kubelet: first list of slots after kubelet.sock appears, p99', *interval(lambda v: quantile(v, 0.99), lists), LIST_MS,
                unit='ms')
    report.goal('kubelet: Allocate beside 64 tenants, p99', *interval(lambda v: quantile(v, 0.99), times), ALLOCATE_MS, unit='ms')
    report.save()
    for c in clients:
        c.close()
    bench.stop(node.proc)
    node.log.close()
    shutil.rmtree(node.run, ignore_errors=True)
