#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `meson test` in a build directory and closes with one line: N passed, N failed, N skipped.

Shows progress as tests end, then the tail of the log of each failed test and the reason of each skip (exit code 77).
Anything that a test started and that still runs afterwards counts as a failure: a test must leave nothing behind.
Exit code: 0 all passed or skipped, 1 otherwise. Only the Python standard library.
"""
import argparse
import ctypes
import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

GOOD = {'OK', 'EXPECTEDFAIL'}
SKIPPED = {'SKIP', 'IGNORED'}


def adopt_orphans():
    """From now on what a test leaves behind becomes a child of this process, by whatever name and session."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def descendants():
    """Live processes below this one: {pid: command line}. Dead ones are reaped."""
    parent, command = {}, {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
                state, ppid = f.read().rpartition(')')[2].split()[:2]
            with open(f'/proc/{pid}/cmdline', 'rb') as f:
                command[int(pid)] = f.read().replace(b'\0', b' ').decode(errors='replace').strip()
        except OSError:
            continue    # ended meanwhile
        if state != 'Z':
            parent[int(pid)] = int(ppid)
        elif int(ppid) == os.getpid():
            os.waitpid(int(pid), os.WNOHANG)
    found, last = set(), {os.getpid()}
    while last:
        last = {pid for pid, ppid in parent.items() if ppid in last} - found
        found |= last
    return {pid: command[pid] for pid in found}


def left_running(patience_s):
    """What the tests left behind, after giving it time to end by itself."""
    deadline = time.monotonic() + patience_s
    while True:
        left = descendants()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def run_meson(build, log_base, limit_s, extra):
    """Runs the tests, passing meson's own progress lines on. Returns its exit code, or None if out of time."""
    cmd = ['meson', 'test', '-C', build, '--no-rebuild', '--logbase', log_base, *extra]
    proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors='replace', start_new_session=True)

    def stop(_sig, _frame):
        proc.send_signal(signal.SIGTERM)    # meson ends its tests and still writes its log
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(proc.pid, signal.SIGKILL))
        signal.alarm(20)
    out_of_time = []
    signal.signal(signal.SIGALRM, lambda s, f: (out_of_time.append(1), stop(s, f)))
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if limit_s:
        signal.alarm(limit_s)
    for line in proc.stdout:
        # One line per test as it ends. Meson's own summary is left out: the closing line here says it once.
        if re.match(r'\s*\d+/\d+ ', line) or re.search(r'ERROR|WARNING', line):
            print(line.rstrip(), flush=True)
    code = proc.wait()
    signal.alarm(0)
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, signal.SIG_DFL)
    return None if out_of_time else code


def read_log(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as f:
            return [json.loads(line) for line in f if line.strip()]
    except OSError:
        return []


def text_of(test):
    return (test.get('stdout') or '') + (test.get('stderr') or '')


def skip_reason(test):
    """What the test said: the first line that speaks of skipping, else its first line."""
    lines = [l.strip() for l in text_of(test).splitlines() if l.strip() and not l.startswith('[')]
    for line in lines:
        if re.search(r'\bskip', line, re.I):
            return line
    return lines[0] if lines else 'no reason given'


def print_failure(test, tail_lines):
    print(f"\n--- {test['name']}: {test['result']} (exit code {test.get('returncode')}, {test.get('duration', 0):.1f} s)")
    for line in text_of(test).splitlines()[-tail_lines:]:
        print('    ' + line)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('-C', '--build', default='build', help='build directory (default: build)')
    ap.add_argument('--limit', type=int, default=0, metavar='SECONDS', help='end all tests after this time (0: never)')
    ap.add_argument('--tail', type=int, default=40, metavar='LINES', help='lines shown of a failed test')
    ap.add_argument('extra', nargs='*', help='passed to `meson test` after --: names, --suite, --no-suite, --wrapper')
    args = ap.parse_args()
    build = os.path.realpath(args.build)

    log_base = 'testlog'
    # With --wrapper meson appends the wrapper's name. Old logs go: else a run that never starts is judged by the last.
    logs = os.path.join(build, 'meson-logs', log_base + '*.json')
    for path in glob.glob(logs):
        os.unlink(path)
    adopt_orphans()
    code = run_meson(build, log_base, args.limit, args.extra)
    tests = [t for path in glob.glob(logs) for t in read_log(path)]
    left = left_running(patience_s=3)

    passed = [t for t in tests if t['result'] in GOOD]
    skipped = [t for t in tests if t['result'] in SKIPPED]
    failed = [t for t in tests if t['result'] not in GOOD | SKIPPED]
    problems = len(failed)

    for test in failed:
        print_failure(test, args.tail)
    if skipped:
        print('\nskipped:')
        for test in skipped:
            print(f"    {test['name']}: {skip_reason(test)}")
    if left:
        problems += 1
        print('\n--- left running by a test (now killed):')
        for pid, cmd in sorted(left.items()):
            print(f'    {pid} {cmd}')
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    if code is None:
        problems += 1
        print(f'\n--- out of time after {args.limit} s')
    elif not tests or (code != 0 and not failed):
        problems += 1
        print(f'\n--- meson test ended with {code} and {len(tests)} results: see {build}/meson-logs/')

    if failed:
        print('\nfailed: ' + ' '.join(t['name'] for t in failed))
        print(f'whole log: {build}/meson-logs/{log_base}*.txt')
    print(f'\n{len(passed)} passed, {problems} failed, {len(skipped)} skipped', flush=True)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
