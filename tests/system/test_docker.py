#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Containers under contracts, with a real docker daemon that knows nothing of CDI: what `penstock alloc --format docker` prints is what it
is started with.

dockerd runs in a directory of its own, touches neither firewall nor bridges, and is this machine's or, if it has none, taken out of
Debian's packages without installing them. The image is an empty tree on which this machine's /usr and /etc are mounted.
"""
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'daemon'))
from fake import Daemon, run, wait_for                                    # noqa: E402  pylint: disable=wrong-import-position

PENSTOCK, LOAD = os.environ['PENSTOCK'], os.environ['CLLOAD']
ENV = dict(os.environ, LC_ALL='C')
NEEDED = ('dockerd', 'docker', 'containerd', 'containerd-shim-runc-v2', 'runc')
PACKAGES = ('docker.io', 'containerd', 'runc')
IMAGE = 'penstock-test:1'


class Engine:
    """A docker daemon that nobody else uses."""

    def __init__(self, path):
        self.dir = tempfile.mkdtemp(prefix='pen-docker-')
        self.env = dict(ENV, PATH=path, DOCKER_HOST=f'unix://{self.dir}/s', DOCKER_CONFIG=self.dir)
        with open(self.dir + '/log', 'wb') as log:
            self.proc = subprocess.Popen(
                ['dockerd', '--data-root', self.dir + '/data', '--exec-root', self.dir + '/exec', '-H', self.env['DOCKER_HOST'], '-p',
                 self.dir + '/pid', '--iptables=false', '--ip6tables=false', '--ip-masq=false', '--bridge=none', '--storage-driver=vfs'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)

    def ask(self, *args, **kw):
        return subprocess.run(['docker', *args], env=self.env, capture_output=True, check=False, timeout=300, **kw)    # hashcat's kernels are compiled

    def __call__(self, *args):
        return self.ask(*args, text=True)

    def ready(self):
        """None, or why it is not to be had."""
        wait_for(lambda: self.proc.poll() is not None or self.ask('version').returncode == 0, 'dockerd to answer')
        if self.proc.poll() is not None:
            return 'dockerd does not start here'
        tree = io.BytesIO()
        with tarfile.open(fileobj=tree, mode='w') as tar:
            for name in ('usr', 'etc', 'proc', 'sys', 'dev', 'tmp', 'run', 'mnt'):
                d = tarfile.TarInfo(name)
                d.type, d.mode = tarfile.DIRTYPE, 0o1777 if name == 'tmp' else 0o755
                tar.addfile(d)
            for name in ('bin', 'sbin', 'lib', 'lib64'):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, 'usr/' + name
                tar.addfile(link)
        r = self.ask('import', '-', IMAGE, input=tree.getvalue())
        if r.returncode == 0:
            r = self.ask('run', '--rm', *HOST, IMAGE, 'true')
        if r.returncode == 0:
            return None
        return 'docker cannot run a container here: ' + (r.stderr.decode().strip().splitlines() or ['no reason given'])[-1]

    def close(self):
        left = self('ps', '-aq').stdout.split()
        if left:
            self('rm', '-f', *left)
        self.proc.terminate()
        self.proc.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)


HOST = ['--network', 'none', '-v', '/usr:/usr:ro', '-v', '/etc:/etc:ro']
DOCKER = None


class Node(Daemon):
    """A daemon whose contracts are given to docker."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.scratch = self.dir + '/scratch'
        os.mkdir(self.scratch)
        os.chmod(self.scratch, 0o1777)
        self.runs = 0

    def cli(self, *args):
        return subprocess.run([PENSTOCK, *args], env=dict(ENV, PENSTOCK_SOCKET=self.sock), capture_output=True, text=True,
                              check=False, timeout=60)

    def alloc(self, name, *fields):
        r = self.cli('alloc', '-q', '--format', 'docker', '--name', name, *fields)
        assert r.returncode == 0, r
        return r.stdout.split()

    def docker(self, options, *command, extra=()):
        build = os.environ['BUILD']
        self.runs += 1                  # what one user's program has compiled another's may not add to
        return DOCKER('run', *options, *extra, *HOST, '-v', f'{build}:{build}:ro', '-v', self.scratch + ':/mnt', '-e', 'HOME=/mnt',
                      '-e', f'POCL_CACHE_DIR=/mnt/pocl{self.runs}', IMAGE, *command)

    def inside(self, options, *command, extra=()):
        return self.docker(options, *command, extra=['--rm', *extra])

    def container(self, name, options, *command, extra=()):
        r = self.docker(options, *command, extra=['-d', '--name', name, *extra])
        assert r.returncode == 0, r

    def used(self, name):
        return (self.place(name) or {}).get('mem_used_bytes', 0)

    def __exit__(self, *what):
        left = DOCKER('ps', '-aq').stdout.split()
        if left:
            DOCKER('rm', '-f', *left)
        return super().__exit__(*what)


def busy(node, *names):
    return all((node.place(n) or {}).get('device_ns', 0) > 50_000_000 for n in names)


def test_two_containers_keep_their_contracts():
    with Node() as node:
        load = [LOAD, '--mode', 'saturate', '--start', 'now', '--duration', '60', '--memory', str(32 << 20)]
        for name in ('cam', 'batch'):
            node.container(name, node.alloc(name, '--memory', '64M', '--compute', '30%'), *load)
        wait_for(lambda: busy(node, 'cam', 'batch'), 'both to work')
        listed = node.cli('ps').stdout
        for name in ('cam', 'batch'):
            assert node.used(name) >= 32 << 20, node.tenant(name)
            assert re.search(rf'^{name} .* 64M .* 30% ', listed, re.M), listed
        r = DOCKER('exec', 'cam', 'sh', '-c', 'ls /run/penstock /run/penstock/tenant; echo x >/run/penstock/tenant/token')
        assert r.returncode != 0 and 'Read-only' in r.stderr and 'attach.sock' in r.stdout and 'batch' not in r.stdout, r
        # Killed: all that it held is free, and the other one goes on. Started again by docker alone: the same contract.
        assert DOCKER('kill', 'cam').returncode == 0
        wait_for(lambda: node.used('cam') == 0, 'the dead container to hold nothing')
        assert node.used('batch') >= 32 << 20
        assert DOCKER('start', 'cam').returncode == 0
        wait_for(lambda: node.used('cam') >= 32 << 20, 'the same container to be back')


def test_more_than_promised():
    with Node() as node:
        options = node.alloc('cam', '--memory', '64M')
        r = node.inside(options, LOAD, '--mode', 'saturate', '--start', 'now', '--count', '1', '--memory', str(80 << 20))
        assert r.returncode != 0 and node.place('cam')['denials'] > 0, (r, node.tenant('cam'))
        for extra in (['--user', '1000'], ['--cap-drop', 'ALL'], ['--read-only'], ['--pid', 'host'], ['--security-opt', 'no-new-privileges']):
            r = node.inside(options, LOAD, '--mode', 'saturate', '--start', 'now', '--count', '3', '--memory', str(16 << 20), extra=extra)
            assert r.returncode == 0, (extra, r)


def test_programs():
    """What people run: hashcat finds its word, within its contract and charged to it."""
    if not shutil.which('hashcat'):
        print('  hashcat is not installed')
        return
    with Node() as node:
        options = node.alloc('crack', '--memory', '1G', '--compute', '80%')
        r = node.inside(options, 'hashcat', '-m', '0', '-a', '3', '--force', '--potfile-disable', '-w', '1',
                        'fe01ce2a7fbac8fafaed7c982a04e229', '?l?l?l?l')
        assert r.returncode == 0 and 'fe01ce2a7fbac8fafaed7c982a04e229:' in r.stdout, r
        place = node.place('crack')
        assert place['device_ns'] > 0 and 0 < place['mem_peak_bytes'] <= 1 << 30, place


def test_after_a_reboot():
    """Whatever comes first. docker makes an empty directory for a mount whose source is not there; the daemon fills it."""
    with Node() as node:
        options = node.alloc('cam', '--memory', '64M')
        node.container('cam', options, LOAD, '--mode', 'saturate', '--start', 'now', '--duration', '60', '--memory', str(16 << 20))
        wait_for(lambda: node.used('cam') >= 16 << 20, 'it to work')
        assert DOCKER('kill', 'cam').returncode == 0
        node.proc.kill()
        node.proc.wait()
        shutil.rmtree(node.run)
        DOCKER('start', 'cam')
        wait_for(lambda: DOCKER('inspect', '-f', '{{.State.Running}}', 'cam').stdout == 'false\n', 'it to end: nobody answers it')
        assert DOCKER('inspect', '-f', '{{.State.ExitCode}}', 'cam').stdout != '0\n'
        node.start()
        wait_for(lambda: node.tenant('cam'), 'the contract to be there')
        r = DOCKER('start', 'cam')
        assert r.returncode == 0, r
        wait_for(lambda: node.used('cam') >= 16 << 20, 'it to work as before')


def unpacked(build):
    """PATH with what is missing taken out of Debian's packages, kept in the build directory; None if they are not to be had."""
    path = ENV['PATH'] + ':/usr/sbin:/sbin'
    if all(shutil.which(p, path=path) for p in NEEDED):
        return path
    folder = build + '/tests/docker-engine'
    own = f'{folder}/usr/bin:{folder}/usr/sbin:{path}'
    if all(shutil.which(p, path=own) for p in NEEDED):
        return own
    if not shutil.which('apt-get'):
        return None
    os.makedirs(folder, exist_ok=True)
    r = subprocess.run(['apt-get', 'download', '-q', *PACKAGES], cwd=folder, env=ENV, capture_output=True, check=False)
    debs = [f for f in os.listdir(folder) if f.endswith('.deb')]
    if r.returncode != 0 or not all(subprocess.run(['dpkg', '-x', d, '.'], cwd=folder, check=False).returncode == 0 for d in debs):
        return None
    for d in debs:
        os.unlink(f'{folder}/{d}')
    return own if all(shutil.which(p, path=own) for p in NEEDED) else None


def why_not(what):
    """What an engine of one's own and its containers need, and is not here; None: nothing."""
    if os.geteuid() != 0:
        return f'not root: {what} of one\'s own needs it'
    if not os.path.exists('/etc/OpenCL/vendors/pocl.icd'):
        return 'PoCL is not installed'
    return None


def main(module, start, engine):
    """start(): None, or why these tests cannot be run here; engine(): what it has started by then, or None."""
    try:
        reason = start()
        if reason:
            print('skipped:', reason)
            sys.exit(77)
        run(module)
    finally:
        if engine():
            engine().close()


def start():
    global DOCKER                                      # pylint: disable=global-statement
    reason = why_not('a docker daemon')
    if reason:
        return reason
    path = unpacked(os.environ['BUILD'])
    if not path:
        return 'no docker daemon is installed, and Debian\'s is not to be had'
    DOCKER = Engine(path)
    return DOCKER.ready()


if __name__ == '__main__':
    main(sys.modules[__name__], start, lambda: DOCKER)
