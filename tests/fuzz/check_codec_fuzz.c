// SPDX-License-Identifier: Apache-2.0
/*
 * check_codec_fuzz.c - damaged encoded blocks: values or -EBADMSG, never worse.
 *
 * Blocks are encoded, damaged at random, often with a header that is right all the
 * same, and decoded where memory ends on both sides. What decodes without damage is
 * compared. The seed is printed; KVMD_FUZZ_SEED repeats it, KVMD_FUZZ_RUNS sets how
 * many.
 */
#include "kvmd/lib/clock.h"
#include "kvmd/lib/conf.h"
#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_window_impl.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "tests/quiet.h"
#include "tests/suite.h"

#define SPAN		16384u
#define MAX_VALUES	1200u

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

static struct codec_shape rnd_shape(const struct codec_ops *ops)
{
	struct codec_shape s = { 0 };

	s.channels = (uint32_t)(1 + rnd(rnd(2) ? 40 : MAX_VALUES));
	s.tokens = (uint32_t)(1 + rnd(MAX_VALUES / s.channels));
	if (ops->grouped)
		s.group = (uint32_t)(CODEC_MIN_GROUP + rnd(CODEC_MAX_GROUP - CODEC_MIN_GROUP + 1));
	s.axis = (uint32_t)rnd(ops->nr_axis);
	return s;
}

static void rnd_values(uint16_t *v, size_t nr)
{
	uint32_t base = (uint32_t)rnd(0x8000), width = 1 + (uint32_t)rnd(rnd(4) ? 0x700 : 0x8000);

	for (size_t i = 0; i < nr; i++)
		v[i] = (uint16_t)(((base + rnd(width)) & 0x7fff) | rnd(2) << 15);
}

static void seal(uint8_t *enc)
{
	uint32_t crc = crc32c(enc, offsetof(struct codec_head, crc));

	memcpy(enc + offsetof(struct codec_head, crc), &crc, sizeof(crc));
}

/* Change @n bytes at @p, of which there is room for @most; how many there are then. */
static size_t damage(uint8_t *p, size_t n, size_t most)
{
	unsigned nr = 1 + (unsigned)rnd(6);
	uint32_t bytes;

	for (unsigned i = 0; i < nr; i++)
		switch (rnd(6)) {
		case 0: p[rnd(n)] ^= (uint8_t)(1 << rnd(8)); break;
		case 1: p[rnd(n)] = (uint8_t)rnd(256); break;
		case 2: p[rnd(CODEC_HEAD_BYTES)] = (uint8_t)rnd(256); break;
		case 3: n = CODEC_HEAD_BYTES + rnd(most - CODEC_HEAD_BYTES); break;
		case 4:
			/* One escape more or fewer, where it ends up as the size says. */
			p[offsetof(struct codec_head, escapes)] += (uint8_t)(rnd(5) - 2);
			n = max((size_t)CODEC_HEAD_BYTES, min(n + rnd(5) - 2, most));
			break;
		default:
			memset(p + rnd(n), rnd(2) ? 0xff : 0, 1);
			break;
		}
	if (rnd(2)) {
		bytes = (uint32_t)n;
		memcpy(p + offsetof(struct codec_head, bytes), &bytes, sizeof(bytes));
	}
	if (rnd(8))
		seal(p);
	return n;
}

/* All means say the same of a coded block that has the right size. */
static void same_by_all(const uint8_t *enc, size_t n, size_t nr, uint16_t *out, uint8_t *spare)
{
	const struct window_impl *im;
	struct codec_head h;
	struct window_parts p;
	uint16_t *mine = (uint16_t *)(spare + SPAN - 2 * nr);
	bool good;

	memcpy(&h, enc, sizeof(h));
	if (h.form != CODEC_CODED || h.base > WINDOW_MAX_BASE ||
	    n != CODEC_HEAD_BYTES + nr + (nr + 1) / 2 + h.escapes)
		return;
	p.rest = (uint8_t *)(uintptr_t)enc + CODEC_HEAD_BYTES;
	p.codes = p.rest + nr;
	p.escapes = p.codes + (nr + 1) / 2;
	p.nr_escapes = h.escapes;
	good = window_impl_plain.decode(&p, nr, h.base, out);
	for (unsigned i = 0; (im = window_impl_get(i)); i++) {
		quiet_assert(im->decode(&p, nr, h.base, mine) == good);
		quiet_assert(!good || !memcmp(mine, out, 2 * nr));
	}
}

START_TEST(damaged_blocks_are_refused_or_decoded)
{
	uint64_t seed = from_env("KVMD_FUZZ_SEED", clock_ns() | 1);
	uint64_t runs = from_env("KVMD_FUZZ_RUNS", 200000), decoded = 0, refused = 0;
	uint8_t *src = make_area(), *enc = make_area(), *dst = make_area(), *spare = make_area();
	const struct codec_ops *ops;
	struct codec_shape s;
	size_t nr, n, most;
	uint16_t *in, *out;
	uint8_t *at;
	int err;

	rng = seed;
	printf("seed %" PRIu64 "\n", seed);
	for (uint64_t i = 0; i < runs; i++) {
		ops = codec_get((uint32_t)(1 + rnd(NR_CODEC - 1)));
		s = rnd_shape(ops);
		nr = (size_t)s.tokens * s.channels;
		in = (uint16_t *)(src + SPAN - 2 * nr);
		out = (uint16_t *)(dst + SPAN - 2 * nr);
		rnd_values(in, nr);
		most = ops->encoded_max(&s);
		err = ops->encode(&s, in, enc + SPAN - most, most, &n);
		if (err) {
			quiet_assert(ops->grouped && (err == -EDOM || err == -ERANGE));
			continue;
		}
		quiet_assert(n <= most);
		memcpy(spare, enc + SPAN - most, n);
		err = ops->decode(&s, spare, n, out);
		quiet_assert_int_eq(err, 0);
		quiet_assert(!ops->lossless || !memcmp(in, out, 2 * nr));
		most += 64;
		n = damage(spare, n, most);
		at = memcpy(enc + SPAN - n, spare, n);
		err = ops->decode(&s, at, n, out);
		quiet_assert(err == 0 || err == -EBADMSG);
		decoded += !err;
		refused += !!err;
		if (ops == &codec_window)
			same_by_all(at, n, nr, out, spare);
	}
	printf("decoded %" PRIu64 ", refused %" PRIu64 "\n", decoded, refused);
	munmap(src, SPAN + 4096);
	munmap(enc, SPAN + 4096);
	munmap(dst, SPAN + 4096);
	munmap(spare, SPAN + 4096);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fuzz_codec");
	TCase *tc = tcase_create("codec");

	tcase_set_timeout(tc, 0);	/* as long as KVMD_FUZZ_RUNS asks for */
	tcase_add_test(tc, damaged_blocks_are_refused_or_decoded);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
