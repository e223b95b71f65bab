#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line as a person meets it: options that have an effect or are refused, and what is said in reply."""
import fcntl
import json
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'daemon'))
from auditing import Audited, Probe, attach, overhead                                             # noqa: E402  pylint: disable=wrong-import-position
from fake import BOUND, CLIENT_AT, CLIENT_BYTES, Client, Daemon, run, wait_for                     # noqa: E402  pylint: disable=wrong-import-position

PENSTOCK = os.environ['PENSTOCK']
OPTIONS = ('-o json', '-o wide', '-o name', '--no-headers', '-q')
ARGUMENTS = {'inspect': ['a'], 'why': ['a'], 'usage': ['a'], 'end': ['a'], 'set': ['a', '--priority', '50'], 'device': ['ls'],
             'config': ['reload'], 'completion': ['bash'], 'run': ['--', 'true']}


def cli(node, *args, **env):
    return subprocess.run([PENSTOCK, *args], env={**os.environ, 'LC_ALL': 'C', 'PENSTOCK_SOCKET': node.sock, **env}, text=True,
                          capture_output=True, timeout=BOUND, stdin=subprocess.DEVNULL, check=False)


def test_every_option_is_heeded_or_refused():
    """What a command's help does not list it refuses, before and after its name; the rest it takes."""
    with Daemon() as node:
        names = re.findall(r'^  ([a-z]+) {2,}\S', cli(node, '--help').stdout.split('Commands:')[1].split('Options')[0], re.M)
        assert len(names) > 10, names
        for name in names:
            listed = cli(node, name, '--help').stdout
            for option in OPTIONS:
                node.create('a')
                words, has = option.split(), re.search(rf'^  {option}\b', listed, re.M) is not None
                for args in ([name, *words, *ARGUMENTS.get(name, [])], [*words, name, *ARGUMENTS.get(name, [])]):
                    r = cli(node, *args)
                    assert ('has no option' in r.stderr) != has, (args, r)
                    assert has or r.returncode == (125 if name == 'run' else 2), (args, r)
                    assert not has or r.returncode in (0, 1) or name == 'end', (args, r)     # doctor may find something


def test_nothing_is_ignored():
    with Daemon() as node:
        for args in (('version', 'x'), ('doctor', 'x'), ('top', 'x'), ('config', 'check', '/a', '/b'), ('config', 'reload', '/a'),
                     ('config', 'show', '-o', 'json'), ('device', 'ls', 'x'), ('why', 'a', 'b')):
            r = cli(node, *args)
            assert r.returncode == 2 and not r.stdout, (args, r)
        r = cli(node, 'run', '--memory', '1G', '--contract', '/nowhere', '--', 'true')
        assert r.returncode == 125 and '--contract must stand before' in r.stderr, r


def test_init():
    """A proposal that the parser takes, written to a new file only."""
    with Daemon() as node:
        path = os.path.join(node.dir, 'etc', 'penstock.yaml')
        shown = cli(node, 'init')
        assert shown.returncode == 0 and 'policy:' in shown.stdout, shown
        r = cli(node, 'init', '--write', path)
        assert r.returncode == 0 and path in r.stdout, r
        with open(path, encoding='utf-8') as f:
            assert f.read() == shown.stdout
        assert cli(node, 'config', 'check', path).returncode == 0
        with open(path, 'a', encoding='utf-8') as f:
            f.write('# mine\n')
        r = cli(node, 'init', '--write', path)
        assert r.returncode == 1 and 'there already' in r.stderr, r
        with open(path, encoding='utf-8') as f:
            assert f.read().endswith('# mine\n')
        assert os.listdir(os.path.dirname(path)) == ['penstock.yaml']
        assert cli(node, 'init', path).returncode == 2


def test_check_contract():
    """`config check` of a contract reads it as one, and says what is wrong with it by line and field."""
    with Daemon() as node:
        path = os.path.join(node.dir, 'camera.yaml')
        for text, code, words in (('# a camera\nname: camera\nclass: latency\nsla: 20ms\n', 0, ('in order', 'a contract')),
                                  ('name: camera\nmemory: 1G\nmemroy: 2G\n', 1, ('camera.yaml:3', 'memroy')),
                                  ('tick: 5ms\n', 0, ('0 contracts',)), ('tock: 5ms\n', 1, ('camera.yaml:1', 'tock'))):
            with open(path, 'w', encoding='ascii') as f:
                f.write(text)
            r = cli(node, 'config', 'check', path)
            assert r.returncode == code and all(w in r.stdout + r.stderr for w in words), (text, r)
        with open(path, 'w', encoding='ascii') as f:
            f.write('name: camera\ncompute: 30%\n')
        shown = cli(node, 'config', 'show', path).stdout
        assert 'compute: 30%' in shown and 'name: camera' in shown, shown


def test_standing_contract():
    """`run --name` of a contract that the configuration holds runs under it, and leaves it in place."""
    with Daemon(config='contracts:\n  - name: cam\n    compute: 60%\n') as node:
        where = wait_for(lambda: node.tenant('cam'), 'the contract')['dir']
        show = ('--', 'sh', '-c', 'echo "$PENSTOCK_TENANT"; exit 7')
        for _ in range(2):
            r = cli(node, 'run', '--name', 'cam', *show)
            assert (r.returncode, r.stdout) == (7, where + '\n') and 'standing contract cam' in r.stderr, r
        assert node.tenant('cam')['state'] == 'idle'
        # not with fields of its own, nor that of another run
        r = cli(node, 'run', '--name', 'cam', '--memory', '1G', *show)
        assert r.returncode == 125 and "'cam' exists already" in r.stderr, r
        node.create('busy', pid=os.getpid(), ephemeral=True)
        r = cli(node, 'run', '--name', 'busy', *show)
        assert r.returncode == 125 and "'busy' exists already" in r.stderr, r
        os.chmod(where, 0o700)
        os.rename(where + '/token', where + '/away')
        r = cli(node, 'run', '--name', 'cam', *show)
        assert r.returncode == 125 and "contract 'cam' is not yours" in r.stderr, r
        os.rename(where + '/away', where + '/token')


def test_set_says_from_when():
    with Daemon() as node:
        node.create('a')
        r = cli(node, 'set', 'a', '--units', '..2', '--priority', '7')
        assert r.returncode == 0 and 'from now on' in r.stdout, r
        for args in (('--priority', '8'), ('-q', '--units', '..3'), ('-o', 'json', '--units', '..4')):
            r = cli(node, 'set', 'a', *args)
            assert r.returncode == 0 and 'from now on' not in r.stdout, r
        assert node.tenant('a')['contract']['units'] == '..4'


def test_unknown_size():
    """No figure is shown for what is not known."""
    with Daemon() as node:
        Client(node.create('a')[1]['dir']).attach(mem=0)
        assert re.search(r'^\S+ +test model +test +unprobed +exclusive +- ', cli(node, 'device', 'ls').stdout, re.M), cli(node, 'device', 'ls')
        assert re.search(r'^a +normal +active +0B +- ', cli(node, 'ps').stdout, re.M), cli(node, 'ps')


def on_terminal(node, columns, *args, **env):
    """What a command prints on a terminal that is so wide."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    subprocess.run([PENSTOCK, *args], env={**os.environ, 'LC_ALL': 'C.UTF-8', 'PENSTOCK_SOCKET': node.sock, **env}, stdin=slave, stdout=slave,
                   stderr=slave, timeout=BOUND, check=False)
    os.close(slave)
    text = b''
    while True:
        try:
            text += os.read(master, 65536)
        except OSError:     # the other end is closed
            break
    os.close(master)
    return text.decode().replace('\r', '')


def test_tables_fit_the_terminal():
    with Daemon() as node:
        Client(node.create('camera-at-the-gate', memory='..512M')[1]['dir']).attach()
        for args in (('device', 'ls'), ('ps',)):
            whole = cli(node, *args).stdout
            assert max(map(len, whole.splitlines())) > 90, whole
            for columns in (60, 80) if args[0] == 'ps' else (40, 60, 80):
                lines = on_terminal(node, columns, *args).splitlines()
                assert len(lines) == 2 and max(map(len, lines)) <= columns, (columns, lines)
            assert on_terminal(node, 80, *args, '-o', 'wide') == cli(node, *args, '-o', 'wide').stdout
        head = on_terminal(node, 80, 'device', 'ls').split('\n', maxsplit=1)[0].split()
        assert 'STATE' in head and 'MEMORY' in head and 'MODE' not in head, head


def test_a_named_socket():
    """Where somebody named a socket no daemon is started unless he says so; on the user's own one it is."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        path = os.path.join(folder, 'typo', 'penstock.sock')
        env = {k: v for k, v in os.environ.items() if k != 'PENSTOCK_SOCKET'}
        env.update(LC_ALL='C', XDG_RUNTIME_DIR=folder)

        def penstock(*args, **more):
            return subprocess.run([PENSTOCK, *args], env={**env, **more}, text=True, capture_output=True, timeout=BOUND, check=False)

        for args, more, who in ((('--socket', path, 'run', 'true'), {}, '--socket'), (('run', 'true'), {'PENSTOCK_SOCKET': path}, 'PENSTOCK_SOCKET')):
            r = penstock(*args, **more)
            assert r.returncode == 125 and f'no daemon answers on {path}, which {who} names; --start' in r.stderr, r
            assert not os.path.exists(os.path.dirname(path))
        r = penstock('ps', PENSTOCK_SOCKET=path)
        assert r.returncode == 3 and 'which PENSTOCK_SOCKET names' in r.stderr and 'systemctl' not in r.stderr, r
        checks = {c['id']: c for c in json.loads(penstock('doctor', '-o', 'json', PENSTOCK_SOCKET=path).stdout)['checks']}
        assert checks['daemon']['status'] == 'warning' and 'which PENSTOCK_SOCKET names' in checks['daemon']['text'], checks['daemon']
        assert penstock('run', '-q', '--start', 'sh', '-c', 'exit 7', PENSTOCK_SOCKET=path).returncode == 7
        assert penstock('run', '-q', 'sh', '-c', 'exit 7', PENSTOCK_SOCKET=folder + '/penstock/penstock.sock').returncode == 7


def test_no_summary_of_nothing():
    with Daemon() as node:
        r = cli(node, 'run', '--', 'no-such-program')
        assert r.returncode == 127 and r.stderr == 'penstock run: no-such-program: No such file or directory\n', r


def test_run_says_that_its_contract_was_ended():
    with Daemon() as node:
        for again in (False, True):      # also if another one has the name since
            p = subprocess.Popen([PENSTOCK, 'run', '-q', '--name', 'a', '--', 'sh', '-c', 'echo; read line; exit 5'], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'LC_ALL': 'C', 'PENSTOCK_SOCKET': node.sock})
            p.stdout.readline()
            node.request('DELETE', '/v1/tenants/a')
            if again:
                node.create('a')
            _, said = p.communicate('\n', timeout=BOUND)
            assert p.returncode == 5 and 'contract a was ended while the program ran' in said, said
            assert (node.tenant('a') is not None) == again


def test_end():
    """A contract that programs have is ended by force alone, and what it ended is said."""
    with Daemon() as node:
        for name in ('a', 'b'):
            node.create(name)
        c = Client(node.tenant('a')['dir']).attach()
        r = cli(node, 'end', 'a', 'b')
        assert r.returncode == 4 and f'is in use by {os.getpid()} (' in r.stderr and '--force' in r.stderr, r
        assert r.stdout == 'b is ended\n' and node.tenant('b') is None and node.tenant('a')['state'] == 'active', r
        status, e = node.request('DELETE', '/v1/tenants/a?unused=1')
        assert (status, e['error']['code'], e['processes'][0]['pid']) == (409, 'in-use', os.getpid()), e
        r = cli(node, 'end', '--force', 'a')
        assert r.returncode == 0 and f'the next calls of these fail: {os.getpid()} (' in r.stdout, r
        assert node.tenant('a')['state'] == 'ended'
        c.close()
        node.create('run', pid=os.getpid(), ephemeral=True)     # its program may attach yet
        r = cli(node, 'end', 'run')
        assert r.returncode == 4 and f'is in use by {os.getpid()} (' in r.stderr, r
        node.create('cam')
        r = cli(node, 'end', '-q', 'cam', 'cam')
        assert (r.returncode, r.stdout, r.stderr) == (0, '', ''), r


def test_a_number_without_its_unit():
    with Daemon() as node:
        for option, value, meant in (('compute', '30', '30%'), ('compute', '10..30', '10..30%'), ('duty', '40', '40%'), ('memory', '4', '4G'),
                                     ('memory', '..4', '..4G'), ('memory', '8192', '8192M'), ('memory', '2..', '2G..'), ('sla', '20', '20ms'),
                                     ('memory', '1GB', '1G'), ('memory', '512mb..1GB', '512m..1G'), ('compute', '0.3', '30%'), ('duty', '0.5', '50%'),
                                     ('compute', '0.1..0.25', '10..25%'), ('compute', '..0.3', '..30%'), ('compute', '0.3..', '30%..')):
            r = cli(node, 'run', f'--{option}', value, '--', 'true')
            assert r.returncode == 125 and f"is '{meant}' meant?" in r.stderr, (value, r)
        Client(node.create('half', compute='50%')[1]['dir']).attach()
        r = cli(node, 'run', '--class', 'latency', '--duty', '60%', '--', 'true')
        assert r.returncode == 125 and 'duty: 60% cannot' in r.stderr, r       # the field that was typed
        r = cli(node, 'run', '--class', 'latency', '--duty', '20%', '--compute', '60%', '--', 'true')
        assert r.returncode == 125 and 'compute: 60% cannot' in r.stderr, r
        r = cli(node, 'run', '--compute', '30x', '--', 'true')
        assert r.returncode == 125 and 'meant' not in r.stderr, r
        for value in ('8192B', '1048576'):
            node.create('a', memory=value)
            assert node.tenant('a')['contract']['memory'] in ('8K', '1M')
            node.request('DELETE', '/v1/tenants/a')


def test_names_that_are_not_there():
    with Daemon() as node:
        node.create('camera')
        for args in (('ps', 'camra'), ('end', 'camra', 'camra'), ('why', 'camra'), ('inspect', 'cam'), ('usage', 'camra'),
                     ('set', 'camra', '--priority', '3'), ('ps', '-o', 'json', 'camra')):
            r = cli(node, *args)
            assert r.returncode == 5 and r.stdout == '' and r.stderr.count('\n') == 1 and "there is 'camera'" in r.stderr, (args, r)
        r = cli(node, 'ps', 'camera', 'zz')
        assert r.returncode == 5 and 'camera' in r.stdout and "no tenant 'zz'; 'penstock ps' lists" in r.stderr, r


def test_limits_before_a_process():
    """`ps` shows what a contract says also while nobody has attached."""
    with Daemon() as node:
        for name, memory, shown in (('a', '1G', '1G'), ('b', '..2G', '2G'), ('c', '1G..3G', '3G'), ('d', '1G..', '-'), ('e', 'unlimited', '-')):
            node.create(name, memory=memory)
            row = dict(zip(*(line.split() for line in cli(node, 'ps', name).stdout.splitlines())))
            assert row['LIMIT'] == shown, (name, row)


def test_alloc_of_nothing():
    with Daemon() as node:
        assert cli(node, 'alloc', '--format', 'cdi', '--name', 'again', '--memory', '1G').returncode == 0
        r = cli(node, 'alloc', '--format', 'cdi', '--name', 'again', '--memory', '1G')
        assert r.returncode == 4 and "'again' exists already" in r.stderr and "'penstock end again' ends it" in r.stderr, r
        for args, says in ((('--name', 'a'), True), (('--name', 'b', '--memory', '..1G'), False), (('-q', '--name', 'c'), False)):
            r = cli(node, 'alloc', '--format', 'cdi', *args)
            assert r.returncode == 0 and ('limits and guarantees nothing' in r.stderr) == says, r


def two_cards(probe, *models):
    probe.put('devices', json.dumps({'devices': [{'api': api, 'key': f'pci:0000:0{i}:00.0', 'model': model, 'mem_bytes': 1 << 30, 'units': 4}
                                                 for i, (api, model) in enumerate(models)], 'backends': []}))


def test_part_of_a_name():
    """--device takes whole words of a model or key that are one device's; nobody drains a card by a letter of it."""
    probe = Probe(api='opencl')
    two_cards(probe, ('cuda', 'Tesla T4'), ('cuda', 'Tesla T4'), ('opencl', 'NVIDIA A30'))
    with Daemon('--probe', probe.path) as node:
        wait_for(lambda: len(node.get('/v1/devices')['devices']) == 3, 'devices')
        for name, device in (('t4', 'Tesla T4'), ('a30', 'NVIDIA A30'), ('02:00', 'pci:0000:02:00.0'), ('nvidia a30', 'nvidia a30')):
            status, t = node.create('x', device=name)
            assert status == 201 and t['contract']['device'] == device, (name, t)
            node.request('DELETE', '/v1/tenants/x')
        for name, words in (('pci:', ("'pci:0000:00:00.0' (Tesla T4)", "'pci:0000:02:00.0' (NVIDIA A30)")), (':00.0', ("'pci:0000:01:00.0'",))):
            r = cli(node, 'run', '--device', name, '--', 'true')
            assert r.returncode == 125 and all(w in r.stderr for w in (*words, 'say which one')), r
        r = cli(node, 'run', '--device', 'H100', '--', 'true')
        assert r.returncode == 125 and "'H100' is not known here" in r.stderr, r
        for name in ('3', 'A', '30', 'NVID', '2:0'):
            r = cli(node, 'device', 'drain', name)
            assert r.returncode == 5 and f"there is no '{name}'" in r.stderr, (name, r)
        r = cli(node, 'device', 'drain', 'a30')
        assert r.returncode == 0 and r.stdout == 'pci:0000:02:00.0 is drained, and nobody is on it\n', r
        assert [d['state'] for d in node.get('/v1/devices')['devices']] == ['ok', 'ok', 'drained']
    subprocess.run(['rm', '-r', probe.dir], check=True)


def test_promised_another_device():
    """A program that used none is told which one it was promised, if there is another."""
    probe = Probe(api='opencl')
    two_cards(probe, ('cuda', 'Tesla T4'), ('opencl', 'NVIDIA A30'), ('cuda', 'H100'))
    with Daemon('--probe', probe.path) as node:
        wait_for(lambda: len(node.get('/v1/devices')['devices']) == 3, 'devices')
        r = cli(node, 'run', '--name', 'a', '--device', 'T4', '--', 'true')
        assert 'H100' not in r.stderr, r     # whoever cannot use the one cannot use the other
        assert 'it was promised pci:0000:00:00.0 (cuda)' in r.stderr and "NVIDIA A30 (opencl); for that: --device 'pci:0000:01:00.0'" in r.stderr, r
        r = cli(node, 'run', '--name', 'a', '--', 'true')
        assert r.stderr == 'penstock: a used no device\n', r
        assert cli(node, 'device', 'drain', 'A30').returncode == 0
        r = cli(node, 'run', '--name', 'a', '--device', 'T4', '--', 'true')
        assert r.stderr == 'penstock: a used no device\n', r     # nor is one that nobody may use named
    subprocess.run(['rm', '-r', probe.dir], check=True)


def test_why_adds_up():
    """Holds that come and go are seen by what they add up to."""
    with Daemon() as node:
        c = Client(node.create('a')[1]['dir']).attach()
        at, done = CLIENT_AT + CLIENT_BYTES * c.client, threading.Event()

        def hold():
            while not done.wait(0.001):
                c.ledger.put64(at + 104 + 8 * 3, c.ledger.u64(at + 104 + 8 * 3) + 500000)     # held_ns[rank]
        thread = threading.Thread(target=hold)
        thread.start()
        r = cli(node, 'why', '--for', '300ms', 'a')
        done.set()
        thread.join()
        assert re.match(r"a on \S+: held for \d+ms of 3\d\dms \(\d+ %\): a more urgent tenant", r.stdout), r
        r = cli(node, 'why', '--for', '50ms', 'a')
        assert 'nothing was held for' in r.stdout, r
        c.ledger.put32(at + 176, 4)
        r = cli(node, 'why', '--for=0s', 'a')
        assert r.stdout.startswith(f'a, pid {os.getpid()} on ') and 'penstock set a' in r.stdout, r
        w = json.loads(cli(node, 'why', '--for', '50ms', '-o', 'json', 'a').stdout)
        assert w['window_ns'] >= 50000000 and w['holds'][0]['reason'] == 'rank', w
        for bad in ('soon', '2h', '-1s'):
            assert cli(node, 'why', '--for', bad, 'a').returncode == 2


def test_why_of_nobody():
    with Daemon() as node:
        node.create('a')
        for flag in ('0s', '50ms'):
            r = cli(node, 'why', '--for', flag, 'a')
            assert r.stdout == 'a: no program uses this contract\n', r
        Client(node.tenant('a')['dir']).attach()
        assert 'nothing was held for' in cli(node, 'why', '--for', '50ms', 'a').stdout


def test_target_without_its_class():
    with Daemon() as node:
        for args, says in ((('--sla', '20ms'), True), (('--sla', '20ms', '--class', 'latency', '--duty', '30%'), False), (('--class', 'normal'), False)):
            r = cli(node, 'run', *args, '--', 'true')
            assert r.returncode == 0 and ('--class latency lets' in r.stderr) == says, r
            r = cli(node, 'alloc', '--format', 'cdi', *args)
            assert r.returncode == 0 and ('--class latency lets' in r.stderr) == says, r


def test_who_may_change_things():
    """Who may not is told which group may, and how to come into it."""
    if os.getuid() != 0:
        print('   not root: nobody else to be')
        return
    for config, words in (('group: users\n', ('group users', "'usermod -aG users USER'")), ('group: none\n', ("'group' in its configuration",))):
        with Daemon(config=config) as node:
            os.chmod(node.dir, 0o755)
            for lang in ('en', 'zh_CN'):
                r = subprocess.run([PENSTOCK, 'run', '--', 'true'], env={**os.environ, 'PENSTOCK_SOCKET': node.sock, 'PENSTOCK_LANG': lang}, text=True,
                                   capture_output=True, timeout=BOUND, check=False, user=65534, group=65534, extra_groups=[])
                assert r.returncode == 125 and is_chinese(r.stderr) == (lang != 'en'), r
                assert all(w in r.stderr for w in words) or lang != 'en', r
                assert 'usermod -aG users' in r.stderr or 'none' in config, r


def test_top_without_a_daemon():
    """What it says comes after the picture has gone, and is all there."""
    with tempfile.TemporaryDirectory() as folder:
        said = on_terminal(types.SimpleNamespace(sock=folder + '/sock'), 80, 'top', TERM='xterm')
        assert said.endswith(f'penstock top: no daemon answers on {folder}/sock, which PENSTOCK_SOCKET names\n'), said


def test_memory_is_one_thing():
    """In `ps` and `top`, wide or narrow: what counts against the limit, contexts with it."""
    with Audited() as (node, probe, card):
        c = attach(node, 'a', memory='..900M')
        c.charge(200 << 20)
        probe.say((os.getpid(), 300))
        wait_for(lambda: overhead(node, 'a'), 'the audit to see it')
        sizes = {str(200 + overhead(node, 'a')) + 'M'}
        for columns in (60, 80, 200):
            head, row = (line.split() for line in on_terminal(node, columns, 'ps').splitlines())
            assert {row[head.index('MEMORY')]} == sizes, (head, row)
            assert 'OVERHEAD' in head or columns < 200, head


def test_top():
    """A line a tenant, whatever the width, with its columns under their heads; in Chinese as well."""
    if not shutil.which('tmux'):
        print('   tmux is not installed')
        return
    with Daemon() as node, tempfile.TemporaryDirectory() as folder:
        for name, fields in (('camera-at-the-gate', {'class': 'latency', 'sla': '20ms', 'memory': '..512M'}), ('b', {})):
            c = Client(node.create(name, **fields)[1]['dir']).attach()
            c.charge(200 << 20)

        def tmux(*args):
            return subprocess.run(['tmux', '-S', folder + '/s', '-f', '/dev/null', *args], text=True, capture_output=True, timeout=BOUND, check=True,
                                  env={**os.environ, 'LC_ALL': 'C.UTF-8', 'PENSTOCK_SOCKET': node.sock, 'TERM': 'xterm'}).stdout
        try:
            for width, lang in ((60, 'en'), (80, 'en'), (80, 'zh_CN'), (120, 'zh_CN')):
                tmux('new-session', '-d', '-s', 't', '-x', str(width), '-y', '24', f'PENSTOCK_LANG={lang} exec {PENSTOCK} top')
                wait_for(lambda: 'camera-at-the-gate' in tmux('capture-pane', '-t', 't', '-p'), 'the picture')
                lines = tmux('capture-pane', '-t', 't', '-p').rstrip().split('\n')
                assert len(lines) == 4 and is_chinese(lines[0]) == (lang != 'en'), lines
                for head, cell in (('SHARE', '0%'), ('P99/TARGET', '-/20ms')):
                    assert lines[3][lines[1].index(head):].startswith(cell), (width, head, lines)
                tmux('kill-session', '-t', 't')
        finally:
            subprocess.run(['tmux', '-S', folder + '/s', 'kill-server'], capture_output=True, check=False)


def is_chinese(text):
    return re.search('[\u4e00-\u9fff]', text) is not None


def test_refusals_in_the_readers_language():
    """The daemon speaks English to everybody; the command line knows what it said."""
    with Daemon(env={'LC_ALL': 'C'}) as node:
        c = Client(node.create('a', memory='512M', compute='80%')[1]['dir']).attach()
        c.charge(256 << 20)
        for args, words in ((('run', '--memory', '900M', '--', 'true'), ('memory: ', '900 MiB', "'a'")),
                            (('run', '--memory', '9G', '--', 'true'), ('memory: ', '1 GiB')),
                            (('run', '--name', 'a', '--compute', '1%', '--', 'true'), ('name: ', 'a')),
                            (('run', '--device', 'H100', '--', 'true'), ('device: ', 'H100')),
                            (('set', 'a', '--memory', '64M'), ('memory: ', '256 MiB', '64 MiB', 'test:platform/device#0', '--force')),
                            (('end', 'a'), (str(os.getpid()),))):
            r = cli(node, *args, PENSTOCK_LANG='zh_CN')
            assert r.returncode in (4, 125) and is_chinese(r.stderr) and all(w in r.stderr for w in words), (args, r)
            assert not re.search('cannot|exists|known|are in use|held', r.stderr), r
            assert not is_chinese(cli(node, *args).stderr), args
        c.ledger.put32(CLIENT_AT + CLIENT_BYTES * c.client + 176, 2)
        for flag in ('0s', '50ms'):
            r = cli(node, 'why', '--for', flag, 'a', PENSTOCK_LANG='zh_CN')
            assert all(is_chinese(line) for line in r.stdout.splitlines()) and 'penstock set a --compute' in r.stdout, r


def test_signs_of_the_readers_language():
    """A Chinese sentence has Chinese colons."""
    with Daemon() as node:
        node.create('a')
        for args in (('doctor',), ('inspect', 'a')):
            text = cli(node, *args, PENSTOCK_LANG='zh_CN', XDG_RUNTIME_DIR='/nowhere').stdout
            assert '依据' in text and ('修复方法：' in text or args[0] != 'doctor'), text
            assert not re.search('[\u4e00-\u9fff]: ', text), text


def test_a_private_daemon_that_ends_with_its_contract():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        env = {**os.environ, 'LC_ALL': 'C', 'PENSTOCK_SOCKET': folder + '/p/penstock.sock'}
        p = subprocess.Popen([PENSTOCK, 'run', '--start', '--name', 'a', '--', 'sh', '-c', 'echo; read line; exit 5'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        p.stdout.readline()
        r = subprocess.run([PENSTOCK, 'end', 'a'], env=env, capture_output=True, text=True, check=False)
        assert r.returncode == 4 and '(penstock)' in r.stderr, r
        r = subprocess.run([PENSTOCK, 'end', '--force', 'a'], env=env, capture_output=True, text=True, check=False)
        assert r.returncode == 0, r
        wait_for(lambda: subprocess.run([PENSTOCK, 'ps'], env=env, capture_output=True, check=False).returncode == 3, 'the daemon to end')
        _, said = p.communicate('\n', timeout=BOUND)
        assert p.returncode == 5 and 'if its contract was ended, its calls were refused' in said, said


def test_completion():
    """What bash offers is what help lists: it is made of the same lists."""
    with Daemon() as node:
        script = cli(node, 'completion', 'bash').stdout
        assert subprocess.run(['bash', '-n'], input=script, text=True, check=False).returncode == 0
        for name in ('run', 'alloc', 'set', 'end', 'why', 'device', 'events'):
            shown = set(re.findall(r'^  (?:-\w, )?(--[a-z-]+)', cli(node, name, '--help').stdout, re.M))
            r = subprocess.run(['bash', '-c', script + f'COMP_WORDS=(penstock {name} --); COMP_CWORD=2; _penstock; echo ${{COMPREPLY[@]}}'],
                               text=True, capture_output=True, check=True)
            assert set(r.stdout.split()) == shown, (name, r.stdout, shown)


class Odd:
    """Answers whatever it is asked with one thing."""

    def __init__(self, answer):
        self.dir = tempfile.mkdtemp(prefix='pd-odd-')
        self.sock = self.dir + '/sock'
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.sock)
        self.listener.listen()
        self.body = json.dumps(answer).encode()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            with c:
                c.recv(65536)
                c.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % len(self.body) + self.body)

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        shutil.rmtree(self.dir)


def test_alloc_from_the_version_before():
    """Its daemon makes no directory for containers: there is the tenant's own, as that version had it."""
    with Odd({'name': 'a', 'state': 'idle', 'dir': '/r/tenants/a', 'mounts': [{'container': '/run/penstock/lib', 'host': '/l'}]}) as node:
        r = cli(node, 'alloc', '--name', 'a', '--memory', '1G')
        assert r.returncode == 0 and r.stdout.startswith('-v /r/tenants/a:/run/penstock/tenant:ro '), r
    with Odd({'name': 'a', 'state': 'idle'}) as node:
        r = cli(node, 'alloc', '--name', 'a', '--memory', '1G')
        assert r.returncode == 1 and not r.stdout and 'no tenant directory' in r.stderr, r


def test_answer_of_another_shape():
    """Another version's daemon, or something else on that socket: a command may fail, it does not crash."""
    names = ('tenants', 'devices', 'holds', 'processes', 'mounts', 'nodes', 'contract', 'labels', 'name', 'dir', 'state', 'error')
    for v in (None, 5, 'x', {'a': None}, [None], [[]], [{'container': None}]):
        with Odd({**{n: v for n in names}, 'env': {'A': v, 'OPENCL_LAYERS': 'x'}, 'mounts': [{'container': '/run/penstock/lib', 'host': v}]}) as node:
            for args in (['ps'], ['why', 'a', '--for', '0s'], ['end', 'a'], ['inspect', 'a'], ['device', 'ls'], ['alloc', '--name', 'a'],
                         ['alloc', '--name', 'a', '--format', 'cdi']):
                r = cli(node, *args)
                assert r.returncode >= 0 and '(null)' not in r.stdout, (v, args, r)


if __name__ == '__main__':
    run(sys.modules[__name__])
