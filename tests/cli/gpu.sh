#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu.sh - make check-gpu, make bench-gpu and make gpu-kit: what they say without a GPU,
# that they measure on the fake driver, and that the kit's one command runs.
set -u
. "$(dirname "$0")/../script.sh"
needs kvbench kvinfer tests/gpu/prog_owed fakecuda/libcuda.so.1 fakecuda/kernels_host.so
cd "$root" || exit 1
export KVMD_BUILD_DIR=$O KVMD_GPU_RESULTS=$tmp/RESULTS.md
fake=$O/fakecuda
unset LD_LIBRARY_PATH KVMD_FAKECUDA KVMD_FAKECUDA_STATE KVMD_KERNELS

# ------------------------------------------------------------ the file of results

put() { scripts/gpu-results.sh "$tmp/file.md" "$@"; }
echo first | put questions
echo 'a & b \1' | put machine
echo second | put questions
grep -qxF second "$tmp/file.md" || fail "a section is not there"
grep -qxF first "$tmp/file.md" && fail "a section is not replaced"
grep -qxF 'a & b \1' "$tmp/file.md" || fail "a section is not as it was given"
[ "$(grep -c 'Nothing measured yet' "$tmp/file.md")" = 3 ] || fail "other sections have changed"
[ "$(grep -c 'nothing measured yet' "$tmp/file.md")" = 7 ] || fail "goals that are not there"
echo goals | put goals
[ "$(grep -c 'nothing measured yet' "$tmp/file.md")" = 0 ] || fail "goals that are still there"
echo x | put nonsense 2>/dev/null && fail "a section that is none"
for section in machine questions conformance integration goals benchmark; do
	grep -qxF "<!-- $section -->" tests/gpu/RESULTS.md ||
		fail "tests/gpu/RESULTS.md has no section $section"
done
part "results"

# ------------------------------------------------------------ no GPU

# lists TEXT: a line of $tmp/out that says SKIP has it.
lists() { grep SKIP "$tmp/out" | grep -qF -- "$1" || fail "$what: '$1' is not listed as skipped"; }

if "$O/tests/gpu/prog_owed" probe >/dev/null; then
	echo "SKIP: there is a GPU here: what is said without one is not seen"
else
	prog=scripts/gpu-check.sh
	KVMD_GPU_SUITES="cuda:$O/tests/integration/check_ops cuda:tests/integration/check_replay.sh" \
		run 0
	lists "no GPU: no NVIDIA driver"
	for name in $("$O/tests/gpu/prog_owed" list | awk '{ print $1 }'); do
		lists "$name: "
	done
	lists conformance
	lists "integration/check_ops"
	lists "integration/check_replay"
	has out "nothing could be checked: no GPU"
	run 0 conformance; lists conformance; lacks out exporter_killed
	run 2 nonsense; has err "no part 'nonsense'"
	part "check-gpu without a GPU"

	prog=scripts/gpu-bench.sh
	run 0
	for row in "blocks of 2 MiB" "both ways at once" "slab of 1 GiB" "another client's hit" \
		"attention on the pool's memory" "attention of decode" "kivi2: decode" \
		"kvinfer: first token"; do
		lists "$row"
	done
	run 0 --json
	is_json
	for key in d2h_2m_over_plain h2d_64k_over_plain both_ways_gbps slab_1g_create_ms \
		slab_1g_export_import_map_ms publish_to_visible_us block_major_over_layer_major \
		attend_pool_over_private attend_decode_over_copy gpu_int4_encode_over_copy \
		gpu_ttft_warm_over_cold; do
		is "$key" null
	done
	part "bench-gpu without a GPU"
	[ ! -e "$KVMD_GPU_RESULTS" ] || fail "results were written"
	part "nothing is written without a GPU"
fi

# ------------------------------------------------------------ the fake driver

# measured KEY...: there are figures; what they are says nothing of GPUs.
measured()
{
	for key in "$@"; do
		case $(value "$key") in
		[0-9]*) ;;
		*) fail "kvbench gpu: $key is '$(value "$key")': $(grep -o '"not_measured":"[^"]*"' \
			"$tmp/out" | sort -u)" ;;
		esac
	done
}

prog=$O/kvbench
LD_LIBRARY_PATH=$fake TMPDIR=$tmp KVMD_FAKECUDA=cpu=1 \
	KVMD_KERNELS=fakecuda:$fake/kernels_host.so run 0 --quick --json gpu
is_json
measured d2h_2m_over_plain h2d_2m_over_plain d2h_64k_over_plain h2d_64k_over_plain \
	both_ways_gbps slab_64m_create_ms slab_64m_export_import_map_ms publish_to_visible_us \
	block_major_over_layer_major d2h_2m_sums_over_none attend_pool_over_private \
	attend_rows_over_copied attend_decode_over_copy attend_block_major_over_layer_major \
	device_copy_gb_per_s gpu_ttft_cold_ms gpu_ttft_warm_over_cold
for codec in window fp8_e4m3 fp8_e5m2 int8 int4 kivi2; do
	measured gpu_${codec}_encode_over_copy gpu_${codec}_decode_over_copy
done
has out "; attention: "
part "kvbench gpu on the fake driver"

# ------------------------------------------------------------ the kit

case $D in
"") ;;
*)
	echo "SKIP: D=$D: the kit is not for instrumented programs"
	finish
	;;
esac
if ! command -v strip >/dev/null || ! command -v objdump >/dev/null; then
	echo "SKIP: no binutils: no kit"
	finish
fi
prog=scripts/gpu-kit.sh
KVMD_GPU_SUITES="cuda:tests/integration/check_replay.sh" run 0 "$O" "$tmp/kit"
has out " MiB, "
for f in run README COMMIT suites build/kvmd build/kvbench build/kvinfer build/tests/gpu/prog_owed \
	scripts/gpu-check.sh tests/integration/check_replay.sh; do
	[ -s "$tmp/kit/$f" ] || fail "the kit has no $f"
done
[ -z "$(find "$tmp/kit" -type l)" ] || fail "the kit has symbolic links"
if ! "$O/tests/gpu/prog_owed" probe >/dev/null; then
	prog=$tmp/kit/run
	unset KVMD_BUILD_DIR KVMD_GPU_RESULTS
	run 0 "$tmp/kit-out"
	lists "no GPU: no NVIDIA driver"
	lists "blocks of 2 MiB"
	lists "integration/check_replay"
	[ -s "$tmp/kit-out/kit.log" ] || fail "the kit leaves no log"
fi
part "the kit"
finish
