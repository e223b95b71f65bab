# SPDX-License-Identifier: Apache-2.0
"""
What the daemon writes to a disk, scaled to a day: a promise of docs/THREATS.md, since edge nodes have flash. Minutes are made short by setting
the clock that the daemon sees. What its database copies out of its log later is counted as much again, which is the most that it can be.
"""
import os
import sys
import time

import fake
from fake import Client, Daemon, wait_for
from test_clock import Clock
from test_power import BYTES, Disk

N, MINUTES, DAY = 64, 3, 1440
MB = 1 << 20
LIMIT = 64 * MB
# Promised, in MB a day.
IDLE, ACTIVE, FLOOD = 100, 250, 2000


class Watched:
    """A daemon with 64 tenants of one process each, and what it writes."""

    def __init__(self):
        self.disk = Disk()
        path = self.disk.dir + '/clock'
        self.clock = Clock(path)
        self.minutes = 0
        env = {**self.disk.env, 'LD_PRELOAD': os.environ['JUMP_CLOCK'] + ':' + self.disk.env['LD_PRELOAD'], 'PENSTOCK_CLOCK': path}
        self.daemon = Daemon(directory=self.disk.dir, env=env)

    def __enter__(self):
        self.daemon.__enter__()
        self.clients = []
        for i in range(N):
            where = self.daemon.create(f't{i:02}', memory=f'..{LIMIT // MB}M')[1]['dir']
            self.clients.append(Client(where).attach(mem=64 << 30))
            self.clients[-1].charge(MB)
        self.settle()
        self.minute()
        return self

    def __exit__(self, *what):
        self.daemon.__exit__(*what)
        self.disk.remove()

    def settle(self):
        wait_for(lambda: self.daemon.get('/v1/version')['store']['queued'] == 0, 'the store')

    def minute(self, work=None):
        """One passes, and what is due for it is written."""
        if work:
            for c in self.clients:
                work(c)
        self.minutes += 1
        self.clock.set(60 * self.minutes)
        rows = self.daemon.get('/v1/version')['store']['written']
        wait_for(lambda: self.daemon.get('/v1/version')['store']['written'] >= rows + N, 'the rows of a minute')
        self.settle()

    def written(self, work=None):
        """MB a day."""
        before = self.disk.get(BYTES)
        for _ in range(MINUTES):
            self.minute(work)
        return 2 * (self.disk.get(BYTES) - before) / MINUTES * DAY / 1e6


def add(c, field, n):
    at = fake.CLIENT_AT + fake.CLIENT_BYTES * c.client + 8 * field
    c.ledger.put64(at, c.ledger.u64(at) + n)


def busy(c):
    """A minute of a busy tenant; its memory rises faster than can go on: after a sixteenth of the limit sixteen times a row is due again in ten minutes."""
    add(c, 6, 10**9)                     # device time
    add(c, 7, 1000)                      # commands
    c.charge(LIMIT // 8)


def test_a_day():
    with Watched() as w:
        idle = w.written()
        active = w.written(busy)
        print(f'   64 idle tenants: {idle:.0f} MB a day, 64 busy ones: {active:.0f} MB a day')
        assert 0 < idle < IDLE and idle <= active < ACTIVE, (idle, active)


def test_flood():
    """Processes that come and go as fast as they can: events of it are left out, and counted, before they wear out a disk."""
    with Watched() as w:
        d = w.daemon

        def flood(n):
            for _ in range(n):
                pid = os.fork()
                if pid == 0:
                    try:
                        Client(w.clients[0].dir).attach(mem=64 << 30)
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
        flood(300)                       # what is written in any case
        w.settle()
        before, began = w.disk.get(BYTES), time.monotonic()
        left_out = d.get('/v1/version')['store']['left_out']
        while time.monotonic() - began < 4:
            flood(50)
        w.settle()
        a_day = 2 * (w.disk.get(BYTES) - before) / (time.monotonic() - began) * 86400 / 1e6
        print(f'   a flood of processes: {a_day:.0f} MB a day')
        assert a_day < FLOOD, a_day
        assert d.get('/v1/version')['store']['left_out'] > left_out


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
