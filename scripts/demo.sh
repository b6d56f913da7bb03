#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh - one daemon, four engine processes, a generated agent workload.
#
# Starts kvmd on the host device in a temporary directory, plays the workload
# through four processes that share its blocks, then through four that each
# have a quarter of the memory for themselves, and says what sharing was worth.
# KVMD_BUILD_DIR: where the binaries are (build). Exit status: 0, or 1 if a byte
# was wrong, a token was not accounted for, or something failed.

set -eu
O=${KVMD_BUILD_DIR:-build}
for b in kvmd kvtrace kvctl; do
	[ -x "$O/$b" ] || { echo "demo.sh: no $O/$b: run make first" >&2; exit 1; }
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
	[ "$status" -eq 0 ] || cat "$dir/log" >&2 || true
	rm -rf "$dir"
	exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

cat >"$dir/kvmd.conf" <<END
[daemon]
socket = $dir/kvmd.sock
clock = driven
log_level = warn
[pool]
slab_bytes = 16M
block_bytes_hint = 4096
[device host-0]
kind = host
bytes = 768M
END

echo "== a workload: agents that call tools in long contexts"
"$O/kvtrace" gen --tools agent --requests 1500 --seed 7 | tee "$dir/trace.jsonl" |
	"$O/kvtrace" info - | sed -n '1,/^distinct_blocks/p'

echo
echo "== kvmd starts, four engines share one pool; then each has a quarter for itself"
"$O/kvmd" -c "$dir/kvmd.conf" 2>"$dir/log" &
daemon=$!
# The clients wait for the daemon's socket themselves.
status=0
"$O/kvtrace" replay --clients 4 --percent 20 --verify full --late 2 --publish-decode \
	--compare private --socket "$dir/kvmd.sock" "$dir/trace.jsonl" >"$dir/report" || status=$?
sed '/^wrong bytes:/d' "$dir/report"

echo
echo "== kvctl status, while the cache is still warm"
"$O/kvctl" -s "$dir/kvmd.sock.admin" status

echo
kill -TERM "$daemon"
wait "$daemon" || status=1
daemon=
echo "== kvmd stopped"
grep '^wrong bytes:' "$dir/report"
exit "$status"
