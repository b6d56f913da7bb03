#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# man-examples.sh - the examples of the manual and of README.md do what they say.
#
# C code of section 3 is compiled without a warning; programs are run twice
# against a daemon, and the second run hits what the first one published.
# Commands with a '$' in the EXAMPLES of sections 1 and 8 are run, in order and
# in a directory of their own, beside a daemon with an engine in space "llama";
# those with a '#' are not (root's, or without an end). README.md's quick start
# is followed to the letter.
#
# O or KVMD_BUILD_DIR: build directory (build). KVMD_TEST_D: D= of the build.
# Prints "ok NAME" or "not ok NAME" per page. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvmd kvctl kvtrace kvbench kvinfer libkvclient.a tests/cli/prog_engine
daemon='' engine=''
ended()
{
	[ -n "$engine" ] && kill "$engine" 2>/dev/null
	[ -n "$daemon" ] && kill "$daemon" 2>/dev/null
	wait 2>/dev/null
}
unset KVMD_ADMIN_SOCKET

case $D in
asan) san=-fsanitize=address,undefined ;;
ubsan) san=-fsanitize=undefined ;;
tsan) san=-fsanitize=thread ;;
gcov) san=--coverage ;;
*) san= ;;
esac
# Programs of this test find the library as those of a user do.
cc() { (cd "$tmp" && ${CC:-gcc} $san "$@"); }
strict='-std=gnu11 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-function'

# wait_for SOCKET PID: until it is there, or the daemon is not.
wait_for()
{
	until [ -S "$1" ]; do
		kill -0 "$2" 2>/dev/null || return 1
	done
}

# ---------------------------------------------------------------- the daemon

cat >"$tmp/kvmd.conf" <<END
[daemon]
socket = $tmp/sock
log_level = warn
[pool]
slab_bytes = 1M
[device host-0]
bytes = 64M
END
"$O/kvmd" -c "$tmp/kvmd.conf" 2>"$tmp/log" &
daemon=$!
wait_for "$tmp/sock.admin" "$daemon" || { cat "$tmp/log"; echo "FAIL: kvmd does not start"; exit 1; }
export KVMD_SOCKET=$tmp/sock

# ---------------------------------------------------------------- C code

# literals PAGE: the literal displays of its EXAMPLES, as $tmp/ex.N.c.
literals()
{
	rm -f "$tmp"/ex.*.c
	awk -v out="$tmp/ex." '
	/^\.Sh / { on = $2 == "EXAMPLES" }
	/^\.Ed/ { if (lit) close(file); lit = 0 }
	lit { gsub(/\\e/, "\\"); gsub(/\\&/, ""); gsub(/\\-/, "-"); print >file }
	on && /^\.Bd -literal/ { lit = 1; file = out (++n) ".c" }' "$1"
}

# program FILE: build it, run it twice.
program()
{
	cc $strict -I"$root/include" -o prog "$1" "$O/libkvclient.a" -lcrypto -lpthread \
		>"$tmp/out" 2>&1 || { fail "$2: $(cat "$tmp/out")"; return; }
	for want in 0 2; do
		"$tmp/prog" >"$tmp/out" 2>&1 || fail "$2: exit status $?: $(cat "$tmp/out")"
		grep -qxF "$want of 2 blocks were there" "$tmp/out" ||
			fail "$2: not '$want of 2 ...': $(cat "$tmp/out")"
	done
}

for page in "$root"/man/*.3; do
	name=${page##*/}
	literals "$page"
	[ -e "$tmp/ex.1.c" ] || fail "$name has no example"
	for ex in "$tmp"/ex.*.c; do
		[ -e "$ex" ] || continue
		if grep -q '^int main' "$ex"; then
			program "$ex" "$name"
			continue
		fi
		{
			printf '#include <%s>\n' errno.h kvclient.h stdio.h string.h
			cat "$ex"
		} >"$tmp/frag.c"
		cc $strict -I"$root/include" -c -o frag.o frag.c >"$tmp/out" 2>&1 ||
			fail "$name: $(cat "$tmp/out")"
	done
	part "$name"
done

# ---------------------------------------------------------------- commands

mkfifo "$tmp/to" "$tmp/from"
"$O/tests/cli/prog_engine" "$tmp/sock" llama engine-0 <"$tmp/to" >"$tmp/from" &
engine=$!
exec 6>"$tmp/to" 7<"$tmp/from"
read -r -u 7 said
echo "open 1 8 1" >&6
read -r -u 7 said
[ "$said" = "ok 0" ] || fail "the engine says $said"

mkdir "$tmp/dir"
cp "$tmp/kvmd.conf" "$tmp/dir/"
for page in "$root"/man/*.[18]; do
	name=${page##*/}
	awk '/^\.Sh / { on = $2 == "EXAMPLES" } on && /^\.Dl \$ / { print substr($0, 7) }' "$page" |
		sed -e 's/\\-/-/g' -e 's/\\(dq/"/g' >"$tmp/commands"
	[ -s "$tmp/commands" ] || fail "$name has no example that can be run"
	while read -r command; do
		(cd "$tmp/dir" && TMPDIR=$tmp PATH=$O:$PATH bash -c "$command") >"$tmp/out" 2>&1 \
			</dev/null || fail "$name: $command: exit status $?: $(tail -3 "$tmp/out")"
	done <"$tmp/commands"
	part "$name"
done

echo quit >&6
exec 6>&- 7<&-
wait "$engine" || fail "the engine ended with $?"
engine=''
kill "$daemon"
wait "$daemon" || fail "kvmd ended with $?: $(cat "$tmp/log")"
daemon=''
unset KVMD_SOCKET

# ---------------------------------------------------------------- README.md

mkdir "$tmp/tree"
ln -s "$O" "$tmp/tree/build"
ln -s "$root/include" "$tmp/tree/include"
awk '/^```/ { on = $0 == "```c"; next } on' "$root/README.md" >"$tmp/tree/engine.c"
awk '/^```/ { on = $0 == "```console"; next } on && /^\$ / { print substr($0, 3) }' \
	"$root/README.md" >"$tmp/commands"
[ -s "$tmp/tree/engine.c" ] || fail "README.md has no C code"
[ "$(wc -l <"$tmp/commands")" -ge 4 ] || fail "README.md has no commands"
: >"$tmp/out"
while read -r command; do
	case $command in
	*kvmd\ *\&)
		command=${command//\$PWD/$tmp/tree}
		# shellcheck disable=SC2086
		(cd "$tmp/tree" && exec ${command%&}) 2>"$tmp/log" &
		daemon=$!
		wait_for "$tmp/tree/kvmd.sock.admin" "$daemon" ||
			fail "README.md: $command: $(cat "$tmp/log")"
		continue
		;;
	cc\ *)
		command="${CC:-gcc} $san -Wall -Werror ${command#cc}"
		;;
	esac
	(cd "$tmp/tree" && bash -c "$command") >>"$tmp/out" 2>&1 </dev/null ||
		fail "README.md: $command: exit status $?: $(tail -3 "$tmp/out")"
done <"$tmp/commands"
[ "$(grep -c ' of 2 blocks were there$' "$tmp/out")" = 2 ] || fail "README.md: $(cat "$tmp/out")"
grep -qx "2 of 2 blocks were there" "$tmp/out" || fail "README.md: the second run missed"
[ -n "$daemon" ] && kill "$daemon"
wait "$daemon" || fail "README.md: kvmd ended with $?: $(cat "$tmp/log")"
daemon=''
part "README.md"

finish
