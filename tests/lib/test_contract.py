# SPDX-License-Identifier: Apache-2.0
"""What libpenstock-contract says of a text is what `penstock config check` says, taken apart; what it prints is what that shows."""
import os
import subprocess
import sys
import tempfile
import unittest

ENV = dict(os.environ, LC_ALL='C.UTF-8', LANGUAGE='', PENSTOCK_LANG='')


def run(*cmd):
    return subprocess.run(cmd, env=ENV, capture_output=True, text=True, check=False)


class Contract(unittest.TestCase):
    def setUp(self):
        with tempfile.NamedTemporaryFile('w', suffix='.yaml', delete=False, encoding='utf-8') as f:
            self.path = f.name
        self.addCleanup(os.unlink, self.path)

    def both(self, text):
        with open(self.path, 'w', encoding='utf-8') as f:
            f.write(text)
        verb = 'show'
        return run(os.environ['LIBCONTRACT'], self.path), run(os.environ['PENSTOCK'], 'config', verb, self.path)

    def refused(self, text, line, field):
        ours, theirs = self.both(text)
        self.assertEqual((ours.returncode, theirs.returncode), (1, 1), (ours, theirs))
        code, file, at, of, whole = ours.stdout.rstrip('\n').split('\n')
        self.assertEqual((code, file, at, of), ('-2', self.path, str(line), field), ours.stdout)
        self.assertEqual('penstock config: ' + whole + '\n', theirs.stderr)

    def test_refused(self):
        self.refused('memory: nine\n', 1, 'memory')
        self.refused('name: cam\n\nmemory: 1G\nmemry: 2G\n', 4, '')
        self.refused('name: cam\nduty: 10%\n', 2, 'duty')
        self.refused('name: a b\n', 1, 'name')

    def test_shown(self):
        ours, theirs = self.both('name: cam\nclass: latency\nmemory: 1G..\ncompute: 30%\nsla: 20ms\n')
        self.assertEqual((ours.returncode, ours.stderr, theirs.returncode), (0, '', 0))
        self.assertEqual(ours.stdout, theirs.stdout)
        self.assertIn('memory: 1G..\n', ours.stdout)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
