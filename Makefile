# SPDX-License-Identifier: Apache-2.0
#
# The one Makefile of kvmd. `make help` names every target and variable; it is
# made from the lines below that start with "##" (targets) and "#:" (variables).
#
# Sources are found by directory: a new file in a room is built without a
# change here. A test is one binary per tests/*/check_*.c, or a script
# tests/*/*.sh; other .c files of a test directory are linked into its tests.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

VERSION := 0.1.0
SOVERSION := 0

#: V=1              print whole commands
V ?= 0
#: D=KIND           instrumented build: asan (ASan and UBSan), tsan, ubsan, gcov
D ?=
#: O=DIR            where everything built goes [build, build-KIND with D=]
O ?= build$(if $(D),-$(D))
#: CUDA=auto|0|1    build what needs nvcc: if found, never, must [auto]
CUDA ?= auto
#: WERROR=1         warnings are errors
WERROR ?= 0
#: CC, CXX, AR      compilers and archiver [gcc, g++, ar]
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
AR ?= ar
PKG_CONFIG ?= pkg-config
#: CFLAGS, LDFLAGS  added to what the build needs [-O2 -g, none]
CFLAGS ?= -O2 -g
LDFLAGS ?=
#: TESTS=GLOB       run only the suites whose name matches, as 'unit/*' or '*conf*'
TESTS ?=
#: J=N              test suites at once [number of processors]
J ?= $(shell nproc)
#: FUZZ_RUNS=N      inputs per fuzz target in `make fuzz` [5000000]
FUZZ_RUNS ?= 5000000
#: SEEDS=N          daemons killed and restarted in `make check-crash` [200]
SEEDS ?= 200
#: SEED=N           the first seed of `make check-crash` [drawn and printed]
SEED ?=
#: BENCH_DIR=DIR    where `make bench-tier` makes its files, 12 GiB [.]
BENCH_DIR ?= .

#: DESTDIR=DIR      prepended to every installed path
DESTDIR ?=
#: prefix           [/usr/local]
prefix ?= /usr/local
#: bindir           [$(prefix)/bin]
bindir ?= $(prefix)/bin
#: sbindir          [$(prefix)/sbin]
sbindir ?= $(prefix)/sbin
#: libdir           [$(prefix)/lib]
libdir ?= $(prefix)/lib
#: includedir       [$(prefix)/include]
includedir ?= $(prefix)/include
#: mandir           [$(prefix)/share/man]
mandir ?= $(prefix)/share/man
#: completiondir    [$(prefix)/share/bash-completion/completions]
completiondir ?= $(prefix)/share/bash-completion/completions
#: unitdir          [$(prefix)/lib/systemd/system]
unitdir ?= $(prefix)/lib/systemd/system
#: sysusersdir      [$(prefix)/lib/sysusers.d]
sysusersdir ?= $(prefix)/lib/sysusers.d
#: sysconfdir       [/etc]
sysconfdir ?= /etc
#: runstatedir      [/run]
runstatedir ?= /run
#: daemon_name      installed name of kvmd: binary, unit, directory, manual [kvmd]
daemon_name ?= kvmd
#: kvctl_name       installed name of kvctl [kvctl]
kvctl_name ?= kvctl
#: keeper_name      installed name of kvkeeper [kvkeeper]
keeper_name ?= kvkeeper
#: daemon_user      the user the unit runs as [$(daemon_name)]
daemon_user ?= $(daemon_name)

# Packages

goals := $(or $(MAKECMDGOALS),all)
building := $(filter-out clean help deps abi-update,$(goals))
need := build $(if $(filter check% fuzz gpu-kit bench-gpu%,$(goals)),test) $(if $(filter bench-tier%,$(goals)),bench)
ifneq ($(building),)
deps_verb := $(if $(filter check% fuzz demo bench%,$(goals)),ensure,check)
ifneq ($(shell scripts/deps.sh missing $(need) 2>&1),)
# It says on stderr what is missing and the command, or runs it.
$(shell scripts/deps.sh $(deps_verb) $(need) >&2)
ifneq ($(shell scripts/deps.sh missing $(need) 2>&1),)
$(error packages are missing)
endif
endif
endif

# What each part links with; pkg-config's names.
PKGS_KVMD := liburing inih libxxhash
PKGS_LIBKVCLIENT := libcrypto
PKGS_KVCTL := json-c smartcols
PKGS_KVTRACE := zlib json-c
PKGS_KVBENCH := json-c
PKGS_KVINFER := json-c libcrypto zlib
PKGS_TESTS := check
# Used when they are there; each defines HAVE_<NAME>.
PKGS_OPT_KVBENCH := libzmq

ifneq ($(building),)
pkg_have = $(shell for p in $(1); do $(PKG_CONFIG) --exists $$p && echo $$p; done)
pkg_cflags = $(if $(1),$(shell $(PKG_CONFIG) --cflags $(1)))
pkg_libs = $(if $(1),$(shell $(PKG_CONFIG) --libs $(1)))

# ThreadSanitizer cannot see into libzmq and takes its hand-overs for races.
OPT_KVBENCH := $(if $(filter tsan,$(D)),,$(call pkg_have,$(PKGS_OPT_KVBENCH)))
PKG_CFLAGS := $(call pkg_cflags,$(sort $(PKGS_KVMD) $(PKGS_LIBKVCLIENT) $(PKGS_KVCTL) \
	$(PKGS_KVTRACE) $(PKGS_KVBENCH) $(PKGS_KVINFER) $(OPT_KVBENCH)))
LIBS_KVMD := $(call pkg_libs,$(PKGS_KVMD)) -lpthread -lm
LIBS_LIBKVCLIENT := $(call pkg_libs,$(PKGS_LIBKVCLIENT)) -lpthread
# kvmd/lib's own, for the tools that use it; --as-needed drops the rest.
LIBS_UTIL := $(call pkg_libs,$(PKGS_KVMD)) -lpthread -lm
LIBS_KVCTL := $(call pkg_libs,$(PKGS_KVCTL))
LIBS_KVTRACE := $(call pkg_libs,$(PKGS_KVTRACE))
LIBS_KVBENCH := $(call pkg_libs,$(PKGS_KVBENCH) $(OPT_KVBENCH)) -lm
LIBS_KVINFER := $(call pkg_libs,$(PKGS_KVINFER)) -lpthread -lm
ifneq ($(filter check% fuzz build-tests gpu-kit bench-gpu%,$(goals)),)
CFLAGS_TESTS := $(call pkg_cflags,$(PKGS_TESTS))
LIBS_TESTS := $(call pkg_libs,$(PKGS_TESTS))
endif

HAVE_SDT := $(shell $(CC) -E -include sys/sdt.h -x c /dev/null >/dev/null 2>&1 && echo 1)
CC_IS_CLANG := $(findstring clang,$(shell $(CC) --version 2>/dev/null))
endif

# What nvcc builds is left out where there is none, and in instrumented builds.
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
USE_NVCC := $(if $(filter 0,$(CUDA)),,$(if $(D),,$(NVCC)))
ifeq ($(CUDA),0)
CUDA_SAYS := off (CUDA=0)
else ifneq ($(NVCC),)
CUDA_SAYS := $(NVCC) (CUDA=$(CUDA)); $(words $(KN_CU) $(wildcard tests/gpu/*.cu)) files of kernels to build
else ifeq ($(CUDA),1)
$(error CUDA=1, but there is no nvcc: install the CUDA toolkit, set NVCC=, or use CUDA=0)
else
CUDA_SAYS := off (CUDA=auto found no nvcc)
endif

# Flags

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wvla \
	-Wformat=2
ifeq ($(WERROR),1)
WARNINGS += -Werror
endif
WARNINGS_CXX := $(filter-out -Wstrict-prototypes -Wmissing-prototypes,$(WARNINGS))

ifeq ($(D),)
D_FLAGS :=
else ifeq ($(D),asan)
D_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(D),ubsan)
D_FLAGS := -fsanitize=undefined -fno-sanitize-recover=undefined
else ifeq ($(D),tsan)
D_FLAGS := -fsanitize=thread
# gcc's says that it does not model fences; the code's fences order no plain data.
D_FLAGS += $(if $(CC_IS_CLANG),,-Wno-tsan)
else ifeq ($(D),gcov)
D_FLAGS := --coverage -O0
else
$(error D=$(D) is none of asan, tsan, ubsan, gcov)
endif

DEFINES := -D_GNU_SOURCE \
	-DKVMD_VERSION='"$(VERSION)"' \
	-DKVMD_DAEMON_NAME='"$(daemon_name)"' \
	-DKVMD_KVCTL_NAME='"$(kvctl_name)"' \
	-DKVMD_RUNSTATEDIR='"$(runstatedir)"' \
	-DKVMD_SYSCONFDIR='"$(sysconfdir)"' \
	$(if $(HAVE_SDT),-DHAVE_SDT=1) \
	$(if $(filter libzmq,$(OPT_KVBENCH)),-DHAVE_ZMQ=1)
INCLUDES := -I. -Iinclude
ALL_CFLAGS = -std=gnu11 $(INCLUDES) $(DEFINES) $(PKG_CFLAGS) $(CFLAGS) $(WARNINGS) $(D_FLAGS)
ALL_LDFLAGS = -Wl,--as-needed $(LDFLAGS) $(D_FLAGS)
# The library's objects serve .so and .a: position independent, only KVC_API visible.
CFLAGS_LIBKVCLIENT := -fPIC -fvisibility=hidden

# Sources

objs = $(patsubst %.c,$(O)/obj/%.o,$(1))

KVMD_LIB_SRC := $(wildcard kvmd/lib/*.c)
KVMD_SRC := $(wildcard kvmd/*/*.c)
MAIN_SRC := $(wildcard kvmd/main.c)
LIBKVCLIENT_SRC := $(wildcard libkvclient/*.c)
LIBKVCLIENT_MAP := $(wildcard libkvclient/libkvclient.map)
LIBKVCLIENT_PC := $(wildcard libkvclient/libkvclient.pc.in)

# Kernels: one source, for the CPU by the C++ compiler, for GPUs by nvcc.
KN_SRC := $(wildcard kernels/*.c)
KN_CU := $(wildcard kernels/*.cu)

# One that uses another's files comes before it: that is the order of the archives.
TOOLS := $(foreach t,kvctl kvinfer kvtrace kvbench kvkeeper,$(if $(wildcard tools/$(t)/main.c),$(t)))
TOOL_SRC := $(wildcard tools/*/*.c)

TEST_KINDS := unit kernels model fault crash fuzz cli integration gpu
TEST_SRC := $(foreach k,$(TEST_KINDS),$(wildcard tests/$(k)/*.c))
TEST_BIN_SRC := $(filter $(foreach k,$(TEST_KINDS),tests/$(k)/check_%),$(TEST_SRC))
# Programs that scripts start: tests/<kind>/prog_*.c.
TEST_PROG_SRC := $(filter $(foreach k,$(TEST_KINDS),tests/$(k)/prog_%),$(TEST_SRC))
TEST_HELP_SRC := $(filter-out $(TEST_BIN_SRC) $(TEST_PROG_SRC),$(TEST_SRC)) $(wildcard tests/*.c)
# The fake driver: a library, and what the tests read its state with.
FAKECUDA_SRC := $(wildcard tests/fakecuda/*.c)
FAKECUDA_STATE := $(wildcard tests/fakecuda/state.c)
FAKECUDA_KERNEL_SRC := $(wildcard tests/fakecuda/kernels/*.c)
TEST_SCRIPTS := $(foreach k,$(TEST_KINDS),$(wildcard tests/$(k)/*.sh))
STATIC_CHECKS := $(wildcard scripts/check-*.sh)

ALL_SRC := $(KVMD_SRC) $(MAIN_SRC) $(LIBKVCLIENT_SRC) $(KN_SRC) $(TOOL_SRC) $(TEST_SRC) $(FAKECUDA_SRC) \
	$(FAKECUDA_KERNEL_SRC) $(wildcard tests/*.c)

# Products

UTIL_A := $(O)/libkvmd-util.a
CORE_A := $(O)/libkvmd-core.a
KN_A := $(O)/libkvkernels.a
KN_CPU := $(patsubst %.cu,$(O)/obj/%.cpu.o,$(KN_CU))
KN_FATBINS := $(if $(USE_NVCC),$(patsubst %.cu,$(O)/%.fatbin,$(KN_CU)))
KVC_SO := $(O)/libkvclient.so.$(SOVERSION)
KVC_A := $(O)/libkvclient.a
KVC_PC := $(O)/libkvclient.pc
TOOL_BINS := $(addprefix $(O)/,$(TOOLS))
TOOL_AS := $(patsubst %,$(O)/libtool-%.a,$(TOOLS))
TEST_BINS := $(patsubst %.c,$(O)/%,$(TEST_BIN_SRC) $(TEST_PROG_SRC))
PRODUCTS := $(if $(MAIN_SRC),$(O)/kvmd) $(CORE_A) \
	$(if $(LIBKVCLIENT_SRC),$(KVC_A) $(KVC_SO) $(O)/libkvclient.so) \
	$(if $(LIBKVCLIENT_PC),$(KVC_PC)) $(TOOL_BINS)
KVC_LINK := $(if $(LIBKVCLIENT_SRC),$(KVC_A))
FAKECUDA_SO := $(O)/fakecuda/libcuda.so.1
FAKECUDA_KERNELS := $(O)/fakecuda/kernels.so $(O)/fakecuda/kernels_host.so
# Kernels of the tests.
GPU_KERNELS := $(if $(USE_NVCC),$(patsubst %.cu,$(O)/%.fatbin,$(wildcard tests/gpu/*.cu)))
# For A100, H100 and B200 as far as nvcc knows them, and for what else compiles at load time.
GPU_ARCHS = $(foreach a,$(filter $(shell $(NVCC) --list-gpu-arch),compute_80 compute_90 compute_100),\
	-gencode arch=$a,code=$(a:compute_%=sm_%)) -gencode arch=compute_80,code=compute_80

# How: $(call cmd,WORD,command) prints the word and the target.

ifeq ($(V),1)
cmd = $(2)
else
cmd = @printf '  %-7s %s\n' '$(1)' '$(patsubst obj/%,%,$(patsubst $(O)/%,%,$@))'; $(2)
endif

## all              daemon, library, tools (the default)
.PHONY: all
all: $(PRODUCTS)

.PHONY: FORCE
FORCE:

# Rewritten only when the text changes: other flags or sources rebuild.
$(O)/.flags: export STAMP_TEXT = $(CC) $(CXX) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(CFLAGS_LIBKVCLIENT)
$(O)/.sources: export STAMP_TEXT = $(ALL_SRC) $(KN_CU) $(USE_NVCC)
$(O)/.flags $(O)/.sources: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$STAMP_TEXT" | cmp -s - $@ || printf '%s\n' "$$STAMP_TEXT" >$@

$(call objs,$(LIBKVCLIENT_SRC)): ROOM_CFLAGS = $(CFLAGS_LIBKVCLIENT)
$(call objs,$(TEST_SRC) $(wildcard tests/*.c)): ROOM_CFLAGS = $(CFLAGS_TESTS)
$(call objs,$(FAKECUDA_SRC) $(FAKECUDA_KERNEL_SRC)): ROOM_CFLAGS = -fPIC
# The toolkit's headers are for this comparison only.
CUDA_INCLUDE := $(if $(NVCC),$(firstword $(wildcard $(dir $(realpath $(NVCC)))../include \
	/usr/local/cuda/include)))
$(call objs,tests/gpu/check_cuda_abi.c tests/gpu/check_cublas_abi.c): ROOM_CFLAGS = $(CFLAGS_TESTS) \
	$(addprefix -isystem ,$(CUDA_INCLUDE))
$(call objs,tools/kvtrace/replay_daemon.c): ROOM_CFLAGS = -DKVMD_KEEPER_NAME='"$(keeper_name)"'

$(O)/obj/%.o: %.c $(O)/.flags
	@mkdir -p $(@D)
	$(call cmd,CC,$(CC) $(ALL_CFLAGS) $(ROOM_CFLAGS) -MMD -MP -c -o $@ $<)

# No C++ library: C programs link these. Sums are as written on every machine.
$(O)/obj/%.cpu.o: %.cu $(O)/.flags
	@mkdir -p $(@D)
	$(call cmd,CXX,$(CXX) -x c++ -std=gnu++20 $(INCLUDES) $(CFLAGS) -O3 $(WARNINGS_CXX) $(D_FLAGS) \
		$(if $(D),$(if $(CC_IS_CLANG),-fno-sanitize=function$(,)vptr)) \
		-fPIC -ffp-contract=off -fno-exceptions -fno-rtti -MMD -MP -c -o $@ $<)

archive = rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
link = $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(1)

$(UTIL_A): $(call objs,$(KVMD_LIB_SRC)) $(O)/.sources
	$(call cmd,AR,$(archive))

$(CORE_A): $(call objs,$(KVMD_SRC)) $(O)/.sources
	$(call cmd,AR,$(archive))

$(O)/kvmd: $(call objs,$(MAIN_SRC) $(KVMD_SRC)) $(O)/.sources
	$(call cmd,LD,$(call link,$(LIBS_KVMD)))

$(KVC_A): $(call objs,$(LIBKVCLIENT_SRC)) $(O)/.sources
	$(call cmd,AR,$(archive))

$(KVC_SO): $(call objs,$(LIBKVCLIENT_SRC)) $(LIBKVCLIENT_MAP) $(O)/.sources
	$(call cmd,LD,$(call link,-shared -Wl$(,)-soname$(,)$(@F) \
		$(addprefix -Wl$(,)--version-script=,$(LIBKVCLIENT_MAP)) $(LIBS_LIBKVCLIENT)))
, := ,

$(O)/libkvclient.so: $(KVC_SO)
	$(call cmd,LN,ln -sf $(<F) $@)

$(KVC_PC): $(LIBKVCLIENT_PC) $(O)/.flags FORCE
	@sed $(SUBST) $< | cmp -s - $@ || { sed $(SUBST) $< >$@ && \
		printf '  %-7s %s\n' GEN $(@F); }

SUBST = -e 's|@VERSION@|$(VERSION)|g' -e 's|@prefix@|$(prefix)|g' -e 's|@libdir@|$(libdir)|g' \
	-e 's|@includedir@|$(includedir)|g' -e 's|@bindir@|$(bindir)|g' \
	-e 's|@sbindir@|$(sbindir)|g' -e 's|@sysconfdir@|$(sysconfdir)|g' \
	-e 's|@runstatedir@|$(runstatedir)|g' -e 's|@daemon_name@|$(daemon_name)|g' \
	-e 's|@daemon_user@|$(daemon_user)|g' -e 's|@kvctl_name@|$(kvctl_name)|g' \
	-e 's|@keeper_name@|$(keeper_name)|g'

# tools/NAME/*.c; all but main.c also as an archive, for the tests.
define tool_rules
$(O)/$(1): $(call objs,$(wildcard tools/$(1)/*.c)) $(2) $(KVC_LINK) $(O)/.sources
	$$(call cmd,LD,$$(call link,$(3) $$(LIBS_LIBKVCLIENT)))
$(O)/libtool-$(1).a: $(call objs,$(filter-out %/main.c,$(wildcard tools/$(1)/*.c))) $(O)/.sources
	$$(call cmd,AR,$$(archive))
endef
# kvctl fsck reads disk files without a daemon: the format is pure functions over kvmd/lib.
DISK_FORMAT := $(call objs,kvmd/tier/disk_format.c)
$(eval $(call tool_rules,kvctl,$(DISK_FORMAT) $(UTIL_A),$$(LIBS_KVCTL) $$(LIBS_UTIL)))
$(eval $(call tool_rules,kvtrace,$(UTIL_A),$$(LIBS_KVTRACE) $$(LIBS_UTIL)))
$(eval $(call tool_rules,kvkeeper,$(UTIL_A),$$(LIBS_UTIL)))
$(eval $(call tool_rules,kvbench,$(KN_A) $(CORE_A),$$(LIBS_KVBENCH) $$(LIBS_KVMD)))
# kvinfer reads traces as kvtrace does.
TRACE_FORM := $(call objs,$(addprefix tools/kvtrace/,trace.c trace_parse.c lines.c scan.c))
$(eval $(call tool_rules,kvinfer,$(TRACE_FORM) $(KN_A) $(UTIL_A),$$(LIBS_KVINFER) $$(LIBS_UTIL)))

$(KN_A): $(call objs,$(KN_SRC)) $(KN_CPU) $(O)/obj/kernels/images.o $(O)/.sources
	$(call cmd,AR,$(archive))

# kn_images: what nvcc made of kernels/*.cu, embedded; a list of nothing without nvcc.
$(O)/obj/kernels/images.s: $(KN_FATBINS) $(O)/.sources
	@mkdir -p $(@D)
	@{ printf '\t.section .rodata\n'; \
	for f in $(KN_FATBINS); do \
		printf '\t.balign 16\nkn_image_%s:\n\t.incbin "%s"\n' $$(basename $$f .fatbin) $$f; done; \
	printf '\t.section .data.rel.ro,"aw"\n\t.balign 8\n\t.globl kn_images\nkn_images:\n'; \
	for f in $(KN_FATBINS); do printf '\t.quad kn_image_%s\n' $$(basename $$f .fatbin); done; \
	printf '\t.quad 0\n\t.size kn_images, . - kn_images\n'; \
	printf '\t.section .note.GNU-stack,"",%%progbits\n'; } >$@
$(O)/obj/kernels/images.o: $(O)/obj/kernels/images.s
	$(call cmd,AS,$(CC) -c -o $@ $<)

# As a driver it stays loaded: its threads run until the process ends.
$(FAKECUDA_SO): $(call objs,$(FAKECUDA_SRC)) tests/fakecuda/fakecuda.map $(O)/.sources
	@mkdir -p $(@D)
	$(call cmd,LD,$(call link,-shared -Wl$(,)-soname$(,)$(@F) -Wl$(,)-z$(,)nodelete \
		-Wl$(,)--version-script=tests/fakecuda/fakecuda.map -lpthread -ldl))
# Kernels that run on it.
$(O)/fakecuda/kernels.so: $(call objs,$(FAKECUDA_KERNEL_SRC)) $(O)/.sources
	@mkdir -p $(@D)
	$(call cmd,LD,$(call link,-shared))
$(O)/fakecuda/kernels_host.so: $(KN_CPU) $(O)/.sources
	@mkdir -p $(@D)
	$(call cmd,LD,$(call link,-shared -lm))

$(KN_FATBINS) $(GPU_KERNELS): $(O)/%.fatbin: %.cu
	@mkdir -p $(@D)
	$(call cmd,NVCC,$(NVCC) -fatbin -Xfatbin -compress-all -std=c++17 -I. $(GPU_ARCHS) -MMD -MP -MF $@.d -o $@ $<)

define test_rules
$(patsubst %.c,$(O)/%,$(filter tests/$(1)/%,$(TEST_BIN_SRC) $(TEST_PROG_SRC))): \
$(O)/tests/$(1)/%: $(O)/obj/tests/$(1)/%.o \
		$(call objs,$(filter tests/$(1)/%,$(TEST_HELP_SRC)) $(wildcard tests/*.c)) \
		$(call objs,$(FAKECUDA_STATE)) \
		$(TOOL_AS) $(KVC_LINK) $(KN_A) $(CORE_A) $(O)/.sources
	@mkdir -p $$(@D)
	$$(call cmd,LD,$$(call link,$$(LIBS_TESTS) $$(LIBS_LIBKVCLIENT) $$(LIBS_KVMD) $$(LIBS_KVCTL) \
		$$(LIBS_KVTRACE) $$(LIBS_KVBENCH) $$(LIBS_KVINFER)))
endef
$(foreach k,$(TEST_KINDS),$(eval $(call test_rules,$(k))))

.SECONDARY:
-include $(wildcard $(patsubst %.c,$(O)/obj/%.d,$(ALL_SRC)) $(KN_CPU:.o=.d) $(KN_FATBINS:=.d))

# Tests

## build-tests      build the tests, run none
.PHONY: build-tests
build-tests: all $(TEST_BINS) $(FAKECUDA_SO) $(FAKECUDA_KERNELS) $(GPU_KERNELS)

run_tests = scripts/run-tests.sh -o '$(O)' -j '$(J)' -d '$(D)' -t '$(TESTS)' $(1)
suites = $(patsubst %.c,$(O)/%,$(TEST_BIN_SRC)) $(TEST_SCRIPTS)
# Those whose daemons' pools may as well lie on a GPU; "cuda:" asks for that.
CUDA_SUITES := $(addprefix $(O)/tests/,$(foreach t,death hostile idle ops refusals restart \
	restart_damage share spaces start tenants,integration/check_$t) fault/check_nth \
	fault/check_kill_loop fuzz/check_session_fuzz crash/check_crash crash/check_crash_keep) \
	tests/integration/check_replay.sh tests/integration/check_replay_tiers.sh
cuda_suites = $(addprefix cuda:,$(CUDA_SUITES))
export CC CXX
export KVMD_CHECK_CFLAGS = -std=gnu11 $(INCLUDES) $(DEFINES) $(PKG_CFLAGS)

## check            every suite: unit, model, fault, crash, short fuzz, cli, integration, static
.PHONY: check
check: build-tests
	@$(call run_tests,$(suites) $(cuda_suites) $(STATIC_CHECKS))

## check-cuda       the suites with daemons again, their pools on the fake CUDA driver
.PHONY: check-cuda
check-cuda: build-tests
	@$(call run_tests,$(addprefix $(O)/tests/integration/,check_cuda check_cuda_fail \
		check_cuda_more) \
		$(cuda_suites))

## check-asan       the suites that run code, with address and undefined-behaviour checks
.PHONY: check-asan
check-asan:
	@$(MAKE) --no-print-directory D=asan O=$(O)-asan check-run

## check-tsan       the same with the thread checker
.PHONY: check-tsan
check-tsan:
	@$(MAKE) --no-print-directory D=tsan O=$(O)-tsan check-run

## check-run        the suites that run code, no static checks
.PHONY: check-run
check-run: build-tests
	@$(call run_tests,$(suites) $(if $(filter asan,$(D)),$(filter-out %.sh,$(cuda_suites))))

## check-gpu-conformance  what is taken for granted of the driver: of the fake, and of a real one
.PHONY: check-gpu-conformance
check-gpu-conformance: build-tests
	@echo '  on the fake driver'
	@$(call run_tests,$(conformance))
	@echo '  on the driver of this machine'
	@KVMD_REAL_CUDA=1 $(call run_tests,$(conformance))
conformance = $(filter $(O)/tests/gpu/check_cuda_abi $(O)/tests/gpu/check_cuda_conformance%,$(suites))

## check-gpu        what only a GPU can show; lists what it skips without one
.PHONY: check-gpu
check-gpu: build-tests
	@$(gpu_env) scripts/gpu-check.sh
gpu_env = KVMD_BUILD_DIR='$(abspath $(O))' \
	KVMD_GPU_SUITES='$(wildcard tests/integration/check_kvinfer.sh) \
	$(addprefix $(O)/tests/integration/,check_cuda check_cuda_more) $(cuda_suites)'

## fuzz             the fuzz targets for long: FUZZ_RUNS inputs each
.PHONY: fuzz
fuzz: build-tests
	@KVMD_FUZZ_RUNS=$(FUZZ_RUNS) KVMD_TEST_TIMEOUT=86400 \
		$(call run_tests,$(filter $(O)/tests/fuzz/% tests/fuzz/%,$(suites)))

## check-crash      kill a daemon and bring it back, SEEDS times, from seed SEED on
.PHONY: check-crash
check-crash: build-tests
	@KVMD_CRASH_SEEDS=$(SEEDS) $(if $(SEED),KVMD_TEST_SEED=$(SEED)) KVMD_TEST_TIMEOUT=86400 \
		$(call run_tests,$(filter $(O)/tests/crash/% tests/crash/%,$(suites)))
	@sed -n 's/^seeds /  SEEDS   /p' $(O)/test-logs/crash-*.log

static_check = KVMD_BUILD_DIR='$(abspath $(O))' scripts/$@.sh

## check-layers     no room includes, or refers to a symbol of, a room above it
.PHONY: check-layers
check-layers: all
	@$(static_check)

## check-headers    every header compiles alone; public ones also as C++
.PHONY: check-headers
check-headers:
	@$(static_check)

## check-abi        layout of include/kvmd/wire.h is that of tests/abi/wire.txt
.PHONY: check-abi
check-abi:
	@$(static_check)

## abi-update       write the present layout to tests/abi/wire.txt
.PHONY: abi-update
abi-update:
	@scripts/abi-dump.sh include/kvmd/wire.h >tests/abi/wire.txt.new
	@mv tests/abi/wire.txt.new tests/abi/wire.txt

## check-man        mandoc's lint of man/, and that everything is on its page
.PHONY: check-man
check-man: build-tests
	@$(static_check)
	@KVMD_BUILD_DIR='$(abspath $(O))' scripts/check-man-coverage.sh

# Shows

## demo             engines that compute on one pool; then three tiers, a daemon killed half way
.PHONY: demo
demo: all
	@KVMD_BUILD_DIR='$(abspath $(O))' scripts/demo.sh

## bench            kvbench's ratios as text
.PHONY: bench
bench: all
	@$(O)/kvbench

## bench-json       kvbench's ratios as JSON, alone on stdout
.PHONY: bench-json
bench-json:
	@$(MAKE) --no-print-directory all >&2
	@$(O)/kvbench --json

## bench-tier       disk and RAM beside fio and bare copies, about 3 minutes
.PHONY: bench-tier
bench-tier: all
	@$(O)/kvbench --dir '$(BENCH_DIR)' tier

## bench-tier-json  the same as JSON, alone on stdout
.PHONY: bench-tier-json
bench-tier-json:
	@$(MAKE) --no-print-directory all >&2
	@$(O)/kvbench --json --dir '$(BENCH_DIR)' tier

## bench-gpu        a GPU's copies, slabs, sharing and kernels, and kvinfer on it
.PHONY: bench-gpu
bench-gpu: all $(O)/tests/gpu/prog_owed
	@KVMD_BUILD_DIR='$(abspath $(O))' scripts/gpu-bench.sh

## bench-gpu-json   the same as JSON, alone on stdout
.PHONY: bench-gpu-json
bench-gpu-json:
	@$(MAKE) --no-print-directory all >&2
	@$(O)/kvbench --json gpu

## gpu-kit          a folder in O with all that check-gpu and bench-gpu need on another machine
.PHONY: gpu-kit
gpu-kit: build-tests
	@$(gpu_env) scripts/gpu-kit.sh '$(O)'

## deps             install the Debian packages of scripts/deps.txt (as root)
.PHONY: deps
deps:
	@scripts/deps.sh ensure build test bench opt ci

# Installation

INSTALL ?= install
MAN_PAGES := $(wildcard man/*.[1-8])
PUBLIC_HEADERS := $(wildcard include/*.h)
# cuda_abi.h is for the project's own programs.
PUBLIC_KVMD_HEADERS := $(filter-out %/cuda_abi.h,$(wildcard include/kvmd/*.h))
UNITS := $(wildcard tools/units/*.service.in tools/units/*.socket.in)
SYSUSERS := $(wildcard tools/units/*.sysusers.in)
CONF_EXAMPLE := $(wildcard tools/units/kvmd.conf.in)

# kvmd -> $(daemon_name), kvmd-protocol -> $(daemon_name)-protocol, kvctl -> $(kvctl_name),
# kvkeeper -> $(keeper_name).
rename = $(patsubst kvkeeper.%,$(keeper_name).%,$(patsubst kvctl.%,$(kvctl_name).%,$(patsubst \
	kvmd-%,$(daemon_name)-%,$(patsubst \
	kvmd.%,$(daemon_name).%,$(1)))))
# What a page of section 3 is about: each name is a link to it.
man_names = $$(sed -n 's/^\.Nm \(kvc_[a-z_]*\).*/\1/p' $(1))
d := $(DESTDIR)

## install          under DESTDIR and the directories below
.PHONY: install
install: all
	$(INSTALL) -d $d$(sbindir) $d$(bindir) $d$(libdir)/pkgconfig $d$(includedir)/kvmd
	$(if $(MAIN_SRC),$(INSTALL) -m 755 $(O)/kvmd $d$(sbindir)/$(daemon_name))
	$(foreach t,$(filter-out kvkeeper,$(TOOLS)),$(INSTALL) -m 755 $(O)/$t \
		$d$(bindir)/$(patsubst kvctl,$(kvctl_name),$t) &&) :
	$(if $(filter kvkeeper,$(TOOLS)),$(INSTALL) -m 755 $(O)/kvkeeper \
		$d$(sbindir)/$(keeper_name))
	$(if $(LIBKVCLIENT_SRC),$(INSTALL) -m 755 $(KVC_SO) $d$(libdir)/)
	$(if $(LIBKVCLIENT_SRC),ln -sf $(notdir $(KVC_SO)) $d$(libdir)/libkvclient.so)
	$(if $(LIBKVCLIENT_SRC),$(INSTALL) -m 644 $(KVC_A) $d$(libdir)/)
	$(if $(LIBKVCLIENT_PC),$(INSTALL) -m 644 $(KVC_PC) $d$(libdir)/pkgconfig/)
	$(if $(PUBLIC_HEADERS),$(INSTALL) -m 644 $(PUBLIC_HEADERS) $d$(includedir)/)
	$(if $(PUBLIC_KVMD_HEADERS),$(INSTALL) -m 644 $(PUBLIC_KVMD_HEADERS) $d$(includedir)/kvmd/)
	$(foreach m,$(MAN_PAGES),$(INSTALL) -D -m 644 $m \
		$d$(mandir)/man$(subst .,,$(suffix $m))/$(call rename,$(notdir $m)) &&) :
	$(foreach m,$(wildcard man/kvc_*.3),for n in $(call man_names,$m); do \
		[ $$n.3 = $(notdir $m) ] || ln -sf $(notdir $m) $d$(mandir)/man3/$$n.3; done &&) :
	$(foreach u,$(UNITS),$(INSTALL) -d $d$(unitdir) && sed $(SUBST) $u \
		>$d$(unitdir)/$(call rename,$(notdir $(u:.in=))) &&) :
	$(foreach u,$(SYSUSERS),$(INSTALL) -d $d$(sysusersdir) && sed $(SUBST) $u \
		>$d$(sysusersdir)/$(daemon_name).conf &&) :
	$(if $(CONF_EXAMPLE),$(INSTALL) -d $d$(sysconfdir) && \
		{ [ -e $d$(sysconfdir)/$(daemon_name).conf ] || \
		sed $(SUBST) $(CONF_EXAMPLE) >$d$(sysconfdir)/$(daemon_name).conf; })
	$(if $(filter kvctl,$(TOOLS)),$(INSTALL) -d $d$(completiondir) && \
		$(O)/kvctl completion >$d$(completiondir)/$(kvctl_name))

## uninstall        remove what install put there, but the configuration
.PHONY: uninstall
uninstall:
	rm -f $d$(sbindir)/$(daemon_name) $d$(sbindir)/$(keeper_name)
	rm -f $d$(bindir)/$(kvctl_name) $d$(bindir)/kvtrace \
		$d$(bindir)/kvbench $d$(bindir)/kvinfer $d$(libdir)/libkvclient.so $d$(libdir)/libkvclient.so.$(SOVERSION) \
		$d$(libdir)/libkvclient.a $d$(libdir)/pkgconfig/libkvclient.pc \
		$d$(completiondir)/$(kvctl_name) $d$(sysusersdir)/$(daemon_name).conf
	rm -f $(foreach h,$(PUBLIC_HEADERS),$d$(includedir)/$(notdir $h)) \
		$(foreach h,$(PUBLIC_KVMD_HEADERS),$d$(includedir)/kvmd/$(notdir $h)) \
		$(foreach m,$(MAN_PAGES),$d$(mandir)/man$(subst .,,$(suffix $m))/$(call \
		rename,$(notdir $m))) \
		$(foreach u,$(UNITS),$d$(unitdir)/$(call rename,$(notdir $(u:.in=))))
	$(foreach m,$(wildcard man/kvc_*.3),for n in $(call man_names,$m); do \
		rm -f $d$(mandir)/man3/$$n.3; done &&) :
	-rmdir $d$(includedir)/kvmd

## clean            remove what was built in O, and in its -asan and -tsan siblings
.PHONY: clean
clean:
	rm -rf $(O) $(O)-asan $(O)-tsan

## help             this text
.PHONY: help
help:
	@echo 'make TARGET... [VARIABLE=VALUE...]'
	@echo; echo 'Targets:'; sed -n 's/^## /  /p' Makefile
	@echo; echo 'Variables:'; sed -n 's/^#: /  /p' Makefile
	@echo; echo 'CUDA: $(CUDA_SAYS)'
