# SPDX-License-Identifier: Apache-2.0
"""A device for one tenant alone: real programs, whose kernels wait in their own processes."""
import os
import re
import subprocess
import sys

import lib
from lib import BOUND, Stage, wait_for


def is_held(d, name):
    return [h['reason'] for h in d.get(f'/v1/tenants/{name}/why')['holds']] == ['exclusive']


def alone(s, **more):
    status, t = s.node.request('POST', '/v1/tenants', {'contract': {'name': 'a'}, 'exclusive': '5m', **more})
    assert status == 201, t
    return s.program(t['dir'])


def test_alone():
    """Nothing of the others runs between two commands of it, and they go on when it ends."""
    with Stage() as s:
        for load in ('sync', 'never'):
            b = s.tenant('b', {'class': 'besteffort'})
            b.say(f'load {load}', '0')
            b.goes_on()
            a = alone(s)
            a.say('run 1', '0')
            wait_for(lambda: is_held(s.node, 'b'), 'the neighbour to be held')
            was = b.rounds()
            for _ in range(10):                              # with pauses between them, in which it would run
                a.say('run 10', '0')
            assert is_held(s.node, 'b') and b.rounds() == was
            a.kill()
            b.goes_on()
            assert b.failure() == 0 and s.node.place('b')['held_ns']['exclusive'] > 0
            b.kill()
            for name in 'ab':
                s.node.request('DELETE', '/v1/tenants/' + name)
            wait_for(lambda: not s.node.get('/v1/tenants')['tenants'], 'both to end')


def test_daemon_gone():
    """Who is held goes on when the daemon's lease has lapsed: nobody waits for what nobody can end."""
    with Stage() as s:
        b = s.tenant('b')
        b.say('load sync', '0')
        b.goes_on()
        a = alone(s)
        a.say('run 1', '0')
        wait_for(lambda: is_held(s.node, 'b'), 'the neighbour to be held')
        s.node.kill()
        b.goes_on()
        s.node.start()


def test_run():
    """The option as it is typed: what it says, what it refuses, and how long it may be."""
    with Stage() as s:
        def run(*args):
            return subprocess.run([os.environ['PENSTOCK'], '--socket', s.node.sock, 'run', *args], capture_output=True, text=True, check=False,
                                  timeout=BOUND, env={**os.environ, 'LC_ALL': 'C'})
        r = run('--name', 'x', '--exclusive', '--', 'sh', '-c', 'exit 3')
        assert r.returncode == 3 and 'x has its device for itself, for 10m at most' in r.stderr, r
        assert '30m at most' in run('--name', 'x', '--exclusive=30m', 'true').stderr
        r = run('--exclusive=2h', 'true')
        assert r.returncode == 125 and 'from 1s to 1h' in r.stderr, r
        assert re.search(r'--exclusive', run('--help').stdout)
        cam = s.tenant('cam', {'class': 'latency'})
        cam.say('run 1', '0')                                # so that there is a device
        r = run('--exclusive', 'true')
        assert r.returncode == 125 and "'cam' was promised class" in r.stderr, r
        waits = subprocess.Popen([os.environ['PENSTOCK'], '--socket', s.node.sock, 'run', '--wait', '--exclusive', '--name', 'later', 'true'],
                                 stderr=subprocess.PIPE, text=True)
        wait_for(lambda: (s.node.tenant('later') or {}).get('state') == 'waiting', 'it to wait')
        cam.kill()
        s.node.request('DELETE', '/v1/tenants/cam')
        assert waits.wait(BOUND) == 0 and 'for itself' in waits.stderr.read()
        waits.stderr.close()


if __name__ == '__main__':
    lib.run(sys.modules[__name__])
