# SPDX-License-Identifier: Apache-2.0
"""What `penstock run` puts in a program's way: the folder with our libcuda.so.1, trimmed to the driver, and hints where it cannot.

On an installation made by hand: libraries so small that nothing loads them, and a trimmer that a test writes.
"""
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import fake
from fake import Daemon

MACHINE = {'x86_64': 62, 'aarch64': 183}.get(os.uname().machine)


def note(owner):
    name = owner.encode() + b'\0'
    return struct.pack('<III', len(name), 0, 1) + name.ljust((len(name) + 3) // 4 * 4, b'\0')


def library(path, ours=False, kind=3):
    """An ELF file with notes and no loader's name."""
    notes = note('GNU') + (note('Penstock') if ours else b'')
    head = struct.pack('<16sHHIQQQIHHHHHH', b'\x7fELF\x02\x01\x01', kind, MACHINE, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    part = struct.pack('<IIQQQQQQ', 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as f:
        f.write(head + part + notes)
    os.chmod(path, 0o755)
    return path


class Installation:
    """bin, lib, libexec and a runtime directory below one folder, and a daemon."""

    def __init__(self, shim=True, driver=True, trim='cp "$1" "$3"; echo "$*" >> "${0%/*}/calls"'):
        self.dir = tempfile.mkdtemp(prefix='pd-inject-')
        os.mkdir(self.dir + '/bin')
        os.mkdir(self.dir + '/run', 0o700)
        shutil.copy(os.environ['PENSTOCK'], self.dir + '/bin/penstock')
        library(self.dir + '/lib/penstock/libpenstock-opencl.so')
        self.shims = self.dir + '/lib/penstock/cuda'
        if shim:
            library(self.shims + '/libcuda.so.1', ours=True)
            library(self.shims + '/libnvidia-ml.so.1', ours=True)
        self.drivers = self.dir + '/driver'
        if driver:
            library(self.drivers + '/libcuda.so.1')
        self.trimmer = self.dir + '/libexec/penstock/penstock-cuda-trim'
        if trim is not None:
            self.write_trimmer(trim)
        self.daemon = Daemon()

    def write_trimmer(self, text):
        os.makedirs(os.path.dirname(self.trimmer), exist_ok=True)
        with open(self.trimmer, 'w', encoding='ascii') as f:
            f.write('#!/bin/sh\n' + text + '\n')
        os.chmod(self.trimmer, 0o755)

    def calls(self):
        try:
            with open(os.path.dirname(self.trimmer) + '/calls', encoding='ascii') as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def run(self, *program, path=None, **env):
        """(exit code, standard output, standard error)"""
        env = {**os.environ, 'XDG_RUNTIME_DIR': self.dir + '/run', **env}
        env.pop('LD_LIBRARY_PATH', None)
        if path is not None:
            env['LD_LIBRARY_PATH'] = path
        r = subprocess.run([self.dir + '/bin/penstock', '--socket', self.daemon.sock, 'run', '--', *program], env=env, timeout=fake.BOUND,
                           capture_output=True, text=True, check=False)
        return r.returncode, r.stdout, r.stderr

    def library_path(self, path, **env):
        code, out, err = self.run('sh', '-c', 'echo "${LD_LIBRARY_PATH-unset}"', path=path, **env)
        assert code == 0, err
        return out.rstrip('\n')

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.daemon.__exit__(*what)
        shutil.rmtree(self.dir)


def has_driver():
    """A machine with a CUDA driver of its own: what it has stands behind what a test makes."""
    return any(os.path.exists(f'{d}/libcuda.so.1') for d in ('/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib'))


def test_no_driver():
    """Nothing changes; and that our library is missing is no error."""
    if has_driver():
        return
    with Installation(shim=False, driver=False) as i:
        assert i.library_path(None) == 'unset'
        assert i.library_path('/a::/b') == '/a::/b'


def test_no_shim():
    """With a driver there it is one: the program would run unlimited."""
    with Installation(shim=False) as i:
        code, _, err = i.run('true', path=i.drivers)
        assert code == 125 and 'libcuda.so.1' in err, (code, err)


def test_trimmed_once():
    with Installation() as i:
        got = i.library_path(i.drivers)
        first, rest = got.split(':', 1)
        assert rest == i.drivers and first.startswith(i.dir + '/run/penstock/cuda/'), got
        assert os.path.realpath(first + '/libnvidia-ml.so.1') == os.path.realpath(i.shims + '/libnvidia-ml.so.1')
        for name in ('libcuda.so', 'libnvidia-ml.so'):     # some programs open these names
            assert os.path.realpath(f'{first}/{name}') == os.path.realpath(f'{first}/{name}.1')
        assert i.calls() == [f'{os.path.realpath(i.shims)}/libcuda.so.1 {i.drivers}/libcuda.so.1 {i.calls()[0].split()[2]}']
        assert i.library_path(i.drivers) == got and len(i.calls()) == 1
        # inside of another `penstock run` it is not there twice
        assert i.library_path(f'{got}:/else') == f'{first}:{i.drivers}:/else' and len(i.calls()) == 1
        # another driver, another copy; and a new version of the same is another
        library(i.dir + '/other/libcuda.so.1')
        second = i.library_path(i.dir + '/other').split(':')[0]
        assert second != first and len(i.calls()) == 2
        os.utime(i.drivers + '/libcuda.so.1', (1, 1))
        assert i.library_path(i.drivers).split(':')[0] not in (first, second) and len(i.calls()) == 3
        assert all(not n.startswith('making') for n in os.listdir(i.dir + '/run/penstock/cuda'))


def test_made_by_two():
    """Who comes while another one makes the copy uses its own, or that one's: never half of one."""
    with Installation(trim='until [ -e "${0%/*}/go" ]; do sleep 0.01; done; cp "$1" "$3"; echo x >> "${0%/*}/calls"') as i:
        argv = [i.dir + '/bin/penstock', '--socket', i.daemon.sock, 'run', '-q', '--', 'sh', '-c', 'echo "$LD_LIBRARY_PATH"']
        env = {**os.environ, 'XDG_RUNTIME_DIR': i.dir + '/run', 'LD_LIBRARY_PATH': i.drivers}
        both = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        fake.wait_for(lambda: os.path.isdir(i.dir + '/run/penstock/cuda') and len(os.listdir(i.dir + '/run/penstock/cuda')) == 2, 'both to begin')
        with open(os.path.dirname(i.trimmer) + '/go', 'w', encoding='ascii'):
            pass
        said = {p.communicate(timeout=fake.BOUND)[0] for p in both}
        assert len(said) == 1 and len(i.calls()) == 2, said
        assert len(os.listdir(i.dir + '/run/penstock/cuda')) == 1


def test_untrimmed():
    """What cannot be trimmed is used as it is."""
    for trim, change in ((None, None), ('exit 1', None), ('echo rubbish > "$3"', None), ('cp "$1" "$3"', 'dir')):
        with Installation(trim=trim) as i:
            if change:      # a folder that others can write to is no place for a library
                os.mkdir(i.dir + '/run/penstock')
                os.chmod(i.dir + '/run/penstock', 0o777)
            assert i.library_path(i.drivers) == f'{os.path.realpath(i.shims)}:{i.drivers}', (trim, change)
            assert not change or not os.listdir(i.dir + '/run/penstock')


def test_hints():
    """Programs that load nothing of ours are named."""
    with Installation() as i:
        err = i.run(library(i.dir + '/static', kind=2))[2]
        assert 'linked statically' in err, err
        program = '/bin/su'
        if os.getuid() == 0:
            program = shutil.copy('/bin/true', i.dir + '/privileged')
            os.chown(program, 1, 1)
            os.chmod(program, 0o4755)
        if os.path.exists(program):
            assert 'set-uid' in i.run(program, '--help')[2]
        code, _, err = i.run('true')
        assert code == 0 and 'set-uid' not in err and 'statically' not in err, err


if __name__ == '__main__':
    if MACHINE is None:
        print('not a machine that the shim is built for')
        sys.exit(77)
    fake.run(sys.modules[__name__])
