# SPDX-License-Identifier: Apache-2.0
"""What makes a program managed is damaged or missing: it gets no device and says why in one line; or is left alone."""
import fcntl
import mmap
import os
import shutil
import socket
import struct
import sys
import threading

import lib
from lib import CL_NO_DEVICE, CL_NO_PLATFORM, CL_OUT_OF_MEMORY, MB, Stage, fake, wait_for

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
F_SEAL_FUTURE_WRITE = 0x10


def no_device(program, *words, code=CL_NO_DEVICE):
    """It gets the code of a machine without devices, however often it asks, and one line with these words."""
    for _ in range(3):
        program.say('open', str(code))
    lines = program.stderr().splitlines()
    assert len(lines) == 1, lines
    for word in ('penstock', *words):
        assert word in lines[0], (word, lines[0])


def replace_token(where, text):
    os.unlink(where + '/token')
    with open(where + '/token', 'w', encoding='ascii') as f:
        f.write(text)


def test_wrong_token():
    """The token file is replaced: the program that runs goes on, a new one gets nothing; the next daemon mends the file."""
    with Stage() as s:
        where = s.node.add('a')
        old = s.program(where)
        old.say('load sync', '0')
        old.goes_on(20)
        replace_token(where, '00' * 32 + '\n')
        since = s.node.last_event()
        no_device(s.program(where, opened=False), 'token')
        assert 'token' in s.node.wait_event('refused', since, 'a')['text']
        replace_token(where, 'no token at all')
        no_device(s.program(where, opened=False), 'token')
        os.unlink(where + '/token')
        no_device(s.program(where, opened=False), 'token')
        old.goes_on(20)
        assert set(s.node.clients('a')) == {old.pid}
        s.node.stop()
        s.node.start()
        s.program(where).say('run 1', '0')
        old.goes_on(20)
        assert old.stderr() == ''


def test_directory_gone():
    """The tenant directory vanishes: who has a seat keeps it, a new program gets nothing."""
    with Stage() as s:
        where = s.node.add('a', memory='64M')
        old = s.program(where)
        old.say('load sync', '0')
        old.goes_on(20)
        shutil.rmtree(where)
        no_device(s.program(where, opened=False), where, code=CL_NO_PLATFORM)
        old.goes_on(20)
        old.say(f'alloc {60 * MB}', '0 1')
        old.say(f'alloc {5 * MB}', f'{CL_OUT_OF_MEMORY} 0')      # and its contract


def test_no_daemon_at_start():
    """No daemon answers at the first use."""
    with Stage() as s:
        where = s.node.add('a')
        s.node.kill()
        no_device(s.program(where, opened=False), where)


def test_contract_ended():
    """The contract ends while the program runs: no further command, no new process."""
    with Stage() as s:
        where = s.node.add('a')
        p = s.program(where)
        p.say(f'alloc {MB}', '0 1')
        p.say('load sync', '0')
        p.goes_on(20)
        assert s.node.request('DELETE', '/v1/tenants/a')[0] == 200
        wait_for(lambda: p.failure() < 0, 'the refusal of a command')
        assert int(p.ask('stop')) < 0
        assert int(p.ask('run 1')) < 0
        p.say('free', '0')
        no_device(s.program(where, opened=False), where, code=CL_NO_PLATFORM)


def test_variable_removed():
    """Without the variable the same program with the same layer is as without the layer: no limit, no seat, no word."""
    with Stage() as s:
        where = s.node.add('a', memory='64M')
        managed, free, bare = (s.program(where, managed=m, layer=l) for m, l in ((True, True), (False, True), (False, False)))
        managed.say('limit', str(64 * MB))
        for command in ('limit', f'alloc {256 * MB} 3', 'run 20', 'userevent 10', 'free'):
            answer = bare.ask(command)
            assert int(answer.split()[0]) >= 0
            free.say(command, answer)
        free.say('load sync', '0')
        free.goes_on(20)
        assert free.stderr() == bare.stderr() == ''
        assert set(s.node.clients('a')) == {managed.pid} and s.node.used('a') == 0


# ---- somebody between program and daemon who exchanges pages -------------------------------------------------------------

class Between:
    """A tenant directory whose socket passes packets and descriptors on, through `change(type, data, fds)`."""

    def __init__(self, folder, where, change):
        self.where, self.real, self.change, self.changed = folder + '/between', where, change, 0
        os.mkdir(self.where)
        shutil.copy(where + '/token', self.where)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.where + '/attach.sock')
        self.listener.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                daemon.connect(self.real + '/attach.sock')
            except OSError:
                client.close()
                continue
            for a, b in ((client, daemon), (daemon, client)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        try:
            while True:
                data, anc, _, _ = a.recvmsg(512, socket.CMSG_SPACE(12))
                fds = [fd for _, _, blob in anc for fd in struct.unpack(f'{len(blob) // 4}i', blob)]
                if not data:
                    break
                data, fds = self.pass_on(data, fds)
                b.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f'{len(fds)}i', *fds))] if fds else [])
                for fd in fds:
                    os.close(fd)
        except OSError:
            pass
        for x in (a, b):
            try:
                x.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def pass_on(self, data, fds):
        kind = struct.unpack_from('<I', data, 8)[0]
        if kind == fake.HELLO:       # the daemon sees us as its peer
            data = data[:48] + struct.pack('<Q', fake.start_time()) + data[56:]
        new = self.change(kind, fds)
        self.changed += new is not fds
        return data, new


def other_layout(fd, seals):
    """A copy of a page that says that its layout is of major version 9."""
    size = os.fstat(fd).st_size
    content = bytearray(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ))
    struct.pack_into('<H', content, 4, 9)
    copy = os.memfd_create('page', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(copy, content)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    ro = os.open(f'/proc/self/fd/{copy}', os.O_RDONLY)
    os.close(copy)
    os.close(fd)
    return ro


def test_page_of_other_layout():
    """The daemon's terms are of a layout that the program does not know: no device, one line."""
    def change(kind, fds):
        if kind != fake.SEAT or not fds:
            return fds
        return [other_layout(fds[0], SEALS | F_SEAL_FUTURE_WRITE), *fds[1:]]
    with Stage() as s:
        between = Between(s.node.dir, s.node.add('a'), change)
        no_device(s.program(between.where, opened=False))
        assert between.changed
        between.change = lambda kind, fds: fds
        s.program(between.where).say('run 1', '0')      # nothing else was in its way


def test_handed_back_page_of_other_layout():
    """After a restart the program hands back a ledger of another layout: it gets a new seat and keeps its account."""
    damage = []

    def change(kind, fds):
        if kind != fake.ADOPT or len(fds) != 2 or not damage:
            return fds
        return [other_layout(fds[0], SEALS), fds[1]]
    with Stage() as s:
        between = Between(s.node.dir, s.node.add('a', memory='64M'), change)
        p = s.program(between.where)
        p.say(f'alloc {40 * MB}', '0 1')
        p.say('load sync', '0')
        p.goes_on(20)
        damage.append(True)
        s.node.kill()
        s.node.start()
        p.goes_on(20)
        wait_for(lambda: between.changed and s.node.clients('a'), 'a seat')
        wait_for(lambda: s.node.place('a')['clients'][0]['device_ns'], 'its account to be used')
        assert s.node.used('a') == 40 * MB, s.node.used('a')
        p.say('stop', '0')
        p.say(f'alloc {25 * MB}', f'{CL_OUT_OF_MEMORY} 0')
        p.say(f'alloc {24 * MB}', '0 1')
        p.say('free', '0')
        assert s.node.used('a') == 0, s.node.used('a')


if __name__ == '__main__':
    lib.run(sys.modules[__name__])
