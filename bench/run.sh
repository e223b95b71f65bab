#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make bench` calls: BUILD = build directory, NAME = a benchmark, the first words of several, `list`, or nothing for all;
# FULL=1 judges the goals, otherwise a quick profile only prints.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
exec python3 -B "$here/run.py" --build "${BUILD:-build}" ${NAME:+"$NAME"}
