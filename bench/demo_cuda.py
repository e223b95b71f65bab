# SPDX-License-Identifier: Apache-2.0
"""The part of the demo for a machine with an NVIDIA GPU: inference-like requests beside kernels of 5 ms. Has not run
on hardware yet."""
import subprocess

import cuda
from harness import NS, Skip, Tenant, together, units_within
from stats import quantile, table

SECONDS = 6.0
URGENT, NEIGHBOUR = 'h2d:602112,k:2..113x40,d2h:4000', 'k:5000'
CONTRACTS = {'native': (None, None), 'penstock': (['--class', 'latency', '--memory', '1G', '--sla', '5ms'],
                                                 ['--class', 'besteffort', '--memory', '1G'])}


def is_there(bench, device):
    try:
        argv = [bench.program('bench/cuapibench'), 'total']
        r = subprocess.run(argv, env=bench.env(device), capture_output=True, text=True, timeout=30, check=False)
    except (Skip, subprocess.TimeoutExpired):
        return False
    return r.returncode == 0


def run(bench, say, device=None):
    """Prints a table, or nothing where there is no GPU."""
    device = device or cuda.Gpu(bench)
    if not is_there(bench, device):
        return
    rows, solo, alone = [], 0.0, 0.0
    for kind, (mine, other) in CONTRACTS.items():
        urgent = Tenant(bench, device, f'cuda-urgent-{kind}', cuda.Load(bench, URGENT),
                        ['--mode', 'periodic', '--interval-ms', '12', '--open'], mine)
        n = Tenant(bench, device, f'cuda-neighbour-{kind}', cuda.Load(bench, NEIGHBOUR),
                   ['--mode', 'saturate', '--finish-every', '4', '--inflight', '4'], other)

        def latencies(tag, tenant=urgent):
            return [(end - release) / 1e6 for release, _, end, _ in tenant.rows()[tag]]

        def row(label, tag, kept, found=latencies):
            v = found(tag)
            return [label, *[f'{quantile(v, q):.2f}' for q in (0.5, 0.9, 0.99)], f'{quantile(v, 0.99) / alone:.2f}',
                    kept]

        if kind == 'native':
            say('GPU: each alone, then together, then together under Penstock')
            start, stop = together([n], 2.0, 'solo')
            solo = units_within(n.rows()['solo'], start, stop) / ((stop - start) / NS)
            together([urgent], SECONDS, 'alone')
            alone = quantile(latencies('alone'), 0.99)
            rows.append(row('each alone', 'alone', '100 %'))
        start, stop = together([urgent, n], SECONDS, 'both')
        rate = units_within(n.rows()['both'], start, stop) / ((stop - start) / NS)
        label = 'together, without Penstock' if kind == 'native' else 'together, under Penstock'
        rows.append(row(label, 'both', f'{100 * rate / solo:.0f} %'))
        urgent.quit()
        n.quit()
    print()
    table([f'{device.name}: 40 kernels of 2 to 113 us every 12 ms', 'P50 ms', 'P90', 'P99', 'P99/alone',
           'the other keeps'], rows)
