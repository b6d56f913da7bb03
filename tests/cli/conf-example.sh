#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# conf-example.sh - the example configuration that is installed, the one in
# kvmd.conf(5), and that the unit starts kvmd with options it has.
#
# The example is taken as it is, and with every default that it shows in force;
# both must be accepted, and it must show every key with its default.
# O or KVMD_BUILD_DIR: build directory (build). Prints "ok NAME" or "not ok NAME"
# per part. Exit status: 0 or 1.

set -u
. "$(dirname "$0")/../script.sh"
needs kvmd tests/cli/prog_list_conf

accepted()
{
	"$O/kvmd" -n -c "$1" >"$tmp/out" 2>&1 || fail "kvmd -n -c $2: $(cat "$tmp/out")"
	[ ! -s "$tmp/out" ] || fail "kvmd -n -c $2 says: $(cat "$tmp/out")"
}

"$O/tests/cli/prog_list_conf" >"$tmp/keys"
socket=$(awk '$1 == "daemon" && $2 == "socket" { print $3 }' "$tmp/keys")
sed -e 's|@runstatedir@/@daemon_name@/kvmd.sock|'"$socket"'|' -e 's|@daemon_name@|kvmd|g' \
	-e 's|@kvctl_name@|kvctl|g' "$root/tools/units/kvmd.conf.in" >"$tmp/example"
! grep -n '@[a-z_]*@' "$tmp/example" || fail "kvmd.conf.in: a name was not filled in"
accepted "$tmp/example" "the example"
sed 's/^#\([a-z_]* = \)/\1/' "$tmp/example" >"$tmp/whole"
# There is no disk tier without one in RAM, which by default there is not.
sed '/^path = /d' "$tmp/whole" >"$tmp/defaults"
accepted "$tmp/defaults" "the example with all its defaults"
part "example configuration"

while read -r section key def _; do
	shown=$(awk -v section="[$section" -v key="$key" '
		/^\[/ { on = index($1, section) == 1 }
		on && $1 == key && $2 == "=" { print $3 }' "$tmp/whole")
	[ -n "$shown" ] || fail "kvmd.conf.in: [$section] does not show $key"
	[ "$def" = none ] || [ "$shown" = "$def" ] ||
		fail "kvmd.conf.in: $section.$key is shown as $shown, its default is $def"
done <"$tmp/keys"
part "example shows every key and its default"

awk '/^\.Sh / { on = $2 == "EXAMPLES" } /^\.Ed/ { lit = 0 } on && lit; on && /^\.Bd -literal/ { lit = 1 }' \
	"$root/man/kvmd.conf.5" >"$tmp/manual"
grep -q '^\[tenant ' "$tmp/manual" || fail "kvmd.conf.5 has no example"
accepted "$tmp/manual" "the example of kvmd.conf(5)"
part "example of kvmd.conf(5)"

# Options of ExecStart are among those that kvmd lists.
sed -n 's/^ExecStart=[^ ]* *//p' "$root/tools/units/kvmd.service.in" | tr ' ' '\n' | grep '^-' \
	>"$tmp/opts"
[ -s "$tmp/opts" ] || fail "kvmd.service.in: ExecStart has no options"
while read -r opt; do
	"$O/kvmd" -h | grep -q "^  $opt " || fail "kvmd.service.in: kvmd has no option $opt"
done <"$tmp/opts"
part "unit"

finish
