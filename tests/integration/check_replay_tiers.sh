#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check_replay_tiers.sh - RAM and disk below the pool: no byte is ever wrong.
# KVMD_TEST_DEVICE: what the pool lies on, host (the default) or cuda.
#
# Real client processes on a real daemon whose pool is small and whose lower tiers
# are RAM of 4 and a disk file of 16 times its blocks. Every block is verified byte
# for byte after it was loaded: with planes and shards gathered on the way, tiers
# that turn bits, fail and are slow, clients and the daemon killed on the way. Hits
# are never fewer than without tiers, and every token is accounted for once.
#
# KVMD_BUILD_DIR or O: build directory (build). KVMD_TRACES: sample traces
# (../shared/traces beside the tree); without them their checks are skipped.
# Prints "ok NAME", "not ok NAME" or "SKIP: REASON" per part. Exit status: 0, 1, or
# 77: the file system has no O_DIRECT.

set -u
. "$(dirname "$0")/../script.sh"
needs kvtrace kvmd kvkeeper
prog=$O/kvtrace
on_device
# The daemons' directories, with their disk files, are in ours: to see what is left.
TMPDIR=$tmp
export TMPDIR

# replay STATUS ARG...: run it, check its exit status; output in $tmp/out, err.
replay()
{
	status=$1
	shift
	# shellcheck disable=SC2086
	run "$status" replay -j $device "$@"
	no_violation
	left=$(find "$tmp" -name 'kvtrace.*')
	[ -z "$left" ] || fail "$what: left $left"
}

# tiers ARG...: a run with them, and what must hold for each.
tiers()
{
	replay 0 --ram 4x --disk 16x --block-bytes 512 "$@"
	is wrong_bytes 0
	is attribution_sums true
	is requests "$requests"
	above tokens_ram 0
	above bytes_cleaned 0
	above bytes_loaded 0
}

# not_less KEY KEY: rates.
not_less()
{
	awk -v a="$(value "$1")" -v b="$(value "$2")" \
		'BEGIN { exit !(a != "" && b != "" && b != "null" && a + 0 >= b + 0) }' ||
		fail "$what: $1 is '$(value "$1")', $2 is '$(value "$2")'"
}

# beside: hits are not fewer than without tiers; nothing was wrong there either.
beside()
{
	not_less block_hit_rate beside_block_hit_rate
	not_less token_hit_rate beside_token_hit_rate
	is beside_wrong_bytes 0
	is beside_attribution_sums true
}

dd if=/dev/zero of="$tmp/direct" bs=4096 count=1 oflag=direct 2>"$tmp/err" ||
	{ echo "SKIP: no O_DIRECT in $tmp (TMPDIR)"; exit 77; }

# Many sessions at a time: what they go on with is in lower tiers. The other one has
# few long ones, of which four do not fit into the pool.
n=600
m=100
[ -z "$slow" ] || { n=300; m=40; }
"$prog" gen -q --tools agent -n $n --system-tokens 500 --turn-tokens 180 --turns 8 --gap 60s \
	--start-gap 6s --seed 3 -o "$tmp/agent" || exit 1
"$prog" gen -q --tools agent -n $m --system-tokens 1500 --turn-tokens 700 --seed 3 \
	-o "$tmp/long" || exit 1

# ------------------------------------------------------------ usage

replay 2 --ram 4y "$tmp/agent"; has err "neither a size like 2G nor one like 4x"
replay 2 --ram -- -4x "$tmp/agent"
replay 2 --disk 4x "$tmp/agent"; has err "--disk needs --ram"
replay 2 --ram 4x --disk-path x "$tmp/agent"; has err "--disk-path needs --disk"
replay 2 --socket /nowhere --ram 4x "$tmp/agent"; has err "are for an own daemon"
replay 2 -o nonsense "$tmp/agent"; has err "is not SECTION.KEY=VALUE"
replay 1 -o pool.nonsense=1 "$tmp/agent"; has err "does not start"
replay 1 --ram 1M --disk 16x "$tmp/agent"; has err "disk.path needs ram.bytes"
replay 2 --ram 4x --codec int8 "$tmp/agent"; has err "is lossy"
replay 2 --ram 4x --codec zip "$tmp/agent"; has err "'zip' is no codec"
replay 1 --ram 4x --codec window "$tmp/agent"; has err "makes no block of 4096 bytes smaller"
part "usage"

# ------------------------------------------------------------ generated workloads

requests=$n
pool="--blocks 1050"
# shellcheck disable=SC2086
{
	tiers $pool "$tmp/agent"; beside
	above bytes_stored 0
	[ -n "$slow" ] || above bytes_fetched 0
	[ -n "$slow" ] || above load_stall_ns 0
	for key in ram_bytes disk_bytes blocks_cleaned blocks_stored blocks_fetched blocks_loaded \
		store_refused_admission load_refused_slow moves_failed checksum_errors open_ns \
		unlimited_token_hit_rate beside_open_ns; do
		has out "\"$key\":"
	done
	tiers $pool --no-beside -o disk.admission=1 "$tmp/agent"
	is store_refused_admission 0
	is beside_token_hit_rate null
	tiers $pool --no-beside --planes 3 --shards 2 --block-bytes 3072 -r rr --late 3 \
		--publish-decode "$tmp/agent"
	replay 0 --ram 4x --block-bytes 512 $pool --no-beside "$tmp/agent"
	is wrong_bytes 0; is attribution_sums true; is bytes_stored 0; above tokens_ram 0
	requests=$m
	tiers $pool --no-beside "$tmp/long"
	requests=$n
	replay 1 --ram 4x --disk 16x --block-bytes 512 $pool --no-beside --corrupt 50 "$tmp/agent"
	above wrong_bytes 0; is attribution_sums true
}
part "a generated workload"

# shellcheck disable=SC2086
{
	# It says that it computes anything faster than it could be loaded.
	replay 0 --ram 4x --disk 16x --block-bytes 512 $pool --no-beside \
		--recompute-tps 1000000000000 "$tmp/agent"
	is wrong_bytes 0; is attribution_sums true
	# Rates are known after some loads.
	[ -n "$slow" ] || { above load_refused_slow 0; above recomputed_refused 0; }
	tiers $pool --no-beside --kill 3 "$tmp/agent"
}
part "refusals and killed clients"

# shellcheck disable=SC2086
{
	requests=$m
	tiers --blocks 300 --no-beside --codec window --block-bytes 32K "$tmp/long"
	has out '"codec":"window"'
	above blocks_encoded 0; above blocks_decoded 0; is codec_failed 0; is codec_overflows 0
	tiers --blocks 300 --no-beside --codec window --block-bytes 96K --planes 3 --shards 2 \
		-o ram.test=error:flip,every=20 -o disk.admission=1 -r rr --late 3 "$tmp/long"
	above checksum_errors 0; above blocks_decoded 0; is codec_failed 0
	requests=$n
}
part "coded blocks"

# shellcheck disable=SC2086
{
	tiers $pool --no-beside -o ram.test=error:flip,every=20 "$tmp/agent"
	above checksum_errors 0
	tiers $pool --no-beside -o disk.test=error:flip,every=3 -o disk.admission=1 "$tmp/agent"
	[ -n "$slow" ] || above checksum_errors 0
	tiers $pool --no-beside -o disk.test=error:write,every=4 -o ram.test=error:read,every=30 \
		"$tmp/agent"
	above moves_failed 0
	tiers $pool --no-beside -o "disk.test=delay:1ms" "$tmp/agent"
}
part "tiers that turn bits, fail, are slow"

# ------------------------------------------------------------ restarts

# shellcheck disable=SC2086
{
	# The keeper has the memory: sessions go on.
	tiers $pool --no-beside --restart 1 "$tmp/agent"
	is restarts 1; is sessions_resumed 4; is sessions_anew 0
	tiers $pool --no-beside --restart 2 -r rr --late 2 --publish-decode "$tmp/agent"
	is restarts 2; is sessions_resumed 8
	# Only the file is left: sessions begin anew, blocks are found on disk.
	tiers $pool --no-beside --restart 1 --no-keeper -o disk.admission=1 --disk-path "$tmp/img" \
		"$tmp/agent"
	is restarts 1; is sessions_resumed 0; is sessions_anew 4
	above blocks_adopted 0
	[ -n "$slow" ] || above tokens_disk 0
	[ -s "$tmp/img" ] || fail "$what: --disk-path: the file is gone"
	rm -f "$tmp/img"
}
part "the daemon is killed on the way"

# ------------------------------------------------------------ sample traces

# sample FILE REQUESTS ARG...
sample()
{
	file=$1 requests=$2
	shift 2
	tiers "$@" "$traces/$file.jsonl.gz"
	beside
	if [ "$failed" -eq "$failed_before" ]; then
		echo "ok $file (token hit rate $(value token_hit_rate), without tiers" \
			"$(value beside_token_hit_rate), unlimited $(value unlimited_token_hit_rate))"
	else
		echo "not ok $file"
	fi
	failed_before=$failed
}

if [ ! -r "$traces/codingagent_dev.jsonl.gz" ]; then
	echo "SKIP: no sample traces in $traces (KVMD_TRACES)"
elif [ -n "$slow" ]; then
	echo "SKIP: all but the first 200 requests of the sample traces: slow with $slow"
	for t in sharegpt_300 mooncake_synthetic taubench_airline; do
		sample $t 200 -n 200 --blocks 1050
	done
else
	sample sharegpt_300 300 -p 10
	sample mooncake_synthetic 3993 -p 5 --late 2
	sample taubench_airline 2454 -p 5
	sample codingagent_dev 1500 -n 1500 -p 10 -r rr --late 2
fi

finish
