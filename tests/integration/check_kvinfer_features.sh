#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check_kvinfer_features.sh - what kvinfer does with a pool beside caching: forks, drafts
# that are cut back, tokens thrown out, prefill and decode in two processes, two ranks on
# one table.
#
# Real processes on a real daemon. Logits are compared by the sum that --json gives of all
# their bits: with a process that has a cache of its own and none of these features, and
# by --check with no cache at all. The fake driver's GPUs do the same in the end.
#
# KVMD_BUILD_DIR or O: build directory (build). KVMD_REAL_CUDA=1: the GPU parts are left
# to check_kvinfer.sh. Prints "ok NAME", "not ok NAME" or "SKIP: REASON" per part. Exit
# status: 0, 1, or 77: a build with the thread checker.

set -u
. "$(dirname "$0")/../script.sh"
. "$(dirname "$0")/../infer.sh"
[ "$D" != tsan ] || { echo "SKIP: engines have one thread each"; exit 77; }

# A block of it: 16 tokens * 4 layers * K and V * 2 heads * 16 values, 8 KiB. Sums of the
# plain GEMM are the same on every machine.
base="-j -m dim=64,layers=4,heads=4,kv_heads=2,ffn=128,vocab=256,max_tokens=4096 -c 32 -b 8"
base="$base --gemm plain"
text="The quick brown fox jumps over the lazy dog, and goes home to sleep for a long while, as it was a hard day."
host="[device host-0]
bytes = 16M
[pool]
slab_bytes = 256K"

# pid_of RANK: of the process of the session of $engine.
pid_of()
{
	session=$(ask client list | sed -n "s/.*\"session\":\([0-9]*\),\"label\":\"kvinfer\",\"pid\":$engine,.*/\1/p")
	ask client show "$session" | sed -n "s/.*\"rank\":$1,\"pid\":\([0-9]*\).*/\1/p"
}

# ------------------------------------------------------------------- samples

for n in 96 107; do	# the last block full, and not
	p=$(printf '%s' "$text$text" | cut -c1-$n)
	alone -n 40 -p "$p" --temperature 0.9
	one=$alone
	alone -n 40 -p "$p" --temperature 0.9 --samples 4
	[ "$(echo "$alone" | head -1)" = "$one" ] || fail "$what: sample 0 is not the only one's"
	[ "$(echo "$alone" | sort -u | wc -l)" = 4 ] || fail "$what: samples are alike"
	serve "$host"
	infer 0 -n 40 -p "$p" --temperature 0.9 --samples 4 --check
	same
	[ "$(of computed_tokens | tr '\n' ' ')" = "$n 0 0 0 " ] ||
		fail "$what: the prompt was computed more than once: $(of computed_tokens)"
	[ $((n % 16)) = 0 ] || counter_above blocks_copied 2
	infer 0 -n 40 -p "$p" --temperature 0.9 --samples 4 --window 48 --sinks 16 --check
	[ "$(of check | sort -u)" = equal ] || fail "$what: check: $(of check)"
	served
done
part "samples of one prompt, by fork"

# 40 blocks: 7 of the prompt, and 4 samples with 12 more each do not fit.
serve "[device host-0]
bytes = 320K
[pool]
slab_bytes = 32K
alloc_timeout = 50ms"
alone -n 200 -p "$text" --temperature 0.9 --samples 4
infer 0 -n 200 -p "$text" --temperature 0.9 --samples 4 --check
same
served
part "samples that have to wait for one another"

# --------------------------------------------------------------- speculation

serve "$host"
for t in 0 0.8; do
	alone -n 150 -p "$text" --temperature $t
	for k in 1 3 7; do
		infer 0 -n 150 -p "$text" --temperature $t --draft-layers 3 --draft-tokens $k --check
		same
		all_above accepted_tokens 0
		[ "$(of drafted_tokens)" -gt "$(of accepted_tokens)" ] || fail "$what: nothing was rejected"
		[ "$(of steps)" -lt 150 ] || fail "$what: $(of steps) steps for 150 tokens"
	done
	alone -n 60 -p "$text" -p "$text $text" --temperature $t --samples 2
	infer 0 -n 60 -p "$text" -p "$text $text" --temperature $t --samples 2 \
		--draft-layers 1 --draft-tokens 4 --check
	same
done
# The answer ends where it has to, and the model's last position is used.
alone -n 1 -p "$text"
infer 0 -n 1 -p "$text" --draft-layers 2 --draft-tokens 4
same
all_are drafted_tokens 0
long=$(head -c 4080 /dev/zero | tr '\0' x)
alone -n 16 -p "$long"
infer 0 -n 16 -p "$long" --draft-layers 3 --draft-tokens 7 --check
same
served
part "speculation: the same tokens and bits"

# ---------------------------------------------------------------- h2o

serve "$host"
alone -n 60 -p "$text $text $text"
infer 0 -n 60 -p "$text $text $text" --h2o 512 --check
same
all_are evicted_tokens 0
part "h2o with room for all is as without"

alone -n 60 -p "$text $text $text" --h2o 64
one=$alone
infer 0 -n 60 -p "$text $text $text" --h2o 64 --no-cache --check
[ "$(of logits_sum)" = "$one" ] || fail "$what: not as with a cache of its own"
all_are check differ
all_above evicted_tokens 0
# What was computed without the tokens thrown out is nobody else's.
alone -n 60 -p "$text $text $text"
infer 0 -n 60 -p "$text $text $text" --check
same
served
# 14 blocks, of which the chunk in work has 2 and the copy has 4: 2000 tokens do not fit.
serve "[device host-0]
bytes = 120K
[pool]
slab_bytes = 8K
alloc_timeout = 50ms"
infer 1 -n 2000 -p "$text"
has err "more memory"
infer 0 -n 2000 -p "$text" --h2o 64
all_above evicted_tokens 1900
endless -p "$text" -n 500 --h2o 64 -b 1
for _ in 1 2 3 4 5 6 7 8; do
	read -r _ <&9
	# At most what the last eviction left, a chunk, and the copy.
	for held in $(ask seq list | grep -o '"positions":[0-9]*' | cut -d: -f2); do
		[ "$held" -le 11 ] || fail "h2o: $held blocks held by a sequence"
	done
done
kill "$engine"
wait "$engine"
exec 9<&-
served
part "h2o keeps the budget"

# ------------------------------------------------------------------- hand-over

printf '%s\n' "$text" "Another one." "$text And a third." >"$tmp/texts"
for t in 0 0.8; do
	alone -n 50 -f "$tmp/texts" --temperature $t
	serve "$host"
	# shellcheck disable=SC2086
	"$prog" $base -S "$sock" -q -n 50 -f "$tmp/texts" --temperature $t --role prefill \
		--handoff - 2>"$tmp/prefill" |
		"$prog" $base -S "$sock" --temperature $t --role decode --handoff - --check \
			>"$tmp/out" 2>"$tmp/err" || fail "decode: $(cat "$tmp/err" "$tmp/prefill")"
	what="prefill | decode"
	same
	all_are computed_tokens 0
	all_are ticket_gone false
	counter_above seq_recvs 2
	served
done
part "prefill and decode in two processes"

serve "$host"
alone -n 50 -f "$tmp/texts"
infer 0 -n 50 -f "$tmp/texts" --role prefill --handoff "$tmp/tickets"
infer 1 --role decode --handoff "$tmp/tickets" --model-seed 2
has err "of another model"
infer 1 --role decode --handoff "$tmp/tickets" --block-tokens 32
has err "of another model or of other options"
infer 1 --role decode --handoff "$tmp/tickets" --space other
has err "this is 'other'"
infer 0 --role decode --handoff "$tmp/tickets"
same
all_are ticket_gone false
infer 0 --role decode --handoff "$tmp/tickets" --check
same
all_are ticket_gone true
part "tickets of another model, and those that are gone"

infer 1 --role decode --handoff "$tmp/none"
has err "$tmp/none: No such file"
line=$(head -1 "$tmp/tickets")
while IFS='|' read -r from to text_wrong; do
	{ echo; printf '%s\n' "$line" | sed "s/$from/$to/"; } >"$tmp/bad"
	infer 1 --role decode --handoff "$tmp/bad"
	has err "$text_wrong"
done <<'END'
^.*$|not JSON|bad:2: no 'JSON'
^.*$|[1,2]|bad:2: no 'JSON'
"schema":1|"schema":2|bad:2: no 'schema'
"ticket":"..|"ticket":"zz|bad:2: no 'ticket'
"ticket":"|"ticket":"0|bad:2: no 'ticket'
"space":"[^"]*"|"space":""|bad:2: no 'space'
"space":"|"space":"0123456789012345678901234567890123456789012345678901234567890123|bad:2: no 'space'
"model":"..|"model":"|bad:2: no 'model'
"id":0|"id":-1|bad:2: no 'id'
"prompt":107|"prompt":108|bad:2: no 'prompt'
"prompt":107|"prompt":0|bad:2: no 'prompt'
"want":50|"want":1|bad:2: no 'want'
"want":50|"want":4000|more than the model's 4096
"done":107|"done":106|bad:2: no 'done'
"published":6|"published":7|cannot be published
"published":6|"published":7.5|bad:2: no 'published'
"tokens":\[84|"tokens":[256|token 256 is outside
"tokens":\[84|"tokens":[-1|bad:2: no 'tokens'
"tokens":\[84|"tokens":["84"|bad:2: no 'tokens'
"tokens":\[.*\]|"tokens":[]|bad:2: no 'prompt'
END
infer 1 -n 5 -p "$text" --role prefill --handoff "$tmp/not/here"
has err "handing over to $tmp/not/here: No such file"
served
part "bad tickets are refused"

# ---------------------------------------------------------------------- ranks

alone -n 40 -f "$tmp/texts"
ids=$(sed -n 's/.*"ids":\(\[[^]]*\]\).*/\1/p' "$tmp/out")
for more in "" "--samples 2 --temperature 0.9" "--draft-layers 2 --draft-tokens 3" \
	"--window 48 --sinks 16" "--layer-planes --kv-dtype f16"; do
	# shellcheck disable=SC2086
	alone -n 40 -f "$tmp/texts" --ranks 2 $more
	# Other sums in the last bits, and the same tokens.
	[ -n "$more" ] || [ "$(sed -n 's/.*"ids":\(\[[^]]*\]\).*/\1/p' "$tmp/out")" = "$ids" ] ||
		fail "$what: other tokens than one rank makes"
	serve "$host"
	# shellcheck disable=SC2086
	infer 0 -n 40 -f "$tmp/texts" --ranks 2 --check $more
	same
	# shellcheck disable=SC2086
	infer 0 -n 40 -f "$tmp/texts" --ranks 2 --check $more
	same
	counter_above blocks_hit 6
	served
done
alone -n 60 -p "$text" --h2o 64 --ranks 2
serve "$host"
infer 0 -n 60 -p "$text" --h2o 64 --ranks 2 --no-cache
same
all_above evicted_tokens 0
part "two ranks on one table"

endless -p "$text" -n 100 --ranks 2
kill -9 "$(pid_of 1)"
cat <&9 >/dev/null
wait "$engine"
got=$?
[ "$got" = 1 ] || fail "rank 1 killed: exit status $got: $(cat "$tmp/endless.err")"
grep -q "rank 1 was killed by signal 9" "$tmp/endless.err" ||
	fail "rank 1 killed: $(cat "$tmp/endless.err")"
part "kill -9 of rank 1: rank 0 says so"

# Both have the pipe: its end is the end of both.
endless -p "$text" -n 100 --ranks 2
kill -9 "$engine"
{ cat <&9 >"$tmp/rest"; wait "$engine"; } 2>/dev/null
exec 9<&-
infer 0 -n 40 -f "$tmp/texts" --ranks 2 --check
all_are check equal
served
part "kill -9 of rank 0: rank 1 ends, its blocks come back"

alone -n 100 -p "$text" --ranks 2 --samples 2 --temperature 0.9
serve "$host" "$O/kvkeeper"
endless -p "$text" -n 100 --ranks 2 --samples 2 --temperature 0.9 --repeat 12
kill_daemon
cat <&9 >"$tmp/out"
wait "$engine" || fail "two ranks and a daemon that came back: $(cat "$tmp/endless.err")"
exec 9<&-
# Noise depends on the prompt's number: only those of the first are known.
grep '"id":0,' "$tmp/out" >"$tmp/first"
for s in $(of logits_sum first); do
	case $alone in *$s*) ;; *) fail "two ranks and a daemon that came back: other logits" ;; esac
done
[ "$(grep -c '"type":"answer"' "$tmp/out")" = 23 ] || fail "answers: $(grep -c '"answer"' "$tmp/out")"
served
part "two ranks go on when the daemon comes back"

run 3 -j --ranks 2 -S "$tmp/nobody" -p x
has err "$tmp/nobody"
# shellcheck disable=SC2086
run 1 $base --ranks 2 --private -d cuda:77 -p x
part "two ranks and nothing to run on"

# ----------------------------------------------------------------------- cuda

if [ "${KVMD_REAL_CUDA:-}" = 1 ]; then
	echo "SKIP: on a real GPU check_kvinfer.sh is enough"
	finish
fi
on_fake 2
gpu="[device cuda-0]
kind = cuda
bytes = 32M
grace = 0
[device cuda-1]
kind = cuda
bytes = 32M
grace = 0
[pool]
slab_bytes = 256K"
cpu=$base
for more in "--samples 3 --temperature 0.9" "--draft-layers 2 --draft-tokens 3" "--h2o 64 --no-cache" \
	"--ranks 2" "--ranks 2 --samples 2 --temperature 0.9"; do
	base=$cpu
	# shellcheck disable=SC2086
	alone -n 40 -f "$tmp/texts" ${more% --no-cache}
	base="$cpu -d cuda"
	serve "$gpu"
	# shellcheck disable=SC2086
	infer 0 -n 40 -f "$tmp/texts" $more
	same
	served
done
# shellcheck disable=SC2086
run 1 $cpu -d cuda:1 --private --ranks 2 -p x
has err "rank 1: "
if grep -s violation "$tmp"/err "$tmp"/d*/log; then fail "violations"; fi
part "the fake driver's GPUs"
finish
