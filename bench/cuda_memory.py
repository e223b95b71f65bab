# SPDX-License-Identifier: Apache-2.0
"""cuda-memory: cuMemAlloc and cuMemFree of 256 bytes beside 0 to 100,000 live blocks, on a stand-in driver that does
nothing."""
import arms
import cuda
from harness import Surroundings
from stats import Report, interval, median, pooled, table

LIVE = (0, 1000, 10000, 100000)
LIMIT_NS = 150
FLAT = 1.25   # what is added beside 100,000 blocks, against none


def run(bench):
    report, device = Report(bench.name, bench.out, bench.full), cuda.Null(bench)
    around = Surroundings(bench, report)
    around.say('device', device.name)
    found, env = cuda.ways(bench, device), bench.env(device)
    rounds, repeats = (15, 20) if bench.full else (3, 8)
    rows, blocks = [], {}
    for live in LIVE:
        argv = ['alloc', '--live', live, '--count', 2000, '--repeat', repeats]
        blocks[live] = arms.interleave(bench, found, env, argv, rounds, 'bench/cuapibench')
        for way, b in blocks[live].items():
            v = median(pooled(b))
            report.figure(f'pair beside {live} live, {way}', v, unit='ns')
            rows.append([f'beside {live} live, {way}', f'{v:.0f}', f'{v - median(pooled(blocks[live]["bare"])):+.0f}'])
    table(['cuMemAlloc + cuMemFree', 'ns, median', 'added'], rows)
    around.finish()
    if 'managed' in found:
        for live in LIVE:
            value = interval(lambda m, b: median(m) - median(b), blocks[live]['managed'], blocks[live]['bare'])
            report.goal(f'cuda-memory: added beside {live} live blocks', *value, LIMIT_NS, unit='ns')
        first, last = blocks[LIVE[0]], blocks[LIVE[-1]]
        value = interval(lambda a, b, c, d: (median(a) - median(b)) / max(1.0, median(c) - median(d)),
                         last['managed'], last['bare'],
                         first['managed'], first['bare'])
        report.goal('cuda-memory: added beside 100,000 / added beside none', *value, FLAT)
    report.save()
