#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# All static checks of the tree, on a build directory that is up to date. Usage: tools/lint.sh BUILD [STEP...]
# Steps: layering glibc headers cppcheck tidy format. All run, each says what it checked; exit code 1 if any found a fault.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd) || exit 2
shift
cd "$root" || exit 2
jobs=$(nproc)

step_layering() {
	tools/lint-layering.py --build "$build"
}
step_glibc() {
	tools/check-glibc.py "$build"
}
step_headers() {
	tools/lint-headers.sh
}
step_cppcheck() {
	mkdir -p "$build/cppcheck"
	local dirs=(src)
	[ -d simgpu ] && dirs+=(simgpu)
	# Suppressed: what it cannot know without the libraries' headers, and leaks: it does not know
	# __attribute__((cleanup)); ASan and valgrind find the real ones. And comparing a literal: rows of X-macros do.
	# Included first: whose loops it cannot see, it takes for no loops.
	local queue
	queue=$(find /usr/include -path '*/sys/queue.h' | head -n 1)
	cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
		--suppress=missingIncludeSystem --suppress=unknownMacro --suppress=literalWithCharPtrCompare \
		--suppress=memleak --suppress=resourceLeak -D__linux__ -D_GNU_SOURCE \
		--include=/usr/include/utlist.h --include=/usr/include/uthash.h --include="$queue" --cppcheck-build-dir="$build/cppcheck" \
		--error-exitcode=1 --template='{file}:{line}: {severity}: {message} [{id}]' -j "$jobs" -I src -I include -I . "${dirs[@]}" ||
		return 1
	echo "cppcheck: ${dirs[*]}: 0 violations"
}
# The product's sources that this build compiles, from its compile_commands.json.
product_sources() {
	python3 - "$build" "$root" <<-'PY'
		import json, os, sys
		build, root = sys.argv[1:]
		with open(os.path.join(build, 'compile_commands.json')) as f:
		    files = {os.path.relpath(os.path.realpath(os.path.join(c['directory'], c['file'])), root) for c in json.load(f)}
		print('\n'.join(sorted(f for f in files if f.startswith(('src/', 'simgpu/')) and os.path.exists(f))))
	PY
}
step_tidy() {
	local files
	files=$(product_sources)
	# gcc's names of warnings mean nothing to clang; the layout of a report must stay file:line.
	if ! echo "$files" | xargs -r -n 4 -P "$jobs" clang-tidy -p "$build" --quiet \
		--extra-arg=-Wno-unknown-warning-option 2>"$build/clang-tidy.err"; then
		grep -E 'error:' "$build/clang-tidy.err" >&2
		return 1
	fi
	echo "clang-tidy: $(echo "$files" | wc -l) sources: 0 violations"
}
# Told, not enforced: tables and continuation lines are laid out for reading, which the tool cannot know.
step_format() {
	local differ=0 total=0 file
	while read -r file; do
		total=$((total + 1))
		clang-format --dry-run -Werror "$file" >/dev/null 2>&1 || differ=$((differ + 1))
	done < <(git ls-files '*.c' '*.h')
	echo "clang-format: $differ of $total files would be laid out otherwise (told only; 'git clang-format' for a change)"
	git ls-files '*.c' '*.h' '*.py' '*.sh' | xargs -r wc -l |
		awk '$2 != "total" && $1 > 600 { print $2 ":" $1 ": note: longer than 600 lines" }'
	# Trailing blanks and a missing last newline are faults in any layout.
	if git grep -nIE '[[:blank:]]+$' -- '*.c' '*.h' '*.py' '*.sh' '*meson.build' Makefile; then
		echo "format: blanks at the end of these lines" >&2
		return 1
	fi
}

failed=()
for step in "${@:-layering glibc headers cppcheck tidy format}"; do
	for s in $step; do
		echo "lint: $s"
		"step_$s" || failed+=("$s")
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "lint: faults in: ${failed[*]}"
	exit 1
fi
echo "lint: no faults"
