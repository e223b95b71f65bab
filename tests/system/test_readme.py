#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs what README.md and README.zh-CN.md show: every fenced block marked `sh run`, as a person would type it.

Arguments: build directory, source directory.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = (os.path.abspath(p) for p in sys.argv[1:3])
LANGUAGES = ('README.md', 'README.zh-CN.md')


def read(name):
    with open(os.path.join(SOURCE, name), encoding='utf-8') as f:
        return f.read()


def blocks(name):
    """(line, text) of each block that is to be run."""
    text = read(name)
    return [(text.count('\n', 0, m.start()) + 2, m.group(1)) for m in re.finditer(r'^```sh run\n(.*?)^```$', text, re.M | re.S)]


class Readme(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='pen-readme-')
        self.addCleanup(shutil.rmtree, self.dir)
        os.chmod(self.dir, 0o700)
        self.env = dict(os.environ, LC_ALL='C.UTF-8', XDG_RUNTIME_DIR=self.dir, HOME=self.dir,
                        PENSTOCK_SOCKET=os.path.join(self.dir, 'penstock', 'penstock.sock'),
                        PATH=os.path.join(BUILD, 'src', 'cli') + ':' + os.path.join(SOURCE, 'simgpu') + ':' + os.environ['PATH'],
                        BUILD=BUILD)
        pocl = '/etc/OpenCL/vendors/pocl.icd'
        if os.path.exists(pocl):
            self.env['OCL_ICD_VENDORS'] = pocl   # other drivers of this machine are not what is tested

    def run_blocks(self, name):
        found = blocks(name)
        self.assertGreaterEqual(len(found), 4, name)
        for line, text in found:
            if any(tool in text and not shutil.which(tool) for tool in ('hashcat', 'ffmpeg')):
                continue
            with self.subTest(f'{name}:{line}'):
                r = subprocess.run(['bash', '-euc', text], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL,
                                   capture_output=True, text=True, timeout=240, check=False)
                self.assertEqual(r.returncode, 0, f'{name}:{line}\n{text}\n{r.stdout[-2000:]}{r.stderr[-2000:]}')
                if 'hashcat' in text:
                    self.assertIn('fe01ce2a7fbac8fafaed7c982a04e229:demo', r.stdout)
                    self.assertIn('of device time', r.stderr)

    def test_english(self):
        self.run_blocks('README.md')

    def test_chinese(self):
        self.run_blocks('README.zh-CN.md')

    def test_both_show_the_same(self):
        """Commands and links of both are the same set: neither falls behind the other."""
        def links(text):
            return {t.replace('.zh-CN', '') for t in re.findall(r'\]\(([^)\s]+)\)', text) if not t.startswith('README')}
        english, chinese = (read(n) for n in LANGUAGES)
        self.assertEqual(links(english), links(chinese))
        self.assertEqual(len(blocks(LANGUAGES[0])), len(blocks(LANGUAGES[1])))
        for name in LANGUAGES:
            for command in re.findall(r'`penstock ([a-z]+)', read(name)):
                self.assertTrue(re.search(rf'^  {command} ', self.help(), re.M), f'{name}: penstock {command}')

    def help(self):
        return subprocess.run(['penstock', '--help'], env=self.env, capture_output=True, text=True, check=True).stdout


if __name__ == '__main__':
    if not os.path.exists(os.path.join(BUILD, 'src/daemon/penstockd')):
        print('skipped: penstockd is not built')
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
