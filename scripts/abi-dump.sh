#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# abi-dump.sh HEADER - the layout of every struct and the value of every
# constant of a header, one line each, as the compiler sees them.
#
# The preprocessed header names the structs and their fields; a C program made
# from the names prints offsets, sizes and values. Members of unnamed unions
# and structs are fields of the outer struct; of named ones the name counts.
set -eu
cd "$(dirname "$0")/.."

header=${1:?usage: abi-dump.sh HEADER}
: "${CC:=gcc}"
flags="-std=gnu11 -D_GNU_SOURCE -I. -Iinclude"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Only the header's own text, one token per line.
# shellcheck disable=SC2086
$CC $flags -E -x c "$header" | awk -v want="$header" '
	/^# [0-9]+ "/ { file = $3; gsub("\"", "", file); next }
	file == want' |
	sed -E 's/__attribute__[[:space:]]*\(\([^()]*(\([^()]*\))?[^()]*\)\)//g
		s/([][{}();,=:*])/ \1 /g' | tr -s ' \t' '\n\n' | sed '/^$/d' >"$tmp/tokens"

awk '
function put(line) { print "\t" line }
function flush_field(   name) {
	if (last == "" || depth < 1)
		return
	name = last
	# Fields of a named inner struct are reached through its name, not here.
	pending[depth] = pending[depth] " " name
	last = ""
}
{
	t = $0
	if (mode == "enum") {
		if (t == "{") { want = 1; next }
		if (t == "}") { mode = ""; next }
		if (t == ",") { want = 1; next }
		if (want && t ~ /^[A-Za-z_]/) {
			put("CONSTANT(" t ");"); want = 0
		}
		next
	}
	if (depth == 0) {
		if (t == "enum") { mode = "enum"; want = 0; next }
		if (t == "struct" || t == "union") { kind = t; name = ""; armed = 1; next }
		if (armed && t ~ /^[A-Za-z_]/ && name == "") { name = t; next }
		if (armed && t == "{" && name != "") {
			depth = 1; pending[1] = ""; last = ""; square = 0; next
		}
		armed = 0
		next
	}
	if (t == "[") { square++; next }
	if (t == "]") { square--; next }
	if (square) next
	if (t == "{") { depth++; pending[depth] = ""; last = ""; next }
	if (t == "}") {
		depth--
		if (depth == 0) {
			put("AGGREGATE(" kind " " name ");")
			n = split(pending[1], f, " ")
			for (i = 1; i <= n; i++)
				put("FIELD(" kind " " name ", " f[i] ");")
			armed = 0
		}
		closed = 1; last = ""
		next
	}
	if (t == ";" || t == ",") {
		if (closed && last == "") {	# unnamed: its fields are the outer ones
			pending[depth] = pending[depth] pending[depth + 1]
		} else {
			flush_field()
		}
		closed = 0; last = ""
		next
	}
	if (t == ":") { last = ""; next }	# a bit field has no offset
	if (t ~ /^[A-Za-z_]/) last = t
}' "$tmp/tokens" >"$tmp/lines"

# Macros without parameters that have a value; "#define X" alone is a guard.
sed -nE 's/^#[[:space:]]*define[[:space:]]+(KVMD_[A-Z0-9_]+)[[:space:]]+[^[:space:]].*/\tCONSTANT(\1);/p' \
	"$header" >>"$tmp/lines"

{
	cat <<-'EOF'
	#include <stddef.h>
	#include <stdio.h>
	static void put_text(const char *n, const char *v) { printf("%s \"%s\"\n", n, v); }
	static void put_value(const char *n, unsigned long long v)
	{ printf("%s %llu 0x%llx\n", n, v, v); }
	static void put_any(const char *n, unsigned long long v, const char *s)
	{ if (s) put_text(n, s); else put_value(n, v); }
	#define IS_TEXT(x) _Generic((x), char *: 1, const char *: 1, default: 0)
	#define CONSTANT(x) put_any(#x, IS_TEXT(x) ? 0 : (unsigned long long)(x), \
		IS_TEXT(x) ? (const char *)(size_t)(x) : NULL)
	#define AGGREGATE(t) printf("%s size %zu align %zu\n", #t, sizeof(t), _Alignof(t))
	#define FIELD(t, f) printf("\t%-28s offset %4zu size %4zu\n", #f, offsetof(t, f), \
		sizeof(((t *)0)->f))
	EOF
	printf '#include "%s"\nint main(void)\n{\n' "$header"
	cat "$tmp/lines"
	printf '\treturn 0;\n}\n'
} >"$tmp/dump.c"
# shellcheck disable=SC2086
$CC $flags -w -O0 -o "$tmp/dump" "$tmp/dump.c"
"$tmp/dump"
