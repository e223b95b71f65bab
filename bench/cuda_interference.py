# SPDX-License-Identifier: Apache-2.0
"""cuda-interference: an urgent tenant beside a neighbour that saturates a simulated accelerator, contexts sliced as
without MPS.

Urgent: an inference-like request (0.6 MB in, 40 kernels of 2 to 113 us, 4 kB out), every 12 ms or with Poisson
arrivals of that mean. Latency: from the arrival until cuStreamSynchronize returns. Neighbours: kernels of 5 ms,
copies of 64 MiB to the device, graphs of 40 kernels of 50 us, always several commands deep. Arms, in an order drawn
anew each round: urgent alone natively, and under Penstock twice (A/A control); with each neighbour natively and under
Penstock; each neighbour alone. R is what the neighbour has begun and cannot stop: a kernel, a graph, or a piece of a
copy. What a neighbour keeps is set against the ideal of time-sharing: its rate alone, times the part of the time that
the urgent one leaves by the server's count.

Copies really move the bytes, which the host cannot do at a card's rate and for its own work besides: with them the card
is four times slower than its file says, requests come four times less often, and all times are four times as long.
"""
import statistics

import cuda
from harness import NS, Surroundings, Tenant, together, units_within
from stats import Report, interval, pooled, quantile, quantile_ratio, table

URGENT, INTERVAL_MS = 'h2d:602112,k:2..113x40,d2h:4000', 12
LIMIT, KEEPS = 1.05, 0.88
PIECE = 1 << 20   # bytes of a copy that go at once
COPY_SCALE = 4
LATENCY, BEST_EFFORT = ['--class', 'latency'], ['--class', 'besteffort']
CONTRACTS = {'native': (None, None), 'penstock': (LATENCY, BEST_EFFORT)}


class Neighbour:
    """@residual_us: by the card's PCIe rate for a copy; @kernel_us: one kernel of it, printed beside."""

    def __init__(self, name, request, options, residual_us, kernel_us):
        self.name, self.request, self.options = name, request, options
        self.residual_us, self.kernel_us = residual_us, kernel_us

    def start(self, bench, device, kind):
        load = cuda.Load(bench, self.request, *self.options)
        return Tenant(bench, device, f'{self.name}-{kind}', load,
                      ['--mode', 'saturate', '--finish-every', '4', '--inflight', '4'],
                      CONTRACTS[kind][1])


def neighbours(pcie_bytes_per_s):
    """(scale of the card's times, neighbours at that scale)"""
    piece_us = COPY_SCALE * PIECE / pcie_bytes_per_s * 1e6
    return ((1, [Neighbour('5ms', 'k:5000', (), 5000, 5000), Neighbour('graphs', 'k:50x40', ('--graph',), 2000, 50)]),
            (COPY_SCALE, [Neighbour('copies', 'h2d:67108864', (), piece_us, piece_us)]))


class Samples:
    def __init__(self):
        self.latency, self.rate, self.duty = {}, {}, []

    def add(self, found, key, value):
        found.setdefault(key, []).append(value)


def busy(device, pids):
    """Time of the model, which the scale stretches."""
    return sum(p['busy_ns'] for p in cuda.truth_processes(device.truth()) if p['pid'] in pids)


def rounds(bench, device, arrivals, others, scale):
    """Blocks of all arms: spans by tag, and the tenants that ran them."""
    urgent = {k: Tenant(bench, device, f'urgent-{k}', cuda.Load(bench, URGENT),
                        ['--mode', arrivals, '--interval-ms', str(INTERVAL_MS * scale)], c[0])
              for k, c in CONTRACTS.items()}
    found = {(n.name, k): n.start(bench, device, k) for n in others for k in CONTRACTS}
    spans, duty, block_s = {}, [], (3.0 if bench.full else 1.5) * min(2, scale)   # full: 1000 requests in each arm
    for r in range(9 if bench.full else 2):
        todo = [('alone', 'native', None), ('alone', 'penstock', None), ('again', 'penstock', None)]
        todo += [('both', k, n.name) for n in others for k in CONTRACTS]
        todo += [('neighbour', 'native', n.name) for n in others]
        bench.rng.shuffle(todo)
        for what, k, name in todo:
            tag = f'{what}-{k}-{name}-{r}'
            tenants = ([] if what == 'neighbour' else [urgent[k]]) + ([found[name, k]] if name else [])
            pids = cuda.session_pids(urgent[k].p.pid)
            before = busy(device, pids)
            spans[tag] = (what, k, name, *together(tenants, block_s if what != 'neighbour' else 1.0, tag,
                                                   seed=1000 + r))
            if what == 'alone' and k == 'native':
                duty.append(scale * (busy(device, pids) - before) / (spans[tag][4] - spans[tag][3]))
    for t in [*urgent.values(), *found.values()]:
        t.quit()
    return urgent, found, spans, statistics.mean(duty)


def collect(urgent, found, spans):
    s = Samples()
    rows = {k: t.rows() for k, t in urgent.items()}
    units = {k: t.rows() for k, t in found.items()}
    for tag, (what, k, name, start, stop) in spans.items():
        if what != 'neighbour':
            s.add(s.latency, (what, k, name), [(end - release) / 1000 for release, _, end, _ in rows[k].get(tag, [])])
        if name:
            s.add(s.rate, (what, k, name), units_within(units[name, k].get(tag, []), start,
                                                        stop) / ((stop - start) / NS))
    return s


def run(bench, card, arrivals):
    report = Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    bench.penstock()
    around.say('urgent', f'{URGENT}, {arrivals} every {INTERVAL_MS} ms')
    for scale, others in neighbours(cuda.pcie_bytes_per_s(card)):
        note = f', times x {scale}' if scale > 1 else ''
        device = cuda.Simulated(bench, card, options=('--scale', str(scale)))
        around.say('device' if scale == 1 else 'device, with copies', device.name + note)
        urgent, found, spans, duty = rounds(bench, device, arrivals, others, scale)
        device.close()
        conclude(report, bench, collect(urgent, found, spans), others, duty, note)
    around.finish()
    report.save()


def conclude(report, bench, s, others, duty, note):
    q, qname = (0.99, 'P99') if bench.full else (0.9, 'P90')
    base = s.latency['alone', 'penstock', None]

    def row(label, key):
        v = pooled(s.latency[key])
        return [label, len(v), *[f'{quantile(v, x):.0f}' for x in (0.5, 0.9, 0.99)], f'{max(v):.0f}',
                f'{quantile(v, q) / quantile(pooled(base), q):.3f}']
    rows = [row('alone, native', ('alone', 'native', None)), row('alone, penstock', ('alone', 'penstock', None)),
            row('alone again, penstock (A/A)', ('again', 'penstock', None))]
    rows += [row(f'beside {n.name}, {k}', ('both', k, n.name)) for n in others for k in CONTRACTS]
    table(['urgent, us', 'n', 'P50', 'P90', 'P99', 'max', f'{qname}/alone'], rows)
    report.figure(f'A/A control, {qname}{note}', *quantile_ratio(s.latency['again', 'penstock', None], base, q))
    report.figure(f'alone under Penstock / alone natively, {qname}{note}',
                  *quantile_ratio(base, s.latency['alone', 'native', None], q))
    print(f'the urgent tenant alone uses {100 * duty:.1f} % of the device')
    rows = []
    for n in others:
        for k in CONTRACTS:
            keeps = interval(lambda a, b: statistics.mean(b) / (statistics.mean(a) * (1 - duty)),
                             [[x] for x in s.rate['neighbour', 'native', n.name]],
                             [[x] for x in s.rate['both', k, n.name]])
            rows.append([f'{n.name}, {k}', f'{statistics.mean(s.rate["both", k, n.name]):.4g}',
                         f'{100 * keeps[0]:.1f} %'])
            over = interval(lambda x, y, r=n.residual_us: (quantile(x, q) - r) / quantile(y, q),
                            s.latency['both', k, n.name], base)
            label = f'{bench.name}: {qname} beside {n.name} less R ({n.residual_us:.0f} us) / alone'
            if k == 'native':
                report.figure(f'{qname} beside {n.name} / alone, native',
                              *quantile_ratio(s.latency['both', k, n.name], base, q))
                report.figure(f'{n.name} keeps, native', *keeps)
            else:
                report.goal(label, *over, LIMIT)
                report.figure(f'{qname} beside {n.name} / alone',
                              *quantile_ratio(s.latency['both', k, n.name], base, q))
                if n.kernel_us != n.residual_us:
                    strict = interval(lambda x, y, r=n.kernel_us: (quantile(x, q) - r) / quantile(y, q),
                                      s.latency['both', k, n.name], base)
                    report.figure(f'{qname} beside {n.name} less one kernel of it / alone', *strict)
                report.goal(f'{bench.name}: {n.name} keeps', *keeps, KEEPS, at_least=True)
    table(['neighbour', 'with urgent, 1/s', 'keeps of the ideal'], rows)
