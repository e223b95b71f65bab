#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks shim libraries, of any architecture, against what a tenant's image may lack.

Usage: check-glibc.py [--exports FILE] LIBRARY|BUILD_DIRECTORY...
- no symbol version above GLIBC_2.28 (the oldest C library that tenants' images are promised to work with);
- needs the C library and the loader only;
- exports exactly what the list beside the shim's source says: src/shim/NAME/exports.txt, one symbol a line, * matches
  the rest, a leading ? marks one that may be absent.
Given a build directory: every shared library below its src/shim. Only the Python standard library, and readelf.
"""
import argparse
import fnmatch
import glob
import os
import re
import subprocess
import sys

NEWEST = (2, 28)
MAY_NEED = ['libc.so.6', 'ld-linux*.so.*']


def readelf(option, path):
    return subprocess.run(['readelf', '-W', option, path], capture_output=True, text=True, check=True).stdout


def dynamic_symbols(path):
    """(name, version or '', is defined here) of every dynamic symbol."""
    for line in readelf('--dyn-syms', path).splitlines():
        words = line.split()
        if len(words) < 8 or not words[0].rstrip(':').isdigit():
            continue
        name, _, version = words[7].partition('@')
        if name and words[4] in ('GLOBAL', 'WEAK', 'UNIQUE'):
            yield name, version.lstrip('@'), words[6] != 'UND'


def read_exports(path):
    """[(pattern, may be absent)] of an allow list."""
    with open(path, encoding='utf-8') as f:
        words = [line.split('#')[0].strip() for line in f]
    return [(w.lstrip('?'), w.startswith('?')) for w in words if w]


def exports_of(library, root):
    """The list that belongs to a library in a build directory: .../src/shim/NAME/x.so -> src/shim/NAME/exports.txt."""
    m = re.search(r'src/shim/([^/]+)/[^/]+$', os.path.realpath(library))
    return os.path.join(root, 'src/shim', m.group(1), 'exports.txt') if m else None


def check(library, exports):
    """List of complaints about one library."""
    bad = []
    symbols = list(dynamic_symbols(library))
    for name, version, defined in symbols:
        m = re.match(r'GLIBC_(\d+)\.(\d+)', version)
        if m and not defined and (int(m.group(1)), int(m.group(2))) > NEWEST:
            bad.append(f'{name} needs {version}, newer than GLIBC_{NEWEST[0]}.{NEWEST[1]}')
    for needed in re.findall(r'\(NEEDED\).*\[(.*)\]', readelf('-d', library)):
        if not any(fnmatch.fnmatchcase(needed, p) for p in MAY_NEED):
            bad.append(f'needs {needed}: a shim needs the C library alone')
    if not exports or not os.path.exists(exports):
        return bad + [f'no list of exports ({exports or "give --exports FILE"})']
    allowed = read_exports(exports)
    names = {name for name, _, defined in symbols if defined}
    for name in sorted(names):
        if not any(fnmatch.fnmatchcase(name, p) for p, _ in allowed):
            bad.append(f'exports {name}, which {os.path.relpath(exports)} does not list')
    for pattern, optional in allowed:
        if not optional and not any(fnmatch.fnmatchcase(n, pattern) for n in names):
            bad.append(f'does not export {pattern}, which {os.path.relpath(exports)} lists')
    return bad


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--exports', help='allow list, if not src/shim/NAME/exports.txt')
    ap.add_argument('paths', nargs='+', help='libraries or build directories')
    args = ap.parse_args()

    libraries = []
    for path in args.paths:
        found = glob.glob(os.path.join(path, 'src/shim/**/*.so*'), recursive=True) if os.path.isdir(path) else [path]
        libraries += [p for p in found if os.path.isfile(p) and not os.path.islink(p) and not p.endswith('.symbols')]
    count = 0
    for library in sorted(libraries):
        try:
            bad = check(library, args.exports or exports_of(library, os.path.dirname(here)))
        except (OSError, subprocess.CalledProcessError) as e:
            bad = [f'cannot be read: {getattr(e, "stderr", None) or e}'.strip()]
        for text in bad:
            print(f'{os.path.relpath(library)}:0: {text}')
        count += len(bad)
    print(f'glibc: {len(libraries)} shim libraries: {count} violations')
    return 1 if count else 0


if __name__ == '__main__':
    sys.exit(main())
