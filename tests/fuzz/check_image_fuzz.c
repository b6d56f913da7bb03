// SPDX-License-Identifier: Apache-2.0
/*
 * check_image_fuzz.c - damaged coded blocks: -EBADMSG, or the very bytes that were coded.
 *
 * Blocks of random groups are coded, damaged at random in head, table and parts, most
 * with checksums that are right all the same, and decoded where memory ends behind
 * them. The seed is printed; KVMD_FUZZ_SEED repeats it, KVMD_FUZZ_RUNS sets how many.
 */
#include "kvmd/lib/clock.h"
#include "kvmd/lib/conf.h"
#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/image.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "tests/harness.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define SPAN		(256u << 10)
#define MAX_PLAIN	(64u << 10)

static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

static uint64_t from_env(const char *name, uint64_t def)
{
	const char *s = getenv(name);
	uint64_t v;

	return s && !conf_parse_u64(s, &v) && v ? v : def;
}

/* SPAN bytes with a hole behind them. */
static uint8_t *make_area(void)
{
	uint8_t *p = mmap(NULL, SPAN + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(mprotect(p + SPAN, 4096, PROT_NONE), 0);
	return p;
}

/* A group whose blocks are smaller when coded. */
static struct kvmd_group rnd_group(uint32_t *ret_shards)
{
	struct kvmd_group g;

	do {
		g = (struct kvmd_group) { .planes = (uint32_t)(1 + rnd(4)) };
		g.block_tokens = (uint32_t)(1 + rnd(32));
		*ret_shards = (uint32_t)(1 + rnd(3));
		g.flags = rnd(4) ? 0 : KVMD_GROUP_REPLICA;
		g.codec = (struct kvmd_codec) {
			.id = (uint8_t)(1 + rnd(KVMD_NR_CODEC - 1)), .dtype = KVMD_DTYPE_BF16,
			.parts = (uint16_t)(1 + rnd(8)), .channels = (uint16_t)(1 + rnd(600)),
			.kv_run = (uint16_t)rnd(2),
		};
		g.plane_bytes = kvmd_codec_values(&g) * 2 * g.codec.parts;
		if (kvmd_codec_is_grouped(g.codec.id))
			g.codec.scale_values = (uint8_t)(rnd(2) ? 32u << rnd(3) : 0);
		g.codec.exact_first = (uint16_t)rnd(kvmd_codec_parts(&g));
		if (rnd(2))
			g.codec.exact_first = 0;
	} while (kvmd_codec_wrong(&g) || !kvmd_codec_bytes(&g, *ret_shards) ||
		 g.planes * g.plane_bytes * *ret_shards > MAX_PLAIN);
	return g;
}

static void rnd_values(uint16_t *v, size_t nr)
{
	uint32_t base = (uint32_t)rnd(0x7800), width = 1 + (uint32_t)rnd(rnd(8) ? 0x700 : 0x8000);

	for (size_t i = 0; i < nr; i++)
		v[i] = (uint16_t)(((base + rnd(width)) & 0x7fff) | rnd(2) << 15);
}

/* Change a few bytes of the image and set the checksums right again, mostly. */
static void damage(uint8_t *p, size_t bytes, size_t nr_parts)
{
	unsigned nr = 1 + (unsigned)rnd(4);
	struct image_head h;
	uint32_t len;
	size_t at;

	for (unsigned i = 0; i < nr; i++)
		switch (rnd(5)) {
		case 0: p[rnd(bytes)] ^= (uint8_t)(1u << rnd(8)); break;
		case 1: p[rnd(sizeof(h))] = (uint8_t)rnd(256); break;
		case 2: p[sizeof(h) + rnd(4 * nr_parts)] ^= (uint8_t)(1u << rnd(8)); break;
		case 3:
			/* A length that is wrong by a little, or by a lot. */
			at = sizeof(h) + 4 * rnd(nr_parts);
			memcpy(&len, p + at, sizeof(len));
			len += rnd(2) ? (uint32_t)rnd(9) - 4 : (uint32_t)rnd(UINT32_MAX);
			memcpy(p + at, &len, sizeof(len));
			break;
		default:
			memcpy(&h, p, sizeof(h));
			h.bytes = rnd(2) ? rnd(2 * bytes) : h.bytes + rnd(9) - 4;
			memcpy(p, &h, sizeof(h));
			break;
		}
	if (!rnd(8))
		return;
	memcpy(&h, p, sizeof(h));
	h.table_crc = crc32c(p + sizeof(h), 4 * nr_parts);
	h.crc = crc32c(&h, offsetof(struct image_head, crc));
	memcpy(p, &h, sizeof(h));
}

START_TEST(damaged_images_are_refused_or_right)
{
	uint64_t seed = from_env("KVMD_FUZZ_SEED", clock_ns() | 1);
	uint64_t runs = test_fuzz_runs(5000), right = 0, refused = 0, plain = 0;
	uint8_t *src = make_area(), *enc = make_area(), *dst = make_area(), *want = make_area();

	rng = seed;
	printf("seed %" PRIu64 "\n", seed);
	for (uint64_t i = 0; i < runs; i++) {
		uint32_t shards;
		struct kvmd_group g = rnd_group(&shards);
		size_t stored = g.flags & KVMD_GROUP_REPLICA ? 1 : shards;
		size_t n = g.planes * g.plane_bytes * stored, bytes = kvmd_codec_bytes(&g, shards);
		uint8_t *in = src + SPAN - n, *out = dst + SPAN - n, *at = enc + SPAN - bytes;
		double error;
		int err;

		rnd_values((uint16_t *)in, n / 2);
		/* The scratch is exactly as large as it says, too. */
		err = image_encode(&g, shards, in, at, want + SPAN - image_scratch_bytes(&g), &error);
		if (err) {
			quiet_assert_int_eq(err, -E2BIG);
			plain++;
			continue;
		}
		err = image_decode(&g, shards, at, out);
		quiet_assert_int_eq(err, 0);
		quiet_assert(g.codec.id != KVMD_CODEC_WINDOW || !memcmp(in, out, n));
		memcpy(want, out, n);
		for (unsigned k = 0; k < 8; k++) {
			memcpy(src, at, bytes);
			damage(at, bytes, kvmd_codec_parts(&g) * stored);
			err = image_decode(&g, shards, at, out);
			quiet_assert(err == -EBADMSG || (!err && !memcmp(out, want, n)));
			right += !err;
			refused += !!err;
			memcpy(at, src, bytes);
		}
	}
	printf("right %" PRIu64 ", refused %" PRIu64 ", not coded %" PRIu64 "\n", right, refused,
	       plain);
	munmap(src, SPAN + 4096);
	munmap(enc, SPAN + 4096);
	munmap(dst, SPAN + 4096);
	munmap(want, SPAN + 4096);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fuzz_image");
	TCase *tc = tcase_create("image");

	tcase_set_timeout(tc, 0);	/* as long as KVMD_FUZZ_RUNS asks for */
	tcase_add_test(tc, damaged_images_are_refused_or_right);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
