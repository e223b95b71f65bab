#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs on the CUDA driver interface, under contracts, on the simulated card and in every version of its driver.

Argument: build directory.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(sys.argv[1])
RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'simgpu', 'simgpu-run')
PENSTOCK = os.path.join(BUILD, 'src', 'cli', 'penstock')
SOURCE = ['ffmpeg', '-hide_banner', '-loglevel', 'error', '-f', 'lavfi', '-i', 'testsrc=size=640x360:rate=10:duration=2']
PLAIN = [*SOURCE, '-vf', 'format=nv12', '-f', 'framemd5', '-']
CARD = [*SOURCE[:4], '-init_hw_device', 'cuda=cu:0', '-filter_hw_device', 'cu', *SOURCE[4:],
        '-vf', 'format=nv12,hwupload_cuda,hwdownload,format=nv12', '-f', 'framemd5', '-']


class Programs(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='pen-cu-')
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        os.chmod(self.dir, 0o700)
        self.env = dict(os.environ, BUILD=BUILD, XDG_RUNTIME_DIR=self.dir, LC_ALL='C')
        self.env.pop('PENSTOCK_SOCKET', None)

    def run_(self, *cmd):
        return subprocess.run(cmd, env=self.env, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    def frames(self, r):
        self.assertEqual(r.returncode, 0, r.stderr)
        found = re.findall(r'^0, .*', r.stdout, re.M)
        self.assertEqual(len(found), 20, r.stdout)
        return found

    def test_ffmpeg(self):
        """Every frame goes to the card and comes back as it was; what it took is counted."""
        plain = self.frames(self.run_(*PLAIN))
        for driver in ('11.4', '12.2', '13.0'):
            with self.subTest(driver):
                r = self.run_(RUN, '--driver', driver, '--', PENSTOCK, 'run', '--memory', '1G', '--compute', '30%', '--', *CARD)
                self.assertEqual(self.frames(r), plain)
                self.assertRegex(r.stderr, r'used \d+ [KM]iB of memory \(limit 1 GiB\), .* of device time .*, [1-9]\d* commands')

    def test_too_little_memory(self):
        """The driver's own code for it, and a summary that says what would have done."""
        r = self.run_(RUN, '--', PENSTOCK, 'run', '--memory', '256K', '--', *CARD)
        self.assertNotEqual(r.returncode, 0)
        self.assertIn('CUDA_ERROR_OUT_OF_MEMORY', r.stderr)
        self.assertRegex(r.stderr, r'allocations? refused')


if __name__ == '__main__':
    if not shutil.which('ffmpeg'):
        print('skipped: ffmpeg is not installed')
        sys.exit(77)
    if 'cuda' not in subprocess.run(['ffmpeg', '-hide_banner', '-hwaccels'], capture_output=True, text=True, check=False).stdout:
        print('skipped: this ffmpeg is built without CUDA')
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
