#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kvctl.sh - the command line of kvctl against a real daemon and a real client.
#
# O or KVMD_BUILD_DIR: build directory (build). Prints "ok NAME" or "not ok NAME"
# per part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvmd kvctl tests/cli/prog_engine
kvctl=$O/kvctl
prog=$kvctl
daemon='' engine='' recorder=''
ended()
{
	[ -n "$recorder" ] && kill "$recorder" 2>/dev/null
	[ -n "$engine" ] && kill "$engine" 2>/dev/null
	[ -n "$daemon" ] && kill "$daemon" 2>/dev/null
	wait 2>/dev/null
}
unset KVMD_ADMIN_SOCKET
export KVMD_SOCKET=$tmp/sock

# line TEXT: a whole line of the output, blanks squeezed.
line() { tr -s ' ' <"$tmp/out" | sed 's/^ //; s/ $//' | grep -qxF -- "$1" ||
	fail "no line '$1' in: $(head -8 "$tmp/out")"; }
# key SEED I: the key of block I of the engine's chain SEED.
key() { printf '%08x%08x%048d' "$1" "$2" 0; }

# ------------------------------------------------------------ without a daemon

run 0 help; has out "usage: kvctl [OPTION...] NOUN"; lacks err
run 0 --help; has out "usage: kvctl [OPTION...] NOUN"
run 0 status --help; has out "kvctl status show"
run 0 help slab; has out "kvctl slab show SLAB"
run 0 slab --help; has out "kvctl slab show SLAB"
run 2 help nonsense; has err "no noun 'nonsense'"
run 0 version; line "kvctl $(sed -n 's/^VERSION := //p' "$root/Makefile")"
run 0 version -j; has out '"schema": 1'
run 0 help -j; has out '"commands":'
run 2 nonsense; has err "no noun 'nonsense'"; lacks out
run 2 slab nonsense; has err "no verb 'nonsense' of slab"
run 2 slab show; has err "usage: kvctl slab show SLAB"
run 2 slab show 1 2; has err "usage:"
run 2 --nonsense; has err "no option '--nonsense'"
run 2 -Z; has err "no option '-Z'"
run 2 dev -y; has err "dev list takes no --skip-first"
run 2 dev --space x; has err "dev list takes no --space"
run 2 dev -o; has err "needs a value"
run 2 status -t soon; has err "'soon' is not a time"
run 2 stat fast; has err "'fast' is no interval"
run 2 stat 1 none; has err "'none' is no count"
run 2 explain; has err "usage: kvctl explain"
run 2 explain sp 12; has err "'12' is no key: 64 hex digits"
run 2 space drop; has err "SPACE or --all"
run 2 block show; has err "BLOCK, or --key"
run 2 tier add ram; has err "usage: kvctl tier add"
run 2 tier add ram lots; has err "'lots' is no size"
run 2 tier add hbm 1G; has err "ram BYTES, or disk PATH"
run 2 tier add disk here.img 1G; has err "'here.img' is not the whole path"
run 2 iostat fast; has err "'fast' is no interval and no verb of iostat"
run 2 prefetch; has err "usage: kvctl prefetch run SPACE"
run 2 prefetch sp; has err "no key"
run 1 prefetch sp "$tmp/nothing"; has err "$tmp/nothing: No such file"
for t in some some=10% some=10%,fast some=0%,1s some=101%,1s 'some=10,1s' 'some=%,1s' '=10%,1s'; do
	run 2 pressure wait "$t"; has err "is not [RESOURCE.]KIND=SHARE,WINDOW"
done
run 2 dev -w; has err "dev list takes no --wait"
part "usage"

run 0 help --list
for word in "--socket" "slab" "slab show" "block list --state" "trace start --output"; do
	line "$word"
done
[ "$(sort "$tmp/out" | uniq -d)" = "" ] || fail "help --list says something twice"
cp "$tmp/out" "$tmp/list"
run 0 completion
cp "$tmp/out" "$tmp/completion"
run 0 completion bash
cmp -s "$tmp/out" "$tmp/completion" || fail "completion is not completion bash"
# complete WORD...: what bash would offer for the last word.
complete_words()
{
	bash -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kvctl
		echo "${COMPREPLY[*]}"' bash "$tmp/completion" kvctl "$@"
}
[ "$(complete_words cl)" = "client" ] || fail "completion of cl: $(complete_words cl)"
[ "$(complete_words slab '')" = "list show" ] || fail "completion of slab: $(complete_words slab '')"
[ "$(complete_words -j block list --li)" = "--limit" ] || fail "completion of block list --li"
[ "$(complete_words log level d)" = "debug" ] || fail "completion of log level d"
nouns=$(grep -v -e ' ' -e '^--' "$tmp/list" | tr '\n' ' ')
[ "$(complete_words '') " = "$nouns" ] || fail "completion offers '$(complete_words '')'"
part "help --list and completion"

run 3; has err "no daemon at $tmp/sock.admin"; lacks out
run 3 status -j
run 3 -s "$tmp/nothing" slab; has err "no daemon at $tmp/nothing"
KVMD_ADMIN_SOCKET=$tmp/other run 3 dev; has err "no daemon at $tmp/other"
run 3 -s "@kvctl.$$" dev; has err "no daemon at @kvctl.$$"
run 2 -s "$(printf '%0200d' 0)" dev; has err "a path has 1 to"
part "no daemon"

# ---------------------------------------------------------------- the daemon

cat >"$tmp/conf" <<EOF
[daemon]
socket = $tmp/sock
log_level = warn
[pool]
slab_bytes = 256K
policy = lru
[device host-0]
bytes = 1M
[tenant default]
hbm_high = 512M
EOF
coproc "$O/kvmd" -c "$tmp/conf" 2>"$tmp/log"
daemon=$COPROC_PID
while ! [ -S "$tmp/sock.admin" ]; do
	kill -0 "$daemon" 2>/dev/null || { cat "$tmp/log"; fail "kvmd does not start"; exit 1; }
done

run 0
line "clients 0 sessions (0 dying), 0 sequences, 0 spaces, 1 tenants"
line "hbm 0B of 1M in slabs: 0B leased, 0B cached, 0B free"
line "tokens 0 asked"
run 0 dev; line "DEVICE KIND STATE BUDGET USED SLABS GRACE"; line "host-0 host up 1M 0B 0 0ms"
run 0 dev -n -b -o device,budget; line "host-0 1048576"; lacks out DEVICE
run 0 client; line "SESSION PID LABEL TENANT SPACE STATE SEQS WAITING STEP ENTRIES HIT% QUIET"
run 2 client -o pid,odd; has err "no column 'odd'; there are session pid"
run 2 stat -o odd; has err "no column 'odd'"
run 0 conf; line "pool.policy lru density"; line "daemon.socket_mode 660 660"
run 0 conf -o option,help; has out "permissions of both sockets"
run 0 tenant -o tenant,high,max; line "default 512M -"
run 0 log; line warn
run 0 log level debug; run 0 log; line debug
run 1 log level loud; has err "no log level 'loud'"
run 0 log level warn
run 1 space show nope; has err "no space 'nope'"
run 1 client show 77; has err "no session 77"
run 1 slab show 0; has err "no slab 0"
run 1 -j slab show 0; has out '"message": "no slab 0'
run 0 conf reload; has out reloaded
run 0 tier; line "TIER STATE SIZE USED FREE BLOCKS FLIGHT IN/S OUT/S PAGES MESSAGE"; lacks out ram
run 1 tier show ram; has err "there is no ram tier: set ram.bytes"
run 1 tier drain ram; has err "there is no ram tier"
run 1 tier drain "$tmp/file"; has err "there is no disk tier"
run 1 tier undrain disk; has err "there is no disk tier: set disk.path"
run 1 tier drain hbm; has err "see \`kvctl drain\`"
run 1 tier add disk "$tmp/file" 1G; has err "there is no disk tier"
run 1 pressure wait odd.some=10%,1s; has err "no resource 'odd'"
run 1 pressure wait hbm.half=10%,1s; has err "no kind 'half'"
run 1 pressure wait some=10%,10ms; has err "window_ms: 10 is outside"
run 5 -t 100ms pressure wait load.full=2.5%,1s; has err "no answer in 100 ms"
run 0 pressure
for res in hbm load clean; do
	line "$res some avg10=0.00 avg60=0.00 avg300=0.00 total=0"
	line "$res full avg10=0.00 avg60=0.00 avg300=0.00 total=0"
done
part "an idle daemon"

while read -r noun; do
	case $noun in trace|explain|prefetch|completion|help|version) continue ;; esac
	run 0 "$noun" -j; has out '"schema": 1'; lacks err
	"$kvctl" "$noun" >/dev/null || fail "kvctl $noun"
done < <(tr ' ' '\n' <<<"$nouns" | grep .)
part "every noun, as text and JSON"

run 0 stat list; line "entries 0 entries submission entries taken from rings"
run 0 stat list -n -o name
names=$(wc -l <"$tmp/out")
run 0 stat --prom
[ "$(grep -c '^kvmd_[a-z_]* [0-9]*$' "$tmp/out")" = "$names" ] || fail "stat --prom: not $names samples"
[ "$(grep -c '^# TYPE kvmd_[a-z_]* \(counter\|gauge\)$' "$tmp/out")" = "$names" ] || fail "TYPE lines"
run 0 stat 10ms 3; [ "$(wc -l <"$tmp/out")" = 4 ] || fail "stat 10ms 3: $(cat "$tmp/out")"
run 0 stat 10ms 3 -y -n; [ "$(wc -l <"$tmp/out")" = 3 ] || fail "stat -y -n: $(cat "$tmp/out")"
run 0 stat -o wakeups,sessions,hit%; line "WAKEUPS SESSIONS HIT%"
run 0 stat 10ms 2 -j; [ "$(grep -c '"schema": 1' "$tmp/out")" = 2 ] || fail "stat -j"
part "stat"

# ------------------------------------------------------------- with a client

exec 5< <(exec "$kvctl" trace --output "$tmp/trace" --count 4 2>&1)
recorder=$!
read -r -u 5 text; [ "$text" = "kvctl: recording; interrupt to stop" ] || fail "trace: $text"
mkfifo "$tmp/to" "$tmp/from"
"$O/tests/cli/prog_engine" "$tmp/sock" "llama:8b" eng-1 <"$tmp/to" >"$tmp/from" &
engine=$!
exec 6>"$tmp/to" 7<"$tmp/from"
read -r -u 7 text; [ "$text" = "ready 1" ] || fail "engine: $text"
# tell LINE ANSWER: have the engine do something.
tell()
{
	echo "$1" >&6
	read -r -u 7 text
	[ "$text" = "$2" ] || fail "engine: $1: $text, not $2"
}
tell "open 0 40 1" "ok 0"
tell "open 1 60 1" "ok 40"
tell "close 0" "ok 0"
tell "open 2 100 2" "ok 0"

run 0 client -o session,pid,label,tenant,space,state,seqs,step,hit%
line "1 $engine eng-1 default llama:8b live 2 3 20.0"
run 0 client show 1; line "pid $engine"; line "RANK PID UID CONNECTED"; line "0 $engine $(id -u) yes"
run 0 seq -o session,seq,state,tokens,positions; line "1 1 live 960 60"; line "1 2 live 1600 100"
run 0 seq --session 1 --limit 1 -n -o seq; line 1; has err "there is more: --offset"
run 0 seq show 1 1 --limit 2; line "tokens 960"; line "0 1 1 sealed 1"; lacks out "2 3 3"
run 1 seq show 1 0; has err "no such sequence"
run 0 space -o space,tenant,epoch,sessions,leased,idle; line "llama:8b default 0 1 160 0"
run 0 space show "llama:8b"; line "sealed 160"; line "0 full 1 4K 16 4K 191 257 160 0 31 5 10 0 lru none 4K 1"
run 0 tenant -o tenant,sessions,hbm -b; line "default 1 655360"
run 0 slab -o slab,state,space,slots,used,size; line "0 active llama:8b 64 63 256K"
run 0 slab show 0; line "leased 63"; line "$engine 1 yes no"
run 0 status; line "clients 1 sessions (0 dying), 2 sequences, 1 spaces, 1 tenants"
line "blocks 40 hit, 160 allocated, 160 published, 0 merged, 0 evicted"
line "tokens 3200 asked: hbm 20.0%, recomputed 20.0%, pending 60.0%"
run 0 pressure; line "SPACE LEVEL WAITING"; line "llama:8b none 0"
run 0 check; line "everything agrees; records: 160"
part "a client, its sequences and memory"

run 0 block --limit 2 -n -o block,state,leases,children,parent,position,key
line "1 sealed 1 1 0 0 $(key 1 0)"; line "2 sealed 1 1 1 1 $(key 1 1)"; has err "--offset 3"
run 0 block --state open; lacks err
run 1 block --state odd; has err "no block state 'odd'"
run 1 block --space nope; has err "no space 'nope'"
run 0 block show 3; line "position 2"
run 0 block show --key "$(key 1 2)" --space "llama:8b"; line "block 3"
run 1 block show --key "$(key 9 9)" --space "llama:8b"; has err "kvctl explain"
run 1 block show 999999; has err "outside 1 to"
part "blocks"

tell "open 0 2 1" "ok 2"
read -r -u 5 text
[ "$text" = "kvctl: 4 requests, 160 blocks; 0 lost, 0 of another block size left out" ] ||
	fail "trace: $text"
wait "$recorder" 2>/dev/null
recorder=''
exec 5<&-
[ "$(head -1 "$tmp/trace")" = '{"block_tokens":16}' ] || fail "header: $(head -1 "$tmp/trace")"
[ "$(grep -c '"timestamp":[0-9]*,"input_length":[0-9]*,"output_length":0' "$tmp/trace")" = 4 ] ||
	fail "trace: $(cut -c1-80 "$tmp/trace")"
tail -1 "$tmp/trace" | grep -q '"input_length":32,.*"hash_ids":\[0,1\]}$' ||
	fail "the last request: $(tail -1 "$tmp/trace")"
if [ -x "$O/kvtrace" ]; then
	"$O/kvtrace" info "$tmp/trace" >"$tmp/out" || fail "kvtrace cannot read the trace"
	line "requests 4"
fi
part "trace"

tell "close 0" "ok 0"
tell "close 1" "ok 0"
run 0 explain "llama:8b" "$(key 1 0)" "$(key 1 1)" "$(key 7 7)"
has out "2 of 3 keys hit: 32 tokens. Key 2 was never published, as far as known."
run 0 explain "llama:8b" "$(key 7 7)" "$(key 1 1)" -n -o position,hit,reason
line "0 no never"; line "1 no behind"
{ key 1 0; echo; key 1 1; echo; echo; } >"$tmp/keys"
"$kvctl" explain "llama:8b" <"$tmp/keys" >"$tmp/out" || fail "explain from standard input"
has out "2 of 2 keys hit: 32 tokens."
run 0 explain -j "llama:8b" "$(key 1 0)"; has out '"leading_hits": 1'
run 1 explain nope "$(key 1 0)"; has err "no space 'nope'"
run 1 explain "llama:8b" "$(key 1 0)" --group 3; has err "no group 3"
run 0 space drop "llama:8b"; line "60 blocks dropped"
run 0 explain "llama:8b" "$(key 1 0)"; has out "was dropped by advice, its ttl or an operator"
part "explain and drop"

run 0 space raise "llama:8b"; line "llama:8b: epoch 1, 100 blocks of former epochs to drop"
run 0 space raise "llama:8b" --epoch 9; has out "epoch 9"
run 1 space raise "llama:8b" --epoch 9; has err "a new one must be higher"
tell "close 2" "ok 0"
run 0 drain; lacks err
run 0 drain start 1; has out "slab 1: "
run 1 drain start 77; has err "no slab 77"
run 1 drain stop 0; has err "only a draining one can be kept"
run 0 fault arm "copy:nth=1000"; run 0 fault; line "copy yes 0 0"
run 1 fault arm odd; has err "odd"
run 0 fault disarm; run 0 fault; line "copy no 0 0"
run 0 check; has out "everything agrees"
part "epoch, drain, fault"

# ------------------------------------------------------------------ odd peers

# A daemon that stands still: a timeout, not a hang.
kill -STOP "$daemon"
run 5 -t 100ms status; has err "no answer in 100 ms"
kill -CONT "$daemon"
run 0 status
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$tmp"
	(cd "$tmp" && exec setpriv --reuid 65534 --clear-groups "$kvctl" -s sock.admin status) \
		>"$tmp/out" 2>"$tmp/err"
	[ $? = 4 ] || fail "another user: $(cat "$tmp/err")"
	chmod 666 "$tmp/sock.admin"
	(cd "$tmp" && exec setpriv --reuid 65534 --clear-groups "$kvctl" -s sock.admin status) \
		>"$tmp/out" 2>"$tmp/err"
	[ $? = 4 ] || fail "another user, open socket: $(cat "$tmp/err")"
	has err "may not: only root and user 0"
else
	echo "SKIP: not root or no setpriv: cannot be another user"
fi
"$kvctl" status >/dev/full 2>"$tmp/err" && fail "a full device is no error"
has err "standard output"
part "timeout, permission, full device"

echo quit >&6
exec 6>&- 7<&-
wait "$engine" || fail "the engine ended with $?"
engine=''
kill "$daemon"
wait "$daemon" || fail "kvmd ended with $?: $(cat "$tmp/log")"
daemon=''
[ ! -e "$tmp/sock.admin" ] || fail "the admin socket is left behind"
run 3 status
part "the end"

# -------------------------------------------------------------------- with tiers

if ! dd if=/dev/zero of="$tmp/probe" bs=4096 count=1 oflag=direct 2>/dev/null; then
	echo "SKIP: $tmp takes no O_DIRECT: no disk tier"
	finish
fi
cat >>"$tmp/conf" <<EOF
[ram]
bytes = 16M
chunk = 2M
hugetlb = no
lock = no
[disk]
path = $tmp/one.img
bytes = 16M
segment = 1M
block_bytes_hint = 4K
admission = 1
EOF
sed -i 's/^policy = lru/policy = lru\nblocks = 20000/' "$tmp/conf"

start()
{
	coproc "$O/kvmd" -c "$tmp/conf" 2>"$tmp/log"
	daemon=$COPROC_PID
	while ! [ -S "$tmp/sock.admin" ]; do
		kill -0 "$daemon" 2>/dev/null || { cat "$tmp/log"; fail "kvmd does not start"; exit 1; }
	done
	"$O/tests/cli/prog_engine" "$tmp/sock" "llama:8b" eng-1 <"$tmp/to" >"$tmp/from" &
	engine=$!
	exec 6>"$tmp/to" 7<"$tmp/from"
	read -r -u 7 text; [ "$text" = "ready 1" ] || fail "engine: $text"
}

stop()	# SIGNAL
{
	echo quit >&6
	exec 6>&- 7<&-
	wait "$engine" || fail "the engine ended with $?"
	kill "-$1" "$daemon"
	wait "$daemon" 2>/dev/null
	engine='' daemon=''
	rm -f "$tmp/sock" "$tmp/sock.admin"
}

# tier_cell TIER COL
tier_cell() { "$kvctl" tier -b -o "tier,$2" | awk -v row="$1" '$1 == row { print $2 }'; }

start
for i in 1 2 3 4 5 6; do
	tell "open 0 100 $i" "ok 0"
	tell "close 0" "ok 0"
done
# Its chunks are made in the background.
while [ "$(tier_cell ram state)" = growing ]; do :; done
run 0 tier -o tier,state,files,segments,bad,wanted,chunk -b
line "ram ok - - - 16777216 2097152"
has out disk
[ "$(tier_cell ram blocks)" -ge 345 ] || fail "blocks in RAM: $("$kvctl" tier)"
run 0 tier show ram; line "small_pages 16M"; line "locked 0B"
run 0 tier show disk; line "FILE KIND STATE SIZE USED LIVE"; has out "$tmp/one.img"
run 0 tier show hbm; line "state ok"; lacks out chunk
run 0 status; has out "ram "; has out "of 16M used"
run 0 explain "llama:8b" "$(key 1 0)" "$(key 1 1)" -n -o position,hit,tier
line "0 yes ram"; line "1 yes ram"
run 0 explain "llama:8b" "$(key 1 0)" "$(key 1 1)"
has out "2 of 2 keys hit: 32 tokens: 2 in RAM."
run 0 block show --key "$(key 1 0)" --space "llama:8b"; line "tier ram"; line "slot 0"
run 0 block --tier ram --limit 1 -n -o state,tier; line "sealed ram"
run 0 tenant -b -o tenant,ram,ram_max
[ "$(awk '$1 == "default" { print $2 }' "$tmp/out")" -ge $((345 * 4096)) ] || fail "charged: $(cat "$tmp/out")"
tell "load 0 100 1" "ok 100"
run 0 seq -n -o seq,ready,loading,swapped,broken; line "0 100 no no no"
run 0 explain "llama:8b" "$(key 1 0)" -n -o tier; line hbm
tell "close 0" "ok 0"
run 0 iostat -n -o tier,in,out,in/s,out/s,fl_in,fl_out,q_in,q_out,refused,errors; has out disk
run 0 iostat -o tier,advice,admission,full,tenant,slow,nomem
line "TIER ADVICE ADMISSION FULL TENANT SLOW NOMEM"; line "hbm - - - - 0 0"
run 0 iostat 10ms 2; [ "$(grep -c '^ram ' "$tmp/out")" = 2 ] || fail "iostat: $(cat "$tmp/out")"
run 0 iostat 10ms 2 -y -n; [ "$(grep -c '^ram ' "$tmp/out")" = 2 ] || fail "iostat -y: $(cat "$tmp/out")"
run 0 iostat 10ms 2 -j; [ "$(grep -c '"schema": 1' "$tmp/out")" = 2 ] || fail "iostat -j"
run 2 iostat -o odd; has err "no column 'odd'; there are tier used"
run 0 stat -o clean,store,fetch,load,stall,badsum; line "CLEAN STORE FETCH LOAD STALL BADSUM"
run 0 check
part "tiers: list, show, explain, iostat"

{ key 2 0; echo; key 2 1; echo; echo; key 9 9; echo; } >"$tmp/keys"
run 0 prefetch "llama:8b" "$tmp/keys"
has out "3 keys: "; has out ", 1 not cached, 0 too many at a time"
"$kvctl" prefetch "llama:8b" -j <"$tmp/keys" >"$tmp/out" || fail "prefetch from standard input"
has out '"missing_keys": 1'
run 1 prefetch nope "$tmp/keys"; has err "no space 'nope'"
run 1 prefetch "llama:8b" --group 2 "$tmp/keys"; has err "no group 2"
echo 12 >"$tmp/keys"; run 2 prefetch "llama:8b" "$tmp/keys"; has err "'12' is no key"
tell "willneed 3 100" "ok 100"
run 0 stat list -n -o name,value; lacks out "blocks_prefetched 0"
part "prefetch"

run 0 tier drain -w ram; line "ram: drained"; lacks err
run 0 tier -o tier,state,used -b; line "ram drained 0"
run 0 check
run 0 tier undrain ram; line "ram: in use"
run 0 tier -o tier,state; line "ram ok"
run 0 tier add ram 24M; line "ram: to have 24M"
run 0 conf -n -o option,value; has out "ram.bytes"
run 0 tier add disk "$tmp/two.img" 8M; has out "disk: $tmp/two.img added"
run 0 tier -o tier,files; line "disk 2"
run 1 tier add disk "$tmp/two.img" 8M; has err "$tmp/two.img"
run 1 tier drain "$tmp/three.img"; has err "$tmp/three.img: not a file of the disk tier"
run 0 tier drain -w "$tmp/one.img"; line "$tmp/one.img: drained"
run 0 tier -o tier,files; line "disk 1"
run 1 tier drain "$tmp/two.img"; has err "there is no other file"
run 0 tier drain -w disk; line "disk: drained"
run 0 tier -o tier,state; line "disk drained"
run 0 tenant -b -o tenant,disk; line "default 0"
run 0 tier undrain disk
run 0 check
part "drain, add"

# An epoch is not acknowledged before a restart would know it.
run 0 space raise "llama:8b" --epoch 7; has out "epoch 7"
stop KILL
# A copy: the kernel may still be ending the dead one's I/O, and holds its locks meanwhile.
cp "$tmp/two.img" "$tmp/three.img"
sed -i "s|one.img|three.img|" "$tmp/conf"
start
run 0 space -n -o space,epoch; line "llama:8b 7"
run 1 space raise "llama:8b" --epoch 7; has err "a new one must be higher"
stop TERM
part "a raised epoch outlives the daemon"

finish
