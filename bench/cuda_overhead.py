# SPDX-License-Identifier: Apache-2.0
"""cuda-overhead: what the shim adds to a call of the driver interface, on a stand-in driver that does nothing.

Arms: bare; the shim loaded without a contract; under a contract with limits on that are never reached. Launches by 1,
2, 4 and 8 threads, each in its own stream; launch + synchronise; a graph of one kernel; a copy of 64 bytes; an event;
cuMemGetInfo. The look-ups of a runtime's start: all of them, the first time in each process; loading the library is
timed by itself. cuInit: the first of each process.
"""
import arms
import cuda
from harness import Skip, Surroundings
from stats import Report, interval, median, pooled, table

COUNT, THREADS = 20000, (1, 2, 4, 8)
LAUNCH_LIMIT_NS, LOOKUPS_LIMIT, INIT_LIMIT_US = 15, 1.5, 100
PROGRAM = 'bench/cuapibench'
# kind -> count; printed, without a goal
ALSO = {'sync': COUNT, 'graph': COUNT, 'copy': COUNT, 'event': COUNT, 'info': COUNT, 'async': COUNT}


def added(a, b):
    return interval(lambda x, y: median(x) - median(y), a, b)


def rows_of(report, blocks, label):
    rows, bare = [], median(pooled(blocks['bare']))
    for way, b in blocks.items():
        v = median(pooled(b))
        report.figure(f'{label}, {way}', v, unit='ns')
        rows.append([f'{label}, {way}', f'{v:.1f}', f'{v - bare:+.1f}'])
    return rows


def start_up(bench, report, found, env, rounds):
    """Once in each process: a block is one sample, so the interval is over processes."""
    rows = []
    names = {'load': 'dlopen and first look-up', 'lookups': '440 look-ups', 'init': 'cuInit'}
    for kind, label in names.items():
        argv = ['--requests', cuda.requests_file(bench), '--repeat', 1] if kind == 'lookups' else []
        blocks = arms.interleave(bench, found, env, [kind, *argv], rounds, PROGRAM)
        rows += rows_of(report, blocks, label)
        if 'managed' not in blocks or kind == 'load':
            continue
        if kind == 'lookups':
            value = interval(lambda x, y: median(x) / median(y), blocks['managed'], blocks['bare'])
            report.goal('cuda-overhead: 440 look-ups / bare', *value, LOOKUPS_LIMIT)
        else:
            value = [x / 1000 for x in added(blocks['managed'], blocks['bare'])]
            report.goal('cuda-overhead: cuInit, added', *value, INIT_LIMIT_US, unit='us')
    return rows


def run(bench):
    report, device = Report(bench.name, bench.out, bench.full), cuda.Null(bench)
    around = Surroundings(bench, report)
    around.say('device', device.name)
    found, env = cuda.ways(bench, device), bench.env(device)
    rounds, repeats = (12, 100) if bench.full else (3, 40)
    rows = []
    for threads in THREADS:
        argv = ['launch', '--threads', threads, '--count', COUNT, '--repeat', repeats]
        blocks = arms.interleave(bench, found, env, argv, rounds, PROGRAM)
        rows += rows_of(report, blocks, f'launch, {threads} thread(s)')
        if 'managed' in blocks:
            report.goal(f'cuda-overhead: launch, {threads} thread(s), added', *added(blocks['managed'], blocks['bare']),
                        LAUNCH_LIMIT_NS, unit='ns')
    for kind, count in ALSO.items():
        try:
            blocks = arms.interleave(bench, found, env, [kind, '--count', count, '--repeat', repeats], rounds, PROGRAM)
        except RuntimeError as why:
            around.say(f'note: {kind}', str(why)[-120:])
            continue
        rows += rows_of(report, blocks, kind)
    try:
        rows += start_up(bench, report, found, env, 40 if bench.full else 8)
    except Skip as why:
        print(f'note: {why}')
    table(['call', 'ns, median', 'added'], rows)
    around.finish()
    report.save()
