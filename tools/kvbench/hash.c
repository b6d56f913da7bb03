/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.c - part "hash": block keys beside bare SHA-256 and beside Python.
 *
 * The Python figure is what vLLM does for every block of a prompt: cut out its
 * tokens, make a tuple of them, pickle (parent's digest, tokens, extras), and
 * SHA-256 of that. It is measured with whatever python3 is installed, in the same
 * round; vLLM's own bookkeeping around it is left out.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdlib.h>

#include "tools/kvbench/kvbench.h"

#define TOKENS	16u
#define KNOWN	100u

static const char python[] =
	"python3 - 2>/dev/null <<'EOF'\n"
	"import hashlib, pickle, time\n"
	"def sha256(x):\n"
	"    data = pickle.dumps(x, protocol=pickle.HIGHEST_PROTOCOL)\n"
	"    return hashlib.sha256(data).digest()\n"
	"def hash_block(fn, parent, tokens, extra):\n"
	"    return fn((parent, tuple(tokens), extra))\n"
	"prompt = [(i * 7919 + 12345) % 128256 for i in range(16000)]\n"
	"def keys():\n"
	"    parent, out = bytes(32), []\n"
	"    for i in range(0, len(prompt), 16):\n"
	"        parent = hash_block(sha256, parent, prompt[i:i + 16], None)\n"
	"        out.append(parent)\n"
	"    return out\n"
	"took = []\n"
	"for s in range(15):\n"
	"    start = time.perf_counter_ns()\n"
	"    n = len(keys())\n"
	"    took.append((time.perf_counter_ns() - start) / n)\n"
	"print(sorted(took)[7])\n"
	"EOF\n";

static double slice_keys(void *ctx)
{
	static int32_t tokens[64 * TOKENS];
	static uint8_t keys[64][KVMD_KEY_BYTES];
	struct kvc_chain c;
	uint64_t start, end;
	uint32_t n = 0;

	(void)ctx;
	if (kvc_chain_init(&c, "salt", 4, "model", 5, TOKENS))
		kvb_die("kvc_chain_init");
	start = time_ns();
	for (end = start + bench.slice_ns; time_ns() < end; n += 64)
		kvc_chain_blocks(&c, tokens, 64, keys);
	return (double)(time_ns() - start) / n;
}

static double slice_sha(void *ctx)
{
	struct {
		uint8_t parent[SHA256_DIGEST_LENGTH];
		int32_t tokens[TOKENS];
	} m = { { 0 }, { 0 } };
	uint64_t start = time_ns(), end = start + bench.slice_ns;
	uint32_t n = 0;
	SHA256_CTX c;

	(void)ctx;
	for (; time_ns() < end; n += 64)
		for (int i = 0; i < 64; i++) {
			SHA256_Init(&c);
			SHA256_Update(&c, &m, sizeof(m));
			SHA256_Final(m.parent, &c);
		}
	return (double)(time_ns() - start) / n;
}

/* All keys of a conversation, or those of its new block: ns each time. */
static double chain(bool known)
{
	static int32_t tokens[(KNOWN + 1) * TOKENS];
	static uint8_t keys[KNOWN + 1][KVMD_KEY_BYTES];
	uint64_t start, end;
	struct kvc_chain c;
	uint32_t n = 0;

	kvc_chain_init(&c, "salt", 4, "model", 5, TOKENS);
	kvc_chain_blocks(&c, tokens, KNOWN, keys);
	start = time_ns();
	for (end = start + bench.slice_ns; time_ns() < end; n++) {
		kvc_chain_rewind(&c, known ? KNOWN : 0, known ? keys[KNOWN - 1] : NULL);
		kvc_chain_blocks(&c, tokens, known ? 1 : KNOWN + 1, keys[known ? KNOWN : 0]);
	}
	return (double)(time_ns() - start) / n;
}

static double slice_all(void *ctx)
{
	(void)ctx;
	return chain(false);
}

static double slice_new(void *ctx)
{
	(void)ctx;
	return chain(true);
}

static double run_python(void)
{
	double ns = 0;
	FILE *f = popen(python, "r");

	if (!f)
		return 0;
	if (fscanf(f, "%lf", &ns) != 1)
		ns = 0;
	pclose(f);
	return ns;
}

void kvb_hash_round(void)
{
	struct turn t[] = { { slice_sha, NULL, 0 }, { slice_keys, NULL, 0 },
			    { slice_all, NULL, 0 }, { slice_new, NULL, 0 } };
	double py;

	take_turns(t, ARRAY_SIZE(t));
	row_add(ROW_HASH, t[0].ret, t[1].ret);
	row_add(ROW_EXTEND_CHAIN, t[2].ret, t[3].ret);
	py = run_python();
	if (py > 0)
		row_add(ROW_HASH_PY, py, t[1].ret);
	else
		rows_skip(ROW_HASH_PY, "no python3");
}
