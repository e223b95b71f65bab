#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts the results of FULL=1 runs into docs/BENCHMARKS.md: every goal with its verdict, and under which conditions it was measured.

Usage: bench/report.py [DIRECTORY]   DIRECTORY: with the CSV files of the runs (build/bench). Those of quick runs have no goals and are
left out. Verdicts are copied, never decided here.
"""
import csv
import datetime
import glob
import os
import sys

from stats import number

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')
PAGE = os.path.join(ROOT, 'docs/BENCHMARKS.md')
BEGIN, END = '<!-- results: begin (bench/report.py) -->\n', '<!-- results: end -->\n'
CONDITIONS = ('machine', 'load average at start', 'scheduling class, all arms', 'device', 'device, with copies',
              'CPU time of other processes', 'warning')


def read(path):
    with open(path, encoding='utf-8', newline='') as f:
        return list(csv.DictReader(f))


def value(row):
    unit = f' {row["unit"]}' if row['unit'] else ''
    v, low, high = (number(float(row[k])) for k in ('value', 'low', 'high'))
    return f'{v}{unit}' if low == v == high else f'{v}{unit} [{low}, {high}]'


def section(path, rows):
    name = os.path.splitext(os.path.basename(path))[0]
    notes = {r['name']: r['value'] for r in rows if r['kind'] == 'note'}
    date = datetime.date.fromtimestamp(os.path.getmtime(path)).isoformat()
    said = [f'{k}: {notes[k]}' for k in CONDITIONS if k in notes]
    control = [f'{r["name"]}: {value(r)}' for r in rows if r['name'].startswith('A/A')]
    lines = [f'### {name}', '', f'{date}; ' + '; '.join(said + control) + '.', '', '| metric | value [95 % interval] | wanted | verdict |',
             '|---|---|---|---|']
    for r in rows:
        if r['kind'] == 'goal':
            want, verdict = r['want'].rsplit(': ', 1)
            metric = r['name'].removeprefix(name + ': ')
            lines.append(f'| {metric} | {value(r)} | {want} | {"**short**" if verdict == "short" else verdict} |')
    return '\n'.join(lines) + '\n'


def main():
    directory = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, 'build/bench')
    found = [(p, read(p)) for p in sorted(glob.glob(os.path.join(directory, '*.csv')))]
    parts = [section(p, rows) for p, rows in found if any(r['kind'] == 'goal' for r in rows)]
    if not parts:
        sys.exit(f'{directory} has no results of FULL=1 runs')
    with open(PAGE, encoding='utf-8') as f:
        page = f.read()
    if BEGIN not in page or END not in page:
        sys.exit(f'{PAGE} has no place for the results')
    head, rest = page.split(BEGIN, 1)
    with open(PAGE, 'w', encoding='utf-8') as f:
        f.write(head + BEGIN + '\n' + '\n'.join(parts) + '\n' + END + rest.split(END, 1)[1])


if __name__ == '__main__':
    main()
