#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# cxx.sh - a C++ client compiles without a warning, links with either library,
# and works with a real daemon.
set -u
b=$KVMD_BUILD_DIR s=$KVMD_SRC_DIR t=$(mktemp -d) || exit 1
pid=
trap '[ -n "$pid" ] && kill $pid 2>/dev/null; wait 2>/dev/null; rm -rf "$t"' EXIT

if ! command -v "${CXX:-g++}" >/dev/null; then
	echo "SKIP: no C++ compiler"
	exit 0
fi

cat >"$t/c.cc" <<'C'
#include <kvclient.h>
#include <cstring>
#include <cstdio>

int main(int, char **argv)
{
	kvc_opts o;
	kvc_space s;
	kvc *k = nullptr;
	kvmd_cqe c;
	const kvmd_cqe *got = nullptr;
	unsigned char keys[4][KVMD_KEY_BYTES];
	kvc_chain chain;
	int32_t tokens[64];

	kvc_opts_init(&o);
	o.socket = argv[1];
	kvc_space_init(&s, argv[2]);
	s.nr_groups = 1;
	s.nr_shards = 1;
	s.group[0].planes = 1;
	s.group[0].plane_bytes = 4096;
	s.group[0].block_tokens = 16;
	s.group[0].max_slots = 17;
	for (int i = 0; i < 64; i++)
		tokens[i] = i;
	if (kvc_chain_init(&chain, "salt", 4, "model", 5, 16))
		return 2;
	kvc_chain_blocks(&chain, tokens, 4, keys);
	if (kvc_create(&o, &s, &k)) {
		std::fprintf(stderr, "%s\n", kvc_refusal());
		return 3;
	}
	const struct kvc_view *v = kvc_view(k);
	if (kvc_seq_open(k, 1, 1, keys, 4, 64, KVMD_HINT_LAST, 0, &c) != 0 ||
	    kvc_seq_extend(k, 1, 1, 0, 4, 0, 0, &c) != 4)
		return 4;
	for (int i = 0; i < 4; i++)
		std::memset(kvc_addr(v, 0, 0, 0, static_cast<uint32_t>(kvc_row(v, 0, 1)[i])), i, 4096);
	unsigned char byte = 0;
	if (kvc_mem_get(k, &byte, kvc_addr_ro(v, 0, 0, 0, static_cast<uint32_t>(kvc_row(v, 0, 1)[3])), 1) ||
	    byte != 3 || kvc_cuda_device(k, 0) >= 0)
		return 8;
	if (kvc_seq_publish(k, 1, 1, 0, 0, keys, 4, 0, &c) != 4)
		return 5;
	kvmd_sqe *e = kvc_get_sqe(k);
	kvc_prep_nop(e);
	e->user_data = 9;
	if (kvc_submit(k) != 1 || kvc_wait_cqe(k, UINT64_MAX, &got) || got->user_data != 9)
		return 6;
	kvc_cqe_seen(k);
	if (kvc_lookup(k, 0, keys, 4, &c) != 4 || kvc_seq_close(k, 1, 1, 0, 0))
		return 7;
	kvc_destroy(k);
	return 0;
}
C

printf '[daemon]\nsocket = %s/k\n[pool]\nblocks = 1000\nslab_bytes = 1M\n' "$t" >"$t/conf"
# The log is a pipe whose first line with "serves" says that it is ready.
mkfifo "$t/log"
"$b/kvmd" -c "$t/conf" 2>"$t/log" &
pid=$!
exec 3<"$t/log"
while read -r -t 60 line <&3; do
	case $line in *' serves '*) break ;; esac
done

flags="-std=c++11 -Wall -Wextra -Wpedantic -Werror -I$s/include"
sources="$t/c.cc"
d=
case ${KVMD_TEST_D-} in
asan) d='-fsanitize=address,undefined' ;;
ubsan) d='-fsanitize=undefined' ;;
tsan) d='-fsanitize=thread' ;;
gcov) d=--coverage ;;
esac
# shellcheck disable=SC2086
if ${CXX:-g++} $flags $d -o "$t/static" $sources "$b/libkvclient.a" -lcrypto -lpthread; then
	"$t/static" "$t/k" one && echo "ok C++ with libkvclient.a" || echo "not ok C++ static: $?"
else
	echo "not ok C++ does not compile"
fi
# shellcheck disable=SC2086
if ${CXX:-g++} $flags $d -o "$t/shared" $sources -L"$b" -lkvclient; then
	LD_LIBRARY_PATH=$b "$t/shared" "$t/k" two && echo "ok C++ with libkvclient.so" ||
		echo "not ok C++ shared: $?"
else
	echo "not ok C++ does not link with the shared library"
fi
kill $pid
cat <&3 >/dev/null
wait $pid && echo "ok the daemon stopped" || echo "not ok the daemon ended with $?"
pid=
