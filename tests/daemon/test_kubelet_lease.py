# SPDX-License-Identifier: Apache-2.0
"""What the kubelet gives away: Allocate in all the ways in which kubelets call it, tokens, moves, lapses, and whose container it is."""
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import uuid

import fake
from auditing import Probe
from fake import Client, wait_for
from kubelet_node import CARDS, PROFILE, R, Node, tenant_dir
from kubelet_standin import M, grpc

ONE, TWO = CARDS[0][0], CARDS[1][0]
BIG = 'penstock.io/big'
TWO_PROFILES = PROFILE + '    - {name: big, memory: 3G, count: 1}\n'
SHORT = '  lease: 1s\n'


def refused(fn):
    """The error of a call that must fail."""
    try:
        fn()
    except grpc.RpcError as e:
        return e
    raise AssertionError('not refused')


def is_refused(directory):
    """Nobody can attach there: the directory has no door any more, or whoever opens says no."""
    try:
        c = Client(directory)
        status = c.greet()
    except (FileNotFoundError, ConnectionRefusedError):
        return True
    c.close()
    return status < 0


def state(n, *ids):
    lease = n.lease_of(*ids)
    return lease and lease['state']


def wait_state(n, want, *ids):
    wait_for(lambda: state(n, *ids) == want, f'{ids} to be {want}')


def settle(n):
    wait_for(lambda: n.daemon.get('/v1/version')['store']['queued'] == 0, 'the store')


def start(n, *resources):
    n.kubelet.start()
    plugins = [n.kubelet.wait_list(r) for r in resources or (R,)]
    return plugins[0] if len(plugins) == 1 else plugins


def client_script(directory, device, env):
    """A process of its own, with an environment: prints what HELLO_REPLY said, waits for its input to end."""
    code = ('import sys, fake\n'
            f'c = fake.Client({directory!r})\n'
            'c.hello()\n'
            'data, _ = c.expect(fake.HELLO_REPLY)\n'
            'status = int.from_bytes(data[16:20], "little", signed=True)\n'
            'if status == 0:\n'
            f'    c.ask({device!r})\n'
            '    c.take_seat()\n'
            'print(status, data[24:].split(b"\\0")[0].decode(), flush=True)\n'
            'sys.stdin.read()\n')
    return subprocess.Popen([sys.executable, '-c', code], env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, cwd=os.path.dirname(os.path.abspath(__file__)))


def end(proc):
    proc.stdin.close()
    proc.stdout.close()
    assert proc.wait(fake.BOUND) == 0


class Pod:
    """A process of the container that got this answer, attached. One of its own: a seat lasts as long as its process."""

    def __init__(self, answer, device=ONE):
        self.proc = client_script(tenant_dir(answer), device, dict(answer.envs))
        line = self.proc.stdout.readline()
        assert line.split()[0] == '0', line

    def close(self):
        end(self.proc)


def test_init_and_app_container():
    """One ID twice before anything starts: both tokens lead to one contract."""
    with Node() as n:
        p = start(n)
        a, b = p.allocate(['g0-s0']), p.allocate(['g0-s0'])
        first = Pod(a)
        assert state(n, 'g0-s0') == 'active'
        second = Pod(b)
        tenants = [t for t in n.daemon.get('/v1/tenants')['tenants'] if t['owner']]
        assert len(tenants) == 1 and tenant_dir(a) == tenant_dir(b)
        first.close()
        second.close()


def test_double_allocate():
    """Twice for one container with different IDs, of which the second is real: the first comes back in time."""
    with Node(more=SHORT) as n:
        p = start(n)
        p.allocate(['g0-s0'])
        b = p.allocate(['g0-s1'])
        c = Pod(b)
        wait_state(n, 'lapsed', 'g0-s0')
        assert state(n, 'g0-s1') == 'active'
        c.close()
        again = p.allocate(['g0-s0'])
        Pod(again).close()


def test_allocate_and_silence():
    """The pod is thrown out and nobody says so: what it had is free for others, and the ID is taken again."""
    with Node(TWO_PROFILES, more=SHORT) as n:
        p, big = start(n, R, BIG)
        big.allocate(['g0-s0'])
        n.kubelet.wait_list(R, lambda p: p.healthy() >= {'g0-s0'} and 'g0-s1' not in p.healthy(), 'a list with room for one')
        wait_state(n, 'lapsed', 'g0-s0')
        n.kubelet.wait_list(R, lambda p: p.healthy() == set(p.devices()), 'all of them')
        for i in range(4):
            p.allocate([f'g0-s{i}'])
        e = refused(lambda: big.allocate(['g0-s0']))
        assert e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and 'memory: 3 GiB cannot be guaranteed' in e.details(), e.details()
        assert 'vgpu-1g-g0-s' in e.details()                       # who holds what


def test_late_pod():
    """A pod whose lease has lapsed comes after all: it gets what it was promised, if that is still there; else it is told."""
    with Node(TWO_PROFILES, more=SHORT) as n:
        p, big = start(n, R, BIG)
        late = big.allocate(['g0-s0'])
        wait_state(n, 'lapsed', 'g0-s0')
        c = Pod(late)
        assert state(n, 'g0-s0') == 'active'
        c.close()
        wait_state(n, 'lapsed', 'g0-s0')
        p.allocate(['g0-s0'])
        p.allocate(['g0-s1'])
        c = Client(tenant_dir(late))
        c.hello()
        data, _ = c.expect(fake.HELLO_REPLY)
        assert int.from_bytes(data[16:20], 'little', signed=True) < 0 and b'3 GiB cannot be guaranteed' in data, data
        assert state(n, 'g0-s0') == 'provisional'                  # of the other resource


def test_container_restarts():
    """The same token, another process, no Allocate: also when the daemon was restarted between."""
    with Node() as n:
        p = start(n)
        a = p.allocate(['g0-s3'])
        for restart in (False, False, True, True):
            if restart:
                settle(n)
                n.daemon.kill()
                n.start()
            proc = client_script(tenant_dir(a), ONE, dict(a.envs))
            assert proc.stdout.readline().split()[0] == '0'
            wait_state(n, 'active', 'g0-s3')
            end(proc)
            wait_state(n, 'idle', 'g0-s3')
        assert len(n.status()['leases']) == 1


def test_next_pod():
    """An ID for another pod without a word about the first: it moves when the second comes, and not before."""
    with Node() as n:
        p = start(n)
        a = p.allocate(['g0-s0'])
        old = Pod(a)
        b = p.allocate(['g0-s0'])
        assert tenant_dir(a) != tenant_dir(b)
        Pod(a).close()                                             # not yet
        c = Pod(b)
        wait_for(lambda: is_refused(tenant_dir(a)), 'the old token to be refused')
        leases = [l for l in n.status()['leases'] if l['ids'] == ['g0-s0']]
        assert [l['state'] for l in leases] == ['active'], leases
        assert 'given to another container' in n.daemon.wait_event('tenant-ended')['text']
        old.close()
        c.close()


def test_pods_one_after_the_other():
    """A slot goes through many pods, each of which comes and goes: one lease is left, and no directory of the others."""
    with Node() as n:
        p = start(n)
        for _ in range(12):
            a = p.allocate(['g0-s0'])
            Pod(a).close()
            wait_state(n, 'idle', 'g0-s0')
        assert len(n.status()['leases']) == 1
        own = os.path.basename(tenant_dir(a))
        assert set(os.listdir(n.daemon.run + '/containers')) == {own, own + '.json'}


def test_given_away_again_and_again():
    """Allocates whose containers have each been seen once: tokens do not pile up."""
    with Node(more=SHORT) as n:
        p = start(n)
        holder = Pod(p.allocate(['g0-s0']))
        for _ in range(8):
            b = p.allocate(['g0-s0'])                              # unclaimed: the same again
        assert len(n.status()['leases']) == 2
        holder.close()
        Pod(b).close()
        wait_for(lambda: len(n.status()['leases']) == 1, 'one to be left')


class Box:
    """A mount namespace in which directories are mounted as in a container: at `where`/tenant is that of the last answer."""

    def __init__(self, n, *answers):
        self.where = n.dir + '/box'
        lines = [f'mkdir -p {self.where} && mount -t tmpfs none {self.where} && mkdir {self.where}/tenant']
        for a in answers:
            for m in a.mounts:
                at = self.where + '/' + os.path.basename(m.container_path)
                lines.append(f'mkdir -p {at} && mount --bind -o ro {m.host_path} {at}')
        script = ' && '.join(lines) + ' && echo there && read x && exec "$@"'
        code = ('import sys, fake\n'
                f'c = fake.Client({self.where + "/tenant"!r})\n'
                'c.hello()\n'
                'data, _ = c.expect(fake.HELLO_REPLY)\n'
                'print(int.from_bytes(data[16:20], "little", signed=True), data[24:].split(b"\\0")[0].decode(), flush=True)\n'
                'sys.stdin.read()\n')
        self.proc = subprocess.Popen(['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, 'sh', sys.executable, '-c', code],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=os.path.dirname(os.path.abspath(__file__)))
        assert self.proc.stdout.readline() == 'there\n'

    def attach(self):
        """(status, text) of the HELLO of a program in it."""
        self.proc.stdin.write('go\n')
        self.proc.stdin.flush()
        status, _, text = self.proc.stdout.readline().partition(' ')
        return int(status), text

    def close(self):
        self.proc.stdin.close()
        self.proc.stdout.close()
        self.proc.wait()


def can_mount():
    if subprocess.run(['unshare', '-m', 'true'], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        return True
    print('  (without: no mount namespaces here)')
    return False


def test_two_resources_in_one_container():
    """Their environments and mounts are merged, and of the two at one place the kubelet takes either: refused, and says why."""
    with Node(TWO_PROFILES) as n:
        p, big = start(n, R, BIG)
        a, b = p.allocate(['g1-s2']), big.allocate(['g0-s0'])
        assert set(a.envs).isdisjoint(b.envs)
        places = [{m.container_path for m in x.mounts} for x in (a, b)]
        assert places[0] & places[1] == {'/run/penstock/tenant'}, places
        if not can_mount():
            return
        for answers in ((a, b), (b, a)):
            box = Box(n, *answers)
            status, text = box.attach()
            assert status < 0 and 'slots of two resources' in text, text
            box.close()
        box = Box(n, a)
        assert box.attach()[0] == 0
        box.close()


def test_several_slots():
    """In any order; one contract with all of them; of one card, else refused."""
    with Node() as n:
        p = start(n)
        a = p.allocate(['g0-s2', 'g0-s0', 'g0-s3'])
        assert a.envs['PENSTOCK_SLOT_VGPU_1G'] == 'g0-s0,g0-s2,g0-s3'
        t = n.daemon.tenant(n.lease_of('g0-s0', 'g0-s2', 'g0-s3')['tenant'])
        assert t['contract']['memory'] == '3G' and t['contract']['compute'] == '75%', t
        b = p.allocate(['g0-s3', 'g0-s2', 'g0-s0'])
        assert tenant_dir(a) == tenant_dir(b)
        e = refused(lambda: p.allocate(['g0-s1', 'g1-s1']))
        assert e.code() == grpc.StatusCode.FAILED_PRECONDITION and 'more than one card' in e.details(), e
        assert len(n.status()['leases']) == 1
        one, two = p.allocate(['g1-s0'], ['g1-s1'])                # two containers in one call
        assert tenant_dir(one) != tenant_dir(two)
        # a part of a lease that nobody has claimed goes to somebody else
        c = p.allocate(['g0-s0'])
        Pod(c).close()
        wait_for(lambda: is_refused(tenant_dir(a)), 'the larger lease to be over')


def test_crossing_allocates():
    """Two profiles over one budget, asked for at the same moment: exactly one of each pair gets it."""
    with Node('    - {name: left, memory: 3G, count: 1}\n    - {name: right, memory: 2G, count: 1}\n') as n:
        left, right = start(n, 'penstock.io/left', 'penstock.io/right')
        for card in ('g0-s0', 'g1-s0'):
            got, failed = [], []

            def ask(plugin, ids):
                try:
                    got.append(plugin.allocate(ids))
                except grpc.RpcError as e:
                    failed.append(e)
            threads = [threading.Thread(target=ask, args=(x, [card])) for x in (left, right)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert len(got) == 1 and len(failed) == 1, (got, failed)
            assert 'cannot be guaranteed' in failed[0].details(), failed[0].details()
            Pod(got[0], ONE if card == 'g0-s0' else TWO).close()
        n.kubelet.wait_list('penstock.io/left', lambda p: len(p.healthy()) + len(n.kubelet.plugins['penstock.io/right'].healthy()) == 2)


def test_never_unhealthy_in_use():
    """Whatever others take, and a contract of a person too: who has a slot keeps it, and the free ones are told."""
    with Node() as n:
        p = start(n)
        a = p.allocate(['g0-s1'])
        c = Pod(a)
        assert n.daemon.create('person', memory='3G', device=ONE)[0] == 201
        n.kubelet.wait_list(R, lambda p: p.healthy() == {'g0-s1', 'g1-s0', 'g1-s1', 'g1-s2', 'g1-s3'}, 'the one in use')
        n.daemon.request('DELETE', '/v1/tenants/person')
        n.kubelet.wait_list(R, lambda p: p.healthy() == set(p.devices()), 'all of them')
        c.close()


def test_drained():
    """A card that an operator takes out of use: nobody new is sent, and who is there is not thrown out by the kubelet's next start."""
    with Node() as n:
        p = start(n)
        a = Pod(p.allocate(['g0-s1']))
        count = len(p.lists)
        assert n.daemon.request('POST', '/v1/devices/drain', {'device': ONE})[0] == 200
        n.kubelet.wait_list(R, lambda p: p.healthy() == {'g0-s1', 'g1-s0', 'g1-s1', 'g1-s2', 'g1-s3'}, 'the one in use')
        assert len(p.lists) == count + 1
        e = refused(lambda: p.allocate(['g0-s0']))
        assert 'drained' in e.details(), e.details()
        assert n.daemon.request('POST', '/v1/devices/undrain', {'device': ONE})[0] == 200
        n.kubelet.wait_list(R, lambda p: p.healthy() == set(p.devices()), 'all of them')
        assert len(p.lists) == count + 2
        a.close()


def test_lost():
    """A card that falls off the bus: all its slots are unhealthy, in one new list, and healthy again when it is back."""
    probe = Probe(mem=4 << 30)
    with Node(start=False, top='audit: {period: 100ms}\n') as n:
        n.probe = probe.path
        n.start()
        p = start(n)
        ids = set(p.devices())
        p.allocate(['g0-s0'])
        count = len(p.lists)
        probe.say(lost=True)
        n.kubelet.wait_list(R, lambda p: set(p.devices()) == ids and not p.healthy(), 'no healthy one')
        assert len(p.lists) == count + 1
        assert refused(lambda: p.allocate(['g0-s1'])).code() == grpc.StatusCode.NOT_FOUND
        probe.say()
        n.kubelet.wait_list(R, lambda p: p.healthy() == ids, 'all of them')
        assert len(p.lists) == count + 2
    shutil.rmtree(probe.dir)


def test_ended_by_a_person():
    """`penstock end` of a pod's tenant: its slot is free, and its token is worth nothing."""
    with Node() as n:
        p = start(n)
        a = p.allocate(['g0-s0'])
        assert n.daemon.request('DELETE', '/v1/tenants/' + n.lease_of('g0-s0')['tenant'])[0] == 200
        wait_for(lambda: not n.lease_of('g0-s0'), 'the lease to be forgotten')
        assert is_refused(tenant_dir(a))
        Pod(p.allocate(['g0-s0'])).close()


def test_preferred():
    """The card with the fewest free slots that are enough, and what must be in it; no preference where nothing fits."""
    with Node() as n:
        p = start(n)
        free = ['g1-s3', 'g0-s0', 'g1-s0', 'g1-s1', 'g0-s3']
        assert sorted(p.prefer(free, 1)) == ['g0-s0']
        assert sorted(p.prefer(free, 2)) == ['g0-s0', 'g0-s3']
        assert sorted(p.prefer(free, 3)) == ['g1-s0', 'g1-s1', 'g1-s3']
        assert p.prefer(free, 4) == []
        assert sorted(p.prefer(free, 2, must=['g1-s3'])) == ['g1-s0', 'g1-s3']
        assert p.prefer(free, 2, must=['g1-s3', 'g0-s0']) == []
        assert p.prefer(free, 0) == [] and p.prefer(free, -1) == [] and p.prefer(free, 1000) == []
        assert p.prefer(['nonsense', 'g0-s1'], 1) == ['g0-s1']
        p.unary('PreStartContainer', M['PreStartContainerRequest'](devices_ids=['g0-s0']), 'PreStartContainerResponse')


def test_for_any_user_of_the_container_only():
    """Whoever is in the container can read the token; on the host nobody but root comes near it."""
    with Node() as n:
        p = start(n)
        a = p.allocate(['g0-s0'])
        d = tenant_dir(a)
        assert os.stat(os.path.dirname(d)).st_mode & 0o777 == 0o700
        assert os.stat(d).st_mode & 0o777 == 0o755 and os.stat(d + '/token').st_mode & 0o777 == 0o444
        assert os.stat(d + '/attach.sock').st_mode & 0o777 == 0o666


def test_shims_and_cdi():
    """What a container gets beside its tenant directory; a key stands in the plain part or in the CDI device, never in both."""
    with Node('    - {name: vgpu-1g, memory: 1G, compute: 25%, cdi: "nvidia.com/gpu=0"}\n', top='shim_dir: /usr/lib\n') as n:
        p = start(n)
        a = p.allocate(['g0-s0'])
        assert [d.name for d in a.cdi_devices] == ['nvidia.com/gpu=0'] and not a.devices
        assert {(m.container_path, m.host_path) for m in a.mounts if m.host_path != tenant_dir(a)} == {('/run/penstock/lib', '/usr/lib')}
        assert a.envs['OPENCL_LAYERS'].startswith('/run/penstock/lib/')
        assert len({m.container_path for m in a.mounts}) == len(a.mounts)


def test_checkpoint():
    """The kubelet's own note: a slot that it holds for a pod stays healthy though its lease has lapsed."""
    with Node(TWO_PROFILES, more=SHORT) as n:
        p, big = start(n, R, BIG)

        def checkpoint(entries, numa=True):
            data = {'Data': {'PodDeviceEntries': [
                {'PodUID': u, 'ContainerName': 'c', 'ResourceName': r, 'DeviceIDs': {'-1': ids} if numa else ids, 'AllocResp': ''}
                for u, r, ids in entries] or None, 'RegisteredDevices': {}}, 'Checksum': 1}
            tmp = n.kubelet_dir + '/.tmp'
            with open(tmp, 'w', encoding='utf-8') as f:
                json.dump(data, f)
            os.rename(tmp, n.kubelet_dir + '/kubelet_internal_checkpoint')
        checkpoint([('u', R, ['g0-s3']), ('u', 'other.io/x', ['what', 'g0-s0'])])
        wait_for(lambda: n.status()['checkpoint'], 'the checkpoint')
        p.allocate(['g0-s3'])
        wait_state(n, 'lapsed', 'g0-s3')
        big.allocate(['g0-s0'])
        n.kubelet.wait_list(R, lambda p: p.healthy() == {'g0-s3', 'g1-s0', 'g1-s1', 'g1-s2', 'g1-s3'}, 'the believed one')
        checkpoint([], numa=False)
        n.kubelet.wait_list(R, lambda p: 'g0-s3' not in p.healthy() and len(p.healthy() - {'g0-s0'}) == 4, 'it to be forgotten')
        with open(n.kubelet_dir + '/kubelet_internal_checkpoint', 'w', encoding='utf-8') as f:
            f.write('{"Data": rubbish')
        checkpoint([('u', R, ['g0-s2'])], numa=False)
        n.kubelet.wait_list(R, lambda p: 'g0-s2' in p.healthy(), 'the next one')


def test_waits_for_a_container_that_is_there():
    """A program may take hours before it uses the device. As long as a container has the directory, it keeps what it has."""
    if not can_mount():
        return
    with Node(more=SHORT) as n:
        p = start(n)
        a = p.allocate(['g0-s0'])
        box = Box(n, a)
        try:
            p.allocate(['g0-s1'])
            wait_state(n, 'idle', 'g0-s0')                         # seen
            wait_state(n, 'lapsed', 'g0-s1')                       # nobody has this one
            assert state(n, 'g0-s0') == 'idle'
            b = p.allocate(['g0-s0'])                              # a container was there: this is for another one
            assert tenant_dir(b) != tenant_dir(a)
        finally:
            box.close()


def test_made_up_mounts():
    """Somebody mounts a directory of another's name in a namespace of his own: that keeps no lease."""
    if not can_mount():
        return
    with Node(more=SHORT) as n:
        p = start(n)
        name = os.path.basename(tenant_dir(p.allocate(['g0-s0'])))
        fake_dir = f'{n.dir}/elsewhere/containers/{name}'
        at = f'{n.dir}/at'
        os.makedirs(fake_dir)
        os.mkdir(at)
        # Once of the same file system, once of one of his own.
        script = (f'mount --bind {fake_dir} {at} && mount -t tmpfs none {n.dir}/elsewhere && mkdir -p {fake_dir} {at}2 && '
                  f'mount --bind {fake_dir} {at}2 && echo there && read x')
        with subprocess.Popen(['unshare', '-m', '--propagation', 'private', 'sh', '-c', script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as proc:
            assert proc.stdout.readline() == 'there\n'
            wait_state(n, 'lapsed', 'g0-s0')
            proc.stdin.close()


class Cgroup:
    """A cgroup with the path of a container, below this process's, in whichever hierarchy may be written."""

    def __init__(self, *parts):
        self.made = []
        for base in ('/sys/fs/cgroup/pids', '/sys/fs/cgroup/freezer', '/sys/fs/cgroup/unified', '/sys/fs/cgroup'):
            path = os.path.join(base, f'penstock-test-{os.getpid()}')
            try:
                for part in ('', *parts):
                    path = os.path.join(path, part) if part else path
                    os.mkdir(path)
                    self.made.append(path)
                with open(path + '/cgroup.procs', 'a', encoding='utf-8'):
                    return
            except OSError:
                self.close()

    def enter(self, pid):
        with open(self.made[-1] + '/cgroup.procs', 'w', encoding='utf-8') as f:
            f.write(str(pid))

    def close(self):
        while self.made:
            path = self.made.pop()
            wait_for(lambda p=path: self._gone(p), 'a cgroup to be empty')

    @staticmethod
    def _gone(path):
        try:
            os.rmdir(path)
        except OSError as e:
            return e.errno == 2
        return True


def in_container(n, answer, cgroup, device=ONE):
    """A process that attaches from within the cgroup."""
    code = ('import sys, fake\nsys.stdin.readline()\n'
            f'c = fake.Client({tenant_dir(answer)!r}).attach({device!r})\nprint("attached", flush=True)\nsys.stdin.read()\n')
    proc = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            cwd=os.path.dirname(os.path.abspath(__file__)), env={**os.environ, **answer.envs})
    cgroup.enter(proc.pid)
    proc.stdin.write('go\n')
    proc.stdin.flush()
    assert proc.stdout.readline() == 'attached\n'
    return proc


def bundle(directory, cid, **names):
    os.makedirs(f'{directory}/{cid}', exist_ok=True)
    with open(f'{directory}/{cid}/config.json', 'w', encoding='utf-8') as f:
        json.dump({'annotations': {'io.kubernetes.cri.sandbox-namespace': names['namespace'], 'io.kubernetes.cri.sandbox-name': names['pod'],
                                   'io.kubernetes.cri.sandbox-uid': names['uid'], 'io.kubernetes.cri.container-name': names['container']}}, f)


def test_whose_container():
    """From the cgroup to the bundle: namespace, pod and container, in the API, in `ps` and in the metrics, and after a restart."""
    uid, cid = str(uuid.uuid4()), '0123456789abcdef' * 4
    cgroup = Cgroup('kubepods', 'burstable', 'pod' + uid, cid)
    if not cgroup.made:
        print('  (without: no cgroup can be made here)')
        return
    bundles = None
    try:
        with Node(more='') as n:
            bundles = n.dir + '/bundles'
            n.config(more=f'  bundles: /nowhere:{bundles}\n')
            n.daemon.request('POST', '/v1/config/reload')
            bundle(bundles, cid, namespace='shop', pod='cam-7d4', uid=uid, container='infer')
            p = start(n)
            a = p.allocate(['g0-s0'])
            proc = in_container(n, a, cgroup)
            name = n.lease_of('g0-s0')['tenant']
            want = {'namespace': 'shop', 'pod': 'cam-7d4', 'container': 'infer', 'pod_uid': uid}
            wait_for(lambda: n.daemon.tenant(name)['labels'] == want, 'the labels')
            line = f'tenant="{name}",device="{ONE}",namespace="shop",pod="cam-7d4",container="infer"'
            assert 'penstock_memory_used_bytes{' + line + '}' in n.daemon.get('/metrics')
            ps = subprocess.run([os.environ['PENSTOCK'], '--socket', n.daemon.sock, 'ps', '-o', 'wide'], check=True, capture_output=True,
                                text=True).stdout
            assert 'shop/cam-7d4/infer' in ps, ps
            end(proc)
            settle(n)
            n.daemon.kill()
            n.start()
            assert n.daemon.tenant(name)['labels'] == want
    finally:
        cgroup.close()


def test_hostile_names():
    """Names as no API server would let them through: a label stays one label, a line one line, and a terminal is told nothing."""
    uid, cid = str(uuid.uuid4()), '1123456789abcdef' * 4
    cgroup = Cgroup('kubepods', 'burstable', 'pod' + uid, cid)
    if not cgroup.made:
        print('  (without: no cgroup can be made here)')
        return
    odd = 'a"} 1\npenstock_lost{x="\\\x1b[2J\u202e'
    try:
        with Node(more='') as n:
            bundles = n.dir + '/bundles'
            n.config(more=f'  bundles: {bundles}\n')
            n.daemon.request('POST', '/v1/config/reload')
            bundle(bundles, cid, namespace=odd * 40, pod=odd, uid=uid, container=odd)
            p = start(n)
            proc = in_container(n, p.allocate(['g0-s0']), cgroup)
            name = n.lease_of('g0-s0')['tenant']
            wait_for(lambda: 'pod' in n.daemon.tenant(name)['labels'], 'the labels')

            def check():
                text = n.daemon.get('/metrics')
                lines = [l for l in text.splitlines() if name in l]
                assert lines and all(l.startswith('penstock_') and not l.startswith('penstock_lost') for l in lines), lines
                assert 'penstock_lost' not in {l.split('{')[0].split(' ')[0] for l in text.splitlines()}
                assert '\x1b' not in text and max(len(l) for l in lines) < 2000, lines
                return text
            text = check()
            if shutil.which('promtool'):
                r = subprocess.run(['promtool', 'check', 'metrics'], input=text, capture_output=True, text=True, check=False)
                assert r.returncode == 0 and not r.stderr, r
            ps = subprocess.run([os.environ['PENSTOCK'], '--socket', n.daemon.sock, 'ps', '-o', 'wide'], check=True, capture_output=True,
                                text=True).stdout
            assert '\x1b' not in ps and len(ps.splitlines()) == 2, ps
            end(proc)
            settle(n)
            # An older daemon, or a person, has written something else into the database.
            n.daemon.stop()
            db = sqlite3.connect(n.daemon.state + '/penstock.db')
            table, column = next((t, c) for t, in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
                                 for c in [r[1] for r in db.execute(f'PRAGMA table_info({t})')]
                                 if db.execute(f'SELECT 1 FROM {t} WHERE "{c}" LIKE \'%"labels"%\'').fetchone())
            note = json.loads(db.execute(f'SELECT "{column}" FROM {table} WHERE "{column}" LIKE \'%"labels"%\'').fetchone()[0])
            note['labels'] = {'pod': 'x"\npenstock_lost 1', 'namespace': 7, 'y': ['z']}
            db.execute(f'UPDATE {table} SET "{column}"=? WHERE "{column}" LIKE \'%"labels"%\'', (json.dumps(note),))
            db.commit()
            db.close()
            n.start()
            assert n.daemon.tenant(name), n.daemon.log()
            procs = fake.Client(n.daemon.tenant(name)['dir']).attach(ONE)
            check()
            procs.s.close()
    finally:
        cgroup.close()


def test_whose_container_by_the_port():
    """No bundle that anybody knows: the kubelet's read-only port, else its checkpoint."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    uid, cid = str(uuid.uuid4()), 'fedcba9876543210' * 4
    pods = {'items': [{'metadata': {'name': 'other', 'namespace': 'x', 'uid': 'y'}, 'status': {}},
                      {'metadata': {'name': 'web', 'namespace': 'default', 'uid': uid},
                       'status': {'containerStatuses': [{'name': 'side', 'containerID': 'containerd://' + 'a' * 64},
                                                        {'name': 'main', 'containerID': 'containerd://' + cid}]}}]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):    # pylint: disable=invalid-name
            data = json.dumps(pods).encode() if self.path == '/pods' else b''
            self.send_response(200 if data else 404)
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):    # pylint: disable=arguments-differ
            pass
    cgroup = Cgroup('kubepods.slice', f'kubepods-pod{uid.replace("-", "_")}.slice', f'cri-containerd-{cid}.scope')
    if not cgroup.made:
        print('  (without: no cgroup can be made here)')
        return
    server = HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Node() as n:
            with open(n.dir + '/penstock.yaml', encoding='utf-8') as f:
                text = f.read().replace('pods: none', f'pods: 127.0.0.1:{server.server_port}')
            with open(n.dir + '/penstock.yaml', 'w', encoding='utf-8') as f:
                f.write(text)
            n.daemon.request('POST', '/v1/config/reload')
            p = start(n)
            procs = [in_container(n, p.allocate(['g0-s0']), cgroup)]
            name = n.lease_of('g0-s0')['tenant']
            wait_for(lambda: n.daemon.tenant(name)['labels'] == {'namespace': 'default', 'pod': 'web', 'container': 'main', 'pod_uid': uid},
                     'the labels')
            pods['items'] = []                                     # the port is of no use any more
            data = {'Data': {'PodDeviceEntries': [{'PodUID': uid, 'ContainerName': 'again', 'ResourceName': R,
                                                   'DeviceIDs': {'-1': ['g0-s1']}, 'AllocResp': ''}]}}
            with open(n.kubelet_dir + '/kubelet_internal_checkpoint', 'w', encoding='utf-8') as f:
                json.dump(data, f)
            wait_for(lambda: n.status()['checkpoint'], 'the checkpoint')
            procs.append(in_container(n, p.allocate(['g0-s1']), cgroup))
            name = n.lease_of('g0-s1')['tenant']
            wait_for(lambda: n.daemon.tenant(name)['labels'] == {'container': 'again', 'pod_uid': uid}, 'what is known')
            for proc in procs:
                end(proc)
    finally:
        server.shutdown()
        server.server_close()
        cgroup.close()


def test_a_port_that_trickles():
    """Whatever answers there, a byte at a time and for ever, keeps the helper from others' files for seconds at most."""
    cgroup = Cgroup('kubepods', 'pod' + str(uuid.uuid4()), 'fedcba9876543210' * 4)
    if not cgroup.made:
        print('  (without: no cgroup can be made here)')
        return
    with socket.socket() as server, Node(top='metrics:\n  interval: 1h\n') as n:
        server.bind(('127.0.0.1', 0))
        server.listen()
        over = threading.Event()

        def trickle():
            c, _ = server.accept()
            with c:
                while not over.wait(0.2):
                    try:
                        c.send(b'x')
                    except OSError:
                        return
        t = threading.Thread(target=trickle)
        t.start()
        try:
            with open(n.dir + '/penstock.yaml', encoding='utf-8') as f:
                text = f.read().replace('pods: none', f'pods: 127.0.0.1:{server.getsockname()[1]}')
            with open(n.dir + '/penstock.yaml', 'w', encoding='utf-8') as f:
                f.write(text)
            n.daemon.request('POST', '/v1/config/reload')
            p = start(n)
            proc = in_container(n, p.allocate(['g0-s0']), cgroup)
            data = {'Data': {'PodDeviceEntries': []}}
            with open(n.kubelet_dir + '/kubelet_internal_checkpoint', 'w', encoding='utf-8') as f:
                json.dump(data, f)
            wait_for(lambda: n.status()['checkpoint'], 'the checkpoint to be read')
            end(proc)
        finally:
            over.set()
            t.join()
            cgroup.close()


def test_alias_slots_share_the_budget():
    """A resource of another system's name: slots of the same cards, of which there is room for so many in all."""
    with Node(more='  aliases: {nvidia.com/gpu: vgpu-1g}\n') as n:
        p, gpu = start(n, R, 'nvidia.com/gpu')
        p.allocate(['g0-s0'], ['g0-s1'], ['g0-s2'])
        gpu.allocate(['g0-s3'])
        n.kubelet.wait_list('nvidia.com/gpu', lambda p: p.healthy() == {'g0-s3', 'g1-s0', 'g1-s1', 'g1-s2', 'g1-s3'}, 'what fits')
        e = refused(lambda: gpu.allocate(['g0-s0']))
        assert 'cannot be guaranteed' in e.details()


def test_killed_between():
    """The daemon dies right after an answer: whatever it had written by then, a token that is known is good and no slot is lost."""
    with Node() as n:
        p = start(n)
        for _ in range(3):
            a = p.allocate(['g0-s0'])
            n.daemon.proc.send_signal(signal.SIGKILL)
            n.daemon.proc.wait()
            before = p
            n.start()
            n.kubelet.wait(lambda q=before: n.kubelet.plugins[R] is not q, 'another registration')
            p = n.kubelet.wait_list(R, lambda p: len(p.healthy()) == 8)
            Pod(a).close()


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
