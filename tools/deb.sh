#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian packages of what git has committed, into OUT (build-deb/). Usage: tools/deb.sh [OUT]
# Needs dpkg-dev, debhelper and the build packages; lintian is run where it is there, and what it calls an error is one here.
set -euo pipefail

out=$(realpath -m "${1:-build-deb}")
top=$(git rev-parse --show-toplevel)
version=$(sed -n "s/^  version: '\(.*\)',/\1/p" "$top/meson.build")
src=$out/penstock-$version
for tool in dpkg-buildpackage dh; do
	command -v $tool >/dev/null || { echo "deb.sh: $tool is missing; tools/deps.sh build package installs it" >&2; exit 1; }
done
rm -rf "$out"
mkdir -p "$src"
git -C "$top" archive HEAD | tar -x -C "$src"
mv "$src/packaging/debian" "$src/debian"
log=$out/build.log
echo "deb.sh: building penstock $version (log: $log)"
(cd "$src" && dpkg-buildpackage --build=binary --no-sign ${DEB_HOST_ARCH:+--host-arch=$DEB_HOST_ARCH}) >"$log" 2>&1 ||
	{ grep -E -A3 "error:|FAILED|^dh_|^dpkg" "$log" | cut -c1-300 | tail -30 >&2; exit 1; }
rm -rf "$src"
if command -v lintian >/dev/null; then
	as=(); [ "$(id -u)" != 0 ] || as=(--allow-root)
	lintian "${as[@]}" --fail-on error,warning "$out"/*.changes
	echo "deb.sh: lintian has no error and no warning"
fi
ls -l "$out"/*.deb
