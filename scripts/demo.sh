#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh - engines on one pool: some that compute, then many with a generated workload.
#
# First demo-infer.sh: real inference, and what sharing is to it. Then one daemon, three
# tiers, four engine processes that only check bytes: starts kvmd under kvkeeper in a
# temporary directory, with a pool on the host device, as much RAM, and a disk file of
# sixteen times that. Plays a workload of agents through four processes that share its
# blocks, and kills the daemon with SIGKILL in the middle. Then the same through four
# that each have a quarter of the pool for themselves, and through a daemon without RAM
# and disk, and says what sharing and tiers were worth.
#
# KVMD_BUILD_DIR: where the binaries are (build). TMPDIR: for the daemon's files,
# 600 MiB; where that has no O_DIRECT the build directory. Exit status: 0, or 1 if a
# byte was wrong, a token was not accounted for, or something failed.

set -eu
O=${KVMD_BUILD_DIR:-build}
for b in kvmd kvkeeper kvtrace kvctl; do
	[ -x "$O/$b" ] || { echo "demo.sh: no $O/$b: run make first" >&2; exit 1; }
done
"$(dirname "$0")/demo-infer.sh"
echo
dir=$(mktemp -d "${TMPDIR:-/tmp}/kvdemo.XXXXXX")
disk=$dir
keeper=

finish()
{
	status=$?
	trap - EXIT
	if [ -n "$keeper" ]; then
		kill -TERM "$keeper" 2>/dev/null || true
		wait "$keeper" || status=1
	fi
	[ "$status" -eq 0 ] || cat "$dir/log" >&2 || true
	[ "$disk" = "$dir" ] || rm -rf "$disk"
	rm -rf "$dir"
	exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# Some file systems in memory have no direct I/O.
if ! dd if=/dev/zero of="$dir/direct" bs=4096 count=1 oflag=direct 2>/dev/null; then
	disk=$(mktemp -d "$O/kvdemo.XXXXXX")
fi

cat >"$dir/kvmd.conf" <<END
[daemon]
socket = $dir/kvmd.sock
clock = driven
log_level = warn
[pool]
slab_bytes = 16M
block_bytes_hint = 4096
[ram]
bytes = 32M
hugetlb = no
lock = no
[disk]
path = $disk/disk
bytes = 576M
segment = 32M
block_bytes_hint = 4096
[device host-0]
kind = host
bytes = 768M
END

echo "== a workload: agents that call tools in long contexts"
"$O/kvtrace" gen --tools agent --requests 1500 --seed 7 | tee "$dir/trace.jsonl" |
	"$O/kvtrace" info - | sed -n '1,/^distinct_blocks/p'

echo
echo "== kvmd starts: a pool of 31 MiB, RAM of 32 MiB and a disk file of 576 MiB below it"
echo "== four engines share it, the daemon is killed half way; then each has a quarter"
echo "== of the pool for itself; then there is no RAM and no disk"
"$O/kvkeeper" "$O/kvmd" -c "$dir/kvmd.conf" 2>"$dir/log" &
keeper=$!
# The clients wait for the daemon's socket themselves.
status=0
"$O/kvtrace" replay --clients 4 --percent 10 --verify full --late 2 --publish-decode --restart 1 \
	--beside --compare private --socket "$dir/kvmd.sock" "$dir/trace.jsonl" >"$dir/report" ||
	status=$?
sed '/^wrong bytes:/d' "$dir/report"
grep '^kvkeeper: ' "$dir/log" || status=1

echo
echo "== kvctl status, while the cache is still warm"
"$O/kvctl" -s "$dir/kvmd.sock.admin" status
"$O/kvctl" -s "$dir/kvmd.sock.admin" tier list

echo
kill -TERM "$keeper"
wait "$keeper" || status=1
keeper=
echo "== kvmd stopped"
grep '^wrong bytes:' "$dir/report"
exit "$status"
