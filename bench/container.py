# SPDX-License-Identifier: Apache-2.0
"""container-start: what a contract adds to `podman run`, from the command to its end, with a program that does nothing.

Arms alternate, one start each, in an order drawn anew for each round; what is judged is the median of the differences within rounds. The root
file system is this machine's, below an overlay, as in tests/system/test_podman.py.
"""
import os
import sys

from harness import HERE, Skip, Surroundings, now
from stats import Report, interval, median, pooled, quantile, table

ADDED_MS = 20


def containers(bench):
    """The helpers of the tests with podman, for what this build has."""
    os.environ.update(PENSTOCKD=bench.program('src/daemon/penstockd'), PENSTOCK=bench.penstock(), CLLOAD=bench.program('bench/clload'),
                      LAYER=os.path.join(bench.build, 'src/shim/opencl/libpenstock-opencl.so'), BUILD=bench.build)
    sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'system'))
    import test_podman    # pylint: disable=import-outside-toplevel
    why = test_podman.why_not()
    if why:
        raise Skip(why)
    return test_podman


def start(tp, options):
    t0 = now()
    r = tp.podman('run', '--rm', *options, '--rootfs', '/:O', 'true')
    ms = (now() - t0) / 1e6
    if r.returncode:
        raise RuntimeError(f'podman: {r.stderr.strip()}')
    return ms


def alloc_and_start(tp, node, name):
    """As an operator types it: the contract is made for this container."""
    t0 = now()
    options = node.alloc(name, '--memory', '64M', '--compute', '30%')
    ms = (now() - t0) / 1e6 + start(tp, options)
    node.cli('end', name)
    return ms


def run(bench):
    report = Report(bench.name, bench.out, bench.full)
    tp = containers(bench)
    around = Surroundings(bench, report)
    blocks, rounds = (8, 8) if bench.full else (2, 5)
    with tp.Node() as node:
        options = node.alloc('standing', '--memory', '64M', '--compute', '30%')
        count = 0

        def allocated():
            nonlocal count
            count += 1
            return alloc_and_start(tp, node, f'made-{count}')
        arms = {'plain': lambda: start(tp, []), 'under a contract': lambda: start(tp, options),
                'with `penstock alloc` before it': allocated, 'plain, again': lambda: start(tp, [])}
        for arm in arms.values():                # what is made once, and files that are read once
            arm()
        times = {name: [[] for _ in range(blocks)] for name in arms}
        for block in range(blocks):
            for _ in range(rounds):
                order = list(arms)
                bench.rng.shuffle(order)
                for name in order:
                    times[name][block].append(arms[name]())
        around.finish()
        table(['ms', 'median', 'p90', 'max', 'n'],
              [[name, *(f'{quantile(pooled(b), q):.1f}' for q in (0.5, 0.9, 1)), len(pooled(b))] for name, b in times.items()])

        def added(name):
            return [[x - y for x, y in zip(a, b)] for a, b in zip(times[name], times['plain'])]
        for name in list(arms)[1:]:
            value, low, high = interval(median, added(name))
            print(f'  {name}: {value:+.1f} ms [{low:+.1f}, {high:+.1f}]')
            report.figure(f'{name}, added', value, low, high, unit='ms')
        report.goal('container-start: a contract adds', *interval(median, added('under a contract')), ADDED_MS, unit='ms')
        report.goal('container-start: `penstock alloc` and a contract add', *interval(median, added('with `penstock alloc` before it')), ADDED_MS,
                    unit='ms')
    report.save()
