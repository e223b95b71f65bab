# SPDX-License-Identifier: Apache-2.0
"""The process that watches the devices, and what it says of a device itself."""
import json
import os
import subprocess
import sys

import fake
from auditing import FLAGS, KEY, STOP, Audited, Probe, attach, gone, overhead
from fake import Daemon, wait_for

# ---- the device -----------------------------------------------------------------------------------------------------------


def test_decoder():
    """Use of the coders is shown for each tenant: it is not gated."""
    with Audited() as (d, probe, a):
        attach(d, 'a')
        child = subprocess.Popen(['sleep', '1000'])
        probe.say((os.getpid(), 10, {'dec_util': 30, 'enc_util': 5, 'sm_util': 40}), (child.pid, 10, {'dec_util': 25}), dec_util=55, enc_util=5,
                  gpu_util=77, temperature_c=61, power_mw=70000)
        wait_for(lambda: d.place('a')['dec_ppm'] == 550000, 'the sum')
        assert d.place('a')['enc_ppm'] == 50000 and d.place('a')['sm_ppm'] == 400000
        v = a.audit()
        assert (v['dec_ppm'], v['enc_ppm'], v['gpu_ppm'], v['temperature_c'], v['power_mw'], v['mem_ppm']) == (550000, 50000, 770000, 61, 70000, None)
        text = d.request('GET', '/metrics')[1]
        assert f'penstock_decoder_ratio{{tenant="a",device="{KEY}"}} 0.55' in text and f'penstock_device_power_watts{{device="{KEY}"}} 70' in text
        child.kill()
        child.wait()


def test_lost():
    """A lost device: its tenants' next command fails, nobody is admitted, all are told; and back again."""
    with Audited() as (d, probe, a):
        c = attach(d, 'a')
        since = d.last_event()
        probe.say(lost=True)
        assert 'No tenant is admitted' in d.wait_event('device-lost', since)['text']
        assert 'next command fails' in d.wait_event('device-lost', since, 'a')['text']
        assert a.device()['state'] == 'lost' and c.copy(FLAGS, '<I') & STOP
        status, e = d.create('b')
        assert status == 409 and 'lost' in e['error']['message'], e
        assert d.create('b', wait=True)[0] == 202
        c.ref(fake.DETACH)
        c.ask(KEY)
        assert c.take_seat() == -19                                   # ENODEV
        assert len(a.events('device-lost', since)) == 2
        probe.say()
        wait_for(lambda: a.device()['state'] == 'ok', 'it to be found')
        wait_for(lambda: d.tenant('b')['state'] == 'idle', 'the waiting one')
        c.ask(KEY)
        assert c.take_seat() == 0 and not c.copy(FLAGS, '<I') & STOP


def test_error_codes():
    """Errors that a program makes for itself are told; those after which the device must be reset take it out of use."""
    with Audited() as (d, probe, a):
        since = d.last_event()
        probe.say(xid=31)
        assert 'Xid 31' in d.wait_event('audit', since)['text']
        a.readings(3)
        assert a.device()['state'] == 'ok' and len(a.events('audit', since)) == 1
        probe.say(xid=48)
        assert 'Xid 48' in d.wait_event('alert', since)['text']
        wait_for(lambda: a.device()['state'] == 'lost', 'the state')
        probe.say()
        a.readings(6)
        assert a.device()['state'] == 'lost'                          # it answers, and cannot be trusted
        assert d.request('POST', '/v1/config/reload')[0] == 200
        assert a.device()['state'] == 'ok'
        since = d.last_event()
        probe.say(xid=31, xid_count=1)
        d.wait_event('audit', since)
        since = d.last_event()
        probe.say(xid=31, xid_count=2)                                # the same again
        d.wait_event('audit', since)
        a.readings(3)
        assert len(a.events('audit', since)) == 1
        since = d.last_event()
        probe.say(xid=77777)
        assert '77777' in d.wait_event('audit', since)['text'] and a.device()['state'] == 'ok'


# ---- the process that watches ------------------------------------------------------------------------------------------------


def test_rubbish():
    """Whatever is printed: the daemon goes on, with what is in range."""
    with Audited() as (d, probe, a):
        attach(d, 'a')
        for p in ({'pid': -1, 'mem_bytes': 5}, {'pid': 1 << 40}, {'mem_bytes': 5}, {'pid': '7'}, 7, None, [], {'pid': 1.5},
                  {'pid': os.getpid(), 'mem_bytes': -5, 'dec_util': 101}, {'pid': os.getpid(), 'mem_bytes': 1 << 62}, {'pid': os.getpid(), 'mem_bytes': 'x'}):
            probe.raw(json.dumps({'schema': 'penstock-probe/watch/v1', 'devices': [7, {}, {'key': 5}, {'key': 'x' * 500}, {'key': 'no/such'},
                                  {'key': KEY, 'mem_used_bytes': 'x', 'gpu_util': 1e9, 'xid': -4, 'power_mw': [], 'lost': 'yes', 'processes': [p]}]}))
            a.readings(1)
        probe.raw(json.dumps({'schema': 'penstock-probe/watch/v1', 'devices': [{'key': KEY, 'processes': [{'pid': n, 'mem_bytes': n} for n in range(4190000, 4193000)]}]}))
        a.readings(2)
        assert d.answers() and overhead(d, 'a') == 0 and a.device()['state'] == 'ok'
        assert a.audit()['left_out'] > 2000
        since = d.last_event()
        probe.raw('rubbish')
        assert 'rubbish' in d.wait_event('alert', since)['text']
        probe.say()
        assert 'watched again' in d.wait_event('audit', since)['text']
        probe.raw('x' * (2 << 20))                                    # a line without an end
        wait_for(lambda: len(a.events('alert', since)) == 2, 'the alert')
        assert d.answers()


def test_crash_and_hang():
    """It is started again, later each time, and one that hangs is ended. One daemon, one process that watches."""
    with Audited() as (d, probe, a):
        assert probe.starts() == [[], ['--watch', '100']]
        for line, text in (('CRASH', 'signal 11'), ('END', 'ended with 3'), ('HANG', 'hangs')):
            a.readings(12)                                             # after so many good ones the first wait is a second again
            since, n, pid = d.last_event(), len(probe.starts()), probe.pid()
            probe.raw(line)
            e = d.wait_event('alert', since)
            assert text in e['text'], e
            wait_for(lambda p=pid: gone(p), 'its end')
            probe.say()
            assert 'watched again' in d.wait_event('audit', since)['text']
            assert len(probe.starts()) == n + 1
        assert 'penstock_watch_restarts_total 3' in d.request('GET', '/metrics')[1]
        pid = probe.pid()
        d.kill()                                                       # it notices by its standard input
        wait_for(lambda: gone(pid), 'its end')
        d.start()
        wait_for(a.audit, 'a reading')


def test_period():
    """The configured period is what it is started with, at once after a reload too."""
    with Audited() as (d, probe, a):
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write('audit: {period: 250ms}\n')
        d.request('POST', '/v1/config/reload')
        wait_for(lambda: probe.starts()[-1] == ['--watch', '250'], 'the new period')
        wait_for(a.audit, 'a reading')


def test_nothing_to_watch():
    probe = Probe(api='opencl')
    with Daemon('--probe', probe.path) as d:
        d.create('a')
        assert d.get('/v1/devices')['devices'][0]['audit'] is None and d.get('/v1/devices')['devices'][0]['mem_overhead_bytes'] == 0
        assert probe.starts() == [[]]
    subprocess.run(['rm', '-r', probe.dir], check=True)


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
