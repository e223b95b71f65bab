#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The layer exports what the version script lists and nothing else, and needs nothing but libc: exports.py LAYER LIST"""
import re
import subprocess
import sys


def main():
    layer, script = sys.argv[1:3]
    text = re.sub(r'/\*.*?\*/', '', open(script, encoding='utf-8').read(), flags=re.S)
    want = set(re.findall(r'\b(cl\w+);', text))
    out = subprocess.run(['nm', '-D', '--defined-only', layer], capture_output=True, text=True, check=True).stdout
    got = {line.split()[2] for line in out.splitlines()}
    needed = subprocess.run(['readelf', '-d', layer], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r'NEEDED.*\[(.*?)\]', needed))
    print(f'exports {sorted(got)}, needs {sorted(libraries)}')
    allowed = {'libc.so.6', 'ld-linux-aarch64.so.1', 'ld-linux-x86-64.so.2', 'libgcc_s.so.1'}
    sanitizer = any('san.so' in lib for lib in libraries)
    return 0 if got == want and (sanitizer or libraries <= allowed) else 1


if __name__ == '__main__':
    sys.exit(main())
