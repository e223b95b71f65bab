# SPDX-License-Identifier: Apache-2.0
"""The audit: what a vendor's library says of processes, against the ledgers."""
import json
import os
import re
import signal
import subprocess
import sys

import fake
from auditing import CAP, KEY, MB, MOST, OVERHEAD, Audited, Probe, attach, client, end, gone, orphan, overhead
from fake import Daemon, wait_for

# ---- overhead ---------------------------------------------------------------------------------------------------------


def test_overhead():
    """Learned, charged, shown apart; it follows neither one wrong reading nor a ledger that says more than there is."""
    with Audited() as (d, probe, a):
        c = attach(d, 'a', memory='600M')
        c.charge(100 * MB)
        probe.say((os.getpid(), 290))
        wait_for(lambda: overhead(d, 'a'), 'an overhead')
        assert overhead(d, 'a') == 192 and d.place('a')['mem_used_bytes'] == 100 * MB      # 190, in steps of 16
        assert d.place('a')['mem_device_bytes'] == 290 * MB and d.place('a')['clients'][0]['mem_device_bytes'] == 290 * MB
        assert (c.copy(CAP, '<Q'), c.copy(MOST, '<Q'), c.copy(OVERHEAD, '<Q')) == (408 * MB, 600 * MB, 192 * MB)
        assert d.place('a')['mem_limit_bytes'] == 600 * MB and a.device()['mem_overhead_bytes'] == 192 * MB
        assert 'penstock_memory_overhead_bytes{tenant="a"' in d.request('GET', '/metrics')[1]
        epoch = c.terms.u64(fake.EPOCH_AT)
        me = os.getpid()                                     # between two allocations of the tenant
        probe.once(*([(me, mib)] for mib in (700, 700, 292, 700, 280, 1, 290, 700, 700)))
        a.readings(2)
        assert overhead(d, 'a') == 192 and c.terms.u64(fake.EPOCH_AT) == epoch
        probe.say((os.getpid(), 50))                         # a ledger that is above it: managed memory that is not there
        wait_for(lambda: overhead(d, 'a') == 0, 'less')
        assert c.copy(CAP, '<Q') == 600 * MB
        probe.say((os.getpid(), 150))
        wait_for(lambda: overhead(d, 'a') == 64, 'more')
        c.ref(fake.DETACH)
        probe.say()
        wait_for(lambda: overhead(d, 'a') == 0, 'none without a process')


def test_estimate():
    """A process that has just come has a context before a reading shows it: what others had is charged until one does."""
    with Audited() as (d, probe, a):
        attach(d, 'a')
        probe.say((os.getpid(), 160))
        wait_for(lambda: overhead(d, 'a') == 160, 'an overhead')
        d.create('b')
        pid = client(d, 'b')
        seen = set()
        wait_for(lambda: seen.add(overhead(d, 'b')) or 0 in seen, 'the estimate to end: it has no context')
        assert 160 in seen, seen
        probe.say((os.getpid(), 160), (pid, 300))
        wait_for(lambda: overhead(d, 'b') == 304, 'what it has')
        fake.kill_child(pid)
        wait_for(lambda: overhead(d, 'b') == 0, 'none: its process is dead')


def test_estimate_is_bounded():
    """What one tenant takes unseen, or makes look so by its own ledger, keeps nobody else from what was promised."""
    with Audited('audit: {period: 100ms, allowance: 128M}\n') as (d, probe, a):
        attach(d, 'a', memory='400M')
        d.create('b', memory='400M')
        probe.say((os.getpid(), 700))
        wait_for(lambda: overhead(d, 'a') == 704, 'an overhead')
        pid = client(d, 'b')
        seen = set()
        wait_for(lambda: seen.add(overhead(d, 'b')) or (len(seen) > 1 and 0 in seen), 'the estimate to end')
        assert seen == {0, 128}, seen
        fake.kill_child(pid)


def test_full():
    """More than its limit leaves: nothing below zero, nothing more, and it is told once."""
    with Audited() as (d, probe, a):
        c = attach(d, 'a', memory='256M')
        c.charge(200 * MB)
        since = d.last_event()
        probe.say((os.getpid(), 600))
        e = d.wait_event('audit', since, 'a')
        assert 'above its limit of 256M' in e['text'] and '400M' in e['text'], e
        assert (c.copy(CAP, '<Q'), c.copy(MOST, '<Q')) == (0, 256 * MB)
        a.readings()
        assert len(a.events('audit', since)) == 1
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '500M'}})[0] == 409      # 600 are in use
        assert d.request('PATCH', '/v1/tenants/a', {'set': {'memory': '800M'}})[0] == 200
        assert c.copy(CAP, '<Q') == 400 * MB


def test_much():
    """More beside the ledger than processes are allowed is told: it may be a way around it. It is charged in any case."""
    with Audited('audit: {period: 100ms, allowance: 200M}\n') as (d, probe, a):
        attach(d, 'a')
        probe.say((os.getpid(), 190))
        wait_for(lambda: overhead(d, 'a'), 'an overhead')
        a.readings()
        assert not a.events('audit')
        probe.say((os.getpid(), 390))
        e = d.wait_event('audit', 0, 'a')
        assert '400M' in e['text'] and 'allowance' in e['text'] and overhead(d, 'a') == 400
        assert len(a.events('audit')) == 1


def test_lent():
    """What is lent is what is truly free: overheads and what no tenant has are taken off before."""
    with Audited() as (d, probe, a):
        kept = attach(d, 'kept', memory='300M..')
        d.create('b')
        probe.say((os.getpid(), 100), mem_used_bytes=150 * MB)
        wait_for(lambda: overhead(d, 'kept') == 112 and a.audit()['mem_outside_bytes'] == 64 * MB, 'the audit')
        free = 1000 - 64
        assert kept.copy(MOST, '<Q') == free * MB, kept.copy(MOST, '<Q') // MB
        pid = client(d, 'b')
        assert d.place('b')['mem_limit_bytes'] == (free - 300) * MB
        limits = kept.copy(CAP, '<Q') // MB + 112 + d.place('b')['mem_limit_bytes'] // MB
        assert kept.copy(CAP, '<Q') >= (300 - 112) * MB and limits <= 2 * free
        # a guarantee that only others' processes stand in the way of is not admitted, and says so
        probe.say((os.getpid(), 100), mem_used_bytes=750 * MB)
        wait_for(lambda: a.audit()['mem_outside_bytes'] == 656 * MB, 'more')
        status, e = d.create('late', memory='200M')
        assert status == 409 and "'(no tenant)' 656 MiB" in e['error']['message'], e
        fake.kill_child(pid)


# ---- whose process is it? ------------------------------------------------------------------------------------------------


def test_descendants():
    """A child of an attached process is its tenant's, and so is all that a watched process starts."""
    with Audited() as (d, probe, a):
        attach(d, 'a')
        child = subprocess.Popen(['sleep', '1000'])
        watched = subprocess.Popen(['sh', '-c', 'sleep 1000 & sleep 1000'], start_new_session=True)
        task = f'/proc/{watched.pid}/task/{watched.pid}/children'
        if not os.path.exists(task):
            print('   the kernel does not list children')
        grandchild = wait_for(lambda: [int(p) for p in open(task, encoding='ascii').read().split()], 'its children')[0]
        d.create('b', pid=watched.pid)
        pid = client(d, 'b')
        probe.say((os.getpid(), 50), (child.pid, 70), (grandchild, 90), (pid, 100))
        # this process is above all of them: the nearest one counts
        wait_for(lambda: overhead(d, 'b') == 192 and overhead(d, 'a') == 128, 'all of them')
        assert a.audit()['unknown_processes'] == 0
        fake.kill_child(pid)
        child.kill()
        child.wait()
        os.killpg(watched.pid, signal.SIGKILL)
        watched.wait()


def cgroup_folder():
    """A folder of the kernel's in which a control group can be made, or None."""
    for base in ('/sys/fs/cgroup', '/sys/fs/cgroup/pids', '/sys/fs/cgroup/unified'):
        path = f'{base}/penstock-test-{os.getpid()}'
        try:
            if os.path.exists(base + '/cgroup.procs'):
                os.mkdir(path)
                return path
        except OSError:
            pass
    return None


def enter(path):
    with open(path + '/cgroup.procs', 'w', encoding='ascii') as f:
        f.write(str(os.getpid()))


def test_container():
    """A process in the control group of one tenant's clients is that tenant's; of two tenants' it is nobody's."""
    group = cgroup_folder()
    if not group:
        print('   no control group can be made here')
        return
    with Audited() as (d, probe, a):
        try:
            members = []
            for name in 'ab':
                d.create(name)
                members.append(client(d, name, before=lambda: enter(group)))
                members.append(orphan('sleep', '1000', before=lambda: enter(group)))
                probe.say((members[-1], 96))
                if name == 'a':
                    wait_for(lambda: overhead(d, 'a') == 96, 'its container')
                    assert a.audit()['unknown_processes'] == 0
                else:
                    wait_for(lambda: a.audit()['unknown_processes'] == 1, 'nobody')
        finally:
            fake.kill_child(members[0])
            end(*members[1::2])
            for pid in members[2::2]:
                fake.kill_child(pid)
            wait_for(lambda: not open(group + '/cgroup.procs', encoding='ascii').read(), 'the group to be empty')
            os.rmdir(group)


def test_unknown():
    """Processes of no tenant: told once, listed, not lent; what is configured as known is neither told nor listed."""
    sleep = subprocess.run(['sh', '-c', 'command -v sleep'], capture_output=True, text=True, check=True).stdout.strip()
    pid = orphan('sleep', '1000')
    with Audited() as (d, probe, a):
        since = d.last_event()
        probe.say((pid, 100, {'sm_util': 30}))
        e = d.wait_event('audit', since)
        assert f'process {pid} (sleep) of user {os.getuid()}' in e['text'] and '100M' in e['text'], e
        v, = a.audit()['unknown']
        assert (v['pid'], v['comm'], v['mem_bytes'], v['sm_ppm'], v['sent']) == (pid, 'sleep', 100 * MB, 300000, None), v
        assert a.audit()['mem_unknown_bytes'] == 100 * MB and a.audit()['mem_outside_bytes'] == 112 * MB
        assert f'penstock_device_unknown_processes{{device="{KEY}"}} 1' in d.request('GET', '/metrics')[1]
        a.readings()
        assert len(a.events('audit', since)) == 1 and not gone(pid)
        with open(d.config, 'w', encoding='utf-8') as f:
            f.write(f'audit: {{period: 100ms, known: "/no/such:{sleep}"}}\n')
        assert d.request('POST', '/v1/config/reload')[0] == 200
        wait_for(lambda: a.audit()['unknown_processes'] == 0, 'it to be known')
        assert a.audit()['mem_outside_bytes'] == 112 * MB
        end(pid)
        probe.say()
        wait_for(lambda: a.audit()['mem_outside_bytes'] == 0, 'nothing')


def test_private():
    """A user's own daemon says nothing of other users' processes; it lends no memory of theirs either."""
    pid = orphan('sleep', '1000')
    probe = Probe()
    probe.say((pid, 100))
    d = Daemon('--probe', probe.path, config='audit: {period: 100ms}\n', private=True)
    d.create('a')
    wait_for(lambda: (d.get('/v1/devices')['devices'][0]['audit'] or {}).get('mem_outside_bytes'), 'a reading')
    assert not [e for e in d.get('/v1/events')['events'] if e['kind'] == 'audit']
    d.request('DELETE', '/v1/tenants/a')
    assert d.proc.wait(fake.BOUND) == 0
    d.close()
    end(pid)
    subprocess.run(['rm', '-r', probe.dir], check=True)


def may_stop():
    return os.getuid() == 0 and os.stat('/proc/self/ns/pid').st_ino == 0xEFFFFFFC


def test_stop():
    """Ended where that is configured: asked first, then made to; never what is above the daemon, nor a tenant's."""
    stubborn = orphan(sys.executable, '-c', 'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()')
    polite = orphan('sleep', '1000')
    with Audited('audit: {period: 100ms, unknown_processes: stop}\n') as (d, probe, a):
        with open(f'/proc/{stubborn}/status', encoding='ascii') as f:
            wait_for(lambda: f.seek(0) or 'SigIgn:\t0000000000000000' not in f.read(), 'it to ignore the signal')
        since = d.last_event()
        probe.say((1, 10), (d.proc.pid, 10), (os.getpid(), 10), (polite, 10), (stubborn, 10))
        if not may_stop():
            assert 'only reported' in d.wait_event('alert', since)['text']
            a.readings()
            assert not gone(polite)
            end(polite, stubborn)
            return
        wait_for(lambda: gone(polite), 'it to end')
        assert not gone(stubborn)
        wait_for(lambda: [v['sent'] for v in a.audit()['unknown'] if v['pid'] == stubborn] == ['SIGTERM'], 'to be shown')
        wait_for(lambda: gone(stubborn), 'it to be ended')
        said = [e['text'] for e in a.events('audit', since)]
        assert any(f'process {polite} ' in t and 'SIGTERM' in t for t in said) and any(f'process {stubborn} ' in t and 'SIGKILL' in t for t in said)
        assert any('process 1 ' in t and 'cannot be ended' in t for t in said), said
        assert d.answers()
        # one that is a tenant's by now is let alone
        attach(d, 'a')
        child = subprocess.Popen(['sleep', '1000'])
        probe.say((os.getpid(), 10), (child.pid, 10))
        a.readings(8)
        assert child.poll() is None
        child.kill()
        child.wait()


def test_reused_number():
    """A number that another process has now is another process."""
    with Audited() as (d, probe, a):
        probe.say((999999, 500))                          # of nobody: gone before it is looked at
        a.readings(2)
        assert a.audit()['processes'] == 0 and a.audit()['mem_unexplained_bytes'] == 500 * MB


def test_unexplained():
    """Memory that no process is named for: told when it is much, and not lent."""
    with Audited('audit: {period: 100ms, allowance: 100M}\n') as (d, probe, a):
        since = d.last_event()
        probe.say(mem_used_bytes=120 * MB)                # a driver's own, on a card of 1000M
        a.readings(8)
        assert not a.events('audit', since) and a.audit()['mem_outside_bytes'] == 128 * MB
        probe.say(mem_used_bytes=700 * MB)
        e = d.wait_event('audit', since)
        assert '700M' in e['text'] and 'no process' in e['text'], e


def test_not_told():
    """What the library does not tell is null, no sample, and no zero that somebody is charged by."""
    with Audited() as (d, probe, a):
        c = attach(d, 'a', memory='600M')
        c.charge(100 * MB)
        probe.say((os.getpid(), None))
        wait_for(lambda: a.audit()['processes'] == 1, 'it')
        a.readings()
        v = d.place('a')
        assert v['mem_overhead_bytes'] == 0 and v['mem_device_bytes'] is None and v['dec_ppm'] is None and not a.audit()['complete']
        assert 'penstock_decoder_ratio{' not in d.request('GET', '/metrics')[1]


def test_no_list():
    """A library that does not say which processes there are has not said that there are none."""
    with Audited() as (d, probe, a):
        attach(d, 'a')
        probe.say((os.getpid(), 100))
        wait_for(lambda: overhead(d, 'a') == 112, 'an overhead')
        probe.raw(json.dumps({'schema': 'penstock-probe/watch/v1', 'devices': [{'key': KEY, 'mem_used_bytes': 5, 'lost': False}]}))
        wait_for(lambda: a.audit()['mem_used_bytes'] == 5, 'a reading')
        a.readings(12)
        assert overhead(d, 'a') == 112 and a.audit()['processes'] == 1
        since = d.last_event()
        probe.raw(json.dumps({'schema': 'penstock-probe/watch/v1', 'error': 'driver not loaded', 'devices': []}))
        assert 'driver not loaded' in d.wait_event('alert', since)['text']
        wait_for(lambda: not a.audit()['watched'], 'it to be said')
        probe.say()
        d.wait_event('audit', since)
        assert a.audit()['watched']


def cli(d, *args, **env):
    r = subprocess.run([os.environ['PENSTOCK'], '--socket', d.sock, *args], capture_output=True, text=True, check=False, timeout=fake.BOUND,
                       env={**os.environ, 'LC_ALL': 'C', **env})
    return r.stdout + r.stderr


def test_commands():
    """ps, inspect, device and doctor show it, apart from what was allocated; and the summary of run adds it up."""
    stranger = orphan('sleep', '1000')
    with Audited() as (d, probe, a):
        c = attach(d, 'a', memory='600M')
        c.charge(100 * MB)
        probe.say((os.getpid(), 290, {'dec_util': 30}), (stranger, 96))
        wait_for(lambda: overhead(d, 'a') == 192 and a.audit()['unknown'], 'the audit')
        assert re.search(r'^a +normal +active +292M +192M +600M ', cli(d, 'ps'), re.M), cli(d, 'ps')
        text = cli(d, 'inspect', 'a')
        assert '192M for contexts' in text and '290M in all' in text and 'decoder 30%' in text and 'not gated' in text, text
        text = cli(d, 'device', 'ls')
        assert f'{KEY}: process {stranger} (sleep) belongs to no tenant, 96M' in text and ' cuda ' in text, text
        assert 'belongs to no tenant' not in cli(d, 'device', 'ls', '--no-headers')
        checks = json.loads(cli(d, 'doctor', '-o', 'json'))['checks']
        assert any(k['id'] == 'audit' and k['status'] == 'warning' and str(stranger) in k['text'] and 'audit.known' in k['mend'] for k in checks), checks
        end(stranger)
        probe.say((os.getpid(), 290))
        wait_for(lambda: not a.audit()['unknown'], 'its end')
        checks = json.loads(cli(d, 'doctor', '-o', 'json'))['checks']
        assert any(k['id'] == 'audit' and k['status'] == 'ok' for k in checks), checks
        probe.say(lost=True)
        wait_for(lambda: a.device()['state'] == 'lost', 'the state')
        said = cli(d, 'events')                           # each of them says which device
        assert f'{KEY} is lost: ' in said and all(KEY in line for line in said.splitlines() if re.search(' (audit|device|device-lost) ', line)), said
        assert ' lost ' in cli(d, 'device', 'ls') and any(k['status'] == 'bad' and 'is lost' in k['text']
                                                          for k in json.loads(cli(d, 'doctor', '-o', 'json'))['checks'])


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
