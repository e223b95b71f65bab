# SPDX-License-Identifier: Apache-2.0
"""Several processes on one simulated card, each with the gate in its own libcuda.so.1: who goes first, and that nobody's work is
lost or changed by it.

Argument: the version of the stand-in driver.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_cuda as cuda                                        # noqa: E402  pylint: disable=wrong-import-position
from test_cuda import Node                                      # noqa: E402  pylint: disable=wrong-import-position
from fake import wait_for                                       # noqa: E402  pylint: disable=wrong-import-position

MS = 1000000
STALE = 60 * MS    # whoever says that it is busy, and does not move, is passed over after so long


def device_ns(n, *names):
    return [n.daemon.place(name)['device_ns'] for name in names]


def held(n, name, reason):
    return n.daemon.place(name)['held_ns'][reason]


def started(n, name, *options):
    p = n.run(name, *options)
    p.say('open', 0)
    return p


def grown(n, names, enough):
    """What each was charged while that of the first grew by as much."""
    was = device_ns(n, *names)
    wait_for(lambda: device_ns(n, names[0])[0] - was[0] >= enough, f'{names[0]} to get its time')
    return [now - then for now, then in zip(device_ns(n, *names), was)]


def test_urgent():
    """While an urgent tenant always has work, another one gets the floor; with nothing urgent about, all of the device."""
    with Node() as n:
        last = started(n, 'last', '--class', 'besteffort')
        last.say('load 300', 0)
        last.say('load 300', 0)
        wait_for(lambda: last.ask('rounds')[0] > 50, 'it to run')
        urgent = started(n, 'urgent', '--class', 'latency')
        urgent.say('load 300', 0)
        urgent.say('load 300', 0)
        wait_for(lambda: urgent.ask('rounds')[0] > 20, 'it to run')
        mine, its = grown(n, ('urgent', 'last'), 100 * MS)
        assert its * 4 < mine, (mine, its)
        assert held(n, 'last', 'rank') > held(n, 'urgent', 'rank')
        assert urgent.end() == 0
        grown(n, ('last',), 50 * MS)
        last.say('spin 5 100', 0)


def test_equals():
    """Two of one class have the same, whatever the length of their kernels."""
    with Node() as n:
        names = ('long', 'short')
        for name, us in zip(names, (800, 200)):
            p = started(n, name)
            p.say(f'load {us}', 0)
            p.say(f'load {us}', 0)
        wait_for(lambda: min(device_ns(n, *names)) > 20 * MS, 'both to run')
        a, b = grown(n, names, 150 * MS)
        assert a < 2 * b and b < 2 * a, (a, b)


def test_work_is_whole():
    """Copies, graphs and kernels of one while others load the card: all of it is done, and none of it changed."""
    with Node() as n:
        for name, options in (('equal', ()), ('urgent', ('--class', 'latency'))):
            p = started(n, name, *options)
            p.say('load 150', 0)
        p = started(n, 'p', '--memory', '1G')
        for size in (1, 4095, (1 << 20) + 1, (16 << 20) + 5):
            p.say(f'there {size}', 0)
        was = n.daemon.place('p')['commands']
        for _ in range(5):
            p.say('graph 20 20', 0)
        assert n.daemon.place('p')['commands'] - was == 5        # a graph is one command
        p.say('spin 100 10', 0)
        assert p.end() == 0


def test_host_work():
    """An urgent program that launches, and then makes no call: its neighbours go on when its work has ended."""
    rounds = 20
    with Node() as n:
        last = started(n, 'last', '--class', 'besteffort')
        last.say('load 100', 0)
        urgent = started(n, 'urgent', '--class', 'latency')
        urgent.say('spin 20 100', 0)
        was = held(n, 'last', 'rank')
        for _ in range(rounds):
            done, = last.ask('rounds')
            urgent.say('give 1 100', 0)
            wait_for(lambda done=done: last.ask('rounds')[0] > done + 1, 'the neighbour to go on')
        assert held(n, 'last', 'rank') - was < rounds * STALE / 6


def test_units():
    """Multiprocessors of its own, where the driver has green contexts."""
    with Node() as n:
        whole, part = n.run('whole'), n.run('part', '--units', '..10')
        whole.say('open 1', 0)
        part.say('open 1', 0)
        whole.say('units', 40)
        alone, = whole.ask('wide')
        confined, = part.ask('wide')
        if cuda.VERSION == '13.0':
            shown, = part.ask('units')
            assert 0 < shown <= 10 and confined > 2 * alone, (shown, confined, alone)
        else:
            part.say('units', 40)
            assert confined < 2 * alone, (confined, alone)
            # 470 does not tell how many there are: then there is nothing to be held to
            assert ('no green contexts' in part.stderr()) == (cuda.VERSION != '11.4'), part.stderr()
        for p in whole, part:
            p.say(f'there {3 << 20}', 0)
            p.say('graph 3 20', 0)
            assert p.end() == 0


if __name__ == '__main__':
    cuda.VERSION = sys.argv.pop(1)
    cuda.fake.run(sys.modules[__name__])
