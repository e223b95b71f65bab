# SPDX-License-Identifier: Apache-2.0
"""A node for tests of the device plugin: a penstockd, two cards that a script finds, and a stand-in of the kubelet."""
import json
import os
import shutil
import stat
import tempfile

import fake
import kubelet_standin

R = 'penstock.io/vgpu-1g'
PROFILE = '    - {name: vgpu-1g, memory: 1G, compute: 25%}\n'
CARDS = [('test:p/one#0', 'One', 4 << 30, 8), ('test:p/two#0', 'Two', 4 << 30, 4)]


def tenant_dir(answer):
    """The directory of the tenant that a container would have mounted."""
    return next(m.host_path for m in answer.mounts if m.container_path == '/run/penstock/tenant')


class Node:
    """`profiles`: lines of YAML; `more`: lines of the section. With start=False the daemon is started by the test; with absent=True
    the kubelet's directory is not there."""

    def __init__(self, profiles=PROFILE, more='', cards=None, start=True, top='', absent=False, **daemon):
        self.dir = tempfile.mkdtemp(prefix='pk-')
        self.kubelet_dir = self.dir + '/k'
        if not absent:
            os.mkdir(self.kubelet_dir)
        self.kubelet = kubelet_standin.Kubelet(self.kubelet_dir)
        self.probe = self.dir + '/probe'
        self.set_cards(CARDS if cards is None else cards)
        self.config(profiles, more, top)
        self.daemon, self.daemon_args = None, daemon
        if start:
            self.start()

    def set_cards(self, cards, delay=0):
        text = json.dumps({'devices': [dict(zip(('key', 'model', 'mem_bytes', 'units'), c), api='test') for c in cards],
                           'backends': [{'api': 'test', 'error': ''}]})
        with open(self.probe, 'w', encoding='utf-8') as f:
            wait = f'while ! [ -e "{self.dir}/go" ]; do sleep 0.01; done\n' if delay else ''
            f.write(f"#!/bin/sh\n{wait}cat <<'END'\n{text}\nEND\n")
        os.chmod(self.probe, stat.S_IRWXU)

    def go(self):
        """Lets a delayed probe answer."""
        with open(self.dir + '/go', 'w', encoding='utf-8'):
            pass

    def config(self, profiles=PROFILE, more='', top=''):
        with open(self.dir + '/penstock.yaml', 'w', encoding='utf-8') as f:
            f.write(f'{top}kubernetes:\n  enabled: true\n  directory: {self.kubelet_dir}\n  pods: none\n{more}  profiles:\n{profiles}')

    def start(self):
        if self.daemon:
            self.daemon.start()
        else:
            self.daemon = fake.Daemon('--probe', self.probe, directory=self.dir, **self.daemon_args)
            absent = self.status().get('absent')
            if absent:
                print(f'skipped: penstockd was built without the device plugin: {absent}', flush=True)
                self.daemon.kill()
                shutil.rmtree(self.dir, ignore_errors=True)
                os._exit(77)    # not an exception: nothing has failed
        return self.daemon

    def status(self):
        return self.daemon.get('/v1/integrations')['integrations']['kubelet']

    def lease_of(self, *ids):
        """The newest lease for exactly these slots; None."""
        found = [l for l in self.status()['leases'] if set(l['ids']) == set(ids)]
        return found[-1] if found else None

    def resource(self, name=R):
        return next(r for r in self.status()['resources'] if r['resource'] == name)

    def live(self, name=R):
        """Waits until the kubelet watches the list, as the daemon sees it."""
        fake.wait_for(lambda: self.resource(name)['state'] == 'live', name + ' to be live')

    def close(self):
        self.kubelet.stop()
        if self.daemon and self.daemon.proc.poll() is None:
            assert self.daemon.stop() == 0, self.daemon.log()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind:
            fake.sys.stderr.write(self.daemon.log() if self.daemon else '')
            if self.daemon:
                self.daemon.kill()
            self.kubelet.stop()
            shutil.rmtree(self.dir, ignore_errors=True)
        else:
            self.close()
