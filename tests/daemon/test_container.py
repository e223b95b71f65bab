#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a container gets of a driver: which files, under which names; and that all who start containers are told the same."""
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile

from fake import Client, Daemon, run, wait_for

KEY = 'pci:0000:01:00.0'
INSIDE = '/usr/local/nvidia/lib64/'
VERSION = '535.183.01'


def library():
    """A file that is a library of this machine's, and not ours."""
    with open('/proc/self/maps', encoding='utf-8') as f:
        return next(line.split()[-1] for line in f if 'libc.so' in line or 'libc-' in line)


class Node(Daemon):
    """A machine with one CUDA card, whose driver lies in `driver`, linked from `links`, as Debian has it."""

    def __init__(self, names, version=VERSION, slots=None, **kw):
        self.above = tempfile.mkdtemp(prefix='pd-driver-')
        self.driver, self.links, self.shims = (f'{self.above}/{n}' for n in ('driver', 'links', 'lib'))
        for folder in (self.driver, self.links, self.shims + '/cuda'):
            os.makedirs(folder)
        for name in names:
            shutil.copy(library(), f'{self.driver}/{name}')
        if version:
            for folder, target in ((self.driver, ''), (self.links, self.driver + '/')):
                os.symlink(f'{target}libcuda.so.{version}', folder + '/libcuda.so.1')
        for name in ('libcuda.so.1', 'libnvidia-ml.so.1'):
            shutil.copy(library(), f'{self.shims}/cuda/{name}')
        probe = self.above + '/probe'
        devices = [{'api': 'cuda', 'key': KEY, 'model': 'Card', 'mem_bytes': 16 << 30, 'units': 40}]
        with open(probe, 'w', encoding='utf-8') as f:
            f.write(f"#!/bin/sh\ncat <<'END'\n{json.dumps({'devices': devices, 'backends': []})}\nEND\n")
        os.chmod(probe, stat.S_IRWXU)
        if slots:
            self.see_slots(slots)
        super().__init__('--probe', probe, env={'LD_LIBRARY_PATH': self.links},
                         config=f'shim_dir: {self.shims}\ncdi:\n  directory: {self.above}/cdi\n', **kw)
        wait_for(lambda: any(d['key'] == KEY for d in self.get('/v1/devices')['devices']), 'the card to be found')

    def see_slots(self, slots):
        """The daemon sees other PCI devices than are there: {address: name of its node}."""
        os.makedirs(self.above + '/dev/dri')
        for address, name in slots.items():
            os.makedirs(f'{self.above}/pci/{address}/drm/{name}')
            os.symlink('/dev/null', f'{self.above}/dev/dri/{name}')
        wrapper = self.above + '/penstockd'
        with open(wrapper, 'w', encoding='utf-8') as f:
            f.write('#!/bin/sh\nset -e\ncd ' + self.above + '/dev\nmkdir shm\nmount --bind /dev/shm shm\n'
                    'for n in null zero urandom; do : >$n; mount --bind /dev/$n $n; done\n'
                    f'mount --bind {self.above}/pci /sys/bus/pci/devices\nmount --rbind . /dev\nexec "$@"\n')
        os.chmod(wrapper, stat.S_IRWXU)
        self.wrapper = ['unshare', '-m', '--propagation', 'private', wrapper]

    def container(self, name):
        assert self.create(name)[0] == 201
        return self.get(f'/v1/tenants/{name}/container')

    def driver_mounts(self, answer):
        return {m['container'][len(INSIDE):]: m['host'] for m in answer['mounts'] if m['container'].startswith(INSIDE)}

    def __exit__(self, *what):
        try:
            return super().__exit__(*what)
        finally:
            shutil.rmtree(self.above, ignore_errors=True)


def test_names():
    """Each library by the names that programs ask for, of this version alone, and ours in the place of the two that we stand for."""
    wanted = [f'libcuda.so.{VERSION}', f'libnvidia-ml.so.{VERSION}', f'libnvidia-ptxjitcompiler.so.{VERSION}', f'libnvcuvid.so.{VERSION}']
    others = [f'libGLX_nvidia.so.{VERSION}', f'libnvidia-glcore.so.{VERSION}', 'libnvidia-ml.so.470.256.02', 'libcudart.so.12', 'libc.so.6']
    with Node(wanted + others) as node:
        os.symlink(f'libnvidia-ptxjitcompiler.so.{VERSION}', node.driver + '/libnvidia-ptxjitcompiler.so.1')
        os.symlink(f'{node.driver}/libnvcuvid.so.{VERSION}', node.links + '/libnvcuvid.so.1')
        os.symlink(f'libcuda.so.{VERSION}', node.driver + '/libcuda.so')                        # for compilers alone
        os.symlink('libnvidia-ml.so.470.256.02', node.driver + '/libnvidia-ml.so.1')            # left by another version
        os.symlink('/nowhere', node.driver + '/libnvidia-opencl.so.1')
        with open(node.driver + f'/libnvidia-nvvm.so.{VERSION}', 'w', encoding='utf-8') as f:
            f.write('no library\n')
        answer = node.container('cam')
        # The daemon has looked already, and looks once a second.
        wait_for(lambda: 'libnvcuvid.so.1' in node.driver_mounts(node.get('/v1/tenants/cam/container')), 'the links to be seen')
        answer = node.get('/v1/tenants/cam/container')
        files = node.driver_mounts(answer)
        assert files == {
            **{name: f'{node.driver}/{name}' for name in wanted},
            'libnvidia-ptxjitcompiler.so.1': f'{node.driver}/libnvidia-ptxjitcompiler.so.{VERSION}',
            'libnvcuvid.so.1': f'{node.driver}/libnvcuvid.so.{VERSION}',
            'libcuda.so.1': f'{node.shims}/cuda/libcuda.so.1',
            'libnvidia-ml.so.1': f'{node.shims}/cuda/libnvidia-ml.so.1',
        }, files
        assert answer['env']['NVIDIA_VISIBLE_DEVICES'] == 'void' and answer['env']['LD_LIBRARY_PATH'].startswith('/run/penstock/lib/cuda:'), answer
        assert {'container': '/run/penstock/tenant', 'host': node.tenant('cam')['mount_dir']} in answer['mounts'], answer


def test_all_agree():
    with Node([f'libcuda.so.{VERSION}']) as node:
        answer = node.container('cam')
        node.create('batch')
        wait_for(lambda: os.path.exists(node.above + '/cdi/penstock.json'), 'the CDI file')

        def spec():
            with open(node.above + '/cdi/penstock.json', encoding='utf-8') as f:
                return json.load(f)
        wait_for(lambda: len(spec()['devices']) == 2, 'both to be listed')
        s = spec()
        own = next(d for d in s['devices'] if d['name'] == 'cam')['containerEdits']
        mounts = {(m['hostPath'], m['containerPath']) for m in own['mounts'] + s['containerEdits']['mounts']}
        assert mounts == {(m['host'], m['container']) for m in answer['mounts']}, s
        assert dict(e.split('=', 1) for e in own['env'] + s['containerEdits']['env']) == answer['env'], s
        assert not [m for d in s['devices'] for m in d['containerEdits']['mounts'] if m['containerPath'].startswith(INSIDE)], s
        out = subprocess.run([os.environ['PENSTOCK'], 'alloc', '-q', '--format', 'docker', '--name', 'third', '--memory', '1G'],
                             env={**os.environ, 'PENSTOCK_SOCKET': node.sock}, capture_output=True, text=True, check=True).stdout.split()
        third = node.get('/v1/tenants/third/container')
        assert {o for f, o in zip(out, out[1:]) if f == '-v'} == {f"{m['host']}:{m['container']}:ro" for m in third['mounts']}, out
        assert {o for f, o in zip(out, out[1:]) if f == '-e'} == {f'{k}={v}' for k, v in third['env'].items()}, out


def test_private():
    """A daemon of one user's, which has no integrations, answers the same."""
    with Node([f'libcuda.so.{VERSION}'], private=True) as node:
        answer = node.container('cam')
        assert f'libcuda.so.{VERSION}' in node.driver_mounts(answer), answer
        assert node.answers()


def test_unversioned():
    """A driver whose file has no version in its name, as on some boards: what lies beside it is passed by the names that it has."""
    with Node(['libcuda.so.1', 'libnvidia-ml.so.1', 'libnvidia-nvvm.so.4'], version=None) as node:
        shutil.copy(library(), node.links + '/libcuda.so.1')
        shutil.copy(library(), node.links + '/libnvidia-nvvm.so.4')
        wait_for(lambda: node.request('GET', '/v1/tenants/cam')[0] == 200 or node.create('cam')[0] == 201, 'the contract')
        wait_for(lambda: 'libnvidia-nvvm.so.4' in node.driver_mounts(node.get('/v1/tenants/cam/container')), 'its library')
        files = node.driver_mounts(node.get('/v1/tenants/cam/container'))
        assert files['libcuda.so.1'].startswith(node.shims) and files['libcuda.so.1.0'] == node.links + '/libcuda.so.1', files


def test_no_driver():
    """A card, and none of its libraries to be found: nothing is made up."""
    with Node([], version=None) as node:
        answer = node.container('cam')
        found = node.driver_mounts(answer)
        assert not found or all(os.path.exists(h) for h in found.values()), answer      # a machine that has a driver of its own
        assert bool(found) == ('NVIDIA_VISIBLE_DEVICES' in answer['env']), answer
        assert node.request('GET', '/v1/tenants/nobody/container')[0] == 404


def test_only_what_was_found():
    """A tenant names a card that the daemon did not find, or a path: nobody is given the node of it."""
    if os.geteuid() != 0 or subprocess.run(['unshare', '-m', 'true'], check=False, capture_output=True).returncode:
        print('   cannot mount here: left out')
        return
    cards = {KEY[4:]: 'renderD128', '0000:02:00.0': 'renderD129', '0000:03:00.0': 'renderD130'}
    with Node([f'libcuda.so.{VERSION}'], slots=cards) as node:
        assert node.container('cam')['nodes'] == ['/dev/dri/renderD128']
        c = Client(node.tenant('cam')['mount_dir'])
        assert c.greet() == 0
        for key in ('pci:0000:02:00.0', f'{KEY}/../0000:03:00.0'):
            c.ask(key)
            c.take_seat()
        known = {d['key'] for d in node.get('/v1/devices')['devices']}
        assert 'pci:0000:02:00.0' in known, known
        assert node.container('batch')['nodes'] == ['/dev/dri/renderD128'], node.get('/v1/tenants/batch/container')
        c.s.close()


if __name__ == '__main__':
    run(sys.modules[__name__])
