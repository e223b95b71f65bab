#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packages and the bundle of another architecture, and a bundle's life on a machine that has nothing.

Arguments: source directory, then
  nothing     what tells without running anything foreign, of the arm64 build that `make bundle ARCH=arm64` left (else skipped)
  --life ARCH install, use, remove and purge in a fresh minimal Debian without a network: `make check-bundle [ARCH=arm64]`.
              arm64 runs in qemu-user. Everything is done in user, mount and network namespaces of its own, qemu's registration
              with the kernel too (Linux 6.7 and later); this machine keeps no trace but the cached root in build-deb/.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

SOURCE = os.path.abspath(sys.argv[1])
BUILT = {'arm64': SOURCE + '/build-deb/arm64', 'amd64': SOURCE + '/build-deb'}
# What tells a program of arm64, as qemu's own binfmt.d file has it; O and F hold the interpreter open across a chroot.
BINFMT = r':qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:' \
         r'\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:OPF'


def run(*cmd, **kw):
    return subprocess.run(cmd, capture_output=True, text=True, check=False, env=dict(os.environ, LC_ALL='C.UTF-8'), **kw)


def control(deb):
    """Its fields; only such as fit on a line are asked for."""
    out = run('dpkg-deb', '-f', deb, 'Package', 'Architecture', 'Section', 'Depends', 'Pre-Depends', 'Provides').stdout
    return dict(line.split(': ', 1) for line in out.splitlines())


def bundle_of(arch):
    found = glob.glob(f'{BUILT[arch]}/penstock-*-{arch}.tar')
    return found[0] if found else None


class Foreign(unittest.TestCase):
    """What lies in build-deb/arm64, looked at from outside."""
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.mkdtemp(prefix='pen-bundle-')
        cls.addClassCleanup(shutil.rmtree, cls.tmp, ignore_errors=True)
        with tarfile.open(bundle_of('arm64')) as tar:
            tar.extractall(cls.tmp)
        cls.bundle, = glob.glob(cls.tmp + '/penstock-*')
        cls.debs = glob.glob(cls.bundle + '/packages/*.deb')
        cls.ours = [d for d in cls.debs if 'penstock' in os.path.basename(d)]

    def test_elf(self):
        """Every program and library of ours is of the architecture, and what tenants load needs no C library after 2.28."""
        seen = 0
        for deb in self.ours + glob.glob(self.bundle + '/development/*.deb'):
            out = f'{self.tmp}/{os.path.basename(deb)}.x'
            self.assertEqual(run('dpkg-deb', '-x', deb, out).returncode, 0)
            for directory, _, names in os.walk(out):
                for path in (os.path.join(directory, n) for n in names):
                    if os.path.islink(path):
                        continue
                    with open(path, 'rb') as f:
                        if f.read(4) != b'\x7fELF':
                            continue
                    seen += 1
                    self.assertRegex(run('readelf', '-h', path).stdout, r'Machine:\s+AArch64', path)
                    if '/usr/lib/' in path:
                        wanted = re.findall(r'\(GLIBC_2\.(\d+)', run('readelf', '--dyn-syms', '-W', path).stdout.replace('@', '('))
                        self.assertTrue(wanted and max(map(int, wanted)) <= 28, f'{path} needs GLIBC_2.{wanted}')
        self.assertGreater(seen, 5)

    def test_closure(self):
        """Packages of arm64 or of none, and each dependency is met in the bundle or by what no system lacks."""
        there, wanted = set(), []
        for deb in self.debs:
            fields = control(deb)
            self.assertIn(fields['Architecture'], ('arm64', 'all'), deb)
            there.add(fields['Package'])
            there.update(re.findall(r'([a-z0-9][\w.+-]+)(?: \(.*?\))?(?:,|$)', fields.get('Provides', '')))
            if deb in self.ours or fields['Section'] == 'libs':
                wanted += [(deb, d) for part in ('Depends', 'Pre-Depends') for d in fields.get(part, '').split(',') if d.strip()]
        always = {'dpkg', 'debconf', 'debconf-2.0', 'libc-bin', 'libpam-runtime', 'passwd', 'perl-base', 'tar', 'coreutils'}
        for deb, choice in wanted:
            names = {re.sub(r'[\s(:].*', '', c.strip()) for c in choice.split('|')}
            self.assertTrue(names & (there | always), f'{os.path.basename(deb)}: {choice}')
        self.assertTrue({'penstock', 'penstock-shims', 'libcurl4', 'adduser'} <= there, there)

    def test_refusal(self):
        """On this machine install.sh touches nothing and says why, in both languages."""
        if run('dpkg', '--print-architecture').stdout.strip() == 'arm64':
            self.skipTest('this machine is what the bundle is for')
        r = run('sh', self.bundle + '/install.sh')
        self.assertEqual(r.returncode, 2, r.stdout + r.stderr)
        self.assertRegex(r.stderr, r'this bundle is for debian12 arm64; here is \S+ amd64')
        self.assertIn('此安装包用于 debian12 arm64', r.stderr)


# Inside: a bundle in a folder with a space in its name, no network, no device.
LIFE = r'''
say() { echo "== $*"; }
mkdir -p "/root/a box"; cd "/root/a box"; tar -xf /bundle.tar; cd penstock-*/
say damaged; cp Packages /keep; echo >>Packages
if ./install.sh; then exit 1; fi
mv /keep Packages
say install; ./install.sh
say again; ./install.sh
cd /root
say use; penstock --version; penstock version
penstock init --write
penstock config check
penstock doctor || echo "doctor: $?"
say daemon; penstockd & daemon=$!
n=0; until penstock device ls 2>/dev/null; do n=$((n + 1)); [ $n -lt 300 ]; kill -0 $daemon; sleep 0.1; done
say contract; penstock run --memory 64M -- sh -c 'test -n "$PENSTOCK_TENANT" && echo under a contract'
kill $daemon; wait $daemon
say shims; test -e /usr/lib/penstock/libpenstock-opencl.so   # no loader here to load it
for f in /usr/lib/penstock/cuda/lib*.so.1 /usr/lib/*/libpenstock*.so.1; do
	perl -MDynaLoader -e 'DynaLoader::dl_load_file($ARGV[0]) or die DynaLoader::dl_error()' "$f"; echo "loaded $f"
done
say remove; dpkg -r $OURS; test ! -e /usr/bin/penstock; test ! -e /usr/lib/penstock; test -e /etc/penstock/penstock.yaml
say purge; dpkg -P $OURS; test ! -e /var/lib/penstock
say done
'''

# As root of namespaces of its own. $1: root directory, $2: what to tell binfmt_misc or nothing, $3: script.
ENTER = r'''
set -e; root=$1
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"; mkdir "$root/dev/shm" "$root/dev/pts"; chmod 1777 "$root/dev/shm"
for n in null zero full random urandom tty; do : >"$root/dev/$n"; mount --bind "/dev/$n" "$root/dev/$n"; done
mount -t tmpfs tmpfs "$root/run"
if [ -n "$2" ]; then
	mount -t binfmt_misc binfmt_misc "$root/proc/sys/fs/binfmt_misc"
	printf %s "$2" >"$root/proc/sys/fs/binfmt_misc/register"
fi
ip link set lo up 2>/dev/null || true
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 OURS="$OURS" sh -ec "$3"
'''

# The root itself, which needs the network once. $1: what to tell binfmt_misc or nothing, then mmdebstrap's arguments.
MAKE = r'''
set -e
mount -t proc proc /proc
if [ -n "$1" ]; then
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf %s "$1" >/proc/sys/fs/binfmt_misc/register
fi
shift; exec mmdebstrap "$@"
'''


def as_root_of_its_own(script, *args, net=False, timeout):
    """Runs a shell script as root of fresh namespaces: all ids are mapped, which the ids' files of a machine rarely allow."""
    flags = ['--user', '--mount', '--pid', '--fork', '--kill-child'] + ([] if net else ['--net'])
    with subprocess.Popen(['unshare', *flags, 'sh', '-c', 'echo in; read go; exec "$@"', 'sh', 'sh', '-c', script, 'sh', *args],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        said = p.stdout.readline()
        if said.strip() != 'in':
            return 1, said + p.communicate()[0]
        for which in ('uid_map', 'gid_map'):
            with open(f'/proc/{p.pid}/{which}', 'w', encoding='ascii') as f:
                f.write('0 0 4294967295')
        try:
            out, _ = p.communicate('\n', timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            out, _ = p.communicate()
            return 124, out
        return p.returncode, out


class Life(unittest.TestCase):
    arch = None

    def test_life(self):
        tmp = tempfile.mkdtemp(prefix='pen-life-')
        self.addCleanup(shutil.rmtree, tmp, ignore_errors=True)
        os.chmod(tmp, 0o755)
        binfmt = ''
        if self.arch != run('dpkg', '--print-architecture').stdout.strip():
            qemu = './usr/bin/qemu-aarch64-static'
            r = run('tar', '-C', tmp, '-xf', SOURCE + '/build-deb/cross-root-arm64.tar', qemu)
            self.assertEqual(r.returncode, 0, r.stderr)
            binfmt = BINFMT % os.path.join(tmp, qemu[2:])
        cached = f'{SOURCE}/build-deb/check-root-{self.arch}.tar'
        if not os.path.exists(cached):
            print(f'making a minimal Debian of {self.arch}: {cached} (once; minutes for a foreign one)', flush=True)
            with open('/etc/os-release', encoding='utf-8') as f:
                suite = 'bookworm' if binfmt else re.search(r'VERSION_CODENAME=(\w+)', f.read()).group(1)
            mirror = [os.environ['MIRROR']] if os.environ.get('MIRROR') else []
            rc, out = as_root_of_its_own(MAKE, binfmt, '--variant=minbase', '--arch=' + self.arch, '--format=tar', suite,
                                         cached + '.new', *mirror, net=True, timeout=1800)
            self.assertEqual(rc, 0, out)
            os.rename(cached + '.new', cached)
        root = tmp + '/root'
        os.mkdir(root)
        r = run('tar', '-C', root, '--exclude=./dev/*', '-xf', cached)
        self.assertEqual(r.returncode, 0, r.stderr)
        shutil.copy(bundle_of(self.arch), root + '/bundle.tar')
        with tarfile.open(bundle_of(self.arch)) as tar:
            names = [os.path.basename(n).split('_')[0] for n in tar.getnames() if '/packages/' in n and 'penstock' in os.path.basename(n)]
        rc, out = as_root_of_its_own('OURS=$4; export OURS\n' + ENTER, root, binfmt, LIFE, ' '.join(names), timeout=1200)
        print(out)
        self.assertEqual(rc, 0, out)
        for word in ('a file is damaged', 'Next / 接下来', 'everything is installed already', 'under a contract', '== daemon', '== done'):
            self.assertIn(word, out)


def why_not(arch, life):
    if not bundle_of(arch):
        return f'no bundle of {arch} is prepared: make bundle ARCH={arch}'
    for tool in ('dpkg-deb', 'readelf') + (('unshare', 'mmdebstrap', 'arch-test') if life else ()):
        if not shutil.which(tool):
            return f'{tool} is not installed'
    if life and os.geteuid() != 0:
        return 'not root'
    if life and arch != run('dpkg', '--print-architecture').stdout.strip():
        rc, out = as_root_of_its_own('mount -t proc proc /proc && mount -t binfmt_misc none /proc/sys/fs/binfmt_misc', timeout=60)
        if rc:
            return f'no registration of qemu without changing this machine (needs Linux 6.7): {out.strip()}'
    return None


if __name__ == '__main__':
    LIFE_ARCH = sys.argv[3] if sys.argv[2:3] == ['--life'] else None
    REASON = why_not(LIFE_ARCH or 'arm64', bool(LIFE_ARCH))
    if REASON:
        print('skipped:', REASON)
        sys.exit(77)
    Life.arch = LIFE_ARCH
    with open(BUILT[LIFE_ARCH or 'arm64'] + '/commit', encoding='ascii') as commit:
        print('built of commit', commit.read().strip())
    unittest.main(argv=[sys.argv[0], 'Life' if LIFE_ARCH else 'Foreign'], verbosity=2)
