# SPDX-License-Identifier: Apache-2.0
"""Requests that an application marks are what the daemon reports, host time between two synchronisations included.

The camera of docs/examples, under `penstock run`, on PoCL and on a simulated card. It sleeps 6 ms a frame on the host, half of it between its two models: a guessed
request is one model, a marked one is at least 6 ms. What it measured itself is compared with what the daemon says.
"""
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE + '/../daemon', HERE + '/../system']
import fake                                                     # noqa: E402  pylint: disable=wrong-import-position
import test_cuda as cards                                       # noqa: E402  pylint: disable=wrong-import-position
from fake import BOUND, Daemon                                  # noqa: E402  pylint: disable=wrong-import-position

HOST_NS = 6000000
BUCKET = 1.07          # quantiles are exact to 6.25 %
APART_NS = 2000000


def camera(d, exe, env, frames, *options):
    """Runs it. Returns the microseconds of each frame as it measured them, and what the daemon says while it is still there."""
    p = subprocess.Popen([os.environ['PENSTOCK'], '--socket', d.sock, 'run', '--name', 'cam', *options, '--', exe, str(frames), 'stay'],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    try:
        line = p.stdout.readline()
        assert re.fullmatch(r'frames \d+ p50_us \d+ p99_us \d+\n', line), line
        times = [int(v) for v in p.stdout.readline().split()]
        told = subprocess.run([os.environ['PENSTOCK'], '--socket', d.sock, 'ps', '-o', 'json'], capture_output=True, text=True, check=True)
        response = [t for t in json.loads(told.stdout)['tenants'] if t['name'] == 'cam'][0]['devices'][0]['response']
    finally:
        p.stdin.close()
        assert p.wait(BOUND) == 0
        p.stdout.close()
    return times, response


def same(own_us, told_ns):
    """To the width of a bucket on each side, and what the marks and the program's own clock lie apart."""
    return own_us * 1000 / BUCKET - APART_NS <= told_ns <= own_us * 1000 * BUCKET + APART_NS


def check(times, response):
    """Frames in which a kernel ran for the first time are not counted: the first ones."""
    n = response['count']
    assert len(times) // 2 <= n <= len(times), (times, response)
    own = sorted(times[-n:])
    assert own[0] * 1000 >= HOST_NS
    for name, per_cent in (('p50_ns', 50), ('p90_ns', 90), ('p99_ns', 99)):
        assert same(own[(n * per_cent + 99) // 100 - 1], response[name]), (name, own, response)


def test_opencl():
    exe = os.environ.get('CAMERA_OPENCL')
    if not exe:
        print('   OpenCL is not there')
        sys.exit(77)
    with Daemon() as d:
        check(*camera(d, exe, {**os.environ, 'POCL_CACHE_DIR': d.dir + '/pocl'}, 60, '--sla', '40ms'))


def test_cuda_card():
    for version in ('11.4', '13.0'):   # for the older one a part of the shim's names is taken away
        cards.VERSION = version
        with cards.Node() as n:
            check(*camera(n.daemon, os.environ['CAMERA_CUDA'], n.card.env, 60, '--sla', '40ms'))


def test_both_in_one_process():
    exe = os.environ.get('BOTH')
    if not exe:
        print('   OpenCL is not there: left out')
        return
    cards.VERSION = '13.0'
    with cards.Node() as n:
        env = {**n.card.env, 'POCL_CACHE_DIR': n.daemon.dir + '/pocl', 'OCL_ICD_VENDORS': '/etc/OpenCL/vendors'}
        p = subprocess.Popen([os.environ['PENSTOCK'], '--socket', n.daemon.sock, 'run', '--name', 'both', '--', exe],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        try:
            for where, cl, cu in (('opencl', 10, None), ('cuda', 10, 20), ('none', 15, 25)):
                assert p.stdout.readline() == where + ' 0\n'
                counts = {'cuda' if o['key'].startswith('pci:') else 'opencl': o['response']['count'] for o in n.daemon.tenant('both')['devices']}
                assert counts == {'opencl': cl, **({'cuda': cu} if cu else {})}, (where, counts)
                p.stdin.write('\n')
                p.stdin.flush()
        finally:
            p.stdin.close()
            p.stdout.close()
            assert p.wait(BOUND) == 0


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
