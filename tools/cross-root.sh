#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A Debian 12 in which penstock is cross-built, as a tar file. Usage: tools/cross-root.sh ARCH FILE
# It has the compiler for ARCH, the libraries of ARCH that packaging/debian/control names, and qemu for our own programs that write
# the manual pages. As root, or as a user who has subordinate ids (package uidmap). A FILE made of the same control is kept.
# Variable: MIRROR=http://HOST/debian (with http://HOST/debian-security beside it) where deb.debian.org is far.
set -euo pipefail

arch=$1 file=$2
top=$(git rev-parse --show-toplevel)
control=$top/packaging/debian/control
for tool in mmdebstrap gpgv; do
	command -v $tool >/dev/null || { echo "cross-root.sh: $tool is missing; tools/deps.sh cross installs it" >&2; exit 1; }
done
# One paragraph is what counts: other edits of control make no new root.
stamp=$({ echo "${MIRROR:-}"; sed '/^$/q' "$control"; sed '/^#/d; /echo/d' "$0"; } | sha256sum | cut -d' ' -f1)
[ -f "$file" ] && [ "$(cat "$file.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

mirror=()
if [ -n "${MIRROR:-}" ]; then
	mirror=("deb $MIRROR bookworm main" "deb $MIRROR bookworm-updates main" "deb $MIRROR-security bookworm-security main")
fi
# mmdebstrap reads nothing of this machine's apt configuration; a proxy is what it would miss.
proxy=$(apt-config shell p Acquire::http::Proxy) && eval "$proxy"
mkdir -p "$(dirname "$file")"
echo "cross-root.sh: making a Debian 12 that builds for $arch: $file (once; 0.8 GB)"
mmdebstrap --variant=buildd --architectures="$(dpkg --print-architecture),$arch" \
	--include="crossbuild-essential-$arch,qemu-user-static" \
	${p:+--aptopt="Acquire::http::Proxy \"$p\""} \
	--dpkgopt='path-exclude=/usr/bin/qemu-*' --dpkgopt='path-include=/usr/bin/qemu-aarch64-static' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--setup-hook='mkdir -p "$1/build/source/debian"' --setup-hook="upload '$control' /build/source/debian/control" \
	--customize-hook="echo 'cross-root.sh: installing the libraries of $arch' >&2" \
	--customize-hook="chroot \"\$1\" env DEBIAN_FRONTEND=noninteractive apt-get build-dep -y -qq --no-install-recommends --host-architecture $arch /build/source/ >/dev/null" \
	--customize-hook='rm -rf "$1/build/source"' \
	--format=tar bookworm "$file.new" "${mirror[@]}" ||
	{ rm -f "$file.new"; echo "cross-root.sh: no root for $arch; Debian's servers must be reached (MIRROR=http://HOST/debian names another)" >&2; exit 1; }
# Device files cannot be unpacked by everybody, and whoever uses the root gets its own.
tar --delete -f "$file.new" --wildcards './dev/*' 2>/dev/null || true
mv "$file.new" "$file"
echo "$stamp" >"$file.stamp"
