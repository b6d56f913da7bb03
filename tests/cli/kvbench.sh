#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# kvbench.sh - the command line of kvbench, and that a short run measures all.
#
# O or KVMD_BUILD_DIR: build directory (build). What it measures is not judged.
# Prints "ok NAME", "not ok NAME" or "SKIP: REASON" per part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvbench kvinfer
prog=$O/kvbench
# Its files are in ours, and none is left.
TMPDIR=$tmp
export TMPDIR

# bench STATUS ARG...: run kvbench, check its exit status; output in $tmp/out, err.
bench()
{
	run "$@"
	left=$(find "$tmp" -mindepth 1 -name 'kvbench.*')
	[ -z "$left" ] || fail "$what: left $left"
}

# ------------------------------------------------------------ help and usage

bench 0 --help; has out "usage: kvbench "; lacks err
for name in ring ops wake idle hash peers big tier gpu codec kernels infer; do
	has out "  $name "
done
bench 0 --version; has out "kvbench "
bench 2 nonsense; has err "no part 'nonsense'"; lacks out
bench 2 --nonsense; has err "unrecognized option '--nonsense'"; has err "Try 'kvbench --help'."
bench 2 --rounds 0; has err "--rounds: '0' is not a number from 1 to 1000"
bench 2 --rounds many; has err "--rounds: 'many'"
bench 2 --blocks 1; has err "--blocks: '1' is not a number from 4096 to 1G"
bench 1 --quick --dir "$tmp/none" tier; has err "$tmp/none: No such file or directory"; lacks out
bench 1 --quick --kvmd "$tmp/nothing" ring; has err "no session"; lacks out
part "help and usage"

# ------------------------------------------------------------ keys alone

bench 0 --quick --json hash
has out '"hash_over_sha256":'
has out '"chain_extend_speedup":'
part "hash"

# ------------------------------------------------------------ codecs alone

bench 0 --quick --json codec
for key in codec_memcpy_gb_per_s window_encode_gb_per_s window_encode_over_memcpy \
	window_decode_gb_per_s window_decode_over_memcpy window_ratio; do
	has out "\"$key\":"
done
for name in fp8_e4m3 fp8_e5m2 int8 int4 kivi2 kivi2_keys; do
	for key in encode_gb_per_s encode_over_memcpy decode_gb_per_s decode_over_memcpy ratio; do
		has out "\"${name}_$key\":"
	done
done
part "codec"

# ------------------------------------------------------------ kernels, an engine

bench 0 --quick --json kernels
for key in cpu_attend_private_gb_per_s cpu_attend_pool_gb_per_s cpu_attend_pool_over_private \
	cpu_attend_block_major_over_layer_major; do
	has out "\"$key\":"
done
has out '"kernels":"2 sequences of 256 tokens'
part "kernels"

bench 0 --quick --json infer
case $(value ttft_warm_over_cold) in
0.*) ;;
*) fail "$what: ttft_warm_over_cold is '$(value ttft_warm_over_cold)': $(cat "$tmp/out")" ;;
esac
has out '"infer":"kvinfer: 256 tokens of prefix'
part "infer"

# ------------------------------------------------------------ the whole, short

bench 0 --quick --json
for key in echo_rtt_ns nop_rtt_ns nop_rtt_over_echo batch32_ops_per_s batch32_over_echo \
	open100_over_floor open1000_over_floor alloc256_over_floor publish100_over_floor \
	wake_over_futex metadata_bytes_per_block idle_cpu_ticks_10s send_syscalls window_ratio \
	cpu_attend_pool_over_private ttft_warm_over_cold; do
	has out "\"$key\":"
	has out "\"${key}_min\":"
	has out "\"${key}_max\":"
done
if command -v python3 >/dev/null 2>&1; then
	python3 - "$tmp/out" <<'END' || fail "kvbench --quick --json: see above"
import json, sys
d = json.load(open(sys.argv[1]))
for key, low in d.items():
    if not key.endswith("_min"):
        continue
    mid, high = d[key[:-4]], d[key[:-4] + "_max"]
    if not low <= mid <= high:
        sys.exit("%s: %s is not between %s and %s" % (key[:-4], mid, low, high))
for row in d["rows"]:
    if "ours" not in row and not row.get("not_measured"):
        sys.exit("%s: neither measured nor told why not" % row["what"])
END
fi
part "quick"

finish
