#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The dynamic symbols of a stand-in libcuda.so.1 against the list: cuda_exports.py LIBRARY EXPORTS_PY CUDA_DEF VERSION

Exactly the rows of that version are exported, under the SONAME that programs look for, and calls inside are bound to ourselves.
"""
import subprocess
import sys


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    library, exports, cuda_def, version = sys.argv[1:5]
    have = {line.split()[-1] for line in run('nm', '-D', '--defined-only', library).splitlines()}
    want = set(run(sys.executable, exports, '--names', cuda_def, version).split())
    bad = [f'not exported: {n}' for n in sorted(want - have)] + [f'exported, and not in the list: {n}' for n in sorted(have - want)]
    dynamic = run('readelf', '-d', library)
    if 'soname: [libcuda.so.1]' not in dynamic:
        bad.append('the SONAME is not libcuda.so.1')
    if 'SYMBOLIC' not in dynamic:
        bad.append('linked without -Bsymbolic')
    print('\n'.join(bad) if bad else f'{len(have)} names')
    return 1 if bad or len(want) < 400 else 0


if __name__ == '__main__':
    sys.exit(main())
