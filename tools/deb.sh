#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian packages of what git has committed, into OUT. Usage: tools/deb.sh [--arch amd64|arm64] [OUT]
# OUT is build-deb/, and build-deb/ARCH/ for an architecture that is not this machine's.
# This machine's own architecture needs dpkg-dev, debhelper and the build packages here. On amd64, arm64 is cross-built for
# Debian 12 in a root of its own (tools/cross-root.sh), and nothing is installed here for it.
# lintian is run where it is there, and what it calls an error or a warning is one here.
set -euo pipefail

top=$(git rev-parse --show-toplevel)
here=$(dpkg --print-architecture)
arch=$here
if [ "${1:-}" = --arch ]; then
	arch=${2:-$here}
	shift 2
fi
case $arch-$here in
amd64-amd64 | arm64-arm64) out=build-deb ;;
arm64-amd64) out=build-deb/arm64 ;;
*)
	echo "deb.sh: no packages for ARCH=$arch on this machine ($here): its own architecture can be built, and arm64 on amd64" >&2
	exit 2
	;;
esac
out=$(realpath -m "${1:-$out}")
version=$(sed -n "s/^  version: '\(.*\)',/\1/p" "$top/meson.build")
name=penstock-$version
log=$out/build.log
failed() {
	grep -E -A3 "error:|ERROR:|FAILED|^dh_|^dpkg|^E:" "$log" | cut -c1-300 | tail -30 >&2
	echo "deb.sh: building failed; all of it is in $log" >&2
	exit 1
}
# What a second run would mistake for its own, and nothing else: the roots of cross builds lie here too.
mkdir -p "$out"
rm -rf "$out"/*.deb "$out"/penstock-*.tar "$out"/*.changes "$out"/*.buildinfo "$out"/build.log "${out:?}/$name"
mkdir "$out/$name"
commit=$(git -C "$top" rev-parse HEAD)
git -C "$top" archive "$commit" | tar -x -C "$out/$name"
mv "$out/$name/packaging/debian" "$out/$name/debian"

if [ "$arch" = "$here" ]; then
	for tool in dpkg-buildpackage dh; do
		command -v $tool >/dev/null || { echo "deb.sh: $tool is missing; tools/deps.sh build package installs it" >&2; exit 1; }
	done
	echo "deb.sh: building penstock $version (log: $log)"
	(cd "$out/$name" && dpkg-buildpackage --build=binary --no-sign) >"$log" 2>&1 || failed
else
	root=$top/build-deb/cross-root-$arch.tar
	"$top/tools/cross-root.sh" "$arch" "$root"
	echo "deb.sh: building penstock $version for $arch (log: $log)"
	tar -C "$out" -cf "$out/source.tar" "$name"
	# The root is unpacked, used and thrown away: a build never sees what another one left.
	mmdebstrap --variant=custom --skip=update --format=null \
		--setup-hook="tar-in '$root' /" --setup-hook="tar-in '$out/source.tar' /build" \
		--customize-hook="chroot \"\$1\" sh -ec 'cd /build/$name; env DEB_BUILD_OPTIONS=parallel=$(nproc) LC_ALL=C.UTF-8 dpkg-buildpackage --build=binary --no-sign -a$arch
			mkdir /build/out; mv /build/*.deb /build/*.changes /build/*.buildinfo /build/out'" \
		--customize-hook="sync-out /build/out '$out'" \
		bookworm /dev/null 2>&1 | tee "$log" |
		sed -nu 's/^   \(debian.rules override_\)\?dh_auto_\(configure\|build\|install\)\>.*/deb.sh: \2/p; s/^dpkg-deb: \(building package.*\)/deb.sh: \1/p' || failed
	rm -f "$out/source.tar"
fi
echo "$commit" >"$out/commit"
rm -rf "${out:?}/$name"
if command -v lintian >/dev/null; then
	as=(); [ "$(id -u)" != 0 ] || as=(--allow-root)
	lintian "${as[@]}" --fail-on error,warning "$out"/*.changes
	echo "deb.sh: lintian has no error and no warning"
fi
ls -l "$out"/*.deb
