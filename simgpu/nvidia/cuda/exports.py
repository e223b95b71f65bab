#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what a driver of one version exports, from src/api/cuda.def: a linker version script, or one name a line.

exports.py [--names] CUDA_DEF VERSION     VERSION as in cuda.def: 1000 x major + 10 x minor
"""
import re
import sys


def rows(path):
    """(symbol, family, since, thread, class) of every row."""
    with open(path, encoding='utf-8') as f:
        return [m.groups() for m in re.finditer(r'^PEN_CU\((\w+), (\w+), (\d+), (\w+), (\w+), ', f.read(), re.M)]


def main():
    args = [a for a in sys.argv[1:] if a != '--names']
    names = sorted(symbol for symbol, _, since, _, _ in rows(args[0]) if int(since) <= int(args[1]))
    if '--names' in sys.argv:
        print('\n'.join(names))
    else:
        print('{\nglobal:\n' + ''.join(f'\t{n};\n' for n in names) + 'local:\n\t*;\n};')


if __name__ == '__main__':
    main()
