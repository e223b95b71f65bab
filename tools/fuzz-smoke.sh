#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every fuzz target of a build directory for a while. Usage: tools/fuzz-smoke.sh BUILD SECONDS
# New inputs go to BUILD/fuzz-corpus/NAME; the committed tests/fuzz/corpus/NAME is read and never written.
# A crashing input is left in BUILD/fuzz-crashes: fix the fault, then commit the input to the corpus.
set -euo pipefail

build=$1
seconds=$2
sources=$(dirname "$0")/..
crashes=$build/fuzz-crashes
mkdir -p "$crashes"
bad=()
ran=0
for target in "$build"/tests/fuzz/fuzz_*; do
	[ -f "$target" ] && [ -x "$target" ] || continue
	name=${target##*/fuzz_}
	corpus=$build/fuzz-corpus/$name
	mkdir -p "$corpus"
	dirs=("$corpus")
	[ -d "$sources/tests/fuzz/corpus/$name" ] && dirs+=("$sources/tests/fuzz/corpus/$name")
	echo "fuzz: $name for $seconds s"
	if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
		-artifact_prefix="$crashes/$name-" "${dirs[@]}" </dev/null >"$build/fuzz-$name.log" 2>&1; then
		bad+=("$name")
		tail -n 30 "$build/fuzz-$name.log"
	fi
	grep -aE 'number_of_executed_units' "$build/fuzz-$name.log" | sed 's/^stat::number_of_executed_units:/  inputs tried:/' || true
	ran=$((ran + 1))
done
if [ "$ran" -eq 0 ]; then
	echo "fuzz: no targets in $build/tests/fuzz" >&2
	exit 1
fi
echo "fuzz: $((ran - ${#bad[@]})) of $ran targets without a fault${bad[*]:+; failed: ${bad[*]}}"
[ ${#bad[@]} -eq 0 ]
