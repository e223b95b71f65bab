# SPDX-License-Identifier: Apache-2.0
"""daemon: what penstockd itself costs with 64 tenants on four devices, how fast it answers, and that nothing of it grows.

Cards are made up by a script in the place of penstock-probe, tenants are connections of this program whose pages move as those of programs
at work do. CPU time is the kernel's account of the daemon's threads; times are taken here and include this program's own part.
"""
import gzip
import http.client
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time

from harness import HERE, Surroundings, now, session_cpu_ns
from stats import Report, interval, median, pooled, quantile, table

sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'daemon'))

CARDS, TENANTS, RUNNING = 4, 64, 16
CPU_PER_CENT, RSS_MIB, SCRAPE_KB, SCRAPE_MS, API_MS, ATTACHES, GROWTH_MIB, WARM_S = 2, 20, 50, 5, 5, 1000, 0.5, 75


def key(card):
    return f'test:p/card{card}#0'


class Node:
    """penstockd as a service runs it: read-only HTTP on TCP, database on the disk, sockets in memory."""

    def __init__(self, bench):
        self.bench, self.dir = bench, bench.tmp
        self.run = tempfile.mkdtemp(prefix='penstock-bench-', dir='/dev/shm' if os.path.isdir('/dev/shm') else None)
        cards = [{'api': 'test', 'key': key(i), 'model': 'Card', 'mem_bytes': 64 << 30, 'units': 80} for i in range(CARDS)]
        with open(self.dir + '/probe', 'w', encoding='utf-8') as f:
            f.write(f"#!/bin/sh\ncat <<'END'\n{json.dumps({'devices': cards, 'backends': []})}\nEND\n")
        os.chmod(self.dir + '/probe', stat.S_IRWXU)
        with open(self.dir + '/penstock.yaml', 'w', encoding='utf-8'):
            pass
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            self.port = s.getsockname()[1]
        self.sock, self.log = self.run + '/penstock.sock', open(self.dir + '/log', 'wb')
        self.proc = bench.start([bench.program('src/daemon/penstockd'), '--config', self.dir + '/penstock.yaml', '--runtime-dir', self.run,
                                 '--state-dir', self.dir + '/state', '--http', f'127.0.0.1:{self.port}', '--probe', self.dir + '/probe'],
                                bench.env(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        from fake import wait_for    # pylint: disable=import-outside-toplevel
        wait_for(lambda: os.path.exists(self.sock) and len(self.ask('GET', '/v1/devices')['devices']) == CARDS, 'the daemon')

    def connect(self):
        c = http.client.HTTPConnection('localhost')
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(self.sock)
        return c

    @staticmethod
    def call(c, method, path, body=None):
        c.request(method, path, json.dumps(body) if body is not None else None)
        answer = c.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f'{method} {path}: {data.decode()}')
        return data

    def ask(self, method, path, body=None):
        c = self.connect()
        data = self.call(c, method, path, body)
        c.close()
        return json.loads(data)

    def rss_mib(self):
        with open(f'/proc/{self.proc.pid}/status', encoding='ascii') as f:
            return next(int(line.split()[1]) for line in f if line.startswith('VmRSS')) / 1024

    def descriptors(self):
        return len(os.listdir(f'/proc/{self.proc.pid}/fd'))

    def end(self):
        self.bench.stop(self.proc)
        self.log.close()
        shutil.rmtree(self.run, ignore_errors=True)


class Tenants:
    """One process's connection each, all of which hold memory; those that run move their pages every few milliseconds."""

    def __init__(self, node):
        import fake    # pylint: disable=import-outside-toplevel
        self.clients, self.running, self.ending = [], 0, False
        for i in range(TENANTS):
            t = node.ask('POST', '/v1/tenants', {'contract': {'name': f'tenant-{i:02}', 'memory': '256M..1G', 'compute': '1%..',
                                                              'device': key(i % CARDS), **({'class': 'latency', 'sla': '50ms'} if i % 8 == 0 else {})}})
            c = fake.Client(t['dir']).attach(key(i % CARDS))
            c.charge(200 << 20)
            self.clients.append(c)
        self.at = fake.CLIENT_AT, fake.CLIENT_BYTES
        self.thread = threading.Thread(target=self.move, daemon=True)
        self.thread.start()

    def move(self):
        while not self.ending:
            time.sleep(0.004)
            for c in self.clients[:self.running]:
                c.busy(3)
                for field, by in ((6, 200_000), (7, 4)):    # device time, commands
                    at = self.at[0] + self.at[1] * c.client + 8 * field
                    c.ledger.put64(at, c.ledger.u64(at) + by)

    def run(self, n):
        for c in self.clients[n:self.running]:
            c.busy(0)
        self.running = n

    def end(self):
        self.ending = True
        self.thread.join()
        for c in self.clients:
            c.close()


def cpu(node, seconds, blocks):
    """Per cent of one core, a block each."""
    found = []
    for _ in range(blocks):
        t0, was = now(), session_cpu_ns(node.proc.pid)
        time.sleep(seconds)
        found.append([100 * (session_cpu_ns(node.proc.pid) - was) / (now() - t0)])
    return found


def scrape(node, n, blocks):
    """([ms] a block, KB on the wire, KB of text), as Prometheus asks."""
    c = http.client.HTTPConnection('127.0.0.1', node.port)
    times, wire, text = [], 0, 0
    for _ in range(blocks):
        times.append([])
        for _ in range(n):
            t0 = now()
            c.request('GET', '/metrics', headers={'Accept-Encoding': 'gzip'})
            answer = c.getresponse()
            data = answer.read()
            times[-1].append((now() - t0) / 1e6)
            wire = max(wire, len(data))
            text = len(gzip.decompress(data)) if answer.getheader('Content-Encoding') == 'gzip' else len(data)
            time.sleep(0.002)
    c.close()
    return times, wire / 1000, text / 1000


CALLS = {
    'GET tenants (64)': lambda i: ('GET', '/v1/tenants'),
    'GET one tenant': lambda i: ('GET', f'/v1/tenants/tenant-{i % TENANTS:02}'),
    'GET devices': lambda i: ('GET', '/v1/devices'),
    'GET why': lambda i: ('GET', f'/v1/tenants/tenant-{i % TENANTS:02}/why'),
    'POST tenant': lambda i: ('POST', '/v1/tenants', {'contract': {'name': f'new-{i}', 'memory': '64M', 'compute': '1%'}}),
    'PATCH tenant': lambda i: ('PATCH', f'/v1/tenants/new-{i}', {'set': {'memory': '96M'}}),
    'DELETE tenant': lambda i: ('DELETE', f'/v1/tenants/new-{i}'),
}


def api(node, n, blocks):
    """{call: [[ms] a block]}; each call as often as every other."""
    times = {call: [[] for _ in range(blocks)] for call in CALLS}
    c = node.connect()
    for block in range(blocks):
        for i in range(n):
            for call, of in CALLS.items():
                request = of(block * n + i)
                t0 = now()
                node.call(c, *request)
                times[call][block].append((now() - t0) / 1e6)
    c.close()
    return times


class Attacher:
    """Attaches to a card beside all who are there, and leaves. By hand: the time of this program counts as the daemon's."""

    def __init__(self, directory, device):
        import fake    # pylint: disable=import-outside-toplevel
        self.f, self.path = fake, directory + '/attach.sock'
        with open(directory + '/token', encoding='ascii') as f:
            token = bytes.fromhex(f.read().strip())
        self.hello = fake.head(fake.HELLO) + token + struct.pack('<QII', fake.start_time(), os.getpid(), 0) + fake.text('bench', 16)
        self.device = fake.head(fake.DEVICE) + fake.text(device, 128) + fake.text('Card', 64) + struct.pack('<QII', 64 << 30, 80, 0)

    def expect(self, s, kind):
        while True:
            data, fds, _, _ = socket.recv_fds(s, 512, 3)
            for fd in fds:
                os.close(fd)
            got = struct.unpack_from('<I', data, 8)[0] if len(data) >= 16 else 0
            if got == kind:
                return data
            if got != self.f.NEIGHBOUR:
                raise RuntimeError(f'packet {got} instead of {kind}')

    def once(self):
        f = self.f
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(self.path)
            s.send(self.hello)
            self.expect(s, f.HELLO_REPLY)
            s.send(self.device)
            seat = self.expect(s, f.SEAT)
            status, device_id = struct.unpack_from('<i', seat, 16)[0], seat[40:48]
            if status:
                raise RuntimeError(f'no seat: {status}')
            s.send(f.head(f.MAPPED) + device_id)
            self.expect(s, f.READY)
            s.send(f.head(f.DETACH) + device_id)


def attach(node, total, blocks):
    """([[a second] a block], growth in MiB, descriptors more)"""
    a = Attacher(node.ask('POST', '/v1/tenants', {'contract': {'name': 'coming-and-going'}})['dir'], key(0))
    for _ in range(5000):
        a.once()
    rss, fds, rates = node.rss_mib(), node.descriptors(), []
    for _ in range(blocks):
        t0 = now()
        for _ in range(total // blocks):
            a.once()
        rates.append([total // blocks / ((now() - t0) / 1e9)])
    until = time.monotonic() + 5                 # the last connections are closed a moment later
    while node.descriptors() > fds and time.monotonic() < until:
        time.sleep(0.05)
    return rates, node.rss_mib() - rss, node.descriptors() - fds


def run(bench):
    report = Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    node = Node(bench)
    tenants, began = Tenants(node), time.monotonic()
    blocks, seconds, n = (10, 6, 200) if bench.full else (3, 2, 40)
    use = {}
    for running in (0, RUNNING, TENANTS):
        tenants.run(running)
        time.sleep(1.5)
        use[running] = cpu(node, seconds, blocks)
    tenants.run(RUNNING)
    scrapes, wire, text = scrape(node, n, blocks)
    calls = api(node, n, blocks)
    # What each tenant has once, for its last minute and its last three hours, is there after a minute; only then can growth be told.
    time.sleep(max(0, began + WARM_S - time.monotonic()))
    rates, growth, more = attach(node, 10**6 if bench.full else 10**5, blocks)
    rss = node.rss_mib()
    around.finish()
    table(['ms', 'median', 'p90', 'p99', 'max', 'n'],
          [[what, *(f'{quantile(pooled(b), q):.3f}' for q in (0.5, 0.9, 0.99, 1)), len(pooled(b))]
           for what, b in (('scrape', scrapes), *calls.items())])
    for running, b in use.items():
        print(f'  CPU with {running} of {TENANTS} running: {median(pooled(b)):.2f} % of a core')
        report.figure(f'CPU with {running} of {TENANTS} running', median(pooled(b)), unit='%')
    print(f'  {rss:.1f} MiB resident; a scrape has {wire:.1f} KB, {text:.0f} KB of text; {median(pooled(rates)):.0f} attach and detach a second, '
          f'{growth:+.2f} MiB and {more:+} descriptors after them')
    both = [[x for b in calls.values() for x in b[i]] for i in range(blocks)]
    report.goal('daemon: CPU with all tenants running', *interval(median, use[TENANTS]), CPU_PER_CENT, unit='% of a core')
    report.goal('daemon: resident memory', rss, rss, rss, RSS_MIB, unit='MiB')
    report.goal('daemon: scrape on the wire', wire, wire, wire, SCRAPE_KB, unit='KB')
    report.goal('daemon: scrape, p99', *interval(lambda v: quantile(v, 0.99), scrapes), SCRAPE_MS, unit='ms')
    report.goal(f'daemon: control API, p99 while {RUNNING} run', *interval(lambda v: quantile(v, 0.99), both), API_MS, unit='ms')
    report.goal('daemon: attach and detach', *interval(median, rates), ATTACHES, at_least=True, unit='a second')
    report.goal('daemon: growth over all of them', growth, growth, growth, GROWTH_MIB, unit='MiB')
    report.goal('daemon: descriptors more after all of them', more, more, more, 0)
    report.save()
    tenants.end()
    node.end()
