# SPDX-License-Identifier: Apache-2.0
"""Somebody sets the wall clock a day forward and a day back: what is displayed follows, what is promised does not move."""
import contextlib
import os
import sqlite3
import struct
import sys
import time

import fake
from fake import Client, Daemon, wait_for

DAY = 86400


def mono():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Clock:
    def __init__(self, path):
        self.path = path
        self.set(0)

    def set(self, seconds):
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, struct.pack('<q', seconds), 0)
        os.close(fd)


def event_age(d, name):
    """By how many seconds the daemon's displayed time is away from the real one."""
    since = d.last_event()
    assert d.create(name)[0] == 201
    return d.wait_event('tenant-created', since=since, tenant=name)['time'] - time.time()


def check_goes_on(d, clients, name, wrong):
    lease, epoch = clients[0].lease(), clients[0].terms.u64(fake.EPOCH_AT)
    assert lease > mono()
    assert abs(event_age(d, name) - wrong) < 3600, 'the clock was not set'
    for i in range(50):    # ticks: no lease is let go
        wait_for(lambda: clients[0].lease() != lease, 'the next lease')
        lease = clients[0].lease()
        assert mono() - fake.BOUND * 1e9 < lease < mono() + fake.BOUND * 1e9
        assert all(c.lease() > mono() for c in clients), i
    assert clients[0].terms.u64(fake.EPOCH_AT) >= epoch
    for t in 'a', 'b':
        assert len(d.tenant(t)['devices'][0]['clients']) == 1, d.tenant(t)
    clients.append(Client(d.tenant(name)['dir']).attach())    # and programs attach
    assert d.get('/v1/version')['store']['errors'] == 0


@contextlib.contextmanager
def clocked():
    """A daemon and the wall clock that it sees."""
    path = fake.tempfile.mktemp(prefix='pd-clock-')
    clock = Clock(path)
    asan = os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'
    env = {'LD_PRELOAD': os.environ['JUMP_CLOCK'], 'PENSTOCK_CLOCK': path, 'ASAN_OPTIONS': asan}
    try:
        with Daemon(env=env) as d:
            yield d, clock
    finally:
        os.unlink(path)


def test_set_forward_and_back():
    with clocked() as (d, clock):
        clients = [Client(d.create(n)[1]['dir']).attach() for n in ('a', 'b')]
        for i, wrong in enumerate((DAY, -DAY, 0)):
            clock.set(wrong)
            check_goes_on(d, clients, f'n{i}', wrong)
        clock.set(-DAY)                                        # ended, and started again yesterday
        assert d.stop() == 0
        d.start()
        assert d.tenant('a') and d.tenant('n2')
        assert abs(event_age(d, 'late') + DAY) < 3600


def test_queue():
    """Who waited first is first, also if he came "tomorrow", and the daemon was started again in between."""
    with clocked() as (d, clock):
        def holder(say, where):
            Client(where).attach()
            say('here')
            fake.signal.pause()
        pid, out = fake.child(holder, d.create('holder', memory='600M')[1]['dir'])
        assert out.readline() == 'here\n'
        out.close()
        for name, wrong in (('first', DAY), ('second', -DAY), ('third', 0)):
            clock.set(wrong)
            assert d.create(name, memory='600M', wait=True)[0] == 202
        wait_for(lambda: d.get('/v1/version')['store']['queued'] == 0, 'the store')
        clock.set(-DAY)
        d.kill()
        d.start()
        assert d.create('fourth', memory='600M', wait=True)[0] == 202
        assert len([t for t in d.get('/v1/tenants')['tenants'] if t['state'] == 'waiting']) == 4
        fake.kill_child(pid)
        d.request('DELETE', '/v1/tenants/holder')
        for name in ('first', 'second', 'third', 'fourth'):
            wait_for(lambda n=name: d.tenant(n)['state'] == 'idle', name)
            assert [t['name'] for t in d.get('/v1/tenants')['tenants'] if t['state'] != 'waiting'] == [name]
            d.request('DELETE', '/v1/tenants/' + name)


def a_second(d):
    """Passes in the daemon: the stream that is told each second has been told twice."""
    c = fake.Unix(d.sock)
    c.request('GET', '/v1/stream')
    answer, told = c.getresponse(), 0
    while told < 2:
        told += answer.readline().startswith(b'event: tenants')
    c.close()


def test_usage():
    """Every command is in one minute or another, also where a minute comes twice."""
    def kept():
        db = sqlite3.connect(f'file:{d.state}/penstock.db?mode=ro', uri=True)
        n = db.execute('SELECT sum(commands) FROM usage').fetchone()[0]
        db.close()
        return n or 0
    with clocked() as (d, clock):
        c = Client(d.create('a')[1]['dir']).attach()
        at = fake.CLIENT_AT + fake.CLIENT_BYTES * c.client + 8 * 7          # commands
        a_second(d)
        done = 0
        for wrong in (DAY, 0, 60):
            c.ledger.put64(at, c.ledger.u64(at) + 5)
            done += 5
            clock.set(wrong)
            wait_for(lambda: kept() == done, f'{done} at {wrong}')
        assert d.get('/v1/version')['store']['errors'] == 0


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
