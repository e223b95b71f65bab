#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The view of NVML under a real daemon, alone and in one process with the CUDA shim, on the stand-in libraries in null mode."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../daemon'))
from fake import Daemon, wait_for  # noqa: E402

ASK = os.environ['ASK']
SHIMS, DRIVERS, NVML = os.environ['SHIMS'], os.environ['DRIVERS'], os.environ['NVML']   # search paths
MIB, GIB = 1 << 20, 1 << 30


class Program:
    def __init__(self, where, libraries, **env):
        env = {**os.environ, 'LD_LIBRARY_PATH': libraries, 'PENSTOCK_SIMGPU': 'null', 'PENSTOCK_TENANT': where, **env}
        if where is None:
            del env['PENSTOCK_TENANT']
        self.p = subprocess.Popen([ASK], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, step):
        self.p.stdin.write(step + '\n')
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        assert line, f'ended with {self.p.wait()} at {step}'
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *rest):
        self.p.stdin.close()
        self.p.stdout.close()
        self.p.wait()


def tenant(d, name, **fields):
    status, t = d.create(name, **fields)
    assert status == 201, (status, t)
    return t['dir']


def clients(d, name):
    return [c['pid'] for p in d.tenant(name)['devices'] for c in p['clients']]


def test_alone():
    """A monitoring program where no CUDA driver is: it takes a seat of its own, and sees the contract."""
    with Daemon() as d:
        with Program(tenant(d, 'a', memory='..4G'), SHIMS + ':' + NVML) as p:
            v = p('nvml')
            assert v == {'code': 0, 'count': 1, 'total': 4 * GIB, 'used': 0, 'free': 4 * GIB, 'util': 0, 'processes': []}, v
            assert clients(d, 'a') == [p.p.pid]
            assert d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '..1G'}})[0] == 200
            wait_for(lambda: p('nvml')['total'] == GIB, 'the new limit')
        wait_for(lambda: clients(d, 'a') == [], 'the seat to be free')


def test_unmanaged():
    with Program(None, SHIMS + ':' + NVML) as p:
        assert p('nvml')['total'] == 16 * GIB
    with Program('/nowhere', SHIMS + ':' + NVML) as p:     # managed, and no token: fail closed
        assert p('nvml') == {'code': 0, 'count': 0}


def one_process(first):
    """CUDA and NVML in one process: one seat, one account, the same numbers, whichever came first."""
    with Daemon() as d:
        where = tenant(d, 'a', memory='..4G')
        with Program(where, SHIMS + ':' + DRIVERS + ':' + NVML) as p, Program(where, SHIMS + ':' + DRIVERS + ':' + NVML) as other:
            if first == 'nvml':
                assert p('nvml')['used'] == 0
            assert p(f'cuda {64 * MIB}') == {'code': 0}
            v = p('nvml')
            assert v['count'] == 1 and v['total'] == 4 * GIB, v
            assert clients(d, 'a') == [p.p.pid], clients(d, 'a')
            assert v['used'] >= 64 * MIB and v['used'] == d.place('a')['mem_used_bytes'], (v, d.place('a'))
            assert v['processes'] == [[p.p.pid, v['used']]], v
            # The limit counts, after NVML has been asked too: it has taken the gate from nobody.
            assert p(f'cuda {4 * GIB}') == {'code': 2}
            assert p(f'cuda {64 * MIB}') == {'code': 0}
            assert p('nvml')['used'] == v['used'] + 64 * MIB
            t = p('total')
            n = p('nvml')
            assert t['code'] == 0 and (t['total'], t['free']) == (n['total'], n['free']) and t['device'] == n['total'], (t, n)
            # Another process of the tenant: each sees both.
            assert other(f'cuda {32 * MIB}') == {'code': 0}
            both = {pid: used for pid, used in p('nvml')['processes']}
            assert set(both) == {p.p.pid, other.p.pid} and both[other.p.pid] >= 32 * MIB, both
            assert {pid: used for pid, used in other('nvml')['processes']} == both
            assert sorted(clients(d, 'a')) == sorted([p.p.pid, other.p.pid])


def test_nvml_first():
    one_process('nvml')


def test_cuda_first():
    one_process('cuda')


def main():
    for name, fn in list(globals().items()):
        if name.startswith('test_'):
            fn()
            print('ok', name, flush=True)


if __name__ == '__main__':
    sys.exit(main())
