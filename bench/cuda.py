# SPDX-License-Identifier: Apache-2.0
"""CUDA devices of the benchmarks: the stand-in driver that does nothing, a simulated accelerator, or a GPU.

A program finds libcuda.so.1 by LD_LIBRARY_PATH: the stand-in's folder for the bare arm, the shim's folder before it
for an unmanaged one; `penstock run` puts the shim there by itself.
"""
import json
import os
import re
import subprocess
import time

from arms import LIMITS, samples
from harness import Skip, now, processes

DRIVER = '13.0'
NVML = {'11.4': 'nvml-470', '12.2': 'nvml-535', '13.0': 'nvml'}   # that came with it
LIMIT_BYTES = 4 << 30   # the memory of arms.LIMITS
SIMULATED = 'simulated accelerator'


class CudaDevice:
    """What all have in common. @name is printed with every result."""
    prefix, cores = [], 1   # as of harness.Device: nothing is pinned

    def __init__(self, bench, name, folder, more=None):
        self.bench, self.name, self.folder, self.more = bench, name, folder, more or {}

    def env(self):
        found = dict(self.more)
        if self.folder:
            found['LD_LIBRARY_PATH'] = self.folder
        return found

    def shim_env(self):
        """The shim in the way of a program without a contract: loaded and unmanaged."""
        folders = [self.bench.library('src/shim/cuda')] + ([self.folder] if self.folder else [])
        return {**self.env(), 'LD_LIBRARY_PATH': ':'.join(folders)}

    def close(self):
        pass


class Null(CudaDevice):
    """The stand-in driver's zero-cost mode: every call returns at once, every command has ended."""

    def __init__(self, bench, version=DRIVER):
        super().__init__(bench, f'stand-in driver {version}, zero-cost', standin(bench, version),
                         {'PENSTOCK_SIMGPU': 'null'})


class Gpu(CudaDevice):
    def __init__(self, bench):
        super().__init__(bench, 'GPU', None)


class Simulated(CudaDevice):
    """A server of our own with one card. @options go to it as they are."""

    def __init__(self, bench, card, version=DRIVER, options=()):
        bench.serial += 1
        self.socket = os.path.join(bench.tmp, f'simgpu-{bench.serial}')
        super().__init__(bench, f'{SIMULATED}, {card}, driver {version}', standin(bench, version),
                         {'PENSTOCK_SIMGPU': self.socket})
        self.log = open(self.socket + '.log', 'w+', encoding='utf-8')
        self.server = bench.start([bench.program('simgpu/server/penstock-simgpu'), '--foreground', '--card', card,
                                   '--socket', self.socket, *options],
                                  bench.env(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 10
        while not os.path.exists(self.socket):
            if self.server.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise RuntimeError(f'the simulated accelerator did not start: {self.log.read()[-1000:].strip()}')
            time.sleep(0.01)

    def ctl(self, *words):
        argv = [self.bench.program('simgpu/simgpu-ctl'), self.socket, *words]
        r = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        if r.returncode:
            raise RuntimeError(f'{" ".join(argv)}: {r.stderr.strip()}')
        return r.stdout

    def truth(self):
        return json.loads(self.ctl('truth', '-o', 'json'))

    def close(self):
        self.bench.stop(self.server)
        self.log.close()


def standin(bench, version):
    """Folder of the stand-in libcuda.so.1; the one of libnvidia-ml.so.1 is beside it in the list."""
    driver = bench.library(f'simgpu/nvidia/cuda-{version}')
    return f'{driver}:{bench.library("simgpu/nvidia/" + NVML[version], "libnvidia-ml.so.1")}'


class Load:
    """A request of cuload, as text (see cuwork.c), and how it is submitted."""

    def __init__(self, bench, request, *options):
        self.program, self.request, self.more = bench.program('bench/cuload'), request, options

    def options(self):
        return ['--request', self.request, *map(str, self.more)]


def must_be_managed(bench, device):
    """The cost of a layer that lets everything through is no cost: the program must be shown its contract."""
    [total] = samples(bench, ({}, LIMITS), bench.env(device), ['total'], 'bench/cuapibench')
    if total != LIMIT_BYTES:
        raise RuntimeError(f'under a contract of {LIMIT_BYTES} bytes a program is shown {total:.0f}: it is not managed')


def ways(bench, device):
    """name -> (environment, contract or None), as arms.ways() does for OpenCL."""
    found = {'bare': ({}, None)}
    try:
        found['unmanaged'] = (device.shim_env(), None)
        bench.penstock()
        must_be_managed(bench, device)
        found['managed'] = ({}, LIMITS)
    except Skip as why:
        print(f'note: {why}')
    return found


def requests_file(bench):
    """What cudart 13.0 asks for at its start, recorded."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../tests/shim/cuda/cudart13-requests.csv')
    if not os.path.exists(path):
        raise Skip('the recorded requests of a runtime are not there')
    return path


def percentiles_row(label, values, quantile, unit='us'):
    return [label, len(values), *[f'{quantile(values, q):.1f} {unit}' for q in (0.5, 0.9, 0.99)], f'{max(values):.1f}']


def json_line(text):
    """The last line of JSON in what a program printed."""
    found = re.findall(r'^\{.*\}$', text, re.M)
    if not found:
        raise RuntimeError(f'no JSON in: {text[-500:]}')
    return json.loads(found[-1])


def truth_processes(truth):
    """Rows of processes in the server's truth: pid, mem_bytes, busy_ns ... Those that have ended are among them."""
    return truth['devices'][0]['processes']


def truth_at(device):
    """(when it was read, rows of processes)."""
    t0 = now()
    found = device.truth()
    return (t0 + now()) // 2, truth_processes(found)


def session_pids(sid):
    """Processes of a tenant: `penstock run`, the program and its children are one session."""
    found = []
    for pid in processes():
        try:
            if os.getsid(pid) == sid:
                found.append(pid)
        except OSError:
            continue
    return found


def pcie_bytes_per_s(card):
    """What a copy moves alone, from the card's file."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../simgpu/cards', card + '.card'),
              encoding='utf-8') as f:
        found = re.search(r'^pcie = ([0-9.]+)GB/s', f.read(), re.M)
    return float(found.group(1)) * 1e9
