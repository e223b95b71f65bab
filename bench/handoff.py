# SPDX-License-Identifier: Apache-2.0
"""handoff: two equal tenants take turns with synchronous kernels on a one-core device.

From the device stamps of both (PoCL stamps all processes with one clock of the host): the gap from the last END
of one tenant to the first START of the other, where the other one had already asked before that END; less the
gap between two kernels within one tenant that runs alone. Compared with a futex ping-pong between two processes
pinned as the tenants' host threads are.
"""
import re
import subprocess

from harness import Device, Kernel, Skip, Surroundings, Tenant, together
from stats import Report, interval, median, pooled, quantile, table

KERNEL_MS, LIMIT = 1.0, 1.25


def gaps_within(rows):
    """END -> START of neighbouring launches of one tenant, us."""
    rows = sorted(rows, key=lambda r: r[1])
    return [(b[1] - a[2]) / 1000 for a, b in zip(rows, rows[1:])]


def gaps_across(a, b, offset):
    """END -> START where the owner changes and the new one was waiting. @offset: host clock less device clock, ns."""
    rows = sorted([(*r, 0) for r in a] + [(*r, 1) for r in b], key=lambda r: r[1])
    return [(y[1] - x[2]) / 1000 for x, y in zip(rows, rows[1:])
            if x[3] != y[3] and y[1] >= x[2] and y[0] < x[2] + offset]


def clock_offset(rows):
    """START follows the enqueue: the least difference over many launches is the clocks' offset, to some 20 us."""
    return min(start - enqueued for enqueued, start, _ in rows) * -1


def futex_us(bench, device, gap_us, count):
    cpus = device.all - 1 if device.cores == 1 else -1
    argv = [bench.program('bench/futexpp'), '--cpu-a', str(cpus), '--cpu-b', str(cpus), '--count', str(count)]
    r = subprocess.run([*argv, '--gap-us', str(gap_us)], capture_output=True, text=True, timeout=120, check=True)
    return int(re.search(r'p50 (\d+)', r.stdout).group(1)) / 1000


def run(bench):
    report, device = Report(bench.name, bench.out, bench.full), Device(1)
    around = Surroundings(bench, report)
    if not bench.has_penstock():
        raise Skip('tenants take turns only under Penstock')
    kernel = Kernel(bench, device, KERNEL_MS, groups=16)
    options = ['--mode', 'saturate', '--finish-every', '1', '--events']
    pair = [Tenant(bench, device, f'equal-{i}', kernel, options, ['--class', 'normal']) for i in range(2)]
    rounds, block_s = (20, 2.0) if bench.full else (4, 1.5)
    futex = []
    for r in range(rounds):
        together(pair, block_s, f'both-{r}')
        together(pair[:1], block_s, f'alone-{r}')
        futex.append([futex_us(bench, device, 1000, 200 if bench.full else 100)])
    for t in pair:
        t.quit()
    rows = [t.rows('.events') for t in pair]
    across, within = [], []
    for r in range(rounds):
        a, b, alone = rows[0][f'both-{r}'], rows[1][f'both-{r}'], rows[0][f'alone-{r}']
        across.append(gaps_across(a, b, clock_offset(a)))
        within.append(gaps_within(alone))
    around.finish()
    if not pooled(across):
        raise RuntimeError('the two tenants never took turns')
    table(['us', 'n', 'P50', 'P90', 'P99'],
          [[label, len(pooled(x)), *[f'{quantile(pooled(x), q):.1f}' for q in (0.5, 0.9, 0.99)]] for label, x in
           (('across tenants', across), ('within one tenant', within), ('futex, one way', futex))])
    value = interval(lambda x, y, f: (median(x) - median(y)) / median(f), across, within, futex)
    report.figure('hand-over less gap within', median(pooled(across)) - median(pooled(within)), unit='us')
    report.figure('futex one way', median(pooled(futex)), unit='us')
    report.goal('handoff: (across - within) / futex', *value, LIMIT)
    report.save()
