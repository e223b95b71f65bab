# SPDX-License-Identifier: Apache-2.0
"""libpenstock in a process of ours: without a contract, without a device, attached by itself, forked, and when its contract ends."""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'daemon'))
import fake                                                     # noqa: E402  pylint: disable=wrong-import-position
from fake import BOUND, Daemon, KEY, wait_for                   # noqa: E402  pylint: disable=wrong-import-position

REFUSED, NO_CONTRACT = -4, -16
ATTACHED, DAEMON = 1, 2


def tenant(directory, *what, **kw):
    env = {k: v for k, v in os.environ.items() if k != 'PENSTOCK_TENANT'}
    return subprocess.Popen([os.environ['LIBTENANT'], *what], env={**env, **({'PENSTOCK_TENANT': directory} if directory else {})}, text=True, **kw)


def succeeds(p):
    assert p.wait(BOUND) == 0


def test_without():
    if os.path.exists('/run/penstock/tenant'):
        print('   this machine is itself a tenant')
        sys.exit(77)
    succeeds(tenant(None, 'none', str(NO_CONTRACT)))
    succeeds(tenant('/nonexistent', 'none', str(REFUSED)))
    with Daemon() as d:
        assert d.create('lib')[0] == 201
        succeeds(tenant(d.run + '/tenants/lib', 'unused'))


def test_notes_that_lie_nowhere():
    """Packers and strippers leave such libraries: the loader takes them, and so must we, who look at the notes of each."""
    with open(os.environ['ODD'], 'rb') as f:
        elf = bytearray(f.read())
    at, = struct.unpack_from('<Q', elf, 32)
    size, n = struct.unpack_from('<HH', elf, 54)
    notes = [at + i * size for i in range(n) if struct.unpack_from('<I', elf, at + i * size)[0] == 4]
    assert notes
    with Daemon() as d:
        assert d.create('lib')[0] == 201
        for where in (0x7000000, 0xffffffffffff0000):
            for p in notes:
                struct.pack_into('<Q', elf, p + 16, where)
            with open(d.dir + '/odd.so', 'wb') as f:
                f.write(elf)
            succeeds(tenant(d.run + '/tenants/lib', 'beside', d.dir + '/odd.so'))


def test_attached():
    with Daemon() as d:
        assert d.create('lib', memory='64M', compute='30%', sla='40ms', **{'class': 'latency'})[0] == 201
        p = tenant(d.run + '/tenants/lib', 'attach', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert p.stdout.readline() == 'guessed\n'
            guessed = d.place('lib')['response']['count']
            assert 1 <= guessed <= 5, guessed
            p.stdin.write('\n')
            p.stdin.flush()
            word, n = p.stdout.readline().split()
            assert word == 'marked'
            place = d.place('lib')
            assert place['response']['count'] == guessed + int(n) and place['response']['marked'] == int(n), (place, guessed, n)
            assert place['denials'] == 1 and place['device_ns'] > 0 and place['commands'] > int(n), place
            wait_for(lambda: d.place('lib')['mem_used_bytes'] == 0, 'what the child had to come back')
        finally:
            p.stdin.close()
            p.stdout.close()
            code = p.wait(BOUND)
        assert code == 0


def test_first_of_two_namespaces():
    """Parent and child are process 1, each in its own: what the child does is the child's, and is asked for."""
    if subprocess.run(['unshare', '--pid', '--fork', 'true'], check=False, capture_output=True).returncode:
        print('   no namespaces here: left out')
        return
    with Daemon() as d:
        assert d.create('lib')[0] == 201
        # A sanitizer's search for leaks does not find its threads in the /proc of other namespaces.
        asan = os.environ.get('ASAN_OPTIONS', '') + ':detect_leaks=0'
        env = {**os.environ, 'PENSTOCK_TENANT': d.run + '/tenants/lib', 'ASAN_OPTIONS': asan}
        p = subprocess.Popen(['unshare', '--pid', '--fork', os.environ['LIBTENANT'], 'nested'], env=env, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert p.stdout.readline() == 'nested\n'
            place = d.place('lib')
            assert (place['commands'], place['debts']) == (4, 0), place
        finally:
            p.stdin.close()
            p.stdout.close()
            assert p.wait(BOUND) == 0


def test_two_devices():
    with Daemon() as d:
        assert d.create('lib')[0] == 201
        p = tenant(d.run + '/tenants/lib', 'two', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert p.stdout.readline() == 'two\n'
            counts = {o['key']: o['response']['count'] for o in d.tenant('lib')['devices']}
            assert counts == {KEY: 2, 'test:other': 3}, counts
        finally:
            p.stdin.close()
            p.stdout.close()
            assert p.wait(BOUND) == 0


def test_name_in_a_container():
    """There the directory is mounted, and the contract's name is not in its path."""
    with Daemon() as d:
        assert d.create('cam-1')[0] == 201
        script = f'mount -t tmpfs none /run && mkdir -p /run/penstock/tenant && mount --bind {d.run}/seats/cam-1 /run/penstock/tenant || exit 77; ' \
                 'exec "$0" name'
        r = subprocess.run(['unshare', '--mount', 'sh', '-c', script, os.environ['LIBTENANT']], capture_output=True, text=True, check=False)
        if r.returncode == 77 or r.stderr.startswith('unshare:'):
            print('   cannot mount here: left out')
            return
        assert (r.returncode, r.stdout) == (0, 'cam-1\n'), r


def test_without_a_daemon_for_a_while():
    """Work and marks go on; what it has is known, and that nobody is at work. Then the new daemon has all of it."""
    with Daemon() as d:
        assert d.create('lib')[0] == 201
        p = tenant(d.run + '/tenants/lib', 'flags', stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def ask():
            p.stdin.write('\n')
            p.stdin.flush()
            return p.stdout.readline().split()
        try:
            assert p.stdout.readline().split() == [str(ATTACHED | DAEMON), str(4 << 20)]
            d.kill()
            wait_for(lambda: ask() == [str(ATTACHED), str(4 << 20)], 'the lease to lapse')
            d.start()
            wait_for(lambda: ask() == [str(ATTACHED | DAEMON), str(4 << 20)], 'the new daemon')
            # How many there were in between is the machine's affair; those in which the work was new are not counted.
            before = d.place('lib')['response']
            assert before['marked'] == before['count'] > 0, before
            for _ in range(3):
                ask()
            after = d.place('lib')['response']
            assert after['marked'] == after['count'] == before['count'] + 3, (before, after)
        finally:
            p.stdin.close()
            p.stdout.close()
            assert p.wait(BOUND) == 0


def overlap(a, b):
    """Time in which an interval of each was open at once, over that of all."""
    both = sum(max(0, min(x[1], y[1]) - max(x[0], y[0])) for x in a for y in b)
    return both / sum(x[1] - x[0] for x in a + b)


def test_turns():
    """Two tenants that ask before they work do not work at once. (One that was kept from the processor for 60 ms is passed over.)"""
    with Daemon() as d:
        names = ('one', 'two')
        for name in names:
            assert d.create(name)[0] == 201
        both = [tenant(d.run + '/tenants/' + name, 'turns', '150', stdin=subprocess.PIPE, stdout=subprocess.PIPE) for name in names]
        for p in both:
            assert p.stdout.readline() == 'attached\n'
        for p in both:
            p.stdin.write('\n')
            p.stdin.close()
        times = [[tuple(int(t) for t in line.split()) for line in p.stdout] for p in both]
        for p in both:
            p.stdout.close()
            succeeds(p)
        assert len(times[0]) == len(times[1]) == 150
        assert overlap(*times) < 0.2, overlap(*times)


def test_stopped():
    with Daemon() as d:
        assert d.create('lib')[0] == 201
        p = tenant(d.run + '/tenants/lib', 'stopped', stdout=subprocess.PIPE)
        assert p.stdout.readline() == 'attached\n'
        assert d.request('DELETE', '/v1/tenants/lib')[0] == 200
        succeeds(p)
        p.stdout.close()


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
