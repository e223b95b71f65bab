#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job in two minutes: an urgent tenant and hashcat alone, together, and together under Penstock."""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import demo_cuda
from harness import Bench, Device, Kernel, Skip, Tenant, now, together
from hashcat import Hashcat
from stats import quantile, table

SECONDS = 12.0
URGENT = ['--class', 'latency', '--memory', '64M', '--sla', '20ms']
NEIGHBOUR = ['--class', 'besteffort', '--memory', '1G']   # hashcat does not start below 768M


def say(text):
    print(f'[{time.monotonic() - T0:3.0f} s] {text}', flush=True)


def latencies(tenant, tag):
    return [(end - start) / 1e6 for _, start, end, _ in tenant.rows()[tag]]


def tenants_now(bench):
    """name -> (memory used, limit) in bytes, as the control API reports it."""
    r = subprocess.run([bench.penstock(), 'ps', '-o', 'json'], env=bench.env(), capture_output=True, text=True,
                       timeout=20, check=False)
    found = {}
    try:
        for t in json.loads(r.stdout).get('tenants', []):
            used = sum(d.get('mem_used_bytes') or 0 for d in t.get('devices', []))
            limit = max([d.get('mem_limit_bytes') or 0 for d in t.get('devices', [])], default=0)
            found[t['name']] = (used, limit)
    except (ValueError, KeyError, AttributeError):
        print(f'note: penstock ps did not answer: {r.stderr.strip()[:200]}')
    return found


def beside(bench, device, tenant, contract, tag):
    """The urgent tenant with hashcat beside it. Return: (hashcat's CPU seconds a second, memory of the tenants)."""
    h = Hashcat(bench, device, f'hashcat-{tag}', contract)
    h.wait_busy()
    t0, c0 = now(), h.cpu_ns()
    together([tenant], SECONDS, tag)
    work = (h.cpu_ns() - c0) / (now() - t0)
    memory = tenants_now(bench) if contract else {}
    h.stop()
    return work, memory


def hashcat_alone(bench, device):
    h = Hashcat(bench, device, 'hashcat-alone')
    h.wait_busy(300)
    work = h.rate(6)
    mhs = max(b - a for (_, a), (_, b) in zip(h.statuses()[-4:], h.statuses()[-3:])) / 1e6
    h.stop()
    return work, mhs


def mib(pair):
    used, limit = pair
    return f'{used / 2**20:.0f} of {limit / 2**20:.0f} MiB' if limit else f'{used / 2**20:.0f} MiB'


def show(lat, work, memory):
    def cells(name, label, kept):
        v, a = lat[name], lat['alone']
        p = [quantile(v, q) for q in (0.5, 0.9, 0.99)]
        return [label, *[f'{x:.1f}' for x in p], f'{p[2] / quantile(a, 0.99):.2f}', kept]
    percent = {k: f'{100 * w / work["alone"]:.0f} %' for k, w in work.items()}
    print()
    table(['urgent tenant: 8 x 1 ms every 50 ms', 'P50 ms', 'P90', 'P99', 'P99/alone', 'hashcat keeps'],
          [cells('alone', 'each alone', '100 %'), cells('native', 'together, without Penstock', percent['native']),
           cells('penstock', 'together, under Penstock', percent['penstock'])])
    print()
    for name, label in (('urgent', 'urgent tenant'), ('hashcat', 'hashcat')):
        if name in memory:
            print(f'  memory of {label}: {mib(memory[name])}')
    urgent_part = 100 * (1 - 8 * 1.0 / 50.0)
    print(f'  {len(lat["alone"])} requests a row, so P99 is about the third-worst one. The urgent tenant leaves about '
          f'{urgent_part:.0f} % of the device.')
    print('  hashcat\'s kernels cannot be cut: one of its commands may be running when a request arrives.')


NEXT = '''
Try next:
  {p} run --memory 1G --compute 50% --class besteffort -- hashcat -b -m 0 --force
  {p} run --memory 256M..512M --class latency --sla 20ms -- YOUR-PROGRAM
  {p} ps --watch        who has what           {p} why NAME    what a tenant is waiting for
  {p} doctor            what this machine can promise
  make bench NAME=list          the benchmarks behind the table; FULL=1 judges them
'''


def run(bench):
    device = Device(2)
    say(f'device: PoCL on {device.cores} CPU core(s); preparing kernels (the first time takes a while)')
    kernel = Kernel(bench, device, 1.0, groups=16 * max(1, device.cores // 2))
    bench.penstock()
    options = ['--mode', 'periodic', '--interval-ms', '50', '--kernels', '8', '--memory', str(32 << 20)]
    say('hashcat alone')
    work, lat = {}, {}
    work['alone'], mhs = hashcat_alone(bench, device)
    say(f'hashcat alone tries {mhs:.0f} million passwords a second; now the urgent tenant alone')
    native = Tenant(bench, device, 'urgent-native', kernel, options)
    together([native], SECONDS, 'alone')
    lat['alone'] = latencies(native, 'alone')
    say(f'urgent tenant alone: P50 {quantile(lat["alone"], 0.5):.1f} ms; now both, without Penstock')
    work['native'], _ = beside(bench, device, native, None, 'native')
    lat['native'] = latencies(native, 'native')
    native.quit()
    say(f'together: P50 {quantile(lat["native"], 0.5):.1f} ms; now both under Penstock')
    urgent = Tenant(bench, device, 'urgent', kernel, options, URGENT)
    work['penstock'], memory = beside(bench, device, urgent, NEIGHBOUR, 'penstock')
    lat['penstock'] = latencies(urgent, 'penstock')
    urgent.quit()
    say('done')
    # tenants are called demo-NAME-COUNT
    memory = {('hashcat' if 'hashcat' in n else 'urgent'): m for n, m in memory.items()}
    show(lat, work, memory)
    demo_cuda.run(bench, say)
    print(NEXT.format(p=os.path.relpath(bench.penstock())))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--build', default='build')
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    bench = None
    try:
        bench = Bench('demo', a.build, False)
        run(bench)
        return 0
    except (Skip, RuntimeError) as why:
        print(f'demo: {why}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if bench:
            bench.end()


T0 = time.monotonic()
if __name__ == '__main__':
    sys.exit(main())
