#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""penstock-probe on the stand-in libnvidia-ml in null mode: what it finds, what it sees, and what it survives."""
import json
import os
import subprocess
import sys
import tempfile
import time

PROBE = os.environ['PROBE']
NEW, OLD = os.environ['NVML_NEW'], os.environ['NVML_OLD']     # folders of the libraries of driver 580 and 470
BOUND = float(os.environ.get('PENSTOCK_TEST_BOUND', '20'))
GIB = 1 << 30


class Card:
    """Made-up cards, and what happens on them."""

    def __init__(self, libraries=NEW, devices=1, **env):
        self.dir = tempfile.TemporaryDirectory()
        self.state_file = self.dir.name + '/state'
        self.state('')
        self.env = {**os.environ, 'LD_LIBRARY_PATH': libraries or self.dir.name, 'PENSTOCK_SIMGPU': f'null:{devices}',
                    'SIM_NVML_STATE': self.state_file, 'OCL_ICD_VENDORS': self.dir.name, **env}

    def state(self, text):
        with open(self.state_file + '.next', 'w', encoding='utf-8') as f:
            f.write(text)
        os.rename(self.state_file + '.next', self.state_file)

    def discover(self):
        r = subprocess.run([PROBE], env=self.env, capture_output=True, text=True, timeout=BOUND, check=True)
        d = json.loads(r.stdout)
        backend = [b for b in d['backends'] if b['api'] == 'cuda']
        return [x for x in d['devices'] if x['api'] == 'cuda'], backend[0]['error']


class Watch:
    def __init__(self, card, period=100):
        self.card = card
        self.p = subprocess.Popen([PROBE, '--watch', str(period)], env=card.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self):
        text = self.p.stdout.readline()
        assert text.endswith('\n'), f'the probe ended with {self.p.wait(BOUND)}'
        d = json.loads(text)
        assert d['schema'] == 'penstock-probe/watch/v1', d
        return d

    def until(self, what):
        """Lines until one of which `what` is true. Every condition here becomes true with a line to come."""
        end = time.monotonic() + BOUND
        while time.monotonic() < end:
            d = self.line()
            if what(d):
                return d
        raise AssertionError('waited in vain')

    def device(self, what=lambda dev: True, n=0):
        return self.until(lambda d: len(d['devices']) > n and what(d['devices'][n]))['devices'][n]

    def close(self):
        """What the daemon does when it wants no more."""
        self.p.stdin.close()
        self.p.stdout.read()
        assert self.p.wait(BOUND) == 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        self.p.stdout.close()


def test_discover():
    card = Card(devices=2)
    card.state('reserved 1048576\n')
    devices, error = card.discover()
    assert not error and len(devices) == 2, (devices, error)
    assert devices[0] == {'api': 'cuda', 'key': 'pci:0000:01:00.0', 'model': 'Penstock null device', 'platform': 'NVIDIA CUDA',
                          'driver': '580.65.06', 'mem_bytes': 16 * GIB - 1048576, 'units': 40}, devices
    assert devices[1]['key'] == 'pci:0000:02:00.0'


def test_discover_old():
    # No count of cores, no reserved memory: not told is 0, and the whole card.
    card = Card(OLD)
    card.state('reserved 1048576\n')
    devices, _ = card.discover()
    assert (devices[0]['units'], devices[0]['mem_bytes'], devices[0]['driver']) == (0, 16 * GIB, '470.256.02'), devices


def test_discover_mig():
    devices, _ = Card(SIM_NVML_MIG='2').discover()
    assert [d['key'][:7] for d in devices] == ['uuid:a0', 'uuid:a1'], devices
    assert all(d['units'] == 20 and d['mem_bytes'] == 8 * GIB and len(d['key']) == 37 for d in devices), devices


def test_discover_without():
    devices, error = Card(libraries=None).discover()
    assert devices == [] and 'libnvidia-ml.so.1' in error, (devices, error)
    with tempfile.TemporaryDirectory() as pci:
        for vendor, kind, says in (('0x8086', '0x030000', False), ('0x10de', '0x040300', False), ('0x10de', '0x030200', True)):
            os.makedirs(pci + '/0000:01:00.0', exist_ok=True)
            for name, text in (('vendor', vendor), ('class', kind)):
                with open(f'{pci}/0000:01:00.0/{name}', 'w', encoding='ascii') as f:
                    f.write(text + '\n')
            devices, error = Card(libraries=None, PENSTOCK_PROBE_PCI=pci).discover()
            assert devices == [] and ('card is at 0000:01:00.0' in error) == says, (vendor, kind, error)
    card = Card(PENSTOCK_SIMGPU='')
    assert card.discover() == ([], 'nvmlInit: driver not loaded'), card.discover()
    # A call that fails for one card leaves the other.
    card = Card(devices=2)
    card.state('device 0\nlost 1\n')
    devices, error = card.discover()
    assert not error and [d['key'] for d in devices if d['model'] == 'Penstock null device'] == ['pci:0000:02:00.0'], devices


def test_watch():
    card = Card()
    card.state('mem_used 5000\nreserved 70\ngpu_util 40\nmem_util 30\nenc_util 2\ndec_util 1\ntemperature 50\npower 31000\n'
               'process 7 1000 20 10 2 1 c\nprocess 9 3000 0 0 0 0 g\n')
    with Watch(card) as w:
        d = w.device()
        assert d == {'key': 'pci:0000:01:00.0', 'mem_used_bytes': 5000, 'gpu_util': 40, 'mem_util': 30, 'enc_util': 2, 'dec_util': 1,
                     'temperature_c': 50, 'power_mw': 31000, 'lost': False, 'processes': [
                         {'pid': 7, 'mem_bytes': 1000, 'sm_util': 20, 'enc_util': 2, 'dec_util': 1},
                         {'pid': 9, 'mem_bytes': 3000, 'sm_util': 0, 'enc_util': 0, 'dec_util': 0}]}, d
        # In three lists, with unlike amounts: one process, the largest. A pid of 0 and impossible numbers are no sample.
        card.state('process 7 1000 50 0 0 0 c\nprocess 7 1500 50 0 0 0 g\nprocess 7 900 50 0 0 0 m\nprocess 8 1 4000 0 0 0 c\n'
                   'process 0 1 3 0 0 0 c\n')
        d = w.device(lambda dev: dev['processes'] and dev['processes'][0].get('sm_util') == 50)
        assert [(p['pid'], p['mem_bytes'], p['sm_util']) for p in d['processes']] == [(7, 1500, 50), (8, 1, 0), (0, 1, 0)], d
        # The driver that does not tell how much: 2^64 - 1.
        card.state('process 7 18446744073709551615 1 0 0 0 c\n')
        w.device(lambda dev: dev['processes'] and 'mem_bytes' not in dev['processes'][0])
        w.close()


def test_watch_failures():
    card = Card()
    with Watch(card) as w:
        w.device(lambda dev: dev['temperature_c'] == 33)
        card.state('gpu_util 9\nfail nvmlDeviceGetTemperature 999\nfail nvmlDeviceGetComputeRunningProcesses_v3 999\nprocess 5 1 1 0 0 0 g\n')
        d = w.device(lambda dev: 'temperature_c' not in dev)
        assert d['gpu_util'] == 9 and d['processes'][0]['pid'] == 5 and not d['lost'], d
        card.state('fail nvmlDeviceGetComputeRunningProcesses_v3 3\nfail nvmlDeviceGetGraphicsRunningProcesses_v3 3\n'
                   'fail nvmlDeviceGetMPSComputeRunningProcesses_v3 3\n')
        w.device(lambda dev: 'processes' not in dev)        # not told is not "none"
        card.state('fail nvmlDeviceGetProcessUtilization 3\nprocess 5 1 1 0 0 0 c\n')
        d = w.device(lambda dev: dev.get('processes') and 'sm_util' not in dev['processes'][0])
        assert d['processes'] == [{'pid': 5, 'mem_bytes': 1}], d
        card.state('xid 79\n')
        d = w.device(lambda dev: dev.get('xid') == 79)
        assert d['xid_count'] == 1 and not d['lost'], d
        card.state('xid 79\nlost 1\n')
        w.device(lambda dev: dev['lost'])
        card.state('xid 79\n')                              # the driver was reloaded
        assert w.device(lambda dev: not dev['lost'])['xid'] == 79
        card.state('fail nvmlInit_v2 18\nlost 1\n')
        d = w.until(lambda x: 'error' in x)
        assert 'nvmlInit' in d['error'] and d['devices'] == [], d
        card.state('')
        w.device(lambda dev: not dev['lost'])
        w.close()


def test_watch_neighbour_lost():
    card = Card(devices=2)
    with Watch(card) as w:
        w.device(n=1)
        card.state('device 0\nlost 1\n')
        d = w.until(lambda x: x['devices'][0]['lost'])
        assert d['devices'][1]['lost'] is False and 'mem_used_bytes' in d['devices'][1], d
        w.close()


def test_watch_old():
    card = Card(OLD)
    card.state('mem_used 5000\nreserved 70\nprocess 7 1000 20 0 0 0 cg\n')
    with Watch(card) as w:
        d = w.device()
        assert d['mem_used_bytes'] == 5070 and d['processes'] == [
            {'pid': 7, 'mem_bytes': 1000, 'sm_util': 20, 'enc_util': 0, 'dec_util': 0}], d
        w.close()


def test_watch_mig():
    card = Card(SIM_NVML_MIG='2')
    card.state('mem_used 4000\nxid 31\n')
    with Watch(card) as w:
        d = w.device(n=1)
        assert d['key'].startswith('uuid:a1') and d['mem_used_bytes'] == 2000 and 'gpu_util' not in d, d
        card.state('xid 45\n')
        d = w.until(lambda x: x['devices'][1].get('xid') == 45)
        assert [x['xid_count'] for x in d['devices']] == [1, 1], d
        w.close()


def test_watch_ends():
    with Watch(Card(libraries=None)) as w:
        d = w.line()
        assert 'libnvidia-ml.so.1' in d['error'] and d['devices'] == [], d
        assert w.p.wait(BOUND) == 1
    for period in ('99', '0', '-1', 'x', '100ms', '4000000000', ''):
        r = subprocess.run([PROBE, '--watch', period], env=Card().env, capture_output=True, text=True, timeout=BOUND, check=False)
        assert r.returncode == 2 and '100 ..' in r.stderr, (period, r)
    # Nobody reads any more, while standard input stays open.
    with Watch(Card()) as w:
        w.line()
        w.p.stdout.close()
        assert w.p.wait(BOUND) == 0
    # An hour's period: the end of standard input is noticed at once all the same.
    with Watch(Card(), period=3600000) as w:
        w.line()
        w.close()


def test_watch_rests():
    with Watch(Card()) as w:
        lines = 6
        for _ in range(lines):
            w.line()
        with open(f'/proc/{w.p.pid}/stat', encoding='utf-8') as f:
            ticks = sum(map(int, f.read().rsplit(')', 1)[1].split()[11:13]))
        # Five periods of 100 ms: half a second of waiting, not of work.
        assert ticks < 0.05 * lines * os.sysconf('SC_CLK_TCK'), ticks
        w.close()


def main():
    for name, fn in list(globals().items()):
        if name.startswith('test_'):
            fn()
            print('ok', name, flush=True)


if __name__ == '__main__':
    sys.exit(main())
