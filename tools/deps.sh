#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what tools/packages.txt lists for the groups named on the command line and is not there yet.
# Usage: tools/deps.sh [--list] GROUP...      (groups: build demo test lint package cross)
# Debian 12 and Ubuntu 24.04; as root, else through sudo. Does nothing, and needs no network, if all is there.
set -euo pipefail

list=${PEN_PACKAGES:-$(dirname "$0")/packages.txt}
only_list=
if [ "${1:-}" = --list ]; then
	only_list=1
	shift
fi
if [ $# -eq 0 ]; then
	echo "usage: $0 [--list] GROUP...   (groups: build demo test lint package cross)" >&2
	exit 2
fi

have() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}

# Lines of the wanted groups, as "GROUP ALTERNATIVES", each package once and a needed one before a wished one.
wanted() {
	awk -v groups=" $* " '
		/^[ \t]*(#|$)/ { next }
		{ g = $1; sub(/\?$/, "", g) }
		index(groups, " " g " ") && !seen[$2]++ { print $1, $2 }' "$list"
}

for group in "$@"; do
	if ! grep -qE "^$group\\??[[:space:]]" "$list"; then
		echo "$0: no group '$group' in $list" >&2
		exit 2
	fi
done

if [ -n "$only_list" ]; then
	wanted "$@" | awk '{ print $2 }'
	exit 0
fi
if ! command -v dpkg-query >/dev/null; then
	echo "$0: not a Debian or Ubuntu system. Please install the counterparts of:" >&2
	wanted "$@" | awk '{ printf "  %s\n", $2 }' >&2
	exit 1
fi

# Of alternatives the first that this release has; empty if none. Not grep -q: under pipefail it would look like a miss.
available() {
	local name
	for name in ${1//|/ }; do
		if [[ "$(apt-cache policy "$name" 2>/dev/null)" == *"Candidate: "[!\(]* ]]; then
			echo "$name"
			return
		fi
	done
}
names_of() {
	printf '%s\n' "$@" | sed 's/|.*//' | tr '\n' ' '
}

have_lists=$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null || true)
needed=() wished=()
while read -r group names; do
	for name in ${names//|/ }; do
		have "$name" && continue 2
	done
	if [[ $group != *\? ]]; then
		needed+=("$names")
	elif [ -z "$have_lists" ] || [ -n "$(available "$names")" ]; then
		wished+=("$names")
	fi
done < <(wanted "$@")
[ $((${#needed[@]} + ${#wished[@]})) -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	as_root=(sudo)
	if ! command -v sudo >/dev/null || { ! sudo -n true 2>/dev/null && { [ ! -t 0 ] || ! sudo true; }; }; then
		echo "$0: not there, and neither root nor sudo to install it. As root, run:" >&2
		echo "  apt-get install --no-install-recommends $(names_of "${needed[@]}" "${wished[@]}")" >&2
		[ ${#needed[@]} -gt 0 ] && exit 1
		echo "deps: none of these is needed to build; going on, tests that use them are skipped" >&2
		exit 0
	fi
fi
apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q "$@" </dev/null
}

echo "deps: to be installed ($*): $(names_of "${needed[@]}" "${wished[@]}")"
# A mirror that fails in part is no reason to stop: the install below tells what really lacks.
apt update || echo "deps: 'apt-get update' failed; going on with the package lists that are there" >&2

install=()
for names in "${needed[@]}"; do
	pick=$(available "$names")
	if [ -z "$pick" ]; then
		echo "$0: this release has no package $names" >&2
		exit 1
	fi
	install+=("$pick")
done
[ ${#install[@]} -eq 0 ] || apt install -y --no-install-recommends "${install[@]}"

# One by one: a wished package that does not install must not take the others with it.
for names in "${wished[@]}"; do
	pick=$(available "$names")
	if [ -z "$pick" ] || ! apt install -y --no-install-recommends "$pick"; then
		echo "deps: no package $names here; tests that need it are skipped" >&2
	fi
done
