#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One file for a machine without Internet: our packages, every package of this release that they need beyond a minimal system, a
# script that installs what is missing, and the pages to read first. Usage: tools/bundle.sh [OUT]   (build-deb/)
# Run it on a machine of the release (Debian 12, Ubuntu 24.04) and the architecture that the bundle is for, with apt's lists fresh.
set -euo pipefail

out=$(realpath -m "${1:-build-deb}")
top=$(git rev-parse --show-toplevel)
"$top/tools/deb.sh" "$out"
version=$(dpkg-deb -f "$out"/penstock_*.deb Version)
arch=$(dpkg-deb -f "$out"/penstock_*.deb Architecture)
release=$(. /etc/os-release; echo "$ID$VERSION_ID")
name=penstock-$version-$release-$arch
stage=$out/$name
rm -rf "$stage"
mkdir -p "$stage/packages"
cp "$out"/penstock_*.deb "$out"/penstock-shims_*.deb "$stage/packages/"
cp "$top/README.md" "$top/README.zh-CN.md" "$top/docs/GETTING-STARTED.md" "$top/docs/GETTING-STARTED.zh-CN.md" "$top/LICENSE" "$stage/"

# The closure of our dependencies, without what every Debian system has (Essential, and what that needs).
wanted=$(for deb in "$stage"/packages/*.deb; do dpkg-deb -f "$deb" Depends; done |
	tr ',' '\n' | sed 's/([^)]*)//; s/|.*//; s/ //g' | grep -v '^penstock' | sort -u)
closure=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
	--no-pre-depends $wanted | grep '^[a-z0-9]' | grep -v '[<>:]' | sort -u)
echo "bundle.sh: fetching what $(wc -w <<<"$wanted") dependencies need"
(cd "$stage/packages" && for package in $closure; do
	priority=$(apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Priority: //p' | head -1)
	case $priority in required | '') continue ;; esac
	apt-get download "$package" >/dev/null 2>&1 || echo "bundle.sh: $package: not to be had, left out" >&2
done)

cat >"$stage/install.sh" <<'EOF'
#!/bin/sh
# Installs Penstock without Internet. Usage: sudo ./install.sh
# Packages that this machine has in the same or a newer version are left alone.
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
set --
for deb in packages/*.deb; do
	name=$(dpkg-deb -f "$deb" Package); new=$(dpkg-deb -f "$deb" Version)
	old=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$name" 2>/dev/null || true)
	case $old in "installed "*) dpkg --compare-versions "${old#installed }" ge "$new" && continue ;; esac
	set -- "$@" "$deb"
done
[ $# = 0 ] && { echo "install.sh: everything is installed already / 均已安装"; exit 0; }
dpkg -i "$@"
echo
echo "Next / 接下来:  penstock doctor    penstock init    penstock run --memory 4G --compute 30% -- PROGRAM"
EOF
sed -i "s/@RELEASE@/$release/; s/@ARCH@/$arch/g" "$stage/install.sh"
chmod +x "$stage/install.sh"
(cd "$stage" && sha256sum packages/*.deb >SHA256SUMS)
tar -C "$out" --owner=0 --group=0 --sort=name -cf - "$name" | xz -T0 >"$out/$name.tar.xz"
rm -rf "$stage"
ls -l "$out/$name.tar.xz"
