#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs what README.md, docs/GETTING-STARTED.md and their Chinese twins show: every fenced block marked `sh run`, as a person would type it.

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
STARTED = ('docs/GETTING-STARTED.md', 'docs/GETTING-STARTED.zh-CN.md')


def read(name):
    with open(os.path.join(SOURCE, name), encoding='utf-8') as f:
        return f.read()


def blocks(name, text=None):
    """(line, text) of each block that is to be run."""
    text = text or read(name)
    return [(text.count('\n', 0, m.start()) + 2, m.group(1)) for m in re.finditer(r'^```sh run\n(.*?)^```$', text, re.M | re.S)]


def links(text):
    return {t.replace('.zh-CN', '') for t in re.findall(r'\]\(([^)\s#]+)', text) if not re.match('README|GETTING-STARTED', t)}    # of each other


class Page(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='pen-readme-')
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)   # a private daemon may be taking its files away
        os.chmod(self.dir, 0o700)
        self.env = dict(os.environ, LC_ALL='C.UTF-8', XDG_RUNTIME_DIR=self.dir, HOME=self.dir,
                        PENSTOCK_SOCKET=os.path.join(self.dir, 'penstock', 'penstock.sock'),
                        PATH=':'.join([*(os.path.join(BUILD, *p) for p in (('src', 'cli'), ('src', 'daemon'), ('bench',))),
                                       os.path.join(SOURCE, 'simgpu'), os.environ['PATH']]),
                        BUILD=BUILD)
        pocl = '/etc/OpenCL/vendors/pocl.icd'
        if os.path.exists(pocl):
            self.env['OCL_ICD_VENDORS'] = pocl   # other drivers of this machine are not what is tested

    def help(self):
        return subprocess.run(['penstock', '--help'], env=self.env, capture_output=True, text=True, check=True).stdout

    def check_commands(self, name):
        for command in re.findall(r'`penstock ([a-z]+)', read(name)):
            self.assertTrue(re.search(rf'^  {command} ', self.help(), re.M) or command in ('drain', 'undrain'), f'{name}: penstock {command}')


class Readme(Page):
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
        english, chinese = (read(n) for n in LANGUAGES)
        self.assertEqual(links(english), links(chinese))
        self.assertEqual(len(blocks(LANGUAGES[0])), len(blocks(LANGUAGES[1])))
        for name in LANGUAGES:
            self.check_commands(name)


class GettingStarted(Page):
    """Each chapter is typed from its beginning in one terminal, beside a simulated card."""

    def chapter(self, title):
        text = read(STARTED[0])
        at = text.index(f'\n## {title}\n')
        end = text.find('\n## ', at + 1)
        script = ['set -eu\n']
        for line, block in blocks(STARTED[0], text[at:end if end > 0 else None]):
            # What is shown to fail must fail; bash alone would not mind.
            block = re.sub(r'^! (.*)$', r'if \1; then echo "this was to fail"; exit 99; fi', block, flags=re.M)
            script.append(f'echo "-- block at line {line + text.count(chr(10), 0, at)}"\n{block}')
        self.assertGreater(len(script), 4)
        env = {k: v for k, v in self.env.items() if k != 'PENSTOCK_SOCKET'}
        r = subprocess.run(['simgpu-run', '--card', 'T4', '--', 'bash', '-c', ''.join(script)], cwd=self.dir, env=env, stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=240, check=False)
        self.assertEqual(r.returncode, 0, f'{title}\n{r.stdout[-3000:]}\n{r.stderr[-3000:]}')
        return r.stdout + r.stderr

    def test_one_box(self):
        out = self.chapter('One box')
        rows = {w[0]: w for w in (line.split() for line in out.splitlines()) if w and w[0] in ('cam', 'batch') and len(w) > 8}
        for name in ('cam', 'batch'):                   # both listed, each with what it was promised
            self.assertEqual((rows[name][2], rows[name][5], rows[name][7]), ('active', '4G', '30%'), out)
        self.assertIn("held: 'cam' 12 GiB", out)

    def test_two_models(self):
        out = self.chapter('Two models')
        self.assertRegex(out, r'camera used .* above it\)')
        self.assertIn('long ones not cut', out)

    def test_many_boxes(self):
        out = self.chapter('Many boxes')
        self.assertIn("bad.yaml:8: retention.max_size: 'lots' is not valid", out)
        self.assertIn("contract 'train': memory: ..2G -> ..3G", out)
        self.assertIn('is released', out)

    def test_both_show_the_same(self):
        """Not the number of blocks alone: they are the same, but for what they remark."""
        def plain(name):
            return [re.sub(r'\s+# .*$', '', text, flags=re.M) for _, text in blocks(name)]
        self.assertEqual(plain(STARTED[0]), plain(STARTED[1]))
        self.assertEqual(*(links(read(n)) for n in STARTED))
        self.assertEqual(*(len(re.findall(r'^#', read(n), re.M)) for n in STARTED))
        for name in STARTED:
            self.check_commands(name)


if __name__ == '__main__':
    if not os.path.exists(os.path.join(BUILD, 'src/daemon/penstockd')):
        print('skipped: penstockd is not built')
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
