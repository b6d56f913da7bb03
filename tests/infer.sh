# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
#
# infer.sh - daemons and engines for test scripts that run kvinfer; sourced behind
# script.sh. $base has the options that all of a script's engines share.

needs kvmd kvkeeper kvctl kvinfer
[ "${KVMD_REAL_CUDA:-}" = 1 ] || needs fakecuda/libcuda.so.1 fakecuda/kernels_host.so
prog=$O/kvinfer
daemon='' nr=0 sock='' alone='' engine=''
ended()
{
	# shellcheck disable=SC2046
	kill -9 $(jobs -p) 2>/dev/null
	wait 2>/dev/null
}
unset KVMD_SOCKET KVMD_ADMIN_SOCKET KVMD_KERNELS

# serve CONF [WRAPPER]: a new daemon on $sock.
serve()
{
	nr=$((nr + 1))
	mkdir "$tmp/d$nr"
	sock=$tmp/d$nr/s
	printf '[daemon]\nsocket = %s\nlog_level = warn\n%s\n' "$sock" "$1" >"$tmp/d$nr/conf"
	# shellcheck disable=SC2086
	${2:-} "$O/kvmd" -c "$tmp/d$nr/conf" 2>"$tmp/d$nr/log" &
	daemon=$!
	until [ -S "$sock.admin" ]; do
		kill -0 "$daemon" 2>/dev/null || { fail "no daemon: $(cat "$tmp/d$nr/log")"; break; }
	done
}

# served: it ends as it should, nothing is held, and its invariants hold.
served()
{
	"$O/kvctl" -s "$sock.admin" check >"$tmp/check" 2>&1 || fail "kvctl check: $(cat "$tmp/check")"
	kill -TERM "$daemon"
	wait "$daemon" || fail "kvmd ended with $?: $(cat "$tmp/d$nr/log")"
	daemon=
}

# ask VERB...: what kvctl says, as JSON on one line.
ask() { "$O/kvctl" -s "$sock.admin" "$@" -j | tr -d ' \n'; }

# kill_daemon: the daemon itself, not what keeps it.
kill_daemon() { kill -9 "$(ask status | sed -n 's/.*"pid":\([0-9]*\).*/\1/p')" || fail "no pid of the daemon"; }

# counter NAME, counter_above NAME NUMBER: of the daemon.
counter() { "$O/kvctl" -s "$sock.admin" stat --prom 2>/dev/null | sed -n "s/^kvmd_$1 //p"; }
counter_above()
{
	v=$(counter "$1")
	[ "${v:-0}" -gt "$2" ] || fail "$what: $1 is '$v', not above $2"
}

# infer STATUS ARG...: on the daemon.
infer()
{
	want=$1
	shift
	# shellcheck disable=SC2086
	run "$want" $base -S "$sock" "$@"
}

# alone ARG...: a cache of its own; $alone has the sums of its answers, in order.
alone()
{
	# shellcheck disable=SC2086
	run 0 $base --private "$@"
	alone=$(of logits_sum)
	[ -n "$alone" ] || fail "$what: no answer"
}

# of KEY [FILE]: values in the answers, by id and sample.
of()
{
	sed -n "s/.*\"id\":\([0-9]*\),\"sample\":\([0-9]*\),.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1.\2 \3/p" \
		"$tmp/${2:-out}" | sort -V | sed 's/.* //'
}

# same [FILE]: answers are those of `alone', and where they were checked those without a cache.
same()
{
	[ "$(of logits_sum "${1:-out}")" = "$alone" ] ||
		fail "$what: logits are not those of an engine alone:" \
			"$(of logits_sum "${1:-out}") / $alone"
	case $(of check "${1:-out}" | sort -u) in
	equal | null) ;;
	*) fail "$what: check: $(of check "${1:-out}")" ;;
	esac
}

# all_above KEY NUMBER, all_are KEY VALUE: in every answer.
all_above()
{
	for v in $(of "$1"); do
		[ "$v" -gt "$2" ] || fail "$what: $1 is $v, not above $2"
	done
}
all_are()
{
	[ "$(of "$1" | sort -u)" = "$2" ] || fail "$what: $1 is $(of "$1"), not $2"
}

# total KEY, total_above KEY NUMBER: of the totals.
total() { sed -n "s/.*\"type\":\"totals\".*\"$1\":\([^,}]*\).*/\1/p" "$tmp/out"; }
total_above()
{
	v=$(total "$1")
	[ "${v:-0}" -gt "$2" ] || fail "$what: total $1 is '$v', not above $2"
}

# endless ARG...: an engine that has answered once and goes on: $engine; the rest in fd 9.
endless()
{
	rm -f "$tmp/fifo"
	mkfifo "$tmp/fifo"
	# shellcheck disable=SC2086
	"$prog" $base -S "$sock" --repeat 2000 "$@" >"$tmp/fifo" 2>"$tmp/endless.err" &
	engine=$!
	exec 9<"$tmp/fifo"
	read -r _ <&9 || fail "no answer: $(cat "$tmp/endless.err")"
}

# on_fake [GPUS]: devices from now on are the fake driver's, kernels those of the CPU.
on_fake()
{
	export KVMD_FAKECUDA="gpus=${1:-1},granularity=4096,mem=1G,delay=0,cpu=1${KVMD_FAKECUDA:+,$KVMD_FAKECUDA}"
	export KVMD_FAKECUDA_STATE="$tmp/fakecuda" KVMD_KERNELS="fakecuda:$O/fakecuda/kernels_host.so"
	export LD_LIBRARY_PATH="$O/fakecuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}
