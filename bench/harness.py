# SPDX-License-Identifier: Apache-2.0
"""Processes of the benchmarks: load generators bare or under `penstock run`, the machine's state, and clean ends.

A tenant is one warm process that serves many short blocks (see load.c). Everything started here is in a
session of its own and is ended by its process group, also after Ctrl-C. No benchmark touches a daemon of the
system: XDG_RUNTIME_DIR is private.
"""
import atexit
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time

NS = 1_000_000_000
HERE = os.path.dirname(os.path.abspath(__file__))
QUIET = 0.05  # of the machine's CPU time; above it quantiles beyond the median are the other load's
POCL = '/etc/OpenCL/vendors/pocl.icd'


class Skip(Exception):
    """The benchmark, or one of its arms, cannot run here; the text says why."""


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Device:
    """A PoCL device of one core, with its worker pinned and the hosts' threads on the other core, or of all cores."""

    def __init__(self, cores):
        self.all = os.cpu_count() or 1
        if cores == 1 and self.all < 2:
            raise Skip('a one-core device needs a second core for the host threads')
        self.cores = 1 if cores == 1 else self.all
        self.name = f'{self.cores}c'
        self.prefix = ['taskset', '-c', str(self.all - 1)] if cores == 1 else []

    def env(self):
        return {'POCL_MAX_PTHREAD_COUNT': '1', 'POCL_AFFINITY': '1'} if self.cores == 1 and self.all > 1 else {}


class Bench:
    """One run of one benchmark: where things are, what was started."""

    def __init__(self, name, build, full):
        self.name, self.build, self.full = name, os.path.abspath(build), full
        self.out = os.path.join(self.build, 'bench')
        self.tmp = os.path.join(self.out, name + '.d')
        shutil.rmtree(self.tmp, ignore_errors=True)
        os.makedirs(os.path.join(self.tmp, 'run'), mode=0o700)
        self.cache = os.path.join(self.out, 'pocl-cache')
        os.makedirs(self.cache, exist_ok=True)
        self.groups = []
        self.serial = 0
        self.rng = random.Random(20240607)  # fixed before anything was tuned
        atexit.register(self.end)

    def program(self, path):
        full = os.path.join(self.build, path)
        if not os.access(full, os.X_OK):
            raise Skip(f'{full} is not built')
        return full

    def library(self, folder, name='libcuda.so.1'):
        """A folder of the build for LD_LIBRARY_PATH, if the library is built."""
        full = os.path.join(self.build, folder)
        if not os.path.exists(os.path.join(full, name)):
            raise Skip(f'{full}/{name} is not built')
        return full

    def env(self, device=None, **more):
        e = {k: v for k, v in os.environ.items() if not k.startswith(('POCL_', 'OPENCL_', 'OCL_ICD_', 'PENSTOCK_', 'CUDA_'))}
        e.update(OCL_ICD_VENDORS=POCL, POCL_CACHE_DIR=self.cache, XDG_RUNTIME_DIR=os.path.join(self.tmp, 'run'),
                 HOME=self.home(), LC_ALL='C')
        e.update(device.env() if device else {})
        e.update(more)
        return e

    def home(self):
        """hashcat keeps compiled kernels below HOME; ours is kept between runs so that they are compiled once."""
        path = os.path.join(self.out, 'home')
        os.makedirs(path, exist_ok=True)
        return path

    def penstock(self):
        path = os.environ.get('PENSTOCK') or os.path.join(self.build, 'src/cli/penstock')
        if not os.access(path, os.X_OK):
            raise Skip(f'{path} is not built: arms under Penstock are left out')
        return path

    def has_penstock(self):
        try:
            return bool(self.penstock())
        except Skip:
            return False

    def wrap(self, contract, argv, label='t'):
        """argv under `penstock run` with the options in @contract, or bare when that is None."""
        if contract is None:
            return argv
        self.serial += 1
        name = f'{self.name[:16]}-{label[:24].lower()}-{self.serial}'
        return [self.penstock(), 'run', '--quiet', '--name', name, *contract, '--', *argv]

    def start(self, argv, env, **kwargs):
        p = subprocess.Popen(argv, env=env, start_new_session=True, **kwargs)
        self.groups.append(p)
        return p

    def stop(self, p, patience=5.0):
        """Ends the process group: asks first, then kills, and reaps."""
        for sig, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
            if p.poll() is not None:
                break
            try:
                os.killpg(p.pid, sig)
            except ProcessLookupError:
                pass
            try:
                p.wait(wait)
            except subprocess.TimeoutExpired:
                continue
        try:
            os.killpg(p.pid, signal.SIGKILL)  # what a dead leader left behind
        except (ProcessLookupError, PermissionError):
            pass
        for f in (p.stdin, p.stdout, p.stderr):
            if f:
                f.close()
        if p in self.groups:
            self.groups.remove(p)

    def end(self):
        for p in list(self.groups):
            self.stop(p, patience=1.0)
        self.end_daemon()

    def end_daemon(self):
        """A private daemon ends with its last tenant; one that has not after 3 s is stopped by its pid."""
        run = os.path.join(self.tmp, 'run')
        deadline = time.monotonic() + 3
        while True:
            pids = [p for p in processes() if run in cmdline(p) and 'penstockd' in cmdline(p)]
            if not pids or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for pid in pids:
            print(f'note: the private daemon {pid} outlived its tenants and was stopped')
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def calibrate(self, device, ms, groups, local=64):
        """Iterations for one launch of @ms of @groups work-groups when it has the device to itself."""
        argv = [self.program('bench/clload'), '--calibrate', str(ms), '--groups', str(groups), '--local', str(local)]
        r = subprocess.run([*device.prefix, *argv], env=self.env(device), capture_output=True, text=True, timeout=120,
                           check=False)
        words = r.stdout.split()
        if r.returncode or len(words) != 4:
            raise Skip(f'calibration failed: {r.stderr.strip()}')
        return int(words[1]), float(words[3])


class Kernel:
    """A launch of known device time: groups so many that one wave, the floor of a chunk, takes 250 us at most."""

    def __init__(self, bench, device, ms, groups=None):
        self.ms = ms
        self.groups = groups or max(16, device.cores * -(-int(ms * 1000) // 250))
        self.iters, self.ns = bench.calibrate(device, ms, self.groups)
        self.program = bench.program('bench/clload')

    def options(self):
        return ['--groups', str(self.groups), '--local', '64', '--iters', str(self.iters)]


class Tenant:
    """A load generator's process, bare (contract None) or under `penstock run`. @kernel: its program and what it launches."""

    def __init__(self, bench, device, name, kernel, options, contract=None, env=None):
        self.bench, self.name, self.device = bench, name, device
        self.file = os.path.join(bench.tmp, name + '.csv')
        self.procs = int(options[options.index('--procs') + 1]) if '--procs' in options else 1
        argv = [kernel.program, *kernel.options(), '--out', self.file, *options]
        self.log = open(os.path.join(bench.tmp, name + '.log'), 'w+', encoding='utf-8')
        argv = bench.wrap(contract, argv, re.sub('[^A-Za-z0-9]', '-', name))
        self.p = bench.start([*device.prefix, *argv], env or bench.env(device), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1)
        self.expect('READY', 60)

    def expect(self, word, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.p.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            line = self.p.stdout.readline()
            if line.startswith(word):
                return line.split()
            if not line:
                break
        self.log.seek(0)
        raise RuntimeError(f'{self.name}: no {word} within {seconds:.0f} s: {self.log.read()[-2000:].strip()}')

    def run(self, start, stop, seed, tag):
        self.p.stdin.write(f'run {start} {stop} {seed} {tag}\n')
        self.p.stdin.flush()

    def done(self, seconds):
        return int(self.expect('DONE', seconds)[2])

    def quit(self):
        """Ends the process; a wrong counter (work-items that did not run exactly once) is an error of the run."""
        try:
            self.p.stdin.close()
            self.p.stdin = None
            rc = self.p.wait(20)
        except subprocess.TimeoutExpired:
            rc = -1
        self.bench.stop(self.p)
        self.log.seek(0)
        text = self.log.read().strip()
        self.log.close()
        if rc:
            raise RuntimeError(f'{self.name} ended with {rc}: {text[-2000:]}')

    def _files(self, suffix):
        return [f'{self.file}.{i}{suffix}' for i in range(self.procs)] if self.procs > 1 else [self.file + suffix]

    def rows(self, suffix=''):
        """tag -> list of rows of integers, over all processes of the tenant."""
        found = {}
        for path in self._files(suffix):
            with open(path, encoding='utf-8') as f:
                for line in f:
                    tag, *rest = line.rstrip('\n').split(',')
                    found.setdefault(tag, []).append(tuple(int(x) for x in rest))
        return found


def together(tenants, seconds, tag, seed=1, lead=0.4):
    """Runs @tenants side by side. The first one is the measured one: the others start @lead seconds earlier.

    Return: (start, stop) of the measured span.
    """
    begin = now() + 20_000_000
    start = begin + (int(lead * NS) if len(tenants) > 1 else 0)
    stop = start + int(seconds * NS)
    for i, t in enumerate(tenants):
        t.run(start if i == 0 else begin, stop, seed + i, tag)
    for t in tenants:
        t.done(seconds + lead + 60)
    return start, stop


def units_within(rows, start, stop):
    """Units of work done in a span; a batch that straddles its edge counts in proportion."""
    total = 0.0
    for _, s, e, units in rows:
        overlap = min(e, stop) - max(s, start)
        if overlap > 0:
            total += units * (overlap / (e - s) if e > s else 1.0)
    return total


def cpu_within(rows, start, stop):
    """CPU nanoseconds in a span from (time, cumulative) samples, by interpolation at its edges."""
    rows = sorted(rows)

    def at(t):
        before = [r for r in rows if r[0] <= t]
        after = [r for r in rows if r[0] > t]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (t0, c0), (t1, c1) = before[-1], after[0]
        return c0 + (c1 - c0) * (t - t0) / (t1 - t0)
    return at(stop) - at(start) if rows else 0.0


def processes():
    return [int(d) for d in os.listdir('/proc') if d.isdigit()]


def cmdline(pid):
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as f:
            return f.read().replace(b'\0', b' ').decode(errors='replace')
    except OSError:
        return ''


def session_cpu_ns(sid):
    """CPU time of all threads of all processes of a session, exact to the scheduler's nanosecond."""
    total = 0
    for pid in processes():
        try:
            if os.getsid(pid) != sid:
                continue
            for tid in os.listdir(f'/proc/{pid}/task'):
                with open(f'/proc/{pid}/task/{tid}/schedstat', encoding='ascii') as f:
                    total += int(f.read().split()[0])
        except OSError:
            continue
    return total


def machine_cpu_ns():
    with open('/proc/stat', encoding='ascii') as f:
        v = [int(x) for x in f.readline().split()[1:]]
    busy = sum(v[:3]) + sum(v[5:8])  # user, nice, system, irq, softirq, steal
    return busy * (NS // os.sysconf('SC_CLK_TCK')), v[7] * (NS // os.sysconf('SC_CLK_TCK'))


class Surroundings:
    """What the machine did beside us: printed with every result, since it is the first thing to suspect."""

    def __init__(self, bench, report):
        self.bench, self.report = bench, report
        self.t0, (self.busy0, self.steal0), self.own0 = now(), machine_cpu_ns(), self.own()
        load = os.getloadavg()
        policies = {os.SCHED_OTHER: 'SCHED_OTHER', os.SCHED_FIFO: 'SCHED_FIFO', os.SCHED_RR: 'SCHED_RR'}
        policy = policies.get(os.sched_getscheduler(0), '?')
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            model = next((line.split(':', 1)[1].strip() for line in f if line.startswith('model name')), '?')
        u = os.uname()
        self.say('machine', f'{os.cpu_count()} x {model}, {u.sysname} {u.release}')
        self.say('load average at start', f'{load[0]:.2f}')
        self.say('scheduling class, all arms', policy)

    @staticmethod
    def own():
        t = os.times()
        return int((t.user + t.system + t.children_user + t.children_system) * NS)

    def say(self, key, value):
        print(f'{key}: {value}')
        self.report.note(key, value)

    def finish(self):
        """CPU time that went to others. Ours = this process and all the children that it has reaped."""
        span = (now() - self.t0) * (os.cpu_count() or 1)
        busy, steal = machine_cpu_ns()
        others = max(0, busy - self.busy0 - (self.own() - self.own0))
        self.say('CPU time of other processes', f'{100 * others / span:.1f} % of the machine, '
                 f'of it stolen by the host {100 * (steal - self.steal0) / span:.1f} %')
        if others > QUIET * span:
            self.say('warning', f'other processes used more than {100 * QUIET:.0f} % of the machine: repeat when it is quiet')
