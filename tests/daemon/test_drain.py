# SPDX-License-Identifier: Apache-2.0
"""Devices that an operator takes out of use: drained, released before a driver is loaded anew, and back again."""
import json
import os
import signal
import subprocess
import sys

import fake
from auditing import FLAGS, KEY, STOP, TOTAL, Audited, Probe, end, gone, orphan, started
from fake import Client, Daemon, kill_child, wait_for

ENODEV = -19
DRAIN, UNDRAIN, RELEASE = '/v1/devices/drain', '/v1/devices/undrain', '/v1/devices/release'
OTHER = 'pci:0000:66:00.0'


def post(d, path, device=KEY):
    return d.request('POST', path, {'device': device})


def state(d, key=KEY):
    return next(v for v in d.get('/v1/devices')['devices'] if v['key'] == key)


def two_devices(probe):
    probe.put('devices', json.dumps({'devices': [{'api': 'opencl', 'key': k, 'model': 'Card', 'mem_bytes': TOTAL, 'units': 8}
                                                 for k in (KEY, OTHER)], 'backends': []}))


def ask(c, key=KEY):
    """A seat, or the code of the refusal."""
    c.ask(key, mem=TOTAL)
    if c.take_seat() == 0:
        c.ref(fake.MAPPED)
        c.expect(fake.READY)
    return c.status


def child(fn, *args):
    pid, out = fake.child(fn, *args)
    started.append(pid)                 # ended at the end, also of a test that fails
    return pid, out


def stranger(say, where):
    """Another process of the tenant."""
    c = Client(where)
    say(str(c.greet()))
    say(str(ask(c)))
    signal.pause()


def adopt(where, c):
    """It is back with its pages at the daemon after the one that is just ending. The new connection."""
    def once():
        try:
            back = Client(where)
            back.hello(nadopt=1)
            back.send(fake.head(fake.ADOPT) + fake.text(KEY, 128) + fake.struct.pack('<IIQ', c.seat, c.generation, 0), c.fds[1:3])
            back.expect(fake.HELLO_REPLY)
            return back
        except (OSError, AssertionError):
            return None
    back = wait_for(once, 'the new daemon')
    back.take_seat()
    return back


def answers(pid, out):
    got = [int(out.readline()) for _ in range(2)]
    kill_child(pid)
    out.close()
    return got


def cli(d, *args, **more):
    return subprocess.Popen([os.environ['PENSTOCK'], *args, '--socket', d.sock], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, 'LC_ALL': 'C', 'LANGUAGE': ''}, **more)


def run_cli(d, *args):
    p = cli(d, *args)
    out, err = p.communicate(timeout=fake.BOUND)
    return p.returncode, out, err


def test_drain():
    """Who is there goes on, with all that a contract gives; nobody new comes; and it is as before in the end."""
    with Daemon() as d:
        where = d.create('a', memory='100M..')[1]['dir']
        c = Client(where).attach(KEY, mem=TOTAL)
        since = d.last_event()
        status, answer = post(d, DRAIN)
        assert status == 200 and answer['device']['state'] == 'drained' and answer['device']['clients'] == 1, answer
        assert answer['holders'] == [{'pid': os.getpid(), 'comm': 'fake', 'tenant': 'a'}], answer
        assert KEY + ' is drained: ' in d.wait_event('device', since)['text']
        r = subprocess.run([os.environ['PENSTOCK'], '--socket', d.sock, 'events', '--since', str(since)], capture_output=True, text=True, check=True)
        assert KEY + ' is drained: ' in r.stdout and f'device: {KEY} is drained: ' in d.log(), (r, d.log())
        assert post(d, DRAIN)[1]['device']['drained_since'] == answer['device']['drained_since']
        assert len([e for e in d.get(f'/v1/events?since={since}')['events'] if e['kind'] == 'device']) == 1
        assert not c.copy(FLAGS, '<I') & STOP
        assert 'penstock_device_drained{device="%s"} 1' % KEY in d.request('GET', '/metrics')[1]

        status, e = d.create('b', memory='1M')
        assert status == 409 and 'drained' in e['error']['message'], e
        status, t = d.create('b', memory='1M', wait=True)
        assert status == 202 and 'drained' in t['waits_because'], t
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '200M..'}})[0] == 200
        assert answers(*child(stranger, where)) == [0, ENODEV]
        assert d.wait_event('refused', since, 'a')['text'].endswith('the device is drained')

        second = Client(where)                            # another library of the process that is on it
        assert second.greet() == 0 and ask(second) == 0
        c.s.close()
        second.s.close()                                  # hung up, and back without its pages
        c = Client(where)
        assert c.greet() == 0 and ask(c) == 0

        assert post(d, UNDRAIN)[1]['device']['state'] == 'unprobed'
        wait_for(lambda: d.tenant('b')['state'] == 'idle', 'the waiting one')
        assert answers(*child(stranger, where)) == [0, 0]
        assert 'penstock_device_drained{device="%s"} 0' % KEY in d.request('GET', '/metrics')[1]


def test_restart():
    """The daemon is killed: still drained, who was on it comes back, somebody new does not, a contract is held as before."""
    with Daemon() as d:
        where = d.create('a', memory='600M..')[1]['dir']

        def tenant(say, where):
            c = Client(where).attach(KEY, mem=TOTAL)
            say('here')
            while c.recv()[0]:
                pass
            back = adopt(where, c)
            say(str(back.status))
            signal.pause()
        pid, out = child(tenant, where)
        assert out.readline() == 'here\n'
        since = post(d, DRAIN)[1]['device']['drained_since']
        wait_for(lambda: d.get('/v1/version')['store']['queued'] == 0, 'it to be written')
        d.kill()
        d.start()
        wait_for(lambda: d.get('/v1/devices')['devices'], 'the device')
        assert state(d)['state'] == 'drained' and state(d)['drained_since'] == since
        assert out.readline() == '0\n'
        assert state(d)['clients'] == 1
        assert d.tenant('a')['state'] == 'active', d.tenant('a')
        assert answers(*child(stranger, where)) == [0, ENODEV]
        assert d.create('b', memory='600M')[0] == 409 and post(d, UNDRAIN)[0] == 200
        status, e = d.create('b', memory='600M')
        assert status == 409 and "'a' 600 MiB" in e['error']['message'], e
        kill_child(pid)
        out.close()


def test_any_device():
    """A contract for any device goes to the others, and means this one again when it is back. Names: key, part of it, not the model of two."""
    probe = Probe(api='opencl')
    two_devices(probe)
    with Daemon('--probe', probe.path) as d:
        d.create('kept', memory='300M')
        status, answer = post(d, DRAIN, KEY.split(':', 1)[1])
        assert status == 200 and answer['device']['key'] == KEY
        assert d.create('a', memory='600M')[0] == 201
        assert (state(d)['tenants'], state(d, OTHER)['tenants']) == (1, 2)
        assert d.create('b', memory='600M', device=KEY)[0] == 409
        status, e = post(d, DRAIN, 'card')
        assert status == 400 and KEY in e['error']['message'] and OTHER in e['error']['message'], e
        assert post(d, DRAIN, 'nobody')[0] == 404 and post(d, DRAIN, '')[0] == 404 and post(d, DRAIN, 5)[0] == 400
        assert d.request('POST', DRAIN, {'device': KEY, 'x': 1})[0] == 400
        assert post(d, DRAIN, OTHER)[0] == 200
        status, e = d.create('c')
        assert status == 409 and 'drained' in e['error']['message'], e
        assert post(d, UNDRAIN, OTHER)[0] == 200 and d.create('c')[0] == 201
        assert post(d, UNDRAIN)[0] == 200
        assert state(d)['tenants'] == 3 and state(d)['mem_guaranteed_bytes'] == 900 << 20
        # one that is gone meanwhile is let go by its key
        assert post(d, DRAIN)[0] == 200
        wait_for(lambda: d.get('/v1/version')['store']['queued'] == 0, 'it to be written')
        probe.put('devices', json.dumps({'devices': [], 'backends': []}))
        assert d.stop() == 0
        d.start()
        assert d.create('e', device=OTHER)[0] == 201           # waits for discovery
        assert not d.get('/v1/devices')['devices'] and post(d, UNDRAIN)[0] == 200 and post(d, UNDRAIN)[0] == 404
    subprocess.run(['rm', '-r', probe.dir], check=True)


def test_release():
    """Refused while anybody has it, with their names; then nothing of ours runs that has the vendor's library, not after a restart either."""
    with Audited() as (d, probe, a):
        where = d.create('a')[1]['dir']
        pid, out = child(stranger, where)
        assert [out.readline() for _ in range(2)] == ['0\n', '0\n']
        other = orphan('sleep', '1000')
        probe.say((pid, 50), (other, 70))
        wait_for(lambda: a.audit()['unknown_processes'] == 1, 'the reading')
        status, e = post(d, RELEASE)
        assert status == 409 and e['error']['code'] == 'busy', e
        assert f'{pid} (fake, tenant a)' in e['error']['message'] and f', {other} (' in e['error']['message'], e
        assert [h['tenant'] for h in e['holders']] == ['a', None] and state(d)['state'] == 'drained' and not state(d)['released']
        code, _, err = run_cli(d, 'device', 'release', KEY)
        assert code == 4 and f'{pid} (fake, tenant a)' in err, err

        kill_child(pid)
        out.close()
        wait_for(lambda: state(d)['clients'] == 0, 'it to be gone')
        assert post(d, RELEASE)[0] == 409                      # the other one still has it
        waiting = cli(d, 'device', 'release', '--wait', KEY)
        assert 'waiting for' in waiting.stdout.readline() and str(other) in waiting.stdout.readline()
        watcher = probe.pid()
        end(other)
        out, err = waiting.communicate(timeout=fake.BOUND)
        assert waiting.returncode == 0 and 'undrain' in out, (out, err)
        assert gone(watcher) and state(d)['released'] and state(d)['audit']['watched'] is False
        starts = probe.starts()

        wait_for(lambda: d.get('/v1/version')['store']['queued'] == 0, 'it to be written')
        d.kill()
        d.start()
        wait_for(lambda: d.get('/v1/devices')['devices'] and not d.get('/v1/devices')['probing'], 'discovery')
        wait_for(lambda: state(d)['released'], 'discovery to be gone')
        assert probe.starts() == starts + [[]], probe.starts()
        since = d.last_event()
        probe.put('devices', json.dumps({'devices': [{'api': 'cuda', 'key': KEY, 'model': 'Card', 'mem_bytes': TOTAL + (1 << 20),
                                                      'units': 9, 'driver': '999'}], 'backends': []}))
        assert post(d, UNDRAIN)[1]['device']['state'] == 'ok'
        wait_for(lambda: state(d)['audit'] and state(d)['audit']['watched'], 'a reading')
        wait_for(lambda: state(d)['apis'][0]['driver'] == '999', 'the new driver')
        assert state(d)['units'] == 9 and not state(d)['released'] and sorted(probe.starts()[-2:]) == [[], ['--watch', '100']]
        assert not [e for e in d.get(f'/v1/events?since={since}')['events'] if 'also' in e['text']]
        assert d.create('b')[0] == 201


def test_command():
    """drain --wait returns when the last one has left, and says on whom it waits; the short spelling; what is wrong."""
    with Daemon() as d:
        where = d.create('a')[1]['dir']
        pid, out = child(stranger, where)
        assert [out.readline() for _ in range(2)] == ['0\n', '0\n']
        code, text, _ = run_cli(d, 'drain', KEY)
        assert code == 0 and f'{pid} (fake) of tenant a' in text, text
        p = cli(d, 'device', 'drain', KEY, '--wait')
        assert 'waiting for' in p.stdout.readline() and str(pid) in p.stdout.readline()
        assert p.poll() is None
        kill_child(pid)
        out.close()
        text, err = p.communicate(timeout=fake.BOUND)
        assert p.returncode == 0 and 'nobody is on it' in text, (text, err)
        code, text, _ = run_cli(d, 'device', 'ls')
        assert 'drained' in text
        code, text, _ = run_cli(d, 'undrain', KEY)
        assert code == 0 and 'in use' in text
        code, text, _ = run_cli(d, 'device', 'drain', '-o', 'json', KEY)
        assert json.loads(text)['device']['state'] == 'drained'
        assert run_cli(d, 'device', 'undrain', KEY, 'nobody')[0] == 5 and state(d)['state'] == 'unprobed'
        for args in (('device', 'drain'), ('device', 'undrain', '--wait', KEY), ('device', 'what', KEY), ('device', 'ls', '--wait'),
                     ('drain', '-w', KEY), ('device',)):
            assert run_cli(d, *args)[0] == 2, args


def test_kubelet():
    """A slot that a pod has stays healthy on a drained card; free ones are not, so that no pod is sent there."""
    try:
        from kubelet_node import CARDS, Node, R, tenant_dir
    except SystemExit:
        print('   no python3-grpcio')
        return
    with Node() as n:
        n.kubelet.start()
        p = n.kubelet.wait_list(R, lambda p: len(p.healthy()) == 8, 'a healthy list')
        c = Client(tenant_dir(p.allocate(['g0-s1']))).attach(CARDS[0][0])
        assert post(n.daemon, DRAIN, CARDS[0][0])[0] == 200
        p = n.kubelet.wait_list(R, lambda p: p.healthy() == {'g0-s1', 'g1-s0', 'g1-s1', 'g1-s2', 'g1-s3'}, 'the drained card')
        c.close()
        assert post(n.daemon, UNDRAIN, CARDS[0][0])[0] == 200
        n.kubelet.wait_list(R, lambda p: len(p.healthy()) == 8, 'all of it')


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
