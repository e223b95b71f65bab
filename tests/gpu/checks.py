# SPDX-License-Identifier: Apache-2.0
"""Functional steps of the GPU suite: does CUDA still do what it says, and does the contract hold?"""
import glob
import os
import re
import shutil
import subprocess
import sys
import time

import cuda
import nvml
from harness import Skip

MIB = 1 << 20
PAGE = 2 * MIB   # of device memory
LIMIT = 1024 * MIB
CONTRACT = ['--memory', '1G']
HERE = os.path.dirname(os.path.abspath(__file__))


def real_library(s):
    """The driver's own libcuda.so.1: what a bare program gets."""
    text = 'import ctypes; ctypes.CDLL("libcuda.so.1"); print(open("/proc/self/maps").read())'
    r = subprocess.run([sys.executable, '-c', text], env=s.bench.env(s.device), capture_output=True, text=True,
                       timeout=30, check=False)
    found = re.findall(r'(/\S*libcuda\.so\S*)', r.stdout)
    return found[0] if found else None


def nvml_path(s):
    """The library of the simulated card is in no usual place."""
    if not s.device.folder:
        return 'libnvidia-ml.so.1'
    os.environ.update(s.device.more)   # where the simulated card is
    return os.path.join(s.device.folder.split(':')[-1], 'libnvidia-ml.so.1')


def doctor(s, step):
    """What Penstock itself says about this machine; for the log."""
    for words in (['doctor'], ['inspect']):
        r = subprocess.run([s.bench.penstock(), *words], env=s.bench.env(s.device), capture_output=True, text=True,
                           timeout=30, check=False)
        s.note(f'$ penstock {" ".join(words)} -> {r.returncode}\n{r.stdout}{r.stderr}')
        s.check(step, f'penstock {words[0]}', 'ok' if r.returncode in (0, 1, 2) else 'failed',
                f'exit {r.returncode}; its output is in log.txt')


def cucheck(s, name, contract, words):
    """One check in a process of its own: (verdict, why, lines "code ..."). One that crashes or hangs takes no other
    with it."""
    try:
        r = s.run([s.bench.program('tests/gpu/cucheck'), *words, name], contract, seconds=20)
    except subprocess.TimeoutExpired:
        return 'failed', 'did not end within 20 s', []
    codes = [x for x in r.stdout.splitlines() if x.startswith('code ')]
    m = re.search(rf'^(ok|not ok|skip) {name}(?:: (.*))?$', r.stdout, re.M)
    if not m or (r.returncode and m.group(1) != 'not ok'):
        return 'failed', f'exit {r.returncode}: {(r.stdout + r.stderr).strip()[-300:]}', codes
    return {'ok': 'ok', 'not ok': 'failed', 'skip': 'skipped'}[m.group(1)], m.group(2) or '', codes


def programs(s, step):
    """The same checks natively and under a contract; what wrong calls are answered must be the same."""
    real = real_library(s)
    names = subprocess.run([s.bench.program('tests/gpu/cucheck'), '--list'], capture_output=True, text=True,
                           check=True).stdout.split()
    for name in names:
        verdict, why, codes = cucheck(s, name, CONTRACT, ['--memory', LIMIT, *(['--real', real] if real else [])])
        if name in ('views', 'exports', 'resolve'):   # say something under a contract only
            s.check(step, name, verdict, why)
            continue
        was, was_why, was_codes = cucheck(s, name, None, [])
        if was == 'failed' and not s.simulated:   # not ours
            verdict, why = 'skipped', f'fails natively too: {was_why}'
        s.check(step, name, verdict, why)
        # a refusal by the contract is what it is for
        differ = [f'{x} natively, {y.rsplit(": ", 1)[1]} under a contract' for x, y in zip(was_codes, codes)
                  if x != y and 'more than any device has' not in x]
        if was_codes:
            s.check(step, 'the codes are the same', 'failed' if differ or len(was_codes) != len(codes) else 'ok',
                    '; '.join(differ))


class Truth:
    """Bytes on the device, by what is not ours: the simulated card's server, or NVML."""

    def __init__(self, s):
        self.device = s.device if s.simulated else None
        self.view = nvml.Nvml(nvml_path(s)) if not s.simulated else None

    def used(self):
        if self.device:
            return sum(p['mem_bytes'] for p in cuda.truth_processes(self.device.truth()))
        return self.view.memory().used


def hold(s, argv, contract, seconds=40):
    """A cuescape that keeps what it got: (its answer, a function that ends it)."""
    p = s.bench.start(s.bench.wrap(contract, [str(a) for a in argv]), s.bench.env(s.device), stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, text=True)
    line = p.stdout.readline()
    s.note(f'$ {" ".join(str(a) for a in argv)} [{contract}]\n{line}')

    def end():
        p.stdin.close()
        p.stdin = None
        try:
            p.wait(seconds)
        finally:
            rc = p.returncode
            text = p.stderr.read()
            s.bench.stop(p)
        return rc, text

    if not line:
        _, text = end()
        raise RuntimeError(f'{argv[1]}: {text.strip()[-300:]}')
    return cuda.json_line(line), end


def context_bytes(s, truth):
    """What one process costs by only being there."""
    before = truth.used()
    _, end = hold(s, [s.bench.program('bench/cuescape'), 'host', '--limit', 2 * MIB, '--chunk', 2 * MIB, '--hold'],
                  None)
    bytes_ = max(0, truth.used() - before)
    end()
    return bytes_


def escapes(s, step):
    """Each way to take memory, up to the contract and not a byte further."""
    program, truth = s.bench.program('bench/cuescape'), Truth(s)
    context = context_bytes(s, truth)
    s.figure(step, 'a context takes', context / MIB, 'MiB')
    kinds = subprocess.run([program, 'list'], capture_output=True, text=True, check=True).stdout.split()
    for kind in kinds:
        if kind in ('host', 'context'):
            continue
        before = truth.used()
        try:
            found, end = hold(s, [program, kind, '--limit', LIMIT, '--hold'], CONTRACT)
        except RuntimeError as why:
            s.check(step, kind, 'failed', str(why))
            continue
        held = truth.used() - before
        rc, _ = end()
        if found['unsupported']:
            s.check(step, kind, 'skipped', f'this driver answers {found["code"]}')
            continue
        # a driver may round each block up to a page; what is more than that has escaped
        rounded = held - context - LIMIT
        bad = (found['peak'] > LIMIT and not found['loose']) or rounded > PAGE * found['blocks']
        s.check(step, kind, 'failed' if bad or rc != 0 or found['code'] not in (0, 2) else 'ok',
                f'got {found["granted"] / MIB:.0f} MiB of {LIMIT / MIB:.0f}, on the device {held / MIB:.0f} with the context, '
                f'code {found["code"]}' + (f'; {rounded / MIB:.0f} MiB over by rounding' if rounded > 0 and not bad else ''))


def races(s, step):
    """Threads and processes at once; a killed process; a reset: nothing over, nothing lost."""
    program = s.bench.program('bench/cuescape')
    size = ['--threads', 8, '--procs', 2, '--rounds', 40] if s.short else ['--threads', 64, '--procs', 4, '--rounds',
                                                                           60]
    for kind, more in (('race', size), ('dead', []), ('reset', [])):
        r = s.run([program, kind, '--limit', LIMIT, *more], CONTRACT, seconds=60)
        try:
            found = cuda.json_line(r.stdout)
        except RuntimeError as why:
            s.check(step, kind, 'failed', f'{why} {r.stderr.strip()[-300:]}')
            continue
        over = found['peak'] - LIMIT
        text = f'peak {found["peak"] / MIB:.0f} MiB of {LIMIT / MIB:.0f}'
        if kind == 'race':
            text += f', {found["grants"]} granted, {found["refusals"]} refused'
        else:
            text += f', {found["granted"] / MIB:.0f} MiB after'
        s.check(step, kind, 'ok' if over <= 0 and r.returncode == 0 else 'failed', text)


def runtime(s, step):
    """A program on the CUDA runtime, static and shared, if its compiler is here."""
    nvcc = shutil.which('nvcc') or next(iter(sorted(glob.glob('/usr/local/cuda*/bin/nvcc'))), None)
    if not nvcc:
        raise Skip('there is no nvcc')
    for kind in ('static', 'shared'):
        target = os.path.join(s.bench.tmp, f'rtcheck-{kind}')
        r = s.run([nvcc, '-cudart', kind, '-O1', os.path.join(HERE, 'rtcheck.cu'), '-o', target], seconds=120)
        if r.returncode:
            s.check(step, f'cudart, {kind}', 'skipped', f'nvcc: {r.stderr.strip()[-200:]}')
            continue
        env = s.bench.env(s.device)
        folder = os.path.join(os.path.dirname(os.path.dirname(nvcc)), 'lib64')
        env['LD_LIBRARY_PATH'] = ':'.join(x for x in (env.get('LD_LIBRARY_PATH'), folder) if x)
        native = s.run([target], None, env=env)
        managed = s.run([target, str(LIMIT)], CONTRACT, env=env)
        if native.returncode:
            s.check(step, f'cudart, {kind}', 'skipped',
                    f'fails natively too: {(native.stdout + native.stderr).strip()[-200:]}')
        else:
            s.check(step, f'cudart, {kind}', 'failed' if managed.returncode else 'ok',
                    (managed.stdout + managed.stderr).strip()[-200:])


def torch_check(s, step):
    """PyTorch: the same numbers, the contract as the memory, its own out-of-memory error at the end of it."""
    if s.simulated:
        raise Skip('PyTorch needs a GPU')
    program = [sys.executable, os.path.join(HERE, 'ml.py')]
    native = s.run([*program, 'check'], None, seconds=60)
    if native.returncode:
        raise Skip(f'PyTorch does not work here: {native.stderr.strip()[-200:]}')
    managed = s.run([*program, 'check', '--memory', str(4 * LIMIT)], ['--memory', '4G'], seconds=60)
    a, b = cuda.json_line(native.stdout), cuda.json_line(managed.stdout) if managed.returncode == 0 else {}
    s.check(step, 'results', 'ok' if a.get('sum') == b.get('sum') else 'failed',
            f'{a.get("sum")} natively, {b.get("sum")} under a contract')
    s.check(step, 'memory shown', 'ok' if b.get('total') == 4 * LIMIT else 'failed', f'{b.get("total")}')
    s.check(step, 'out of memory', 'ok' if b.get('refused') else 'failed',
            b.get('error', managed.stderr.strip()[-200:]))


def deaths(s, step):
    """A tenant that is killed while it works leaves nothing: the next one gets everything at once."""
    load = s.bench.program('bench/cuload')
    for what in ('killed while it works', 'ended'):
        p = s.bench.start(s.bench.wrap(CONTRACT, [load, '--request', 'k:1000', '--mode', 'saturate', '--memory',
                                                  str(700 * MIB), '--start', 'now',
                                                  '--duration', '20' if what != 'ended' else '0.5']),
                          s.bench.env(s.device), stdout=subprocess.PIPE, text=True)
        ready = p.stdout.readline()
        time.sleep(0.3)
        if what != 'ended':
            s.bench.stop(p, patience=0.1)
        else:
            p.wait(20)
        r = s.run([s.bench.program('bench/cuescape'), 'alloc', '--limit', LIMIT], CONTRACT)
        got = cuda.json_line(r.stdout)['granted']
        s.check(step, f'after one that was {what}' if what != 'ended' else 'after one that ended',
                'ok' if ready and got > LIMIT * 0.6 else 'failed',
                f'{got / MIB:.0f} MiB')


STEPS = [('doctor', 40, doctor), ('programs', 130, programs), ('escapes', 120, escapes), ('races', 100, races),
         ('deaths', 60, deaths),
         ('runtime', 100, runtime), ('torch', 100, torch_check)]
