# SPDX-License-Identifier: Apache-2.0
"""A device for one tenant alone, for a while: terms of all of its tenants, admission, and every way in which it ends."""
import sys

import fake
from fake import Client, Daemon, wait_for
from test_api import probe

FLAGS, GUARANTEED, FLOOR, RANK = 8, 40, 48, 136     # in struct pen_terms
EXCLUSIVE, HOLD = 4, 32                             # bits of the flags
ONE, TWO = 'test:p/one#0', 'test:p/two#0'


def node(**more):
    return Daemon('--probe', probe(), **more)


def create(d, name, exclusive=None, wait=False, **fields):
    body = {'contract': {'name': name, **fields}, 'wait': wait}
    if exclusive:
        body['exclusive'] = exclusive
    return d.request('POST', '/v1/tenants', body)


def attach(d, name, key=ONE):
    return Client(d.tenant(name)['dir']).attach(key)


def flags(c):
    return c.copy(FLAGS, '<I') & (EXCLUSIVE | HOLD)


def test_terms():
    """While it has a process there, the others hold, whatever their rank; on other devices nothing changes."""
    with node() as d:
        for name, cls in (('a', 'normal'), ('b', 'normal'), ('c', 'besteffort')):
            assert create(d, name, exclusive='5m' if name == 'a' else None, **{'class': cls})[0] == 201
        b, c = attach(d, 'b'), attach(d, 'c')
        rank = b.copy(RANK, '<H')
        assert flags(b) == flags(c) == 0 and b.copy(FLOOR, '<I')            # it has no process there yet
        a = attach(d, 'a')
        assert flags(a) == EXCLUSIVE and a.copy(RANK, '<H') == 0
        for other in (b, c):
            assert flags(other) == HOLD and other.copy(FLOOR, '<I') == other.copy(GUARANTEED, '<I') == 0
        assert b.copy(RANK, '<H') == rank + 1
        elsewhere = attach(d, 'b', TWO)
        assert flags(elsewhere) == 0
        late = Client(create(d, 'late')[1]['dir']).attach(ONE)              # comes while it lasts
        assert flags(late) == HOLD
        v = {x['key']: x for x in d.get('/v1/devices')['devices']}
        assert v[ONE]['exclusive'] == 'a' and v[TWO]['exclusive'] is None
        assert 299e9 < d.tenant('a')['exclusive_ns'] <= 300e9 and d.tenant('b')['exclusive_ns'] is None
        e = d.wait_event('exclusive', 0, 'a')
        assert '5m at most' in e['text'], e
        # one of them is held: why says by whom
        at = fake.CLIENT_AT + fake.CLIENT_BYTES * b.client
        b.ledger.put32(at + 176, 7)                                         # as the gate does
        w = d.get('/v1/tenants/b/why')
        assert w['holds'][0]['reason'] == 'exclusive' and w['holds'][0]['by'] == 'a' and 'a has the device' in w['suggestion'], w
        a.ref(fake.DETACH)
        wait_for(lambda: flags(b) == flags(c) == flags(late) == 0, 'the device to be shared')
        assert b.copy(RANK, '<H') == rank and b.copy(FLOOR, '<I')
        a.ask(ONE)
        assert a.take_seat() == 0
        a.ref(fake.MAPPED)
        a.expect(fake.READY)
        assert flags(b) == HOLD
        d.request('DELETE', '/v1/tenants/a')
        wait_for(lambda: flags(b) == 0, 'its contract to end')


def test_time_is_up():
    with node() as d:
        create(d, 'b')
        b = attach(d, 'b')
        since = d.last_event()
        create(d, 'a', exclusive='1s')
        a = attach(d, 'a')
        assert flags(b) == HOLD
        assert create(d, 'cam', wait=True, device='One', **{'class': 'latency'})[0] == 202
        wait_for(lambda: flags(b) == 0 and flags(a) == 0, 'its time to be up')   # the tick's doing, and not the loop's
        wait_for(lambda: any('time is up' in e['text'] for e in d.get(f'/v1/events?since={since}')['events']), 'the event')
        wait_for(lambda: d.tenant('cam')['state'] == 'idle', 'who waited for that')
        assert d.tenant('a')['exclusive_ns'] is None


def test_promises():
    """It is not admitted where others were promised a latency or a share, and they are not while it lasts."""
    for promise in ({'class': 'latency'}, {'sla': '20ms'}, {'compute': '10%'}):
        field = next(iter(promise))
        with node() as d:
            assert create(d, 'cam', device='One', **promise)[0] == 201
            status, e = create(d, 'a', exclusive='5m', device='One')
            assert status == 409 and "'cam' was promised " + field in e['error']['message'], e
            assert create(d, 'free', exclusive='5m')[0] == 201                   # on the other device
            assert not d.get('/v1/devices')['devices'][0]['exclusive']
            status, t = create(d, 'queued', exclusive='5m', device='One', wait=True)
            assert status == 202 and 'cam' in t['waits_because'] and t['exclusive_ns'] is None, t
            d.request('DELETE', '/v1/tenants/cam')
            wait_for(lambda: d.tenant('queued')['state'] == 'idle', 'room')
            assert d.tenant('queued')['exclusive_ns'] > 299e9                    # counted from now
            status, e = create(d, 'cam', device='One', **promise)
            assert status == 409 and "'queued' has test:p/one#0 for itself, for 5m" in e['error']['message'], e
            assert e['error']['message'].startswith(field + ': ')
            assert create(d, 'plain', device='One')[0] == 201                    # was promised nothing, and waits
            assert d.request('PATCH', '/v1/tenants/plain', {'set': promise})[0] == 409
            assert create(d, 'second', exclusive='5m', device='One')[0] == 409   # one at a time
            assert d.request('PATCH', '/v1/tenants/queued', {'set': {'priority': 60}})[0] == 200


def test_values():
    with node() as d:
        for bad in ('0', '999ms', '61m', '-5s', 'x', ''):
            status, e = d.request('POST', '/v1/tenants', {'exclusive': bad})
            assert status == 400 and 'from 1s to 1h' in e['error']['message'], (bad, e)
        assert d.request('POST', '/v1/tenants', {'exclusive': True})[0] == 400
        assert create(d, 'a', exclusive='1h')[0] == 201


def test_ends_with_the_daemon():
    """A new daemon knows nothing of it: nobody is held for one that may never come back."""
    with node() as d:
        create(d, 'b')
        create(d, 'a', exclusive='1h')
        assert d.stop() == 0
        d.start()
        wait_for(lambda: d.tenant('a') and d.get('/v1/devices')['devices'], 'it to be restored')
        assert d.tenant('a')['exclusive_ns'] is None
        a, b = attach(d, 'a'), attach(d, 'b')
        assert flags(a) == flags(b) == 0


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
