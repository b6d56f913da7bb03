#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh - which packages of deps.txt are missing, and getting them.
#
#   deps.sh missing KIND...   print the missing packages of these kinds
#   deps.sh check KIND...     the same as a message with the command; exit 1 if any
#   deps.sh ensure KIND...    as root install what is missing; else as check
#   deps.sh list KIND...      print all packages of these kinds
#
# KIND is build, test, bench, opt or ci. Everything but lists goes to stderr.
set -eu

table=$(dirname "$0")/deps.txt
cmd=${1:?usage: deps.sh missing|check|ensure|list KIND...}
shift

rows() {
	for kind in "$@"; do
		sed -e 's/#.*//' "$table" | awk -v kind="$kind" '$3 == kind { print $1, $2 }'
	done
}

is_there() {
	case $1 in
	cmd:*)	command -v "${1#cmd:}" >/dev/null 2>&1 ;;
	hdr:*)	[ -e "/usr/include/${1#hdr:}" ] ||
		for f in /usr/include/*/"${1#hdr:}"; do [ -e "$f" ]; done ;;
	pc:*)	pkg-config --exists "${1#pc:}" 2>/dev/null ;;
	lib:*)	for f in /usr/lib/*/"${1#lib:}" /usr/lib/"${1#lib:}" /usr/local/lib/"${1#lib:}"; do
			[ ! -e "$f" ] || return 0
		done
		return 1 ;;
	esac
}

missing() {
	rows "$@" | {
		list=
		while read -r package probe; do
			is_there "$probe" || list="$list $package"
		done
		echo "${list# }"
	}
}

install_command() {
	echo "apt-get install -y --no-install-recommends $*"
}

case $cmd in
list)
	rows "$@" | awk '{ print $1 }'
	;;
missing)
	missing "$@"
	;;
check)
	list=$(missing "$@")
	[ -z "$list" ] && exit 0
	# shellcheck disable=SC2086
	echo "missing Debian packages: $list; as root run: $(install_command $list)" >&2
	exit 1
	;;
ensure)
	list=$(missing "$@")
	[ -z "$list" ] && exit 0
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
		exec "$0" check "$@"
	fi
	# shellcheck disable=SC2086
	run=$(install_command $list)
	echo "missing Debian packages: $list" >&2
	export DEBIAN_FRONTEND=noninteractive
	echo "  RUN     apt-get update" >&2
	apt-get update -qq >&2
	echo "  RUN     $run" >&2
	$run -qq >&2
	exec "$0" check "$@"
	;;
*)
	echo "deps.sh: unknown command '$cmd'" >&2
	exit 2
	;;
esac
