# SPDX-License-Identifier: Apache-2.0
"""Memory that a tenant was guaranteed is there when it wants it, whatever its neighbours do in the meantime."""
import sys

import lib
from lib import CL_OUT_OF_MEMORY, MB, Stage, wait_for
from test_daemon import in_store

TOTAL, KEPT = 512, 200
DEVICE = {'NULLICD_MEM_MB': str(TOTAL), 'cost_ns': 0}


def used(node, *names):
    return sum(node.used(n) for n in names)


def greedy(s, names, processes):
    """Tenants without a limit, with several processes each."""
    where = [s.node.add(n) for n in names]
    return [s.program(w, **DEVICE) for w in where for _ in range(processes)]


def take_all(s, programs, names, piece=256 << 10):
    """All at once take what they get, with 16 threads each. Returns the most that they had together.

    A charge that a lowered limit makes its client take back at once may be seen for a moment: one piece a thread at most.
    """
    for p in programs:
        p.send(f'race 16 {piece} 20')
    most = 0
    while not all(lib.has_answer(p) for p in programs):
        most = max(most, used(s.node, *names) - 16 * len(programs) * piece)
    for p in programs:
        p.line()
    return max(most, used(s.node, *names))


def test_late():
    """Two tenants without a limit take everything, a third allocates late: it gets all that it was guaranteed."""
    with Stage() as s:
        kept = s.tenant('kept', {'memory': f'{KEPT}M..'}, **DEVICE)
        programs = greedy(s, ['a', 'b'], 3)
        for _ in range(3):
            most = take_all(s, programs, ['a', 'b'])
            assert most <= (TOTAL - KEPT) * MB, most / MB
            # all the rest was to be had
            assert most > 0.9 * (TOTAL - KEPT) * MB, most / MB
            kept.say(f'alloc {50 * MB}', '0 1')
            kept.say(f'alloc {50 * MB} 3', '0 3')
            assert used(s.node, 'a', 'b', 'kept') <= TOTAL * MB
            kept.say('free', '0')
            for p in programs:
                p.say('free', '0')
        # and the program that was refused is told why
        assert 'promised to other' in programs[0].stderr() + programs[1].stderr() + programs[2].stderr()
        assert s.node.wait_event('memory-refused')['tenant'] in ('a', 'b')
        suggestion = [s.node.get(f'/v1/tenants/{n}/why')['suggestion'] for n in ('a', 'b')]
        assert any('promised' in x for x in suggestion), suggestion


def test_moves():
    """What one borrower does not use another can have, at once; what is shown as the size stays the same."""
    with Stage() as s:
        kept = s.tenant('kept', {'memory': f'{KEPT}M'}, **DEVICE)
        a, b = greedy(s, ['a', 'b'], 1)
        size = (TOTAL - KEPT) * MB
        for one, other in ((a, b), (b, a), (a, b)):
            one.say(f'alloc {size // 4} 4', '0 4')            # all of it, in large pieces
            for p in (a, b):
                p.say('limit', str(size))
            other.say(f'alloc {MB}', f'{CL_OUT_OF_MEMORY} 0')
            kept.say(f'alloc {KEPT // 2 * MB} 2', '0 2')
            one.say('free', '0')
            kept.say('free', '0')


def test_new_contract():
    """A contract comes while others have borrowed: refused, naming them, while it could not be kept; set aside from then on."""
    with Stage() as s:
        node = s.node
        a, b = greedy(s, ['a', 'b'], 1)
        for p in (a, b):
            p.say(f'alloc {50 * MB} 4', '0 4')                # 400 MB
        status, answer = node.create('late', memory=f'{KEPT}M')
        assert status == 409 and "'a'" in answer['error']['message'] and "'b'" in answer['error']['message'], answer
        status, answer = node.create('late', memory=f'{KEPT}M', wait=True)
        assert status == 202, answer
        a.say('free', '0')
        wait_for(lambda: node.tenant('late')['state'] == 'idle', 'the contract')
        most = take_all(s, [a, b], ['a', 'b'])                # before it has a process
        assert most <= (TOTAL - KEPT) * MB, most / MB
        late = s.program(node.tenant('late')['dir'], **DEVICE)
        late.say(f'alloc {KEPT // 2 * MB} 2', '0 2')
        assert node.request('PATCH', '/v1/tenants/b', {'set': {'memory': '300M..'}})[0] == 409
        assert node.tenant('b')['contract']['memory'] == 'unlimited'


def test_contract_in_a_race():
    """Contracts come and go while others allocate and free as fast as they can: what was accepted is there."""
    with Stage() as s:
        node = s.node
        programs = greedy(s, ['a', 'b'], 2)
        accepted = 0
        for i in range(12):
            for p in programs:
                p.send(f'race 8 {MB} {10 * (i % 4)}')
            status, t = node.create(f'late{i}', memory=f'{KEPT}M')
            if status == 201:
                accepted += 1
                late = s.program(t['dir'], **DEVICE)
                late.say(f'alloc {KEPT // 2 * MB} 2', '0 2')
                assert used(node, 'a', 'b', f'late{i}') <= TOTAL * MB
                late.kill()
            for p in programs:
                p.line()
                p.say('free', '0')
            node.request('DELETE', f'/v1/tenants/late{i}')
            wait_for(lambda: not node.tenant(f'late{i}'), 'the end')
        assert accepted


def test_restart():
    """The daemon is killed while two have borrowed: what they have stays, and what is guaranteed is still kept free."""
    with Stage() as s:
        node = s.node
        kept = s.tenant('kept', {'memory': f'{KEPT}M..'}, **DEVICE)
        a, b = greedy(s, ['a', 'b'], 1)
        a.say(f'alloc {50 * MB} 3', '0 3')
        in_store(node, {a.pid: 150 * MB})
        node.kill()
        kept.say(f'alloc {50 * MB} 2', '0 2')                 # within its guarantee: nobody need be asked
        node.start()
        take_all(s, [a, b], ['a', 'b'])
        had = used(node, 'a', 'b')                            # not the most: who is not back counts at all that it may have
        assert had <= (TOTAL - KEPT) * MB and node.used('a') >= 150 * MB, (had / MB, node.used('a') / MB)
        assert had > 0.9 * (TOTAL - KEPT) * MB, had / MB
        kept.say(f'alloc {50 * MB} 2', '0 2')


if __name__ == '__main__':
    lib.run(sys.modules[__name__])
