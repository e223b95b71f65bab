#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""src/api/nvml_abi.h and nvml.def against NVIDIA's nvml.h, where one is installed (or named by NVML_H): layouts, values,
prototypes. Version 12 of it or newer; exit code 77 without one."""
import glob
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..')
PLACES = ['/usr/include/nvml.h', '/usr/local/cuda*/include/nvml.h', '/usr/local/cuda*/targets/*/include/nvml.h']
# Under which one version of the header has no names, or other ones.
OWN = {'NVML_NO_INSTANCE', 'NVML_MEMORY_UNKNOWN'}


def find_header():
    named = os.environ.get('NVML_H')
    for pattern in [named] if named else PLACES:
        for path in sorted(glob.glob(pattern), reverse=True):
            return path
    return None


def plain(path):
    with open(path, encoding='utf-8') as f:
        text = f.read()
    return re.sub(r'//.*', '', re.sub(r'/\*.*?\*/', '', text, flags=re.S))


def fields(body):
    """Names of the members of a struct, those of an inner union as one."""
    body = re.sub(r'union\s*\{[^{}]*\}', 'int', body)
    for line in body.split(';'):
        for part in line.split(','):
            name = re.search(r'(\w+)\s*(\[[^]]*\])?\s*$', part)
            if name:
                yield name.group(1)


def layouts(text):
    for m in re.finditer(r'typedef\s+(?:struct|union)\s*\w*\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*([\w, ]+);', text):
        for name in m.group(2).replace(',', ' ').split():
            yield name, list(fields(m.group(1)))


def program(include, ours, header):
    lines = ['#include <stddef.h>', '#include <stdio.h>', include, 'int main(void) {']
    for name, members in layouts(ours):
        if not re.search(r'\b%s\b' % name, header):
            continue
        lines.append(f'printf("%s %zu\\n", "{name}", sizeof({name}));')
        for member in members:
            lines.append(f'printf("%s.%s %zu\\n", "{name}", "{member}", offsetof({name}, {member}));')
    for name in re.findall(r'\b(NVML_\w+)\s*=', ours) + re.findall(r'#define\s+(NVML_\w+|nvmlEvent\w+)\s', ours):
        if name not in OWN and re.search(r'\b%s\b' % name, header):
            lines.append(f'printf("%s %lld\\n", "{name}", (long long){name});')
    return '\n'.join(lines + ['}', ''])


def run(cc, source, *flags):
    with tempfile.TemporaryDirectory() as d:
        with open(d + '/x.c', 'w', encoding='utf-8') as f:
            f.write(source)
        subprocess.run([*cc, '-w', *flags, d + '/x.c', '-o', d + '/x'], check=True)
        return subprocess.run([d + '/x'], check=True, capture_output=True, text=True).stdout.splitlines()


def main():
    path = find_header()
    if not path:
        print('skipped: no nvml.h is installed')
        return 77
    header, ours = plain(path), plain(ROOT + '/src/api/nvml_abi.h')
    version = re.search(r'#define\s+NVML_API_VERSION\s+(\d+)', header)
    if not version or int(version.group(1)) < 12:
        print(f'skipped: {path} is older than version 12')
        return 77
    cc = os.environ.get('CC', 'cc').split()
    theirs = f'#define NVML_NO_UNVERSIONED_FUNC_DEFS\n#include "{os.path.abspath(path)}"'
    a = run(cc, program('#include "api/nvml_abi.h"', ours, header), '-I' + ROOT + '/src')
    b = run(cc, program(theirs, ours, header))
    bad = [f'{x} here, {y} there' for x, y in zip(a, b) if x != y]
    assert len(a) == len(b) and len(a) > 150, (len(a), len(b))
    with open(ROOT + '/src/api/nvml.def', encoding='utf-8') as f:
        rows = re.findall(r'^PEN_NV(?:_TEXT)?\((\w+), (\d+), (\w+), \((.*)\)\)$', f.read(), re.M)
    known = [r for r in rows if re.search(r'\b%s\s*\(' % r[0], header)]
    asserts = [f'_Static_assert(__builtin_types_compatible_p(__typeof__(&{name}), '
               f'{"const char *" if name == "nvmlErrorString" else "nvmlReturn_t"} (*)({types})), "{name}");'
               for name, _, _, types in known]
    run(cc, '\n'.join([theirs, *asserts, 'int main(void) { return 0; }']))
    declared = set(re.findall(r'\b(nvml\w+)\s*\(', ' '.join(re.findall(r'DECLDIR[^;]*;', header))))
    bad += [f'{name} is in nvml.h and in no row' for name in sorted(declared - {r[0] for r in rows})]
    print(*bad, sep='\n')
    print(f'{path}: {len(a)} layouts and values, {len(known)} of {len(rows)} prototypes')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
