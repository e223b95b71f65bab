# SPDX-License-Identifier: Apache-2.0
"""Three ways to measure the cost of the layer: not loaded, loaded but unmanaged, managed with limits on."""
import os
import re
import subprocess

from harness import Skip

# Limits that are on but never reached: what is measured is admission, not waiting.
LIMITS = ['--memory', '4G', '--compute', '50%..', '--class', 'normal']


def layer(bench):
    path = os.environ.get('PENSTOCK_LAYER')
    if path:
        return path
    for root, _, files in os.walk(os.path.join(bench.build, 'src/shim/opencl')):
        for f in sorted(files):
            if f.endswith('.so') and 'penstock' in f:
                return os.path.join(root, f)
    raise Skip('the layer is not built')


def null_icd(bench):
    path = os.path.join(bench.build, 'tests/shim/nullicd/nullicd.icd')
    if not os.path.exists(path):
        raise Skip('the null driver is not built')
    return path


def ways(bench):
    """name -> (environment, contract or None), as far as they are built."""
    found = {'bare': ({}, None)}
    try:
        found['unmanaged'] = ({'OPENCL_LAYERS': layer(bench)}, None)
        bench.penstock()
        found['managed'] = ({}, LIMITS)
    except Skip as why:
        print(f'note: {why}')
    return found


def run(bench, argv, env, contract, timeout=300):
    """One process's output. Failures are errors of the run: a cost of calls that failed means nothing."""
    r = subprocess.run(bench.wrap(contract, argv), env=env, capture_output=True, text=True, timeout=timeout,
                       check=False)
    if r.returncode:
        raise RuntimeError(f'{" ".join(argv)} ended with {r.returncode}: {r.stderr.strip()[-1000:]}')
    return r


def samples(bench, way, env, argv, program='bench/apibench'):
    """ns per call of each repeat in one process, as apibench and cuapibench print them."""
    more, contract = way
    r = run(bench, [bench.program(program), *map(str, argv)], {**env, **more}, contract)
    return [float(x) for x in re.findall(r'^([0-9.]+)$', r.stdout, re.M)]


def interleave(bench, found, env, argv, rounds, program='bench/apibench'):
    """way -> blocks of ns per call; a block is a process, and the ways take turns in an order drawn anew each round."""
    blocks = {name: [] for name in found}
    for _ in range(rounds):
        for name in bench.rng.sample(list(found), len(found)):
            blocks[name].append(samples(bench, found[name], env, argv, program))
    return blocks
