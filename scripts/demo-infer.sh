#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# demo-infer.sh - engines that compute, on one pool. Called by demo.sh.
#
# Starts kvmd with a pool on the host device and three kvinfer processes, a small
# transformer with random weights: the first computes a system prompt of 2,048 tokens,
# the others, at the same time, have other questions to it. Shows what was not
# computed again, the time to the first token, the memory beside caches of their own,
# and that every logit is that of a computation without any cache.
#
# KVMD_BUILD_DIR: where the binaries are (build). Exit status: 0, or 1 if a logit
# differed or something failed.

set -eu
O=${KVMD_BUILD_DIR:-build}
for b in kvmd kvinfer kvctl; do
	[ -x "$O/$b" ] || { echo "demo-infer.sh: no $O/$b: run make first" >&2; exit 1; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/kvdemo.XXXXXX")
daemon=

finish()
{
	status=$?
	trap - EXIT
	if [ -n "$daemon" ]; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" || status=1
	fi
	[ "$status" -eq 0 ] || cat "$dir"/log "$dir"/err.* >&2 || true
	rm -rf "$dir"
	exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

cat >"$dir/kvmd.conf" <<END
[daemon]
socket = $dir/kvmd.sock
log_level = warn
[pool]
slab_bytes = 4M
[device host-0]
kind = host
bytes = 64M
END
# A text of 2,048 bytes: tokens are bytes.
system=$(awk 'BEGIN { while (n < 2048) { s = "Rule " ++i ": answer as rule " i % 7 " says. "
	s = substr(s, 1, 2048 - n); printf "%s", s; n += length(s) } }')

# engine NAME QUESTION [ARG...]: its answer in $dir/NAME.
engine()
{
	name=$1 question=$2
	shift 2
	"$O/kvinfer" --json --socket "$dir/kvmd.sock" --wait 60 --check --tokens 32 "$@" \
		--system "$system" --prompt "$question" >"$dir/$name" 2>"$dir/err.$name"
}
# of NAME KEY: from its answer.
of() { sed -n 's/.*"type":"answer".*"'"$2"'":"\{0,1\}\([^,"}]*\).*/\1/p' "$dir/$1"; }
say()
{
	awk -v name="$1" -v n="$(of "$1" prompt_tokens)" -v c="$(of "$1" cached_tokens)" \
		-v ns="$(of "$1" first_token_ns)" -v logits="$(of "$1" check)" 'BEGIN {
		printf "  %-6s %6d prompt tokens %6d from the pool %6d computed   first token %8.2f ms   logits %s\n",
		name, n, c, n - c, ns / 1e6, logits }'
}

echo "== three engines, a transformer of 4 layers each, one pool; tokens are bytes"
"$O/kvmd" -c "$dir/kvmd.conf" 2>"$dir/log" &
daemon=$!
engine cold "What does the first rule say?"
engine warm "What does the second rule say?" &
warm=$!
engine other "And which one comes after the ninth?" &
other=$!
# What kvctl says while both run; when they are too fast for that, when they have.
while kill -0 "$warm" 2>/dev/null && kill -0 "$other" 2>/dev/null; do
	"$O/kvctl" -s "$dir/kvmd.sock.admin" status >"$dir/status"
	"$O/kvctl" -s "$dir/kvmd.sock.admin" space list >>"$dir/status"
	! grep -q '^clients *2 sessions.* [2-9] sequences' "$dir/status" || break
done
wait "$warm"
wait "$other"
for name in cold warm other; do say $name; done
awk -v cold="$(of cold first_token_ns)" -v a="$(of warm first_token_ns)" -v b="$(of other first_token_ns)" \
	'BEGIN { printf "  first token, warm over cold: %.3f and %.3f\n", a / cold, b / cold }'

echo
echo "== kvctl, meanwhile"
cat "$dir/status"
echo
# Blocks of 16 tokens; a cache of its own has all of a prompt and its answer.
"$O/kvctl" -s "$dir/kvmd.sock.admin" stat --prom | awk -v a="$(of cold prompt_tokens)" \
	-v b="$(of warm prompt_tokens)" -v c="$(of other prompt_tokens)" '
	function blocks(n) { return int((n + 32 - 1 + 15) / 16) }
	$1 == "kvmd_blocks_published" { n += $2 }
	$1 == "kvmd_blocks_allocated" { got = $2 }
	END { own = blocks(a) + blocks(b) + blocks(c)
	printf "  blocks in the pool: %d; in three caches of their own: %d (%.1f times as many)\n",
	n, own, own / n }'
kill -TERM "$daemon"
wait "$daemon"
daemon=
for name in cold warm other; do
	[ "$(of $name check)" = equal ] || { echo "logits of $name differ"; exit 1; }
done
[ "$(of warm cached_tokens)" -gt 0 ] && [ "$(of other cached_tokens)" -gt 0 ] ||
	{ echo "nothing was shared"; exit 1; }
echo "logits: equal, bit for bit, to those of a computation without any cache"
