# SPDX-License-Identifier: Apache-2.0
"""cuda-share: tenants that are always backlogged get what they are entitled to, on a simulated accelerator (T4,
contexts sliced).

Kernels of 0.2, 5 and 20 ms; grids that fill the device and grids of 8 blocks; graphs; one to four processes in a
tenant. Truth is the time that the server saw each process's blocks run, read every 100 ms. Entitled = guarantee / sum
of guarantees x what all of them got together. Errors: the largest over all tenants and all windows of 1 s (step 100
ms), as a part of the device; over the whole block, relative to the entitled share. A stall is the longest time
between two ends of a tenant's work, less the work itself; it may be as long as the largest of a quantum and what the
others may run in one go. The first second of a block does not count.
"""
import threading
import time

import cuda
from harness import NS, Skip, Surroundings, Tenant, now, together
from stats import Report, table

CARD, QUANTUM_MS = 'T4', 10.0
ERROR_1S, ERROR_10S = 0.01, 0.05
PERIOD_S = 0.1
FULL_GRID, SMALL_GRID = (), ('--blocks', 8)
# (name, ms of one command, request, options); fixed before policies were tuned
KERNELS = (('0.2 ms', 0.2, 'k:200', FULL_GRID), ('5 ms', 5.0, 'k:5000', FULL_GRID),
           ('20 ms', 20.0, 'k:20000', FULL_GRID),
           ('5 ms, 8 blocks', 5.0, 'k:5000', SMALL_GRID), ('graph of 10 x 0.2 ms', 2.0, 'k:200x10', ('--graph',)))
# (guarantees in %, processes)
MIXES = (((50, 50), None), ((20, 30, 50), None), ((50, 50), (4, 1)), ((10, 20, 30, 40), None))


class Watch:
    """Reads the server's truth while tenants work: pid -> [(time, busy)]."""

    def __init__(self, device):
        self.device, self.rows, self.stop = device, {}, threading.Event()
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while not self.stop.wait(PERIOD_S):
            t, found = cuda.truth_at(self.device)
            for p in found:
                self.rows.setdefault(p['pid'], []).append((t, p['busy_ns']))

    def end(self):
        self.stop.set()
        self.thread.join()
        return self.rows


def between(rows, start, stop):
    """Growth of a counter in a span, by interpolation of its samples."""
    def at(t):
        before = [r for r in rows if r[0] <= t]
        after = [r for r in rows if r[0] > t]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (t0, v0), (t1, v1) = before[-1], after[0]
        return v0 + (v1 - v0) * (t - t0) / (t1 - t0)
    return at(stop) - at(start) if rows else 0.0


class Mix:
    def __init__(self, bench, device, kernel, weights, procs, seconds):
        name, ms, request, options = kernel
        self.weights, self.name = weights, f'{"/".join(map(str, weights))}{" procs" if procs else ""}, {name}'
        # half a quantum in each of three batches: never empty, and ends are seen often enough to find a stall
        batch = max(1, round(QUANTUM_MS / 2 / ms))
        load = cuda.Load(bench, request, *options)
        self.tenants = []
        for i, w in enumerate(weights):
            more = ['--procs', str(procs[i])] if procs and procs[i] > 1 else []
            self.tenants.append(Tenant(bench, device, f'{w}-{i}-{ms:g}', load,
                                       ['--mode', 'saturate', '--finish-every', str(batch), '--inflight', '3',
                                                                             *more], ['--compute', f'{w}%..']))
        pids = [cuda.session_pids(t.p.pid) for t in self.tenants]
        watch = Watch(device)
        self.start, self.stop = together(self.tenants, seconds, 'b', lead=0.05)
        rows = watch.end()
        self.busy = [sorted_sum([rows[p] for p in found if p in rows]) for found in pids]
        self.longest = max(ms, batch * ms if 'graph' not in name else ms)
        self.stalls = [stall_ms([r for r in t.rows()['b']], self.start + NS, self.stop) for t in self.tenants]
        for t in self.tenants:
            t.quit()

    def errors(self):
        """(largest error over 1 s as part of the device, relative error over the block, part of the device used)."""
        begin, total = self.start + NS, sum(self.weights)
        span = self.stop - begin
        whole = [between(b, begin, self.stop) / span for b in self.busy]
        used, worst = sum(whole), 0.0
        relative = max(abs(got / (used * w / total) - 1) for got,
                       w in zip(whole, self.weights)) if used else float('inf')
        at = begin
        while at + NS <= self.stop:
            got = [between(b, at, at + NS) / NS for b in self.busy]
            worst = max(worst, max(abs(g - sum(got) * w / total) for g, w in zip(got, self.weights)))
            at += NS // 10
        return worst, relative, used


def sorted_sum(series):
    """Counters of a tenant's processes that were read at the same moments, added up."""
    found = {}
    for rows in series:
        for t, v in rows:
            found[t] = found.get(t, 0) + v
    return sorted(found.items())


def stall_ms(rows, start, stop):
    """Longest time without an end of own work, less the time that the work in between takes by itself."""
    ends = sorted(end for _, _, end, _ in rows if start <= end <= stop)
    return max((b - a for a, b in zip(ends, ends[1:])), default=stop - start) / 1e6


def run(bench):
    report = Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    if not bench.has_penstock():
        raise Skip('shares exist only under Penstock')
    device = cuda.Simulated(bench, CARD)
    around.say('device', device.name)
    seconds, rows = (11.0, []) if bench.full else (4.0, [])
    for kernel in KERNELS if bench.full else KERNELS[1:5:3]:
        for weights, procs in MIXES if bench.full else MIXES[1:3]:
            mix = Mix(bench, device, kernel, weights, procs, seconds)
            one, ten, used = mix.errors()
            ms = kernel[1]
            stall = max(mix.stalls)
            rows.append([mix.name, *[f'{100 * x:.2f}' for x in (one, ten, used)], f'{stall:.1f}'])
            report.goal(f'cuda-share: {mix.name}: error over 1 s', one, one, one, max(ERROR_1S, ms / 1000))
            report.goal(f'cuda-share: {mix.name}: relative error over the block', ten, ten, ten, ERROR_10S)
            limit = max(QUANTUM_MS, ms) + max(QUANTUM_MS, ms) * (len(weights) - 1)
            report.goal(f'cuda-share: {mix.name}: longest stall', stall, stall, stall, limit, unit='ms')
            time.sleep(0.1)
    table(['tenants', 'worst 1 s, % of device', 'whole, % of share', 'used, %', 'longest stall, ms'], rows)
    around.finish()
    device.close()
    report.save()
