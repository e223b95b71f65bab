#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Containers under contracts, with a real containerd and nothing above it: `ctr` is given what `penstock alloc` prints for docker.

containerd runs in a directory of its own, and is this machine's or taken out of Debian's package, as that of test_docker.py. Its containers'
root is an empty tree on which this machine's /usr and /etc are mounted, so that no image and no registry are needed.
"""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'daemon'))
from fake import Daemon, wait_for                                    # noqa: E402  pylint: disable=wrong-import-position
from test_docker import main, unpacked, why_not                                          # noqa: E402  pylint: disable=wrong-import-position
from test_podman import LOOK                                              # noqa: E402  pylint: disable=wrong-import-position

PENSTOCK, LOAD = os.environ['PENSTOCK'], os.environ['CLLOAD']
RO = 'rbind:ro:nosuid'


class Engine:
    """A containerd that nobody else uses."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix='pen-ctd-')
        self.sock, self.root = self.dir + '/s', self.dir + '/tree'
        for name in ('usr', 'etc', 'proc', 'sys', 'dev', 'tmp', 'run', 'mnt', 'build'):
            os.makedirs(f'{self.root}/{name}')
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            os.symlink('usr/' + name, f'{self.root}/{name}')
        off = ', '.join(f'"io.containerd.snapshotter.v1.{x}"' for x in ('aufs', 'btrfs', 'devmapper', 'zfs'))
        with open(self.dir + '/toml', 'w', encoding='utf-8') as f:
            f.write(f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\ndisabled_plugins = [{off}, "io.containerd.grpc.v1.cri"]\n'
                    f'[grpc]\n  address = "{self.sock}"\n')
        with open(self.dir + '/log', 'wb') as log:
            self.proc = subprocess.Popen(['containerd', '--config', self.dir + '/toml'], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __call__(self, *args):
        return subprocess.run(['ctr', '--address', self.sock, *args], capture_output=True, text=True, check=False, timeout=60)

    def ready(self):
        """None, or why it is not to be had."""
        wait_for(lambda: self.proc.poll() is not None or self('version').returncode == 0, 'containerd to answer')
        if self.proc.poll() is not None:
            return 'containerd does not start here'
        r = self.run('hello', [], 'true', options=['--rm'])
        return None if r.returncode == 0 else 'containerd cannot run a container here: ' + (r.stderr.strip().splitlines() or ['?'])[-1]

    def run(self, name, given, *command, options=('-d',)):
        mounts = [('/usr', '/usr', RO), ('/etc', '/etc', RO), (os.path.dirname(LOAD), '/build', RO)]
        words, env = list(given), ['PATH=/usr/bin:/bin', 'HOME=/tmp', 'POCL_CACHE_DIR=/tmp/pocl']
        while words:
            option, value = words.pop(0), words.pop(0)
            if option == '-e':
                env.append(value)
            else:
                assert option == '-v', (option, value)
                src, dst, mode = value.split(':')
                mounts.append((src, dst, RO if mode == 'ro' else 'rbind'))
        argv = ['run', *options, *(w for e in env for w in ('--env', e))]
        for src, dst, how in mounts:
            argv += ['--mount', f'type=bind,src={src},dst={dst},options={how}']
        return self(*argv, '--mount', 'type=tmpfs,src=tmpfs,dst=/tmp,options=mode=1777', '--rootfs', self.root, name, *command)

    def end(self, name):
        self('task', 'kill', '-s', 'KILL', name)
        wait_for(lambda: re.search(rf'^{name}\s.*RUNNING', self('task', 'ls').stdout, re.M) is None, 'the task to end')
        self('task', 'rm', name)
        self('container', 'rm', name)

    def close(self):
        for name in self('container', 'ls', '-q').stdout.split():
            self.end(name)
        self.proc.terminate()
        self.proc.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


ENGINE = None


class Node(Daemon):
    def alloc(self, name, *fields):
        r = subprocess.run([PENSTOCK, '--socket', self.sock, 'alloc', '-q', '--format', 'docker', '--name', name, *fields], capture_output=True,
                           text=True, check=True)
        return shlex.split(r.stdout)

    def used(self, name):
        return (self.place(name) or {}).get('mem_used_bytes', 0)

    def busy(self, *names):
        return all((self.place(n) or {}).get('device_ns', 0) > 50_000_000 for n in names)


def load(*more):
    return ['/build/' + os.path.basename(LOAD), '--mode', 'saturate', '--start', 'now', *more]


def test_two_containers():
    """Both keep their contracts; root in one can write no page that it was shown; what the dead one held is free; one starts again."""
    with Node() as node:
        given = {n: node.alloc(n, '--memory', '64M', '--compute', '30%') for n in ('cam', 'batch')}
        try:
            for name, words in given.items():
                r = ENGINE.run(name, words, *load('--duration', '60', '--memory', str(32 << 20)))
                assert r.returncode == 0, r
            wait_for(lambda: node.busy('cam', 'batch'), 'both to work')
            for name in given:
                t = node.tenant(name)
                assert node.used(name) >= 32 << 20 and t['devices'][0]['mem_limit_bytes'] == 64 << 20, t
            r = ENGINE('task', 'exec', '--exec-id', 'look', 'cam', 'python3', '-c', LOOK, '1')
            assert r.returncode == 0 and not re.search(r'^seen 0$', r.stdout, re.M), r
            again = {line.split()[0] for line in r.stdout.splitlines() if 'WRITABLE' in line}
            assert again <= {'/memfd:penstock-ledger'} and 'sealed' in r.stdout, r.stdout
            r = ENGINE('task', 'exec', '--exec-id', 'write', 'cam', 'sh', '-c', 'ls /run/penstock/*; echo x > /run/penstock/tenant/token')
            assert r.returncode != 0 and 'Read-only' in r.stderr and 'batch' not in r.stdout, r
            ENGINE.end('cam')
            wait_for(lambda: node.used('cam') == 0, 'the dead container to hold nothing')
            assert node.used('batch') >= 32 << 20
            r = ENGINE.run('cam', given['cam'], *load('--duration', '60', '--memory', str(32 << 20)))
            assert r.returncode == 0, r
            wait_for(lambda: node.used('cam') >= 32 << 20, 'the same contract to be in use again')
            # While it runs the daemon ends and comes back: the directory is mounted, not the socket in it.
            node.kill()
            node.start()
            wait_for(lambda: node.used('cam') >= 32 << 20 and not (node.place('cam') or {}).get('waits_for_clients', True), 'both to be back')
        finally:
            for name in given:
                ENGINE.end(name)


def test_failing_closed():
    """Above the contract; after its end; and with somebody else's directory but not his token."""
    with Node() as node:
        words = node.alloc('cam', '--memory', '64M')
        r = ENGINE.run('one', words, *load('--count', '1', '--memory', str(80 << 20)), options=['--rm'])
        assert r.returncode != 0 and node.place('cam')['denials'] > 0, (r, node.tenant('cam'))
        r = ENGINE.run('two', words, *load('--count', '1', '--memory', str(16 << 20)), options=['--rm'])
        assert r.returncode == 0, r
        node.request('DELETE', '/v1/tenants/cam')
        r = ENGINE.run('three', words, *load('--count', '1', '--memory', str(16 << 20)), options=['--rm'])
        assert r.returncode != 0, r      # its directory is gone: nothing to mount


def start():
    global ENGINE                                      # pylint: disable=global-statement
    reason = why_not('a containerd')
    if reason:
        return reason
    if not all(shutil.which(p) for p in ('containerd', 'ctr', 'runc')):
        path = unpacked(os.environ['BUILD'])
        if not path:
            return 'containerd is not installed, and Debian\'s is not to be had'
        os.environ['PATH'] = path
    ENGINE = Engine()
    return ENGINE.ready()


if __name__ == '__main__':
    main(sys.modules[__name__], start, lambda: ENGINE)
