# SPDX-License-Identifier: Apache-2.0
"""The control API: contracts, refusals, queue, changes, configuration, streams, rights, the life of a private daemon."""
import atexit
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

import fake
from fake import Client, Daemon, wait_for

PROBE = '''#!/bin/sh
echo '{"devices":[{"api":"test","key":"test:p/one#0","model":"One","mem_bytes":1073741824,"units":8},
{"api":"test","key":"test:p/two#0","model":"Two","mem_bytes":2147483648,"units":4}],"backends":[{"api":"test","error":""}]}'
'''


def probe(text=PROBE):
    fd, path = tempfile.mkstemp(prefix='pd-probe-')
    os.write(fd, text.encode())
    os.close(fd)
    os.chmod(path, 0o700)
    atexit.register(os.unlink, path)
    return path


def with_devices(**more):
    return Daemon('--probe', probe(), **more)


def test_devices():
    with with_devices() as d:
        status, t = d.create('a', memory='512M', device='two')     # a POST waits for the probe
        assert status == 201, t
        v = {x['key']: x for x in d.get('/v1/devices')['devices']}
        assert v['test:p/two#0']['mem_guaranteed_bytes'] == 512 << 20 and v['test:p/one#0']['mem_guaranteed_bytes'] == 0
        assert v['test:p/one#0']['state'] == 'ok' and v['test:p/one#0']['units'] == 8
        # the contract is for one device
        c = Client(t['dir'])
        assert c.greet() == 0
        c.ask('test:p/one#0')
        assert c.take_seat() == -19                                # ENODEV
        c.ask('test:p/two#0', mem=1)                               # what the probe says counts
        assert c.take_seat() == 0 and c.copy(32, '<Q') == 2 << 30
        status, e = d.create('b', device='nowhere')
        assert status == 409 and 'nowhere' in e['error']['message']


def test_two_interfaces():
    """A card that two libraries list under one address is one device, and promises what both of them have."""
    key = 'pci:0000:65:00.0'
    for first, second in (('cuda', 'opencl'), ('opencl', 'cuda')):
        facts = {'cuda': {'mem_bytes': 16 << 30, 'units': 0, 'driver': '535.183.01'}, 'opencl': {'mem_bytes': 15 << 30, 'units': 40, 'driver': '535.183'}}
        answer = {'devices': [{'api': a, 'key': key, 'model': 'Tesla T4', **facts[a]} for a in (first, second)], 'backends': []}
        with Daemon('--probe', probe(f"#!/bin/sh\ncat <<'E'\n{json.dumps(answer)}\nE\n")) as d:
            assert d.create('a', memory='16G')[0] == 409           # OpenCL can have 15
            where = d.create('a', memory='8G', device=key)[1]['dir']
            v, = d.get('/v1/devices')['devices']
            assert (v['mem_bytes'], v['units'], v['api']) == (15 << 30, 40, first), v
            apis = {a['name']: a for a in v['apis']}
            assert [a['name'] for a in v['apis']] == [first, second]
            assert apis['cuda']['mem_bytes'] == 16 << 30 and apis['cuda']['driver'] == '535.183.01'
            assert apis['opencl']['mem_counts'] and not apis['cuda']['mem_counts']
            c = Client(where).attach(key, mem=16 << 30)            # through either of them
            assert c.copy(32, '<Q') == 15 << 30 and len(d.get('/v1/devices')['devices']) == 1


def test_probe_failures():
    for text in ('#!/bin/sh\nkill -SEGV $$\n', '#!/bin/sh\necho rubbish\n', '#!/bin/sh\nhead -c 200000 /dev/zero\n'):
        with Daemon('--probe', probe(text)) as d:
            assert 'discovery' in d.wait_event('alert')['text']
            assert d.create('a')[0] == 201
    with Daemon('--probe', '/nowhere/probe') as d:
        assert d.create('a')[0] == 201


def test_driver_comes_later():
    """At boot the daemon may be there before a driver: looked for again, and who waits for devices has one."""
    count = fake.tempfile.mktemp(prefix='pd-count-')
    one = json.dumps({'devices': [{'api': 'test', 'key': 'test:one#0', 'model': 'One', 'mem_bytes': 1 << 30, 'units': 4}]})
    none = json.dumps({'devices': [], 'backends': [{'api': 'test', 'devices': 0, 'error': 'no driver yet'}]})
    text = f"#!/bin/sh\necho >> {count}\n[ $(wc -l < {count}) -gt 1 ] && echo '{one}' || echo '{none}'\n"
    try:
        with Daemon('--probe', probe(text)) as d:
            assert d.create('a', memory='600M')[0] == 201 and not d.get('/v1/devices')['devices']
            assert 'One' in d.wait_event('device')['text']
            assert d.get('/v1/devices')['devices'][0]['tenants'] == 1
            assert d.create('b', memory='600M')[0] == 409
    finally:
        os.unlink(count)


def test_what_a_missing_library_is_worth():
    """Most machines lack most vendors' libraries: only one that a card asks for is a warning."""
    for flags, level in (({'absent': True, 'wanting': False}, 'debug'), ({'absent': False, 'wanting': True}, 'warning'), ({}, 'info')):
        text = json.dumps({'devices': [], 'backends': [{'api': 'cuda', 'devices': 0, 'error': 'no libnvidia-ml', **flags}]})
        with Daemon('--probe', probe(f"#!/bin/sh\necho '{text}'\n")) as d:
            wait_for(lambda d=d: not d.get('/v1/version')['probing'], 'discovery')
            assert f'{level}: cuda: no libnvidia-ml' in d.log() and 'info: no device was found' in d.log(), (level, d.log())


def test_made_up_device_has_no_room():
    """A tenant names a device that is not there, with as much memory as it likes: no contract is taken as kept on that one."""
    one = json.dumps({'devices': [{'api': 'test', 'key': 'test:one#0', 'model': 'One', 'mem_bytes': 1 << 30, 'units': 4}]})
    with Daemon('--probe', probe(f"#!/bin/sh\necho '{one}'\n")) as d:
        a = d.create('a', memory='600M')[1]
        c = Client(a['dir'])
        assert c.greet() == 0
        c.ask('test:made-up', mem=1 << 40)
        c.take_seat()
        assert c.status == 0 and len(d.get('/v1/devices')['devices']) == 2
        status, answer = d.create('b', memory='600M')
        assert status == 409 and "held: 'a' 600 MiB" in answer['error']['message'], answer
        assert d.create('b', memory='2G')[0] == 409
        # Who has it has it under its contract, also when that changes; and where discovery found nothing that is meant, it is all there is.
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '800M'}})[0] == 200
        assert d.create('c', memory='2G', device='test:made-up')[0] == 201
        c.s.close()


def test_made_up_name():
    """A tenant calls a device of its own what people call the card for short: who asks for the card by that has the card."""
    one = json.dumps({'devices': [{'api': 'test', 'key': 'test:one#0', 'model': 'A test model', 'mem_bytes': 1 << 30, 'units': 4}]})
    with Daemon('--probe', probe(f"#!/bin/sh\necho '{one}'\n")) as d:
        c = Client(d.create('a')[1]['dir'])
        assert c.greet() == 0
        c.ask('test:made-up')                          # a 'test model'
        c.take_seat()
        assert len(d.get('/v1/devices')['devices']) == 2
        status, t = d.create('b', memory='600M', device='test model')
        assert (status, t['contract']['device'], t['held_on']) == (201, 'A test model', ['test:one#0']), t
        assert d.create('c', device='test:made-up')[1]['contract']['device'] == 'test:made-up'
        c.s.close()


def test_made_up_name_is_not_drained():
    """Nor does an operator who drains a card by its model drain a device whose key is that word."""
    one = json.dumps({'devices': [{'api': 'test', 'key': 'test:one#0', 'model': 'T4', 'mem_bytes': 1 << 30, 'units': 4}]})
    with Daemon('--probe', probe(f"#!/bin/sh\necho '{one}'\n")) as d:
        c = Client(d.create('a')[1]['dir'])
        assert c.greet() == 0
        c.ask('T4')
        c.take_seat()
        assert sorted(v['key'] for v in d.get('/v1/devices')['devices']) == ['T4', 'test:one#0']
        status, answer = d.request('POST', '/v1/devices/drain', {'device': 'T4'})
        assert (status, answer['device']['key']) == (200, 'test:one#0'), answer
        assert d.request('POST', '/v1/devices/undrain', {'device': 'T4'})[1]['device']['key'] == 'test:one#0'
        c.s.close()


def test_end_only_if_unused():
    """Whoever asks for the check has it, or is told that he did not: nothing is ended by a word that was not understood."""
    with Daemon() as d:
        assert d.create('a')[0] == 201
        c = Client(d.tenant('a')['dir'])
        assert c.greet() == 0
        assert d.request('DELETE', '/v1/tenants/a?unused=1')[0] == 409
        for query in ('unused=true', 'unused=', 'unused', 'unused=-1', 'unused=10', 'Unused=1', 'unused=0', 'force=1', 'unused=1&x'):
            status, e = d.request('DELETE', '/v1/tenants/a?' + query)
            assert (status, e['error']['code']) == (400, 'field-invalid') and 'unused=1' in e['error']['message'], (query, e)
        assert d.tenant('a')['state'] != 'ended'
        assert d.request('DELETE', '/v1/tenants/a?')[0] == 200 and d.tenant('a')['state'] == 'ended'
        c.s.close()


def test_refusals():
    with with_devices() as d:
        assert d.create('a', compute='70%', device='One')[0] == 201
        status, e = d.create('b', compute='50%', device='One')
        assert status == 409 and e['error']['code'] == 'refused' and e['error']['field'] == 'compute'
        assert "'a'" in e['error']['message'], e                   # who holds what
        assert d.create('a')[1]['error']['code'] == 'exists'
        for body, field in (({'contract': {'name': 'x', 'memory': 'nine'}}, 'memory'),
                            ({'contract': {'name': '../x'}}, 'name')):
            status, e = d.request('POST', '/v1/tenants', body)
            assert status == 400 and e['error']['field'] == field and e['error']['allowed'], e
        for raw in ('', '{', '[]', '"x"', '{"contract": 1}', '{"contract":{},"contract":{}}', '{"what":1}', '\0', '{"pid":-4}',
                    '{"contract":{"nope":1}}', '{"contract":{"name":"\\u0000"}}', '{"wait":3}'):
            status, e = d.request('POST', '/v1/tenants', raw=raw)
            assert status == 400 or raw == '', (raw, status, e)
        assert d.request('GET', '/v1/tenants/nope')[1]['error']['code'] == 'no-such-tenant'
        assert d.request('GET', '/v1/what')[0] == 404 and d.request('DELETE', '/v1/events')[0] == 405
        assert d.request('POST', '/v1/tenants', {'pid': 999999999})[0] == 400


def test_queue():
    with with_devices() as d:
        d.create('a', compute='70%', device='One')
        assert d.create('big', compute='95%', device='One', wait=True)[0] == 202
        assert d.create('small', compute='20%', device='One')[0] == 201                 # fits beside a, and would not wait
        assert d.create('later', compute='8%', device='One', wait=True)[0] == 202       # fits, but who waits does not overtake
        assert "'big' waits before it" in d.get('/v1/tenants/later/why')['holds'][0]['text']
        assert 'others wait' in d.get('/v1/events')['events'][-1]['text']
        assert d.create('elsewhere', compute='5%', device='Two', wait=True)[0] == 201   # in nobody's way
        assert d.tenant('big')['state'] == 'waiting'
        assert "'a'" in d.get('/v1/tenants/big/why')['holds'][0]['text']
        assert d.create('never', compute='20%', memory='900G', device='One', wait=True)[0] == 409
        d.request('DELETE', '/v1/tenants/small')
        assert d.tenant('big')['state'] == 'waiting' and d.tenant('later')['state'] == 'waiting'    # nobody overtakes
        d.request('DELETE', '/v1/tenants/a')
        assert d.tenant('big')['state'] == 'idle' and d.tenant('later')['state'] == 'waiting'
        assert os.path.exists(d.tenant('big')['dir'] + '/token')
        d.request('PATCH', '/v1/tenants/big', {'set': {'compute': '10%'}})
        assert d.tenant('later')['state'] == 'idle'


def test_change():
    with with_devices() as d:
        d.create('a', compute='20%')
        d.create('b', compute='60%')
        status, e = d.request('PATCH', '/v1/tenants/a', {'set': {'compute': '60%'}})
        assert status == 409 and d.tenant('a')['contract']['compute'] == '20%', e
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'name': 'z'}})[0] == 400
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'class': 'latency', 'sla': '20ms', 'priority': 7}})[0] == 200
        c = d.tenant('a')['contract']
        assert (c['class'], c['sla'], c['priority'], c['compute']) == ('latency', '20ms', 7, '20%')
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'sla': None}})[1]['contract']['sla'] == 'none'


def test_watch():
    with Daemon() as d:
        p = subprocess.Popen(['sleep', '1000'])
        where = d.create('a', pid=p.pid)[1]['dir']
        c = Client(where).attach()
        p.kill()
        p.wait()
        assert d.tenant('a')                                       # this process still is a client
        pid, out = fake.child(lambda say: None)
        out.read()
        os.waitpid(pid, 0)
        since = d.last_event()
        c.ref(fake.DETACH)
        c.close()
        assert d.wait_event('tenant-ended', since)['tenant'] == 'a'
        wait_for(lambda: not os.path.exists(where), 'its directory to go')


def test_private():
    """Ends with its last tenant, exit code 0; a second one is refused with 1; usage is 2."""
    d = Daemon(private=True)
    assert stat.S_IMODE(os.stat(d.sock).st_mode) == 0o600
    argv = [os.environ['PENSTOCKD'], '--private', '--no-probe', '--runtime-dir', d.run, '--state-dir', d.state]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=fake.BOUND, check=False)
    assert r.returncode == 1 and 'another penstockd' in r.stderr, r
    r = subprocess.run(argv + ['--what'], capture_output=True, text=True, timeout=fake.BOUND, check=False)
    assert r.returncode == 2 and '--what' in r.stderr, r
    d.create('a')
    d.create('b')
    d.request('DELETE', '/v1/tenants/a')
    assert d.answers()
    d.request('DELETE', '/v1/tenants/b')
    assert d.proc.wait(fake.BOUND) == 0, d.log()
    assert not os.listdir(d.run)
    d.close()
    # One that was started for a contract that it must refuse ends too, and not for want of somebody who asks.
    d = Daemon('--probe', probe(), private=True)
    assert d.create('a', memory='900G')[0] == 409
    assert d.proc.wait(2 * fake.BOUND) == 0 and 'nobody needed it' not in d.log(), d.log()
    d.close()


def test_reload():
    with with_devices(config='contracts:\n  - name: cam\n    memory: 100M\n') as d:
        wait_for(lambda: d.tenant('cam'), 'the configured contract')
        d.create('own')
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write('policy:\n  quantum: 20ms\ncontracts:\n  - name: cam\n    memory: 200M\n  - name: new\n')
        status, r = d.request('POST', '/v1/config/reload')
        what = {c['what']: (c['from'], c['to']) for c in r['changes']}
        assert status == 200 and what['policy.quantum'] == ('4ms', '20ms') and any('cam' in w and 'memory' in w for w in what), r
        assert d.tenant('cam')['contract']['memory'] == '200M' and d.tenant('new') and d.tenant('own')
        assert d.get('/v1/devices')['devices'][0]['quantum_ns'] == 20000000
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write('polici:\n  quantum: 20ms\n')
        status, e = d.request('POST', '/v1/config/reload')
        assert status == 400 and ':1' in e['error']['message'] and d.tenant('new'), e
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write('')
        d.request('POST', '/v1/config/reload')
        assert not d.tenant('cam') and d.tenant('own')
        assert 'quantum' in d.get('/v1/config')['yaml']


def test_reload_brings_back():
    """A contract's file is moved away, and back while processes of its contract still live: it begins anew when they are gone."""
    def reload(d, text):
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write(text)
        status, r = d.request('POST', '/v1/config/reload')
        assert status == 200, r
        return r['changes']
    file = 'contracts:\n  - name: cam\n    memory: 100M\n'
    with with_devices(config=file) as d:
        wait_for(lambda: d.tenant('cam'), 'the configured contract')
        c = Client(d.run + '/tenants/cam')
        assert c.greet() == 0
        reload(d, '')
        assert d.tenant('cam')['state'] == 'ended'
        since = d.last_event()
        for _ in range(2):
            reload(d, file)
        told = [e['text'] for e in d.get(f'/v1/events?since={since}')['events'] if e['tenant'] == 'cam']
        assert len(told) == 1 and 'begins anew when' in told[0], told
        c.s.close()
        wait_for(lambda: (d.tenant('cam') or {}).get('state') == 'idle', 'the contract to be back')
        # What was set by hand goes on until the file is read again, and then the answer says what became of it.
        assert d.request('PATCH', '/v1/tenants/cam', {'set': {'memory': '150M'}})[0] == 200
        changes = reload(d, file)
        assert [(c['what'], c['from'], c['to']) for c in changes] == [("contract 'cam': memory", '150M', '100M')], changes
        assert d.tenant('cam')['contract']['memory'] == '100M' and reload(d, file) == []
        # One that somebody else has made, and that cannot become what the file says, stays his.
        d.create('own', memory='50M')
        reload(d, file + '  - name: own\n    device: elsewhere\n')
        reload(d, file)
        assert d.tenant('own')['contract']['memory'] == '50M'


WEIGHT_AT, QUANTUM_AT, UNITS_AT = 52, 112, 128                     # in struct pen_terms


def test_share_policies():
    """fairshare weighs by guarantee, turns does not; the quantum that is shown is the one in force."""
    with with_devices(config='devices:\n  - device: two\n    share: turns\n') as d:
        d.create('a', compute='60%')
        d.create('b', compute='20%')
        for key, share, ms, weights in (('test:p/one#0', 'fairshare', 4, (600000, 200000)), ('test:p/two#0', 'turns', 10, (500000, 500000))):
            a, b = (Client(d.tenant(n)['dir']).attach(key) for n in 'ab')
            wait_for(lambda a=a, b=b, w=weights: (a.copy(WEIGHT_AT, '<I'), b.copy(WEIGHT_AT, '<I')) == w, share)
            shown = [v for v in d.get('/v1/devices')['devices'] if v['key'] == key][0]
            assert shown['share'] == share and shown['quantum_ns'] == a.copy(QUANTUM_AT, '<Q') == ms * 1000000, shown
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write('policy:\n  share: turns\n')
        changes = {c['what']: c['to'] for c in d.request('POST', '/v1/config/reload')[1]['changes']}
        assert changes['policy.share'] == 'turns' and changes['policy.quantum'] == '10ms', changes
        c = Client(d.create('c')[1]['dir']).attach('test:p/one#0')
        assert c.copy(QUANTUM_AT, '<Q') == 10000000


def test_unknown_size():
    """Of a device that does not tell its size: no limit but the contract's, and null is not 0."""
    with Daemon() as d:
        Client(d.create('capped', memory='1M..512M')[1]['dir']).attach(mem=0)
        assert d.get('/v1/devices')['devices'][0]['mem_bytes'] is None
        assert d.place('capped')['mem_limit_bytes'] == 512 << 20
        Client(d.create('free')[1]['dir']).attach(mem=0)
        assert d.place('free')['mem_limit_bytes'] is None, d.place('free')
        assert d.place('free')['mem_used_bytes'] == 0


def test_units():
    """A cap on units is one; a guarantee alone keeps nobody from the others."""
    with with_devices() as d:
        for name, text, units in (('cap', '..2', 2), ('both', '1..3', 3), ('least', '2..', 0), ('part', '..25%', 2)):
            c = Client(d.create(name, units=text, device='One')[1]['dir']).attach('test:p/one#0')
            assert c.copy(UNITS_AT, '<I') == units, (name, c.copy(UNITS_AT, '<I'))


def test_rights():
    """Others may look, and change nothing."""
    if os.getuid() != 0:
        print('   not root: nobody else to be')
        return
    with Daemon() as d:
        os.chmod(d.dir, 0o755)
        d.create('a')

        def other(say):
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            say(str(d.request('GET', '/v1/tenants/a')[0]))
            say(str(d.request('DELETE', '/v1/tenants/a')[0]))
            say(str(d.create('mine')[0]))
            try:
                open(d.run + '/tenants/a/token', encoding='ascii').close()
                say('token read')
            except PermissionError:
                say('no token')
        pid, out = fake.child(other)
        assert out.read().split('\n')[:4] == ['200', '403', '403', 'no token']
        os.waitpid(pid, 0)


def test_stream_and_metrics():
    with with_devices() as d:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(fake.BOUND)
        s.connect(d.sock)
        s.sendall(b'GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n')
        f = s.makefile('rb')
        wait_for(lambda: b'event: tenants' in f.readline(), 'the first state')
        c = Client(d.create('a', memory='512M')[1]['dir']).attach('test:p/one#0')
        c.charge(4096)

        def told():
            line = f.readline()
            return line.startswith(b'data: ') and json.loads(line[6:]).get('kind') == 'tenant-created'
        wait_for(told, 'an event')
        f.close()
        s.close()
        text = d.get('/metrics')
        assert 'penstock_memory_used_bytes{tenant="a",device="test:p/one#0"} 4096' in text, text
        at = fake.CLIENT_AT + fake.CLIENT_BYTES * c.client
        c.ledger.put64(at + 48, 123456789)                         # device_ns
        c.ledger.put64(at + 104 + 8 * 3, 5)                        # held_ns[rank]
        c.ledger.put32(at + 176, 4)                                # held now, by rank
        p = d.place('a')
        assert p['device_ns'] == 123456789 and p['held_ns']['rank'] == 5 and p['clients'][0]['hold']['reason'] == 'rank'
        w = d.get('/v1/tenants/a/why')
        assert w['holds'][0]['reason'] == 'rank' and w['suggestion']
        c.ledger.put32(at + 176, 2)                                # by share
        for compute, says in (('20%..30%', '--compute 20%..'), ('..30%', '--compute unlimited'), ('20%..', 'a larger guarantee')):
            d.request('PATCH', '/v1/tenants/a', {'set': {'compute': compute}})
            assert says in d.get('/v1/tenants/a/why')['suggestion'], (compute, d.get('/v1/tenants/a/why'))
        for minutes, status in ((1, 200), (180, 200), (181, 400), (0, 400)):
            assert d.request('GET', f'/v1/tenants/a/usage?minutes={minutes}')[0] == status, minutes


def test_why_names_the_neighbour():
    """A command that runs is not interrupted, and no gate sees the wait for it: who runs beside, and how long one can last, is said."""
    with with_devices() as d:
        a = Client(d.create('a', **{'class': 'latency'})[1]['dir']).attach('test:p/one#0')
        b = Client(d.create('b', **{'class': 'besteffort'})[1]['dir']).attach('test:p/one#0')
        elsewhere = Client(d.create('c')[1]['dir']).attach('test:p/two#0')
        at = fake.CLIENT_AT + fake.CLIENT_BYTES * a.client

        def why(held_by, *busy):
            a.ledger.put32(at + 176, held_by)
            for c, longest_ms in busy:
                its = fake.CLIENT_AT + fake.CLIENT_BYTES * c.client
                c.ledger.put64(its + 48, c.ledger.u64(its + 48) + 10**7)       # device_ns
                c.ledger.put64(its + 192, longest_ms * 10**6)                  # max_command_ns
            return d.get('/v1/tenants/a/why')
        for held_by in (0, 1):                                                 # by nobody; by its own window
            said = wait_for(lambda h=held_by: (w := why(h, (b, 5), (elsewhere, 9)))['beside'] and w, 'a second of work')
            assert said['beside'] == {'tenant': 'b', 'device': 'test:p/one#0', 'max_command_ns': 5 * 10**6}, said
            for word in ('b that runs on test:p/one#0', '5ms', 'a bound, not a measurement'):
                assert word in said['suggestion'], said
        said = wait_for(lambda: not (w := why(1, (elsewhere, 9)))['beside'] and w, 'a second without work')
        assert said['suggestion'] == 'its own commands keep the device busy, and nobody else runs on it', said
        assert why(2)['suggestion'].startswith('it shares the device'), said   # what it is held by comes first
        a.close()                                                              # it asks for nothing now
        said = wait_for(lambda: not (w := why(0, (b, 5)))['beside'] and w, 'its end')
        assert not said['suggestion'], said


def test_stale():
    """Says busy and does nothing: flagged in the terms, told, and nobody waits on it."""
    with Daemon() as d:
        c = Client(d.create('a')[1]['dir']).attach()
        began = time.time()
        c.busy(3)
        wait_for(lambda: c.copy(192 + 24 * c.seat + 12, '<I') & 2, 'the flag')
        stale = d.wait_event('client-stale')      # not of one long kernel, nor of a program that is about to end
        assert stale['tenant'] == 'a' and stale['time'] - began >= 3, (stale, began)
        c.busy(0)
        wait_for(lambda: not c.copy(192 + 24 * c.seat + 12, '<I') & 2, 'the flag to go')


def test_many_connections():
    """Connections that say nothing do not keep others out for ever."""
    with Daemon() as d:
        idle = []
        for _ in range(400):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.setblocking(False)
            try:
                s.connect(d.sock)
            except BlockingIOError:
                s.close()
                break
            idle.append(s)
        assert len(idle) > 100
        assert len(os.listdir(f'/proc/{d.proc.pid}/fd')) < 300
        for s in idle:
            s.close()
        wait_for(d.answers, 'an answer')


def free_port():
    s = socket.socket()
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
    s.close()
    return port


def ended(s):
    """Has the other side closed it? Waits for that."""
    s.settimeout(fake.BOUND)
    try:
        return s.recv(1) == b''
    except ConnectionResetError:
        return True


def test_doors():
    """Half-sent requests on the read-only port keep nobody from the control socket, and are not waited for long."""
    port = free_port()
    with Daemon('--http', f'127.0.0.1:{port}') as d:
        held = []
        for _ in range(195):
            s = socket.socket()
            s.setblocking(False)
            try:
                s.connect(('127.0.0.1', port))
            except BlockingIOError:
                pass
            held.append(s)
        for s in held[:50]:
            s.settimeout(fake.BOUND)
            s.send(b'GET /v1/ver')
        assert d.answers() and d.create('a')[0] == 201
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(fake.BOUND)
        stream.connect(d.sock)
        stream.sendall(b'GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n')
        assert stream.recv(100).startswith(b'HTTP/1.1 200')
        assert ended(held[0])                                      # PEN_CONN_SILENT_NS, and not evhttp's 30 s
        for s in held:
            s.close()
        d.create('b')
        wait_for(lambda: b'"b"' in stream.recv(65536), 'the stream to go on')
        answer = wait_for(lambda: ask_port(port), 'the port')      # whoever waited in the backlog is served, or gone
        assert b' 200 ' in answer, answer


def ask_port(port):
    with socket.create_connection(('127.0.0.1', port), timeout=fake.BOUND) as s:
        s.sendall(b'GET /v1/version HTTP/1.0\r\n\r\n')
        try:
            return s.recv(1000)
        except ConnectionResetError:
            return b''


def test_links():
    """What a container mounts lies where its owner can put nothing; links in what is his lead nobody to what is another's."""
    with Daemon() as d:
        mine, his = (d.create(name)[1] for name in ('a', 'b'))
        assert not his['mount_dir'].startswith(his['dir']), his
        above = os.path.dirname(his['mount_dir'])
        assert os.stat(above).st_mode & 0o777 == 0o700 and os.stat(above).st_uid == os.geteuid()
        before = sorted(os.listdir(his['mount_dir']))
        assert before == ['attach.sock', 'token'] and os.stat(his['mount_dir'] + '/token').st_mode & 0o777 == 0o444
        os.rename(mine['dir'], mine['dir'] + '.away')
        os.symlink(his['dir'], mine['dir'])
        os.unlink(mine['dir'] + '.away/token')
        assert d.request('DELETE', '/v1/tenants/a')[0] == 200
        assert sorted(os.listdir(his['mount_dir'])) == before and sorted(os.listdir(his['dir'])) == before
        assert not os.path.exists(mine['mount_dir'])


def test_pid_of_another_user():
    """Descendants of the watched process count as the tenant's, so nobody names one that is not his."""
    if os.getuid() != 0:
        print('   not root: nobody else to be')
        return
    with Daemon(config='group: nogroup\n') as d:
        os.chmod(d.dir, 0o755)
        os.chmod(d.run, 0o755)
        os.chmod(d.sock, 0o666)

        def member(say):
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            for pid in (1, os.getpid()):
                say(str(d.request('POST', '/v1/tenants', {'contract': {'name': f'p{pid}'}, 'pid': pid, 'ephemeral': True})[0]))
            signal.pause()
        pid, out = fake.child(member)
        try:
            assert [out.readline().strip(), out.readline().strip()] == ['403', '201'], d.log()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_watchdog():
    """The service manager hears that the loop comes round, in time, and nothing while it does not."""
    for abstract in (False, True):
        with tempfile.TemporaryDirectory() as tmp, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            name = f'{tmp}/n' if not abstract else f'@penstock-test-{os.getpid()}'
            s.bind(name.replace('@', '\0'))
            s.settimeout(fake.BOUND)
            with Daemon(env={'NOTIFY_SOCKET': name, 'WATCHDOG_USEC': '800000'}) as d:
                for _ in range(3):
                    assert s.recv(100) == b'WATCHDOG=1'
                os.kill(d.proc.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, d.proc.pid, os.WSTOPPED)
                s.setblocking(False)
                try:
                    while s.recv(100):
                        pass
                except BlockingIOError:
                    pass
                os.kill(d.proc.pid, signal.SIGCONT)
                s.settimeout(fake.BOUND)
                assert s.recv(100) == b'WATCHDOG=1'
    with tempfile.TemporaryDirectory() as tmp, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(tmp + '/n')
        s.setblocking(False)
        with Daemon(env={'NOTIFY_SOCKET': tmp + '/n', 'WATCHDOG_USEC': '800000', 'WATCHDOG_PID': '1'}) as d:    # meant for another process
            assert d.answers()
        try:
            raise AssertionError(s.recv(100))
        except BlockingIOError:
            pass


def test_scrapers_take_turns():
    """Forty readers with long answers do not stand before somebody who changes a contract, however they have come together."""
    port = free_port()
    with Daemon('--http', f'127.0.0.1:{port}') as d:
        clients = []
        for i in range(24):
            d.create(f't{i}', memory='..64M')
            clients.append(Client(d.tenant(f't{i}')['dir']).attach())
        asked = b'GET /v1/tenants HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
        shares = []
        for _ in range(5):
            os.kill(d.proc.pid, signal.SIGSTOP)
            readers = []
            for _ in range(40):
                s = socket.create_connection(('127.0.0.1', port))
                s.sendall(asked)
                readers.append(s)
            own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            own.connect(d.sock)
            own.sendall(b'GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
            began, left, mine = time.monotonic(), set(readers), None
            os.kill(d.proc.pid, signal.SIGCONT)
            while left or not mine:
                for s in select.select([*left, *([] if mine else [own])], [], [], fake.BOUND)[0]:
                    data = s.recv(1 << 20)
                    if s is own:
                        mine = time.monotonic() - began
                        assert data.startswith(b'HTTP/1.1 200'), data
                    elif not data:
                        s.close()
                        left.remove(s)
            own.close()
            shares.append(mine / (time.monotonic() - began))
        assert sorted(shares)[2] < 0.5 and len(clients) == 24, shares    # of the time that all took; the middle one of five


def test_lookers():
    """Users who may only look leave room for those who may change things."""
    if os.getuid() != 0:
        print('   not root: nobody else to be')
        return
    with Daemon() as d:
        os.chmod(d.dir, 0o755)

        def crowd(say):
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            idle = []
            while len(idle) < 250:                                 # more than are let in, fewer than with the backlog
                s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                s.settimeout(fake.BOUND)
                try:
                    s.connect(d.sock)
                except BlockingIOError:                            # the backlog is full at the moment
                    time.sleep(0.001)
                    continue
                idle.append(s)
            say(str(len(idle)))
            signal.pause()
        pid, out = fake.child(crowd)
        try:
            assert int(out.readline()) == 250
            wait_for(d.answers, 'an answer')                       # once the crowd has been let in from the backlog
            assert d.create('a')[0] == 201
        finally:
            fake.kill_child(pid)


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
