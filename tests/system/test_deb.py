#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian packages: build, lintian, install, use, upgrade with a changed configuration, remove, purge.

Installed for real, by dpkg, on a throw-away copy of this machine's root (an overlay in a private mount namespace).
Argument: source directory. Skips where it is not root, or cannot mount an overlay, or debhelper is missing.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.abspath(sys.argv[1])


def run(*cmd, **kw):
    return subprocess.run(cmd, capture_output=True, text=True, check=False, env=dict(os.environ, LC_ALL='C.UTF-8'), **kw)


def older(deb, out, version):
    """The same package with a lower version: what an upgrade comes from."""
    with tempfile.TemporaryDirectory() as tmp:
        assert run('dpkg-deb', '-R', deb, tmp + '/x').returncode == 0
        control = tmp + '/x/DEBIAN/control'
        with open(control, encoding='utf-8') as f:
            text = f.read()
        now = next(line.split()[1] for line in text.splitlines() if line.startswith('Version:'))
        with open(control, 'w', encoding='utf-8') as f:
            f.write(text.replace(now, version))
        assert run('dpkg-deb', '--root-owner-group', '-b', tmp + '/x', out).returncode == 0


SCRIPT = r'''
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$TMP/u,workdir=$TMP/w" "$TMP/m"
mount --rbind /proc "$TMP/m/proc"; mount --rbind /dev "$TMP/m/dev"
mount -t tmpfs none "$TMP/m/run"
exec chroot "$TMP/m" sh -ec '
say() { echo "== $*"; }
dpkg --purge penstock penstock-shims >/dev/null 2>&1 || true
say install; dpkg -i /tmp/old/*.deb >/dev/null
getent group penstock
test -d /etc/penstock/contracts.d
say use; cd /; PATH=/usr/bin:/usr/sbin:/bin:/sbin
penstock version
ls /usr/lib/penstock/ | head -3
XDG_RUNTIME_DIR=/run/me; mkdir -p $XDG_RUNTIME_DIR; chmod 700 $XDG_RUNTIME_DIR; export XDG_RUNTIME_DIR
penstock run --memory 64M -- sh -c "test -n \"\$PENSTOCK_TENANT\" && echo under a contract"
say upgrade
echo "group: penstock" >/etc/penstock/penstock.yaml
printf "name: cam\nmemory: 1G\n" >/etc/penstock/contracts.d/cam.yaml
dpkg -i /tmp/new/*.deb >/dev/null
dpkg-query -W -f "\${Version}\n" penstock
cat /etc/penstock/penstock.yaml
penstock config check
say remove; dpkg -r penstock penstock-shims >/dev/null
test ! -e /usr/bin/penstock && test ! -e /usr/lib/penstock && test -f /etc/penstock/contracts.d/cam.yaml && echo configuration stays
say purge; mkdir -p /var/lib/penstock; touch /var/lib/penstock/state.db; dpkg -P penstock penstock-shims >/dev/null
test ! -e /var/lib/penstock && test -f /etc/penstock/contracts.d/cam.yaml && echo state gone, files of the administrator stay
'
'''


class Deb(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.mkdtemp(prefix='pen-deb-')
        cls.addClassCleanup(shutil.rmtree, cls.tmp, ignore_errors=True)
        r = run(os.path.join(SOURCE, 'tools/deb.sh'), cls.tmp + '/out', cwd=SOURCE,
                timeout=500)
        assert r.returncode == 0, r.stdout + r.stderr
        cls.debs = [d for d in glob.glob(cls.tmp + '/out/*.deb') if 'dbgsym' not in d]

    def test_names(self):
        names = sorted(os.path.basename(d).split('_')[0] for d in self.debs)
        self.assertEqual(names, ['libpenstock-contract1', 'libpenstock-dev', 'libpenstock1', 'penstock', 'penstock-shims'])

    def test_life(self):
        """In an overlay over this root; /tmp is the host's, so the packages are carried in beside it."""
        scratch = self.tmp + '/scratch'
        os.mkdir(scratch)
        # An overlay's upper part cannot lie on another overlay: memory is always one that serves.
        self.assertEqual(run('mount', '-t', 'tmpfs', 'none', scratch).returncode, 0)
        self.addCleanup(run, 'umount', '-l', scratch)
        for d in ('u/tmp/old', 'u/tmp/new', 'w', 'm'):
            os.makedirs(f'{scratch}/{d}')
        for deb in self.debs:
            shutil.copy(deb, scratch + '/u/tmp/new/')
            older(deb, scratch + '/u/tmp/old/', '0.0.9')
        r = run('unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', f'TMP={scratch}; {SCRIPT}', timeout=200)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        for word in ('under a contract', 'group: penstock', 'configuration stays', 'files of the administrator stay'):
            self.assertIn(word, r.stdout, r.stdout + r.stderr)


def why_not():
    if os.geteuid() != 0:
        return 'not root: packages cannot be installed'
    for tool in ('dpkg-buildpackage', 'dh', 'unshare'):
        if not shutil.which(tool):
            return f'{tool} is not installed'
    if run('git', '-C', SOURCE, 'rev-parse', 'HEAD').returncode:
        return 'not a git clone: packages are built of what is committed'
    with tempfile.TemporaryDirectory() as tmp:
        probe = f'mount -t tmpfs none {tmp} && mkdir {tmp}/u {tmp}/w {tmp}/m && ' \
                f'mount -t overlay overlay -o lowerdir=/,upperdir={tmp}/u,workdir={tmp}/w {tmp}/m'
        if run('unshare', '--mount', 'sh', '-c', probe).returncode:
            return 'no overlay can be mounted here'
    return None


if __name__ == '__main__':
    reason = why_not()
    if reason:
        print('skipped:', reason)
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
