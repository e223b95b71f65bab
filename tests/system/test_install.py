#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`meson install` puts every part where the other parts look for it, below any prefix.

Arguments: build directory, source directory.
"""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = (os.path.abspath(p) for p in sys.argv[1:3])


def run(*cmd, **env):
    return subprocess.run(cmd, env=dict(os.environ, LC_ALL='C', **env), capture_output=True, text=True, check=False)


def prefix():
    options = json.loads(run('meson', 'introspect', '--buildoptions', BUILD).stdout)
    return next(o['value'] for o in options if o['name'] == 'prefix').lstrip('/')


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.mkdtemp(prefix='pen-install-')
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        r = run('meson', 'install', '-C', BUILD, '--no-rebuild', DESTDIR=cls.tmp)
        assert r.returncode == 0, r.stdout + r.stderr
        cls.root = os.path.join(cls.tmp, prefix())
        # A place that no part was told of when it was built: what is found there is found from the program's own place.
        cls.moved = os.path.join(cls.tmp, 'moved')
        os.rename(cls.root, cls.moved)

    def path(self, *parts):
        return os.path.join(self.moved, *parts)

    def assert_file(self, *parts):
        self.assertTrue(os.path.isfile(self.path(*parts)), os.path.join(*parts))

    def test_files(self):
        for name in ('bin/penstock', 'sbin/penstockd', 'libexec/penstock/penstock-probe', 'lib/penstock/libpenstock-opencl.so',
                     'lib/systemd/system/penstock.service', 'share/doc/penstock/LICENSE',
                     'share/doc/penstock/examples/penstock.yaml', 'share/locale/zh_CN/LC_MESSAGES/penstock.mo',
                     'share/bash-completion/completions/penstock', 'share/zsh/site-functions/_penstock',
                     'share/fish/vendor_completions.d/penstock.fish'):
            self.assert_file(name)

    def test_nothing_else(self):
        """Tests, stand-in drivers and static archives stay at home."""
        allowed = ('bin/', 'sbin/', 'lib/penstock/', 'lib/systemd/', 'libexec/penstock/', 'share/', 'include/penstock/')
        library = re.compile(r'lib(64|/[^/]+-linux-gnu[^/]*)?/(libpenstock(-contract)?\.so(\.1)?|pkgconfig/penstock(-contract)?\.pc)')
        for folder, _, names in os.walk(self.moved):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.moved)
                self.assertTrue(path.startswith(allowed) or library.fullmatch(path), path)
                self.assertFalse(path.endswith('.a') or 'test' in os.path.basename(path), path)

    def test_a_program_is_built_with_the_library(self):
        """With nothing but what is installed: its headers, and what pkg-config says."""
        where = next(os.path.dirname(f) for f in glob.glob(self.moved + '/lib*/**/penstock.pc', recursive=True))
        flags = run('pkg-config', '--cflags', '--libs', 'penstock', 'penstock-contract', PKG_CONFIG_PATH=where)
        self.assertEqual(flags.returncode, 0, flags.stderr)
        flags = [f.replace('/' + prefix(), self.moved) for f in flags.stdout.split()]
        with open(self.tmp + '/x.c', 'w', encoding='utf-8') as f:
            f.write('#include <penstock/contract.h>\n#include <penstock/penstock.h>\n#include <stdio.h>\n'
                    'int main(void)\n{\n\tpenstock_request_t r;\n\tpenstock_contract_t *c;\n\tpenstock_contract_new(&c);\n'
                    '\treturn puts(penstock_error_name(penstock_request_begin(&r))) < 0;\n}\n')
        r = run('cc', '-o', self.tmp + '/x', self.tmp + '/x.c', *flags)
        self.assertEqual((r.returncode, r.stderr), (0, ''))
        r = run(self.tmp + '/x', LD_LIBRARY_PATH=os.path.dirname(where), PENSTOCK_TENANT='')
        self.assertEqual((r.returncode, r.stdout), (0, 'no-contract\n'), r.stderr)

    def test_man_pages(self):
        if not shutil.which('scdoc'):
            self.skipTest('scdoc is not installed')
        self.assert_file('share/man/man1/penstock.1')
        self.assert_file('share/man/man5/penstock-contract.5')
        self.assert_file('share/man/man8/penstockd.8')

    def test_programs_start(self):
        r = run(self.path('bin/penstock'), '--version', PENSTOCK_SOCKET='/nonexistent/socket')
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertRegex(r.stdout, r'^penstock \d')
        r = run(self.path('sbin/penstockd'), '--version')
        self.assertRegex(r.stdout, r'^penstockd \d', r.stderr)

    def test_doctor_finds_every_part(self):
        r = run(self.path('bin/penstock'), 'doctor', '-o', 'json', PENSTOCK_SOCKET='/nonexistent/socket')
        found = {c['id']: c for c in json.loads(r.stdout)['checks']}
        self.assertNotIn('daemon-program', found)
        self.assertEqual(found['layer']['status'], 'ok')
        self.assertIn(self.moved, found['layer']['text'])
        self.assertNotIn('devices', found, 'the probe was not found or crashed')

    def test_a_private_daemon_is_found_and_ends(self):
        with tempfile.TemporaryDirectory(prefix='pen-run-') as runtime:
            os.chmod(runtime, 0o700)
            r = run(self.path('bin/penstock'), 'run', '--start', '--', 'sh', '-c', 'exit 7', XDG_RUNTIME_DIR=runtime,
                    PENSTOCK_SOCKET=os.path.join(runtime, 'penstock.sock'))
            self.assertEqual(r.returncode, 7, r.stderr)

    def test_the_unit_names_the_daemon(self):
        with open(self.path('lib/systemd/system/penstock.service'), encoding='utf-8') as f:
            start = next(line for line in f if line.startswith('ExecStart='))
        self.assertEqual(start.strip(), 'ExecStart=/' + prefix() + '/sbin/penstockd')

    def unit(self):
        with open(self.path('lib/systemd/system/penstock.service'), encoding='utf-8') as f:
            return f.read()

    def test_the_unit_comes_first_and_may_write(self):
        """Before every kubelet; and what is made after us, by a kubelet or a runtime, is below what may be written."""
        lines = dict(line.split('=', 1) for line in self.unit().splitlines() if '=' in line and not line.startswith('#'))
        self.assertTrue({'kubelet.service', 'edgecore.service', 'k3s.service'} <= set(lines['Before'].split()))
        self.assertEqual(lines['ProtectSystem'], 'strict')
        writable = [p.lstrip('-') for p in lines['ReadWritePaths'].split()]
        for path in ('/var/lib/kubelet/device-plugins', os.path.realpath('/var/run') + '/cdi', '/etc/cdi', '/run/penstock', '/var/lib/penstock'):
            self.assertTrue(any(path.startswith(p) for p in writable), path)

    def test_the_unit_is_never_given_up(self):
        """However often it is killed it comes back; only what a person must mend, a configuration, is not tried again and again."""
        lines = dict(line.split('=', 1) for line in self.unit().splitlines() if '=' in line and not line.startswith('#'))
        self.assertEqual((lines['Restart'], lines['StartLimitIntervalSec']), ('always', '0'))
        self.assertIn('WatchdogSec', lines)
        with tempfile.TemporaryDirectory(prefix='pen-unit-') as folder:
            with open(folder + '/penstock.yaml', 'w', encoding='utf-8') as f:
                f.write('contracts: [')
            r = run(self.path('sbin/penstockd'), '--config', folder + '/penstock.yaml', '--runtime-dir', folder + '/r', '--state-dir', folder + '/s')
            self.assertEqual(str(r.returncode), lines['RestartPreventExitStatus'], r.stderr)

    def test_the_unit_is_valid(self):
        if not shutil.which('systemd-analyze'):
            self.skipTest('no systemd-analyze')
        with tempfile.TemporaryDirectory(prefix='pen-unit-') as folder:
            # Of a place that is not this machine's: only the names of files are others.
            text = self.unit().replace('/' + prefix() + '/sbin/penstockd', self.path('sbin/penstockd'))
            with open(folder + '/penstock.service', 'w', encoding='utf-8') as f:
                f.write('\n'.join(line for line in text.splitlines() if not line.startswith('Documentation=')) + '\n')
            r = run('systemd-analyze', 'verify', folder + '/penstock.service')
            self.assertEqual((r.returncode, r.stderr), (0, ''), r)

    def test_the_example_is_a_configuration(self):
        r = run(self.path('bin/penstock'), 'config', 'check', self.path('share/doc/penstock/examples/penstock.yaml'))
        self.assertEqual(r.returncode, 0, r.stderr)

    def test_it_speaks_chinese(self):
        r = run(self.path('bin/penstock'), '--help', PENSTOCK_LANG='zh_CN')
        self.assertIn('用法', r.stdout)

    def test_completion_is_a_script(self):
        r = run('bash', '-n', self.path('share/bash-completion/completions/penstock'))
        self.assertEqual((r.returncode, r.stderr), (0, ''))


if __name__ == '__main__':
    if not os.path.exists(os.path.join(BUILD, 'src/daemon/penstockd')):
        print('skipped: penstockd is not built')
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
