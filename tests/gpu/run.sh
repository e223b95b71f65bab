#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The suite for a real NVIDIA GPU: checks first, then measurements; one report and CSV files in OUT.
#
#   tests/gpu/run.sh [--build DIR] [--sim [CARD]] [--short] [--seconds N] OUT
#
#   --build DIR   a build of this tree, or what tests/gpu/pack.sh made; otherwise build/ is used, and built if meson is there
#   --sim [CARD]  the same on a simulated accelerator (T4); everything is marked as such
#   --short       checks only, few and small
#   --seconds N   after this many no new step begins (500)
#   --only STEP   this step, and others named so; --driver 11.4|12.2|13.0: which stand-in driver, with --sim
#
# Needs a driver, gcc and python3; PyTorch and nvcc are used if they are there. Works as a normal user, installs nothing and changes
# no setting of the card. Exit: 0 all checks passed, 1 one failed, 2 usage, 77 nothing to run on.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
command -v python3 >/dev/null || { echo "python3 is missing"; exit 77; }

build=
for a; do
	[ "${last:-}" = --build ] && build=$a
	last=$a
done
if [ -z "$build" ]; then
	build=$root/build
	if [ ! -x "$build/src/cli/penstock" ]; then
		command -v meson >/dev/null && command -v ninja >/dev/null ||
			{ echo "there is no build: give --build DIR (tests/gpu/pack.sh makes one that needs nothing else)"; exit 77; }
		meson setup "$build" "$root" && ninja -C "$build"
	fi
	set -- --build "$build" "$@"
fi
exec python3 -B "$here/suite.py" "$@"
