#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run-tests.sh - run suites in parallel, say what each did, fail on leftovers.
#
#   run-tests.sh -o BUILD_DIR [-j JOBS] [-d KIND] [-t GLOB] SUITE...
#
# A suite is a test binary under BUILD_DIR or a script; "cuda:SUITE" is one that runs
# with KVMD_TEST_DEVICE=cuda: its daemons' pools lie on a GPU. What it finds:
#   KVMD_BUILD_DIR, KVMD_SRC_DIR   absolute; TMPDIR, its own, short enough for sockets
#   TEMP                           its own below BUILD_DIR, for libcheck's messages: where
#                                  suites fill one small /tmp together, libcheck gives up
#   KVMD_FUZZ_RUNS                 inputs per fuzz target
#   KVMD_TEST_D                    the D= of the build
# What it may print, and what is counted:
#   libcheck's "NN%: Checks: N, Failures: N, Errors: N"
#   "ok NAME", "not ok NAME"       one check each
#   "SKIP: REASON"                 one skipped check, listed with its reason
# Exit 0 passed, 77 skipped as a whole, else failed. A suite with no count is
# one check. A suite that leaves a process, a file or a socket in its TMPDIR,
# or shared memory behind has failed.
set -u
shopt -s nullglob

say() { printf '  %-7s %s\n' "$1" "$2"; }

# Processes that carry a suite's mark in their environment.
marked() {
	grep -lszxF "KVMD_TEST_MARK=$1" /proc/[0-9]*/environ | sed 's|/proc/||; s|/environ||'
}

# The same, after those that are just ending have had two seconds to do so.
left_running() {
	local i
	for ((i = 0; i < 20; i++)); do
		[ -z "$(marked "$1")" ] && return
		sleep 0.1
	done
	marked "$1"
}

# Named shared memory of this project; memfds end with their processes.
shm_names() { ls /dev/shm 2>/dev/null | grep -i 'kv' | sort; }

suite_name() {
	local n=${1#cuda:} on=
	[ "$n" = "$1" ] || on=cuda:
	n=${n#"$OUT"/}
	n=${n#tests/}
	case $n in scripts/*) n=static/${n#scripts/} ;; esac
	echo "$on${n%.sh}"
}

# Start the suite in $1 with its environment; its exit status is ours.
start() {
	local wrap=()
	# The thread checker cannot place its shadow under wide address randomisation.
	if [ "$D" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
		wrap=(setarch "$(uname -m)" -R)
	fi
	# An allocation that is too large returns NULL, as it does without them.
	export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:detect_leaks=1}
	export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
	export TSAN_OPTIONS=${TSAN_OPTIONS:-allocator_may_return_null=1:halt_on_error=1}
	# Instrumented code is slow; libcheck's 4 s are for code that is not.
	export CK_DEFAULT_TIMEOUT=${CK_DEFAULT_TIMEOUT:-120}
	# The driver that tests meet is the fake one, unless the real one is asked for.
	[ "${KVMD_REAL_CUDA:-}" = 1 ] ||
		export LD_LIBRARY_PATH=$KVMD_BUILD_DIR/fakecuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
	[ "${1#cuda:}" = "$1" ] || export KVMD_TEST_DEVICE=cuda
	exec timeout -k 10 "${KVMD_TEST_TIMEOUT:-900}" "${wrap[@]}" "${1#cuda:}"
}

# Checks passed, failed and skipped, from the log and the exit status.
count() {
	awk -v rc="$2" '
	/^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/ {
		gsub(",", ""); bad = $5 + $7; pass += $3 - bad; fail += bad; next
	}
	/^ok( |$)/ { pass++ }
	/^not ok( |$)/ { fail++ }
	/^SKIP: / { skip++ }
	END {
		if (rc == 77) { fail = 0; pass = 0; if (!skip) skip = 1 }
		else if (rc != 0 && !fail) fail = 1
		else if (rc == 0 && !pass && !fail && !skip) pass = 1
		print pass + 0, fail + 0, skip + 0
	}' "$1"
}

run_one() {
	local n=$1 suite=$2 name log rc pass fail skip word left pids t0 t1
	name=$(suite_name "$suite")
	log=$OUT/test-logs/${name//[\/:]/-}.log
	export TMPDIR=$RUN/$n
	export TEMP=$MESSAGES/$n
	mkdir "$TMPDIR" "$TEMP"
	t0=${EPOCHREALTIME/./}
	(KVMD_TEST_MARK=$MARK.$n; export KVMD_TEST_MARK; start "$suite") >"$log" 2>&1 </dev/null
	rc=$?
	t1=${EPOCHREALTIME/./}
	[ $rc = 124 ] && echo "not ok stopped after ${KVMD_TEST_TIMEOUT:-900} s" >>"$log"
	read -r pass fail skip < <(count "$log" $rc)

	left=
	pids=$(left_running "$MARK.$n" | tr '\n' ' ')
	if [ -n "$pids" ]; then
		left="processes: $(for p in $pids; do tr '\0' ' ' <"/proc/$p/cmdline"; done)"
		# shellcheck disable=SC2086
		kill -9 $pids 2>/dev/null
	fi
	[ -n "$(ls -A "$TMPDIR")" ] && left="$left files: $(cd "$TMPDIR" && find . -mindepth 1 |
		head -5 | tr '\n' ' ')"
	if [ -n "$left" ]; then
		echo "not ok left behind: $left" >>"$log"
		fail=$((fail + 1))
	fi

	word=PASS
	[ "$pass" = 0 ] && word=SKIP
	[ "$fail" != 0 ] && word=FAIL
	{
		printf '  %-5s %-37s %4d checks %4d.%d s' $word "$name" $((pass + fail)) \
			$(((t1 - t0) / 1000000)) $(((t1 - t0) / 100000 % 10))
		[ "$skip" != 0 ] && printf ', %d skipped' "$skip"
		printf '\n'
		sed -n 's/^SKIP: /          SKIP /p' "$log"
		if [ $word = FAIL ]; then
			grep -vE '^(ok|SKIP:) ' "$log" | tail -25 | sed 's/^/          /'
			echo "          whole log: $log"
		fi
	} >"$RUN/said.$n"
	cat "$RUN/said.$n"
	echo "$pass $fail $skip" >"$RUN/result.$n"
	rm -rf "$TMPDIR" "$TEMP" "$RUN/said.$n"
}

if [ "${1-}" = --one ]; then
	run_one "$2" "$3"
	exit 0
fi

OUT=build JOBS=$(nproc) D='' GLOB=''
while getopts o:j:d:t: opt; do
	case $opt in
	o) OUT=$OPTARG ;;
	j) JOBS=$OPTARG ;;
	d) D=$OPTARG ;;
	t) GLOB=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))

mkdir -p "$OUT/test-logs"
RUN=$(mktemp -d /tmp/kvt.XXXXXX) || exit 1
MESSAGES=$(cd "$OUT" && mktemp -d "$PWD/messages.XXXXXX") || exit 1
MARK=$(basename "$RUN")
export OUT D RUN MARK MESSAGES
export KVMD_TEST_D=$D KVMD_FUZZ_RUNS=${KVMD_FUZZ_RUNS:-200000}
KVMD_BUILD_DIR=$(cd "$OUT" && pwd) KVMD_SRC_DIR=$PWD
export KVMD_BUILD_DIR KVMD_SRC_DIR
trap 'rm -rf "$RUN" "$MESSAGES"' EXIT
trap 'exit 130' INT TERM

shm_before=$(shm_names)
n=0
for suite in "$@"; do
	name=$(suite_name "$suite")
	# shellcheck disable=SC2053
	[ -n "$GLOB" ] && [[ $name != $GLOB && ${name##*/} != $GLOB ]] && continue
	n=$((n + 1))
	printf '%s\0%s\0' $n "$suite"
done >"$RUN/list"
if [ ! -s "$RUN/list" ]; then
	echo "run-tests.sh: no suite matches '$GLOB'" >&2
	exit 1
fi

xargs -0 -n 2 -P "$JOBS" "$0" --one <"$RUN/list"

passed=0 failed=0 skipped=0
while IFS= read -r -d '' n && IFS= read -r -d '' suite; do
	if ! read -r p f s 2>/dev/null <"$RUN/result.$n"; then
		say FAIL "$(suite_name "$suite"): no result"
		p=0 f=1 s=0
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done <"$RUN/list"

shm_left=$(comm -13 <(echo "$shm_before") <(shm_names) | tr '\n' ' ')
if [ -n "${shm_left// /}" ]; then
	say FAIL "shared memory left behind: $shm_left"
	failed=$((failed + 1))
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
