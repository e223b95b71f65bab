# SPDX-License-Identifier: Apache-2.0
"""Programs are killed, stopped, fork, replace themselves, race, or use OpenCL in ways that a gate could hang on."""
import os
import random
import signal
import sys
import time

import lib
from lib import CL_OUT_OF_MEMORY, MB, MS, Stage, wait_for

SLOW = 10       # a bound is the promised one times this: two cores that others use too


def test_killed_with_memory_and_turn():
    """SIGKILL at any moment under load: memory, seat and turn are free at once, the equal neighbour goes on."""
    rng = random.Random(2)
    with Stage() as s:
        node = s.node
        left = s.tenant('left')
        left.say('load sync', '0')
        where = node.add('killed', memory='64M')
        for _ in range(8):
            p = s.program(where)
            p.say(f'alloc {60 * MB}', '0 1')
            p.say('load sync', '0')
            p.goes_on(20)
            left.goes_on(20)
            time.sleep(rng.random() * 0.02)       # anywhere in its turn or outside it
            since = node.last_event()
            left.longest_ns()
            began = time.monotonic()
            p.kill()
            node.wait_event('client-gone', since, 'killed')
            wait_for(lambda: node.used('killed') == 0 and not node.clients('killed'), 'its memory and seat')
            took = time.monotonic() - began
            assert took < SLOW * 0.1, f'{took} s'
            left.goes_on(20)
            longest = left.longest_ns()
            assert longest < SLOW * 100 * MS, f'the neighbour stood still for {longest / 1e6} ms'


def alone_and_beside(s, fields, other_fields, loads):
    """Two programs under load: (program, other, rate of the program alone)."""
    p, other = s.tenant('p', fields), s.tenant('other', other_fields)
    p.say('load ' + loads[0], '0')
    p.goes_on(50)
    alone = p.rate(1)
    other.say('load ' + loads[1], '0')
    other.goes_on(20)
    p.goes_on(20)
    return p, other, alone


def stop_at_work(node, program, name, rng):
    """Stops it at any moment at which its page says that it is busy."""
    while True:
        time.sleep(rng.random() * 0.02)
        program.signal(signal.SIGSTOP)
        if node.place(name)['clients'][0]['busy'] == 'run':
            return
        program.signal(signal.SIGCONT)
        program.goes_on(1)


def passed_over(s, loads, fields, other_fields):
    """`other` stands still in the middle of its work, several times at any moment."""
    rng = random.Random(3)
    p, other, alone = alone_and_beside(s, fields, other_fields, loads)
    for _ in range(5):
        stop_at_work(s.node, other, 'other', rng)
        p.longest_ns()
        p.goes_on(50)
        longest = p.longest_ns()
        # passed over after 60 ms without progress
        assert longest < SLOW * 60 * MS, f'nothing for {longest / 1e6} ms'
        # and from then on as if it were alone
        wait_for(lambda: p.rate(0.3) > 0.6 * alone, 'the whole device')
        was = other.rounds()
        other.signal(signal.SIGCONT)
        wait_for(lambda: other.rounds() > was + 5, 'the other to go on')
        p.goes_on(5)


def test_urgent_stopped():
    """An urgent tenant that is SIGSTOPped says that it is busy and does nothing."""
    with Stage() as s:
        passed_over(s, ('sync', '4 5'), {'class': 'besteffort'}, {'class': 'latency', 'sla': '20ms'})


def test_equal_stopped():
    """The same of an equal neighbour, which holds the turn half of the time."""
    with Stage() as s:
        passed_over(s, ('sync', 'sync'), {}, {})


def device_ns(node, *names):
    return [node.place(n)['device_ns'] for n in names]


def test_never_synchronises():
    """Enqueue for ever without flush, finish or wait, on a driver that starts nothing unflushed: the equal keeps its half."""
    with Stage() as s:
        a = s.tenant('a')
        b = s.tenant('b', NULLICD_LAZY='1')
        a.say('load sync', '0')
        b.say('load never', '0')
        for p in (a, b):
            p.goes_on(200)
        before = device_ns(s.node, 'a', 'b')
        time.sleep(3)
        used = [y - x for x, y in zip(before, device_ns(s.node, 'a', 'b'))]
        assert min(used) > 0.3 * sum(used), used
        # and what it is charged is what it had: kernels of a millisecond
        rounds = b.rounds()
        total = s.node.place('b')['device_ns']
        assert 0.5 * MS < total / rounds < 2 * MS, (total, rounds)
        b.say('stop', '0')
        b.say('run 1', '0')


def took(program, command):
    began = time.monotonic()
    program.say(command, '0')
    return time.monotonic() - began


def test_user_event_late():
    """A user event is set only after 1,000 commands were enqueued behind it, beside a neighbour that wants the device."""
    with Stage() as s:
        a, b = s.tenant('a'), s.tenant('b')
        wanted = took(a, 'run 1000')
        assert took(a, 'userevent 1000') < 2.5 * wanted     # a gate that waits for what cannot run loses 10 ms each time
        b.say('load sync', '0')
        b.goes_on(20)
        a.say('userevent 1000', '0')
        b.goes_on(20)
        wait_for(lambda: s.node.place('a')['commands'] == 3000, 'all counted')


def test_wait_across_queues():
    """Queue B is full of what waits for a command of queue A that nobody has flushed; the driver is lazy."""
    with Stage() as s:
        a, b, plain = s.tenant('a', NULLICD_LAZY='1'), s.tenant('b'), s.tenant('plain')
        wanted = took(plain, 'run 1040')
        for command in ('run 1040', 'across'):      # as many kernels; who waits for what he has not flushed loses 10 ms each time
            assert took(a, command) < 2.5 * wanted, command
        b.say('load sync', '0')
        b.goes_on(20)
        a.say('across', '0')
        b.goes_on(20)


def test_enqueue_in_callback():
    """Bursts that fill the window are enqueued from the completion callback of the last, beside an equal under load."""
    with Stage() as s:
        a, b = s.tenant('a'), s.tenant('b')
        wanted = took(a, 'run 1000')
        assert took(a, 'callback 100') < 2.5 * wanted      # a gate that waits in the driver's callback loses 10 ms each time
        b.say('load sync', '0')
        b.goes_on(20)
        a.say('callback 20', '0')
        b.goes_on(20)
        a.say('run 1', '0')
        wait_for(lambda: s.node.place('a')['commands'] == 1000 + 1001 + 201 + 1, 'all counted')


def test_last_megabyte():
    """Four processes of 64 threads race for the last megabyte of their contract: all of it is had, and no more."""
    with Stage() as s:
        node = s.node
        where = node.add('a', memory='64M')
        four = [s.program(where, cost_ns=0) for _ in range(4)]
        four[0].say(f'alloc {63 * MB}', '0 1')
        piece = 64 << 10
        for p in four:
            p.send(f'race 64 {piece} 30')
        looks, most = 0, 0
        while not all(lib.has_answer(p) for p in four):
            most = max(most, node.used('a'))
            looks += 1
        kept = [int(p.line()) for p in four]
        assert most <= 64 * MB and looks > 3, (most, looks)
        assert sum(kept) == MB // piece, kept
        assert node.used('a') == 64 * MB
        assert node.place('a')['denials'] >= 4 * 64
        for p in four:
            p.say(f'alloc {piece}', f'{CL_OUT_OF_MEMORY} 0')
        for p in four:
            p.say('free', '0')
        assert node.used('a') == 0
        four[1].say(f'alloc {64 * MB}', '0 1')


def test_limit_lowered():
    """Memory below what is in use: refused; with --force new allocations stop until it fits. Under allocation load."""
    with Stage() as s:
        node = s.node
        p = s.tenant('a', {'memory': '512M'}, cost_ns=0)
        churn = s.program(node.tenant('a')['dir'], cost_ns=0)
        p.say(f'alloc {100 * MB}', '0 1')
        churn.send(f'race 8 {MB} 20000')        # in the middle of this
        status, answer = node.request('PATCH', '/v1/tenants/a', {'set': {'memory': '..32M'}})
        assert status == 409 and 'in use' in answer['error']['message'], answer
        assert node.tenant('a')['contract']['memory'] == '512M'
        assert node.request('PATCH', '/v1/tenants/a', {'set': {'memory': '..32M'}, 'force': True})[0] == 200
        wait_for(lambda: p.ask('alloc 4096') == f'{CL_OUT_OF_MEMORY} 0', 'the stop')
        assert int(churn.line()) == 0            # nothing was to be had
        assert node.used('a') >= 100 * MB
        p.say('run 1', '0')                      # what is there goes on
        p.say('limit', str(32 * MB))
        p.say('free', '0')
        wait_for(lambda: p.ask(f'alloc {32 * MB}') == '0 1', 'room again')
        p.say('alloc 4096', f'{CL_OUT_OF_MEMORY} 0')


def test_fork():
    """A child uses OpenCL after fork: a seat of its own, nothing of its parent's charged to it or freed by it."""
    with Stage() as s:
        node = s.node
        p = s.tenant('a', {'memory': '64M'}, cost_ns=0)
        p.say(f'alloc {40 * MB}', '0 1')
        p.say('run 10', '0')
        word, child = p.ask('fork').split()
        assert word == 'ready'
        p.say('free', '0')                       # the parent's buffers
        p.say('open', '0')
        p.say(f'alloc {20 * MB}', '0 1')
        p.say(f'alloc {20 * MB}', f'{CL_OUT_OF_MEMORY} 0')
        p.say('run 10', '0')
        assert set(node.clients('a')) == {p.pid, int(child)} and len(set(node.clients('a').values())) == 2
        assert node.used('a') == 60 * MB
        p.send('exit')
        assert p.line() == 'child 0'
        wait_for(lambda: node.used('a') == 40 * MB and set(node.clients('a')) == {p.pid}, 'the parent alone')
        p.say('run 10', '0')
        p.say('free', '0')
        assert node.used('a') == 0


def test_vfork_exec():
    """vfork and a new image of the program, as launchers do."""
    with Stage() as s:
        node = s.node
        p = s.tenant('a', {'memory': '64M'})
        p.say(f'alloc {40 * MB}', '0 1')
        word, child = p.ask('vfork').split()
        assert word == 'ready'
        p.say('open', '0')
        p.say(f'alloc {20 * MB}', '0 1')
        p.say('run 10', '0')
        assert set(node.clients('a')) == {p.pid, int(child)} and node.used('a') == 60 * MB
        p.send('exit')
        assert p.line() == 'child 0'
        wait_for(lambda: node.used('a') == 40 * MB, 'the parent alone')
        p.say('run 10', '0')


def test_exec_itself():
    """A program replaces itself under load: the same process attaches anew, what its old image held is free."""
    with Stage() as s:
        node = s.node
        left = s.tenant('left')
        p = s.tenant('a', {'memory': '64M'})
        left.say('load sync', '0')
        for _ in range(3):
            p.say(f'alloc {60 * MB}', '0 1')
            p.say('load sync', '0')
            p.goes_on(10)
            left.goes_on(10)
            p.say('exec', f'ready {p.pid}')
            p.say('open', '0')
            wait_for(lambda: node.used('a') == 0, 'the memory of the old image')
            assert set(node.clients('a')) == {p.pid}
            left.goes_on(10)
        p.say(f'alloc {60 * MB}', '0 1')
        p.say('run 5', '0')


def test_closefrom():
    """A program closes every descriptor from 3 up, in the middle of its work: it stays attached and keeps its account."""
    with Stage() as s:
        node = s.node
        p, left = s.tenant('a', {'memory': '64M'}), s.tenant('left')
        left.say('load sync', '0')
        p.say(f'alloc {40 * MB}', '0 1')
        p.say('load sync', '0')
        for _ in range(3):
            for x in (p, left):
                x.goes_on(20)
            p.say('closefrom', '0')
            for x in (p, left):
                x.goes_on(20)
            assert node.used('a') == 40 * MB
        p.say('stop', '0')
        p.say(f'alloc {20 * MB}', '0 1')
        p.say(f'alloc {20 * MB}', f'{CL_OUT_OF_MEMORY} 0')
        # neighbours that come later are seen, so they are waited for
        late = s.tenant('late')
        for x in (p, late):
            x.say('load sync', '0')
        for x in (p, late, left):
            x.goes_on(50)
        lib.share_equally(p, late, left)
        assert set(node.clients('a')) == {p.pid}
        left.say('stop', '0')                    # nobody else keeps the two apart
        lib.share_equally(p, late)
        p.kill()
        wait_for(lambda: node.used('a') == 0, 'its memory')


if __name__ == '__main__':
    lib.run(sys.modules[__name__])
