#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check_replay.sh - real client processes on a real daemon: no byte is ever wrong.
# KVMD_TEST_DEVICE: what its pool lies on, host (the default) or cuda.
#
# First that the check itself can fail, then generated workloads at their worst
# (tiny pools, late steps, killed clients), then the sample traces with every hit
# block verified byte for byte.
#
# KVMD_BUILD_DIR or O: build directory (build). KVMD_TRACES: sample traces
# (../shared/traces beside the tree); without them their checks are skipped.
# Prints "ok NAME", "not ok NAME" or "SKIP: REASON" per part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvtrace kvmd
prog=$O/kvtrace
on_device
daemon=
ended()
{
	[ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; }
}

# replay STATUS ARG...: run it, check its exit status; output in $tmp/out, err.
replay()
{
	status=$1
	shift
	# shellcheck disable=SC2086
	run "$status" replay $device "$@"
	no_violation
}

# clean REQUESTS: no wrong byte, all tokens accounted for, all requests done.
clean()
{
	is wrong_bytes 0
	is attribution_sums true
	is requests "$1"
}

# Instrumented binaries are slow: less of the same.
n=400
[ -z "$slow" ] || n=100
[ "$slow" != cuda ] || n=60
"$prog" gen -q --tools agent -n $n --system-tokens 1500 --turn-tokens 300 --seed 3 \
	-o "$tmp/agent" || exit 1
"$prog" gen -q --tools agent -n $n --system-tokens 1500 --turn-tokens 300 --seed 3 \
	--hash-ids -o "$tmp/ids.gz" || exit 1

# ------------------------------------------------------------ usage, bad data

replay 2; has err "which FILE?"
replay 2 a b; has err "one FILE at a time"
replay 2 -c 0 x; has err "--clients: 0 is outside 1 to 64"
replay 2 -p 0 x; has err "--percent: '0' is not a number over 0"
replay 2 --verify most x; has err "--verify: 'most'"
replay 2 --time soon x; has err "--time: 'soon' is not fast, real or scale=X"
replay 2 --time scale=0 x; has err "is not a number over 0"
replay 2 --block-bytes 4096 --planes 3 x; has err "not a multiple of 64"
replay 2 --watermarks 5%,2% x; has err "is not MIN,LOW,HIGH"
replay 2 --watermarks 5%,2%,9% x; has err "is not MIN,LOW,HIGH"
replay 2 --socket /nowhere --policy lru x; has err "for an own daemon"
replay 2 --device null --ram 1x x; has err "has no bytes"
replay 2 --device abacus x; has err "--device: 'abacus' is not one of its words"
replay 2 --nonsense x; has err "Try 'kvtrace replay --help'."
replay 0 --help; has out "usage: kvtrace replay"
lacks out corrupt
printf '%s\n%s\n' '{"timestamp":0,"input_length":512,"output_length":1,"hash_ids":[1]}' \
	'{"timestamp":1,' >"$tmp/bad"
replay 1 "$tmp/bad"; has err "$tmp/bad:2: "
replay 0 -j --skip-bad --blocks 4 "$tmp/bad"; clean 1
replay 1 "$tmp/nothing-here"; has err "No such file"
replay 1 -c 4 --blocks 3 --compare private "$tmp/agent"; has err "too small to be parted"
replay 1 --policy nonsense "$tmp/agent"; has err "does not start"
part "usage and bad data"

# ------------------------------------------------------------ the check can fail

replay 1 -j --corrupt 50 "$tmp/agent"
above wrong_bytes 0
has out '"first_wrong":'
is attribution_sums true
replay 1 --corrupt 50 --late 3 "$tmp/agent"
has out "wrong blocks: "
if [ "$(tail -1 "$tmp/out")" = "wrong bytes: 0" ]; then fail "$what: says 0 wrong bytes"; fi
replay 1 -j --corrupt 1 --verify sample --block-bytes 64 "$tmp/agent"
above wrong_bytes 0
part "the check can fail"

# ------------------------------------------------------------ generated workloads

replay 0 -j "$tmp/agent"; clean $n
above hit_blocks 1000; above verified_blocks 1000
# Serialised, with a policy that draws no lots, it is always the same.
in_order="--serial --policy lru --watermarks 0,0,0"
# shellcheck disable=SC2086
{
	replay 0 -j $in_order "$tmp/agent"; clean $n
	serial=$(value block_hit_rate)
	replay 0 -j $in_order "$tmp/ids.gz"; clean $n; is block_hit_rate "$serial"
	replay 0 -j $in_order --late 2 "$tmp/ids.gz"; clean $n; is block_hit_rate "$serial"
}
part "a generated workload"

replay 0 -j -r rr --late 3 --publish-decode -p 4 "$tmp/agent"; clean $n
above evicted_blocks 100; above merged_blocks 0
replay 0 -j -r rr --late 3 --publish-decode -p 1 --chunk 16 "$tmp/agent"; clean $n
replay 0 -j -r rr --late 9 -p 4 --planes 3 --shards 2 --block-bytes 768 "$tmp/agent"; clean $n
replay 0 -j -c 8 -r rr --late 2 -p 4 --policy lru --watermarks 0,10%,20% "$tmp/agent"; clean $n
replay 0 -j -c 2 --late 2 -p 2 --watermarks 5%,20%,50% "$tmp/agent"; clean $n
replay 0 -j -r rr --late 2 -p 4 --policy s3fifo --hints 80 "$tmp/agent"; clean $n
replay 0 -j -r rr --full-blocks --no-decode --verify sample "$tmp/agent"; clean $n
# Spaces at their full size once took each other's slabs for ever.
replay 0 -j --compare private -p 1 --late 2 "$tmp/agent"; clean $n; is private_wrong_bytes 0
part "late steps and tiny pools"

replay 0 -j -p 4 --late 2 --kill 5 "$tmp/agent"; clean $n
replay 0 -j -r rr --serial --kill 3 "$tmp/agent"; clean $n
part "killed clients"

replay 0 -j --time scale=5000 -n 60 "$tmp/agent"; clean 60; is clock_driven false
replay 0 -j -r rr --compare private -p 20 "$tmp/agent"; clean $n
is private_wrong_bytes 0; is private_attribution_sums true
[ "$(value private_block_hit_rate | cut -c1-5)" != "$(value block_hit_rate | cut -c1-5)" ] ||
	fail "$what: shared and private rates are equal"
above hit_blocks 0
for key in schema file tokens_hbm tokens_ram tokens_disk tokens_merged tokens_recomputed \
	recomputed_never token_hit_rate private_token_hit_rate tokens_asked requests_per_s p99_9; do
	has out "\"$key\":"
done
is_json
# Without bytes there are the same hits.
replay 0 -j --device null --verify none "$tmp/agent"; clean $n
above hit_blocks 1000; is verified_blocks 0; is written_blocks 0
part "time, private pools, JSON, no bytes"

# A daemon that somebody else runs, on its own clock.
keep=$device device=''
printf '[daemon]\nsocket = %s/s\n[device host-0]\nkind = %s\nbytes = 256M\n' "$tmp" \
	"${KVMD_TEST_DEVICE:-host}" >"$tmp/conf"
"$O/kvmd" -c "$tmp/conf" 2>"$tmp/log" &
daemon=$!
replay 0 -j --socket "$tmp/s" "$tmp/agent"; clean $n; is clock_driven false
replay 0 -j --socket "$tmp/s" --kill 2 "$tmp/agent"; clean $n
kill "$daemon"
wait "$daemon" || fail "the daemon ended with $?: $(tail -3 "$tmp/log")"
daemon=
part "somebody else's daemon"
device=$keep

# ------------------------------------------------------------ sample traces

# sample FILE REQUESTS ARG...: four clients, every byte of every hit.
sample()
{
	file=$1 requests=$2
	shift 2
	replay 0 -j -q "$@" "$traces/$file.jsonl.gz"; clean "$requests"
	if [ "$failed" -eq "$failed_before" ]; then
		echo "ok $file ($(value hit_blocks) hits of $(value trace_blocks) blocks," \
			"$(value verified_blocks) verified)"
	else
		echo "not ok $file"
	fi
	failed_before=$failed
}

if [ ! -r "$traces/codingagent_dev.jsonl.gz" ]; then
	echo "SKIP: no sample traces in $traces (KVMD_TRACES)"
elif [ -n "$slow" ]; then
	few=300
	[ "$slow" != cuda ] || few=60
	echo "SKIP: all but the first $few requests of the sample traces: slow with $slow"
	for t in sharegpt_300 mooncake_synthetic taubench_airline codingagent_dev; do
		sample $t $few -n $few --late 2 --block-bytes 512
	done
else
	sample sharegpt_300 300
	sample mooncake_synthetic 3993 -r rr --late 2 --publish-decode
	sample taubench_airline 2454
	sample codingagent_dev 5232
	sample codingagent_dev 5232 -r rr --late 3 --block-bytes 512 -p 3
fi

finish
