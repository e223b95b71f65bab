# SPDX-License-Identifier: Apache-2.0
"""
A power cut: of what was written last, any part may be missing, be zeros or be rubbish. The daemon starts, calls nothing
damaged, and has the contracts up to some moment before the cut: never one without those that were made before it.
"""
import glob
import os
import shutil
import sys
import tempfile

import fake
from fake import Daemon, wait_for

N = 12


def wal_of(state):
    return state + '/penstock.db-wal'


def contains(path, data):
    try:
        with open(path, 'rb') as f:
            return data in f.read()
    except OSError:
        return False


def lose(wal, at, how):
    """What came to the disk of a log that was `at` bytes long when the power went."""
    size = os.path.getsize(wal)
    with open(wal, 'r+b') as f:
        if how == 'missing':
            f.truncate(at)
        else:
            f.seek(at)
            f.write((b'\0' if how == 'zeros' else b'\xa5') * (size - at))


def after_cut(state, at, how, keep_index):
    """Starts a daemon on what is left. Returns the contracts that it knows."""
    where = tempfile.mkdtemp(prefix='pd-')
    try:
        shutil.copytree(state, where + '/s')
        lose(wal_of(where + '/s'), at, how)
        if not keep_index:    # it is memory, which some file systems never wrote
            os.unlink(wal_of(where + '/s')[:-3] + 'shm')
        with Daemon(directory=where) as d:
            assert not glob.glob(d.state + '/*damaged*'), d.log()
            known = [t['name'] for t in d.get('/v1/tenants')['tenants']]
            assert d.create('new')[0] == 201 and os.path.exists(d.tenant('new')['dir'] + '/token')
            return known
    finally:
        shutil.rmtree(where, ignore_errors=True)


def test_power_cut():
    with Daemon() as d:
        for i in range(N):    # each in a transaction of its own
            assert d.create(f'tenant-{i:02}')[0] == 201
            wait_for(lambda i=i: contains(wal_of(d.state), b'tenant-%02d' % i), 'the log')
        d.kill()
        size = os.path.getsize(wal_of(d.state))
        assert size > 32 + N * 4096, size
        counts = []
        for n, at in enumerate([0, 17, 32, 32 + 24, *(32 + (size - 32) * k // 8 + 100 * k for k in range(1, 8)), size]):
            known = after_cut(d.state, at, ('missing', 'zeros', 'rubbish')[n % 3], n % 2)
            assert known == [f'tenant-{i:02}' for i in range(len(known))], (at, known)
            counts.append(len(known))
        assert counts == sorted(counts), counts
        assert counts[0] == 0 and any(0 < n < N for n in counts) and counts[-1] >= N - 1, counts


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
