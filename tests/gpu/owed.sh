#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# owed.sh - the questions that `make check-gpu` asks a GPU, asked of the fake driver:
# so that they run the first time they meet one. What it answers says nothing of GPUs.
set -u
. "$(dirname "$0")/../script.sh"
prog=$O/tests/gpu/prog_owed
needs tests/gpu/prog_owed fakecuda/libcuda.so.1 kvkeeper
if [ "${KVMD_REAL_CUDA:-}" = 1 ]; then
	echo "SKIP: make check-gpu asks the real driver"
	exit 0
fi
export LD_LIBRARY_PATH=$O/fakecuda KVMD_BUILD_DIR=$O

# The kernels in the fake's own form, so that questions that launch some do.
cat >"$tmp/kernels.c" <<'END'
#include <stdint.h>

static uint64_t word(uint64_t seed, uint64_t i)
{
	return seed * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;
}

const unsigned owed_fill_args[] = { 8, 8, 8, 0 }, owed_count_args[] = { 8, 8, 8, 8, 0 };

void owed_fill(void **args, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes)
{
	uint64_t *p = *(uint64_t **)args[0], n = *(uint64_t *)args[1];

	(void)grid, (void)block, (void)shared_bytes;
	for (uint64_t i = 0; i < n; i++)
		p[i] = word(*(uint64_t *)args[2], i);
}

void owed_count(void **args, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes)
{
	const uint64_t *p = *(const uint64_t **)args[0], n = *(uint64_t *)args[1];

	(void)grid, (void)block, (void)shared_bytes;
	for (uint64_t i = 0; i < n; i++)
		**(uint64_t **)args[3] += p[i] != word(*(uint64_t *)args[2], i);
}
END
if ${CC:-cc} -O1 -shared -fPIC -o "$tmp/kernels.so" "$tmp/kernels.c" 2>"$tmp/err"; then
	printf 'fakecuda:%s' "$tmp/kernels.so" >"$tmp/kernels.image"
	export KVMD_GPU_KERNELS=$tmp/kernels.image KVMD_FAKECUDA=cpu=1
else
	fail "no kernels: $(cat "$tmp/err")"
fi

# ask NAME...: what was said goes to $tmp/out; the fault that one question makes is no news.
ask()
{
	"$prog" "$@" 2>&1 | grep -v '^fakecuda: violation' >>"$tmp/out"
}

# Another user cannot open this user's state file: there is none then.
unset KVMD_FAKECUDA_STATE
across=$("$prog" list | sed -n 's/^\(cross_uid[a-z_]*\) .*/\1/p')
# shellcheck disable=SC2086
ask $across
export KVMD_FAKECUDA_STATE=$tmp/state
# shellcheck disable=SC2046
ask $("$prog" list | awk '$1 !~ /^cross_uid/ { print $1 }')
cat "$tmp/out"

for name in $("$prog" list | awk '{ print $1 }'); do
	n=$(grep -cE "^(ok $name\$|not ok $name: |SKIP: $name: )" "$tmp/out")
	[ "$n" = 1 ] || fail "$name has $n verdicts"
done
part "each question has a verdict"
"$prog" nonsense >/dev/null 2>&1
[ $? = 2 ] || fail "a question that is none: not 2"
part "usage"
grep -q '^not ok' "$tmp/out" && fail "see above"
finish
