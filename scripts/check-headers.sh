#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check-headers.sh - each header compiles alone; the public ones also as C++.
set -u
cd "$(dirname "$0")/.." || exit 1

: "${CC:=gcc}" "${CXX:=g++}"
flags=${KVMD_CHECK_CFLAGS:--std=gnu11 -D_GNU_SOURCE -I. -Iinclude}
warn='-Wall -Wextra -Wshadow -Wundef -Wvla -Wformat=2 -Werror'
failed=0

# try NAME COMMAND...: the program on stdin
try() {
	local name=$1
	shift
	if "$@" -fsyntax-only -; then
		echo "ok $name"
	else
		echo "not ok $name"
		failed=1
	fi
}

# The words of flags, with their quotes taken off.
eval "flags=($flags)"
read -ra warn <<<"$warn"

while IFS= read -r h; do
	inc=${h#include/}
	# Twice: the guard holds. An empty translation unit is no warning.
	text=$(printf '#include "%s"\n#include "%s"\nextern int alone;\n' "$inc" "$inc")
	try "C $h" "$CC" "${flags[@]}" "${warn[@]}" -Wstrict-prototypes -x c <<<"$text"
	case $h in
	include/*)
		for std in c++11 c++20; do
			try "C++ $std $h" "$CXX" -std=$std -D_GNU_SOURCE -Iinclude \
				-Wall -Wextra -Wundef -Werror -x c++ <<<"$text"
		done
		;;
	esac
done < <(find include kvmd libkvclient tools -name '*.h' | sort)
exit $failed
