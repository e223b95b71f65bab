#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks tools/layers.txt against the tree: who includes whom, who calls whom, and what nobody may call.

Text: #include lines, calls of forbidden functions, names of things outside the repository in tracked files.
Objects (with --build): undefined and defined symbols of every object that compile_commands.json names, so that a call
through a macro, or an own declaration instead of an include, is found too.
Prints FILE:LINE: what is wrong. Exit code 0 clean, 1 violations, 2 cannot check. Only the Python standard library.
"""
import argparse
import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict


class Rules:
    """The table of tools/layers.txt."""

    def __init__(self, path):
        self.layers = []                        # (pattern, [what it may know]), in the file's order
        self.traits = defaultdict(list)         # trait -> folder patterns
        self.forbid = defaultdict(list)         # trait -> function patterns
        self.allow = defaultdict(list)          # trait -> function patterns
        self.excepted = set()                   # (folder pattern, function)
        self.libraries = []                     # ([header patterns], [folder patterns])
        with open(path, encoding='utf-8') as f:
            for n, line in enumerate(f, 1):
                self._line(line.split('#')[0].split(), f'{path}:{n}')

    def _line(self, words, where):
        if not words:
            return
        kind, rest = words[0], words[1:]
        if kind == 'layer' and rest:
            self.layers.append((rest[0], rest[1:]))
        elif kind in ('trait', 'forbid', 'allow') and len(rest) > 1:
            {'trait': self.traits, 'forbid': self.forbid, 'allow': self.allow}[kind][rest[0]] += rest[1:]
        elif kind == 'except' and len(rest) > 2:
            self.excepted.add((rest[0], rest[1]))
        elif kind == 'library' and '>' in rest:
            cut = rest.index('>')
            self.libraries.append((rest[:cut], rest[cut + 1:]))
        else:
            sys.exit(f'{where}: not a rule: {" ".join(words)}')

    def may_know(self, folder):
        """Patterns that a folder may know, or None for a folder without a rule."""
        for pattern, may in self.layers:
            if fnmatch.fnmatchcase(folder, pattern):
                return may
        return None

    def layer_of(self, path):
        """The folder with a rule in which a path below src/ lies: 'shim/opencl/x.h' -> 'shim/opencl'; else None."""
        parts = path.split('/')[:-1]
        for n in range(len(parts), 0, -1):
            if self.may_know('/'.join(parts[:n])) is not None:
                return '/'.join(parts[:n])
        return None

    def has_trait(self, folder, trait):
        return matches(folder, self.traits[trait])

    def is_excepted(self, folder, function):
        return any(fnmatch.fnmatchcase(folder, p) and function == f for p, f in self.excepted)

    def forbidden(self, folder):
        """[(trait, function pattern)] for a folder."""
        return [(t, f) for t, functions in self.forbid.items() if self.has_trait(folder, t) for f in functions]


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


class Report:
    def __init__(self):
        self.lines = set()

    def add(self, path, line, text):
        self.lines.add((path, line, text))

    def print(self):
        for path, line, text in sorted(self.lines):
            print(f'{path}:{line}: {text}')


def strip_c(text):
    """C source with comments, strings and character constants blanked out, line numbers kept."""
    def blank(m):
        s = m.group(0)
        return s[0] + s[-1] if s[0] in '"\'' else re.sub(r'[^\n]', ' ', s)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def read(path):
    with open(path, encoding='utf-8', errors='replace') as f:
        return f.read()


def sources(root):
    """(path relative to root, name below src/) of every C file that a rule can hold for."""
    for top in ('src', 'simgpu'):
        for at, dirs, files in os.walk(os.path.join(root, top)):
            dirs.sort()
            for name in sorted(files):
                if name.endswith(('.c', '.h', '.def', '.inc')):
                    path = os.path.relpath(os.path.join(at, name), root)
                    yield path, folder_path(path)


def folder_path(path):
    return path[len('src/'):] if path.startswith('src/') else path


def check_include(rules, report, path, line, folder, name, quoted):
    for headers, allowed in rules.libraries:
        if matches(name, headers) and not matches(folder, allowed):
            report.add(path, line, f'{folder} must do without <{name}>: only {", ".join(allowed)} may use it')
    if not quoted and not name.startswith('penstock/'):
        return
    if '/' not in name:
        report.add(path, line, f'include "{name}" does not name its folder')
        return
    other = 'penstock' if name.startswith('penstock/') else rules.layer_of(name)
    if other is None:
        return      # a generated file, or a header that no rule speaks of
    may = rules.may_know(folder)
    if other != folder and not matches(other, may) and name not in may:
        report.add(path, line, f'{folder} must not include {name}: it may know {" ".join(may) or "nothing"}')


def check_text(rules, report, root):
    """Returns the number of files read."""
    count = 0
    for path, below in sources(root):
        count += 1
        folder = rules.layer_of(below)
        if folder is None:
            report.add(path, 1, 'no rule for this folder in tools/layers.txt')
            continue
        text = read(os.path.join(root, path))
        for n, line in enumerate(text.splitlines(), 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if m:
                check_include(rules, report, path, n, folder, m.group(2), m.group(1) == '"')
        forbidden = rules.forbidden(folder)
        for n, line in enumerate(strip_c(text).splitlines(), 1):
            for m in re.finditer(r'(?<![\w.>])(\w+)\s*\(', line):
                for trait, pattern in forbidden:
                    if fnmatch.fnmatchcase(m.group(1), pattern) and not rules.is_excepted(folder, m.group(1)):
                        report.add(path, n, f'{folder} ({trait}) must not call {m.group(1)}()')
    return count


# Written so that this file does not match itself.
OUTSIDE = [(re.compile(r'[.][.]/shared\b'), 'a folder beside the repository'),
           (re.compile(r'(?<![\w.-])/wor[k]/'), 'a path of one machine'),
           (re.compile(r'(?:^|[\s/"\'`(])[.]library\b'), 'a folder of one machine')]


def check_names(report, root):
    """No tracked file may name what a clone does not have. Returns the number of files read, or None without git."""
    r = subprocess.run(['git', '-C', root, 'ls-files', '-z'], capture_output=True, check=False)
    if r.returncode != 0:
        return None
    count = 0
    for path in filter(None, r.stdout.decode(errors='surrogateescape').split('\0')):
        full = os.path.join(root, path)
        if not os.path.isfile(full) or os.path.islink(full):
            continue
        with open(full, 'rb') as f:
            data = f.read()
        if b'\0' in data:
            continue
        count += 1
        for n, line in enumerate(data.decode(errors='replace').splitlines(), 1):
            for pattern, what in OUTSIDE:
                if pattern.search(line):
                    report.add(path, n, f'names {what}: {line.strip()[:60]}')
    return count


def objects(root, build):
    """(object, source relative to root) of every compiled file of the product, without stale ones."""
    with open(os.path.join(build, 'compile_commands.json'), encoding='utf-8') as f:
        commands = json.load(f)
    for c in commands:
        output = c.get('output')
        if not output:
            args = shlex.split(c['command'])
            output = args[args.index('-o') + 1]
        obj = os.path.join(c['directory'], output)
        source = os.path.realpath(os.path.join(c['directory'], c['file']))
        # A generated source counts where its target lies in the build directory.
        base = build if source.startswith(build + os.sep) else root
        source = os.path.relpath(source, base)
        if source.startswith(('src/', 'simgpu/')):
            yield obj, source


def symbols(obj):
    """(undefined, defined global) symbol names of an object."""
    out = subprocess.run(['nm', '-P', '-g', obj], capture_output=True, text=True, check=True).stdout
    undefined, defined = set(), set()
    for line in out.splitlines():
        name, kind = line.split()[:2]
        (undefined if kind in 'Uvw' else defined).add(name.split('@')[0])
    return undefined, defined


def writable_data(obj):
    """Names of variables of an object that can change; tables of constant pointers (.data.rel.ro) cannot."""
    out = subprocess.run(['objdump', '-t', obj], capture_output=True, text=True, check=True).stdout
    found = []
    for line in out.splitlines():
        m = re.match(r'\S+ (.{7}) (\S+)\s+(\S+)\s+(?:\.hidden )?(\S+)$', line)
        if m and 'O' in m.group(1) and int(m.group(3), 16) > 0 and \
                re.match(r'\.(data|bss|tdata|tbss)\b(?!\.rel\.ro)|\*COM\*', m.group(2)):
            found.append(m.group(4))
    return found


def line_of(root, source, symbol):
    """The first line of a source that calls a symbol, else speaks of it, else 1: it comes from a macro or the compiler."""
    path = os.path.join(root, source)
    if not os.path.exists(path):
        return 1
    lines = [l if not l.lstrip().startswith('#') else '' for l in strip_c(read(path)).splitlines()]
    word = r'\b' + re.escape(symbol.split('.')[0]) + r'\b'
    for pattern in (word + r'\s*\(', word):
        for n, line in enumerate(lines, 1):
            if re.search(pattern, line):
                return n
    return 1


# Stands for a part of the C library when something is linked: its names are nobody's of us.
STAND_INS = {'shim/libdl'}


def check_objects(rules, report, root, build):
    """Returns the number of objects read."""
    needs, owners, state = {}, defaultdict(set), {}
    for obj, source in objects(root, build):
        folder = rules.layer_of(folder_path(source))
        if folder is None or not os.path.exists(obj):
            continue
        undefined, defined = symbols(obj)
        undefined.discard('_GLOBAL_OFFSET_TABLE_')
        needs[obj] = (source, folder, undefined)
        for name in defined if folder not in STAND_INS else ():
            owners[name].add(folder)
        if rules.has_trait(folder, 'pure'):
            state[obj] = writable_data(obj)
    for obj, (source, folder, undefined) in needs.items():
        may = rules.may_know(folder)
        for name in sorted(undefined):
            check_symbol(rules, report, root, source, folder, name, owners.get(name, set()), may)
        for name in state.get(obj, []):
            report.add(source, line_of(root, source, name), f'{folder} (pure) must not keep state: {name} can change')
    return len(needs)


def check_symbol(rules, report, root, source, folder, name, owners, may):
    def bad(text):
        report.add(source, line_of(root, source, name), text)
    if owners and folder not in owners and not any(matches(o, may) for o in owners):
        # daemon/service.h as the only door: calls through it are calls of the daemon that the table allows by header.
        if not any(m.split('/')[0] in owners for m in may if m.endswith('.h')):
            bad(f'{folder} must not call {name}() of {", ".join(sorted(owners))}: it may know {" ".join(may) or "nothing"}')
    if rules.is_excepted(folder, name):
        return
    for trait, pattern in rules.forbidden(folder):
        if fnmatch.fnmatchcase(name, pattern):
            bad(f'{folder} ({trait}) must not call {name}()')
    for trait, allowed in rules.allow.items():
        if rules.has_trait(folder, trait) and not owners and not matches(name, allowed):
            bad(f'{folder} ({trait}) must not call {name}(): not among what tools/layers.txt allows')


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--root', default=os.path.dirname(here), help='the tree to check')
    ap.add_argument('--layers', default=os.path.join(here, 'layers.txt'), help='the table')
    ap.add_argument('--build', help='build directory: check its objects too')
    args = ap.parse_args()
    root = os.path.realpath(args.root)
    rules, report = Rules(args.layers), Report()

    checked = [f'{check_text(rules, report, root)} sources']
    names = check_names(report, root)
    checked.append(f'{names} tracked files' if names is not None else 'no git, so no names')
    if args.build:
        try:
            n = check_objects(rules, report, root, os.path.realpath(args.build))
        except (OSError, subprocess.CalledProcessError) as e:
            print(f'lint-layering: cannot read objects: {e}', file=sys.stderr)
            return 2
        checked.append(f'{n} objects')
    report.print()
    print(f'layering: {", ".join(checked)}: {len(report.lines)} violations')
    return 1 if report.lines else 0


if __name__ == '__main__':
    sys.exit(main())
