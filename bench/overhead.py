# SPDX-License-Identifier: Apache-2.0
"""overhead: what the layer adds to a call: not loaded, loaded but unmanaged, managed with limits on.

Null driver: streams of 20,000 enqueues by 1, 2, 4 and 8 threads, and enqueue + finish. PoCL: the same two.
Instructions of one enqueue and of one enqueue + finish: the difference of two counts under callgrind, which no
other load disturbs.
"""
import re
import shutil

import arms
from harness import POCL, Device, Skip, Surroundings
from stats import Report, interval, median, pooled, table

STREAM, THREADS = 20000, (1, 2, 4, 8)
STREAM_LIMIT_NS, SYNC_LIMIT_NS = 15, 1000


def added(a, b):
    return interval(lambda x, y: median(x) - median(y), a, b)


def instructions(bench, way, env, kind):
    """Instructions of one call: counts 1000 calls apart, so that start-up cancels."""
    more, contract = way
    total = []
    for count in (500, 1500):
        argv = ['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null', bench.program('bench/apibench'), kind,
                '--count', str(count), '--repeat', '1']
        r = arms.run(bench, argv, {**env, **more}, contract)
        m = re.search(r'Collected : (\d+)', r.stderr)
        if not m:
            raise RuntimeError('callgrind printed no count')
        total.append(int(m.group(1)))
    return (total[1] - total[0]) / 2000  # a warm-up and one repeat: each count runs twice


def rows_of(report, blocks, label, limit):
    """A table row for each way; the goal is about the managed one."""
    rows = []
    for way, b in blocks.items():
        v = median(pooled(b))
        report.figure(f'{label}, {way}', v, unit='ns')
        rows.append([f'{label}, {way}', f'{v:.1f}', f'{added(b, blocks["bare"])[0]:+.1f}'])
    if 'managed' in blocks and limit:
        report.goal(f'overhead: {label}, added', *added(blocks['managed'], blocks['bare']), limit, unit='ns')
    return rows


def run(bench):
    report = Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    found = arms.ways(bench)
    rounds, repeats = (12, 100) if bench.full else (3, 40)  # a repeat on the null driver is 0.1 ms
    null = bench.env(None, OCL_ICD_VENDORS=arms.null_icd(bench))
    rows = []
    for threads in THREADS:
        argv = ['stream', '--threads', threads, '--count', STREAM, '--repeat', repeats]
        blocks = arms.interleave(bench, found, null, argv, rounds)
        rows += rows_of(report, blocks, f'null driver, stream, {threads} thread(s)', STREAM_LIMIT_NS)
    blocks = arms.interleave(bench, found, null, ['sync', '--count', STREAM, '--repeat', repeats], rounds)
    rows += rows_of(report, blocks, 'null driver, enqueue + finish', SYNC_LIMIT_NS)
    device = Device(2)
    pocl = bench.env(device, OCL_ICD_VENDORS=POCL)
    for kind, count, limit in (('stream', STREAM, 0), ('sync', 2000, SYNC_LIMIT_NS)):
        argv = [kind, '--count', count, '--repeat', 5 if bench.full else 2]
        rows += rows_of(report, arms.interleave(bench, found, pocl, argv, rounds), f'PoCL, {kind}', limit)
    table(['call', 'ns, median', 'added'], rows)
    around.finish()
    count_instructions(bench, report, found, null)
    report.save()


def count_instructions(bench, report, found, env):
    if not shutil.which('valgrind'):
        print('note: valgrind is not installed, instructions are not counted')
        return
    rows = []
    for kind in ('stream', 'sync'):
        for way, how in found.items():
            try:
                n = instructions(bench, how, env, kind)
            except (RuntimeError, Skip) as why:
                print(f'note: no count for {way}: {why}')
                continue
            report.figure(f'instructions, {kind}, {way}', n)
            rows.append([f'null driver, {kind}, {way}', f'{n:.0f}'])
    table(['instructions of one call', ''], rows)
