#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check-layers.sh - no room knows of a room above it.
#
# Two looks: the #include lines of the sources, and the symbols of the objects
# (an extern declaration would pass the first). kvmd/tier/disk_format.[ch] is a
# room of its own, "format": pure functions over lib, for the tiers and for kvctl
# fsck, which reads files without a daemon. So is codec_form.h, "form": what the codecs
# here and those that are kernels must do alike. Rooms, lowest first:
set -u
cd "$(dirname "$0")/.." || exit 1
shopt -s nullglob

rooms=(lib ring dev pool index tier reclaim svc)
obj=${KVMD_BUILD_DIR:-build}/obj
failed=0

result() {
	if [ -z "$2" ]; then
		echo "ok $1"
	else
		printf '%s\nnot ok %s\n' "$2" "$1"
		failed=1
	fi
}

# "FILE:LINE:room" of each include of a kvmd/ room in the files given.
room_includes() {
	[ $# = 0 ] && return
	grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]+["<](\.\./)*(kvmd/)?[a-z]+/' "$@" |
		sed -nE -e 's|^([^:]+:[0-9]+):.*["<]kvmd/tier/disk_format\.h[">].*|\1 format|p; t' \
		-e 's|^([^:]+:[0-9]+):.*["<]kvmd/tier/codec_form\.h[">].*|\1 form|p; t' \
		-e 's|^([^:]+:[0-9]+):[^"<]*["<](\.\./)*(kvmd/)?([a-z]+)/.*|\1 \4|p'
}

# Print the includes of rooms other than those allowed: allowed... -- files...
bad_includes() {
	local allowed=' ' where room r
	while [ "$1" != -- ]; do
		allowed="$allowed$1 "
		shift
	done
	shift
	room_includes "$@" | while read -r where room; do
		for r in "${rooms[@]}" svc format form; do
			if [ "$room" = "$r" ] && [[ $allowed != *" $room "* ]]; then
				echo "$where: includes kvmd/$room/"
				break
			fi
		done
	done
}

below=()
for room in "${rooms[@]}"; do
	below+=("$room")
	[ "$room" = tier ] && below+=(format form)
	result "includes of kvmd/$room" "$(bad_includes "${below[@]}" -- "kvmd/$room"/*.[ch])"
done
result "includes of kvmd/tier/disk_format" "$(bad_includes lib format -- kvmd/tier/disk_format.[ch])"
result "includes of include" "$(bad_includes -- include/*.h include/*/*.h)"
result "includes of libkvclient" "$(bad_includes -- libkvclient/*.[ch])"
result "includes of kernels" "$(bad_includes form -- kernels/*.[ch] kernels/*.cu)"
for tool in kvctl kvtrace kvkeeper; do
	may=(lib)
	[ $tool = kvctl ] && may+=(format)
	result "includes of tools/$tool" "$(bad_includes "${may[@]}" -- tools/$tool/*.[ch])"
done

# Symbols: "name room" of what rooms define, then who asks for what.
defined=$(mktemp)
trap 'rm -f "$defined"' EXIT
for room in "${rooms[@]}"; do
	for o in "$obj/kvmd/$room"/*.o; do
		[ -e "kvmd/$room/$(basename "$o" .o).c" ] || continue
		home=$room
		[ "$o" = "$obj/kvmd/tier/disk_format.o" ] && home=format
		nm -g --defined-only "$o" | awk -v room="$home" 'NF == 3 { print $3, room }'
	done
done >"$defined"
for o in "$obj"/libkvclient/*.o; do
	[ -e "libkvclient/$(basename "$o" .o).c" ] || continue
	nm -g --defined-only "$o" | awk 'NF == 3 { print $3, "libkvclient" }'
done >>"$defined"

# Print the undefined symbols that only rooms outside the allowed define.
bad_symbols() {
	local allowed=' ' o
	while [ "$1" != -- ]; do
		allowed="$allowed$1 "
		shift
	done
	shift
	for o in "$@"; do
		nm -u "$o" | awk -v allowed="$allowed" -v object="${o#"$obj"/}" '
		NR == FNR { home[$1] = home[$1] " " $2; next }
		$2 in home {
			n = split(home[$2], where, " "); fine = 0
			for (i = 1; i <= n; i++)
				fine = fine || index(allowed, " " where[i] " ")
			if (!fine)
				print object ": needs " $2 " of" home[$2]
		}' "$defined" -
	done
}

below=()
for room in "${rooms[@]}"; do
	below+=("$room")
	[ "$room" = tier ] && below+=(format)
	result "symbols of kvmd/$room" "$(bad_symbols "${below[@]}" -- "$obj/kvmd/$room"/*.o)"
done
result "symbols of kvmd/tier/disk_format" \
	"$(bad_symbols lib -- "$obj/kvmd/tier"/disk_format.o)"
result "symbols of libkvclient" "$(bad_symbols libkvclient -- "$obj"/libkvclient/*.o)"
for tool in kvctl kvtrace kvkeeper; do
	may=(lib libkvclient)
	[ $tool = kvctl ] && may+=(format)
	result "symbols of tools/$tool" \
		"$(bad_symbols "${may[@]}" -- "$obj/tools/$tool"/*.o)"
done
exit $failed
