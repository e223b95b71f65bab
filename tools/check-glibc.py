#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what tenants load, of any architecture, against what a tenant's image may lack.

Usage: check-glibc.py [--exports FILE] LIBRARY|BUILD_DIRECTORY...
- no symbol version above GLIBC_2.28 (the oldest C library that tenants' images are promised to work with);
- needs the C library and the loader only; a layer also the loader that it is a layer of, so that this stays as long as the
  layer, which is never unloaded: programs close it while the driver still calls back;
- exports exactly what the linker's version script beside its source says: src/shim/NAME/exports.txt.
Given a build directory: every shared library below its src, of which there must be one. Only the Python standard
library, and readelf.
"""
import argparse
import fnmatch
import glob
import os
import re
import subprocess
import sys

NEWEST = (2, 28)
MAY_NEED = ['libc.so.6', 'libdl.so.2', 'ld-linux*.so.*']   # libdl: a part of the C library before 2.34
LAYER_OF = {'libpenstock-opencl.so': 'libOpenCL.so.1'}
FOR_TOOLS = {'libpenstock-contract.so.1': 'libyaml-0.so.2'}   # not loaded by tenants
STAND_INS = ['libOpenCL.so.1', 'libdl.so.2']   # what a library of ours is linked against, and nobody loads


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
            yield name, version.lstrip('@'), words[6] not in ('UND', 'ABS')   # ABS: the name of a version


def needed_versions(path):
    """Versions of the C library that the loader will ask for, also those that belong to no symbol."""
    needs = readelf('-V', path).partition('Version needs section')[2]
    return set(re.findall(r'Name: (GLIBC_\w[\w.]*)', needs))


def too_new(version):
    m = re.fullmatch(r'GLIBC_(\d+)\.(\d+)(\.\d+)?', version)
    return not m or (int(m.group(1)), int(m.group(2))) > NEWEST


def read_exports(path):
    """The global names, which may be patterns, of a linker's version script."""
    with open(path, encoding='utf-8') as f:
        text = re.sub(r'/\*.*?\*/', '', f.read(), flags=re.S)
    return re.findall(r'([\w*?]+)\s*;', text.partition('global:')[2].partition('local:')[0])


def exports_of(library, root):
    """The list that belongs to a library in a build directory: .../src/shim/NAME/x.so -> src/shim/NAME/exports.txt."""
    m = re.search(r'.*/src/(.+)/[^/]+$', os.path.realpath(library))
    return os.path.join(root, 'src', m.group(1), 'exports.txt') if m else None


def check(library, exports):
    """List of complaints about one library."""
    bad = []
    symbols = list(dynamic_symbols(library))
    for version in sorted(filter(too_new, needed_versions(library))):
        who = [name for name, v, defined in symbols if v == version and not defined] or ['the loader']
        bad += [f'{name} needs {version}, newer than GLIBC_{NEWEST[0]}.{NEWEST[1]}' for name in who]
    dynamic, loader = readelf('-d', library), LAYER_OF.get(os.path.basename(library))
    also = FOR_TOOLS.get(os.path.basename(library))
    needs = re.findall(r'\(NEEDED\).*\[(.*)\]', dynamic)
    for needed in needs:
        if needed not in (loader, also) and not any(fnmatch.fnmatchcase(needed, p) for p in MAY_NEED):
            bad.append(f'needs {needed}: a shim needs the C library alone')
    if loader and (loader not in needs or 'NODELETE' not in dynamic):
        bad.append(f'must need {loader} and be marked NODELETE: its callbacks outlast a dlclose()')
    if not exports or not os.path.exists(exports):
        return bad + [f'no list of exports ({exports or "give --exports FILE"})']
    allowed = read_exports(exports)
    names = {name for name, _, defined in symbols if defined}
    for name in sorted(names):
        if not any(fnmatch.fnmatchcase(name, p) for p in allowed):
            bad.append(f'exports {name}, which {os.path.relpath(exports)} does not list')
    for pattern in allowed:
        if not any(fnmatch.fnmatchcase(n, pattern) for n in names):
            bad.append(f'does not export {pattern}, which {os.path.relpath(exports)} lists')
    return bad


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--exports', help='version script, if not exports.txt beside the source')
    ap.add_argument('paths', nargs='+', help='libraries or build directories')
    args = ap.parse_args()

    libraries = []
    for path in args.paths:
        found = glob.glob(os.path.join(path, 'src/**/*.so*'), recursive=True) if os.path.isdir(path) else [path]
        libraries += [p for p in found if os.path.isfile(p) and not os.path.islink(p) and not p.endswith('.symbols')
                      and os.path.basename(p) not in STAND_INS]
    count = 0
    for library in sorted(libraries):
        try:
            bad = check(library, args.exports or exports_of(library, os.path.dirname(here)))
        except (OSError, subprocess.CalledProcessError) as e:
            bad = [f'cannot be read: {getattr(e, "stderr", None) or e}'.strip()]
        for text in bad:
            print(f'{os.path.relpath(library)}:0: {text}')
        count += len(bad)
    print(f'glibc: {len(libraries)} libraries for tenants: {count} violations')
    return 1 if count or not libraries else 0


if __name__ == '__main__':
    sys.exit(main())
