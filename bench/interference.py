# SPDX-License-Identifier: Apache-2.0
"""interference: an urgent tenant beside a neighbour that saturates the device.

Urgent: 8 kernels of 1 ms, then clFinish; every 50 ms (a late request follows 100 us after the previous one), or
with Poisson arrivals of the same mean. Latency: first enqueue until clFinish returns; with Poisson arrivals
from the arrival, so that waiting for one's own previous request counts in every arm alike. Neighbours: kernels
of 0.2, 4 and 16 ms back to back, clFinish every 300 ms of work, fixed local size, one wave at most 250 us; or
hashcat, whose kernels cannot be cut. Arms, in an order drawn anew each round: urgent alone under Penstock,
twice (A/A control); alone natively; with each neighbour natively and under Penstock; each neighbour alone
natively and under Penstock.
"""
import statistics

from harness import NS, Device, Kernel, Surroundings, Tenant, cpu_within, now, together, units_within
from hashcat import Hashcat, warm
from stats import Report, interval, pooled, quantile, quantile_ratio, table

URGENT_KERNELS, URGENT_MS, INTERVAL_MS = 8, 1.0, 50.0
NEIGHBOURS_MS = (0.2, 4.0, 16.0)
LATENCY = ['--class', 'latency']
BEST_EFFORT = ['--class', 'besteffort']
LIMIT, KEEPS = 1.05, 0.95


class Plan:
    """Block length and rounds. Full: 1000 requests and more for each arm that is judged."""

    def __init__(self, full, neighbours):
        self.block_s = 3.0 if full else 2.0
        self.rounds = (18 if full else 2) if neighbours > 1 else (18 if full else 4)
        self.neighbour_s = 1.0


class Arms:
    """Latencies by arm, one list a block, and the neighbour's rates."""

    def __init__(self):
        self.latency, self.rate, self.duty = {}, {}, []

    def add(self, arm, blocks):
        self.latency.setdefault(arm, []).append(blocks)

    def add_rate(self, arm, rate):
        self.rate.setdefault(arm, []).append(rate)


def urgent_tenant(bench, device, arrivals, kernel, name, contract):
    options = ['--mode', arrivals, '--interval-ms', str(INTERVAL_MS), '--kernels', str(URGENT_KERNELS),
               '--cpu-bins', '500']
    return Tenant(bench, device, name, kernel, options, contract)


def latencies(rows, arrivals):
    return [(end - (release if arrivals == 'poisson' else start)) / 1e6 for release, start, end, _ in rows]


def cuttable(bench, cores, arrivals):
    device, report = Device(cores), Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    kernel = Kernel(bench, device, URGENT_MS, groups=16)
    shapes = {ms: Kernel(bench, device, ms) for ms in NEIGHBOURS_MS}
    kinds = ['native'] + (['penstock'] if bench.has_penstock() else [])
    contract = {'native': (None, None), 'penstock': (LATENCY, BEST_EFFORT)}
    urgent = {k: urgent_tenant(bench, device, arrivals, kernel, f'urgent-{k}', contract[k][0]) for k in kinds}
    neighbour = {}
    for k in kinds:
        for ms, shape in shapes.items():
            options = ['--mode', 'saturate', '--finish-every', str(max(1, round(300 / ms)))]
            neighbour[k, ms] = Tenant(bench, device, f'neighbour-{k}-{ms:g}', shape, options, contract[k][1])
    describe(report, around, device, kernel, shapes, arrivals)
    plan, spans = Plan(bench.full, len(shapes)), {}
    for round_ in range(plan.rounds):
        todo = [('alone', k, None) for k in kinds] + [('again', kinds[-1], None)]
        # the native arm is not judged: half the samples are enough
        todo += [('both', k, ms) for k in kinds for ms in shapes
                 if k == 'penstock' or round_ % 2 == 0 or not bench.full]
        todo += [('neighbour', k, ms) for k in kinds for ms in shapes]
        bench.rng.shuffle(todo)
        for what, k, ms in todo:
            tag = f'{what}-{k}-{ms}-{round_}'
            tenants = ([] if what == 'neighbour' else [urgent[k]]) + ([neighbour[k, ms]] if ms else [])
            seconds = plan.neighbour_s if what == 'neighbour' else plan.block_s
            spans[tag] = (what, k, ms, *together(tenants, seconds, tag, seed=1000 + round_))
    for t in [*urgent.values(), *neighbour.values()]:
        t.quit()
    arms = collect(spans, urgent, neighbour, arrivals, device)
    around.finish()
    conclude(report, bench, arms, kinds, list(shapes), lambda ms: f'{ms:g} ms', 0.0)
    report.save()


def collect(spans, urgent, neighbour, arrivals, device):
    arms = Arms()
    rows = {k: t.rows() for k, t in urgent.items()}
    cpu = {k: t.rows('.cpu') for k, t in urgent.items()}
    units = {k: t.rows() for k, t in neighbour.items()}
    for tag, (what, k, ms, start, stop) in spans.items():
        if what != 'neighbour':
            arms.add((what, k, ms), latencies(rows[k].get(tag, []), arrivals))
        if ms:
            arms.add_rate((what, k, ms), units_within(units[k, ms].get(tag, []), start, stop) / ((stop - start) / NS))
        if what == 'alone' and k == 'native':
            samples = cpu[k].get(tag, [])
            arms.duty.append((max(samples)[1] - min(samples)[1]) / (stop - start) / device.cores)
    return arms


def uncuttable(bench, cores, arrivals):
    device, report = Device(cores), Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    residual_ns = warm(bench, device)
    kernel = Kernel(bench, device, URGENT_MS, groups=16)
    kinds = ['native'] + (['penstock'] if bench.has_penstock() else [])
    contract = {'native': (None, None), 'penstock': (LATENCY, BEST_EFFORT)}
    urgent = {k: urgent_tenant(bench, device, arrivals, kernel, f'urgent-{k}', contract[k][0]) for k in kinds}
    describe(report, around, device, kernel, {}, arrivals)
    around.say('R, one command of hashcat alone', f'{residual_ns / 1e6:.2f} ms')
    arms, spans, outer = Arms(), {}, 4 if bench.full else 1
    # hashcat needs seconds to start, so it serves several blocks; full: 4 x 5 blocks of 3 s = 1200 requests an arm
    inner, block_s = (6, 3.0) if bench.full else (3, 2.0)
    for round_ in range(outer):
        for k in bench.rng.sample(kinds, len(kinds)):
            blocks = [('alone', urgent[k])] * inner + ([('again', urgent[k])] * inner if k == kinds[-1] else [])
            for i, (what, t) in enumerate(blocks):
                tag = f'{what}-{k}-{round_}-{i}'
                spans[tag] = (what, k, 'hashcat', *together([t], block_s, tag, seed=1000 + i % inner))
            h = Hashcat(bench, device, f'hashcat-{k}', contract[k][1])
            h.wait_busy()
            for i in range(inner):
                arms.add_rate(('neighbour', k, 'hashcat'), h.rate(1.0))
                t0, c0 = now(), h.cpu_ns()
                tag = f'both-{k}-{round_}-{i}'
                spans[tag] = ('both', k, 'hashcat', *together([urgent[k]], block_s, tag, seed=1000 + i))
                arms.add_rate(('both', k, 'hashcat'), (h.cpu_ns() - c0) / (now() - t0))
            h.stop()
    for t in urgent.values():
        t.quit()
    collect_urgent(arms, spans, urgent, arrivals, device)
    around.finish()
    conclude(report, bench, arms, kinds, ['hashcat'], str, residual_ns / 1e6)
    report.save()


def collect_urgent(arms, spans, urgent, arrivals, device):
    rows = {k: t.rows() for k, t in urgent.items()}
    cpu = {k: t.rows('.cpu') for k, t in urgent.items()}
    for tag, (what, k, ms, start, stop) in spans.items():
        arms.add((what, k, ms if what == 'both' else None), latencies(rows[k].get(tag, []), arrivals))
        if what == 'alone' and k == 'native':
            arms.duty.append(cpu_within(cpu[k][tag], start, stop) / (stop - start) / device.cores)


def describe(report, around, device, kernel, shapes, arrivals):
    pinned = ', worker pinned, host threads on another core' if device.cores == 1 else ''
    around.say('device', f'PoCL, {device.cores} core(s){pinned}')
    around.say('urgent', f'{URGENT_KERNELS} x {kernel.ns / 1e6:.3f} ms ({kernel.groups} groups of 64), '
               f'{arrivals} every {INTERVAL_MS:g} ms')
    for ms, shape in shapes.items():
        wave_us = shape.ns / 1000 * device.cores / shape.groups
        around.say(f'neighbour {ms:g} ms', f'{shape.ns / 1e6:.3f} ms ({shape.groups} groups of 64), '
                   f'one wave {wave_us:.0f} us')
    report.note('clFinish of neighbours', 'every 300 ms of work')


def row(arms, label, key, base, full):
    blocks = arms.latency.get(key)
    if not blocks:
        return None
    v, b = pooled(blocks), pooled(arms.latency[base])
    p = [quantile(v, q) for q in ((0.5, 0.9, 0.99) if full else (0.5, 0.9))]
    over = quantile(v, 0.99 if full else 0.9) / quantile(b, 0.99 if full else 0.9)
    return [label, len(v), *[f'{x:.2f}' for x in p], f'{max(v):.1f}', f'{over:.3f}']


def conclude(report, bench, arms, kinds, neighbours, name, residual_ms):
    last, full = kinds[-1], bench.full
    base, q, qname = ('alone', last, None), 0.99 if full else 0.9, 'P99' if full else 'P90'
    duty = statistics.mean(arms.duty)
    lines = [row(arms, f'alone, {k}', ('alone', k, None), base, full) for k in kinds]
    lines.append(row(arms, f'alone again, {last} (A/A)', ('again', last, None), base, full))
    lines += [row(arms, f'beside {name(m)}, {k}', ('both', k, m), base, full) for m in neighbours for k in kinds]
    table(['urgent, ms', 'n', 'P50', 'P90', *(['P99'] if full else []), 'max', f'{qname}/alone'],
          [x for x in lines if x])
    report.figure('A/A control, ' + qname, *quantile_ratio(arms.latency['again', last, None], arms.latency[base], q))
    print(f'the urgent tenant alone uses {100 * duty:.1f} % of the device')
    report.figure('urgent duty alone', duty)
    keeps = []
    for m in neighbours:
        for k in kinds:
            alone, both = arms.rate['neighbour', 'native', m], arms.rate['both', k, m]
            own = arms.rate['neighbour', k, m]
            value = interval(lambda a, b: statistics.mean(b) / (statistics.mean(a) * (1 - duty)), [[x] for x in alone],
                             [[x] for x in both])
            keeps.append((m, k, value))
            report.figure(f'{name(m)} keeps, {k}', *value)
            report.figure(f'{name(m)} alone, {k}', statistics.mean(own), unit='1/s')
    table(['neighbour', 'alone, 1/s', 'with urgent, 1/s', 'keeps of what is left'],
          [[f'{name(m)}, {k}', *[f'{statistics.mean(arms.rate[what, k, m]):.4g}' for what in ('neighbour', 'both')],
            f'{100 * v[0]:.1f} %'] for m, k, v in keeps])
    for m in neighbours:
        for k in kinds:
            judge(report, arms, ('both', k, m), base, q, qname, f'beside {name(m)}', residual_ms, k)
    for m, k, v in keeps:
        if k == 'penstock':
            report.goal(f'{bench.name}: {name(m)} keeps', *v, KEEPS, at_least=True)


def judge(report, arms, key, base, q, qname, what, residual_ms, kind):
    """Cuttable: P99 / alone. Not: (P99 - R) / alone, so that the limit stays the same number."""
    value = interval(lambda x, y: (quantile(x, q) - residual_ms) / quantile(y, q), arms.latency[key],
                     arms.latency[base])
    label = f'{report.name}: {qname} {what}' + (' less R' if residual_ms else '') + ' / alone'
    if kind == 'penstock':
        report.goal(label, *value, LIMIT)
    else:
        report.figure(label + ', native', *value)
