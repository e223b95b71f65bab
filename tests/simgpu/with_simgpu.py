#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program beside a simulated accelerator of its own: with_simgpu.py SERVER [server's options] -- PROGRAM [arguments]

Waits for the server's line that says it is ready, sets PENSTOCK_SIMGPU, runs the program, ends the server. The exit code is the
program's; 99 if the server did not come up or went away. Without --card it has a T4. Only the Python standard library.
"""
import ctypes
import os
import signal
import subprocess
import sys
import tempfile


def of_its_own():
    """In the server: a session of its own, so that it may be scheduled before the programs on it, and no longer life than ours."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)    # PR_SET_PDEATHSIG


def main():
    if '--' not in sys.argv:
        sys.exit(__doc__)
    cut = sys.argv.index('--')
    server, program = sys.argv[1:cut], sys.argv[cut + 1:]
    if '--card' not in server:
        server += ['--card', 'T4']
    with tempfile.TemporaryDirectory(prefix='simgpu-') as folder:
        path = os.path.join(folder, 'sock')
        with subprocess.Popen(server + ['--socket', path, '--foreground'], stdout=subprocess.PIPE, text=True,
                              preexec_fn=of_its_own) as p:
            try:
                if 'ready' not in p.stdout.readline():
                    print('the device server did not come up', flush=True)
                    return 99
                code = subprocess.run(program, env=dict(os.environ, PENSTOCK_SIMGPU=path), check=False).returncode
                if p.poll() is not None:
                    print(f'the device server ended meanwhile, with {p.returncode}', flush=True)
                    return 99
                return code if code >= 0 else 128 - code
            finally:
                p.terminate()
                if p.wait() != 0:
                    print(f'the device server ended with {p.returncode}', flush=True)
                    return 99


if __name__ == '__main__':
    sys.exit(main())
