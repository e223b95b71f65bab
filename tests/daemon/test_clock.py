# SPDX-License-Identifier: Apache-2.0
"""Somebody sets the wall clock a day forward and a day back: what is displayed follows, what is promised does not move."""
import os
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


def test_set_forward_and_back():
    path = fake.tempfile.mktemp(prefix='pd-clock-')
    clock = Clock(path)
    asan = os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'
    env = {'LD_PRELOAD': os.environ['JUMP_CLOCK'], 'PENSTOCK_CLOCK': path, 'ASAN_OPTIONS': asan}
    try:
        with Daemon(env=env) as d:
            clients = [Client(d.create(n)[1]['dir']).attach() for n in ('a', 'b')]
            for i, wrong in enumerate((DAY, -DAY, 0)):
                clock.set(wrong)
                check_goes_on(d, clients, f'n{i}', wrong)
            clock.set(-DAY)                                        # ended, and started again yesterday
            assert d.stop() == 0
            d.start()
            assert d.tenant('a') and d.tenant('n2')
            assert abs(event_age(d, 'late') + DAY) < 3600
    finally:
        os.unlink(path)


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
