#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check_replay_lru.sh - the daemon's lru is the simulator's, to four digits.
#
# One client, and four in turn, requests serialised in the trace's order, no
# blocks for outputs, watermarks 0, capacity counted in slots: on every sample
# trace, at 1, 5 and 10 % of its distinct blocks, the block and token hit rates
# must be those of an independent simulator of the same rules.
#
# KVMD_BUILD_DIR or O: build directory (build). KVMD_TRACES, KVMD_KVSIM: sample
# traces and the simulator's source (../shared/traces, ../shared/kvsim beside the
# tree). Exit status: 0, 1, or 77: nothing to compare with.

set -u
. "$(dirname "$0")/../script.sh"
kvsim=${KVMD_KVSIM:-$root/../shared/kvsim}
needs kvtrace kvmd
[ -r "$kvsim/kvsim.c" ] || { echo "SKIP: no simulator in $kvsim (KVMD_KVSIM)"; exit 77; }
[ -r "$traces/codingagent_dev.jsonl.gz" ] ||
	{ echo "SKIP: no sample traces in $traces (KVMD_TRACES)"; exit 77; }
"${CC:-cc}" -O2 -w -o "$tmp/kvsim" "$kvsim/kvsim.c" -lm || exit 1

# rates: "BLOCK TOKEN" with four digits from the report on standard input.
rates()
{
	sed -n 's/^block hit rate  *\([0-9.]*\) .*/\1/p; s/^token hit rate  *\([0-9.]*\) .*/\1/p' |
		paste -s -d ' '
}

# compare FILE PERCENT WANT ARG...
compare()
{
	file=$1 percent=$2 want=$3
	shift 3
	"$O/kvtrace" replay -q --policy lru --watermarks 0,0,0 --serial --no-decode \
		--block-bytes 512 -p "$percent" "$@" "$traces/$file.jsonl.gz" >"$tmp/out" 2>&1
	status=$?
	got=$(rates <"$tmp/out")
	if [ $status -eq 0 ] && [ "$got" = "$want" ]; then
		echo "ok $file $percent % $*: $got"
	else
		echo "not ok $file $percent % $*: status $status, '$got', the simulator has '$want'"
		tail -3 "$tmp/out" >&2
		failed=$((failed + 1))
	fi
}

percents="1 5 10"
if [ -n "$D" ]; then
	echo "SKIP: codingagent_dev, and 1 and 10 %: slow with D=$D"
	percents=5
fi
for file in sharegpt_300 mooncake_synthetic taubench_airline codingagent_dev; do
	[ "$file" = codingagent_dev ] && [ -n "$D" ] && continue
	for percent in $percents; do
		want=$("$tmp/kvsim" "$traces/$file.jsonl.gz" -p lru -c "$percent" |
			sed -n 's/.* block \([0-9.]*\) token \([0-9.]*\) .*/\1 \2/p')
		compare "$file" "$percent" "$want" -c 1
		compare "$file" "$percent" "$want" -c 4 -r rr
	done
done

finish
