#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# raw_tiles.sh - the attention kernels' tests once more, on tiles as a GPU has them.
#
# On the CPU tiles of K and V are fp32, on a GPU they are bytes as they are stored, in
# another layout and size. KN_RAW_TILES builds that form for the CPU.
#
# KVMD_BUILD_DIR or O: build directory (build). Prints what the tests print. Exit
# status: 0, 1, or 77: an instrumented build, whose flags this does not know.

set -u
. "$(dirname "$0")/../script.sh"
[ -z "$D" ] || { echo "SKIP: D=$D"; exit 77; }
needs libkvkernels.a libkvmd-core.a tests/kernels/check_attend
cd "$root" || exit 1
for f in attend mla; do
	${CXX:-g++} -x c++ -std=gnu++20 -I. -Iinclude -O2 -ffp-contract=off -fno-exceptions -fno-rtti \
		-DKN_RAW_TILES=1 -c -o "$tmp/$f.o" kernels/$f.cu || fail "kernels/$f.cu does not build"
done
for test in check_attend check_attend_numbers check_mla; do
	o=$O/obj/tests/kernels
	# shellcheck disable=SC2046
	${CC:-gcc} -o "$tmp/$test" "$o/$test.o" "$o/attend_rig.o" "$o/ref.o" "$O/obj/tests/suite.o" \
		"$tmp/attend.o" "$tmp/mla.o" "$O/libkvkernels.a" \
		"$O/libkvmd-core.a" $(pkg-config --libs check liburing inih libxxhash) -lm ||
		fail "$test does not link"
	what=$test
	"$tmp/$test" >"$tmp/out" 2>&1 || fail "$test: $(tail -5 "$tmp/out")"
	part "$test on raw tiles"
done
finish
