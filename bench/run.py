#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs benchmarks: run.py [--build DIR] [NAME | list]; FULL=1 judges, otherwise a quick profile that only prints."""
import argparse
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import container
import cuda_escapes
import cuda_interference
import cuda_memory
import cuda_overhead
import cuda_share
import daemon
import handoff
import interference
import kubelet
import memory
import overhead
import peers
import share
from harness import Bench, Skip

# name -> (function, minutes quick, minutes full, needs)
BENCHES = {}
for cores in (1, 2):
    for arrivals in ('periodic', 'poisson'):
        BENCHES[f'interference-{cores}c-{arrivals}'] = (
            lambda b, c=cores, a=arrivals: interference.cuttable(b, c, a), 1.3, 9, 'PoCL, 2 cores')
        BENCHES[f'interference-hashcat-{cores}c-{arrivals}'] = (
            lambda b, c=cores, a=arrivals: interference.uncuttable(b, c, a), 1.2, 8, 'PoCL, 2 cores, hashcat')
BENCHES |= {
    'peers': (peers.run, 1.2, 9, 'PoCL, 2 cores, Penstock'),
    'share': (share.run, 1.4, 9, 'PoCL, 2 cores, Penstock'),
    'overhead': (overhead.run, 0.8, 5, 'null driver and PoCL; valgrind for the instructions'),
    'handoff': (handoff.run, 0.5, 2, 'PoCL, 2 cores, Penstock'),
    'memory': (memory.run, 0.4, 2, 'null driver'),
    'kubelet': (kubelet.run, 0.1, 0.4, 'penstockd with the device plugin'),
    'daemon': (daemon.run, 2.5, 12, 'penstockd'),
    'container-start': (container.run, 0.5, 4, 'podman, as root'),
    'cuda-overhead': (cuda_overhead.run, 1, 6, 'stand-in CUDA driver'),
    'cuda-memory': (cuda_memory.run, 0.6, 3, 'stand-in CUDA driver'),
    'cuda-share': (cuda_share.run, 0.6, 8, 'simulated accelerator, Penstock'),
    'cuda-escapes': (cuda_escapes.run, 0.7, 2, 'simulated accelerator, Penstock'),
}
for card in ('T4', 'A100-40'):
    for arrivals in ('periodic', 'poisson'):
        BENCHES[f'cuda-interference-{card.lower()}-{arrivals}'] = (
            lambda b, c=card, a=arrivals: cuda_interference.run(b, c, a), 1.2, 9, 'simulated accelerator, Penstock')


def chosen(name):
    """A name, or the first words of some: `interference` is all eight."""
    if not name:
        return list(BENCHES)
    return [n for n in BENCHES if n == name or n.startswith(name + '-')]


def one(name, build, full):
    function, quick_min, full_min, _ = BENCHES[name]
    profile = 'full: judges' if full else 'quick: judges nothing, FULL=1 does'
    print(f'== {name} ({profile}, about {full_min if full else quick_min} min)', flush=True)
    t0, bench = time.monotonic(), None
    try:
        bench = Bench(name, build, full)
        function(bench)
        return 0
    except Skip as why:
        print(f'skipped: {why}')
        return 0
    except RuntimeError as why:
        print(f'failed: {why}')
        return 1
    finally:
        if bench:
            bench.end()
        print(f'== {name}: {(time.monotonic() - t0) / 60:.1f} min', flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--build', default='build')
    p.add_argument('name', nargs='?', default=os.environ.get('NAME', ''))
    a = p.parse_args()
    if a.name == 'list':
        for name, (_, quick_min, full_min, needs) in BENCHES.items():
            print(f'{name:36} {quick_min:4} min, FULL=1 {full_min:3} min   needs {needs}')
        return 0
    names = chosen(a.name)
    if not names:
        print(f'no benchmark is called "{a.name}"; NAME=list prints them', file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    sys.stdout.reconfigure(line_buffering=True)
    return max(one(n, a.build, os.environ.get('FULL', '') not in ('', '0')) for n in names)


if __name__ == '__main__':
    sys.exit(main())
