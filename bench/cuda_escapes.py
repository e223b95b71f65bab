# SPDX-License-Identifier: Apache-2.0
"""cuda-escapes: device memory over the contract, by every way that there is to take it, on a simulated accelerator.

cuescape takes blocks of 64 MiB, and of one byte more than a page of 2 MiB, by one way after another until it is
refused, then halves the block down to 2 MiB; 64 threads in each of four processes take and give back by random ways; a
process that holds everything is killed; a context is reset. Contract: 1 GiB. Truth is what the server counts for the
tenant's processes, its largest value at any time. Goals: not one byte over; and not one byte over with what the
processes' contexts take besides, which no call says and the daemon learns by looking: at once, and for a tenant that
takes 16 MiB every 0.1 s.
"""
import subprocess

import cuda
from harness import Skip, Surroundings
from stats import Report, table

LIMIT = 1 << 30
CONTRACT = ['--memory', '1G']
MIB = 1 << 20
WHOLE = ('vmm', 'mapped', 'retained', 'imported', 'external', 'context')   # take whole pages or nothing
MODES = {'race': ['--threads', '64', '--procs', '4'], 'dead': [], 'reset': []}


class Peak:
    """Largest sum of bytes of the tenant's processes; the server keeps each process's own peak, and sums are read as
    it runs."""

    def __init__(self, device):
        self.device, self.bytes = device, 0
        self.before = {p['pid'] for p in cuda.truth_processes(device.truth())}

    def look(self):
        found = [p for p in cuda.truth_processes(self.device.truth()) if p['pid'] not in self.before]
        peaks = [p['mem_peak_bytes'] for p in found]
        self.bytes = max([self.bytes, sum(p['mem_bytes'] for p in found), *peaks])
        return self.bytes


def attempt(bench, device, kind, contract, more):
    """(what cuescape says or None, exit code, bytes at the server)."""
    argv = [bench.program('bench/cuescape'), kind, *(more if '--limit' in more else ['--limit', str(LIMIT), *more])]
    if kind not in MODES:
        argv.append('--hold')
    peak = Peak(device)
    p = bench.start(bench.wrap(contract, argv, kind), bench.env(device), stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while kind in MODES:
            try:
                p.wait(0.02)
                break
            except subprocess.TimeoutExpired:
                peak.look()
        line = p.stdout.readline()
        peak.look()
        out, err = p.communicate(timeout=60)
    finally:
        bench.stop(p)
    try:
        return cuda.json_line(line + out), p.returncode, peak.bytes
    except RuntimeError:
        print(f'note: {kind}: {err.strip()[-300:]}')
        return None, p.returncode, peak.bytes


def context_bytes(bench, device):
    """What a process costs by only being there: one that takes pinned host memory alone."""
    _, _, peak = attempt(bench, device, 'host', None, ['--limit', str(2 * MIB), '--chunk', str(2 * MIB)])
    return peak


def plan(bench):
    """(label, kind, options of cuescape)"""
    r = subprocess.run([bench.program('bench/cuescape'), 'list'], capture_output=True, text=True, check=True)
    kinds = [k for k in r.stdout.split() if k != 'host']
    todo = [(k, k, []) for k in kinds]
    todo += [(f'{k}, pages + 1', k, ['--chunk', str(2 * MIB + 1)]) for k in kinds if k not in WHOLE]
    todo += [('alloc, slowly', 'alloc', ['--chunk', str(16 * MIB), '--pause', '100'])]
    rounds = ['--rounds', '300' if bench.full else '40']
    return todo + [(k, k, more + (rounds if k == 'race' else [])) for k, more in MODES.items()]


def run(bench):
    report = Report(bench.name, bench.out, bench.full)
    around = Surroundings(bench, report)
    if not bench.has_penstock():
        raise Skip('there is no contract without Penstock')
    device = cuda.Simulated(bench, 'T4')
    around.say('device', device.name)
    context = context_bytes(bench, device)
    around.say('a context takes', f'{context / MIB:.0f} MiB')
    rows = []
    for label, kind, more in plan(bench):
        found, code, peak = attempt(bench, device, kind, CONTRACT, more)
        if found and found['unsupported']:
            rows.append([label, '-', '-', '-', '-', f'the driver answers {found["code"]}'])
            continue
        own = found['peak'] if found and not found.get('loose') else 0
        whole = max(0, peak - LIMIT, own - LIMIT)
        # contexts of a race come and go with its processes: what of the sum is theirs is not known
        apart = max(0, peak - LIMIT - (context if kind != 'race' else 0), own - LIMIT)
        note = '' if found and code == 0 else f'exit {code}'
        if found and 'after_ms' in found:
            note += f' back after {found["after_ms"]:.0f} ms'
        rows.append([label, f'{found["peak"] / MIB:.0f}' if found else '-', f'{peak / MIB:.0f}', apart, whole, note])
        report.figure(f'{label}: taken', found['peak'] if found else float('nan'), unit='bytes')
        report.goal(f'cuda-escapes: {label}: bytes over the contract', apart, apart, apart, 0, unit='bytes')
        report.goal(f'cuda-escapes: {label}: with contexts', whole, whole, whole, 0, unit='bytes')
        if not found or code:
            report.goal(f'cuda-escapes: {label}: failed', 1, 1, 1, 0)
    table(['way', 'MiB got', 'MiB at the server', 'bytes over', 'with contexts', ''], rows)
    around.finish()
    device.close()
    report.save()
