# SPDX-License-Identifier: Apache-2.0
"""`penstock run` and a daemon that does not answer at the moment."""
import os
import signal
import subprocess
import sys
import tempfile

import fake
from fake import Daemon, wait_for


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as f:
        return f.read().split()


def test_signal_after_the_end():
    """Once the program is reaped its number may be another's: a signal for it goes nowhere."""
    if not os.path.exists(f'/proc/self/task/{os.getpid()}/children'):
        print('   the kernel does not list children')
        sys.exit(77)
    with Daemon() as d, tempfile.TemporaryDirectory() as notes:
        for late in (False, True):
            note = f'{notes}/{late}'
            env = {**os.environ, 'LD_PRELOAD': os.environ['NOTE_KILL_LIB'], 'NOTE_KILL': note,
                   'ASAN_OPTIONS': os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'}
            p = subprocess.Popen([os.environ['PENSTOCK'], '--socket', d.sock, 'run', '--', 'sh', '-c', 'echo here; read line'],
                                 env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert p.stdout.readline() == b'here\n'
            d.proc.send_signal(signal.SIGSTOP)         # so that it stays where it asks for the use
            if not late:
                p.send_signal(signal.SIGTERM)          # while the program runs it is passed on
                wait_for(lambda n=note: os.path.getsize(n), 'the signal')
            p.stdin.close()
            wait_for(lambda p=p: not children(p.pid), 'the program to be reaped')
            if late:
                p.send_signal(signal.SIGTERM)
            d.proc.send_signal(signal.SIGCONT)
            p.wait(fake.BOUND)
            assert os.path.getsize(note) == (0 if late else 1), late
            p.stdout.close()


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
