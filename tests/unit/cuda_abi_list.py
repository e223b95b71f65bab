#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what test_cuda_abi.c compares: cuda_abi_list.py CUDA_ABI_H CUDA_DEF CUDA_INCLUDE

SIZE(type), OFFSET(type, field), VALUE(name) for everything that our header declares, ROW(typedef, types) for every entry point of the list
that cudaTypedefs.h speaks of, EXTRA(typedef) for what it has and the list has not. Both translation units include the output.
"""
import os
import re
import sys

INTEROP = re.compile(r'cu(GL|EGL|VDPAU|GraphicsGL|GraphicsEGL|GraphicsVDPAU|GraphicsResourceGetMappedEglFrame|EventCreateFromEGLSync|Profiler)')


def strip(text):
    return re.sub(r'/\*.*?\*/', ' ', text, flags=re.S)


def closing(text, at):
    """Index behind the brace that closes the one at @at."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == '{') - (text[i] == '}')
        if depth == 0:
            return i + 1
    sys.exit('braces do not close')


def fields(body, prefix=''):
    """Names of the members of a struct's body, those of nested ones with their path."""
    at = 0
    while at < len(body):
        m = re.compile(r'\s*(?:typedef\s+)?(?:struct|union)(?:\s+\w+)?\s*\{').match(body, at)
        if m:
            end = closing(body, m.end() - 1)
            rest = re.compile(r'\s*(\w*)[^;]*;').match(body, end)
            name = rest.group(1)
            yield from fields(body[m.end():end - 1], prefix + name + '.' if name else prefix)
            if name:
                yield prefix + name
            at = rest.end()
            continue
        semicolon = body.find(';', at)
        if semicolon < 0:
            return
        for n, part in enumerate(body[at:semicolon].split(',')):
            name = re.search(r'(\w+)\s*(?:\[[^\]]*\]\s*)*$', part)
            # Of "char pad[8 - sizeof(X)]" too: what stands before the bracket.
            name = re.search(r'(\w+)\s*\[', part) or name
            if name and (n or ' ' in part.strip()):
                yield prefix + name.group(1)
        at = semicolon + 1


def declarations(text):
    """(type, [fields]) of every struct and union, (type, []) of the other typedefs."""
    at = 0
    pattern = re.compile(r'typedef\s+(struct|union)\s+\w+\s*\{')
    while True:
        m = pattern.search(text, at)
        if not m:
            break
        end = closing(text, m.end() - 1)
        name = re.compile(r'\s*(\w+)\s*;').match(text, end).group(1)
        yield name, [f for f in fields(text[m.end():end - 1]) if not re.search(r'(^|\.)(pad|oversize|internal)$', f)]
        at = end
    for m in re.finditer(r'^typedef (?!struct|union|void|size_t \(|int CUresult)[\w ]+?\b(\w+);', text, re.M):
        yield m.group(1), []


def main():
    abi, cuda_def, include = sys.argv[1:4]
    with open(abi, encoding='utf-8') as f:
        text = strip(f.read())
    with open(os.path.join(include, 'cudaTypedefs.h'), encoding='utf-8', errors='replace') as f:
        known = set(re.findall(r'\(CUDAAPI \*(PFN_cu\w+_v\d+\w*)\)', f.read()))
    for name, members in declarations(text):
        print(f'SIZE({name})')
        for member in members:
            print(f'OFFSET({name}, {member})')
    for body in re.findall(r'^enum \{(.*?)\};', text, re.S | re.M):
        for name in re.findall(r'(\w+) =', body):
            print(f'VALUE({name})')
    for name in re.findall(r'^#define (CU\w+) (?:0x)?[0-9a-fA-F]+$', text, re.M):
        print(f'VALUE({name})')
    rows = set()
    with open(cuda_def, encoding='utf-8') as f:
        for m in re.finditer(r'^PEN_CU\((\w+), (\w+), (\d+), \w+, \w+, (\(.*\))\)$', f.read(), re.M):
            symbol, family, since, types = m.groups()
            suffix = re.search(r'(_ptds|_ptsz)?$', symbol).group(0)
            pointer = f'PFN_{family}_v{since}{suffix}'
            rows.add(pointer)
            if not INTEROP.match(family):
                print(f'ROW({pointer}, {types})' if pointer in known else f'MISSING({pointer})')
    for pointer in sorted(known - rows):
        if int(re.search(r'_v(\d+)', pointer).group(1)) <= 13000:
            print(f'EXTRA({pointer})')


if __name__ == '__main__':
    main()
