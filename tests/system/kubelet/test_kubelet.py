# SPDX-License-Identifier: Apache-2.0
"""A real kubelet, stand-alone, with static pods in containerd: two pods on one card, kills and restarts of both sides.

Runs if KUBELET names a kubelet, as root, with containerd and runc installed, and nobody else's kubelet on the machine; else it is skipped. The
image is made here and needs no registry. Arguments: the static program of the pods.
"""
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'daemon'))

import fake
from fake import wait_for

fake.BOUND = max(fake.BOUND, 120)
PLUGINS = '/var/lib/kubelet/device-plugins'    # no kubelet looks anywhere else
R, SMALL, KEY = 'penstock.io/vgpu-1g', 'penstock.io/small', 'test:p/one#0'


def skip(why):
    print('skipped: ' + why)
    sys.exit(77)


def check():
    kubelet = os.environ.get('KUBELET')
    if not kubelet:
        skip('KUBELET names no kubelet')
    if not os.access(kubelet, os.X_OK):
        sys.exit(f'{kubelet} cannot be executed')
    if os.geteuid() != 0:
        skip('a kubelet needs root')
    for program in ('containerd', 'ctr', 'runc'):
        if not shutil.which(program):
            skip(program + ' is not installed')
    if os.path.exists(PLUGINS + '/kubelet.sock'):
        skip('there is a kubelet here already')
    return kubelet


def image(path, program):
    """A docker archive with that one program."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode='w') as t:
        t.add(program, '/claim')
    layer = layer.getvalue()
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {'Entrypoint': ['/claim']},
                         'rootfs': {'type': 'layers', 'diff_ids': ['sha256:' + digest]}}).encode()
    manifest = json.dumps([{'Config': 'config.json', 'RepoTags': ['localhost/claim:1'], 'Layers': ['layer.tar']}]).encode()
    with tarfile.open(path, 'w') as t:
        for name, data in (('manifest.json', manifest), ('config.json', config), ('layer.tar', layer)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))


class World:
    """containerd, kubelet and penstockd in one directory."""

    def __init__(self, kubelet, program):
        self.dir = tempfile.mkdtemp(prefix='rk-', dir='/tmp')
        self.kubelet_path, self.procs, self.logs = kubelet, {}, {}
        self.made = not os.path.isdir(PLUGINS)
        os.makedirs(PLUGINS, exist_ok=True)
        for name in ('pods', 'cni', 'kubelet', 'c'):
            os.mkdir(f'{self.dir}/{name}')
        self.containerd_sock = self.dir + '/c/containerd.sock'
        self.write_config()
        image(self.dir + '/image.tar', program)

    def write_config(self):
        with open(self.dir + '/cni/10-lo.conflist', 'w', encoding='utf-8') as f:
            json.dump({'cniVersion': '0.4.0', 'name': 'lo', 'plugins': [{'type': 'loopback'}]}, f)
        off = ', '.join(f'"io.containerd.snapshotter.v1.{x}"' for x in ('aufs', 'btrfs', 'devmapper', 'zfs'))
        with open(self.dir + '/containerd.toml', 'w', encoding='utf-8') as f:
            f.write(f'''version = 2
root = "{self.dir}/c/root"
state = "{self.dir}/c/state"
disabled_plugins = [{off}]
[grpc]
  address = "{self.containerd_sock}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/claim:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
''')
        with open(self.dir + '/penstock.yaml', 'w', encoding='utf-8') as f:
            f.write(f'kubernetes:\n  enabled: true\n  lease: 2s\n  bundles: {self.dir}/c/state/io.containerd.runtime.v2.task/k8s.io\n'
                    '  profiles:\n    - {name: vgpu-1g, memory: 1G, compute: 25%}\n    - {name: small, memory: 64M, compute: 1%, count: 2}\n')
        with open(self.dir + '/probe', 'w', encoding='utf-8') as f:
            f.write('#!/bin/sh\necho \'{"devices":[{"api":"test","key":"%s","model":"One","mem_bytes":4294967296,"units":8}],"backends":[]}\'\n' % KEY)
        os.chmod(self.dir + '/probe', 0o700)

    def start(self, name, argv):
        log = open(f'{self.dir}/{name}.log', 'ab')
        self.procs[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def start_containerd(self):
        self.start('containerd', ['containerd', '--config', self.dir + '/containerd.toml'])
        wait_for(lambda: self.ctr('version', check=False).returncode == 0, 'containerd')
        self.ctr('images', 'import', self.dir + '/image.tar')

    def ctr(self, *args, check=True):
        return subprocess.run(['ctr', '--address', self.containerd_sock, '--namespace', 'k8s.io', *args], check=check, capture_output=True,
                              text=True)

    def start_kubelet(self):
        self.start('kubelet', [
            self.kubelet_path, '--container-runtime=remote', f'--container-runtime-endpoint=unix://{self.containerd_sock}',
            f'--pod-manifest-path={self.dir}/pods', f'--root-dir={self.dir}/kubelet', f'--cert-dir={self.dir}/pki', '--fail-swap-on=false',
            '--cgroups-per-qos=false', '--enforce-node-allocatable=', '--cgroup-driver=cgroupfs', '--oom-score-adj=0', '--eviction-hard=',
            '--address=127.0.0.1', '--port=10250', '--read-only-port=10255', '--healthz-port=0', '--hostname-override=node',
            '--resolv-conf=', '--file-check-frequency=1s', '--sync-frequency=2s', '--v=2'])

    def pod(self, name, slots=1, init=False, more=None):
        main = {'name': 'main', 'image': 'localhost/claim:1', 'imagePullPolicy': 'Never', 'args': [KEY],
                'resources': {'limits': {R: str(slots), **(more or {})}}}
        text = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'namespace': 'shop'},
                'spec': {'hostNetwork': True, 'terminationGracePeriodSeconds': 1, 'containers': [main],
                         'initContainers': [{**main, 'name': 'first', 'args': [KEY, 'once']}] if init else []}}
        tmp = f'{self.dir}/{name}.json'
        with open(tmp, 'w', encoding='utf-8') as f:
            json.dump(text, f)
        os.rename(tmp, f'{self.dir}/pods/{name}.json')

    def remove_pod(self, name):
        os.unlink(f'{self.dir}/pods/{name}.json')

    def tasks(self):
        r = self.ctr('tasks', 'list', '-q', check=False)
        return r.stdout.split()

    def end(self):
        """Pods first, so that the kubelet ends them; then whatever is left, by its own ids."""
        for name in os.listdir(self.dir + '/pods'):
            os.unlink(f'{self.dir}/pods/{name}')
        if self.alive('kubelet') and self.alive('containerd'):
            until = time.monotonic() + 30
            while self.tasks() and time.monotonic() < until:
                time.sleep(0.1)
        self.kill('kubelet', signal.SIGTERM)
        for task in self.tasks():
            self.ctr('tasks', 'kill', '-s', 'SIGKILL', task, check=False)
        for task in self.tasks():
            self.ctr('tasks', 'delete', '-f', task, check=False)
        self.kill('containerd', signal.SIGTERM)
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/cmdline', 'rb') as f:
                    if self.containerd_sock.encode() in f.read():      # shims
                        os.kill(int(pid), signal.SIGKILL)
            except OSError:
                continue

    def alive(self, name):
        return name in self.procs and self.procs[name].poll() is None

    def kill(self, name, sig=signal.SIGKILL):
        if self.alive(name):
            self.procs[name].send_signal(sig)
        if name in self.procs:
            try:
                self.procs[name].wait(20)
            except subprocess.TimeoutExpired:
                self.procs[name].kill()
                self.procs[name].wait()

    def unmount(self):
        with open('/proc/self/mounts', encoding='utf-8') as f:
            points = [line.split()[1] for line in f if line.split()[1].startswith(self.dir)]
        for p in sorted(points, reverse=True):
            subprocess.run(['umount', '-l', p], check=False, stderr=subprocess.DEVNULL)

    def tail(self):
        for name in ('kubelet', 'containerd'):
            path = f'{self.dir}/{name}.log'
            if os.path.exists(path):
                with open(path, encoding='utf-8', errors='replace') as f:
                    sys.stderr.write(f'---- {name}\n' + ''.join(f.readlines()[-60:]))


def status(d):
    return d.get('/v1/integrations')['integrations']['kubelet']


def pods(d):
    """pod -> tenant, of those with processes."""
    return {t['labels'].get('pod'): t for t in d.get('/v1/tenants')['tenants'] if t['state'] == 'active'}


def clients(tenant):
    return {c['pid'] for dev in tenant['devices'] for c in dev['clients']}


def step(text):
    print(f'  {text}', flush=True)


def run(w):
    d = fake.Daemon('--probe', w.dir + '/probe', directory=w.dir)
    try:
        w.start_containerd()
        w.start_kubelet()
        wait_for(lambda: status(d)['resources'][0]['state'] == 'live', 'the registration')
        step('registered')
        w.pod('a')
        w.pod('b')
        wait_for(lambda: {'a-node', 'b-node'} <= set(pods(d)), 'both pods to be attached')
        now = pods(d)
        a, b = now['a-node'], now['b-node']
        assert a['name'] != b['name'] and a['contract']['memory'] == '1G', (a, b)
        assert a['labels']['namespace'] == 'shop' and a['labels']['container'] == 'main' and a['labels']['pod_uid'], a['labels']
        assert a['devices'][0]['key'] == b['devices'][0]['key'] == KEY
        step(f"two pods on one card: {a['name']} ({a['labels']['pod']}), {b['name']} ({b['labels']['pod']})")

        before = {t['name']: clients(t) for t in (a, b)}
        w.kill('kubelet')
        assert set(pods(d)) >= {'a-node', 'b-node'}
        count = status(d)['resources'][0]['registrations']
        w.start_kubelet()
        wait_for(lambda: status(d)['resources'][0]['registrations'] > count and status(d)['resources'][0]['state'] == 'live',
                 'another registration')
        wait_for(lambda: {t['name']: clients(t) for t in pods(d).values()} == before, 'the same processes under the same contracts')
        step('kubelet killed and started: registered again, pods as before')

        d.kill()
        d.start()
        wait_for(lambda: status(d)['resources'][0]['state'] == 'live', 'the registration of the new daemon')
        wait_for(lambda: {t['name']: clients(t) for t in pods(d).values()} == before, 'the processes to be back')
        step('penstockd killed and started: the same processes are back')

        w.remove_pod('b')
        wait_for(lambda: 'b-node' not in pods(d), 'the end of a pod')
        w.pod('c', slots=3)
        wait_for(lambda: 'c-node' in pods(d), 'a pod with three slots')
        c = pods(d)['c-node']
        assert c['contract']['memory'] == '3G' and c['contract']['compute'] == '75%', c
        assert pods(d)['a-node']['name'] == a['name']
        wait_for(lambda: b['name'] not in {x['tenant'] for x in status(d)['leases'] if x['state'] != 'lapsed'}, "what is gone to hold nothing")
        step(f"a pod ended, one with three slots came: {c['name']}")

        # its first process dies: the kubelet starts the container again, with the token that it has
        for pid in clients(c):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: 'c-node' in pods(d) and clients(pods(d)['c-node']) and clients(pods(d)['c-node']).isdisjoint(clients(c)),
                 'the container to be back')
        assert pods(d)['c-node']['name'] == c['name']
        step('a container started again: the same token')

        w.remove_pod('c')
        wait_for(lambda: 'c-node' not in pods(d), 'the end of a pod')
        since = d.last_event()
        w.pod('i', init=True)
        wait_for(lambda: 'i-node' in pods(d), 'a pod whose init container has the same slot')
        i = pods(d)['i-node']
        wait_for(lambda: d.tenant(i['name'])['labels']['container'] == 'main', 'the app container')
        made = [e['tenant'] for e in d.get(f'/v1/events?since={since}&limit=1000')['events'] if e['kind'] == 'tenant-created']
        assert made == [i['name']], made
        step(f"init container and container: one contract, {i['name']}")

        since = d.last_event()
        w.pod('two', more={SMALL: '1'})
        e = d.wait_event('refused', since=since)
        assert 'slots of two resources' in e['text'], e
        step('two resources in one container: refused, ' + e['text'])
    except BaseException:
        sys.stderr.write(d.log()[-6000:])
        w.tail()
        raise
    finally:
        w.end()
        d.kill()


def main():
    kubelet = check()
    w = World(kubelet, os.path.abspath(sys.argv[1]))
    try:
        run(w)
    finally:
        w.unmount()
        shutil.rmtree(w.dir, ignore_errors=True)
        for name in os.listdir(PLUGINS):
            os.unlink(os.path.join(PLUGINS, name))
        if w.made:
            os.rmdir(PLUGINS)
    version = subprocess.run([kubelet, '--version'], capture_output=True, text=True, check=False).stdout.strip()
    print(f'ok with {version}')


if __name__ == '__main__':
    main()
