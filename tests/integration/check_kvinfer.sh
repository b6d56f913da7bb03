#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check_kvinfer.sh - engines on one pool answer as one engine alone does.
#
# Real kvinfer processes on a real daemon; logits are compared bit for bit, by the sum
# that --json gives of them, with those of a process with a cache of its own, and by
# --check with those of no cache at all: cold, warm, in batches, several processes at
# once, tiers with eviction forced, codecs, windows, sequences that give way, engines
# and daemons killed in mid-run. The same on the fake driver, kernels included.
#
# KVMD_BUILD_DIR or O: build directory (build). KVMD_REAL_CUDA=1: "cuda" parts run on
# this machine's GPU. Prints "ok NAME", "not ok NAME" or "SKIP: REASON" per part. Exit
# status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
. "$(dirname "$0")/../infer.sh"

# Prompts: a text that all have in common, about 20 blocks, and questions.
system=$(awk 'BEGIN { for (i = 0; i < 40; i++) printf "rule %d holds. ", i }')
for i in 1 2 3 4 5 6 7 8; do
	echo "question $i: $(awk -v n=$i 'BEGIN { for (i = 0; i < 4 * n; i++) printf "%c", 97 + i * n % 26 }')?"
done >"$tmp/questions"
q1=$(sed -n 1p "$tmp/questions")
q2=$(sed -n 2p "$tmp/questions")
small=dim=64,layers=3,heads=4,kv_heads=2,ffn=128,vocab=256,max_tokens=2048
# A block of it: 16 tokens * 3 layers * K and V * 2 heads * 16 values, 6 KiB.
base="-j -m $small -c 32 -b 4 -n 12"

host="[device host-0]
bytes = 8M
[pool]
slab_bytes = 1M"

# ------------------------------------------------------------------ one pool

serve "$host"
alone -s "$system" -p "$q1"
infer 0 --check -s "$system" -p "$q1"
same
[ "$(of cached_tokens)" = 0 ] || fail "$what: hits in an empty pool"
infer 0 --check -s "$system" -p "$q1"
same
[ "$(of cached_tokens)" -ge 512 ] || fail "$what: $(of cached_tokens) tokens from the pool"
part "cold and warm"

alone -s "$system" -p "$q2"
infer 0 --check -s "$system" -p "$q2"
same
[ "$(of cached_tokens)" -ge 512 ] || fail "$what: $(of cached_tokens) tokens from the pool"
part "the prefix of another process"

# Alone, one at a time; then eight in batches of four, and three processes of that.
alone -s "$system" -f "$tmp/questions"
one=$(for i in 1 2 3 4 5 6 7 8; do
	"$prog" -j -m $small -c 32 -b 4 -n 12 --private -s "$system" -p "$(sed -n ${i}p "$tmp/questions")" |
		sed -n 's/.*"logits_sum":"\([^"]*\).*/\1/p'
done)
[ "$one" = "$alone" ] || fail "$what: a batch's logits are not those of one at a time"
part "who else is in the batch"

served
serve "$host"
# shellcheck disable=SC2086
for i in 1 2 3; do
	"$prog" $base -S "$sock" --check -s "$system" -f "$tmp/questions" \
		>"$tmp/out$i" 2>"$tmp/err$i" &
	pids="${pids:-} $!"
done
for p in $pids; do
	wait "$p" || fail "one of three: exit status $?: $(cat "$tmp"/err?)"
done
what="three processes"
for i in 1 2 3; do same "out$i"; done
[ $(($(counter blocks_hit) + $(counter blocks_merged))) -gt 0 ] || fail "$what: nothing was shared"
part "three processes at once"

infer 0 --check -s "$system" -f "$tmp/questions" --kv-dtype e4m3
[ "$(of check | sort -u)" = equal ] || fail "$what: $(of check)"
infer 0 --check -s "$system" -f "$tmp/questions" --kv-dtype f16
[ "$(of check | sort -u)" = equal ] || fail "$what: $(of check)"
infer 0 --check -s "$system" -f "$tmp/questions" --gemm plain
[ "$(of check | sort -u)" = equal ] || fail "$what: $(of check)"
part "types of K and V, and the plain GEMM"

# The window is 3 blocks, a sink, and what a chunk needs: the rest of 60 goes.
window="--window 48 --sinks 4 -n 300"
# shellcheck disable=SC2086
alone -s "$system" -f "$tmp/questions" $window
# shellcheck disable=SC2086
infer 0 --check -s "$system" -f "$tmp/questions" $window
same
# shellcheck disable=SC2086
infer 0 --check -s "$system" -f "$tmp/questions" $window
same
[ "$(of cached_tokens | head -1)" -ge 512 ] || fail "$what: $(of cached_tokens) tokens from the pool"
part "window with sinks"

infer 0 --space fixed -s "$system" -p "$q1"
run 1 -j -m dim=64,layers=2,heads=4,kv_heads=2,ffn=128,vocab=256 -S "$sock" --space fixed -p "$q1"
has err "plane_bytes"
part "a space of another geometry"
served

# ------------------------------------------------------------- tiers, eviction

# 20 blocks of 24 KiB in HBM; the prompts have 7 each, and all come twice. RAM has room
# for all of them, beside those of sequences that gave way, which are not coded.
tiers="[device host-0]
bytes = 512K
[pool]
slab_bytes = 128K
[ram]
bytes = 8M
chunk = 1M
hugetlb = no
lock = no"
awk 'BEGIN { for (i = 0; i < 12; i++) { for (j = 0; j < 30; j++) printf "text %d of %d. ", j * i, i; print "" } }' \
	>"$tmp/texts"
# Blocks of 64 tokens, so that a coded one takes fewer pages; two at a time, so that
# there is room for what is to be loaded.
texts="-f $tmp/texts --repeat 2 -b 2 -c 64 --block-tokens 64"
# shellcheck disable=SC2086
alone $texts
for more in "" "--layer-planes" "--codec window" "--codec window --layer-planes"; do
	serve "$tiers"
	# shellcheck disable=SC2086
	infer 0 --check $texts $more
	same
	total_above cached_tokens 0
	counter_above blocks_evicted 0
	counter_above blocks_loaded 0
	case $more in *codec*) counter_above blocks_encoded 0; counter_above blocks_decoded 0 ;; esac
	served
	part "tiers, eviction forced${more:+, $more}"
done

for codec in int8 fp8_e4m3 int4,exact=1:1 kivi2,scale=32; do
	serve "$tiers"
	# shellcheck disable=SC2086
	infer 0 --check $texts --codec $codec
	total_above cached_tokens 0
	counter_above blocks_decoded 0
	[ "$(of check | sort -u | head -1)" = differ ] || fail "$what: logits cannot be equal"
	echo "  $codec: logits differ by at most $(of check_diff | sort -g | tail -1)"
	served
	part "tiers, --codec $codec: differs, and is said to"
done

# --------------------------------------------------------- not enough memory

# Each needs 45 blocks in the end: two fit, four run.
serve "[device host-0]
bytes = 608K
[pool]
slab_bytes = 32K
[ram]
bytes = 4M
chunk = 1M
hugetlb = no
lock = no"
alone -n 300 -f "$tmp/texts"
infer 0 --check -n 300 -f "$tmp/texts"
same
[ $(($(total swaps) + $(total restarts))) -gt 0 ] || fail "$what: nobody gave way"
total_above swaps 0
served
part "sequences that give way to others"

serve "[device host-0]
bytes = 128K
[pool]
slab_bytes = 32K
alloc_timeout = 100ms"
infer 1 -f "$tmp/texts"
has err "more memory"
served
part "a pool too small for one sequence"

# ------------------------------------------------------------------- deaths

serve "$host"
alone -s "$system" -f "$tmp/questions"
endless -s "$system" -f "$tmp/questions"
kill -9 "$engine"
wait "$engine" 2>/dev/null
exec 9<&-
infer 0 --check -s "$system" -f "$tmp/questions"
same
# All it held comes back.
infer 0 -s "$system" -f "$tmp/questions"
served
part "kill -9 of an engine in mid-step"

serve "$host"
endless -s "$system" -f "$tmp/questions"
cat <&9 >"$tmp/endless" &
reader=$!
kill -9 "$daemon"
wait "$daemon" 2>/dev/null
wait "$engine"
[ $? = 3 ] || fail "the daemon gone: exit status $?"
wait "$reader"
exec 9<&-
grep -q "the daemon is gone" "$tmp/endless.err" || fail "the daemon gone: $(cat "$tmp/endless.err")"
daemon=
part "kill -9 of the daemon: what is held is finished, and it is said"

serve "$host" "$O/kvkeeper"
endless -s "$system" -f "$tmp/questions" --repeat 20
kill_daemon
cat <&9 >"$tmp/rest"
wait "$engine" || fail "a daemon that came back: exit status $?: $(cat "$tmp/endless.err")"
exec 9<&-
[ "$(sed -n 's/.*"type":"answer".*"logits_sum":"\([^"]*\).*/\1/p' "$tmp/rest" | sort -u)" = \
	"$(echo "$alone" | sort -u)" ] || fail "a daemon that came back: other logits"
served
part "kill -9 of the daemon under a keeper: engines go on"

# ---------------------------------------------------------------------- cuda

gpu="[device cuda-0]
kind = cuda
bytes = 64M
grace = 0
[pool]
slab_bytes = 2M"
if [ "${KVMD_REAL_CUDA:-}" != 1 ]; then
	CUDA_VISIBLE_DEVICES='' run 1 -j -m $small -d cuda --private -p "$q1"
	grep -qE 'libcuda|GPU' "$tmp/err" || fail "$what: $(cat "$tmp/err")"
	part "no GPU where one is asked for"
	on_fake
	gemm=plain
fi
base="$base -d cuda --gemm ${gemm:-auto}"
serve "$gpu"
alone -s "$system" -f "$tmp/questions"
infer 0 --check -s "$system" -f "$tmp/questions"
same
infer 0 --check -s "$system" -f "$tmp/questions"
same
total_above cached_tokens 0
if [ "${KVMD_REAL_CUDA:-}" != 1 ]; then
	base="-j -m $small -c 32 -b 4 -n 12 --gemm plain"
	run 0 $base --private -s "$system" -f "$tmp/questions"
	[ "$(of logits_sum)" = "$alone" ] || fail "$what: the fake GPU's kernels do not do what the CPU's do"
fi
served
if grep -s violation "$tmp"/err "$tmp"/d*/log; then fail "violations"; fi
part "a pool on ${gemm:+a stand-in for }a GPU"
finish
