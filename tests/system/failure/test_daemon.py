# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed, stopped, slowed down or talked nonsense to, while programs run under it."""
import os
import random
import signal
import socket
import sys
import time

import lib
from lib import MB, Stage, fake, wait_for

SLOW = 10       # a bound is the promised one times this: two cores that others use too


def settled(node):
    wait_for(lambda: node.get('/v1/version')['store']['queued'] == 0, 'the store')


def test_killed_under_load():
    """SIGKILL and restart, under load, with an idle tenant that holds memory and does nothing that could bring it back."""
    with Stage() as s:
        node = s.node
        idle = s.tenant('idle', {'memory': '256M'})
        a, b = (s.tenant(n, {'memory': '512M'}) for n in 'ab')
        held = {'idle': 100 * MB, 'a': 30 * MB, 'b': 50 * MB}
        for program, name in ((idle, 'idle'), (a, 'a'), (b, 'b')):
            program.say(f'alloc {held[name]}', '0 1')
        for p in (a, b):
            p.say('load sync', '0')
        for p in (a, b):
            p.goes_on(50)
        before = {n: node.tenant(n) for n in held}
        seats = {n: node.clients(n) for n in held}
        assert len({seat for c in seats.values() for seat in c.values()}) == 3
        settled(node)
        for p in (a, b):
            p.longest_ns()
        node.kill()
        for p in (a, b):
            p.goes_on(50)           # waiters too: each of the two waits for the other's turn in every quantum
        for p in (a, b):
            longest = p.longest_ns()
            assert longest < SLOW * 200 * lib.MS, f'nothing for {longest / 1e6} ms'
        node.start()
        for n in 'ab':
            wait_for(lambda n=n: node.place(n) and node.clients(n) == seats[n], 'the same seats of ' + n)
        # It looks at its connection at its next use of OpenCL; until then it counts in full, or as it was.
        assert node.used('idle') in (0, held['idle'], 256 * MB)
        for p in (a, b):
            p.goes_on(50)
        wait_for(lambda: idle.ask('run 1') == '0' and node.clients('idle') == seats['idle'], 'the same seat of idle')
        idle.say(f'alloc {MB}', '0 1')
        held['idle'] += MB
        for n, bytes_ in held.items():
            after = node.tenant(n)
            assert node.used(n) == bytes_, (n, node.used(n))
            assert after['contract'] == before[n]['contract'] and after['created'] == before[n]['created']
            assert after['devices'][0]['device_ns'] >= before[n]['devices'][0]['device_ns']
            assert after['devices'][0]['commands'] >= before[n]['devices'][0]['commands']
        for p in (a, b, idle):
            assert p.stderr() == '', p.stderr()
        lib.share_equally(a, b)     # neither was left behind, and each sees the other
        assert node.request('PATCH', '/v1/tenants/a', {'set': {'memory': '700M'}})[0] == 200
        wait_for(lambda: a.ask('limit') == str(700 * MB), 'new terms')


def test_idle_beyond_adoption():
    """A live process that does not come back in the time that is waited for it still counts, and loses nothing."""
    with Stage() as s:
        node = s.node
        idle = s.tenant('idle', {'memory': '256M'})
        other = s.tenant('other', {'memory': '64M'})
        idle.say(f'alloc {100 * MB}', '0 1')
        settled(node)
        node.kill()
        node.start()
        other.say(f'alloc {MB}', '0 1')
        other.say('load 1 20', '0')
        wait_for(lambda: node.clients('other'), 'the other')
        began = time.monotonic()
        while time.monotonic() - began < 6:     # the daemon waits five seconds for clients
            time.sleep(0.2)
        wait_for(lambda: idle.ask('run 1') == '0' and node.clients('idle'), 'the idle one')
        wait_for(lambda: node.used('idle') == 100 * MB, 'its bytes')
        idle.say(f'alloc {157 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')     # more than is left
        idle.say(f'alloc {156 * MB}', '0 1')
        assert node.request('PATCH', '/v1/tenants/idle', {'set': {'memory': '300M'}})[0] == 200
        wait_for(lambda: idle.ask('limit') == str(300 * MB), 'new terms')
        idle.say('free', '0')
        wait_for(lambda: node.used('idle') == 0, 'nothing')


def test_stalled_disk():
    """Each fsync sleeps two seconds while the device is saturated: the lease never lapses, borrowed share is not dropped."""
    with Stage(env={'LD_PRELOAD': os.environ['SLOW_FSYNC']}) as s:
        node = s.node
        switch = node.dir + '/slow'
        assert node.stop() == 0
        node.env['PENSTOCK_SLOW_FSYNC'] = switch
        node.start()
        small = s.tenant('small', {'compute': '10%..'})
        watch = fake.Client(node.add('watch')).attach('test:watch/device#0')
        small.say('load sync', '0')
        small.goes_on(50)
        alone = small.rate(1)
        with open(switch, 'w', encoding='ascii'):
            pass
        rates, n, lapses = [], 0, 0
        until = time.monotonic() + 5
        while time.monotonic() < until:
            node.create(f'more{n}')                   # has to reach the disk
            n += 1
            was, began = small.rounds(), time.monotonic()
            for _ in range(50):
                lapses += watch.lease() < time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                time.sleep(0.01)
            rates.append((small.rounds() - was) / (time.monotonic() - began))
        with open(switch, encoding='ascii') as f:
            flushes = f.read().count('begin')
        os.unlink(switch)
        assert flushes >= 2, f'{flushes} flushes: the disk was not in the way'
        assert lapses == 0, f'{lapses} looks found no lease'
        # The guarantee is a tenth: a lease that lapsed would show as a tenth of the rate.
        assert min(rates) > 0.4 * alone, (alone, rates)
        watch.close()


def test_lease_lapses():
    """A daemon that stands still, or is killed: what was borrowed ends, what was guaranteed does not."""
    with Stage() as s:
        small = s.tenant('small', {'compute': '20%..'})
        small.say('load sync', '0')
        small.goes_on(50)
        alone = small.rate(1)

        def narrow():
            return 0 < small.rate(0.3) < 0.5 * alone
        s.node.proc.send_signal(signal.SIGSTOP)
        wait_for(narrow, 'the guarantee alone')
        stopped = small.rate(1)
        assert 0.1 * alone < stopped < 0.4 * alone, (alone, stopped)
        s.node.proc.send_signal(signal.SIGCONT)
        wait_for(lambda: small.rate(0.3) > 0.6 * alone, 'the whole device')
        s.node.kill()
        wait_for(narrow, 'the guarantee alone')
        small.goes_on(50)
        s.node.start()
        wait_for(lambda: small.rate(0.3) > 0.6 * alone, 'the whole device')


def test_ranks_stay():
    """Without a daemon an urgent tenant still comes first, and its neighbour waits no longer than a bound."""
    with Stage() as s:
        urgent = s.tenant('urgent', {'class': 'latency'})      # no target: a deadline would put it first among equals too
        rest = s.tenant('rest', {'class': 'besteffort'})
        urgent.say('load 4 1', '0')         # wants four fifths of the device: more than an equal would get
        urgent.goes_on(20)
        alone = urgent.rate(1)
        rest.say('load 20 0', '0')
        for p in (urgent, rest):
            p.goes_on(5)
        beside = urgent.rate(1)
        s.node.kill()
        time.sleep(0.3)                     # past the lease
        for p in (urgent, rest):
            p.longest_ns()
        without = urgent.rate(1)
        for p in (urgent, rest):
            p.goes_on(2)
            longest = p.longest_ns()
            # a burst of twenty takes the rest the longer, the less is left for it
            assert longest < SLOW * 200 * lib.MS, f'nothing for {longest / 1e6} ms'
        assert min(beside, without) > 0.75 * alone, (alone, beside, without)


def garbage(rng):
    return rng.choice((
        rng.randbytes(rng.randrange(1, 600)),
        b'GET /v1/tenants HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n' + rng.randbytes(100),
        b'POST /v1/tenants HTTP/1.1\r\nContent-Length: 30\r\n\r\n{"contract":{"name":"\xff\x00../../..',
        fake.head(rng.choice(list(fake.SIZE))) + rng.randbytes(rng.randrange(0, 300)),
        fake.head(fake.HELLO) + bytes(32) + rng.randbytes(32),
    ))


def test_garbage():
    """Random bytes on the control socket and on the tenants' sockets, for a while, from many connections."""
    rng = random.Random(1)
    with Stage() as s:
        a, b = s.tenant('a'), s.tenant('b')
        where = [s.node.sock] + [s.node.tenant(n)['dir'] + '/attach.sock' for n in 'ab']
        for p in (a, b):
            p.say('load sync', '0')
        for p in (a, b):
            p.goes_on(50)
        seats = {n: s.node.clients(n) for n in 'ab'}
        plain = a.rate(1) + b.rate(1)
        open_, sent, began, was = [], 0, time.monotonic(), a.rounds() + b.rounds()
        while time.monotonic() - began < 3:
            path = rng.choice(where)
            c = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if path.endswith('attach.sock') else socket.SOCK_STREAM)
            c.setblocking(False)
            try:
                c.connect(path)
                for _ in range(rng.randrange(1, 4)):
                    c.send(garbage(rng))
                    sent += 1
            except OSError:
                pass
            open_.append(c)
            if len(open_) > 40:
                open_.pop(rng.randrange(40)).close()
            time.sleep(0.002)
        during = (a.rounds() + b.rounds() - was) / (time.monotonic() - began)
        for c in open_:
            c.close()
        assert sent > 100 and during > 0.4 * plain / 2, (sent, plain, during)
        assert s.node.proc.poll() is None
        assert {n: s.node.clients(n) for n in 'ab'} == seats
        assert s.node.request('POST', '/v1/tenants', {'contract': {'name': 'after'}})[0] == 201
        for p in (a, b):
            p.goes_on(20)


if __name__ == '__main__':
    lib.run(sys.modules[__name__])
