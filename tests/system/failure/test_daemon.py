# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed, stopped, slowed down or talked nonsense to, while programs run under it."""
import os
import random
import signal
import socket
import sqlite3
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
        idle.say('run 1', '0')
        assert node.clients('idle') == seats['idle']
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


def waited_in_vain(node):
    """How often a daemon has given up waiting for the clients of the one before."""
    return node.log().count('no longer waited for')


def in_store(node, held):
    """Waits until the store knows of processes, by pid, that they hold so many bytes."""
    def has():
        db = sqlite3.connect(f'file:{node.state}/penstock.db?mode=ro', uri=True)
        rows = dict(db.execute('SELECT pid, bytes FROM seat'))
        db.close()
        return all(rows.get(pid, -1) >= n for pid, n in held.items())
    wait_for(has, 'the store to know who holds what')


def test_idle_beyond_adoption():
    """Live processes that do not come back in the time that is waited for them still count, and lose nothing."""
    with Stage() as s:
        node = s.node
        # With one that is busy, which brings the tenant's account back, and without.
        pair, alone = node.add('pair', memory='256M'), node.add('alone', memory='256M')
        busy, idle, dying, hermit = s.program(pair), s.program(pair), s.program(pair), s.program(alone)
        busy.say(f'alloc {MB}', '0 1')
        dying.say(f'alloc {MB}', '0 1')
        dying.say('run 100', '0')
        for p in (idle, hermit):
            p.say(f'alloc {100 * MB}', '0 1')
        busy.say('load 1 20', '0')
        in_store(node, {idle.pid: 100 * MB, hermit.pid: 100 * MB})
        before = node.place('pair')['commands']
        node.kill()
        dying.kill()
        node.start()
        wait_for(lambda: node.clients('pair'), 'the busy one')
        wait_for(lambda: waited_in_vain(node), 'the end of the wait')
        assert node.used('pair') == 101 * MB and set(node.clients('pair')) == {busy.pid}
        assert node.place('pair')['commands'] >= before     # what the dead one had used counts on
        busy.say(f'alloc {156 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')         # more than is left
        busy.say(f'alloc {150 * MB}', '0 1')
        new = s.program(alone)
        new.say(f'alloc {157 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')
        new.say(f'alloc {100 * MB}', '0 1')
        assert node.used('alone') >= 200 * MB
        # One comes back, after all; to the account of the new one, which becomes exact.
        hermit.say('run 1', '0')
        assert set(node.clients('alone')) == {hermit.pid, new.pid} and node.used('alone') == 200 * MB
        hermit.say(f'alloc {57 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')
        assert node.request('PATCH', '/v1/tenants/alone', {'set': {'memory': '300M'}})[0] == 200
        wait_for(lambda: hermit.ask('limit') == str(300 * MB), 'new terms')
        hermit.say('free', '0')
        assert node.used('alone') == 100 * MB
        # The other dies without having been back.
        idle.kill()
        wait_for(lambda: node.used('pair') == 151 * MB, 'its memory')
        busy.say(f'alloc {100 * MB}', '0 1')


def test_first_call():
    """A program that was idle is back with all that it holds in its first call, under new terms; after any end of a daemon."""
    with Stage() as s:
        node = s.node
        calls = {'run': ('run 1', '0'), 'alloc': (f'alloc {41 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0'), 'limit': ('limit', str(60 * MB))}
        programs = {name: s.tenant(name, {'memory': '64M'}) for name in calls}
        for p in programs.values():
            p.say(f'alloc {20 * MB}', '0 1')
        settled(node)
        for orderly in (False, True):
            seats = {name: node.clients(name) for name in calls}
            if orderly:
                assert node.stop() == 0
            else:
                node.kill()
            node.start()
            for name in calls:
                assert node.request('PATCH', '/v1/tenants/' + name, {'set': {'memory': '60M'}})[0] == 200
            time.sleep(0.2)         # what idle means
            for name, p in programs.items():
                p.say(*calls[name])
                assert node.clients(name) == seats[name] and node.used(name) == 20 * MB, (orderly, node.tenant(name))
            for name, p in programs.items():
                assert node.request('PATCH', '/v1/tenants/' + name, {'set': {'memory': '64M'}})[0] == 200
                wait_for(lambda p=p: p.ask('limit') == str(64 * MB), 'the old limit')
            settled(node)
        for name, p in programs.items():
            assert 'denied' in p.stderr() if name == 'alloc' else p.stderr() == '', p.stderr()


def test_who_waits():
    """After a restart a new process waits for those of before only where they could take its tenant over a limit."""
    with Stage() as s:
        node = s.node
        where = {n: node.add(n, **f) for n, f in {'empty': {'memory': '64M'}, 'free': {}, 'full': {'memory': '64M'}}.items()}
        old = {n: s.program(w) for n, w in where.items()}
        for p in old.values():
            p.say(f'alloc {60 * MB}', '0 1')
            p.say('run 20', '0')
        before = node.place('empty')
        old['empty'].kill()
        wait_for(lambda: not node.clients('empty'), 'its end')
        settled(node)
        node.kill()
        node.start()
        full, since = s.program(where['full'], opened=False), node.last_event()
        full.send('open')
        node.wait_event('client-attached', since, 'full')
        for name in ('empty', 'free'):
            new = s.program(where[name])
            new.say(f'alloc {60 * MB}', '0 1')
            new.say('run 1', '0')
        # What was used by one that has died is use of the tenant, but not of this second.
        wait_for(lambda: node.place('empty')['commands'] >= before['commands'] + 1, 'both uses')
        after = node.place('empty')
        assert after['device_ns'] >= before['device_ns'] > 0 and after['share_ppm_1s'] <= 1100000, (before, after)
        assert not lib.has_answer(full)
        old['full'].kill()          # nobody is left who could hold anything
        assert full.line() == '0'
        full.say(f'alloc {60 * MB}', '0 1')
        assert not waited_in_vain(node)


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
