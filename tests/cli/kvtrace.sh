#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# kvtrace.sh - the command line of kvtrace: gen and info, exit codes, messages.
#
# O or KVMD_BUILD_DIR: build directory (build). KVMD_TRACES: sample traces
# (../shared/traces beside the tree); without them their checks are skipped.
# Prints "ok NAME", "not ok NAME" or "SKIP: REASON" per part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvtrace
prog=$O/kvtrace

# field NAME VALUE: a line of `kvtrace info`.
field()
{
	v=$(sed -n "s/^$1  *//p" "$tmp/out")
	[ "$v" = "$2" ] || fail "$3: $1 is '$v', not '$2'"
}

same()
{
	cmp -s "$1" "$2" || fail "$3"
}

# ------------------------------------------------------------ help and usage

run 0 --help; has out "usage: kvtrace COMMAND"; lacks err
run 0 help; has out "  gen "; has out "  info "
run 2; has err "usage: kvtrace COMMAND"; lacks out
run 0 --version; has out "kvtrace "
run 2 nonsense; has err "no command 'nonsense'"; lacks out
run 2 help nonsense; has err "no command 'nonsense'"
for verb in gen info replay; do
	run 0 "$verb" --help; has out "usage: kvtrace $verb"; lacks err
	cp "$tmp/out" "$tmp/help"
	run 0 help "$verb"; same "$tmp/out" "$tmp/help" "help $verb is not $verb --help"
	run 2 "$verb" --nonsense; has err "unrecognized option '--nonsense'"
	has err "Try 'kvtrace $verb --help'."; lacks out
done
run 2 info; has err "which FILE?"
run 2 info a b; has err "one FILE at a time"
run 2 info -b 0 x; has err "--block-tokens: 0 is outside 1 to"
run 2 info -n many x; has err "--requests: 'many' is not a whole number"
run 2 gen extra; has err "'extra' is one argument too many"
run 2 gen --requests 0; has err "--requests: 0 is outside 1 to"
run 2 gen --seed -1; has err "--seed: '-1' is not a whole number"
run 2 gen --gap soon; has err "--gap: 'soon' is not a time"
run 2 gen --tools hammer; has err "no preset 'hammer'"
run 2 gen --system-tokens 1000 --context 1500; has err "does not fit in a --context of 1500"
part "help and usage"

# ------------------------------------------------------------ gen

run 0 gen -n 500 --seed 7; lacks err
cp "$tmp/out" "$tmp/a"
[ "$(wc -l <"$tmp/a")" -eq 501 ] || fail "gen -n 500: $(wc -l <"$tmp/a") lines"
head -1 "$tmp/a" >"$tmp/out"; has out '"block_tokens":16'; has out '"requests":500'
run 0 gen --seed 7 --requests 500
same "$tmp/out" "$tmp/a" "gen: the same seed gives another trace"
run 0 gen --seed 8 --requests 500
cmp -s "$tmp/out" "$tmp/a" && fail "gen: another seed gives the same trace"
run 0 gen --seed 7 -n 500 -o "$tmp/b.jsonl"; lacks out
same "$tmp/b.jsonl" "$tmp/a" "gen -o differs from standard output"
run 0 gen --seed 7 -n 500 -o "$tmp/b.jsonl.gz"
gzip -dc "$tmp/b.jsonl.gz" | cmp -s - "$tmp/a" || fail "gen -o x.gz is not the same trace"
run 0 gen --seed 7 -n 500 --hash-ids; has out '"hash_ids":[0,1,2'
cp "$tmp/out" "$tmp/ids"
run 1 gen -o /nonexistent/x; has err "/nonexistent/x: No such file or directory"
if [ -c /dev/full ]; then
	run 1 gen -n 5000 -o /dev/full; has err "/dev/full: No space left on device"
fi

# Runs, ids, gzip and standard input are one trace; the header's totals hold.
run 0 info "$tmp/a"; lacks err
cp "$tmp/out" "$tmp/info"
field requests 500 gen
run 0 info "$tmp/ids"; lacks err; same "$tmp/out" "$tmp/info" "info: ids and runs differ"
run 0 info "$tmp/b.jsonl.gz"; same "$tmp/out" "$tmp/info" "info: gzip differs"
"$prog" info - <"$tmp/a" >"$tmp/out" || fail "info -: exit status $?"
same "$tmp/out" "$tmp/info" "info: standard input differs"

# What was asked for is what comes out.
run 0 gen --tools agent --sessions 40 --turns 1 --system-prompts 1 --system-tokens 6400 \
	-b 64 -o "$tmp/one"
run 0 info "$tmp/one"; lacks err
field sessions 40 "one turn each"
field requests 40 "one turn each"
field block_tokens 64 "one turn each"
field blocks_used_100+ 0 "one turn each"
field max_use 40 "one turn each"
run 0 gen -S 3 --system-tokens 0 --turns 1 -o "$tmp/none"
run 0 info "$tmp/none"; lacks err; field unlimited_block_hit 0.0000 "nothing shared"
part "gen"

# ------------------------------------------------------------ bad data

good='{"timestamp":1,"input_length":512,"output_length":1,"hash_ids":[1]}'
printf '%s\n%s\n%s\n' "$good" '{"timestamp":1,' "$good" >"$tmp/bad"
run 1 info "$tmp/bad"; has err "$tmp/bad:2: "; lacks out
run 0 info --skip-bad "$tmp/bad"; has err "1 bad lines skipped, the first: $tmp/bad:2: "
field requests 2 "skip-bad"
field bad_lines 1 "skip-bad"
run 0 info -k -q -j "$tmp/bad"; lacks err; has out '"bad_lines":1'
run 0 info -n 1 "$tmp/bad"; lacks err; field requests 1 "-n 1"
run 1 info "$tmp/nothing-here"; has err "$tmp/nothing-here: No such file or directory"
run 1 info "$tmp"; has err "Is a directory"
run 1 info /dev/null; has err "/dev/null: no requests"
head -c 2000 "$tmp/b.jsonl.gz" >"$tmp/cut.gz"
run 1 info "$tmp/cut.gz"; has err "truncated"
run 1 info -k "$tmp/cut.gz"; has err "truncated"
head -100 "$tmp/a" >"$tmp/short"
run 0 info "$tmp/short"; has err "totals differ from the header's"
run 0 info -b 8192 "$tmp/a"; has err "more blocks than their tokens fill"
printf '%s\n' "$good" '{"timestamp":0,"input_length":512,"output_length":1,"hash_ids":[2,1]}' \
	>"$tmp/odd"
run 0 info -j "$tmp/odd"; has err "ids are not prefix ids"
has out '"accesses_with_other_parent":1'; has out '"requests_back_in_time":1'
if [ -c /dev/full ]; then
	"$prog" info "$tmp/a" >/dev/full 2>"$tmp/err"
	[ $? -eq 1 ] || fail "info >/dev/full: exit status is not 1"
	has err "standard output: No space left on device"
fi
part "bad data"

# ------------------------------------------------------------ JSON

run 0 info -j "$tmp/a"; lacks err
for key in schema file block_tokens requests sessions span_ns input_tokens block_accesses \
	distinct_blocks unlimited_block_hit_rate unlimited_token_hit_rate single_use_share \
	chain_blocks reuse_ns reuse_requests bad_lines warnings; do
	has out "\"$key\":"
done
is_json
part "json"

# ------------------------------------------------------------ sample traces

# sample FILE SESSIONS ACCESSES BLOCKS BLOCK-HIT TOKEN-HIT SINGLE: figures of an
# independent simulator.
sample()
{
	run 0 info "$traces/$1.jsonl.gz"; lacks err
	field sessions "$2" "$1"
	field block_accesses "$3" "$1"
	field distinct_blocks "$4" "$1"
	field unlimited_block_hit "$5" "$1"
	field unlimited_token_hit "$6" "$1"
	field single_use_blocks "$7" "$1"
}

if [ -r "$traces/codingagent_dev.jsonl.gz" ]; then
	sample codingagent_dev 104 7208047 302369 0.9581 0.9577 0.1029
	field reuse_s "p10 7.0 p25 10.0 p50 18.0 p75 42.0 p90 123.0 p99 1647.0 max 19841.7" \
		codingagent_dev
	field chain_blocks "p10 579 p25 888 p50 1322 p75 1823 p90 2202 p99 3490 max 5626" \
		codingagent_dev
	sample mooncake_synthetic "3071 (inferred)" 121877 43924 0.6396 0.6512 0.5845
	field partial_tail_blocks 3989 mooncake_synthetic
	sample sharegpt_300 268 15942 14722 0.0765 0.0759 0.9189
	sample taubench_airline 200 511194 34769 0.9320 0.9299 0.0882
	part "sample traces"
else
	echo "SKIP: no sample traces in $traces (KVMD_TRACES)"
fi

finish
