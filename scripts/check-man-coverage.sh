#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check-man-coverage.sh - is everything that can be used on its page of man/?
#
# Configuration keys with their defaults, counters, options and verbs of the
# tools, JSON keys of kvbench, kvinfer and kvtrace replay, public functions with their
# prototypes, members of public structs, all of wire.h, and error codes. What
# there is comes from the sources and the built programs; each thing that is
# missing is named with the page it belongs on. README.md names packages, files,
# targets and pages that are there.
#
# KVMD_BUILD_DIR: where the programs are (build).
set -u
shopt -s lastpipe	# what need() counts at the end of a pipe is counted here
cd "$(dirname "$0")/.." || exit 1
O=${KVMD_BUILD_DIR:-build}
export LC_ALL=C
missing=0

say() { echo "$1: $2"; missing=$((missing + 1)); }
part() {
	if [ "$missing" = 0 ]; then echo "ok $1"; else echo "not ok $1"; failed=1; fi
	missing=0
}
failed=0

for b in kvmd kvctl kvkeeper kvtrace kvbench kvinfer tests/cli/prog_list_conf; do
	if [ ! -x "$O/$b" ]; then
		echo "SKIP: $O/$b is not built"
		exit 77
	fi
done

# has PAGE TEXT: as a word, or with words around it.
has() { grep -qwF -- "$2" "man/$1"; }
# line PAGE REGEX: a whole line.
line() { grep -qE -- "^$2\$" "man/$1"; }
# need PAGE KIND: each line of standard input is a word of the page.
need() {
	local word
	while read -r word; do
		has "$1" "$word" || say "man/$1" "$2 $word is not there"
	done
}
# A file of C without its comments.
uncomment() { sed -e 's|/\*.*\*/||g' -e '/\/\*/,/\*\//d' "$1"; }

# ------------------------------------------------------------ configuration

page=man/kvmd.conf.5
while read -r section key def reload; do
	# Where the socket is was set at build time; the page has the default of that.
	[ "$key" = socket ] && def=/run/kvmd/kvmd.sock
	[ "$reload" = yes ] && def="$def, reloadable"
	awk -v section="[$section" -v key="$key" -v def=" Pq $def" '
	/^\.Ss / { on = index($2, section) == 1 }
	on && $1 == ".It" && $2 == "Cm" && $3 == key {
		found += substr($0, length($0) - length(def) + 1) == def
	}
	END { exit !found }' $page ||
		say $page "[$section] needs a line '.It Cm $key ... Pq $def'"
done < <("$O/tests/cli/prog_list_conf")
# ... and nothing that is gone.
while read -r section key; do
	"$O/tests/cli/prog_list_conf" | grep -qE "^$section $key " ||
		say $page "[$section] has no key $key any more"
done < <(awk '/^\.Ss \[/ { s = $2; gsub(/[][]/, "", s) } /^\.Sh / { if (s) s = "" }
	s && /^\.It Cm .* Pq / { print s, $3 }' $page)
part "configuration keys"

# ------------------------------------------------------------ counters

while read -r name; do
	line kvctl.8 "\.It Va $name" || say man/kvctl.8 "counter $name has no '.It Va'"
done < <(tr -d '\n' <include/kvmd/stats.h | grep -oE 'X\([A-Z_]+, "[a-z_]+"' | cut -d'"' -f2)
while read -r name; do
	grep -q "\"$name\"" include/kvmd/stats.h || say man/kvctl.8 "counter $name is gone"
done < <(sed -n 's/^\.It Va \([a-z_]*\)$/\1/p' man/kvctl.8)
part "counters"

# ------------------------------------------------------------ tools

while read -r noun verb opt; do
	case $noun in
	--*)	has kvctl.8 "Fl -${noun#--}" || say man/kvctl.8 "option $noun" ;;
	*)	[ -n "$verb" ] || continue
		if [ -z "$opt" ]; then
			line kvctl.8 "\.It Cm $noun $verb( .*)?" ||
				say man/kvctl.8 "'.It Cm $noun $verb'"
			continue
		fi
		case $opt in
		--columns) letter=o ;;
		--no-header) letter=n ;;
		--bytes) letter=b ;;
		--skip-first) letter=y ;;
		*) letter=- ;;
		esac
		line kvctl.8 "\.It Cm $noun $verb .*Fl ([a-z]*$letter[a-z]*|-${opt#--})( .*)?" ||
			say man/kvctl.8 "option $opt of $noun $verb"
		has kvctl.8 "Fl -${opt#--}" || say man/kvctl.8 "option $opt" ;;
	esac
done < <("$O/kvctl" help --list)
while read -r noun verb; do
	"$O/kvctl" help --list | grep -qxF "$noun $verb" ||
		say man/kvctl.8 "kvctl has no '$noun $verb' any more"
done < <(awk '/^\.Sh / { on = $2 == "NOUNS" } on && /^\.It Cm / { print $3, $4 }' man/kvctl.8)
grep -hoE '^	\{ "[a-z_%]+",' tools/kvctl/*.c | cut -d'"' -f2 | sort -u | need kvctl.8 column
part "kvctl"

help_options() { grep -oE -- '(^|[ ,(])--[a-z][a-z0-9-]+' | grep -oE -- '--.*' | sort -u; }
for verb in gen info replay; do
	while read -r opt; do
		awk -v verb="$verb" -v opt="-${opt#--}" '
		/^\.S[sh] / { on = $2 == verb }
		on && /^\.It / { for (i = 2; i < NF; i++) found += $i == "Fl" && $(i + 1) == opt }
		END { exit !found }' man/kvtrace.1 || say man/kvtrace.1 "option $opt of $verb"
	done < <("$O/kvtrace" $verb --help | help_options)
done
grep -oE 'json_[a-z0-9]+\(j, "[a-z0-9_]+"|json_[a-z0-9]+\(&j, "[a-z0-9_]+"' \
	tools/kvtrace/replay_report.c tools/kvtrace/replay_tiers.c | cut -d'"' -f2 | sort -u |
	need kvtrace.1 'JSON key'
part "kvtrace"

while read -r opt; do
	has kvbench.1 "Fl -${opt#--}" || say man/kvbench.1 "option $opt"
done < <("$O/kvbench" --help | help_options)
sed -n '/row_def row_defs\[/,/^};/p' tools/kvbench/rows_table.c | grep -oE '"[a-z0-9]+_[a-z0-9_]+"' | tr -d '"' |
	sort -u | need kvbench.1 'JSON key'
part "kvbench"

while read -r opt; do
	awk -v opt="-${opt#--}" '/^\.It / { for (i = 2; i < NF; i++) found += $i == "Fl" && $(i + 1) == opt }
	END { exit !found }' man/kvinfer.1 || say man/kvinfer.1 "option $opt has no '.It ... Fl'"
done < <("$O/kvinfer" --help | help_options)
grep -oE 'json_[a-z0-9]+\(&?j, "[a-z0-9_]+"' tools/kvinfer/report.c | cut -d'"' -f2 | sort -u |
	need kvinfer.1 'JSON key'
part "kvinfer"

while read -r opt; do
	line kvmd.8 "\.It Fl $opt( .*)?" || say man/kvmd.8 "option -$opt"
done < <("$O/kvmd" -h | sed -n 's/^  -\([a-zA-Z]\) .*/\1/p')
part "kvmd"

while read -r opt; do
	line kvkeeper.8 "\.It Fl $opt( .*)?" || say man/kvkeeper.8 "option -$opt"
done < <("$O/kvkeeper" 2>&1 | sed -n 's/^  -\([a-zA-Z]\) .*/\1/p')
part "kvkeeper"

# ------------------------------------------------------------ library

# Prototypes as "RET NAME(ARG, ARG)" with single blanks.
squeeze() {
	sed -e 's/__attribute__((.*))//' | tr '\t\n' '  ' | tr -s ' ' |
		sed -e 's/ *\* */ */g' -e 's/\* \*/**/g' -e 's/( /(/g' -e 's/ )/)/g'
}
from_header() {
	uncomment include/kvclient.h | squeeze |
		grep -oE '(KVC_API|static inline) [^;{}()]*kvc_[a-z_]+\([^;{]*\) ?[;{]' |
		sed -e 's/^KVC_API //' -e 's/^static inline //' -e 's/ *[;{]$//' -e 's/\* \*/**/g'
}
from_pages() {
	awk '
	function bare(s) { gsub(/"/, "", s); return s }
	/^\.Sh / { on = $2 == "SYNOPSIS" }
	!on { next }
	/^\.Ft / { ret = bare(substr($0, 5)) }
	/^\.Fo / { name = $2; args = "" }
	/^\.Fa / { args = args (args ? ", " : "") bare(substr($0, 5)) }
	/^\.Fc/ { print ret " " name "(" args ")" }
	/^\.Fn / { print ret " " $2 "(" bare(substr($0, index($0, $3))) ")" }' man/kvc_*.3 |
		sed -e 's/ *\* */ */g' -e 's/\* \*/**/g'
}
header=$(from_header | sort)
pages=$(from_pages | sort)
while read -r proto; do
	say "man/*.3" "no such prototype in a SYNOPSIS: $proto"
done < <(comm -23 <(echo "$header") <(echo "$pages"))
while read -r proto; do
	say "man/*.3" "not in kvclient.h: $proto"
done < <(comm -13 <(echo "$header") <(echo "$pages"))
while read -r name; do
	echo "$header" | grep -qF " $name(" || echo "$header" | grep -qF "*$name(" ||
		say include/kvclient.h "$name of libkvclient.map is not declared"
	grep -qxE "\.Nm $name( ,)?" man/*.3 || say "man/*.3" "no page has the name $name"
done < <(grep -oE 'kvc_[a-z_]+;' libkvclient/libkvclient.map | tr -d ';')
part "library functions"

# Members of the structs of kvclient.h.
members() {	# FILE STRUCT
	uncomment "$1" | awk -v s="struct $2 {" '
	$0 == s { on = 1; next } /^}/ { on = 0 } on' |
		sed -e 's/__attribute__.*//' -e 's/\[[^]]*\]//g' |
		grep -oE '[a-z_0-9]+ *(,|;|$)' | tr -d ' ,;' |
		grep -vE '^(pad[0-9]*|resv[0-9]*|h|)$'
}
members include/kvclient.h kvc_opts | need kvc_create.3 'member of struct kvc_opts'
members include/kvclient.h kvc_space | need kvc_create.3 'member of struct kvc_space'
members include/kvclient.h kvc_view | need kvc_addr.3 'member of struct kvc_view'
members include/kvclient.h kvc_group_view | need kvc_addr.3 'member of struct kvc_group_view'
members include/kvclient.h kvc_plane | need kvc_addr.3 'member of struct kvc_plane'
while read -r err; do
	line libkvclient.3 "\.It Bq Er $err" || say man/libkvclient.3 "error $err"
done < <(grep -oE '^	\{ E[A-Z0-9]+,' libkvclient/error.c | grep -oE 'E[A-Z0-9]+')
part "library structs and errors"

# ------------------------------------------------------------ disk format

for struct in disk_super disk_space disk_head disk_header; do
	members kvmd/tier/disk_format.h $struct | need kvmd-disk.5 "member of struct $struct"
done
part "disk format"

# ------------------------------------------------------------ protocol

grep -oE '\bKVMD_[A-Z0-9_]+\b' include/kvmd/wire.h | sort -u |
	grep -vE '^KVMD_(WIRE_H|WIRE_ASSERT|NR_[A-Z]+)$' |
	while read -r name; do
		# KVMD_RING_* and the like in comments are no names.
		case $name in *_) continue ;; esac
		echo "$name"
	done >"${TMPDIR:-/tmp}/man-names.$$"
need kvmd-protocol.7 'name of wire.h' <"${TMPDIR:-/tmp}/man-names.$$"
rm -f "${TMPDIR:-/tmp}/man-names.$$"
for s in $(grep -oE '^struct kvmd_[a-z_]+ \{' include/kvmd/wire.h | cut -d' ' -f2); do
	has kvmd-protocol.7 "struct $s" || say man/kvmd-protocol.7 "struct $s"
	members include/kvmd/wire.h "$s" | need kvmd-protocol.7 "member of struct $s:"
done
# Errors that operations and control messages answer with.
grep -hoE -- '-E[A-Z0-9]+\b' kvmd/svc/op*.c kvmd/svc/ticket.c kvmd/svc/hello.c kvmd/svc/control*.c \
	kvmd/svc/session.c kvmd/ring/check.c kvmd/pool/space.c | tr -d '-' | sort -u |
	while read -r err; do
		line kvmd-protocol.7 "\.Er $err( .*)?" || echo "$err"
	done >"${TMPDIR:-/tmp}/man-errs.$$"
while read -r err; do
	say man/kvmd-protocol.7 "error $err"
done <"${TMPDIR:-/tmp}/man-errs.$$"
rm -f "${TMPDIR:-/tmp}/man-errs.$$"
part "protocol"

# ------------------------------------------------------------ README.md

while read -r package; do
	grep -q "^| $package |" README.md || say README.md "package $package is not in the table"
done < <(sed -e 's/#.*//' scripts/deps.txt | awk 'NF { print $1 }')
while read -r package; do
	awk -v p="$package" '$1 == p { found = 1 } END { exit !found }' scripts/deps.txt || say README.md "package $package is gone"
done < <(awk '/^## / { on = $2 == "Dependencies" } on && /^\| [a-z]/ { print $2 }' README.md)
while read -r path; do
	[ -e "$path" ] || say README.md "$path is not there"
done < <(grep -oE '`(tests|scripts|man|kvmd|tools)/[^` ]*`' README.md | tr -d '`' | sort -u)
while read -r target; do
	grep -qE "^## $target " Makefile || say README.md "there is no target $target"
done < <(grep -oE '(`|^    )make [a-z-]+' README.md | awk '{ print $NF }' | sort -u)
while read -r page; do
	[ -e "man/$page" ] || say README.md "there is no page $page"
done < <(grep -oE '`[a-z.-]+\([1-8]\)`' README.md | tr -d '`)' | tr '(' '.' |
	grep -vx 'sd_notify\.3' | sort -u)
part "README.md"

exit $failed
