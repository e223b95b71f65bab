# SPDX-License-Identifier: Apache-2.0
#
# A thin front door: meson and ninja do the work. `make help` says what there is.
# Variables: BUILD (build directory), PREFIX and DESTDIR (install), ARCH (deb, bundle and check-bundle: amd64 or arm64),
# MIRROR (Debian's, for another ARCH), NAME and FULL (bench), TESTS (names or meson test options for the check targets),
# KHRONOS (folder of a loader), FUZZ_SECONDS, MESON_FLAGS and NINJA_FLAGS (passed on), TEST_LIMIT (seconds, 0 = none).

BUILD ?= build
PREFIX ?=
DESTDIR ?=
ARCH ?= $(shell dpkg --print-architecture 2>/dev/null)
TESTS ?=
TEST_LIMIT ?= 0
FUZZ_SECONDS ?= 20
MESON_FLAGS ?=
NINJA_FLAGS ?=

MAKEFLAGS += --no-print-directory
SETUP = meson setup $(if $(PREFIX),--prefix=$(abspath $(PREFIX))) $(MESON_FLAGS)
NINJA = ninja $(NINJA_FLAGS)
RUN_TESTS = tools/run-tests.py --limit $(TEST_LIMIT)
# Programs that are not ours cannot load a library built with a sanitizer; lint judges text, not running code.
NO_FOREIGN = --no-suite system --no-suite lint
# gcc warns of uninitialised variables that are none once a sanitizer has rewritten the code.
SANITIZE = --buildtype=debugoptimized -Db_lundef=false -Dwerror=false
# A sanitizer's report must end the test. Leaks count too. What is not ours is left out by name, in the files of tests/.
SAN_ENV = ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 \
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$(CURDIR)/tests/tsan.supp:print_suppressions=0
VALGRIND = valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
	--show-leak-kinds=definite --suppressions=$(CURDIR)/tests/valgrind.supp

.PHONY: all
all: $(BUILD)/build.ninja   ## build everything into build/
	@$(NINJA) -C $(BUILD)

$(BUILD)/build.ninja:
	@command -v meson >/dev/null || { echo "meson is missing; 'make deps' installs what is needed" >&2; exit 1; }
	@echo "make: setting up $(BUILD)/"
	@$(SETUP) $(BUILD)

.PHONY: deps
deps:   ## install what is needed to build and test (apt, as root or with sudo)
	@tools/deps.sh build test

.PHONY: test
test: deps   ## install what is missing, build, run all tests
	@$(MAKE) all
	@echo "make: running all tests"
	@$(RUN_TESTS) -C $(BUILD) -- $(TESTS)

.PHONY: demo
demo:   ## install what is missing, build, show an urgent tenant beside a busy one
	@tools/deps.sh build demo
	@$(MAKE) all
	@BUILD=$(BUILD) bench/demo.sh

.PHONY: bench
bench: all   ## run benchmarks: NAME=interference, NAME=list, FULL=1 to judge
	@BUILD=$(BUILD) NAME=$(NAME) FULL=$(FULL) bench/run.sh

.PHONY: check
check: all   ## build and run the tests, installing nothing (TESTS="--suite unit")
	@$(RUN_TESTS) -C $(BUILD) -- $(TESTS)

.PHONY: check-asan
check-asan:   ## tests under AddressSanitizer and UBSan (build-asan/)
	@[ -e build-asan/build.ninja ] || $(SETUP) build-asan $(SANITIZE) -Db_sanitize=address,undefined \
		-Dc_args='-fno-omit-frame-pointer -fno-sanitize-recover=undefined'
	@$(NINJA) -C build-asan
	@$(SAN_ENV) $(RUN_TESTS) -C build-asan -- -t 4 $(NO_FOREIGN) $(TESTS)

.PHONY: check-tsan
check-tsan:   ## tests under ThreadSanitizer (build-tsan/)
	@[ -e build-tsan/build.ninja ] || $(SETUP) build-tsan $(SANITIZE) -Db_sanitize=thread
	@$(NINJA) -C build-tsan
	@$(SAN_ENV) setarch -R $(RUN_TESTS) -C build-tsan -- -t 8 $(NO_FOREIGN) $(TESTS)

.PHONY: check-valgrind
check-valgrind: all   ## unit and fuzz tests under valgrind
	@$(RUN_TESTS) -C $(BUILD) -- -t 20 --suite unit --suite fuzz $(TESTS) \
		--wrapper '$(VALGRIND)'

.PHONY: check-khronos
check-khronos: all   ## tests of the layer under the Khronos OpenCL loader (KHRONOS=directory of its libOpenCL.so.1)
	@[ -e '$(KHRONOS)/libOpenCL.so.1' ] || { echo 'make: KHRONOS=DIR names no folder with libOpenCL.so.1' >&2; exit 1; }
	@grep -q OCL_ICD_FILENAMES '$(KHRONOS)/libOpenCL.so.1' || { echo 'make: that is not the Khronos loader' >&2; exit 1; }
	@LD_LIBRARY_PATH='$(KHRONOS)' $(RUN_TESTS) -C $(BUILD) -- --suite shim $(TESTS)

.PHONY: check-clang
check-clang:   ## build with clang and run the tests (build-clang/)
	@[ -e build-clang/build.ninja ] || CC=clang $(SETUP) build-clang
	@$(NINJA) -C build-clang
	@$(RUN_TESTS) -C build-clang -- $(NO_FOREIGN) $(TESTS)

.PHONY: cross-aarch64
cross-aarch64:   ## build what tenants load for 64-bit Arm and test it under qemu-user (build-aarch64/)
	@[ -e build-aarch64/build.ninja ] || $(SETUP) build-aarch64 --cross-file packaging/cross-aarch64.ini -Dshim_only=true
	@$(NINJA) -C build-aarch64
	@$(RUN_TESTS) -C build-aarch64 -- -t 10 $(TESTS)

.PHONY: fuzz-smoke
fuzz-smoke:   ## run each fuzz target for FUZZ_SECONDS (20) seconds (build-fuzz/)
	@[ -e build-fuzz/build.ninja ] || CC=clang $(SETUP) build-fuzz $(SANITIZE) -Dfuzz=true -Db_sanitize=address,undefined \
		-Dc_args='-fno-omit-frame-pointer -fno-sanitize-recover=undefined'
	@$(NINJA) -C build-fuzz fuzz-targets
	@tools/fuzz-smoke.sh build-fuzz $(FUZZ_SECONDS)

.PHONY: lint
lint:   ## layers, forbidden calls, headers, exports, cppcheck, clang-tidy
	@tools/deps.sh build lint
	@$(MAKE) all
	@tools/lint.sh $(BUILD)

.PHONY: man
man: all   ## man pages into build/docs/man/
	@ls $(BUILD)/docs/man/*.[1-8] 2>/dev/null || echo "make: no man pages are built"

.PHONY: install
install: all   ## install: PREFIX=/usr/local, DESTDIR=
	@$(if $(PREFIX),meson configure $(BUILD) --prefix=$(abspath $(PREFIX)))
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD)

# Another architecture is built in a root of its own, which has the build packages; this machine needs the tools to make one.
FOR_DEB = package $(if $(filter $(ARCH),$(shell dpkg --print-architecture 2>/dev/null)),build,cross)

.PHONY: deb
deb:   ## Debian packages of what is committed, into build-deb/ (ARCH=arm64: cross-built)
	@tools/deps.sh $(FOR_DEB)
	@MIRROR=$(MIRROR) tools/deb.sh --arch '$(ARCH)'

.PHONY: bundle
bundle:   ## one file for machines without Internet, for this release and ARCH
	@tools/deps.sh $(FOR_DEB)
	@MIRROR=$(MIRROR) tools/bundle.sh --arch '$(ARCH)'

.PHONY: check-bundle
check-bundle: bundle   ## the bundle in a fresh minimal Debian without network (ARCH=arm64: under qemu)
	@tools/deps.sh cross
	@MIRROR=$(MIRROR) tests/system/test_bundle.py . --life '$(ARCH)'

.PHONY: clean
clean:   ## remove every build directory
	rm -rf $(BUILD) build-asan build-tsan build-clang build-fuzz build-aarch64 build-deb

.PHONY: help
help:   ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
