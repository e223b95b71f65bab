# SPDX-License-Identifier: Apache-2.0
"""Memory above guarantees is lent: the limits in the terms, wishes in the ledger, and what a tenant may lie about."""
import sqlite3
import sys

import fake
from fake import Client, Daemon, child, kill_child, wait_for
from test_attach import directory, hold_seat

MB = 1 << 20
TOTAL = 1000 * MB
CAP, MOST, CONTRACT = 16, 160, 168        # in struct pen_terms
USED, WANTED, LENT_DENIALS = 64, 96, 104  # in the ledger


def attach(d, name, **fields):
    return Client(directory(d, name, **fields)).attach(mem=TOTAL)


def limit(c):
    return c.copy(CAP, '<Q')


def wish(c, total):
    """Asks for more, waits for the answer. Returns the limit then."""
    c.ledger.put64(WANTED, total)
    wait_for(lambda: c.ledger.u64(WANTED) == 0, 'an answer')
    return limit(c)


def kept(d, *clients):
    """What is set aside if each took all that it may."""
    return sum(max(limit(c), c.ledger.u64(USED), c.copy(24, '<Q')) for c in clients)


def ticks(d, n=5):
    was = d.get('/v1/version')['tick']['ticks']
    wait_for(lambda: d.get('/v1/version')['tick']['ticks'] >= was + n, 'ticks')


def test_unpromised():
    """Nothing is guaranteed to anybody: limits are the caps, and nobody's terms move."""
    with Daemon() as d:
        a, b = attach(d, 'a'), attach(d, 'b', memory='..300M')
        assert limit(a) == a.copy(MOST, '<Q') == (1 << 64) - 1
        assert limit(b) == b.copy(MOST, '<Q') == b.copy(CONTRACT, '<Q') == 300 * MB
        c = attach(d, 'c', memory='100M')
        assert limit(a) + limit(b) <= TOTAL - 100 * MB and limit(c) == 100 * MB
        assert d.request('PATCH', '/v1/tenants/c', {'set': {'memory': '..100M'}})[0] == 200
        assert limit(a) == a.copy(MOST, '<Q') == (1 << 64) - 1 and limit(b) == 300 * MB


def test_lent():
    with Daemon() as d:
        kept_free = attach(d, 'kept', memory='400M..')
        assert limit(kept_free) == TOTAL
        a = attach(d, 'a')
        b = attach(d, 'b', memory='50M..300M')
        everybody = (kept_free, a, b)
        assert kept(d, *everybody) <= TOTAL
        # what contracts allow, and nothing else, is what is shown
        assert [c.copy(MOST, '<Q') for c in everybody] == [950 * MB, 550 * MB, 300 * MB]
        assert d.place('a')['mem_limit_bytes'] == 550 * MB and d.place('b')['mem_limit_bytes'] == 300 * MB
        # use alone moves nothing
        ticks(d)
        before = [c.terms.u64(fake.EPOCH_AT) for c in everybody]
        a.charge(100 * MB)
        b.charge(60 * MB)
        ticks(d)
        assert [c.terms.u64(fake.EPOCH_AT) for c in everybody] == before
        # a wish is met out of what others may have and do not use
        assert limit(a) < 500 * MB <= wish(a, 500 * MB)
        assert kept(d, *everybody) <= TOTAL and limit(b) >= 60 * MB and limit(kept_free) >= 400 * MB
        a.charge(400 * MB)
        # one that cannot be met moves nothing
        ticks(d)
        before = [c.terms.u64(fake.EPOCH_AT) for c in everybody]
        assert wish(b, 150 * MB) < 150 * MB and wish(a, 560 * MB) < 560 * MB
        ticks(d)
        assert [c.terms.u64(fake.EPOCH_AT) for c in everybody] == before
        assert [c.copy(MOST, '<Q') for c in everybody] == [950 * MB, 550 * MB, 300 * MB]
        # with contracts the sum follows at once, and what is there stays
        assert d.create('late', memory='50M')[0] == 409
        assert d.request('PATCH', '/v1/tenants/kept', {'set': {'memory': '350M..'}})[0] == 200
        assert d.create('late', memory='50M')[0] == 201
        assert a.copy(MOST, '<Q') == 550 * MB and a.ledger.u64(USED) == 500 * MB
        assert kept(d, *everybody) + 50 * MB <= TOTAL


def test_lies():
    """A ledger says what its tenant writes: never more than it was allowed counts, so that it cannot shut others out."""
    with Daemon() as d:
        kept_free, liar, honest = attach(d, 'kept', memory='100M'), attach(d, 'liar', memory='..200M'), attach(d, 'honest')
        for lie in ((1 << 64) - 1, 1 << 50):
            liar.ledger.put64(USED, lie)
            liar.ledger.put64(WANTED, lie)
            assert wish(honest, 700 * MB) >= 700 * MB
            assert limit(kept_free) == 100 * MB and limit(liar) <= 200 * MB
            wait_for(lambda: liar.ledger.u64(WANTED) == 0, 'an answer')
            assert d.create('new', memory='50M')[0] == 201
            assert d.request('DELETE', '/v1/tenants/new')[0] == 200
        for page in range(0, 64, 8):        # and every other word
            liar.ledger.put64(64 + page, (1 << 64) - 1)
        ticks(d)
        assert wish(honest, 650 * MB) >= 650 * MB


def test_told():
    with Daemon() as d:
        a = attach(d, 'a')
        a.ledger.put64(LENT_DENIALS, 3)      # as the gate does
        e = d.wait_event('memory-refused')
        assert e['tenant'] == 'a' and 'promised' in e['text']
        assert d.place('a')['denials_lent'] == 3
        assert 'promised' in d.get('/v1/tenants/a/why')['suggestion']
        assert 'penstock_denials_lent_total{tenant="a"' in d.request('GET', '/metrics')[1]


def test_unknown_size():
    """A device that does not tell its size: caps hold, nothing is lent, and no limit is no sample."""
    with Daemon() as d:
        a = Client(directory(d, 'a')).attach(mem=0)
        b = Client(directory(d, 'b', memory='10M..20M')).attach(mem=0)
        assert limit(a) == a.copy(MOST, '<Q') == (1 << 64) - 1 and limit(b) == 20 * MB
        text = d.request('GET', '/metrics')[1]
        assert 'penstock_memory_limit_bytes{tenant="b"' in text and 'penstock_memory_limit_bytes{tenant="a"' not in text
        assert 'e+19' not in text and ' nan' not in text.lower()


def holder(d, where, n):
    """A process that holds memory and says nothing more, as the store knows. Returns its pid."""
    pid, out = child(hold_seat, where, n)
    out.readline()

    def known():
        db = sqlite3.connect(f'file:{d.state}/penstock.db?mode=ro', uri=True)
        rows = dict(db.execute('SELECT pid, bytes FROM seat'))
        db.close()
        return rows.get(pid, 0) >= n
    wait_for(known, 'the store to know')
    return pid


def test_restart():
    """What was lent and is not back counts, in admission too; a contract that was in force is in force again."""
    with Daemon() as d:
        where = {n: directory(d, n, **f) for n, f in (('kept', {'memory': '600M..'}), ('hog', {}), ('late', {'memory': '10M'}))}
        pid = holder(d, where['hog'], 400 * MB)      # of 1 GiB; the store rounds up
        for n in ('kept', 'late'):
            c = Client(where[n]).attach()
            c.ref(fake.DETACH)
            c.close()
        d.kill()
        d.start()
        status, e = d.create('new', memory='50M')
        assert status == 409 and "'hog'" in e['error']['message'], e
        for n, least in (('kept', 600 * MB), ('late', 10 * MB)):
            assert limit(Client(where[n]).attach()) >= least
        kill_child(pid)
        wait_for(lambda: d.create('new', memory='50M')[0] == 201, 'room')


def test_lowered_below_the_absent():
    """After a restart a process that is not back still holds memory: a limit below it is refused."""
    with Daemon() as d:
        pid = holder(d, directory(d, 'a', memory='64M'), 7 * MB)
        d.kill()
        d.start()
        assert d.place('a')['waits_for_clients']
        status, e = d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '1M'}})
        assert status == 409 and 'in use' in e['error']['message'], e
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '1M'}, 'force': True})[0] == 200
        kill_child(pid)


def test_reserve():
    with Daemon(config='policy: {reserve: 100M}\n') as d:
        a, b = attach(d, 'a', memory='300M..'), attach(d, 'b')
        assert a.copy(MOST, '<Q') == 900 * MB and b.copy(MOST, '<Q') == 600 * MB
        assert kept(d, a, b) <= 900 * MB
        assert wish(b, 600 * MB) == 600 * MB and limit(a) == 300 * MB


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
