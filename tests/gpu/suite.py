#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The suite for a real NVIDIA GPU: run.sh says how it is called. Every step is bounded; one that fails does not stop
the rest."""
import argparse
import csv
import datetime
import os
import platform
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, '../..'))
sys.path[:0] = [HERE, os.path.join(ROOT, 'bench')]

import checks
import cuda
import measures
import nvml
from harness import Bench, Skip
from stats import number

PROGRAMS = {   # what runs on the device: built with gcc alone where the build has not got it
    'bench/cuload': ('bench/load.c', 'bench/cuwork.c', 'bench/cudrv.c', 'bench/cuptx.c'),
    'bench/cuapibench': ('bench/cuapibench.c', 'bench/cudrv.c', 'bench/cuptx.c'),
    'bench/cuescape': ('bench/cuescape.c', 'bench/cuways.c', 'bench/cudrv.c'),
    'tests/gpu/cucheck': ('tests/gpu/cucheck.c', 'bench/cudrv.c', 'bench/cuptx.c'),
    'tests/gpu/cumicro': ('tests/gpu/cumicro.c', 'bench/cudrv.c', 'bench/cuptx.c'),
}


class TooLong(Exception):
    pass


def on_alarm(_signal, _frame):
    raise TooLong()


class GpuBench(Bench):
    """Finds programs in the build or, if they are not there, compiles them once into OUT/bin."""

    def __init__(self, build, out):
        self.compiled = os.path.join(out, 'bin')
        super().__init__('gpu', build, True)

    def program(self, path):
        try:
            return super().program(path)
        except Skip:
            if path not in PROGRAMS:
                raise
        target = os.path.join(self.compiled, os.path.basename(path))
        if not os.path.exists(target):
            os.makedirs(self.compiled, exist_ok=True)
            sources = [os.path.join(ROOT, s) for s in PROGRAMS[path]]
            subprocess.run(['gcc', '-std=gnu17', '-O2', '-D_GNU_SOURCE', '-I', os.path.join(ROOT, 'src'), '-I',
                            os.path.join(ROOT, 'bench'),
                            *sources, '-o', target, '-pthread', '-ldl', '-lm'], check=True, timeout=120)
        return target


class Suite:
    """Where the steps put what they find."""

    def __init__(self, bench, device, out, simulated, short):
        self.bench, self.device, self.out, self.simulated, self.short = bench, device, out, simulated, short
        self.rows, self.facts, self.steps = [], [], []
        self.log = open(os.path.join(out, 'log.txt'), 'w', encoding='utf-8')

    def say(self, text):
        print(text, flush=True)
        self.note(text)

    def note(self, text):
        self.log.write(text.rstrip() + '\n')
        self.log.flush()

    def fact(self, key, value):
        self.facts.append((key, str(value)))
        self.say(f'{key}: {value}')

    def check(self, step, name, verdict, why=''):
        """@verdict: ok, failed or skipped."""
        self.rows.append({'kind': 'check', 'step': step, 'name': name, 'value': verdict, 'unit': '', 'note': why})
        self.say(f'  {verdict:8} {name}{": " + why if why else ""}')

    def figure(self, step, name, value, unit='', note=''):
        self.rows.append({'kind': 'figure', 'step': step, 'name': name, 'value': value, 'unit': unit, 'note': note})
        self.say(f'  {name}: {number(float(value))} {unit} {note}'.rstrip())

    def run(self, argv, contract=None, seconds=60, env=None, text=None):
        """A program to its end, bare or under a contract. Its output goes into the log."""
        r = subprocess.run(self.bench.wrap(contract, [str(a) for a in argv]), env=env or self.bench.env(self.device),
                           capture_output=True,
                           text=True, input=text, timeout=seconds, check=False)
        under = 'bare' if contract is None else ' '.join(contract)
        self.note(f'$ {" ".join(str(a) for a in argv)} [{under}] -> {r.returncode}\n'
                  f'{r.stdout[-8000:]}{r.stderr[-4000:]}')
        return r

    def step(self, name, seconds, function):
        self.say(f'== {name}')
        t0, verdict, why = time.monotonic(), 'done', ''
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            function(self, name)
        except (TooLong, subprocess.TimeoutExpired):
            verdict, why = 'stopped', f'took longer than {seconds} s'
        except (Skip, nvml.Missing) as reason:
            verdict, why = 'skipped', str(reason)
        except Exception as reason:   # a step that breaks is reported and the next one runs
            verdict, why = 'broken', f'{type(reason).__name__}: {reason}'
            self.note(traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for p in list(self.bench.groups):
            if p is not getattr(self.device, 'server', None):
                self.bench.stop(p, patience=1.0)
        took = time.monotonic() - t0
        self.steps.append({'step': name, 'verdict': verdict, 'seconds': f'{took:.1f}', 'why': why})
        self.say(f'== {name}: {verdict} after {took:.1f} s {why}'.rstrip())

    def failed(self):
        return sum(r['value'] == 'failed' for r in self.rows) + sum(s['verdict'] == 'broken' for s in self.steps)


def write_csv(path, rows, fields):
    with open(path, 'w', newline='', encoding='utf-8') as f:
        w = csv.DictWriter(f, fields, lineterminator='\n')
        w.writeheader()
        w.writerows(rows)


def cell(text):
    return str(text).replace('|', '\\|').replace('\n', ' ')


def report(s, path):
    with open(path, 'w', encoding='utf-8') as f:
        card = dict(s.facts).get('card', 'unknown card')
        f.write(f'# Penstock on {card}{" (simulated accelerator)" if s.simulated else ""}\n\n')
        if s.simulated:
            f.write('**Everything on this page was taken on a simulated accelerator: it says nothing about a GPU.**\n\n')
        f.writelines(f'- {k}: {v}\n' for k, v in s.facts)
        f.write('\n## Checks\n\n| step | check | verdict | |\n|---|---|---|---|\n')
        for r in s.rows:
            if r['kind'] == 'check':
                verdict = f'**{r["value"]}**' if r['value'] == 'failed' else r['value']
                f.write(f'| {r["step"]} | {cell(r["name"])} | {verdict} | {cell(r["note"])} |\n')
        for name in dict.fromkeys(r['step'] for r in s.rows if r['kind'] == 'figure'):
            f.write(f'\n## {name}\n\n| | value | |\n|---|---|---|\n')
            for r in s.rows:
                if r['kind'] == 'figure' and r['step'] == name:
                    f.write(f'| {cell(r["name"])} | {number(float(r["value"]))} {r["unit"]} | {cell(r["note"])} |\n')
        f.write('\n## Steps\n\n| step | | seconds | |\n|---|---|---|---|\n')
        f.writelines(f'| {x["step"]} | {x["verdict"]} | {x["seconds"]} | {cell(x["why"])} |\n' for x in s.steps)


def describe(s):
    s.fact('date', datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC'))
    s.fact('machine', f'{os.cpu_count()} x {platform.machine()}, {platform.system()} {platform.release()}')
    s.fact('user', 'root' if os.geteuid() == 0 else 'not root')
    try:
        view = nvml.Nvml(checks.nvml_path(s))
        s.fact('card', view.name())
        s.fact('driver', view.driver())
        s.fact('memory', f'{view.memory().total / 2**20:.0f} MiB')
        s.fact('compute mode', view.compute_mode())
    except nvml.Missing as why:
        s.fact('NVML', f'missing: {why}')
    r = subprocess.run(['git', '-C', ROOT, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=False)
    if r.returncode == 0:
        s.fact('commit', r.stdout.strip())


def options():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--build', required=True)
    p.add_argument('--sim', nargs='?', const='T4', metavar='CARD')
    p.add_argument('--driver', default=cuda.DRIVER, help='version of the stand-in driver, with --sim')
    p.add_argument('--short', action='store_true')
    p.add_argument('--seconds', type=float, default=500)
    p.add_argument('--only', action='append', help='a step; may be given again')
    p.add_argument('out')
    return p.parse_args()


def main():
    a = options()
    os.makedirs(a.out, exist_ok=True)
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout.reconfigure(line_buffering=True)
    bench = GpuBench(a.build, os.path.abspath(a.out))
    try:
        bench.penstock()
        device = cuda.Simulated(bench, a.sim, a.driver) if a.sim else cuda.Gpu(bench)
        s = Suite(bench, device, a.out, bool(a.sim), a.short)
        r = s.run([bench.program('tests/gpu/cucheck'), 'launch'], seconds=60)
    except (Skip, RuntimeError, subprocess.TimeoutExpired) as why:
        print(f'nothing to run on: {why}')
        return 77
    if r.returncode and not a.sim:
        print(f'no GPU works here: {(r.stderr or r.stdout).strip()[-300:]}')
        return 77
    begin = time.monotonic()
    describe(s)
    for name, seconds, function in checks.STEPS + ([] if a.short else measures.STEPS):
        if a.only and name not in a.only:
            continue
        if time.monotonic() - begin > a.seconds:
            s.steps.append({'step': name, 'verdict': 'left out', 'seconds': '0', 'why': f'{a.seconds:.0f} s have gone'})
            continue
        s.step(name, seconds, function)
    s.fact('took', f'{time.monotonic() - begin:.0f} s')
    write_csv(os.path.join(a.out, 'results.csv'), s.rows, ('kind', 'step', 'name', 'value', 'unit', 'note'))
    write_csv(os.path.join(a.out, 'steps.csv'), s.steps, ('step', 'verdict', 'seconds', 'why'))
    report(s, os.path.join(a.out, 'report.md'))
    bench.end()
    print(f'written: {a.out}/report.md; {s.failed()} failed')
    return 1 if s.failed() else 0


if __name__ == '__main__':
    sys.exit(main())
