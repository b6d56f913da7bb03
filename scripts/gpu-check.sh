#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu-check.sh - what only a machine with an NVIDIA GPU can show (make check-gpu).
#
#   gpu-check.sh [questions] [conformance] [integration]	all of them when none is named
#
# questions: tests/gpu/prog_owed, what the design takes for granted of a GPU.
# conformance: the assertions that the fake driver is tested with, on the driver.
# integration: the suites with daemons, their pools on the GPU.
#
# KVMD_BUILD_DIR	where the programs are [build]
# KVMD_GPU_SUITES	suites of "integration", relative to it or to here
# KVMD_GPU_RESULTS	file to write [tests/gpu/RESULTS.md; with the fake driver
#			KVMD_BUILD_DIR/gpu-logs/RESULTS.md]
# KVMD_GPU_SECONDS	time for each part [1800]
# KVMD_GPU_JOBS		suites at once [4]
#
# Without a GPU all is listed as skipped and the exit status is 0; it is 1 when
# something failed.
set -u
cd "$(dirname "$0")/.." || exit 1
O=$(cd "${KVMD_BUILD_DIR:-build}" && pwd) || exit 1
export KVMD_BUILD_DIR=$O KVMD_REAL_CUDA=1
owed=$O/tests/gpu/prog_owed
conformance=("$O"/tests/gpu/check_cuda_conformance*)
logs=$O/gpu-logs
seconds=${KVMD_GPU_SECONDS:-1800}
read -ra suites <<<"${KVMD_GPU_SUITES:-}"
failed=0

say() { printf '  %-7s %s\n' "$1" "$2"; }
part() { case " $parts " in *" $1 "*) true ;; *) false ;; esac; }
result() { scripts/gpu-results.sh "$results" "$1"; }

parts=${*:-questions conformance integration}
for p in $parts; do
	case $p in
	questions | conformance | integration) ;;
	*) echo "gpu-check.sh: no part '$p'" >&2; exit 2 ;;
	esac
done
[ -x "$owed" ] || { echo "gpu-check.sh: $owed is not built: make build-tests" >&2; exit 1; }

# ------------------------------------------------------------ is there one?

found=$("$owed" probe)
if [ $? != 0 ]; then
	why=$(sed -n 's/^none: //p' <<<"$found")
	say SKIP "no GPU: ${why:-the driver does not start}"
	if part questions; then
		"$owed" list | while read -r name what; do say SKIP "$name: $what"; done
	fi
	part conformance && say SKIP "conformance: the fake driver's assertions on the driver"
	if part integration; then
		for s in "${suites[@]}"; do
			s=${s#cuda:} s=${s#"$O"/} s=${s#tests/}
			say SKIP "${s%.sh} with its pool on the GPU"
		done
	fi
	echo "nothing could be checked: no GPU"
	exit 0
fi

# Somebody has the GPU open all the time, until this ends: the driver stays up.
"$owed" hold &
holder=$!
trap 'kill $holder 2>/dev/null' EXIT
trap 'exit 130' INT TERM
mkdir -p "$logs"
fake=$(sed -n 's/^fake: //p' <<<"$found")
results=tests/gpu/RESULTS.md
[ "$fake" = yes ] && results=$logs/RESULTS.md
results=${KVMD_GPU_RESULTS:-$results}

{
	if [ "$fake" = yes ]; then
		echo '**The fake driver, no GPU: nothing below says anything about one.**'
		echo
	fi
	echo "- date: $(date -u '+%Y-%m-%d %H:%M UTC')"
	grep -v '^fake:' <<<"$found" | sed 's/^/- /'
	grep -m1 '^model name' /proc/cpuinfo | sed 's/^model name[^:]*:/- processor:/'
	memory=$(awk '/^MemTotal/ { printf "%d GiB", $2 / 1048576 }' /proc/meminfo)
	echo "- processors: $(nproc), memory: $memory"
	[ -r COMMIT ] && echo "- source: $(cat COMMIT)"
	[ ! -r COMMIT ] && rev=$(git rev-parse --short HEAD 2>/dev/null) && echo "- source: $rev"
	if command -v nvidia-smi >/dev/null; then
		ask=pcie.link.gen.current,pcie.link.width.current,ecc.mode.current,compute_mode
		timeout 20 nvidia-smi --query-gpu=$ask --format=csv,noheader 2>/dev/null |
			sed 's/^/- PCIe generation, width, ECC, compute mode: /'
	fi
} >"$logs/machine.md"
result machine <"$logs/machine.md"
sed -n 's/^- gpu/gpu/p' "$logs/machine.md"

# ------------------------------------------------------------ questions

if part questions; then
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/kvg.XXXXXX") || exit 1
	TMPDIR=$tmp timeout -k 5 "$seconds" "$owed" >"$logs/questions.log" 2>&1
	rc=$?
	rm -rf "$tmp"
	grep -E '^(answer|ok|not ok|SKIP:)( |$)' "$logs/questions.log"
	[ $rc = 0 ] || failed=1
	{
		echo '| question | answer |'
		echo '|---|---|'
		sed -n -e 's/|/\\|/g' -e 's/^answer \([a-z0-9_]*\): \(.*\)/| \1 | \2 |/p' \
			"$logs/questions.log"
		echo
		echo "Holds: $(sed -n 's/^ok //p' "$logs/questions.log" | paste -sd, | sed 's/,/, /g')"
		sed -n -e 's/^not ok /\n**Does not hold:** /p' -e 's/^SKIP: /\nSkipped: /p' \
			"$logs/questions.log"
		[ $rc = 124 ] && printf '\n**Cut short after %d s.**\n' "$seconds"
		[ $rc -le 1 ] || [ $rc = 124 ] || printf '\n**Ended with status %d.**\n' $rc
	} | result questions
fi

# ------------------------------------------------------------ conformance

if part conformance; then
	log=$logs/conformance.log
	if [ -x "${conformance[0]}" ]; then
		timeout -k 5 "$seconds" scripts/run-tests.sh -o "$O" -j 2 "${conformance[@]}" \
			>"$log" 2>&1
		rc=$?
	else
		echo "SKIP: ${conformance[0]} is not built" >"$log"
		rc=77
	fi
	[ $rc = 0 ] || [ $rc = 77 ] || failed=1
	cat "$log"
	{
		case $rc in
		0) echo 'Passed: what the fake driver does is what the driver does.' ;;
		124) echo "**Cut short after $seconds s.**" ;;
		77) echo 'Skipped.' ;;
		*) echo "**Failed** (status $rc): the fake driver and the driver differ." ;;
		esac
		echo
		echo '```'
		sed "s|$O/||g" "$log" | cut -c1-200 | head -100
		echo '```'
	} | result conformance
fi

# ------------------------------------------------------------ integration

# What a run that was cut short left.
end_marked() {
	local p
	for p in $(grep -lszxF "KVMD_GPU_MARK=$KVMD_GPU_MARK" /proc/[0-9]*/environ 2>/dev/null |
		sed 's|/proc/||; s|/environ||'); do
		[ "$p" = $$ ] || [ "$p" = "$BASHPID" ] || kill -9 "$p" 2>/dev/null
	done
}

if part integration; then
	log=$logs/integration.log
	# The marked ones are children: this process has no mark in its own environment.
	KVMD_GPU_MARK=kvg.$$.$RANDOM
	if [ ${#suites[@]} = 0 ]; then
		echo "SKIP: no suites were named" >"$log"
		rc=77
	else
		KVMD_GPU_MARK=$KVMD_GPU_MARK KVMD_TEST_DEVICE=cuda \
			KVMD_TEST_SCALE=${KVMD_TEST_SCALE:-512} \
			timeout -k 5 "$seconds" scripts/run-tests.sh -o "$O" \
			-j "${KVMD_GPU_JOBS:-4}" "${suites[@]}" 2>&1 | tee "$log"
		rc=${PIPESTATUS[0]}
		[ $rc = 124 ] && end_marked
	fi
	[ $rc = 0 ] || [ $rc = 77 ] || failed=1
	{
		case $rc in
		0) echo 'Passed, with the pools of all daemons on the GPU.' ;;
		77) echo 'Skipped: no suites were named.' ;;
		124) echo "**Cut short after $seconds s**; what had ended by then:" ;;
		*) echo '**Failed:**' ;;
		esac
		echo
		echo '```'
		grep -v '^ *whole log: ' "$log" | sed "s|$O/||g" | cut -c1-160 | head -400
		echo '```'
	} | result integration
fi

echo "results: $results"
exit $failed
