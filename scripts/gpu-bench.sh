#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu-bench.sh - kvbench's part gpu, and its section of the results (make bench-gpu).
#
#   gpu-bench.sh [ARGUMENT OF KVBENCH]...
#
# KVMD_BUILD_DIR, KVMD_GPU_RESULTS, KVMD_GPU_SECONDS: as gpu-check.sh has them. Without
# a GPU kvbench lists what it skips; nothing is written, and the exit status is 0.
set -u
cd "$(dirname "$0")/.." || exit 1
O=$(cd "${KVMD_BUILD_DIR:-build}" && pwd) || exit 1
owed=$O/tests/gpu/prog_owed
logs=$O/gpu-logs
limited() { timeout -k 5 "${KVMD_GPU_SECONDS:-1800}" "$O/kvbench" "$@" gpu; }

if ! found=$("$owed" probe); then
	limited "$@"
	exit
fi
mkdir -p "$logs"
limited "$@" 2>&1 | tee "$logs/bench.log"
rc=${PIPESTATUS[0]}

results=tests/gpu/RESULTS.md
grep -qx 'fake: yes' <<<"$found" && results=$logs/RESULTS.md
results=${KVMD_GPU_RESULTS:-$results}
{
	grep -qx 'fake: yes' <<<"$found" &&
		printf '**The fake driver, no GPU: these figures mean nothing.**\n\n'
	echo "$(date -u '+%Y-%m-%d %H:%M UTC'), $(sed -n 's/^gpu 0: //p' <<<"$found")"
	[ "$rc" = 0 ] || printf '\n**kvbench ended with status %d.**\n' "$rc"
	echo
	echo '```'
	sed "s|$O/||g" "$logs/bench.log" | tr '\r' '\n' | cut -c1-200
	echo '```'
} | scripts/gpu-results.sh "$results" benchmark
{
	grep -qx 'fake: yes' <<<"$found" &&
		printf '**The fake driver, no GPU: these figures mean nothing.**\n\n'
	echo '| what | goal | measured | |'
	echo '|---|---|---|---|'
	tr '\r' '\n' <"$logs/bench.log" |
		sed -nE 's/^  (.*), (GB\/s|[mnu]?s|x) +.* ([0-9.]+) \([0-9.e+-]+ - [0-9.e+-]+\) +([<>]=[^:]*): (.*)$/| \1 | \4 | \3 | \5 |/p'
	sed -n -e '/ slab/d' -e 's/^SKIP: \([^:]*\): \(.*\)/\nNot measured: \1: \2/p' "$logs/bench.log" | cut -c1-200
} | scripts/gpu-results.sh "$results" goals
echo "results: $results"
exit "$rc"
