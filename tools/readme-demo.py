#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `make demo` and puts the table that it prints into README.md and README.zh-CN.md, with machine and date.

Usage: tools/readme-demo.py [FILE]   FILE: what `make demo` printed, instead of running it.
Only on an otherwise idle machine: the table says nothing about a busy one.
"""
import datetime
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')
BEGIN, END = '<!-- demo: begin (tools/readme-demo.py) -->\n', '<!-- demo: end -->\n'
TEXTS = {
    'README.md': ('## What it looks like', 'What `make demo` printed on {machine}, {date}:',
                  'P99 is the response of the urgent program that one request in a hundred exceeds. The device is PoCL: no GPU has been seen.'),
    'README.zh-CN.md': ('## 效果', '`make demo` 在 {machine} 上的输出，{date}：',
                        'P99 是紧急程序的第 99 百分位响应时间：一百次请求中有一次超过它。设备是 PoCL：没有见过 GPU。'),
}


def machine():
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        model = re.search(r'^model name\s*:\s*(.*)$', f.read(), re.M)
    with open('/etc/os-release', encoding='utf-8') as f:
        system = re.search(r'^PRETTY_NAME="(.*)"$', f.read(), re.M)
    return f'{model.group(1).strip() if model else os.uname().machine}, {os.cpu_count()} CPUs, {system.group(1) if system else "Linux"}'


def table(text):
    """The first table of the output, and the lines about it up to "Try next"."""
    m = re.search(r'^  urgent tenant:.*?(?=^Try next|\Z)', text, re.M | re.S)
    if not m:
        sys.exit(f'no table in this:\n{text[-2000:]}')
    return '\n'.join(('    ' + line.strip('\n')).rstrip() for line in m.group(0).rstrip().splitlines())


def main():
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding='utf-8') as f:
            text = f.read()
    else:
        r = subprocess.run(['make', 'demo'], cwd=ROOT, capture_output=True, text=True, check=False)
        text = r.stdout
        if r.returncode:
            sys.exit(r.stdout[-2000:] + r.stderr[-2000:])
    date = datetime.date.today().isoformat()
    for name, (title, lead, note) in TEXTS.items():
        path = os.path.join(ROOT, name)
        with open(path, encoding='utf-8') as f:
            readme = f.read()
        block = f'{BEGIN}{title}\n\n{lead.format(machine=machine(), date=date)}\n\n{table(text)}\n\n{note}\n{END}'
        if BEGIN not in readme or END not in readme:
            sys.exit(f'{name} has no place for the table')
        head, rest = readme.split(BEGIN, 1)
        with open(path, 'w', encoding='utf-8') as f:
            f.write(head + block + rest.split(END, 1)[1])


if __name__ == '__main__':
    main()
