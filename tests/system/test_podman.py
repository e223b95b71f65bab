#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Containers under contracts, with real podman: what `penstock alloc` prints is what it is started with.

The root file system of each container is this machine's, below an overlay, so that no image and no registry are needed.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'daemon'))
from fake import Daemon, run, wait_for                                    # noqa: E402  pylint: disable=wrong-import-position

PENSTOCK, LOAD = os.environ['PENSTOCK'], os.environ['CLLOAD']
# For hosts without CAP_SYS_RESOURCE and with hybrid cgroups; an ordinary one needs none of it.
MODEST = '''[containers]
default_ulimits=["nofile=1024:1024", "nproc=1024:1024"]
netns="none"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
'''
ENV = dict(os.environ, LC_ALL='C')


def podman(*args, **kw):
    return subprocess.run(['podman', *args], env=ENV, capture_output=True, text=True, check=False, timeout=150, **kw)


class Node(Daemon):
    """A daemon whose runtime directory a container's engine reaches, and the containers that were started beside it."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.names = []
        self.scratch = self.dir + '/scratch'     # that anybody in a container may write to, and run from
        os.mkdir(self.scratch)
        os.chmod(self.scratch, 0o1777)

    def cli(self, *args):
        return subprocess.run([PENSTOCK, *args], env=dict(ENV, PENSTOCK_SOCKET=self.sock), capture_output=True, text=True,
                              check=False, timeout=60)

    def alloc(self, name, *fields):
        r = self.cli('alloc', '-q', '--name', name, *fields)
        assert r.returncode == 0, r
        return r.stdout.split()

    def container(self, name, options, *command, extra=()):
        """Starts one that goes on. Returns podman's answer."""
        full = f'pen-{os.getpid()}-{name}'
        self.names.append(full)
        return podman('run', '-d', '--name', full, *options, *extra, '--rootfs', '/:O', *command)

    def inside(self, options, *command, extra=()):
        return podman('run', '--rm', *options, *extra, '--rootfs', '/:O', *command)

    def full(self, name):
        return f'pen-{os.getpid()}-{name}'

    def __exit__(self, *what):
        for name in self.names:
            podman('rm', '-f', '-t', '0', name)
        return super().__exit__(*what)


def used(node, name):
    return (node.place(name) or {}).get('mem_used_bytes', 0)


def busy(node, *names):
    """Each has done work on the device."""
    return all((node.place(n) or {}).get('device_ns', 0) > 50_000_000 for n in names)


def test_two_containers_keep_their_contracts():
    with Node() as node:
        cam, batch = (node.alloc(n, '--memory', '64M', '--compute', '30%') for n in ('cam', 'batch'))
        load = [LOAD, '--mode', 'saturate', '--start', 'now', '--duration', '30', '--memory', str(32 << 20)]
        for name, options in (('cam', cam), ('batch', batch)):
            r = node.container(name, options, *load)
            assert r.returncode == 0, r
        wait_for(lambda: busy(node, 'cam', 'batch'), 'both to work')
        for name in ('cam', 'batch'):
            assert used(node, name) >= 32 << 20, (name, node.tenant(name))
            t = node.tenant(name)
            assert t['devices'][0]['mem_limit_bytes'] == 64 << 20, t
        listed = node.cli('ps').stdout
        assert re.search(r'^cam .* 64M ', listed, re.M) and re.search(r'^batch .* 64M ', listed, re.M), listed
        # One is killed: all that it held is free at once, and the other goes on.
        r = podman('kill', node.full('cam'))
        assert r.returncode == 0, r
        wait_for(lambda: used(node, 'cam') == 0, 'the dead container to hold nothing')
        assert used(node, 'batch') >= 32 << 20
        # Started again under the same contract, by the engine alone.
        r = podman('start', node.full('cam'))
        assert r.returncode == 0, r
        wait_for(lambda: used(node, 'cam') >= 32 << 20, 'the same container to be back')


def test_programs():
    """What people run, in two containers at once: ffmpeg's frames are what they are without Penstock, hashcat finds its word."""
    frames = ['ffmpeg', '-v', 'error', '-nostdin', '-init_hw_device', 'opencl=ocl:0.0', '-filter_hw_device', 'ocl', '-f', 'lavfi', '-i',
              'testsrc2=size=640x360:rate=25:duration=2', '-vf', 'format=yuv420p,hwupload,unsharp_opencl=lx=5:ly=5,hwdownload,format=yuv420p', '-f',
              'md5', '-']
    if not shutil.which('ffmpeg') or not shutil.which('hashcat'):
        print('  ffmpeg or hashcat is not installed')
        return
    bare = subprocess.run(frames, env=ENV, capture_output=True, text=True, check=False)
    if bare.returncode:
        print('  this ffmpeg has no OpenCL filters')
        return
    with Node() as node:
        scratch = ['-v', node.scratch + ':/mnt', '-e', 'HOME=/mnt']
        frame, crack = node.alloc('frames', '--memory', '64M'), node.alloc('crack', '--memory', '1G', '--compute', '..80%')
        r = node.container('frames', frame, *frames, extra=[*scratch, '-e', 'POCL_CACHE_DIR=/mnt/a'])
        assert r.returncode == 0, r
        r = node.inside(crack, 'hashcat', '-m', '0', '-a', '3', '--force', '--potfile-disable', '-w', '1', 'fe01ce2a7fbac8fafaed7c982a04e229',
                        '?l?l?l?l', extra=[*scratch, '-e', 'POCL_CACHE_DIR=/mnt/b'])
        assert r.returncode == 0 and 'fe01ce2a7fbac8fafaed7c982a04e229:' in r.stdout, r
        assert podman('wait', node.full('frames')).stdout == '0\n', podman('logs', node.full('frames'))
        r = podman('logs', node.full('frames'))
        assert r.stdout == bare.stdout, (r, bare.stdout)
        for name, most in (('frames', 64 << 20), ('crack', 1 << 30)):
            place = node.place(name)
            assert place['device_ns'] > 0 and place['commands'] > 10 and 0 < place['mem_peak_bytes'] <= most, (name, place)


LOOK = r'''
import os, mmap, sys
pid = sys.argv[1]
seen = 0
for fd in os.listdir(f'/proc/{pid}/fd'):
    path = f'/proc/{pid}/fd/{fd}'
    try:
        name = os.readlink(path)
    except OSError:
        continue
    if 'memfd:' not in name:
        continue
    seen += 1
    try:
        again = os.open(path, os.O_RDWR)
    except OSError:
        print(name, 'not-opened')
        continue
    try:
        mmap.mmap(again, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
        print(name, 'WRITABLE')
    except OSError:
        print(name, 'sealed')
print('seen', seen)
'''


def test_nothing_is_shared_that_should_not_be():
    """Two containers do not see each other, and root in one can make no page that it was shown writable again."""
    with Node() as node:
        options = {n: node.alloc(n, '--memory', '64M') for n in ('cam', 'batch')}
        for name, o in options.items():
            r = node.container(name, o, LOAD, '--mode', 'saturate', '--start', 'now', '--duration', '30')
            assert r.returncode == 0, r
        wait_for(lambda: busy(node, 'cam', 'batch'), 'both to work')
        r = podman('exec', node.full('cam'), 'ls', '/run/penstock', '/run/penstock/tenant')
        assert 'batch' not in r.stdout and 'attach.sock' in r.stdout, r
        r = podman('exec', node.full('cam'), 'sh', '-c', 'echo x > /run/penstock/tenant/token')
        assert r.returncode != 0 and 'Read-only' in r.stderr, r
        r = podman('exec', node.full('cam'), 'python3', '-c', LOOK, '1')
        assert r.returncode == 0 and not re.search(r'^seen 0$', r.stdout, re.M), r
        # Its own account it may write, which nobody else has (docs/BOARD.md); every other page is sealed.
        again = {line.split()[0] for line in r.stdout.splitlines() if 'WRITABLE' in line}
        assert again <= {'/memfd:penstock-ledger'} and 'sealed' in r.stdout, r.stdout


def test_cdi():
    """By name: the daemon lists every contract where runtimes look, and takes it out when it ends."""
    folder = '/etc/cdi' if os.path.isdir('/etc/cdi') else '/var/run/cdi'
    made = not os.path.isdir(folder)
    kept = None
    if os.path.exists(folder + '/penstock.json'):       # of this machine's own daemon
        with open(folder + '/penstock.json', encoding='utf-8') as f:
            kept = f.read()
    tmp = tempfile.mkdtemp(prefix='pen-lib-')
    driver, lib = install(tmp, os.environ['BUILD'])
    with open(tmp + '/probe', 'w', encoding='utf-8') as f:
        f.write("#!/bin/sh\necho '{\"devices\": [{\"api\": \"cuda\", \"key\": \"pci:0000:01:00.0\", \"model\": \"Card\", "
                '"mem_bytes": 17179869184, "units": 40}], "backends": []}\'\n')
    os.chmod(tmp + '/probe', 0o755)
    try:
        with Node('--probe', tmp + '/probe', env={'LD_LIBRARY_PATH': driver}, config=f'cdi:\n  directory: {folder}\nshim_dir: {lib}\n') as node:
            wait_for(lambda: node.get('/v1/devices')['devices'], 'the card to be found')
            r = node.cli('alloc', '-q', '--format', 'cdi', '--name', 'cam', '--memory', '64M')
            assert r.stdout == 'penstock.io/tenant=cam\n', r

            def listed():
                try:
                    with open(folder + '/penstock.json', encoding='utf-8') as f:
                        return [d['name'] for d in json.load(f)['devices']]
                except FileNotFoundError:
                    return None
            wait_for(lambda: listed() == ['cam'], 'the contract to be listed')
            r = node.inside(['--device', 'penstock.io/tenant=cam', '-v', node.scratch + ':/mnt', '-e', 'HOME=/mnt',
                             '-e', 'POCL_CACHE_DIR=/mnt/pocl'],
                            LOAD, '--mode', 'saturate', '--start', 'now', '--count', '3', '--memory', str(16 << 20))
            assert r.returncode == 0, r
            assert node.place('cam')['mem_peak_bytes'] >= 16 << 20, node.tenant('cam')
            # What all contracts share is said once in the file: the driver's libraries.
            r = node.inside(['--device', 'penstock.io/tenant=cam'], 'cmp', f'{driver}/libcuda.so.{VERSION}',
                            f'/usr/local/nvidia/lib64/libcuda.so.{VERSION}')
            assert r.returncode == 0, r
            r = node.cli('end', 'cam')
            wait_for(lambda: listed() == [], 'the contract to be gone')
    finally:
        shutil.rmtree(tmp)
        if kept is not None:
            with open(folder + '/penstock.json', 'w', encoding='utf-8') as f:
                f.write(kept)
        elif os.path.exists(folder + '/penstock.json'):
            os.unlink(folder + '/penstock.json')
        if made and os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)


VERSION = '535.183.01'


def install(tmp, build):
    """The driver and our libraries as they are installed: each in one folder, under the names and links that they have there."""
    driver, lib = tmp + '/driver', tmp + '/lib'
    os.makedirs(driver)
    os.makedirs(lib + '/cuda')
    for name, kind in (('libcuda', 'cuda-12.2'), ('libnvidia-ml', 'nvml-535')):
        shutil.copy(f'{build}/simgpu/nvidia/{kind}/{name}.so.1', f'{driver}/{name}.so.{VERSION}')
        os.symlink(f'{name}.so.{VERSION}', f'{driver}/{name}.so.1')
    shutil.copy(f'{driver}/libcuda.so.{VERSION}', f'{driver}/libnvidia-nvvm.so.{VERSION}')       # any library
    os.symlink(f'libnvidia-nvvm.so.{VERSION}', driver + '/libnvidia-nvvm.so.4')
    shutil.copy(f'{driver}/libcuda.so.{VERSION}', f'{driver}/libGLX_nvidia.so.{VERSION}')
    shutil.copy(f'{driver}/libcuda.so.{VERSION}', driver + '/libnvidia-nvvm.so.470.256.02')
    shutil.copy(os.environ['LAYER'], lib)
    shutil.copy(build + '/src/shim/cuda/libcuda.so.1', lib + '/cuda')
    shutil.copy(build + '/src/shim/nvml/libnvidia-ml.so.1', lib + '/cuda')
    for folder in (tmp, driver, lib, lib + '/cuda'):
        os.chmod(folder, 0o755)
    return driver, lib


def test_cuda():
    """
    Two containers at 4 GiB and 30 % on one simulated card: both at work, both listed, and what is above the contract is refused. The driver is
    not the image's: it comes from this machine, with the contract, by options or by CDI.
    """
    build = os.environ['BUILD']
    with tempfile.TemporaryDirectory(prefix='pen-card-') as tmp:
        driver, lib = install(tmp, build)
        card = {'PENSTOCK_SIMGPU': tmp + '/card', 'LD_LIBRARY_PATH': driver}
        with subprocess.Popen([build + '/simgpu/server/penstock-simgpu', '--foreground', '--socket', tmp + '/card', '--card', 'T4'],
                              stdout=subprocess.PIPE, text=True) as server:
            try:
                assert 'ready' in server.stdout.readline()
                with Node('--probe', build + '/src/backend/penstock-probe', env=card, config=f'shim_dir: {lib}\n') as node:
                    wait_for(lambda: any(d['model'] == 'Tesla T4' and d['state'] == 'ok' for d in node.get('/v1/devices')['devices']),
                             'the card to be found')
                    two_on_a_card(node, card, build, driver)
            finally:
                server.terminate()


def two_on_a_card(node, card, build, driver):
    load = [build + '/bench/cuload', '--mode', 'saturate', '--start', 'now', '--request', 'k:500']
    # How programs find the simulated card; a real one they find by its nodes.
    find = ['-e', 'PENSTOCK_SIMGPU=' + card['PENSTOCK_SIMGPU'], '-v', f'{card["PENSTOCK_SIMGPU"]}:{card["PENSTOCK_SIMGPU"]}']
    options = {}
    for name in ('cam', 'batch'):
        options[name] = node.alloc(name, '--memory', '4G', '--compute', '30%') + find
        r = node.container(name, options[name], *load, '--duration', '60', '--memory', str(64 << 20))
        assert r.returncode == 0, r
    mounted = [o.split(':')[1] for o in options['cam'] if o.endswith(':ro') and '/usr/local/nvidia/' in o]
    assert sorted(mounted) == ['/usr/local/nvidia/lib64/' + f for f in (
        'libcuda.so.1', f'libcuda.so.{VERSION}', 'libnvidia-ml.so.1', f'libnvidia-ml.so.{VERSION}', 'libnvidia-nvvm.so.4',
        f'libnvidia-nvvm.so.{VERSION}')], mounted
    assert f'{driver}/libnvidia-nvvm.so.{VERSION}:/usr/local/nvidia/lib64/libnvidia-nvvm.so.4:ro' in options['cam']
    wait_for(lambda: busy(node, 'cam', 'batch'), 'both to work')
    for name in ('cam', 'batch'):
        t = node.tenant(name)
        assert t['devices'][0]['key'].startswith('pci:') and used(node, name) >= 64 << 20, t
    listed = node.cli('ps').stdout
    assert re.search(r'^cam .* 4G .* 30% ', listed, re.M) and re.search(r'^batch .* 4G .* 30% ', listed, re.M), listed
    # Whatever a program makes of the variable: where the driver is, there is the contract; where not, there is no CUDA.
    for path in (None, '/usr/local/nvidia/lib64', '/usr/local/nvidia/lib64:/run/penstock/lib/cuda'):
        setting = ['-e', 'LD_LIBRARY_PATH=' + path] if path else []
        r = node.inside(options['cam'] + setting, *load, '--count', '1', '--memory', str(5 << 30))
        assert r.returncode != 0 and 'out of memory (2)' in r.stderr, (path, r)
    r = node.inside(options['cam'], 'env', '-u', 'LD_LIBRARY_PATH', *load, '--count', '1')
    assert r.returncode != 0 and 'out of memory' not in r.stderr, r
    assert podman('kill', node.full('cam')).returncode == 0
    wait_for(lambda: used(node, 'cam') == 0, 'the dead container to hold nothing')


def test_hard_lives():
    """Other users, no capabilities, the host's processes, a root that cannot be written: managed and served all the same."""
    with Node() as node:
        ask = [LOAD, '--mode', 'saturate', '--start', 'now', '--count', '3', '--memory', str(16 << 20)]
        for number, extra in enumerate((['--user', '1000'], ['--cap-drop', 'all'], ['--user', '1000', '--cap-drop', 'all'],
                                        ['--pid', 'host'], ['--read-only', '--read-only-tmpfs=false'])):
            name = f'hard{number}'
            options = node.alloc(name, '--memory', '64M')
            r = node.inside(options, *ask, extra=[*extra, '-v', node.scratch + ':/mnt', '-e', 'HOME=/mnt', '-e', 'POCL_CACHE_DIR=/mnt/pocl-' + name])
            assert r.returncode == 0, (extra, r)
            assert node.place(name)['mem_peak_bytes'] >= 16 << 20, (extra, node.tenant(name))


def test_other_user_ids():
    """Root of the container is another user of the host, who may not enter the directories above the mount; and somebody else in there."""
    build, first = os.environ['BUILD'], 100000
    tree = tempfile.mkdtemp(prefix='pen-root-')
    try:
        for name in ('usr', 'etc', 'proc', 'sys', 'dev', 'run', 'mnt', 'opt'):
            os.mkdir(f'{tree}/{name}')
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            os.symlink('usr/' + name, f'{tree}/{name}')
        for path in (tree, *(f'{tree}/{n}' for n in os.listdir(tree))):
            os.lchown(path, first, first)
        os.chmod(tree, 0o755)
        with Node() as node:
            for number, extra in enumerate(([], ['--user', '1000'])):
                name = f'mapped{number}'
                r = podman('run', '--rm', *node.alloc(name, '--memory', '64M'), '--uidmap', f'0:{first}:65536', *extra, '-v', '/usr:/usr:ro',
                           '-v', '/etc:/etc:ro', '-v', f'{build}:/opt:ro', '-v', node.scratch + ':/mnt', '-e', 'HOME=/mnt',
                           '-e', 'POCL_CACHE_DIR=/mnt/pocl-' + name, '--rootfs', tree,
                           '/opt/bench/clload', '--mode', 'saturate', '--start', 'now', '--count', '3', '--memory', str(16 << 20))
                assert r.returncode == 0, (extra, r)
                assert node.place(name)['mem_peak_bytes'] >= 16 << 20, (extra, node.tenant(name))
    finally:
        shutil.rmtree(tree)


def test_failing_closed():
    """A directory without a token, or with another's, and memory above the contract."""
    with Node() as node:
        options = node.alloc('cam', '--memory', '64M')
        ask = [LOAD, '--mode', 'saturate', '--start', 'now', '--count', '1', '--memory', str(16 << 20)]
        empty = tempfile.mkdtemp(prefix='pen-empty-')
        at = options.index(next(o for o in options if o.endswith(':/run/penstock/tenant:ro')))
        try:
            for token in (None, '0' * 64):
                if token:
                    with open(empty + '/token', 'w', encoding='utf-8') as f:
                        f.write(token + '\n')
                    os.link(options[at].split(':')[0] + '/attach.sock', empty + '/attach.sock')
                other = [*options[:at], f'{empty}:/run/penstock/tenant:ro', *options[at + 1:]]
                r = node.inside(other, *ask)
                assert r.returncode != 0, (token, r)
                assert node.place('cam') is None, node.tenant('cam')
        finally:
            shutil.rmtree(empty)
        ask[-1] = str(80 << 20)
        r = node.inside(options, *ask)
        assert r.returncode != 0 and node.place('cam')['denials'] > 0, (r, node.tenant('cam'))


def why_not():
    if os.geteuid() != 0:
        return 'not root: containers with a root file system of this machine need it'
    if not shutil.which('podman'):
        return 'podman is not installed'
    if not os.path.exists('/etc/OpenCL/vendors/pocl.icd'):
        return 'PoCL is not installed'
    for conf in (None, MODEST):
        if conf:
            path = tempfile.mkdtemp(prefix='pen-podman-') + '/containers.conf'
            with open(path, 'w', encoding='utf-8') as f:
                f.write(conf)
            ENV['CONTAINERS_CONF'] = path
        r = podman('run', '--rm', '--rootfs', '/:O', 'true')
        if r.returncode == 0:
            return None
    return 'podman cannot run a container here: ' + (r.stderr.strip().splitlines() or ['no reason given'])[-1]


if __name__ == '__main__':
    reason = why_not()
    if reason:
        print('skipped:', reason)
        sys.exit(77)
    try:
        run(sys.modules[__name__])
    finally:
        if 'CONTAINERS_CONF' in ENV and ENV['CONTAINERS_CONF'] != os.environ.get('CONTAINERS_CONF'):
            shutil.rmtree(os.path.dirname(ENV['CONTAINERS_CONF']))
