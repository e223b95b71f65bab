# SPDX-License-Identifier: Apache-2.0
"""
A version is installed over the one before it, and taken back, while programs run: N-1 -> N -> N-1 -> N. The version before is built
from the history (PREVIOUS, or what PENSTOCK_PREVIOUS names) into the build directory, once.
"""
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'failure'))
import lib                                                                # noqa: E402  pylint: disable=wrong-import-position
from lib import MB, Stage, fake, wait_for                                 # noqa: E402  pylint: disable=wrong-import-position

PREVIOUS = os.environ.get('PENSTOCK_PREVIOUS', '1b5e97c')    # until there is a release: from before the audit, containers and CUDA
SOURCE, BUILD = os.path.abspath(sys.argv.pop(1)), os.path.abspath(sys.argv.pop(1))
SLOW = 10       # a bound is the promised one times this: two cores that others use too
OPENCL, CUDA = 'src/shim/opencl/libpenstock-opencl.so', 'src/shim/cuda/libcuda.so.1'
POCL = '/etc/OpenCL/vendors/pocl.icd'


def skip(why):
    print('skipped:', why)
    sys.exit(77)


class Version:
    def __init__(self, build):
        self.daemon, self.cli, self.layer, self.cuda = (os.path.join(build, p) for p in ('src/daemon/penstockd', 'src/cli/penstock', OPENCL, CUDA))

    def install(self):
        """For what is started from now on."""
        os.environ.update(PENSTOCKD=self.daemon, LAYER=self.layer)


def run(*argv, **more):
    return subprocess.run(argv, capture_output=True, text=True, check=False, **more)


def build_previous():
    """Where it is built, and remains for the next time."""
    where = os.path.join(BUILD, 'previous', PREVIOUS)
    os.makedirs(where, exist_ok=True)
    with open(where + '/lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(where + '/done'):
            git = run('git', '-C', SOURCE, 'rev-parse', '--verify', '--quiet', PREVIOUS + '^{commit}')
            if git.returncode:
                skip(f'there is no {PREVIOUS} in the history here')
            for part in ('source', 'build'):
                shutil.rmtree(f'{where}/{part}', ignore_errors=True)
            os.mkdir(where + '/source')
            archive = subprocess.run(['git', '-C', SOURCE, 'archive', PREVIOUS], check=True, capture_output=True)
            subprocess.run(['tar', '-x', '-C', where + '/source'], input=archive.stdout, check=True)
            shims = [OPENCL] + [CUDA] * os.path.exists(where + '/source/src/shim/cuda/meson.build')
            for argv in (['meson', 'setup', where + '/build', where + '/source'],
                         ['ninja', '-C', where + '/build', 'src/daemon/penstockd', 'src/cli/penstock', *shims]):
                made = run(*argv)
                assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
            with open(where + '/done', 'w', encoding='ascii'):
                pass
    return where + '/build'


OLD, NEW = Version(build_previous()), Version(BUILD)


def replace(node, version, kill=False):
    """As a package does it: the daemon ends, or has crashed, and the other version's starts on what is there."""
    node.kill() if kill else node.stop()
    version.install()
    node.start()
    exe = os.readlink(f'/proc/{node.proc.pid}/exe')
    assert exe == version.daemon, exe
    assert 'damaged' not in node.log()


def facts(node, names):
    """What an upgrade leaves as it is."""
    out = {}
    for n in names:
        t = node.tenant(n)
        with open(t['dir'] + '/token', encoding='ascii') as f:
            token = f.read()
        # Fields that only one of the two versions knows are not compared.
        out[n] = {'contract': {k: v for k, v in t['contract'].items() if k != 'priority'}, 'created': t['created'], 'token': token,
                  'used': node.used(n), 'seats': node.clients(n),
                  'charged': {c['pid']: c['charged_bytes'] for c in node.place(n)['clients']}}
    return out


def sums(node, names):
    return {n: [node.place(n)[k] for k in ('device_ns', 'commands')] for n in names}


def said(p):
    """What a program's layer had to say, but for the refusals that the test asked for."""
    return [line for line in p.stderr().splitlines() if ' denied: ' not in line]


def is_back(node, program, name, seats):
    if name == 'idle':                     # it comes back with a command of its own; a second passes between two attempts
        program.say('run 1', '0')
    return node.place(name) and node.clients(name) == seats


def check_version(s, programs, held, version, kill):
    """Replaces the daemon beside running programs, {tenant: program}. Nothing of theirs changes."""
    node = s.node
    wait_for(lambda: node.get('/v1/version')['store']['queued'] == 0, 'the store')
    before, had = facts(node, held), sums(node, held)
    for p in programs.values():
        p.longest_ns()
    replace(node, version, kill)
    busy = [n for n in held if n != 'idle']
    for n in held:
        wait_for(lambda n=n: is_back(node, programs[n], n, before[n]['seats']), 'the same seats of ' + n)
    for n in busy:
        programs[n].goes_on(50)
        longest = programs[n].longest_ns()
        assert longest < SLOW * 200 * lib.MS, f'{n}: nothing for {longest / 1e6} ms'
    after = facts(node, held)
    assert after == before, [(n, k, before[n][k], v) for n in held for k, v in after[n].items() if before[n][k] != v]
    for n, values in sums(node, held).items():
        assert all(v >= was for v, was in zip(values, had[n])), (n, values, had[n])
    for n, p in programs.items():
        assert p.failure() == 0 and not said(p), (n, p.failure(), said(p))
        assert node.used(n) == held[n], (n, node.used(n))
    # The contracts are kept, not only listed: memory ends at the limit, time is divided, and a change arrives.
    programs['idle'].say(f'alloc {200 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')
    programs['idle'].say(f'alloc {MB}', '0 1')
    held['idle'] += MB
    lib.share_equally(*(programs[n] for n in busy))
    limit = (300 if node.tenant('idle')['contract']['memory'] == '256M' else 256)
    assert node.request('PATCH', '/v1/tenants/idle', {'set': {'memory': f'{limit}M'}})[0] == 200
    wait_for(lambda: programs['idle'].ask('limit') == str(limit * MB), 'new terms')


def test_there_and_back():
    """Programs of either version's layer under the daemon of either, two of them in one tenant; accounts, seats, shares, contracts."""
    OLD.install()
    with Stage() as s:
        node = s.node
        held = {'idle': 100 * MB, 'a': 30 * MB, 'b': 50 * MB}
        programs = {n: s.tenant(n, {'memory': '256M' if n == 'idle' else '128M..512M'}) for n in held}
        for n, p in programs.items():
            p.say(f'alloc {held[n]}', '0 1')
            if n != 'idle':
                p.say('load sync', '0')
                p.goes_on(20)
        ids = {e['id']: e['text'] for e in node.get('/v1/events?limit=1000')['events']}

        check_version(s, programs, held, NEW, kill=False)
        assert {e['id']: e['text'] for e in node.get('/v1/events?since=0&limit=1000')['events'] if e['id'] in ids} == ids
        programs['c'] = s.tenant('c', {'memory': '128M..512M'})           # of the new version
        programs['c'].say(f'alloc {20 * MB}', '0 1')
        programs['c'].say('load sync', '0')
        second = s.program(node.tenant('idle')['dir'])                    # beside one of the old
        second.say(f'alloc {10 * MB}', '0 1')
        held |= {'c': 20 * MB, 'idle': held['idle'] + 10 * MB}
        programs['c'].goes_on(20)
        key = node.get('/v1/devices')['devices'][0]['key']
        assert node.request('POST', '/v1/devices/drain', {'device': key})[0] == 200

        second.say('free', '0')
        held['idle'] -= 10 * MB
        second.kill()
        wait_for(lambda: len(node.clients('idle')) == 1, 'its end')
        check_version(s, programs, held, OLD, kill=False)
        check_version(s, programs, held, NEW, kill=True)
        assert node.get('/v1/devices')['devices'][0]['state'] == 'drained'    # the version that does not know of it left it alone
        check_version(s, programs, held, OLD, kill=True)
        new = s.program(node.tenant('idle')['dir'])
        new.say('run 3', '0')                                             # all of the old version, as if nothing had been
        assert len(node.clients('idle')) == 2


def test_mixed_tenant():
    """Two versions of the layer in one tenant, across a change of the daemon: one account, and both see each other's bytes."""
    NEW.install()
    with Stage() as s:
        where = s.node.add('t', memory='200M')
        programs = [s.program(where)]
        OLD.install()
        programs.append(s.program(where))
        for p in programs:
            p.say(f'alloc {60 * MB}', '0 1')
        for version in (OLD, NEW):
            wait_for(lambda: s.node.get('/v1/version')['store']['queued'] == 0, 'the store')
            replace(s.node, version)
            wait_for(lambda: [p.say('run 1', '0') for p in programs] and len(s.node.clients('t')) == 2, 'both')
            assert s.node.used('t') == 120 * MB
            for p in programs:
                p.say(f'alloc {100 * MB}', f'{lib.CL_OUT_OF_MEMORY} 0')
        for p in programs:
            p.say('load sync', '0')
        for p in programs:
            p.goes_on(50)
            assert not said(p), said(p)


def test_commands():
    """The command of one version and the daemon of the other, both ways: what an upgrade has for a moment."""
    for cli, daemon in ((OLD, NEW), (NEW, OLD)):
        daemon.install()
        with Stage() as s:
            where = s.node.add('a', memory='64M')
            p = s.program(where)
            p.say(f'alloc {10 * MB}', '0 1')
            env = {**os.environ, 'PENSTOCK_SOCKET': s.node.sock, 'LC_ALL': 'C', 'LANGUAGE': ''}
            for args in (('ps',), ('inspect', 'a'), ('why', 'a'), ('device', 'ls'), ('events',), ('usage', 'a'), ('version',),
                         ('set', 'a', '--memory', '80M'), ('ps', '-o', 'json'), ('config', 'reload')):
                r = run(cli.cli, *args, env=env)
                assert r.returncode == 0 and not r.stderr, (args, r)
            assert json.loads(run(cli.cli, 'ps', '-o', 'json', env=env).stdout)['tenants'][0]['devices'][0]['mem_used_bytes'] == 10 * MB
            r = run(cli.cli, 'run', '--quiet', '--name', 'job', '--memory', '32M', '--', 'sh', '-c', 'cat $PENSTOCK_TENANT/token', env=env)
            assert r.returncode == 0 and len(r.stdout.strip()) == 64, r
            r = run(cli.cli, 'end', 'a', env=env)
            if r.returncode == 4:     # from 0.1 on it asks for that where a program has it
                r = run(cli.cli, 'end', '--force', 'a', env=env)
            assert r.returncode == 0, r


class Load:
    """bench/load.c: it knows how often each work item ran, and ends with an error if that was not once for each request."""

    def __init__(self, node, argv, env, name, fields, *options):
        self.name, self.file = name, f'{node.dir}/{name}.csv'
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('PENSTOCK_', 'OPENCL_', 'POCL_', 'LD_LIBRARY_PATH'))}
        clean.update(env, PENSTOCK_TENANT=node.add(name, **fields), HOME=node.dir)
        self.log = open(f'{node.dir}/{name}.log', 'w+', encoding='utf-8')
        self.p = subprocess.Popen([*argv, '--out', self.file, '--memory', str(8 * MB), *options], env=clean, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, bufsize=1)
        assert self.p.stdout.readline().startswith('READY'), self.text()

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def run(self, stop):
        self.p.stdin.write(f'run {mono()} {stop} 1 x\n')

    def finish(self):
        """The number of its requests."""
        word, _, n = self.p.stdout.readline().split()
        self.p.stdin.close()
        assert word == 'DONE' and self.p.wait(fake.BOUND) == 0, self.text()
        assert 'penstock' not in self.text(), self.text()
        with open(self.file, encoding='ascii') as f:
            assert len(f.readlines()) == int(n) > 0, (self.name, n)
        return int(n)


def mono():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def under_load(program, periodic, saturating):
    """
    A camera and a training, and one that comes later, on a real driver while versions change under them. `program`: of a version, its
    command and environment. Every request is served, and the contracts are kept, in each of the versions.
    """
    OLD.install()
    with Stage() as s:
        node, loads, used = s.node, [], {}

        def load(version, *args):
            loads.append(Load(node, *program(version), *args))
            return loads[-1]

        def serves(name):
            was = wait_for(lambda: node.place(name), name)['commands']
            wait_for(lambda: node.place(name)['commands'] > was + 5, 'requests of ' + name)
        try:
            load(OLD, 'camera', {'class': 'latency', 'sla': '50ms', 'memory': '64M'}, *periodic)
            load(OLD, 'train', {'class': 'besteffort', 'compute': '..40%', 'memory': '..256M'}, *saturating)
            end = mono() + 6 * 10**9
            for x in loads:
                x.run(end)
            for version, kill in ((None, False), (NEW, False), (OLD, False), (NEW, True)):
                if version:
                    replace(node, version, kill)
                if version is NEW and len(loads) == 2:
                    load(NEW, 'late', {'memory': '64M'}, *periodic).run(end)
                for x in loads:
                    serves(x.name)
                    assert used.setdefault(x.name, node.used(x.name)) == node.used(x.name) >= 8 * MB, used
            assert mono() < end, 'the load ended too early'
            began, was = mono(), node.place('train')['device_ns']
            done = {x.name: x.finish() for x in loads}
            share = node.place('train')['device_ns'] - was, mono() - began
            assert 0 < share[0] < 0.4 * share[1] * 1.25 + 5e7, share
        finally:
            for x in loads:
                if x.p.poll() is None:
                    x.p.kill()
                    x.p.wait()
        print('  ', ', '.join(f'{name}: {n} requests' for name, n in done.items()))


def test_opencl_load():
    if not os.path.exists(POCL) or not os.access(BUILD + '/bench/clload', os.X_OK):
        print('   left out: no PoCL')
        return
    under_load(lambda version: ([BUILD + '/bench/clload'], {'OCL_ICD_VENDORS': POCL, 'OPENCL_LAYERS': version.layer}),
               ['--interval-ms', '20', '--groups', '4'], ['--mode', 'saturate', '--finish-every', '8'])


def test_cuda_load():
    """On a simulated card. Where the version before has no shim for CUDA, under its daemon with the shim of this one."""
    server = [BUILD + '/simgpu/server/penstock-simgpu', '--foreground', '--card', 'T4', '--socket']
    with tempfile.TemporaryDirectory(prefix='simgpu-') as folder:
        with subprocess.Popen([*server, folder + '/s'], stdout=subprocess.PIPE, text=True, start_new_session=True) as card:
            try:
                assert 'ready' in card.stdout.readline()
                env = {'PENSTOCK_SIMGPU': folder + '/s'}

                def program(version):
                    cuda = version.cuda if os.path.exists(version.cuda) else NEW.cuda
                    return ([BUILD + '/bench/cuload'],
                            {**env, 'LD_LIBRARY_PATH': os.path.dirname(cuda) + ':' + BUILD + '/simgpu/nvidia/cuda-13.0'})
                under_load(program, ['--interval-ms', '20', '--request', 'k:2000'],
                           ['--mode', 'saturate', '--request', 'k:500', '--finish-every', '8'])
            finally:
                card.terminate()


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
