# SPDX-License-Identifier: Apache-2.0
"""peers: two to four urgent tenants with targets on a one-core device; who misses how often?

Each tenant's requests come every target (with its own phase) or with Poisson arrivals of that mean, do not wait
for each other, and have met their target when they end within it, counted from the arrival. All tenants of a
scenario put the same load on the device; a request is a row of 1 ms kernels. Arms, alternating: native;
Penstock with --sla (earliest deadline first); Penstock without (strict, no deadlines). Beside them two computed
ones, fed with the arrivals recorded in the --sla arm and the service times measured alone: non-pre-emptive EDF
over whole requests (the peer of the goal) and over single commands (a harder one, printed only).
"""
import heapq

from harness import NS, Device, Kernel, Skip, Surroundings, Tenant, now, together
from stats import Report, interval, median, pooled, table

KERNEL_MS = 1.0
# (targets in ms, load in per cent); fixed before the policy was tuned
SCENARIOS = (((33, 100), 40), ((33, 50, 100), 85), ((33, 100), 85), ((33, 50, 100), 60), ((33, 50, 100, 100), 85))
QUICK = 2  # how many of them the quick profile runs
PHASE_MS = 7.3  # tenant i starts i times this later: no arrivals at the same instant


def edf(jobs, parts):
    """Non-pre-emptive EDF. jobs: (release, deadline, service, tenant), ns. parts: pieces of a tenant's job, 1 = whole.

    Return: {tenant: (misses, requests)}.
    """
    jobs, ready, counts, t, i = sorted(jobs), [], {}, 0, 0
    while i < len(jobs) or ready:
        if not ready:
            t = max(t, jobs[i][0])
        while i < len(jobs) and jobs[i][0] <= t:
            release, deadline, service, tenant = jobs[i]
            heapq.heappush(ready, (deadline, i, service, parts[tenant], tenant))
            i += 1
        deadline, k, service, left, tenant = heapq.heappop(ready)
        t += service / parts[tenant]
        if left > 1:
            heapq.heappush(ready, (deadline, k, service, left - 1, tenant))
            continue
        misses, n = counts.get(tenant, (0, 0))
        counts[tenant] = (misses + (t > deadline), n + 1)
    return counts


class Scenario:
    def __init__(self, bench, device, kernel, targets, load, arrivals):
        self.targets, self.load, self.arrivals = targets, load, arrivals
        self.kernels = [max(1, round(load / 100 / len(targets) * t / KERNEL_MS)) for t in targets]
        self.name = f'{len(targets)}t-{load}-{arrivals}'
        self.tenants = {'native': [], 'sla': [], 'strict': []}
        for arm, tenants in self.tenants.items():
            for i, target in enumerate(targets):
                strict = ['--class', 'latency']
                contract = {'native': None, 'strict': strict, 'sla': [*strict, '--sla', f'{target}ms']}[arm]
                options = ['--mode', arrivals, '--open', '--interval-ms', str(target),
                           '--kernels', str(self.kernels[i])]
                tenants.append(Tenant(bench, device, f'{self.name}-{arm}-{i}', kernel, options, contract))

    def block(self, arm, seconds, tag, seed):
        begin = now() + 30_000_000
        for i, t in enumerate(self.tenants[arm]):
            t.run(begin + int(i * PHASE_MS * 1e6), begin + int(seconds * NS), seed + i, tag)
        for t in self.tenants[arm]:
            t.done(seconds + 60)

    def solo(self, seconds, tag):
        for t in self.tenants['native']:
            together([t], seconds, tag)

    def quit(self):
        for tenants in self.tenants.values():
            for t in tenants:
                t.quit()

    def solo_ns(self):
        """Service time of each tenant when it was alone: the median, which makes the computed peer the harder one."""
        def solo(t):
            blocks = [rows for tag, rows in t.rows().items() if tag.startswith('solo')]
            return [end - start for _, start, end, _ in pooled(blocks)]
        return [median(solo(t)) for t in self.tenants['native']]

    def missed(self, arm):
        """One list a block: 1 for each request that missed its target, else 0."""
        blocks = {}
        for t, target in zip(self.tenants[arm], self.targets):
            for tag, rows in t.rows().items():
                if not tag.startswith('solo'):
                    blocks.setdefault(tag, []).extend(int(end - release > target * 1e6) for release, _, end, _ in rows)
        return [blocks[k] for k in sorted(blocks)]

    def computed(self, whole):
        """The same lists for EDF on the arrivals of the sla arm."""
        solo, arrivals = self.solo_ns(), {}
        for i, (t, target) in enumerate(zip(self.tenants['sla'], self.targets)):
            for tag, rows in t.rows().items():
                arrivals.setdefault(tag, []).extend(
                    (release, release + target * 1e6, solo[i], i) for release, *_ in rows)
        parts = [1] * len(self.targets) if whole else self.kernels
        blocks = []
        for tag in sorted(arrivals):
            counts = edf(arrivals[tag], parts).values()
            misses, n = sum(m for m, _ in counts), sum(n for _, n in counts)
            blocks.append([1] * misses + [0] * (n - misses))
        return blocks


def rate(values):
    return sum(values) / len(values)


def run(bench):
    report, device = Report(bench.name, bench.out, bench.full), Device(1)
    around = Surroundings(bench, report)
    if not bench.has_penstock():
        raise Skip('nothing to compare without Penstock')
    kernel = Kernel(bench, device, KERNEL_MS, groups=16)
    around.say('kernel', f'{kernel.ns / 1e6:.3f} ms, one-core PoCL device, worker pinned')
    rounds, seconds = (3, 5.0) if bench.full else (2, 2.5)
    rows = []
    for targets, load in SCENARIOS if bench.full else SCENARIOS[:QUICK]:
        for arrivals in ('periodic', 'poisson'):
            s = Scenario(bench, device, kernel, targets, load, arrivals)
            for r in range(rounds):
                s.solo(1.0, f'solo-{r}')
                for arm in bench.rng.sample(list(s.tenants), 3):
                    s.block(arm, seconds, f'b{r}', 100 * r + 1)
            s.quit()
            rows.append(conclude(report, s))
    table(['misses, per cent', 'n', 'native', 'strict', 'sla', 'EDF requests', 'EDF commands'], rows)
    around.finish()
    report.save()


def conclude(report, s):
    found = {arm: s.missed(arm) for arm in s.tenants}
    found['edf'], found['edf, commands'] = s.computed(True), s.computed(False)
    label = f'{"/".join(map(str, s.targets))} ms, {s.load} %, {s.arrivals}'
    for arm, blocks in found.items():
        report.figure(f'{label}: misses, {arm}', 100 * rate(pooled(blocks)), unit='%')
    value = interval(lambda a, b: 100 * (rate(a) - rate(b)), found['sla'], found['edf'])
    report.goal(f'peers: {label}: misses less EDF\'s', *value, 0, unit='% points')
    n = len(pooled(found['sla']))
    columns = ('native', 'strict', 'sla', 'edf', 'edf, commands')
    return [label, n, *[f'{100 * rate(pooled(found[a])):.2f}' for a in columns]]
