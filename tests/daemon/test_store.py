# SPDX-License-Identifier: Apache-2.0
"""State: what survives kill -9, a damaged or truncated database, a disk that stalls, a disk that is not there."""
import glob
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import fake
from fake import Client, Daemon, wait_for


def settled(d):
    return wait_for(lambda: d.get('/v1/version')['store']['queued'] == 0, 'the store')


def test_kill_keeps_contracts():
    with Daemon() as d:
        d.create('a', memory='1G..2G', **{'class': 'latency', 'sla': '20ms'})
        d.create('gone')
        d.request('DELETE', '/v1/tenants/gone')
        d.request('PATCH', '/v1/tenants/a', {'set': {'priority': '90'}})
        before = d.tenant('a')['contract']
        sleeper = subprocess.Popen(['sleep', '1000'])
        assert d.create('watched', pid=sleeper.pid, ephemeral=True)[0] == 201
        dead = subprocess.Popen(['sleep', '1000'])
        assert d.create('dying', pid=dead.pid, ephemeral=True)[0] == 201
        settled(d)
        d.kill()
        dead.kill()
        dead.wait()
        d.start()
        assert d.tenant('a')['contract'] == before and d.tenant('gone') is None
        assert d.tenant('watched')['state'] == 'idle'
        # the events of before are still told, and numbers go on
        assert [e for e in d.get('/v1/events?since=0&limit=1000')['events'] if e['tenant'] == 'gone']
        d.wait_event('tenant-ended', tenant='dying')            # nobody came back
        sleeper.kill()
        sleeper.wait()
        wait_for(lambda: d.tenant('watched') is None, 'the end of the watched')


def read(path):
    with open(path, encoding='ascii') as f:
        return f.read()


def test_contract_of_another_version():
    """A stored contract with fields that this version does not know is still a contract."""
    with Daemon() as d:
        token = read(d.create('a', memory='64M')[1]['dir'] + '/token')
        assert d.stop() == 0
        db = sqlite3.connect(d.state + '/penstock.db')
        text = json.loads(db.execute('SELECT contract FROM tenant').fetchone()[0])
        db.execute('UPDATE tenant SET contract=?', (json.dumps({**text, 'sharing': 'any', 'group': 'none'}),))
        db.commit()
        db.close()
        d.start()
        assert d.tenant('a')['contract'] == text
        assert read(d.tenant('a')['dir'] + '/token') == token


def test_stop_keeps_contracts():
    with Daemon() as d:
        where = d.create('a')[1]['dir']
        c = Client(where).attach()
        assert d.stop() == 0
        assert os.path.exists(where + '/token')                 # programs started now wait for the daemon, not fail closed
        d.start()
        assert d.tenant('a') and not c.copy(8, '<I') & 2        # the client was not stopped


def damage(d, how):
    path = d.state + '/penstock.db'
    for tail in ('-wal', '-shm'):
        if os.path.exists(path + tail):
            os.unlink(path + tail)
    with open(path, 'r+b') as f:
        how(f, os.path.getsize(path))


def check_damaged(how):
    with Daemon() as d:
        for i in range(50):
            d.create(f'a{i}')
        settled(d)
        assert d.stop() == 0
        damage(d, how)
        d.start()
        kept = glob.glob(d.state + '/penstock.db.damaged-*')
        assert len(kept) == 1, kept
        e = d.wait_event('alert')
        assert 'damaged' in e['text'] and kept[0] in e['text'], e
        assert d.create('new')[0] == 201
        settled(d)
        d.kill()
        d.start()
        assert d.tenant('new') and len(glob.glob(d.state + '/penstock.db.damaged-*')) == 1


def test_damaged_header():
    check_damaged(lambda f, n: f.write(b'not a database at all' * 20))


def test_damaged_page():
    def hit(f, n):
        for at in range(4096, n, 4096):
            f.seek(at)
            f.write(b'\xff' * 200)
    check_damaged(hit)


def test_truncated():
    check_damaged(lambda f, n: f.truncate(n // 2 + 100))


def test_no_state_dir():
    """Without a place to write the daemon serves and says so."""
    with Daemon('--state-dir', '/proc/penstock') as d:
        why = d.wait_event('alert')['text']
        assert 'without a database' in why
        a, store = d.create('b')[1], d.get('/v1/version')['store']
        assert a['stored'] is False and a['not_stored_because'] and why.endswith(a['not_stored_because']), (why, a)
        assert not store['ok'] and not store['open'] and store['error'] == a['not_stored_because'] and store['failing_since'], store
        assert '\npenstock_store_ok 0\n' in d.request('GET', '/metrics')[1]
        Client(d.create('a')[1]['dir']).attach()


def test_stalled_disk():
    """While a flush sleeps two seconds no lease lapses and processes attach."""
    slow = os.environ['SLOW_FSYNC']
    switch = ''
    # Preloaded before a sanitizer's runtime, which minds unless it is told.
    asan = os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'
    with Daemon(env={'LD_PRELOAD': slow, 'ASAN_OPTIONS': asan}) as d:
        switch = d.dir + '/slow'
        c = Client(d.create('a')[1]['dir']).attach()
        settled(d)
        assert d.stop() == 0
        d.env['PENSTOCK_SLOW_FSYNC'] = switch
        d.start()
        where = d.tenant('a')['dir']
        wait_for(lambda: not d.get('/v1/version')['store']['queued'], 'the store')
        with open(switch, 'w', encoding='ascii'):
            pass
        c = Client(where)
        assert c.greet() == 0
        d.create('b')                                            # has to be flushed
        wait_for(lambda: os.path.getsize(switch) > 0, 'a flush')
        c.ask()                                                  # waits for adoption, then is answered
        assert c.take_seat() == 0
        c.ref(fake.MAPPED)
        c.expect(fake.READY)
        lapses = within = 0
        until = time.monotonic() + fake.BOUND

        def flush():
            """Number of the flush that sleeps just now, 0 = none."""
            with open(switch, encoding='ascii') as f:
                v = f.read()
            return v.count('begin') if v.count('begin') > v.count('end') else 0
        for i in range(1000000):
            before = flush()
            if before:                                           # what is asked now has to be flushed after this one
                other = Client(d.create(f'x{i}')[1]['dir'])
                assert other.greet() == 0
                other.close()
                within += flush() == before                      # and was answered while it slept
            else:
                d.create(f'kick{i}')
            lapses += c.lease() < time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            if within >= 20 and before > 2 or time.monotonic() > until:
                break
            time.sleep(0.01)
        assert lapses == 0, lapses
        assert within >= 20, within
        os.unlink(switch)


def test_callers_of_a_stalled_disk():
    """An answer that waits for the disk: its caller is told after a while, or has hung up, or the daemon ends before."""
    switch = ''
    asan = os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'
    with Daemon(env={'LD_PRELOAD': os.environ['SLOW_FSYNC'], 'ASAN_OPTIONS': asan}) as d:
        switch = d.dir + '/slow'
        assert d.create('a')[1]['stored'] is True
        assert d.stop() == 0
        d.env['PENSTOCK_SLOW_FSYNC'] = switch
        d.start()
        settled(d)

        def ask(name):
            c = fake.Unix(d.sock)
            c.request('POST', '/v1/tenants', json.dumps({'contract': {'name': name}}))
            wait_for(lambda: d.tenant(name), 'the contract, before its answer')
            return c
        with open(switch, 'w', encoding='ascii'):
            pass
        waits, gone = ask('b'), ask('c')
        gone.close()
        told = json.loads(waits.getresponse().read())
        assert told['stored'] is False and told['not_stored_because'] == 'the disk does not answer', told
        ask('d')                                                 # the end does not wait for its caller
    # which is a clean one


def test_size_and_retention():
    with Daemon(config='retention:\n  days: 1\n  max_size: 1M\n') as d:
        settled(d)
        assert d.stop() == 0
        db = sqlite3.connect(d.state + '/penstock.db')
        db.executemany('INSERT INTO usage VALUES(?,?,?,1,1,1,1,1)', [('t', 'd', m) for m in range(1000)])        # 1970
        now = int(time.time()) // 60
        db.executemany('INSERT INTO usage VALUES(?,?,?,1,1,1,1,1)', [(f't{i}' * 20, 'd' * 100, now - m) for m in range(200)
                                                                      for i in range(60)])
        db.commit()
        assert db.execute('SELECT count(*) FROM usage WHERE minute < 1000').fetchone()[0] == 1000
        db.close()
        big = os.path.getsize(d.state + '/penstock.db')
        assert big > 1 << 20
        d.start()

        def trimmed():
            c = sqlite3.connect(f'file:{d.state}/penstock.db?mode=ro', uri=True, timeout=fake.BOUND)
            try:
                return c.execute('SELECT count(*) FROM usage WHERE minute < 1000').fetchone()[0] == 0 and \
                    c.execute('SELECT count(*) FROM usage').fetchone()[0] < 12000
            finally:
                c.close()
        wait_for(trimmed, 'old rows to go')


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    fake.run(sys.modules[__name__])
