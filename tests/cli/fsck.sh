#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fsck.sh - kvctl fsck on the file of a real daemon: sound, in use, damaged, of
# another version, cut off; and without files, on the daemon itself.
#
# O or KVMD_BUILD_DIR: build directory (build). Prints "ok NAME" or "not ok NAME"
# per part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvmd kvctl
kvctl=$O/kvctl
prog=$kvctl
daemon=''
ended()
{
	[ -n "$daemon" ] && kill "$daemon" 2>/dev/null
	wait 2>/dev/null
}
unset KVMD_ADMIN_SOCKET
export KVMD_SOCKET=$tmp/sock
img=$tmp/disk

# fsck STATUS ARG...: run kvctl fsck, check its exit status; output in $tmp/out, err.
fsck()
{
	local status=$1
	shift
	run "$status" fsck "$@"
}

# damage FILE OFFSET: one byte of a copy becomes another.
damage() { printf '\377' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

if ! dd if=/dev/zero of="$img" bs=4096 count=1 oflag=direct status=none 2>"$tmp/err"; then
	echo "SKIP: no O_DIRECT here: $(cat "$tmp/err")"
	exit 77
fi
rm "$img"

# --------------------------------------------------------------------- usage

fsck 1 "$tmp/nothing"; has err "$tmp/nothing: No such file"; lacks out
fsck 1 /dev/null; has err "/dev/null: neither a file nor a block device"
fsck 2 --data; has err "name them"
fsck 2 -y "$img"; has err "fsck run takes no --skip-first"
fsck 3; has err "no daemon at $tmp/sock.admin"
part "usage"

# -------------------------------------------------------------------- a daemon

cat >"$tmp/conf" <<EOF
[daemon]
socket = $tmp/sock
log_level = warn
[device host-0]
bytes = 1M
[ram]
bytes = 16M
lock = no
hugetlb = no
[disk]
path = $img
bytes = 12M
segment = 1M
EOF
coproc "$O/kvmd" -c "$tmp/conf" 2>"$tmp/log"
daemon=$COPROC_PID
while ! [ -S "$tmp/sock.admin" ]; do
	kill -0 "$daemon" 2>/dev/null || { cat "$tmp/log"; fail "kvmd does not start"; exit 1; }
done
fsck 0; has out "everything agrees; records:"
fsck 0 -j; has out '"ok": true'
fsck 0 "$img"; has err "a daemon has it"; has out clean
fsck 0 -j "$img"; has out '"locked": true'
part "a daemon, and its file meanwhile"

kill "$daemon"
wait "$daemon" || fail "kvmd ended with $?: $(cat "$tmp/log")"
daemon=''
fsck 0 "$img"; lacks err
has out "$img: 12M, file 1 of 1, segments of 1M: 0 sealed, 0 open, 9 free, 0 bad"
has out "$img: blocks 0 live (0B), 0 dropped, 0 of former epochs, 0 payloads read"
has out "clean"
fsck 0 --data "$img"; has out clean
fsck 0 -j "$img"; has out '"clean": true'; has out '"version": 1'; has out '"segments_free": 9'
part "a sound file"

# ---------------------------------------------------------------------- damage

cp "$img" "$tmp/copy"
damage "$tmp/copy" 100
fsck 1 "$tmp/copy"; has out "fault: $tmp/copy: offset 0: superblock A: wrong CRC"; has out "1 faults"
fsck 1 -j "$tmp/copy"
has out '"offset_bytes": 0'; has out '"clean": false'; has out '"nr_faults": 1'
damage "$tmp/copy" 4200
fsck 1 "$tmp/copy"; has out "no right superblock"; has out "2 faults"
cp "$img" "$tmp/copy"
damage "$tmp/copy" 8292		# in the space table, where nothing was
fsck 1 "$tmp/copy"; has out "offset 8192: space 0, copy A: no magic number"
cp "$img" "$tmp/copy"
damage "$tmp/copy" 2105344
fsck 1 "$tmp/copy"; has out "offset 2105344: head of segment 0: no magic number"
has out "8 free, 1 bad"
cp "$img" "$tmp/copy"
truncate -s 5M "$tmp/copy"
fsck 1 "$tmp/copy"; has out "offset 5242880: the file ends here"; has out truncated
fsck 1 "$img" "$tmp/copy"; has out "the number of another file of its set"
printf 'not ours' >"$tmp/copy"
fsck 1 "$tmp/copy"; has out "superblock A: the file ends before it"
part "damage, with its offset"

finish
