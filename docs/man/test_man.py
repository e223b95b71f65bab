#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every command has a page, every page renders without a warning, and no option of the programs is left out.

Arguments: directory of the built pages, penstock, penstockd (may be missing in a partial build).
"""
import os
import re
import shutil
import subprocess
import sys
import unittest

PAGES, PENSTOCK, PENSTOCKD = sys.argv[1:4]
ENV = dict(os.environ, LC_ALL='C.UTF-8', LANGUAGE='', PENSTOCK_LANG='')


def output(*cmd):
    return subprocess.run(cmd, env=ENV, capture_output=True, text=True, check=True).stdout


def commands():
    text = output(PENSTOCK, '--help')
    return re.findall(r'^  ([a-z]+) {2,}\S', text.split('Commands:')[1].split('Options')[0], re.M)


def page(name):
    with open(os.path.join(PAGES, name), encoding='utf-8') as f:
        # What scdoc escapes for troff, undone, so that options can be looked for.
        return f.read().replace('\\-', '-').replace('\\fB', '').replace('\\fR', '').replace('\\', '')


class Man(unittest.TestCase):
    def test_every_command_has_a_page(self):
        names = commands()
        self.assertGreater(len(names), 10)
        for name in names:
            text = page(f'penstock-{name}.1')
            for section in ('NAME', 'SYNOPSIS', 'DESCRIPTION', 'EXIT CODES', 'SEE ALSO'):
                self.assertRegex(text, rf'\.SH "?{section}', f'penstock-{name}(1) has no section {section}')
            self.assertIn(f'penstock-{name}', page('penstock.1'))

    def test_pages_render_without_warning(self):
        if not shutil.which('man') or not shutil.which('groff'):
            self.skipTest('man and groff are not installed')
        for name in sorted(os.listdir(PAGES)):
            if re.search(r'\.[1358]$', name) and not page(name).startswith('.so '):
                r = subprocess.run(['man', '--warnings', '-E', 'UTF-8', '-l', '-P', 'cat', os.path.join(PAGES, name)],
                                   env=dict(ENV, MANWIDTH='80'), capture_output=True, text=True, check=False)
                self.assertEqual((r.returncode, r.stderr), (0, ''), name)
                self.assertGreater(len(r.stdout), 500, name)

    def test_pages_named_in_see_also_exist(self):
        for name in sorted(os.listdir(PAGES)):
            if re.search(r'\.[1358]$', name):
                for other, section in re.findall(r'\b(penstock[a-z_.-]*)\(([1358])\)', page(name)):
                    self.assertTrue(os.path.exists(os.path.join(PAGES, f'{other}.{section}')), f'{name}: {other}({section})')

    def test_examples_keep_their_backslashes(self):
        """scdoc takes one away, also in a literal block: what is to be read as one must be written as two."""
        source = os.path.dirname(os.path.abspath(__file__))
        seen = 0
        for name in sorted(os.listdir(source)):
            if name.endswith('.scd.in'):
                with open(os.path.join(source, name), encoding='utf-8') as f:
                    for block in f.read().split('```')[1::2]:
                        seen += block.count('\\\\')
                        self.assertNotIn('\\', block.replace('\\\\', ''), name)
        self.assertGreater(seen, 0)

    def test_every_function_has_a_page(self):
        """Those of the headers; each named at the head of the page that its own leads to."""
        include = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../include/penstock')
        functions = set()
        for name in os.listdir(include):
            with open(os.path.join(include, name), encoding='utf-8') as f:
                functions |= set(re.findall(r'^[a-z].*?\b(penstock_[a-z_]+)\(', f.read(), re.M))
        self.assertGreater(len(functions), 15)
        for function in functions:
            text = page(function + '.3')
            if text.startswith('.so '):
                text = page(text.split('/')[1].strip())
            self.assertIn(function, text)

    def test_options_of_the_help_are_in_the_page(self):
        for command in ('run', 'set'):
            options = set(re.findall(r'^ +(?:-\w, )?(--[a-z-]+)', output(PENSTOCK, command, '--help'), re.M))
            self.assertGreater(len(options), 8)
            for option in options:
                self.assertTrue(option in page(f'penstock-{command}.1'), f'penstock-{command}(1) lacks {option}')

    def test_options_of_the_daemon_are_in_the_page(self):
        if not os.path.exists(PENSTOCKD):
            self.skipTest('penstockd is not built')
        options = set(re.findall(r'^ +(--[a-z-]+)', output(PENSTOCKD, '--help'), re.M))
        self.assertGreater(len(options), 8)
        for option in options:
            self.assertTrue(option in page('penstockd.8'), f'penstockd(8) lacks {option}')


if __name__ == '__main__':
    if not os.path.exists(os.path.join(PAGES, 'penstock.1')):
        print('skipped: the pages are not built (scdoc is missing)')
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
