#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make demo` calls when everything is built: BUILD = build directory.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
exec python3 -B "$here/demo.py" --build "${BUILD:-build}"
