// SPDX-License-Identifier: Apache-2.0
/*
 * codec.c - part "codec": codecs beside memcpy() of the same blocks.
 *
 * One thread. Blocks of 512 KiB, more of them than caches hold, are copied, encoded
 * and decoded in turn, one codec after the other; what is counted are the bytes of the
 * values, for a copy and both ways of a codec alike.
 *
 * The values are like those of an attention layer, as far as exponents go: within a
 * channel they are Student's t with 5 degrees of freedom, whose tail is heavy;
 * channels differ in scale by a log-normal of one and a half octaves, and one in 32
 * is larger by 16 (a few channels of keys are).
 */
#include <math.h>
#include <sys/mman.h>

#include "kvmd/tier/codec.h"
#include "tools/kvbench/kvbench.h"

#define BLOCK		(512ull << 10)
#define CHANNELS	1024u
#define TOKENS		((uint32_t)(BLOCK / 2 / CHANNELS))
#define FRESH		4u	/* blocks that are made up; the others repeat them */
#define DEGREES		5u

#define GROUP		64u

enum what { COPY, ENCODE, DECODE };

static struct one_codec {
	enum codec_id id;
	uint32_t group, axis;
	enum row_id first;		/* of three: encode, decode, ratio */
	double ratio;			/* bytes of values over bytes stored */
} codecs[] = {
	{ CODEC_WINDOW, 0, 0, ROW_WINDOW_ENCODE, 0 },
	{ CODEC_FP8_E4M3, 0, 0, ROW_E4M3_ENCODE, 0 },
	{ CODEC_FP8_E5M2, 0, 0, ROW_E5M2_ENCODE, 0 },
	{ CODEC_INT8, GROUP, CODEC_PER_TOKEN, ROW_INT8_ENCODE, 0 },
	{ CODEC_INT4, GROUP, CODEC_PER_TOKEN, ROW_INT4_ENCODE, 0 },
	{ CODEC_KIVI2, GROUP, CODEC_PER_TOKEN, ROW_KIVI2_ENCODE, 0 },
	{ CODEC_KIVI2, GROUP, CODEC_PER_CHANNEL, ROW_KIVI2_KEYS_ENCODE, 0 },
};

static struct codec_shape shape = { .tokens = TOKENS, .channels = CHANNELS };
static const struct codec_ops *codec;	/* the one in turn, with @shape */
static unsigned nr_blocks;
static size_t slot;			/* bytes for an encoded one */
static uint8_t *from, *coded, *to;	/* [nr_blocks] of BLOCK, @slot, BLOCK */
static size_t *bytes;			/* [nr_blocks] of the encoded ones */
static uint64_t rng = 0x9e3779b97f4a7c15;

static double uniform(void)
{
	rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return ((double)(rng >> 11) + 0.5) * 0x1p-53;
}

/* Box and Muller. */
static double normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());
}

static double student(void)
{
	double chi2 = 0, x;

	for (unsigned i = 0; i < DEGREES; i++) {
		x = normal();
		chi2 += x * x;
	}
	return normal() / sqrt(chi2 / DEGREES);
}

static void make_up(uint16_t *v)
{
	double scale[CHANNELS];
	uint32_t u;
	float f;

	for (unsigned c = 0; c < CHANNELS; c++)
		scale[c] = exp2(1.5 * normal()) * (c % 32 ? 1 : 16);
	for (size_t i = 0; i < BLOCK / 2; i++) {
		f = (float)(student() * scale[i % CHANNELS]);
		memcpy(&u, &f, sizeof(u));
		v[i] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
	}
}

/* Shared: private pages would be copied at the first write after each fork. */
static uint8_t *get_memory(size_t n)
{
	uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		kvb_die("no memory for part codec: %s", strerror(errno));
	return p;
}

static void one(enum what what, unsigned i)
{
	const uint16_t *v = (const uint16_t *)(from + i * BLOCK);
	uint16_t *back = (uint16_t *)(to + i * BLOCK);
	int err = 0;

	if (what == COPY)
		memcpy(back, v, BLOCK);
	else if (what == ENCODE)
		err = codec->encode(&shape, v, coded + i * slot, slot, &bytes[i]);
	else
		err = codec->decode(&shape, coded + i * slot, bytes[i], back);
	if (err)
		kvb_die("%s: %s", codec->name, strerror(-err));
}

/* It is that one's turn: what is coded is by it. */
static void take(const struct one_codec *c)
{
	codec = codec_get(c->id);
	shape.group = c->group;
	shape.axis = c->axis;
	for (unsigned i = 0; i < nr_blocks; i++)
		one(ENCODE, i);
}

/* GB/s: the median block's. */
static double slice(void *ctx)
{
	static struct samples s;
	static unsigned next;
	const enum what *what = ctx;
	uint64_t end = time_ns() + max(bench.slice_ns, (uint64_t)1000000), t;

	do {
		t = ticks();
		one(*what, next++ % nr_blocks);
		sample_add(&s, ticks_to_ns(ticks() - t));
	} while (time_ns() < end);
	return (double)BLOCK / sample_median(&s);
}

/* What window gives back is what there was; what the others do is tested elsewhere. */
static void look_at(struct one_codec *c)
{
	size_t all = 0;

	take(c);
	for (unsigned i = 0; i < nr_blocks; i++) {
		all += bytes[i];
		one(DECODE, i);
		if (codec->lossless && memcmp(from + i * BLOCK, to + i * BLOCK, BLOCK))
			kvb_die("%s: other values came back", codec->name);
	}
	c->ratio = (double)(nr_blocks * BLOCK) / (double)all;
}

void kvb_codec_setup(void)
{
	nr_blocks = bench.quick ? 2 * FRESH : 128;
	/* On lines of their own, as blocks of a tier are; window's may take the most. */
	slot = align_up(codec_get(CODEC_WINDOW)->encoded_max(&shape), 4096);
	from = get_memory(nr_blocks * BLOCK);
	to = get_memory(nr_blocks * BLOCK);
	coded = get_memory(nr_blocks * slot);
	bytes = (size_t *)get_memory(nr_blocks * sizeof(*bytes));
	for (unsigned i = 0; i < nr_blocks; i++)
		if (i < FRESH)
			make_up((uint16_t *)(from + i * BLOCK));
		else
			memcpy(from + i * BLOCK, from + i % FRESH * BLOCK, BLOCK);
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++)
		look_at(&codecs[i]);
}

void kvb_codec_round(void)
{
	static enum what what[] = { COPY, ENCODE, DECODE };
	struct turn t[] = { { slice, &what[COPY], 0 }, { slice, &what[ENCODE], 0 },
			    { slice, &what[DECODE], 0 } };

	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		take(&codecs[i]);
		take_turns(t, ARRAY_SIZE(t));
		row_add(codecs[i].first, t[0].ret, t[1].ret);
		row_add(codecs[i].first + 1, t[0].ret, t[2].ret);
		row_add(codecs[i].first + 2, 0, codecs[i].ratio);
	}
}

void kvb_codec_end(void)
{
	munmap(from, nr_blocks * BLOCK);
	munmap(to, nr_blocks * BLOCK);
	munmap(coded, nr_blocks * slot);
	munmap(bytes, nr_blocks * sizeof(*bytes));
}
