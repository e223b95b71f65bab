# SPDX-License-Identifier: Apache-2.0
"""The binary interface of libpenstock is the one that abi.txt says, and its headers are C99 and C++.

Arguments: the program of abi.c, the libraries. `--write` before them writes abi.txt anew: only ever to add to it.
"""
import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, '..', '..', 'include')
WRITE = sys.argv[1] == '--write'
ABI, *LIBRARIES = sys.argv[1 + WRITE:]


def interface():
    lines = subprocess.run([ABI], capture_output=True, text=True, check=True).stdout.splitlines()
    for library in LIBRARIES:
        name = os.path.basename(library)
        symbols = subprocess.run(['nm', '-D', '--defined-only', library], capture_output=True, text=True, check=True).stdout
        lines += [f'symbol {name} {s}' for s in sorted(re.findall(r' [TDRBVW] (\S+)$', symbols, re.M))]
        dynamic = subprocess.run(['readelf', '-W', '-d', library], capture_output=True, text=True, check=True).stdout
        lines += [f'soname {s}' for s in re.findall(r'\(SONAME\).*\[(.*)\]', dynamic)]
    return lines


class Abi(unittest.TestCase):
    def test_interface(self):
        with open(HERE + '/abi.txt', encoding='utf-8') as f:
            self.assertEqual(interface(), f.read().splitlines(), 'if something was added: test_abi.py --write')

    def compiles(self, compiler, language, *options):
        names = sorted(os.listdir(INCLUDE + '/penstock'))
        self.assertGreater(len(names), 5)
        for name in names:
            r = subprocess.run([*compiler, '-x', language, *options, '-pedantic', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', '-I', INCLUDE,
                                '-include', 'penstock/' + name, '/dev/null'], capture_output=True, text=True, check=False)
            self.assertEqual((r.returncode, r.stderr), (0, ''), name)

    def test_c(self):
        for standard in ('c99', 'c11', 'c17'):
            self.compiles(os.environ.get('CC', 'cc').split(), 'c', '-std=' + standard)

    def test_cxx(self):
        compiler = os.environ.get('CXX', 'c++').split()
        try:
            subprocess.run([*compiler, '--version'], capture_output=True, check=True)
        except OSError:
            self.skipTest('no C++ compiler')
        for standard in ('c++11', 'c++20'):
            self.compiles(compiler, 'c++', '-std=' + standard)


if __name__ == '__main__':
    if WRITE:
        with open(HERE + '/abi.txt', 'w', encoding='utf-8') as f:
            f.write('\n'.join(interface()) + '\n')
        sys.exit(0)
    unittest.main(argv=sys.argv[:1])
