#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes a folder with everything that tests/gpu/run.sh needs on a machine without meson and our libraries: binaries of this tree
# and the shared libraries beside them, found by their place. Usage: tests/gpu/pack.sh FOLDER; then run.sh --build FOLDER OUT.
set -eu
[ $# -eq 1 ] || { echo "usage: tests/gpu/pack.sh FOLDER" >&2; exit 2; }
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
build=$root/build-gpu
mkdir -p "$1"
out=$(CDPATH= cd -- "$1" && pwd)

# DT_RPATH, not RUNPATH: the libraries' own needs are to be found there as well. A tenant's environment stays as it is.
[ -e "$build/build.ninja" ] || meson setup "$build" "$root" --buildtype=release -Db_ndebug=false -Dwerror=false \
	"-Dc_link_args=-Wl,--disable-new-dtags,-rpath,\$ORIGIN/../../lib"
set -- src/cli/penstock src/daemon/penstockd src/backend/penstock-probe src/shim/cuda/libcuda.so.1 src/shim/nvml/libnvidia-ml.so.1 \
	src/shim/opencl/libpenstock-opencl.so src/shim/opencl/loader/libOpenCL.so.1 \
	bench/cuload bench/cuapibench bench/cuescape tests/gpu/cucheck tests/gpu/cumicro
ninja -C "$build" "$@"

rm -rf "$out/src" "$out/bench" "$out/tests" "$out/lib"
mkdir -p "$out/lib"
for f; do
	mkdir -p "$out/$(dirname "$f")"
	cp -L "$build/$f" "$out/$f"
	strip --strip-unneeded "$out/$f"
done
# What goes into a tenant's process must lead nobody to our copies: the entry becomes one that says nothing (DT_DEBUG).
python3 - "$out"/src/shim/*/*.so* "$out"/src/shim/*/*/*.so* "$out"/bench/* "$out"/tests/gpu/* <<-'PY'
	import struct, sys
	for path in sys.argv[1:]:
	    with open(path, 'r+b') as f:
	        head = f.read(64)
	        at, size, count = struct.unpack_from('<Q', head, 32)[0], *struct.unpack_from('<HH', head, 54)
	        for i in range(count):
	            f.seek(at + i * size)
	            kind, _, offset, _, _, length = struct.unpack('<IIQQQQ', f.read(40))
	            if kind != 2:   # PT_DYNAMIC
	                continue
	            for entry in range(offset, offset + length, 16):
	                f.seek(entry)
	                if struct.unpack('<q', f.read(8))[0] in (15, 29):   # DT_RPATH, DT_RUNPATH
	                    f.seek(entry)
	                    f.write(struct.pack('<q', 21))
PY
# Of the C library nothing is taken along: it belongs to the machine's own loader.
for f in src/cli/penstock src/daemon/penstockd src/backend/penstock-probe; do
	ldd "$build/$f" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | grep -Ev '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so' | while read -r lib; do
	cp -L "$lib" "$out/lib/"
done
newest=$(find "$out" -type f -exec objdump -T {} + 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -1)
echo "$newest" >"$out/GLIBC"
echo "packed: $out, $(du -sh "$out" | cut -f1), needs $newest or later"
