#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The file that names contracts to container engines, and the directories that they mount."""
import json
import os
import re
import stat
import sys
import tempfile
import threading

from fake import Client, Daemon, run, wait_for

MEMORY = '/dev/shm'     # a file system in memory, as /run is


class Node(Daemon):
    """A daemon with a CDI directory. `on`: where that lies."""

    def __init__(self, *args, on=MEMORY, **kw):
        self.above = tempfile.mkdtemp(prefix='pd-cdi-', dir=on)
        self.cdi = self.above + '/cdi'
        super().__init__(*args, config=f'cdi:\n  directory: {self.cdi}\n', **kw)

    def spec(self):
        with open(self.cdi + '/penstock.json', encoding='utf-8') as f:
            return json.load(f)

    def listed(self):
        return [d['name'] for d in self.spec()['devices']]

    def __exit__(self, *what):
        try:
            return super().__exit__(*what)
        finally:
            os.system(f"rm -rf '{self.above}'")


def test_listed_when_it_is_answered():
    """A script starts its container with the name at once: it is in the file before `alloc` has its answer."""
    with Node() as node:
        for i in range(100):
            assert node.create(f't{i}')[0] == 201
            assert f't{i}' in node.listed(), i
        for i in range(100):
            assert node.request('DELETE', f'/v1/tenants/t{i}')[0] == 200
            assert f't{i}' not in node.listed(), i


def test_on_a_disk():
    """There it is written by a helper thread, soon."""
    with Node(on='/var/tmp') as node:
        node.create('cam')
        wait_for(lambda: os.path.exists(node.cdi) and node.listed() == ['cam'], 'the contract to be listed')
        with open(node.config, 'w', encoding='utf-8') as f:
            f.write(f'cdi:\n  directory: {node.above}/other\n')
        assert node.request('POST', '/v1/config/reload')[0] == 200
        wait_for(lambda: os.path.exists(node.above + '/other/penstock.json') and not os.path.exists(node.cdi + '/penstock.json'),
                 'it to be in the other directory and no longer in this one')


def test_name_of_no_device():
    """A contract's name may end in a sign, a device's may not: engines drop a file with one such name, all of it."""
    with Node() as node:
        since = node.last_event()
        for name in ('cam', 'a-', 'b.', 'c_', '9', '1-2..3'):
            assert node.create(name)[0] == 201, name
        assert node.listed() == ['1-2..3', '9', 'cam'], node.spec()
        event = node.wait_event('alert', since)
        assert "'a-' is not listed" in event['text'], event
        for name in node.listed():
            assert re.fullmatch('[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?', name)
        # The lowest version that has what is used: of 0.3.0 a name does not begin with a digit.
        assert node.spec()['cdiVersion'] == '0.5.0'
        for name in ('9', '1-2..3'):
            node.request('DELETE', '/v1/tenants/' + name)
        assert node.spec()['cdiVersion'] == '0.3.0'


def test_nobody_sees_half_of_it():
    with Node() as node:
        node.create('first')
        over, seen = threading.Event(), []

        def read():
            while not over.is_set():
                seen.append(len(node.spec()['devices']))
        t = threading.Thread(target=read)
        t.start()
        for i in range(150):
            assert node.create(f't{i}')[0] == 201
        over.set()
        t.join()
        assert len(seen) > 10 and seen == sorted(seen) and seen[0] >= 1, seen
        assert len(node.listed()) == 151


def test_planted():
    """Links and leftovers in the directory: nothing outside of it is written, and the file is ours in the end."""
    with Node() as node:
        node.create('cam')
        assert node.listed() == ['cam']
        victim = node.above + '/victim'
        with open(victim, 'w', encoding='utf-8') as f:
            f.write('as it was')
        for name in ('penstock.json', '.penstock.tmp'):
            path = f'{node.cdi}/{name}'
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink(victim, path)
        node.create('batch')
        assert node.listed() == ['batch', 'cam'] and not os.path.islink(node.cdi + '/penstock.json')
        with open(victim, encoding='utf-8') as f:
            assert f.read() == 'as it was'
        assert os.listdir(node.cdi) == ['penstock.json']


def test_directory_comes_back():
    """Somebody empties the directory, or there is a file in its place: told once, and mended as soon as it can be."""
    with Node() as node:
        node.create('cam')
        os.unlink(node.cdi + '/penstock.json')
        assert node.request('POST', '/v1/config/reload')[0] == 200
        assert node.listed() == ['cam']
        since = node.last_event()
        os.unlink(node.cdi + '/penstock.json')
        os.rmdir(node.cdi)
        with open(node.cdi, 'w', encoding='utf-8'):
            pass
        for i in range(3):
            assert node.create(f't{i}')[0] == 201
        alerts = [e for e in node.get(f'/v1/events?since={since}')['events'] if e['kind'] == 'alert']
        assert len(alerts) == 1 and 'Not a directory' in alerts[0]['text'], alerts
        assert node.get('/v1/integrations')['integrations']['cdi'] == {'directory': node.cdi, 'devices': 4, 'failed': True}
        os.unlink(node.cdi)
        node.request('DELETE', '/v1/tenants/t0')     # or else in a few seconds
        assert node.listed() == ['cam', 't1', 't2']
        assert node.get('/v1/integrations')['integrations']['cdi']['failed'] is False


def test_what_was_left_behind():
    """Of contracts that are gone, after a kill: the file is made anew at the start."""
    with Node() as node:
        node.create('cam')
        node.kill()
        with open(node.cdi + '/penstock.json', 'w', encoding='utf-8') as f:
            f.write('{"cdiVersion": "0.3.0", "kind": "penstock.io/tenant", "devices": [{"name": "gone"')
        node.start()
        wait_for(lambda: node.listed() == ['cam'], 'the file to be whole again')


def test_left_alone_until_devices_are_known():
    """After a restart the file of before is right, and one that is made while devices are looked for would have no nodes."""
    above = tempfile.mkdtemp(prefix='pd-probe-')
    try:
        with open(above + '/probe', 'w', encoding='utf-8') as f:
            f.write(f"#!/bin/sh\nuntil [ -e {above}/go ]; do sleep 0.02; done\necho '{{\"devices\": [], \"backends\": []}}'\n")
        os.chmod(above + '/probe', stat.S_IRWXU)
        with open(above + '/go', 'w', encoding='utf-8'):
            pass
        with Node('--probe', above + '/probe') as node:
            assert node.create('cam')[0] == 201 and node.listed() == ['cam']
            assert node.stop() == 0
            os.unlink(above + '/go')
            with open(node.cdi + '/penstock.json', 'w', encoding='utf-8') as f:
                f.write('{"devices": [{"name": "as-it-was"}]}')
            node.start()
            assert node.get('/v1/version')['probing'] and node.listed() == ['as-it-was']
            assert node.request('POST', '/v1/config/reload')[0] == 200 and node.listed() == ['as-it-was']
            with open(above + '/go', 'w', encoding='utf-8'):
                pass
            wait_for(lambda: node.listed() == ['cam'], 'the file to be made')
    finally:
        os.system(f"rm -rf '{above}'")


def test_whatever_the_umask():
    """Started by hand from a careful shell: a container's user reaches his token all the same, and others nothing more than before."""
    old = os.umask(0o077)
    try:
        with Node() as node:
            node.create('cam')
            seat = node.tenant('cam')['mount_dir']
            modes = {path: stat.S_IMODE(os.lstat(path).st_mode) for path in
                     (node.run, node.run + '/tenants', node.run + '/tenants/cam', node.run + '/tenants/cam/token', os.path.dirname(seat), seat,
                      seat + '/token', seat + '/attach.sock', node.cdi, node.cdi + '/penstock.json')}
            assert list(modes.values()) == [0o755, 0o755, 0o700, 0o400, 0o700, 0o755, 0o444, 0o666, 0o755, 0o644], modes
    finally:
        os.umask(old)


def test_processes_are_no_news():
    """Those that come and go do not have the file made anew: with many contracts all would wait for it each time."""
    with Node() as node:
        node.create('t0', memory='1M')
        seat = node.tenant('t0')['mount_dir']

        def used():
            with open(f'/proc/{node.proc.pid}/task/{node.proc.pid}/schedstat', encoding='ascii') as f:
                return int(f.read().split()[0])

        def cost():
            before = used()
            for _ in range(60):
                c = Client(seat)
                assert c.greet() == 0
                c.s.close()
            node.get('/v1/version')
            return used() - before
        cost()
        alone = cost()
        for i in range(1, 300):
            assert node.create(f't{i}', memory='1M')[0] == 201
        wait_for(lambda: len(node.listed()) == 300, 'all to be listed')
        among_many = min(cost() for _ in range(3))
        assert among_many < 4 * alone, (alone, among_many)


def test_same_name_again_and_again():
    """A name that is ended and given again: the seat is the new contract's, the old token is not."""
    with Node() as node:
        tokens = set()
        for _ in range(20):
            assert node.create('cam')[0] == 201
            seat = node.tenant('cam')['mount_dir']
            assert seat in str(node.spec())
            c = Client(seat)
            for old in tokens:
                assert Client(seat).greet(old) < 0
            assert c.greet() == 0
            tokens.add(c.token())
            since = node.last_event()
            node.request('DELETE', '/v1/tenants/cam')
            assert not os.path.exists(seat)
            c.s.close()
            wait_for(lambda: node.tenant('cam') is None, 'it to be forgotten')
            assert node.listed() == []
            node.wait_event('client-gone', since)
        assert len(tokens) == 20


if __name__ == '__main__':
    if os.geteuid() != 0:
        print('skipped: not root')
        sys.exit(77)
    run(sys.modules[__name__])
