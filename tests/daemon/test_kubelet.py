# SPDX-License-Identifier: Apache-2.0
"""The kubelet's device plugin against a kubelet that behaves as badly as real ones: registration, restarts, streams, gRPC."""
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time

import fake
import kubelet_standin
from fake import wait_for
from kubelet_node import CARDS, PROFILE, R, Node, tenant_dir
from kubelet_standin import M, Raw, grpc

ALL = {f'g{g}-s{s}' for g in (0, 1) for s in range(4)}
ALLOCATE = '/v1beta1.DevicePlugin/Allocate'


def cpu_ticks(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as f:
        return sum(int(v) for v in f.read().rsplit(')', 1)[1].split()[11:13])


def good(n, name=R):
    """The kubelet of a node has its list, and Allocate works."""
    p = n.kubelet.wait_list(name, lambda p: p.healthy(), 'a healthy list')
    free = sorted(p.healthy())[0]
    tenant_dir(p.allocate([free]))
    return p


def test_register_list_allocate():
    """From a kubelet that appears to a process under contract."""
    with Node() as n:
        n.kubelet.start()
        p = n.kubelet.wait_list(R)
        assert p.devices() == {i: True for i in ALL}, p.devices()
        assert p.options.get_preferred_allocation_available and not p.options.pre_start_required
        a = p.allocate(['g0-s2'])
        assert a.envs['PENSTOCK_SLOT_VGPU_1G'] == 'g0-s2', a
        assert [(m.container_path, m.read_only) for m in a.mounts] == [('/run/penstock/tenant', True), ('/run/penstock/slot/vgpu-1g', True)], a
        assert not a.cdi_devices and not a.devices
        c = fake.Client(tenant_dir(a)).attach('test:p/one#0')
        t = n.lease_of('g0-s2')
        assert t['tenant'].startswith('vgpu-1g-g0-s2-') and t['state'] == 'active', t
        v = n.daemon.tenant(t['tenant'])
        assert v['owner'] == 'kubelet' and v['contract']['memory'] == '1G' and v['contract']['compute'] == '25%', v
        assert v['contract']['device'] == 'test:p/one#0' and v['state'] == 'active'
        assert c.copy(32, '<Q') == 4 << 30
        c.close()


def test_calls_back_inside_register():
    """Both ways of kubelets: within Register, and after it. The old ones take the options from the request."""
    for inside in (True, False):
        with Node() as n:
            n.kubelet.inside = inside
            n.kubelet.start()
            p = good(n)
            assert p.options.get_preferred_allocation_available
            n.live()


def test_authority():
    """Kubelets up to 1.25 send the path of the socket as :authority, which nghttp2 would refuse."""
    for authority in ('localhost', '/var/lib/kubelet/device-plugins/x.sock', 'a b:c'):
        with Node() as n:
            n.kubelet.authority = authority
            n.kubelet.start()
            good(n)


def test_kubelet_restarts():
    """It deletes all sockets and makes its own anew; after a kill -9 the old file is still there, and refuses."""
    with Node() as n:
        n.kubelet.start()
        good(n)
        for leave in (False, True):
            n.kubelet.restart(leave_file=leave)
            p = good(n)
            n.live()
            assert os.path.exists(os.path.join(n.kubelet_dir, p.endpoint))
        assert n.resource()['registrations'] == 3
        mode = os.stat(os.path.join(n.kubelet_dir, p.endpoint)).st_mode & 0o777
        assert mode == 0o600, oct(mode)


def test_restart_storm():
    """Ten kubelets in a row, not all of which live long enough to be registered with: one stream in the end."""
    with Node() as n:
        n.kubelet.start()
        for i in range(10):
            n.kubelet.restart(leave_file=i % 2)
        p = good(n)
        n.live()
        assert n.resource()['state'] == 'live' and p.stream.is_active()


def test_directory():
    """Not there at the start; taken away and made again; a stale socket in it."""
    with Node(absent=True) as n:
        assert n.resource()['state'] == 'down'
        n.kubelet.start()
        good(n)
        n.kubelet.stop()
        n.kubelet.remove_directory()
        os.mkdir(n.kubelet_dir)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(n.kubelet_dir + '/kubelet.sock')
        n.kubelet.start()
        good(n)
        moved = n.kubelet_dir + '-moved'
        n.kubelet.stop()
        os.rename(n.kubelet_dir, moved)
        n.kubelet.start()
        good(n)


def test_socket_lost():
    """Somebody deletes our socket: it is there again, and registered again."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        n.live()
        before = n.resource()['registrations']
        os.unlink(os.path.join(n.kubelet_dir, p.endpoint))
        wait_for(lambda: n.resource()['registrations'] > before, 'another registration')
        assert good(n) is not p


def test_register_refused():
    with Node() as n:
        n.kubelet.refuse = 3
        n.kubelet.start()
        good(n)
        assert n.kubelet.refuse == 0 and len(n.kubelet.registrations) == 1


def test_register_never_answered():
    """The daemon serves everybody else meanwhile, and a new kubelet ends the wait."""
    with Node() as n:
        n.kubelet.silent = 1
        n.kubelet.start()
        n.kubelet.wait(lambda: n.kubelet.silent == 0, 'a Register')
        assert n.resource()['state'] == 'registering'
        assert n.daemon.create('somebody')[0] == 201
        n.kubelet.restart()
        good(n)


def test_list_never_opened():
    """Register is answered and nothing comes: registered again after a while."""
    with Node() as n:
        n.kubelet.deaf = 1
        n.kubelet.start()
        n.kubelet.wait(lambda: len(n.kubelet.registrations) == 1, 'a registration')
        good(n)
        assert len(n.kubelet.registrations) == 2


def test_list_cut():
    """A stream that ends is registered for again; also when the kubelet cuts the new one with the old one."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        n.live()
        for _ in range(3):
            count = len(n.kubelet.registrations)
            p.stream.cancel()
            n.kubelet.wait(lambda c=count: len(n.kubelet.registrations) > c, 'another registration')
            p = n.kubelet.wait_list(R)
        n.live()
        assert good(n).stream.is_active()


def test_registered_by_the_event_alone():
    """With all timers stopped: nothing between the kubelet's socket and Register but inotify."""
    freeze = tempfile.mktemp(prefix='pk-freeze-')
    asan = os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'
    with Node(env={'LD_PRELOAD': os.environ['FREEZE_TIMERS'], 'PENSTOCK_FREEZE': freeze, 'ASAN_OPTIONS': asan}) as n:
        wait_for(lambda: n.daemon.get('/v1/devices')['devices'], 'the devices')
        wait_for(lambda: n.status()['directory_watched'], 'the watch')
        with open(freeze, 'w', encoding='utf-8'):
            pass
        try:
            # Under another name until it listens: the time between bind and listen is another test's.
            n.kubelet.name = 'other.sock'
            n.kubelet.start()
            os.rename(n.kubelet_dir + '/other.sock', n.kubelet_dir + '/kubelet.sock')
            n.kubelet.wait(lambda: n.kubelet.plugins.get(R) and n.kubelet.plugins[R].lists, 'a list, with no timer')
        finally:
            os.unlink(freeze)


def test_bound_but_not_listening():
    """A kubelet's file is there from bind() on: who is refused right then tries again at once."""
    with Node() as n:
        wait_for(lambda: n.status()['directory_watched'], 'the watch')
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(n.kubelet_dir + '/kubelet.sock')
            # with a back-off this many would take minutes
            wait_for(lambda: n.daemon.log().count('Connection refused') >= 20, 'many refusals')
            s.listen(8)
            s.settimeout(fake.BOUND)
            c, _ = s.accept()
            assert c.recv(24).startswith(b'PRI * HTTP/2')
            c.close()


def test_daemon_restarts():
    """Killed or stopped: what it kept is offered again at once, and a token of before is good."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        a = p.allocate(['g1-s1'])
        c = fake.Client(tenant_dir(a)).attach('test:p/two#0')
        c.close()
        name = n.lease_of('g1-s1')['tenant']
        for kill in (True, False):
            wait_for(lambda: n.daemon.get('/v1/version')['store']['queued'] == 0, 'the store')
            if kill:
                n.daemon.kill()
            else:
                n.daemon.stop()
            n.kubelet.wait(lambda: not n.kubelet.plugins[R].stream.is_active(), 'the stream to end')
            n.start()
            # the kubelet has not restarted: its socket is found, and registered with
            n.kubelet.wait(lambda q=p: n.kubelet.plugins[R] is not q, 'another registration')
            p = n.kubelet.wait_list(R, lambda p: p.healthy() == ALL)
            assert n.lease_of('g1-s1')['tenant'] == name
            c = fake.Client(tenant_dir(a)).attach('test:p/two#0')
            c.close()


def test_listed_before_discovery():
    """After a restart what a pod has is listed while devices are still looked for; at the very first start nothing is."""
    with Node(start=False) as n:
        n.set_cards(CARDS, delay=1)
        n.kubelet.start()
        n.start()
        assert n.daemon.get('/v1/devices')['probing'] and not n.kubelet.registrations
        assert n.resource()['state'] == 'down'
        n.go()
        p = n.kubelet.wait_list(R, lambda p: p.healthy() == ALL)
        p.allocate(['g0-s3'])
        wait_for(lambda: n.daemon.get('/v1/version')['store']['queued'] == 0, 'the store')
        os.unlink(n.dir + '/go')
        n.daemon.kill()
        n.start()
        p = n.kubelet.wait_list(R, lambda p: p.healthy() == {'g0-s3'})
        assert n.daemon.get('/v1/devices')['probing'] and set(p.devices()) == ALL
        n.go()
        n.kubelet.wait_list(R, lambda p: p.healthy() == ALL)


def test_cards_keep_their_numbers():
    """A card that comes before others in the list, or takes one's place, moves no slot."""
    with Node(cards=[CARDS[1]]) as n:
        n.kubelet.start()
        n.kubelet.wait_list(R)
        assert n.status()['cards'] == {'g0': 'test:p/two#0'}
        n.daemon.stop()
        n.set_cards(CARDS)
        n.start()
        n.kubelet.wait_list(R, lambda p: p.healthy() == ALL)
        assert n.status()['cards'] == {'g0': 'test:p/two#0', 'g1': 'test:p/one#0'}
        n.daemon.stop()
        n.set_cards([CARDS[0]])
        n.start()
        p = n.kubelet.wait_list(R, lambda p: p.healthy() == {f'g1-s{s}' for s in range(4)})
        assert set(p.devices()) == ALL     # the missing card's are unhealthy, and not another's


def test_long_list_and_small_window():
    """More than the 64 KiB that may be in flight, to a reader with a window of 100 bytes, and below what a kubelet takes."""
    cards = [(f'test:p/card{i}#0', 'Many', 64 << 30, 8) for i in range(60)]
    with Node(cards=cards, profiles='    - {name: vgpu-1g, memory: ..1G, count: 64}\n') as n:
        n.kubelet.start()
        p = n.kubelet.wait_list(R)
        assert len(p.devices()) == 60 * 64
        raw = Raw(os.path.join(n.kubelet_dir, p.endpoint), [(4, 100)])
        raw.headers(1, '/v1beta1.DevicePlugin/ListAndWatch')
        raw.data(1, bytes(5))
        body, want = b'', None
        while want is None or len(body) < want:
            kind, _, sid, payload = raw.next()
            if (kind, sid) != (raw.DATA, 1):
                continue
            body += payload
            if want is None and len(body) >= 5:
                want = 5 + int.from_bytes(body[1:5], 'big')
            raw.window(1, len(payload))
            raw.window(0, len(payload))
        assert 65536 < want < 4 << 20, want
        assert len(M['ListAndWatchResponse'].FromString(body[5:]).devices) == 60 * 64
        raw.close()


def test_bad_requests():
    """Unknown method, garbage, half a frame, two messages, a compressed one, too long a one, and no gRPC at all."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        path = os.path.join(n.kubelet_dir, p.endpoint)

        def ask(method, payload, **kw):
            raw = Raw(path)
            raw.headers(1, method, **kw)
            raw.data(1, payload)
            status = raw.status(1)
            raw.close()
            return status
        whole = struct.pack('>BI', 0, 0)
        assert ask('/v1beta1.DevicePlugin/Nothing', whole) == '12'
        assert ask('/' + 'x' * 120, whole) == '12'
        assert ask(ALLOCATE, struct.pack('>BI', 0, 3) + b'\xff\xff\xff') == '3'
        assert ask(ALLOCATE, struct.pack('>BI', 0, 100) + b'\n') == '3'
        assert ask(ALLOCATE, b'\0\0') == '3'
        assert ask(ALLOCATE, whole + whole) == '3'
        assert ask(ALLOCATE, whole) == '3'                              # no containers
        assert ask(ALLOCATE, struct.pack('>BI', 1, 2) + b'xx') == '12'
        assert ask('/v1beta1.DevicePlugin/GetPreferredAllocation', struct.pack('>BI', 0, 1) + b'\xff') == '3'
        assert ask('/v1beta1.DevicePlugin/PreStartContainer', struct.pack('>BI', 0, 1) + b'\xff') == '3'
        assert ask(ALLOCATE, whole, content_type='text/html') == '13'
        for ids in (['g0-s9'], ['g00-s1'], ['g0-s1x'], ['nonsense'], [''], [], ['g63-s0']):
            try:
                p.allocate(ids)
                raise AssertionError(ids)
            except grpc.RpcError as e:
                assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), (ids, e)
                assert not ids or ids[0] in e.details() or 'card' in e.details(), e.details()
        good(n)
        n.live()


def test_too_long_a_message():
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        call = p.channel.unary_unary(ALLOCATE)
        try:
            call(bytes(5 << 20), timeout=fake.BOUND)
            raise AssertionError('taken')
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, e
        good(n)


def test_compressed_by_grpc():
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        q = M['AllocateRequest'](container_requests=[M['ContainerAllocateRequest'](devices_ids=['g0-s0'] * 50)])
        call = p.channel.unary_unary(ALLOCATE, request_serializer=M['AllocateRequest'].SerializeToString)
        try:
            call(q, timeout=fake.BOUND, compression=grpc.Compression.Gzip)
            raise AssertionError('taken')
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNIMPLEMENTED, e


def test_half_frames_and_hang_ups():
    """Connections that end anywhere, and that say nonsense, leave nothing behind."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        path = os.path.join(n.kubelet_dir, p.endpoint)
        hello = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + b'\0\0\0\4\0\0\0\0\0'
        before = len(os.listdir(f'/proc/{n.daemon.proc.pid}/fd'))
        for text in (b'', b'PRI', b'GET / HTTP/1.1\r\n\r\n' * 3, hello, hello + b'\0\0\4\0\0', hello + bytes(1000), os.urandom(4096),
                     hello + b'\xff\xff\xff\0\0\0\0\0\1' + bytes(70000)):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.sendall(text)
        for cut in range(1, 60, 7):       # a request that is cut short
            raw = Raw(path)
            raw.headers(1, ALLOCATE)
            raw.data(1, struct.pack('>BI', 0, cut) + bytes(cut // 2), end=False)
            raw.close()
        wait_for(lambda: len(os.listdir(f'/proc/{n.daemon.proc.pid}/fd')) <= before + 1, 'the connections to be forgotten')
        good(n)


def test_many_connections():
    """More than it takes at once: refused, and served again afterwards."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        socks = []
        for _ in range(100):
            s = socket.socket(socket.AF_UNIX)
            s.connect(os.path.join(n.kubelet_dir, p.endpoint))
            socks.append(s)
        for s in socks:
            s.close()
        good(n)


def test_out_of_descriptors():
    """Connections that cannot be taken: the daemon does not spin on them, and takes them when it can."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        pid = n.daemon.proc.pid
        used = len(os.listdir(f'/proc/{pid}/fd'))
        most = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, most))
        raws = [Raw(os.path.join(n.kubelet_dir, p.endpoint)) for _ in range(16)]      # into the backlog
        before = cpu_ticks(pid)
        time.sleep(1)                                           # nothing happens: that is what is looked for
        spent = (cpu_ticks(pid) - before) / os.sysconf('SC_CLK_TCK')
        assert spent < 0.3, f'{spent} s of CPU in a second'
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        for raw in raws:
            raw.close()
        good(n)


def test_lists_say_something_new():
    """One list at the start and one for each change; none that repeats the last."""
    with Node(profiles=PROFILE + '    - {name: big, memory: 3G, count: 1}\n') as n:
        n.kubelet.start()
        p, big = n.kubelet.wait_list(R), n.kubelet.wait_list('penstock.io/big')
        n.live()
        assert len(p.lists) == 1 and len(big.lists) == 1
        p.allocate(['g0-s0'])
        p.allocate(['g0-s0'])                    # nothing new
        p.allocate(['g0-s1'])                    # no room for 3 GiB any more
        n.kubelet.wait_list('penstock.io/big', lambda p: p.devices() == {'g0-s0': False, 'g1-s0': True})
        n.daemon.create('other', memory='..256M', device='test:p/two#0')
        n.daemon.request('DELETE', '/v1/tenants/other')
        n.daemon.request('POST', '/v1/config/reload')
        assert len(big.lists) == 2 and len(p.lists) == 1, (big.lists, p.lists)
        for x in (p, big):
            assert all(a != b for a, b in zip(x.lists, x.lists[1:]))


def test_reload():
    """Profiles come, change and go; another directory; off and on."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        n.config(PROFILE + '    - {name: extra, memory: 512M, count: 2}\n', more='  aliases: {nvidia.com/gpu: extra}\n')
        changes = n.daemon.request('POST', '/v1/config/reload')[1]['changes']
        assert {c['what'] for c in changes} == {"profile 'extra'", "alias 'nvidia.com/gpu'"}, changes
        for r in ('penstock.io/extra', 'nvidia.com/gpu'):
            x = n.kubelet.wait_list(r)
            assert set(x.devices()) == {'g0-s0', 'g0-s1', 'g1-s0', 'g1-s1'}
        assert x.allocate(['g1-s0']).envs['PENSTOCK_SLOT_NVIDIA_COM_GPU'] == 'g1-s0'
        assert n.lease_of('g1-s0')['resource'] == 'nvidia.com/gpu'
        assert p.stream.is_active()              # those that stay are left alone
        n.config('    - {name: vgpu-1g, memory: 1G, compute: 50%}\n')
        n.daemon.request('POST', '/v1/config/reload')
        n.kubelet.wait(lambda: not x.stream.is_active(), 'the end of what is no longer offered')
        assert not os.path.exists(os.path.join(n.kubelet_dir, x.endpoint))
        # what somebody has beyond the new number stays; g0 has one lease of before (25 %)
        n.kubelet.wait_list(R, lambda p: 'g1-s1' in p.devices() and 'g1-s2' not in p.devices())
        text = open(n.dir + '/penstock.yaml', encoding='utf-8').read()
        with open(n.dir + '/penstock.yaml', 'w', encoding='utf-8') as f:
            f.write(text.replace('enabled: true', 'enabled: false'))
        n.daemon.request('POST', '/v1/config/reload')
        n.kubelet.wait(lambda: not p.stream.is_active(), 'the end')
        assert not n.status()['enabled'] and not n.status()['resources']
        n.config()
        n.daemon.request('POST', '/v1/config/reload')
        n.kubelet.wait(lambda: n.kubelet.plugins[R] is not p, 'another registration')
        good(n)


def test_topology_and_health_of_a_missing_card():
    """Before anything was found there is nothing; NUMA nodes are not made up."""
    with Node(cards=[]) as n:
        n.kubelet.start()
        p = n.kubelet.wait_list(R)
        assert p.devices() == {}


def test_metrics():
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        n.live()
        p.allocate(['g1-s3'])
        text = n.daemon.get('/metrics')
        for line in (f'penstock_kubelet_registered{{resource="{R}"}} 1', 'penstock_kubelet_registrations_total 1',
                     'penstock_allocate_duration_seconds_count 2', 'penstock_allocate_duration_seconds_bucket{le="+Inf"} 2',
                     'penstock_leases{state="provisional"} 2', 'penstock_leases{state="active"} 0'):
            assert line + '\n' in text, line
        n.kubelet.stop()
        wait_for(lambda: f'penstock_kubelet_registered{{resource="{R}"}} 0\n' in n.daemon.get('/metrics'), 'it to be told')


def test_samples():
    """The configurations that are shipped and that the pages show are taken as they are."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
    texts = []
    for path in ('packaging/kubernetes/penstock.yaml', 'docs/KUBERNETES.md', 'docs/KUBERNETES.zh-CN.md', 'docs/config-reference.md'):
        with open(os.path.join(root, path), encoding='utf-8') as f:
            text = f.read()
        texts += [text] if path.endswith('.yaml') else [t.split('```')[0] for t in text.split('```yaml\n')[1:] if 'kubernetes:' in t.split('```')[0]]
    assert len(texts) >= 6, len(texts)
    for text in texts:
        with tempfile.NamedTemporaryFile('w', suffix='.yaml', encoding='utf-8') as f:
            f.write(text)
            f.flush()
            r = subprocess.run([os.environ['PENSTOCK'], 'config', 'check', f.name], capture_output=True, text=True, check=False)
            assert r.returncode == 0, (text, r.stdout + r.stderr)


def test_manifests():
    """What they ask for is what the shipped configuration has, and all of one manifest finds room on a node with one card."""
    try:
        import yaml
    except ImportError:
        print('  (without: no PyYAML)')
        return
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'packaging', 'kubernetes')
    with open(folder + '/penstock.yaml', encoding='utf-8') as f:
        profiles = {'penstock.io/' + p['name']: p for p in yaml.safe_load(f)['kubernetes']['profiles']}
    seen = 0
    for name in os.listdir(folder):
        if name == 'penstock.yaml':
            continue
        asked = {}
        with open(f'{folder}/{name}', encoding='utf-8') as f:
            for o in yaml.safe_load_all(f):
                spec = o['spec']['template']['spec'] if o['kind'] == 'Deployment' else o['spec']
                for c in spec['containers']:
                    resources = {k: v for k, v in c['resources']['limits'].items() if k.startswith('penstock.io/')}
                    assert len(resources) == 1, (name, resources)
                    for k, v in resources.items():
                        asked[k] = asked.get(k, 0) + v * o['spec'].get('replicas', 1)
        for k, v in asked.items():
            room = profiles[k].get('count') or 100 // int(profiles[k]['compute'].rstrip('%'))
            assert 1 < v <= room, (name, k, v, room)
            seen += 1
    assert seen == 2


def test_doctor():
    """It says whether the kubelet listens, and which profile fits into no card."""
    def doctor(n, **env):
        r = subprocess.run([os.environ['PENSTOCK'], '--socket', n.daemon.sock, 'doctor', '-o', 'json'], capture_output=True, text=True,
                           check=False, env={**os.environ, **env})
        return [(c['status'], c['text']) for c in json.loads(r.stdout)['checks'] if c['id'] == 'kubelet']
    with Node(profiles=PROFILE + '    - {name: huge, memory: 400G}\n') as n:
        assert ('warning', f'{R} is not registered: nobody listens to it in {n.kubelet_dir}') in doctor(n), doctor(n)
        n.kubelet.start()
        n.kubelet.wait_list(R)
        n.live()
        n.live('penstock.io/huge')
        assert doctor(n) == [('warning', 'no card has a slot of penstock.io/huge'), ('ok', '2 resources are registered with the kubelet')], doctor(n)
        assert any('种资源' in text for _, text in doctor(n, PENSTOCK_LANG='zh_CN'))


def test_watchers():
    """Two streams at once see the same lists; the end of one alone is no reason to register."""
    with Node() as n:
        n.kubelet.start()
        p = good(n)
        n.live()
        other = kubelet_standin.Plugin(n.kubelet, M['RegisterRequest'](endpoint=p.endpoint, resource_name=R))
        other.watch()
        n.kubelet.wait(lambda: other.lists, 'the second list')
        assert other.devices() == p.devices()
        other.close()
        wait_for(lambda: n.resource()['watchers'] == 1, 'the second stream to be forgotten')
        good(n)
        assert n.resource()['registrations'] == 1 and p.stream.is_active()


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
