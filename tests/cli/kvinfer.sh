#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# kvinfer.sh - the command line of kvinfer: help, usage, prompts, exit codes, the report.
#
# O or KVMD_BUILD_DIR: build directory (build). Prints "ok NAME" or "not ok NAME" per
# part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvinfer kvmd kvtrace
prog=$O/kvinfer
daemon='' engine=''
ended()
{
	[ -z "$engine" ] || kill "$engine" 2>/dev/null
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null
	wait 2>/dev/null
}
unset KVMD_SOCKET
# A model that is quick in every build.
small='dim=64,layers=2,heads=4,kv_heads=2,ffn=96,max_tokens=512'

# keys: of each line of $tmp/out, in order, without their values.
keys()
{
	while read -r keys_line; do
		printf '%s\n' "$keys_line" | grep -o '"[a-z_]*":' | tr -d '":' | tr '\n' ' '
		echo
	done <"$tmp/out"
}

# of LINE KEY VALUE: of line LINE of $tmp/out.
of()
{
	of_got=$(sed -n "$1s/.*\"$2\":\([^,}]*\).*/\1/p" "$tmp/out")
	[ "$of_got" = "$3" ] || fail "$what: line $1: $2 is '$of_got', not '$3'"
}

# ------------------------------------------------------------ help and usage

run 0 --help; has out "usage: kvinfer [OPTION]"; has out "  -p, --prompt TEXT"; lacks err
run 0 --version; has out "kvinfer "; lacks err
run 2; has err "nothing to answer: give --prompt, --prompt-file or --trace"; lacks out
run 2 --nonsense; has err "unrecognized option '--nonsense'"; has err "Try 'kvinfer --help'."
run 2 -p; has err "requires an argument"
run 2 -p x y; has err "'y' is one argument too many: a prompt is given with --prompt"

# Each of these makes no sense; the text says what to do.
while IFS='|' read -r args text; do
	eval "run 2 $args"
	has err "kvinfer: "; has err "$text"; has err "Try 'kvinfer --help'."; lacks out
done <<'END'
-p x --tokens 0|--tokens: 0 is outside 1 to
-p x --tokens many|--tokens: 'many' is not a whole number
-p x --tokens 8192|leave no room for a prompt: the model has max_tokens=8192
-p x --temperature warm|--temperature: 'warm' is not a number
-p x --temperature nan|--temperature: 'nan' is not a number
-p x --top-k 4|--top-k without a --temperature above 0 draws nothing
-p x --samples 20|--samples 20 at a time need a --batch of 20 or more, not 16
-p x --trace-scale 2|--trace-scale is about a --trace
-p x --model dim=x|--model: dim=x
-p x --model deep=9|--model: deep
-p x --model heads=3|--model: dim=256 is no multiple of heads=3
-p x --weights w --model dim=64|--model is about random weights
-p x --weights w --model-seed 2|--model-seed is about random weights
-p x --device gpu|--device: 'gpu' is not cpu, cuda or cuda:N
-p x --device cuda:|--device: 'cuda:' is not cpu, cuda or cuda:N
-p x --gemm fast|--gemm: 'fast' is not one of auto, blas, plain
-p x --batch 0|--batch: 0 is outside 1 to 256
-p x --chunk 24|--chunk 24 is not a multiple of --block-tokens 16: give 32
-p x --sinks 4|--sinks are seen besides a --window
-p x --h2o 100|--h2o 100 is not a multiple of --block-tokens 16: give 112
-p x --h2o 64 --window 64|--h2o chooses the tokens that --window would
-p x --h2o 64 --samples 2|leave out --samples
-p x --h2o 64 --draft-layers 1 --draft-tokens 2|leave out --draft-tokens
-p x --h2o 64 --role prefill --handoff t|leave out --role
-p x --draft-tokens 2|needs both --draft-layers and --draft-tokens
-p x --draft-layers 4 --draft-tokens 2|the model has 4 layers, a draft has to have fewer
-p x --draft-layers 1 --draft-tokens 16|--batch is 16: give at most 15
-p x --ranks 3|--ranks: 3 is outside 1 to 2
-p x --ranks 2 --model heads=1,kv_heads=1|--model: 
-p x --kv-dtype f32|--kv-dtype: 'f32' is not one of bf16, f16, e4m3, e5m2
-p x --codec zip|--codec: 'zip' is not one of none, window,
-p x --codec int8,levels=3|'levels=3' is neither exact=FIRST:LAST nor scale=N
-p x --codec int8,scale=48|a scale is for 32, 64 or 128 values
-p x --codec fp8_e4m3,scale=64|fp8_e4m3 has no scales
-p x --codec window,exact=1|window loses nothing in any layer
-p x --codec int4,exact=3:2|exact=3:2 are more than the model's 4 layers
-p x --codec int4 --kv-dtype f16|--codec takes bf16: leave out --kv-dtype f16
-p x --codec int4 --private|--codec is of a pool
-p x --socket s --private|--socket is of a pool
-p x --private-tokens 64|--private-tokens is of a --private cache
-p x --private --role prefill --handoff t|--role hands over blocks of a pool
-p x --role prefill|--role prefill needs --handoff, where tickets go to
-p x --handoff t|say --role prefill or decode too
-p x --samples 2 --role prefill --handoff t|a ticket hands over one
-p x --check --role prefill --handoff t|leave it to --role decode
-p x --role decode --handoff t|what to answer comes with the tickets
END
part "help and usage"

# ------------------------------------------------------------ prompts that are refused

printf 'fine\n\n' >"$tmp/empty"
printf 'fine\n{"ids": [1, 999]}\n' >"$tmp/ids"
printf 'fine\nfine\n{"text": 1}\n' >"$tmp/type"
printf '%600s\n' long >"$tmp/long"
: >"$tmp/none"
run 1 --private -m "$small" -f "$tmp/empty"; has err "$tmp/empty:2: an empty prompt"; lacks out
run 1 --private -m "$small" -f "$tmp/ids"; has err "$tmp/ids:2: \"ids\"[1] is 999"
run 1 --private -m "$small" -f "$tmp/type"; has err "$tmp/type:3: \"text\" is not a string"
run 1 --private -m "$small" -f "$tmp/none"; has err "$tmp/none: no prompts"
run 1 --private -m "$small" -f "$tmp/long"
has err "$tmp/long:1: a prompt of 600 tokens and 32 to make are more than the model's 512"
run 1 --private -m "$small" -f "$tmp/not-here"; has err "$tmp/not-here: No such file or directory"
run 1 --private -m "$small" -t "$tmp/ids"; has err "$tmp/ids:1: "
run 1 --private -m "$small" --private-tokens 16 -p "more than that"
has err "--private-tokens 16: 1 sequences of up to"
run 1 --private -w "$tmp/not-here" -p x; has err "$tmp/not-here"
run 1 --private -w "$tmp/long" -p x; has err "$tmp/long"
part "prompts"

# ------------------------------------------------------------ answers

run 0 --private -m "$small" -n 4 -p one -p "number two"; lacks err
has out "0.0: 3 prompt tokens, 0 from the pool, 3 computed; first token "
has out "; 4 made in 4 steps, "; has out "1.0: 10 prompt tokens, "
has out "total: 2 answers, 13 prompt tokens, 0 from the pool, 8 made in "
lacks out "logits"
run 0 --private -m "$small" -n 4 -p one --quiet; lacks out "0.0: "; has out "total: 1 answers"
run 0 --private -m "$small,vocab=300" -n 4 -p one; has out "; ids "; lacks out '"'
run 0 --private -m "$small" -n 4 -p one --check; has out "; logits equal; \""

# Every key of a line, in its order.
set -- --private -m "$small" -n 4 -s "s " -p one -p two --samples 2 --temperature 1 -j
run 0 "$@" --check; lacks err
answer='schema type id sample prompt_tokens cached_tokens computed_tokens made_tokens'
answer="$answer first_token_ns spent_ns tokens_per_s steps drafted_tokens accepted_tokens"
answer="$answer evicted_tokens ticket_gone stopped check check_diff ids text logits_sum "
totals='schema type device gemm model_bytes private answers prompt_tokens cached_tokens'
totals="$totals computed_tokens made_tokens spent_ns tokens_per_s prefill_steps decode_steps"
totals="$totals swaps restarts drafted_tokens accepted_tokens evicted_tokens unequal_answers"
totals="$totals check_diff daemon_gone "
{ for i in 1 2 3 4; do echo "$answer"; done; echo "$totals"; } >"$tmp/want"
keys >"$tmp/got"
cmp -s "$tmp/want" "$tmp/got" || fail "keys: $(diff "$tmp/want" "$tmp/got" | head -4)"
of 1 schema 1; of 1 type '"answer"'; of 1 id 0; of 1 prompt_tokens 5; of 1 cached_tokens 0
of 1 made_tokens 4; of 1 check '"equal"'; of 1 check_diff 0; of 1 stopped false
of 5 type '"totals"'; of 5 device '"cpu"'; of 5 private true; of 5 answers 4; of 5 made_tokens 16
of 5 unequal_answers 0; of 5 daemon_gone false
cp "$tmp/out" "$tmp/five"
for i in 1 5; do
	sed -n "${i}p" "$tmp/five" >"$tmp/out"
	is_json
done
# The same prompts and seeds are the same bits; each sample has its own noise.
run 0 "$@"
of 1 check null; of 1 check_diff null; of 5 unequal_answers null
for i in 1 2 3 4; do
	of $i logits_sum "$(sed -n "${i}s/.*\"logits_sum\":\([^,}]*\).*/\1/p" "$tmp/five")"
done
# Without BLAS too, and with what changes the steps but not the answers.
set -- --private -m "$small" -n 6 -p "one prompt"
run 0 "$@" -j; of 1 schema 1
ids=$(sed -n '1s/.*"ids":\[\([0-9,]*\)\].*/\1/p' "$tmp/out")
run 0 "$@" --draft-layers 1 --draft-tokens 3 --check; has out "logits equal"
run 0 "$@" --draft-layers 1 --draft-tokens 3 -j; has out "\"ids\":[$ids]"
run 0 "$@" --gemm plain --check; has out "logits equal"
run 0 "$@" --repeat 3 -b 2 -j; of 3 id 2; has out "\"ids\":[$ids]"

"$O/kvtrace" gen -q -n 6 -T chat -o "$tmp/trace.gz" || fail "no trace"
run 0 --private -m "$small,max_tokens=4096" -n 2 -t "$tmp/trace.gz" --trace-scale 16 -q
has out "total: 6 answers"
if [ -c /dev/full ]; then
	"$prog" --private -m "$small" -n 2 -p x >/dev/full 2>"$tmp/err" </dev/null
	status=$?
	what="kvinfer >/dev/full"
	[ $status = 1 ] || fail "$what: exit status $status"
	has err "standard output: No space left on device"
fi
part "private"

# ------------------------------------------------------------ a pool

run 3 -m "$small" -S "$tmp/no-sock" -p x; lacks out
has err "no-sock"; has err "start kvmd, name its --socket, or use --private"

cat >"$tmp/kvmd.conf" <<END
[daemon]
socket = $tmp/sock
log_level = warn
[pool]
slab_bytes = 1M
[device host-0]
bytes = 16M
END
"$O/kvmd" -c "$tmp/kvmd.conf" 2>"$tmp/log" &
daemon=$!
until [ -S "$tmp/sock.admin" ]; do
	kill -0 "$daemon" 2>/dev/null || { fail "kvmd: $(cat "$tmp/log")"; break; }
done
export KVMD_SOCKET="$tmp/sock"
system="Forty tokens at least, so that three blocks are the same: "
set -- -m "$small" -n 4 -c 16 -s "$system" --check -j
run 0 "$@" -p one; of 1 cached_tokens 0; of 1 check '"equal"'; of 2 private false
run 0 "$@" -p two; of 1 cached_tokens 48; of 1 check '"equal"'; of 1 computed_tokens 13
run 0 "$@" -p two --no-cache; of 1 cached_tokens 0
run 0 "$@" -p two --kv-dtype f16; of 1 cached_tokens 0; of 1 check '"equal"'
run 0 "$@" -p two --private; of 1 cached_tokens 0
# A space that is there with another geometry.
run 0 "$@" -p two --space mine
run 1 "$@" -p two --space mine --block-tokens 8; has err "space mine has group[0]."; lacks out
# Tickets on standard output, the report beside them.
run 0 -m "$small" -n 4 -c 16 -p one --role prefill --handoff - -j
has out '"ticket"'; lacks out '"type"'; has err '"type":"answer"'
"$prog" -m "$small" -n 4 -c 16 --role decode --handoff - --check -j <"$tmp/out" \
	>"$tmp/decoded" 2>&1 || fail "decode: $(cat "$tmp/decoded")"
mv "$tmp/decoded" "$tmp/out"; what="--role decode"
of 1 made_tokens 4; of 1 check '"equal"'; of 1 ticket_gone false
part "pool"

# ------------------------------------------------------------ the daemon goes away

# There is more to answer than can be over when the first answer has come.
mkfifo "$tmp/fifo"
"$prog" "$@" -p one --repeat 50000 >"$tmp/fifo" 2>"$tmp/err" </dev/null &
engine=$!
exec 8<"$tmp/fifo"
read -r what <&8
kill -9 "$daemon"
cat <&8 >"$tmp/rest"
exec 8<&-
wait "$engine"
status=$?
wait "$daemon" 2>/dev/null
daemon='' engine=''
what="the daemon is killed"
[ $status = 3 ] || fail "$what: exit status $status"
has err "the daemon is gone"
tail -n 1 "$tmp/rest" >"$tmp/out"
is daemon_gone true; is unequal_answers 0
run 3 "$@" -p one
part "daemon gone"

finish
