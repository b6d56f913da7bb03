# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034
#
# script.sh - what test scripts share; sh and bash source it first:
#
#	. "$(dirname "$0")/../script.sh"
#
# They find $root, the source tree; $O, the build directory (KVMD_BUILD_DIR or O, else
# build); $D, its D=; $traces, the sample traces (KVMD_TRACES, else ../shared/traces
# beside the tree); $tmp, a directory of their own that goes with them. A script that
# has more to clear away makes an ended() of its own. What it checks it tells by part,
# which prints "ok NAME" or "not ok NAME"; finish is its last line, and exits 0 or 1.

root=$(cd "$(dirname "$0")/../.." && pwd)
O=${KVMD_BUILD_DIR:-${O:-build}}
case $O in /*) ;; *) O=$root/$O ;; esac
D=${KVMD_TEST_D:-}
traces=${KVMD_TRACES:-$root/../shared/traces}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/script.XXXXXX") || exit 1
trap 'ended; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
ended() { :; }
failed=0
failed_before=0
what= prog=

# needs FILE...: of the build directory.
needs()
{
	for file in "$@"; do
		[ -e "$O/$file" ] || {
			echo "FAIL: no $O/$file: run make build-tests first" >&2
			exit 1
		}
	done
}

fail()
{
	echo "FAIL: $*" >&2
	failed=$((failed + 1))
}

# part NAME: what came since the last part is over.
part()
{
	if [ "$failed" -eq "$failed_before" ]; then echo "ok $1"; else echo "not ok $1"; fi
	failed_before=$failed
}

finish()
{
	[ "$failed" -eq 0 ] || { echo "$failed checks failed" >&2; exit 1; }
	exit 0
}

# run STATUS ARG...: run $prog, check its exit status; output in $tmp/out, err.
run()
{
	run_want=$1
	shift
	what="${prog##*/} $*"
	"$prog" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
	run_got=$?
	[ "$run_got" -eq "$run_want" ] || fail "$what: exit status $run_got, not $run_want:" \
		"$(tail -5 "$tmp/err")" "$(tail -3 "$tmp/out")"
}

# has FILE TEXT: the file has the text, taken literally.
has()
{
	grep -qF -- "$2" "$tmp/$1" || fail "$what: no '$2' in $1: $(head -5 "$tmp/$1")"
}

# lacks FILE [TEXT]: the file does not have the text; is empty.
lacks()
{
	if [ $# -eq 1 ]; then
		[ ! -s "$tmp/$1" ] || fail "$what: unexpected $1: $(head -5 "$tmp/$1")"
	elif grep -qF -- "$2" "$tmp/$1"; then
		fail "$what: '$2' in $1"
	fi
}

# value KEY: of the JSON in $tmp/out.
value()
{
	sed -n "s/.*\"$1\":\([^,}]*\).*/\1/p" "$tmp/out"
}

# is KEY VALUE
is()
{
	[ "$(value "$1")" = "$2" ] || fail "$what: $1 is '$(value "$1")', not '$2'"
}

# above KEY NUMBER
above()
{
	above_v=$(value "$1")
	[ "${above_v:-0}" -gt "$2" ] || fail "$what: $1 is '$above_v', not above $2"
}

# is_json: $tmp/out, where python3 is there to tell.
is_json()
{
	! command -v python3 >/dev/null 2>&1 ||
		python3 -c 'import json, sys; json.load(sys.stdin)' <"$tmp/out" ||
		fail "$what: not JSON"
}

# on_device: $device are options of kvtrace replay for $KVMD_TEST_DEVICE; $slow: there
# is reason to do less, and which.
on_device()
{
	device='' slow=${D:+D=$D}
	[ "${KVMD_TEST_DEVICE:-host}" = cuda ] || return 0
	slow=cuda device="--device cuda"
	[ "${KVMD_REAL_CUDA:-}" != 1 ] || return 0
	# The fake's mappings end with their process; its pieces fit small pools, and copies
	# are as fast as they go: a script has very many of them.
	device="$device -o device.host-0.grace=0"
	export KVMD_FAKECUDA="granularity=4096,mem=64G,delay=0${KVMD_FAKECUDA:+,$KVMD_FAKECUDA}"
	export KVMD_FAKECUDA_STATE="$tmp/fakecuda"
}

# no_violation: the fake driver has seen nothing that a GPU would have suffered from.
no_violation()
{
	if grep violation "$tmp/err" >&2; then fail "$what: see above"; fi
}
