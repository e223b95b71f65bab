#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every header compiles alone: the public ones as strict C11 and without our own, the internal ones as the project's C.
# Usage: tools/lint-headers.sh [ROOT]
set -uo pipefail
cd "${1:-$(dirname "$0")/..}" || exit 2

cc=${CC:-gcc}
count=0 bad=0
compile() {   # FILE FLAG...
	local file=$1
	shift
	count=$((count + 1))
	# Through an #include, as a user would: compiling the file itself would warn of `#pragma once` and unused statics.
	if ! echo "#include \"$file\"" | "$cc" -x c -fsyntax-only -Wall -Wextra -Werror "$@" -I. -; then
		echo "$file:1: does not compile alone" >&2
		bad=$((bad + 1))
	fi
}
while read -r file; do
	compile "$file" -std=c11 -Wpedantic -Iinclude
	if grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$file" /dev/null | grep -v '"penstock/'; then
		echo "$file:1: a public header includes public headers only" >&2
		bad=$((bad + 1))
	fi
done < <(find include -name '*.h' 2>/dev/null | sort)
while read -r file; do
	compile "$file" -std=gnu17 -D_GNU_SOURCE -Isrc -Iinclude
done < <(find src simgpu -name '*.h' 2>/dev/null | sort)
echo "headers: $count compiled alone: $bad violations"
[ "$bad" -eq 0 ]
