#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stand-in libnvidia-ml and the probe on a simulated accelerator: cards, memory by process, errors. PENSTOCK_SIMGPU is its socket."""
import json
import os
import subprocess
import sys

from test_probe import Watch, BOUND

ASK, CTL, DRIVERS, NVML = os.environ['ASK'], os.environ['CTL'], os.environ['DRIVERS'], os.environ['NVML']
MIB, GIB = 1 << 20, 1 << 30


class Card:   # what test_probe.Watch wants
    env = {**os.environ, 'LD_LIBRARY_PATH': NVML, 'OCL_ICD_VENDORS': '/nowhere'}


def ctl(*args):
    subprocess.run([CTL, os.environ['PENSTOCK_SIMGPU'], *args], check=True, stdout=subprocess.DEVNULL, timeout=BOUND)


def test_discover():
    r = subprocess.run([os.environ['PROBE']], env=Card.env, capture_output=True, text=True, check=True, timeout=BOUND)
    d = [x for x in json.loads(r.stdout)['devices'] if x['api'] == 'cuda']
    assert [x['units'] for x in d] == [40, 108], d
    assert all(x['key'].startswith('pci:') for x in d) and d[0]['key'] != d[1]['key'], d
    assert 14 * GIB < d[0]['mem_bytes'] <= 16 * GIB and 39 * GIB < d[1]['mem_bytes'] <= 40 * GIB, d


def test_watch():
    with Watch(Card) as w, subprocess.Popen([ASK], env={**Card.env, 'LD_LIBRARY_PATH': DRIVERS + ':' + NVML}, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True) as p:
        before = w.device()
        assert before['processes'] == [], before
        p.stdin.write(f'cuda {64 * MIB}\n')
        p.stdin.flush()
        assert json.loads(p.stdout.readline()) == {'code': 0}
        d = w.device(lambda dev: any(x['pid'] == p.pid for x in dev['processes']))
        mine = [x for x in d['processes'] if x['pid'] == p.pid][0]
        assert mine['mem_bytes'] >= 64 * MIB and d['mem_used_bytes'] >= before['mem_used_bytes'] + 64 * MIB, (mine, d, before)
        p.stdin.close()
        w.device(lambda dev: dev['processes'] == [] and dev['mem_used_bytes'] == before['mem_used_bytes'])
        w.close()


def test_faults():
    with Watch(Card) as w:
        w.device()
        ctl('fault', '0', 'xid=31')
        assert w.device(lambda dev: dev.get('xid') == 31)['lost'] is False
        ctl('fault', '0', 'lost')
        d = w.until(lambda x: x['devices'] and x['devices'][0]['lost'])
        assert d['devices'][1]['lost'] is False, d
        w.close()


def main():
    for fn in (test_discover, test_watch, test_faults):
        fn()
        print('ok', fn.__name__, flush=True)


if __name__ == '__main__':
    sys.exit(main())
