#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu-kit.sh - gather what check-gpu and bench-gpu need into one folder (make gpu-kit).
#
#   gpu-kit.sh BUILD_DIR [DIR]	makes BUILD_DIR/gpu-kit, or DIR
#
# The folder runs on a machine with an NVIDIA driver, glibc 2.36 or newer and the usual
# tools of a Linux distribution (bash, coreutils, findutils, grep, sed, awk), without
# network and compiler: its ./run does all in under 8 minutes. Binaries are stripped; the
# shared libraries they load go with them, but for those of glibc and of the driver. No
# symbolic links, at most 48 MiB.
#
# KVMD_GPU_SUITES: suites of check-gpu's "integration".
set -eu
cd "$(dirname "$0")/.."
O=$(cd "${1:?usage: gpu-kit.sh BUILD_DIR [DIR]}" && pwd)
kit=${2:-$O/gpu-kit}
new=$kit.new
most_mib=48
glibc=2.36
read -ra suites <<<"${KVMD_GPU_SUITES:-}"

rm -rf "$new"
mkdir -p "$new/build/tests/gpu" "$new/lib" "$new/scripts" "$new/tests"
trap 'rm -rf "$new"' EXIT

# ------------------------------------------------------------ programs

take() {	# FILE of O, as it lies there
	mkdir -p "$new/build/$(dirname "$1")"
	strip -o "$new/build/$1" "$O/$1"
	chmod 755 "$new/build/$1"
}

for f in kvmd kvctl kvkeeper kvbench kvtrace kvinfer tests/gpu/prog_owed; do
	take "$f"
done
for f in "$O"/tests/gpu/check_cuda_conformance* "$O/tests/integration/prog_keeper_child"; do
	[ ! -x "$f" ] || take "${f#"$O"/}"
done
if [ -e "$O/tests/gpu/kernels.fatbin" ]; then
	cp "$O/tests/gpu/kernels.fatbin" "$new/build/tests/gpu/"
else
	echo '  NOTE    no nvcc: the kit has no kernels: what needs some is asked by copies, or skipped'
fi

list=()
for s in "${suites[@]}"; do
	path=${s#cuda:} on=${s%"${s#cuda:}"}
	case $path in
	"$O"/* | "${1%/}"/*)
		path=${path#"$O"/} path=${path#"${1%/}"/}
		[ -x "$O/$path" ] || continue
		take "$path"
		list+=("${on}build/$path")
		;;
	*)
		[ -x "$path" ] || continue
		mkdir -p "$new/$(dirname "$path")"
		cp "$path" "$new/$path"
		list+=("$on$path")
		;;
	esac
done
cp scripts/run-tests.sh scripts/gpu-check.sh scripts/gpu-bench.sh scripts/gpu-results.sh \
	"$new/scripts/"
for f in tests/script.sh tests/infer.sh; do
	[ ! -e "$f" ] || cp "$f" "$new/tests/"
done
printf '%s\n' "${list[@]}" >"$new/suites"
{ git describe --always --dirty 2>/dev/null || echo unknown; } >"$new/COMMIT"

# ------------------------------------------------------------ libraries

# Of glibc, and of the driver: the machine's own.
not_ours='ld-linux.*|libc|libm|libdl|libpthread|librt|libresolv|libutil|libnsl|libanl|libmvec'
not_ours="^($not_ours|libnss_.*|libcuda|libnvidia.*)\.so"
find "$new/build" -type f -perm -u+x -print0 | xargs -0 ldd 2>/dev/null |
	awk '/=> not found/ { print "missing: " $1; next } $2 == "=>" && $3 ~ /^\// { print $3 }' |
	sort -u >"$new/libs"
if grep '^missing: ' "$new/libs" >&2; then exit 1; fi
mkdir "$new/lib/gcc"
while read -r so; do
	name=${so##*/} to=$new/lib
	[[ $name =~ $not_ours ]] && continue
	# The machine's own, if it has them: its other programs load them, too.
	case $name in libstdc++.so.* | libgcc_s.so.*) to=$new/lib/gcc ;; esac
	strip -o "$to/$name" "$(readlink -f "$so")" 2>/dev/null || cp -L "$so" "$to/$name"
	chmod 755 "$to/$name"
done <"$new/libs"
rm "$new/libs"

# What was built on a newer system does not run on an older one.
while IFS= read -r -d '' f; do
	need=$(objdump -T "$f" 2>/dev/null | grep -oE 'GLIBC_2\.[0-9]+' | sort -Vu | tail -1)
	need=${need#GLIBC_}
	newest=$(printf '%s\n%s\n' "$need" $glibc | sort -V | tail -1)
	if [ "$newest" != $glibc ]; then
		echo "gpu-kit.sh: ${f#"$new"/} needs glibc $need, newer than $glibc:" \
			"build the kit on Debian 12" >&2
		exit 1
	fi
done < <(find "$new/build" "$new/lib" -type f -print0)

# ------------------------------------------------------------ the one command

cat >"$new/run" <<'END'
#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run - check-gpu and bench-gpu of this kit, in under 8 minutes; README says more.
#
#   ./run [DIR]		results go to DIR [results beside this file]
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1
out=${1:-$here/results}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
cd "$here" || exit 1
chmod -R u+rwX . 2>/dev/null
find build scripts tests -type f \( -path 'build/*' -o -name '*.sh' \) \
	-exec chmod u+x {} + 2>/dev/null
export KVMD_BUILD_DIR=$here/build KVMD_REAL_CUDA=1 KVMD_GPU_RESULTS=$out/RESULTS.md
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
PATH=$PATH:/usr/sbin:/sbin
ldconfig -p 2>/dev/null | grep -q 'libstdc++\.so\.6 ' ||
	LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$here/lib/gcc
# Where containers put the driver, when no loader knows of it.
if ! build/tests/gpu/prog_owed probe >/dev/null; then
	for d in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib64-nvidia; do
		[ -e $d/libcuda.so.1 ] && LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$d
	done
fi
KVMD_GPU_SUITES=$(sed "s|build/|$here/build/|" suites | tr '\n' ' ')
export KVMD_GPU_SUITES
# The paths of sockets are short.
TMPDIR=$(mktemp -d /tmp/kvk.XXXXXX) || exit 1
export TMPDIR
failed=0
start=$SECONDS
left() { echo $((460 - (SECONDS - start))); }

step() {	# NAME SECONDS COMMAND...
	local name=$1 limit=$2 rc t0=$SECONDS
	shift 2
	[ "$limit" -gt "$(left)" ] && limit=$(left)
	echo "== $name (at most $limit s)"
	if [ "$limit" -lt 10 ]; then
		echo "no time is left for it"
		failed=1
		return
	fi
	# It ends itself in time and says what it has; the outer limit is for what hangs.
	KVMD_GPU_SECONDS=$((limit - 8)) timeout -k 5 "$limit" "$@" 2>&1
	rc=$?
	[ $rc = 0 ] || failed=1
	echo "== $name: status $rc, $((SECONDS - t0)) s"
}

# Somebody has the GPU open all the time, so that the driver stays up.
build/tests/gpu/prog_owed hold &
holder=$!
{
	step questions 170 scripts/gpu-check.sh questions
	step conformance 70 scripts/gpu-check.sh conformance
	step benchmark 140 scripts/gpu-bench.sh
	export KVMD_TEST_TIMEOUT=${KVMD_TEST_TIMEOUT:-240}
	export KVMD_GPU_JOBS=${KVMD_GPU_JOBS:-$(($(nproc) > 8 ? 8 : $(nproc)))}
	step integration "$(left)" scripts/gpu-check.sh integration
	echo "== $((SECONDS - start)) s"
	[ $failed = 0 ]
} > >(tee "$out/kit.log") 2>&1
rc=$?
kill $holder 2>/dev/null
wait
# Few files, each far below 16 MiB.
for d in gpu-logs test-logs; do
	[ -d "build/$d" ] || continue
	for f in build/$d/*; do
		[ -f "$f" ] || continue
		echo "==== $f"
		head -c 200000 "$f"
		echo
	done >"$out/$d.txt"
	if [ "$(stat -c %s "$out/$d.txt")" -gt 12000000 ]; then
		head -c 12000000 "$out/$d.txt" >"$out/$d.new" && mv "$out/$d.new" "$out/$d.txt"
	fi
done
rm -rf "$TMPDIR"
echo "results: $out"
exit $rc
END
chmod 755 "$new/run" "$new"/scripts/*.sh
cat >"$new/README" <<END
What kvmd asks of an NVIDIA GPU, to be carried to a machine that has one.

    ./run

takes less than 8 minutes and needs an NVIDIA driver, glibc $glibc or newer, bash and the
usual tools; no network, no compiler. As root it asks more. What came out lies in results/:
RESULTS.md (to be put into the source tree as tests/gpu/RESULTS.md), kit.log, and the
programs' logs in two text files.
END

# ------------------------------------------------------------ its size

kib=$(du -sk --apparent-size "$new" | awk '{ print $1 }')
if [ "$kib" -gt $((most_mib * 1024)) ]; then
	echo "gpu-kit.sh: $((kib / 1024)) MiB, more than $most_mib; the largest:" >&2
	find "$new" -type f -printf '%s %P\n' | sort -rn | head -10 >&2
	exit 1
fi
rm -rf "$kit"
mv "$new" "$kit"
printf '  %-7s %s: %d.%d MiB, %d libraries, %d suites\n' KIT "$kit" $((kib / 1024)) \
	$((kib * 10 / 1024 % 10)) "$(find "$kit/lib" -type f | wc -l)" "${#list[@]}"
