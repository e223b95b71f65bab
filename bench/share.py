# SPDX-License-Identifier: Apache-2.0
"""share: tenants that are always backlogged get what they are entitled to, on a one-core device.

Truth is the CPU time of the device's worker threads, read by each load generator from the kernel's clock of its
own threads every 50 ms. Entitled = guarantee / sum of guarantees x what one native tenant alone gets out of the
device (blocks in between), so that device time lost to switching counts against Penstock. Errors: the largest
over all tenants and all windows of 1 s (step 100 ms), as a part of the device; over the whole block of 10 s,
relative to the entitled share. The first second of a block does not count: shares are judged while backlogged,
not at start-up. Taking up and giving back: largest lag within 0.5 s behind the rate that is reached afterwards,
from the moment of leaving or return.
"""
import statistics

from harness import NS, Device, Kernel, Skip, Surroundings, Tenant, cpu_within, now, together, units_within
from stats import Report, table

SHORT_MS, LONG_MS = 0.2, 5.0
BIN_MS = 50
ERROR_1S, ERROR_10S, LAG_MS = 0.01, 0.05, 20


class Mix:
    """Tenants of one kind of kernel with given weights; @form: borrow (guarantee, no cap), cap, or native."""

    def __init__(self, bench, device, kernel, weights, form, procs=None):
        self.device, self.kernel, self.weights, self.form = device, kernel, weights, form
        kind = 'equal' if len(set(weights)) == 1 else 'weights'
        self.name = f'{len(weights)}x{kernel.ms:g}ms-{kind}-{form}' + ('-procs' if procs else '')
        total, self.tenants = sum(weights), []
        for i, w in enumerate(weights):
            percent = int(100 * w / total * 10000) / 10000  # rounded down: the sum must not exceed 100 %
            contract = {'borrow': ['--compute', f'{percent:g}%..'], 'cap': ['--compute', f'{percent:g}%'],
                        'native': None}[form]
            # two batches of 5 ms in flight: the queue is never empty between batches
            options = ['--mode', 'saturate', '--finish-every', str(max(1, round(5 / kernel.ms))), '--inflight', '2',
                       '--cpu-bins', str(BIN_MS)]
            options += ['--procs', str(procs[i])] if procs and procs[i] > 1 else []
            self.tenants.append(Tenant(bench, device, f'{self.name}-{i}', kernel, options, contract))

    def entitled(self):
        return [w / sum(self.weights) for w in self.weights]

    def block(self, seconds, tag):
        return together(self.tenants, seconds, tag, lead=0.05)

    def quit(self):
        for t in self.tenants:
            t.quit()


def served(tenant, tag, start, stop, cores):
    """Part of the device that a tenant got in a span; several processes are added up."""
    total = 0.0
    for path in tenant._files('.cpu'):
        rows = []
        with open(path, encoding='ascii') as f:
            for line in f:
                t, *rest = line.split(',')
                if t == tag:
                    rows.append((int(rest[0]), int(rest[1])))
        total += cpu_within(rows, start, stop)
    return total / (stop - start) / cores


def errors(mix, tag, start, stop, capacity):
    """(largest error over 1 s as part of the device, relative error over the block, part of the device used)."""
    begin, worst, relative, used = start + NS, 0.0, 0.0, 0.0
    for t, e in zip(mix.tenants, mix.entitled()):
        at = begin
        while at + NS <= stop:
            got = served(t, tag, at, at + NS, mix.device.cores)
            worst = max(worst, abs(got - e * capacity))
            at += NS // 10
        whole = served(t, tag, begin, stop, mix.device.cores)
        used += whole
        relative = max(relative, abs(whole - e * capacity) / (e * capacity))
    return worst, relative, used


def lag_ms(rows, t0, steady_from, steady_to, span=NS // 2):
    """Largest time by which the work done since t0 is behind the rate of the steady span."""
    rate = units_within(rows, steady_from, steady_to) / (steady_to - steady_from)
    if rate <= 0:
        return float('inf')
    ends = sorted((e, s, u) for _, s, e, u in rows if e > t0 and s < t0 + span)
    worst, done = 0.0, 0.0
    for end, start, units in ends:
        part = units * min(1.0, (end - t0) / (end - start)) if start < t0 else units
        # within a batch work goes on in proportion, so the lag is largest where a batch starts
        worst = max(worst, (max(start, t0) - t0 - done / rate) / 1e6)
        done += part
        if end - t0 > span:
            break
    return worst


def leave_and_return(bench, device, kernel):
    """Four tenants; the last one works 0-3 s and 6-9 s. Return: lag of the others then, its own later."""
    mix = Mix(bench, device, kernel, (1, 1, 1, 1), 'borrow')
    begin = now() + 50_000_000
    last = mix.tenants[-1]
    for t in mix.tenants[:-1]:
        t.run(begin, begin + 9 * NS, 1, 'all')
    last.run(begin, begin + 3 * NS, 1, 'first')
    last.done(30)
    last.run(begin + 6 * NS, begin + 9 * NS, 1, 'second')
    for t in mix.tenants:
        t.done(60)
    mix.quit()
    others = [r for t in mix.tenants[:-1] for r in t.rows()['all']]
    rows = last.rows()
    left, came = max(r[2] for r in rows['first']), min(r[0] for r in rows['second'])
    return lag_ms(others, left, left + NS, left + 2 * NS), lag_ms(rows['second'], came, came + NS, came + 2 * NS)


def solo(bench, device, kernel, seconds):
    """Part of the device that one native tenant gets: what there is to share."""
    mix = Mix(bench, device, kernel, (1,), 'native')
    start, stop = together(mix.tenants, seconds, 'solo')
    mix.quit()
    return served(mix.tenants[0], 'solo', start + NS // 2, stop, device.cores)


def plans(full):
    """(number of tenants, weights, form, processes); the quick profile takes the first four."""
    ladder = (1, 2, 4, 8)
    found = [((1, 1), 'native', None), ((1, 1), 'borrow', None), (ladder, 'borrow', None), ((1, 1), 'borrow', (4, 1))]
    if full:
        found += [((1,) * n, 'borrow', None) for n in (4, 8, 16)]
        found += [(ladder[:n] if n < 4 else ladder * (n // 4), 'borrow', None) for n in (2, 8, 16)]
        found += [((1,) * 4, 'cap', None), (ladder, 'cap', None)]
    return found


def run(bench):
    report, device = Report(bench.name, bench.out, bench.full), Device(1)
    around = Surroundings(bench, report)
    if not bench.has_penstock():
        raise Skip('shares exist only under Penstock')
    seconds, rows = 11.0 if bench.full else 4.0, []
    for ms in (SHORT_MS, LONG_MS):
        kernel = Kernel(bench, device, ms)
        limit = max(ERROR_1S, kernel.ns / kernel.groups * device.cores / NS)
        capacity = [solo(bench, device, kernel, 1.5)]
        for weights, form, procs in plans(bench.full):
            mix = Mix(bench, device, kernel, weights, form, procs)
            start, stop = mix.block(seconds, 'b')
            mix.quit()
            capacity.append(solo(bench, device, kernel, 1.5))
            one, ten, used = errors(mix, 'b', start, stop, statistics.mean(capacity[-2:]))
            rows.append([mix.name, *[f'{100 * x:.2f}' for x in (one, ten, used, capacity[-1])]])
            judged = (('error over 1 s', one, limit), ('relative error over the block', ten, ERROR_10S))
            for what, value, goal in judged:
                if form == 'native':
                    report.figure(f'{mix.name}: {what}', value)
                else:
                    report.goal(f'share: {mix.name}: {what}', value, value, value, goal)
        for what, lag in zip(('taken up', 'given back'), leave_and_return(bench, device, kernel)):
            rows.append([f'idle share {what}, {ms:g} ms kernels', f'{lag:.1f} ms', '', '', ''])
            report.goal(f'share: {ms:g} ms kernels: {what} within', lag, lag, lag, LAG_MS, unit='ms')
    table(['tenants', 'worst 1 s, % of device', 'worst 10 s, % of share', 'used, %', 'one alone, %'], rows)
    around.finish()
    report.save()
