# SPDX-License-Identifier: Apache-2.0
"""Measuring steps of the GPU suite. They print what is; goals are judged by the benchmarks (docs/BENCHMARKS.md)."""
import json
import os
import statistics
import subprocess
import sys
import time

import arms
import checks
import cuda
import nvml
from harness import NS, Skip, Tenant, now, together, units_within
from stats import median, pooled, quantile

# An inference: input in, forty kernels of 2 to 113 us (what a GV100 takes for those of common nets), output back.
URGENT, INTERVAL_MS = 'h2d:602112,k:2..113x40,d2h:4000', 12
NEIGHBOURS = {'kernels of 5 ms': ('k:5000', ()), 'kernels of 0.5 ms': ('k:500', ()),
              'copies of 64 MiB': ('h2d:67108864', ()),
              'graphs of 40 kernels': ('k:50x40', ('--graph',))}
LATENCY, BEST_EFFORT = ['--class', 'latency'], ['--class', 'besteffort']


def micro(s, step):
    """What single mechanisms cost, by cumicro."""
    for kind in ('baseline', 'gate', 'start', 'event', 'ladder', 'copies'):
        try:
            r = s.run([s.bench.program('tests/gpu/cumicro'), kind], seconds=30)
        except subprocess.TimeoutExpired:
            s.check(step, kind, 'failed', 'did not end within 30 s')
            continue
        for line in r.stdout.splitlines():
            row = json.loads(line)
            if 'skipped' in row:
                s.check(step, row['name'], 'skipped', row['skipped'])
                continue
            more = ', '.join(f'{k} {v:g}' for k, v in row.items() if k not in ('name', 'value', 'unit'))
            s.figure(step, row['name'], row['value'], row['unit'], more)
        if r.returncode:
            s.check(step, kind, 'failed', r.stderr.strip()[-300:])


def overhead(s, step):
    """Calls bare and under a contract, in turns."""
    found = {'bare': ({}, None), 'managed': ({}, arms.LIMITS)}
    env, rounds = s.bench.env(s.device), 3
    for label, kind, argv in (('launch', 'launch', ['--count', 2000]),
                              ('launch, 4 threads', 'launch', ['--count', 2000, '--threads', 4]),
                              ('launch + synchronise', 'sync', ['--count', 300]),
                              ('graph of one kernel', 'graph', ['--count', 1000]),
                              ('alloc + free', 'alloc', ['--count', 200]),
                              ('alloc + free beside 1000', 'alloc', ['--count', 200, '--live', 1000]),
                              ('async alloc + free', 'async', ['--count', 1000]),
                              ('cuMemGetInfo', 'info', ['--count', 300]),
                              ('copy of 64 bytes', 'copy', ['--count', 1000]),
                              ('cuEventRecord', 'event', ['--count', 2000])):
        try:
            blocks = arms.interleave(s.bench, found, env, [kind, *argv, '--repeat', 5], rounds, 'bench/cuapibench')
        except RuntimeError as why:
            s.check(step, label, 'failed', str(why)[-300:])
            continue
        bare, managed = (median(pooled(blocks[k])) for k in ('bare', 'managed'))
        s.figure(step, label, bare, 'ns', f'under a contract {managed - bare:+.0f} ns')
    init = arms.interleave(s.bench, found, env, ['init'], 3, 'bench/cuapibench')
    bare, managed = (median(pooled(init[k])) / 1000 for k in ('bare', 'managed'))
    s.figure(step, 'cuInit', bare, 'us', f'under a contract {managed - bare:+.0f} us')


def quantiles(s, step, label, values, note=''):
    s.figure(step, f'{label}, P50', quantile(values, 0.5), 'us', f'n {len(values)}')
    s.figure(step, f'{label}, P99', quantile(values, 0.99), 'us', note)


def latencies(rows):
    return [(end - release) / 1000 for release, _, end, _ in rows]


def interference(s, step):
    """An urgent program beside one that saturates the device, as it is and under contracts."""
    urgent = cuda.Load(s.bench, URGENT)
    options = ['--mode', 'poisson', '--interval-ms', str(INTERVAL_MS)]
    kinds = {'native': (None, None), 'penstock': (LATENCY, BEST_EFFORT)}
    tenants = {k: Tenant(s.bench, s.device, f'urgent-{k}', urgent, options, c[0]) for k, c in kinds.items()}
    seconds, alone = 3.0, {}
    for k, t in tenants.items():
        together([t], seconds, 'alone')
        alone[k] = latencies(t.rows()['alone'])
        quantiles(s, step, f'alone, {k}', alone[k])
    for name, (request, more) in NEIGHBOURS.items():
        load, tag, solo = cuda.Load(s.bench, request, *more), name.replace(' ', '-'), 0.0
        for k, (_, contract) in kinds.items():
            # some 30 ms in flight at any time, as training has
            n = Tenant(s.bench, s.device, f'{tag}-{k}', load,
                       ['--mode', 'saturate', '--finish-every', '4', '--inflight', '4'], contract)
            if k == 'native':
                start, stop = together([n], 1.5, 'solo')
                solo = units_within(n.rows()['solo'], start, stop) / ((stop - start) / NS)
            start, stop = together([tenants[k], n], seconds, tag, seed=7)
            rate = units_within(n.rows()[tag], start, stop) / ((stop - start) / NS)
            n.quit()
            values = latencies(tenants[k].rows()[tag])
            ratio = quantile(values, 0.99) / quantile(alone[k], 0.99)
            quantiles(s, step, f'beside {name}, {k}', values, f'{ratio:.2f} x alone')
            s.figure(step, f'{name} keep, {k}', rate / solo if solo else 0, 'of their rate alone')
    for t in tenants.values():
        t.quit()


def shares(s, step):
    """Tenants that are always backlogged: units of work done against what they are entitled to."""
    for weights in ((30, 70), (20, 30, 50)):
        for us in (500, 5000):
            load = cuda.Load(s.bench, f'k:{us}')
            options = ['--mode', 'saturate', '--finish-every', str(max(1, 5000 // us)), '--inflight', '3']
            found = [Tenant(s.bench, s.device, f'share-{us}-{w}-{i}', load, options, ['--compute', f'{w}%..'])
                     for i, w in enumerate(weights)]
            start, stop = together(found, 5.0, 'b', lead=0.05)
            done = [units_within(t.rows()['b'], start + NS, stop) for t in found]
            for t in found:
                t.quit()
            for w, d in zip(weights, done):
                got = d / sum(done)
                s.figure(step, f'{"/".join(map(str, weights))}, kernels of {us / 1000:g} ms: entitled to {w} %',
                         100 * got, '%',
                         f'error {100 * got - w:+.2f} % of the device')
            used = sum(done) * us * 1000 / (stop - start - NS)
            s.figure(step, f'{"/".join(map(str, weights))}, kernels of {us / 1000:g} ms: device used', 100 * used, '%')


def units(s, step):
    """A part of the multiprocessors: the rate of a kernel of many blocks, and what bandwidth they reach."""
    many = 64 * 1024   # blocks, some waves of any card
    loads = {'blocks of 0.1 ms': (cuda.Load(s.bench, 'k:100', '--blocks', many), many, '1/s')}
    if not s.simulated:   # there it would be the host that adds
        loads['vectorAdd'] = (cuda.Load(s.bench, 'vadd:67108864'), 67108864 * 12 / 1e9, 'GB/s')
    for name, (load, amount, unit) in loads.items():
        whole = 0
        for part in (None, '50%', '25%', '12.5%'):
            t = Tenant(s.bench, s.device, f'units-{part}'.replace('%', ''), load,
                       ['--mode', 'saturate', '--finish-every', '1', '--inflight', '2'],
                       None if part is None else ['--units', part])
            start, stop = together([t], 1.5, 'b')
            rate = units_within(t.rows()['b'], start, stop) * amount / ((stop - start) / NS)
            t.quit()
            whole = whole or rate
            s.figure(step, f'{name}, {"all units, native" if part is None else "--units " + part}', rate, unit,
                     f'{rate / whole:.3f} of all')


def copy_qos(s, step):
    """A copying neighbour with a cap: what it moves, and how late an urgent small copy is beside it."""
    urgent = cuda.Load(s.bench, 'h2d:1048576')
    neighbour = cuda.Load(s.bench, 'h2d:67108864')
    options = ['--mode', 'poisson', '--interval-ms', '4']
    for name, contracts in (('native', (None, None)), ('penstock', (LATENCY, BEST_EFFORT)),
                            ('penstock, capped at 2 GB/s', (LATENCY, [*BEST_EFFORT, '--bandwidth', '..2GB/s']))):
        u = Tenant(s.bench, s.device, f'copy-{name[:9].strip(", ")}-{len(name)}', urgent, options, contracts[0])
        n = Tenant(s.bench, s.device, f'copier-{name[:9].strip(", ")}-{len(name)}', neighbour,
                   ['--mode', 'saturate', '--finish-every', '2'], contracts[1])
        together([u], 1.0, 'alone')
        start, stop = together([u, n], 2.5, 'both', seed=3)
        rate = units_within(n.rows()['both'], start, stop) * 67108864 / (stop - start)
        quantiles(s, step, f'1 MiB alone, {name}', latencies(u.rows()['alone']))
        quantiles(s, step, f'1 MiB beside copies of 64 MiB, {name}', latencies(u.rows()['both']))
        s.figure(step, f'the neighbour moves, {name}', rate, 'GB/s')
        u.quit()
        n.quit()


def start_ml(s, what, seconds, contract):
    argv = [sys.executable, os.path.join(checks.HERE, 'ml.py'), what, '--seconds', str(seconds)]
    p = s.bench.start(s.bench.wrap(contract, argv), s.bench.env(s.device), stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, text=True)
    return p


def end_ml(s, p, seconds):
    out, err = p.communicate(timeout=seconds)
    s.bench.groups.remove(p)
    if p.returncode:
        raise RuntimeError(f'ml.py: {err.strip()[-300:]}')
    return cuda.json_line(out)


def learning(s, step):
    """PyTorch inference beside PyTorch training."""
    if s.simulated:
        raise Skip('PyTorch needs a GPU')
    r = s.run([sys.executable, '-c', 'import torch; assert torch.cuda.is_available()'], seconds=60)
    if r.returncode:
        raise Skip('there is no PyTorch that sees a GPU')
    for k, (mine, other) in {'native': (None, None), 'penstock': (LATENCY, BEST_EFFORT)}.items():
        alone = end_ml(s, start_ml(s, 'infer', 4, mine), 60)
        quantiles(s, step, f'inference alone, {k}', [1000 * v for v in alone['latency_ms']])
        s.figure(step, f'first inference, {k}', alone['first_ms'], 'ms')
        trainer = start_ml(s, 'train', 22, other)
        if trainer.stdout.readline().strip() != 'READY':
            raise RuntimeError(f'training did not start: {trainer.stderr.read()[-300:]}')
        both = end_ml(s, start_ml(s, 'infer', 5, mine), 90)
        trained = end_ml(s, trainer, 90)
        ratio = quantile(both['latency_ms'], 0.99) / quantile(alone['latency_ms'], 0.99)
        quantiles(s, step, f'inference beside training, {k}', [1000 * v for v in both['latency_ms']],
                  f'{ratio:.2f} x alone')
        s.figure(step, f'training, {k}', trained['rate'], 'steps/s', 'inference ran part of the time')


def bandwidth_reading(s, step):
    """GPM's DRAM reading against known bytes."""
    view = nvml.Nvml(checks.nvml_path(s))
    load = cuda.Load(s.bench, 'vadd:67108864')
    t = Tenant(s.bench, s.device, 'known-bytes', load, ['--mode', 'saturate', '--finish-every', '8', '--inflight', '2'])
    begin = now()
    t.run(begin, begin + 3 * NS, 1, 'b')
    time.sleep(0.5)
    readings = []
    for wait in (0.1, 0.2, 0.5, 0.5):
        t0 = now()
        got = view.gpm(lambda w=wait: time.sleep(w), (nvml.DRAM_BW_UTIL, nvml.SM_UTIL))
        readings.append((wait, t0, now(), got))
    t.done(30)
    rows = t.rows()['b']
    t.quit()
    for wait, start, stop, got in readings:
        known = units_within(rows, start, stop) * 67108864 * 12 / (stop - start)
        if nvml.DRAM_BW_UTIL in got:
            s.figure(step, f'DRAM over {wait:g} s', got[nvml.DRAM_BW_UTIL], '% of the peak',
                     f'vectorAdd moved {known:.0f} GB/s then')
        if nvml.SM_UTIL in got:
            s.figure(step, f'multiprocessors over {wait:g} s', got[nvml.SM_UTIL], '%')


def mig(s, step):
    """Profiles and placements into a fixture for the planner's tests; the card's settings stay as they are."""
    view = nvml.Nvml(checks.nvml_path(s))
    mode = view.mig_mode()
    s.figure(step, 'MIG mode', mode, '', 'on' if mode else 'off')
    profiles = view.mig_profiles()
    fixture = {'card': view.name(), 'driver': view.driver(), 'mig_mode': mode, 'simulated': s.simulated,
               'profiles': profiles}
    with open(os.path.join(s.out, 'mig.json'), 'w', encoding='utf-8') as f:
        json.dump(fixture, f, indent=1)
        f.write('\n')
    for p in profiles:
        s.figure(step, p['name'] or f'profile {p["id"]}', p['slices'], 'slices',
                 f'{p["memory_mib"]} MiB, at {p["placements"]}')


def spread(s, step):
    """How far two equal arms lie apart here: the urgent program alone, twice, in short blocks. Read every ratio
    beside it."""
    t = Tenant(s.bench, s.device, 'control', cuda.Load(s.bench, URGENT),
               ['--mode', 'poisson', '--interval-ms', str(INTERVAL_MS)], LATENCY)
    for i in range(4):
        together([t], 1.0, f'{"ab"[i % 2]}{i}', seed=i // 2)
    rows = t.rows()
    t.quit()
    a, b = (latencies([r for tag, found in rows.items() if tag[0] == x for r in found]) for x in 'ab')
    s.figure(step, 'A/A control, P99', quantile(a, 0.99) / quantile(b, 0.99))
    s.figure(step, 'A/A control, mean', statistics.mean(a) / statistics.mean(b))


# What takes little or matters most comes first: a run that is out of time leaves out the rest.
STEPS = [('control', 30, spread), ('interference', 110, interference), ('mig', 20, mig), ('bandwidth', 30, bandwidth_reading),
         ('mechanisms', 100, micro), ('shares', 80, shares), ('learning', 150, learning), ('overhead', 90, overhead),
         ('copies', 50, copy_qos), ('units', 40, units)]
