#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program without and with the layer and compares what it prints: compare.py LAYER PROGRAM [args].

FAKELAYER and OPENCL_LAYERS are taken out for the first run. With `unmanaged` the layer must change nothing either.
"""
import difflib
import os
import subprocess
import sys


def run(args, **more):
    env = {k: v for k, v in os.environ.items() if k not in ('OPENCL_LAYERS', 'FAKELAYER')}
    env.update(more)
    r = subprocess.run(args, env=env, stdout=subprocess.PIPE, text=True, timeout=100, check=False)
    return r.returncode, r.stdout.splitlines()


def main():
    layer, args = sys.argv[1], sys.argv[2:]
    bare = run(args)
    if bare[0] == 77:
        print('\n'.join(bare[1]))
        return 77
    bad = 0
    if bare[0] != 0 or bare[1][-1:] != ['end']:
        print(f'without the layer: exit code {bare[0]}, last line {bare[1][-1:]}')
        return 1
    for name, more in {'managed': {'FAKELAYER': layer}, 'marks': {'FAKELAYER': layer, 'FAKEGATE_MARKS': '1'},
                       'unmanaged': {'FAKEGATE': 'unmanaged'}}.items():
        got = run(args, OPENCL_LAYERS=layer, **more)
        if got == bare and len(bare[1]) > 100:
            continue
        bad += 1
        print(f'{name}: exit code {got[0]}, without the layer {bare[0]}')
        for line in list(difflib.unified_diff(bare[1], got[1], 'without', name, lineterm='', n=0))[:60]:
            print(line)
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
