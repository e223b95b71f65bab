#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One file for a machine without Internet: our packages, every package of the release that they need beyond what each system has, a
# script that installs what is missing, and the pages to read first. Usage: tools/bundle.sh [--arch amd64|arm64] [OUT]
# For this machine's own release (Debian 12, Ubuntu 24.04) and architecture, with apt's lists fresh; with --arch arm64 on amd64,
# for Debian 12 on arm64. OUT and MIRROR as in tools/deb.sh and tools/cross-root.sh.
set -euo pipefail

top=$(git rev-parse --show-toplevel)
here=$(dpkg --print-architecture)
arch=$here
if [ "${1:-}" = --arch ]; then
	arch=${2:-$here}
	shift 2
fi
out=build-deb
[ "$arch" = "$here" ] || out=build-deb/$arch
out=$(realpath -m "${1:-$out}")
command -v dpkg-scanpackages >/dev/null || { echo "bundle.sh: dpkg-scanpackages is missing; tools/deps.sh package installs it" >&2; exit 1; }
"$top/tools/deb.sh" --arch "$arch" "$out"
version=$(dpkg-deb -f "$out"/penstock_*.deb Version)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# An apt that knows of no installed package: it names the whole closure, and this machine's own database is not looked at.
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
: >"$work/status"
apt_options=(-o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= -o APT::Architecture="$arch"
	-o APT::Architectures="$arch" -o APT::Install-Recommends=false -o Debug::NoLocking=true)
release=$(. /etc/os-release; echo "$ID$VERSION_ID")
if [ "$arch" != "$here" ]; then
	release=debian12
	key=/usr/share/keyrings/debian-archive-keyring.gpg
	mirror=${MIRROR:-http://deb.debian.org/debian}
	for suite in "$mirror bookworm" "$mirror bookworm-updates" "$mirror-security bookworm-security"; do
		echo "deb [signed-by=$key] $suite main"
	done >"$work/sources.list"
	apt_options+=(-o Dir::State::Lists="$work/lists" -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::Etc::PreferencesParts=/dev/null -o Acquire::Languages=none -o APT::Update::Post-Invoke-Success::=)
	echo "bundle.sh: fetching the lists of Debian 12 for $arch"
	apt-get "${apt_options[@]}" -qq update
fi
name=penstock-$version-$release-$arch
stage=$out/$name
rm -rf "$stage"
mkdir -p "$stage/packages"
# Everything that our source makes, but for debugging symbols. What only programmers need lies apart, and is not installed.
for deb in "$out"/*.deb; do
	[ -z "$(dpkg-deb -f "$deb" Auto-Built-Package)" ] || continue
	case $(dpkg-deb -f "$deb" Section) in
	libdevel) mkdir -p "$stage/development"; cp "$deb" "$stage/development/" ;;
	*) cp "$deb" "$stage/packages/" ;;
	esac
done
ours=$(for deb in "$stage"/packages/*.deb; do dpkg-deb -f "$deb" Package; done)
cp "$top/README.md" "$top/README.zh-CN.md" "$top/docs/GETTING-STARTED.md" "$top/docs/GETTING-STARTED.zh-CN.md" "$top/LICENSE" "$stage/"

# The closure of our dependencies, without what no system can lack.
apt-get "${apt_options[@]}" -s install "$stage"/packages/*.deb | awk '$1 == "Inst" { print $2 }' |
	grep -vxF "$ours" | sort -u >"$work/closure"
xargs -a "$work/closure" apt-cache "${apt_options[@]}" show --no-all-versions |
	awk '/^Package: / { name = $2 } /^Priority: required$/ { print name }' | sort -u >"$work/required"
mapfile -t others < <(comm -23 "$work/closure" "$work/required")
echo "bundle.sh: fetching ${#others[@]} packages that ours need"
(cd "$stage/packages" && apt-get "${apt_options[@]}" -qq download "${others[@]}")
(cd "$stage" && dpkg-scanpackages --multiversion packages >Packages 2>"$work/scan" || { cat "$work/scan" >&2; exit 1; })

cat >"$stage/install.sh" <<'END'
#!/bin/sh
# Installs Penstock without Internet. Usage: sudo ./install.sh
# Packages that this machine has and that serve are left alone; files of /etc that were changed stay as they are.
set -eu
cd "$(dirname "$0")"
. /etc/os-release
want=@RELEASE@
if [ "$ID$VERSION_ID" != "$want" ] || [ "$(dpkg --print-architecture)" != @ARCH@ ]; then
	echo "install.sh: this bundle is for $want @ARCH@; here is $ID$VERSION_ID $(dpkg --print-architecture)" >&2
	echo "install.sh: 此安装包用于 $want @ARCH@，本机是 $ID$VERSION_ID $(dpkg --print-architecture)" >&2
	exit 2
fi
[ "$(id -u)" = 0 ] || { echo "install.sh: run as root / 请以 root 运行: sudo ./install.sh" >&2; exit 2; }
sha256sum --quiet -c SHA256SUMS || { echo "install.sh: a file is damaged; copy the bundle again / 文件损坏，请重新复制" >&2; exit 1; }

# An apt that sees this folder and no other source, with lists of its own: nothing is asked of a network.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [trusted=yes] file:$(pwd | sed 's/%/%25/g; s/ /%20/g; s/\[/%5b/g; s/\]/%5d/g') ./" >"$work/sources.list"
bundle_apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none \
		-o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}
fail() {
	echo "install.sh: not installed; apt's words above say why / 安装未完成，原因见上面 apt 的输出" >&2
	exit 1
}
bundle_apt -qq update || fail
plan=$(bundle_apt -q -s --no-remove --no-install-recommends install @OURS@) || { echo "$plan" >&2; fail; }
case $plan in
*Inst\ *) ;;
*) echo "install.sh: everything is installed already / 均已安装"; exit 0 ;;
esac
bundle_apt -qq -y --no-remove --no-install-recommends install @OURS@ || fail
echo
echo "Next / 接下来:  penstock doctor    penstock init    penstock run --memory 4G --compute 30% -- PROGRAM"
END
sed -i "s/@RELEASE@/$release/; s/@ARCH@/$arch/g; s/@OURS@/$(tr '\n' ' ' <<<"$ours")/" "$stage/install.sh"
chmod +x "$stage/install.sh"
(cd "$stage" && sha256sum Packages packages/*.deb >SHA256SUMS)
# Not compressed: packages are, and a small system has no xz to open it with.
tar -C "$out" --owner=0 --group=0 --sort=name -cf "$out/$name.tar" "$name"
rm -rf "$stage"
ls -l "$out/$name.tar"
