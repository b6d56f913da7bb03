/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.c - part "hash": block keys beside bare SHA-256 and beside Python.
 *
 * Two Python figures, by whatever python3 is installed, in the same round: the
 * steps of vLLM's block hasher for a plain text request (look for extras, cut the
 * tokens out of a read-only view, make a tuple of them, sha256 of the pickle of
 * (parent's digest, tokens, extras), append), and sha256 of the pickle alone.
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
	"class View:\n"
	"    def __init__(self, x): self._x = x\n"
	"    def __getitem__(self, i): return self._x[i]\n"
	"class Request: pass\n"
	"def sha256(x):\n"
	"    data = pickle.dumps(x, protocol=pickle.HIGHEST_PROTOCOL)\n"
	"    return hashlib.sha256(data).digest()\n"
	"def of_images(r, i, end, at): return ([], at) if not r.images else 1 / 0\n"
	"def of_lora(r): return [] if not r.lora else [r.lora]\n"
	"def of_embeds(r, i, end): return [] if r.embeds is None else 1 / 0\n"
	"def extras_of(r, i, end, at):\n"
	"    images, at = of_images(r, i, end, at)\n"
	"    lora = of_lora(r)\n"
	"    salt = [r.salt] if i == 0 and r.salt else []\n"
	"    embeds = of_embeds(r, i, end)\n"
	"    extras = lora + images + salt + embeds\n"
	"    return (tuple(extras) if extras else None), at\n"
	"def named(x): return x\n"
	"def hash_block(fn, parent, tokens, extra=None):\n"
	"    tokens = tuple(tokens)\n"
	"    return named(fn((parent, tokens, extra)))\n"
	"r = Request()\n"
	"r.images, r.lora, r.salt, r.embeds = [], None, None, None\n"
	"prompt = [(i * 7919 + 12345) % 128256 for i in range(16000)]\n"
	"r.tokens = View(prompt)\n"
	"def hasher():\n"
	"    parent, out, i, at = bytes(32), [], 0, 0\n"
	"    while i + 16 <= len(prompt):\n"
	"        extra, at = extras_of(r, i, i + 16, at)\n"
	"        tokens = r.tokens[i:i + 16]\n"
	"        parent = hash_block(sha256, parent, tokens, extra)\n"
	"        out.append(parent)\n"
	"        i += 16\n"
	"    return out\n"
	"blocks = [tuple(prompt[i:i + 16]) for i in range(0, len(prompt), 16)]\n"
	"def core():\n"
	"    parent = bytes(32)\n"
	"    for tokens in blocks:\n"
	"        parent = sha256((parent, tokens, None))\n"
	"    return blocks\n"
	"for fn in hasher, core:\n"
	"    took = []\n"
	"    for s in range(15):\n"
	"        start = time.perf_counter_ns()\n"
	"        n = len(fn())\n"
	"        took.append((time.perf_counter_ns() - start) / n)\n"
	"    print(sorted(took)[7])\n"
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

/* False: there is no python3. */
static bool run_python(double ret_ns[2])
{
	FILE *f = popen(python, "r");
	bool ok;

	if (!f)
		return false;
	ok = fscanf(f, "%lf %lf", &ret_ns[0], &ret_ns[1]) == 2;
	pclose(f);
	return ok;
}

void kvb_hash_round(void)
{
	struct turn t[] = { { slice_sha, NULL, 0 }, { slice_keys, NULL, 0 },
			    { slice_all, NULL, 0 }, { slice_new, NULL, 0 } };
	double py[2];

	take_turns(t, ARRAY_SIZE(t));
	row_add(ROW_HASH, t[0].ret, t[1].ret);
	row_add(ROW_EXTEND_CHAIN, t[2].ret, t[3].ret);
	if (!run_python(py)) {
		rows_skip(ROW_HASH_PY, "no python3");
		rows_skip(ROW_HASH_PICKLE, "no python3");
		return;
	}
	row_add(ROW_HASH_PY, py[0], t[1].ret);
	row_add(ROW_HASH_PICKLE, py[1], t[1].ret);
}
