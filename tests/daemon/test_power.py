# SPDX-License-Identifier: Apache-2.0
"""
A power cut: of what was written last, any part may be missing, be zeros or be rubbish. The daemon starts, calls nothing
damaged, and has the contracts up to some moment before the cut: never one without those that were made before it.

And a daemon that is killed in the middle of any single thing that it does to a disk, and a disk that is full.
"""
import errno
import glob
import json
import mmap
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

import fake
from fake import Client, Daemon, wait_for

N = 12
OPS, BYTES, DIE_AT, FULL = range(4)    # words of disk.c


class Disk:
    """A directory for a daemon whose every operation on it is counted, and can be its last."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix='pd-')
        with open(self.dir + '/disk', 'wb') as f:
            f.write(bytes(32))
        with open(self.dir + '/disk', 'r+b') as f:
            self.words = mmap.mmap(f.fileno(), 32)
        asan = os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'
        self.env = {'LD_PRELOAD': os.environ['DISK'], 'PENSTOCK_DISK': self.dir, 'ASAN_OPTIONS': asan}

    def get(self, word):
        return struct.unpack_from('<Q', self.words, 8 * word)[0]

    def put(self, word, value):
        struct.pack_into('<Q', self.words, 8 * word, value)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def settled(d):
    wait_for(lambda: d.get('/v1/version')['store']['queued'] == 0, 'the store')


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


KEY = 'test:p/d#0'
STEPS = [
    lambda d: d.create('a', memory='64M'),
    lambda d: d.create('b', memory='64M', **{'class': 'latency'}),
    lambda d: d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '80M'}}),
    lambda d: d.request('DELETE', '/v1/tenants/a'),
    lambda d: d.create('a', memory='16M'),
]
# Contracts after none of them, one, ...
STATES = [{}, {'a': '64M'}, {'a': '64M', 'b': '64M'}, {'a': '80M', 'b': '64M'}, {'b': '64M'}, {'a': '16M', 'b': '64M'}]


def stored(d):
    """Contracts that the database has."""
    try:
        db = sqlite3.connect(f'file:{d.state}/penstock.db?mode=ro', uri=True)
        rows = db.execute('SELECT name, contract FROM tenant').fetchall()
        db.close()
        return {name: json.loads(text)['memory'] for name, text in rows}
    except sqlite3.Error:
        return None


class Mortal(Daemon):
    """One that may be dead before it answers."""

    def start(self):
        try:
            super().start()
        except AssertionError:
            assert self.proc.poll() == -9, self.log()


def until_death(disk, at):
    """Runs all steps, an end and another start; it may end in any of them. Returns how many steps were seen to be written, or None: it lived."""
    disk.put(OPS, 0)
    disk.put(DIE_AT, at)
    done = 0
    for steps in (STEPS, []):
        d = Mortal(directory=disk.dir, env=disk.env)
        try:
            for step in steps:
                assert step(d)[0] in (200, 201, 204)
                wait_for(lambda: stored(d) == STATES[done + 1] or d.proc.poll() is not None, 'it to be written')
                done += stored(d) == STATES[done + 1]
            d.stop()
        except (OSError, fake.http.client.HTTPException):
            d.proc.wait(fake.BOUND)
        if d.proc.returncode == -9:
            return done
        assert d.proc.returncode == 0, d.log()
    return None


def check_alive(disk, done):
    """What is there after the end in the middle of something: all that was written, and nothing that hinders."""
    disk.put(DIE_AT, 0)
    with Daemon(directory=disk.dir, env=disk.env) as d:
        assert not glob.glob(d.state + '/*damaged*'), d.log()
        known = {t['name']: t['contract']['memory'] for t in d.get('/v1/tenants')['tenants']}
        assert known in STATES[done:done + 2], (done, known)
        for name in ('a', 'b', 'new'):
            if name not in known:
                assert d.create(name, memory='1M')[0] == 201
            c = Client(d.tenant(name)['dir'])
            assert c.greet() == 0
            c.close()


def test_killed_in_every_write():
    """Each point at which a file of the daemon changes, the write that was under way half done. All points: that takes a while."""
    point, ends = 0, []
    while True:
        point += 1
        disk = Disk()
        try:
            done = until_death(disk, point)
            if done is None:
                break
            ends.append(done)
            check_alive(disk, done)
        finally:
            disk.remove()
    assert point > 100 and set(ends) == set(range(len(STEPS) + 1)), (point, ends)
    print(f'   {point - 1} points')


def fill(path):
    """Until nothing more fits there."""
    with open(path, 'wb', buffering=0) as f:
        for size in (65536, 4096, 1):
            try:
                while True:
                    f.write(bytes(size))
            except OSError as e:
                assert e.errno == errno.ENOSPC, e


def told_unwritable(d, why):
    """Everybody who asks is told that nothing is written, and since when."""
    store = d.get('/v1/version')['store']
    assert not store['ok'] and store['error'] == why and abs(store['failing_since'] - time.time()) < 3600, store
    text = d.request('GET', '/metrics')[1]
    assert '\npenstock_store_ok 0\n' in text and '\npenstock_store_errors_total 0\n' not in text, text
    cli = [os.environ['PENSTOCK'], '--socket', d.sock]
    r = subprocess.run([*cli, 'doctor', '-o', 'json'], stdout=subprocess.PIPE, check=False)
    found = [c for c in json.loads(r.stdout)['checks'] if c['id'] == 'store']
    assert r.returncode and [c['status'] for c in found] == ['bad'] and why in found[0]['text'], found
    assert why in command(d, 'alloc', '--name', 'by-command', '--memory', '1M', '--format', 'cdi')
    assert why in command(d, 'set', 'by-command', 'memory=2M')
    assert why in command(d, 'device', 'drain', fake.KEY)
    assert why in command(d, 'device', 'undrain', fake.KEY)


def command(d, *args):
    """What it says beside its output."""
    env = {**os.environ, 'LANG': 'C.UTF-8', 'LC_ALL': 'C.UTF-8'}
    r = subprocess.run([os.environ['PENSTOCK'], '--socket', d.sock, *args], env=env, capture_output=True, text=True, check=True)
    return ''.join(line for line in r.stderr.splitlines() if 'lost if the daemon ends' in line)


def check_full(d, make_full, make_room):
    """On a disk that fills up: everything is served, nothing that was written is lost, and what was not is written once there is room."""
    c = Client(d.create('before', memory='64M')[1]['dir']).attach()
    settled(d)
    make_full()
    answers = {f'full{i:02}': d.create(f'full{i:02}', memory='1M') for i in range(20)}
    assert {status for status, _ in answers.values()} == {201}
    status, changed = d.request('PATCH', '/v1/tenants/before', {'set': {'memory': '80M'}})
    assert status == 200
    drained = d.request('POST', '/v1/devices/drain', {'device': fake.KEY})[1]
    for a in (changed, drained, answers['full19'][1]):          # what the log has room for yet may be there
        assert a['stored'] is False and 'penstock.db' in a['not_stored_because'], a
    d.request('POST', '/v1/devices/undrain', {'device': fake.KEY})
    told_unwritable(d, drained['not_stored_because'])
    wait_for(lambda: d.get('/v1/version')['store']['errors'] > 2, 'attempts that fail')
    lease = c.lease()
    wait_for(lambda: c.lease() > lease, 'a lease')
    Client(d.tenant('full00')['dir']).attach()
    assert d.log().count('it is tried again') == 1, d.log()
    assert 'penstock_store_errors_total 0' not in d.request('GET', '/metrics')[1]
    d.kill()
    d.start()                                                   # still full
    assert not glob.glob(d.state + '/*damaged*'), d.log()
    kept = {'before'} | {name for name, (_, a) in answers.items() if a['stored']}
    assert kept <= {t['name'] for t in d.get('/v1/tenants')['tenants']}, (kept, d.log())
    assert d.create('later')[0] == 201, d.log()
    make_room()
    settled(d)
    status, after = d.create('after')                            # on disk once it is answered: nothing is waited for
    assert status == 201 and after['stored'] is True and 'not_stored_because' not in after, after
    store = d.get('/v1/version')['store']
    assert store['ok'] and store['error'] is None and store['failing_since'] is None, store
    assert '\npenstock_store_ok 1\n' in d.request('GET', '/metrics')[1]
    d.kill()
    d.start()
    assert not glob.glob(d.state + '/*damaged*'), d.log()
    assert {'before', 'later', 'after'} <= {t['name'] for t in d.get('/v1/tenants')['tenants']}, d.log()


def test_full_disk():
    """Writes fail with ENOSPC."""
    disk = Disk()
    try:
        with Daemon(directory=disk.dir, env=disk.env) as d:
            check_full(d, lambda: disk.put(FULL, 1), lambda: disk.put(FULL, 0))
    finally:
        disk.remove()


def mount(path, size):
    os.makedirs(path)
    return subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', path], check=False, capture_output=True).returncode == 0


def test_full_file_system():
    """A megabyte for the database, and one for sockets and tokens: each fills up."""
    where = tempfile.mkdtemp(prefix='pd-')
    try:
        if not os.environ.get('PENSTOCK_OWN_MOUNTS') or not mount(where + '/s', '1m') or not mount(where + '/r', '1m'):
            print('   left out: nothing may be mounted here')
            return
        with Daemon(directory=where) as d:
            check_full(d, lambda: fill(d.state + '/filler'), lambda: os.unlink(d.state + '/filler'))
            fill(d.run + '/filler')
            status, e = d.create('no-room')
            assert status == 409 and 'No space left' in e['error']['message'], e
            assert not os.path.exists(d.run + '/tenants/no-room') and d.tenant('no-room') is None
            os.unlink(d.run + '/filler')
            assert d.create('no-room')[0] == 201
    finally:
        for part in 'sr':
            subprocess.run(['umount', '-l', f'{where}/{part}'], check=False, capture_output=True)
        shutil.rmtree(where, ignore_errors=True)


def test_read_only():
    """A state directory that has become read-only: what was there is there, and what is new is said to be lost."""
    where = tempfile.mkdtemp(prefix='pd-')
    try:
        if not os.environ.get('PENSTOCK_OWN_MOUNTS') or not mount(where + '/s', '8m'):
            print('   left out: nothing may be mounted here')
            return
        with Daemon(directory=where) as d:
            Client(d.create('before', memory='64M')[1]['dir']).attach()
            settled(d)
            for end in (d.kill, d.stop):                        # with a log of the database, and without
                end()
                subprocess.run(['mount', '-o', 'remount,ro', d.state], check=True)
                d.start()
                assert d.tenant('before'), d.log()
                a = d.create('new')[1]
                assert a['stored'] is False, a
                told_unwritable(d, a['not_stored_because'])
                subprocess.run(['mount', '-o', 'remount,rw', d.state], check=True)
                settled(d)                                      # and then it is written
                assert d.create('later')[1]['stored'] is True, d.log()
                d.kill()
                d.start()
                assert {'before', 'new', 'later'} <= {t['name'] for t in d.get('/v1/tenants')['tenants']}, d.log()
                for name in ('new', 'later', 'by-command'):
                    d.request('DELETE', '/v1/tenants/' + name)
    finally:
        subprocess.run(['umount', '-l', f'{where}/s'], check=False, capture_output=True)
        shutil.rmtree(where, ignore_errors=True)


def own_mounts():
    """What is mounted here must be gone with this process, however it ends: a namespace of its own, where that is permitted."""
    if not os.environ.get('PENSTOCK_OWN_MOUNTS') and shutil.which('unshare') and \
            subprocess.run(['unshare', '-m', 'true'], check=False, capture_output=True).returncode == 0:
        os.environ['PENSTOCK_OWN_MOUNTS'] = '1'
        os.execvp('unshare', ['unshare', '-m', sys.executable, *sys.argv])


if __name__ == '__main__':
    own_mounts()
    fake.run(sys.modules[__name__])
