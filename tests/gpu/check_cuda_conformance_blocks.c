// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_conformance_blocks.c - kernels over blocks on a GPU: codecs, layouts and
 * scrubbing make the very bytes that kvmd and the CPU make, and attention over many
 * pieces is a function of the row alone.
 *
 * On the fake driver and on a real one alike, but for the last digits of attention
 * beside the CPU's. Tests of these kernels on the CPU are in tests/kernels.
 */
#include <math.h>

#include "kvmd/tier/codec.h"
#include "tests/gpu/kernels_rig.h"

#define E	5.9604644775390625e-8	/* 2^-24: of one rounding */

static struct kn_dev *gpu, *cpu;
static bool is_fake;
static uint64_t seed;

static uint64_t rnd(void)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15ull;	/* SplitMix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static float uniform(void)
{
	return (float)(rnd() >> 40) * 0x1p-23f - 1;
}

static void *room(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	CR(p);
	return p;
}

static void *on(struct kn_dev *d, const void *host, size_t n)
{
	void *p = kn_alloc(d, n);

	CR(p);
	if (host)
		CR(!kn_put(d, p, host, n));
	else
		CR(!kn_zero(d, p, n));
	return p;
}

static bool opened(void)
{
	seed = 7;
	return kr_open(&gpu, &is_fake) && !kn_cpu_open(&cpu);
}

static void closed(void)
{
	kn_close(gpu);
	kn_close(cpu);
}

/* ------------------------------------------------------------------- codecs */

enum what { NORMAL, ZEROS, WIDE, ANY_BITS, SMALL, NR_WHAT };

static void make_up(uint16_t *v, size_t n, enum what what)
{
	for (size_t i = 0; i < n; i++) {
		float f = uniform() * uniform();

		switch (what) {
		case ZEROS:
			v[i] = i % 5 ? 0 : 0x8000;
			break;
		case ANY_BITS:
			v[i] = (uint16_t)rnd();
			break;
		case WIDE:
			v[i] = kn_to_bf16(ldexpf(f, (int)(rnd() % 24) - 12));
			break;
		case SMALL:
			v[i] = (uint16_t)(rnd() & 0x80ff);
			break;
		default:
			v[i] = kn_to_bf16(f);
		}
	}
}

static const struct codec_shape shapes[] = {
	{ 16, 1024, 64, CODEC_PER_TOKEN }, { 16, 256, 128, CODEC_PER_TOKEN },
	{ 7, 37, 32, CODEC_PER_TOKEN }, { 1, 1, 64, CODEC_PER_TOKEN },
	{ 16, 1024, 64, CODEC_PER_CHANNEL }, { 131, 65, 33, CODEC_PER_CHANNEL },
	{ 64, 64, 32, CODEC_PER_CHANNEL },
};
#define NR_SHAPES	((int)(sizeof(shapes) / sizeof(shapes[0])))

/* One launch over a part of each kind, beside kvmd's codec. */
struct batch {
	const struct codec_ops *ops;
	struct codec_shape s;
	size_t values, slot;		/* bytes of values, and for what is coded */
	uint8_t *plain, *want, *got;	/* [NR_WHAT] */
	size_t bytes[NR_WHAT];		/* of want */
	int status[NR_WHAT];
};

static void launch(const struct batch *b, enum kn_kernel k, const struct kn_part *part,
		   int32_t *status, uint32_t *bytes)
{
	struct kn_codec_args a = { .tokens = b->s.tokens, .channels = b->s.channels,
				   .group = b->s.group, .axis = b->s.axis };
	void *list = on(gpu, part, NR_WHAT * sizeof(*part));

	a.part = list;
	a.status = on(gpu, NULL, NR_WHAT * sizeof(*status));
	a.coded_bytes = on(gpu, NULL, NR_WHAT * sizeof(*bytes));
	CR(!kn_launch(gpu, k, NR_WHAT, 1, 1, 0, &a));
	CR(!kn_get(gpu, status, a.status, NR_WHAT * sizeof(*status)));
	CR(!kn_get(gpu, bytes, a.coded_bytes, NR_WHAT * sizeof(*bytes)));
	kn_free(gpu, list);
	kn_free(gpu, a.status);
	kn_free(gpu, a.coded_bytes);
}

static void encode(struct batch *b)
{
	char *plain = on(gpu, b->plain, NR_WHAT * b->values);
	char *coded = on(gpu, NULL, NR_WHAT * b->slot);
	struct kn_part part[NR_WHAT];
	uint32_t bytes[NR_WHAT];
	int32_t status[NR_WHAT];

	for (int i = 0; i < NR_WHAT; i++)
		part[i] = (struct kn_part){ plain + i * b->values, coded + i * b->slot,
					    (uint32_t)b->slot, 0 };
	launch(b, KN_ENCODE(b->ops->id), part, status, bytes);
	CR(!kn_get(gpu, b->got, coded, NR_WHAT * b->slot));
	for (int i = 0; i < NR_WHAT; i++) {
		ck_assert_msg(status[i] == b->status[i], "%s: kind %d: %d, not %d", b->ops->name, i,
			      status[i], b->status[i]);
		ck_assert_msg(status[i] || bytes[i] == b->bytes[i],
			      "%s: kind %d: %u bytes, not %zu", b->ops->name, i, bytes[i],
			      b->bytes[i]);
		ck_assert_msg(status[i] ||
			      !memcmp(b->got + i * b->slot, b->want + i * b->slot, bytes[i]),
			      "%s: kind %d: other bytes", b->ops->name, i);
	}
	kn_free(gpu, plain);
	kn_free(gpu, coded);
}

/* Of what kvmd coded; with @damage a bit of the head is another one. */
static void decode(struct batch *b, bool damage)
{
	uint8_t *coded_host = room(NR_WHAT * b->slot);
	uint16_t *want = room(b->values);
	char *coded, *back = on(gpu, NULL, NR_WHAT * b->values);
	struct kn_part part[NR_WHAT];
	uint32_t bytes[NR_WHAT];
	int32_t status[NR_WHAT];

	memcpy(coded_host, b->want, NR_WHAT * b->slot);
	for (int i = 0; i < NR_WHAT && damage; i++)
		coded_host[i * b->slot + 5 + (size_t)i] ^= 4;
	coded = on(gpu, coded_host, NR_WHAT * b->slot);
	for (int i = 0; i < NR_WHAT; i++)
		part[i] = (struct kn_part){ coded + i * b->slot, back + i * b->values,
					    (uint32_t)b->bytes[i], 0 };
	launch(b, KN_DECODE(b->ops->id), part, status, bytes);
	CR(!kn_get(gpu, b->got, back, NR_WHAT * b->values));
	for (int i = 0; i < NR_WHAT; i++) {
		const bool good = !b->status[i] && !damage;

		ck_assert_msg(status[i] == (good ? 0 : -EBADMSG), "%s: kind %d: %d", b->ops->name,
			      i, status[i]);
		if (!good)
			continue;
		CR(!b->ops->decode(&b->s, b->want + i * b->slot, b->bytes[i], want));
		ck_assert_msg(!memcmp(want, b->got + i * b->values, b->values),
			      "%s: kind %d: other values", b->ops->name, i);
	}
	kn_free(gpu, coded);
	kn_free(gpu, back);
	free(coded_host);
	free(want);
}

static void one_shape(const struct codec_ops *ops, struct codec_shape s)
{
	struct batch b = { .ops = ops, .s = s, .values = 2ul * s.tokens * s.channels };

	b.slot = ops->encoded_max(&s);
	CR(b.slot);
	b.slot = (b.slot + 15) & ~15ul;
	b.plain = room(NR_WHAT * b.values);
	b.want = room(NR_WHAT * b.slot);
	b.got = room(NR_WHAT * (b.slot > b.values ? b.slot : b.values));
	for (int i = 0; i < NR_WHAT; i++) {
		uint16_t *v = (uint16_t *)(void *)(b.plain + i * b.values);

		make_up(v, b.values / 2, (enum what)i);
		b.status[i] = ops->encode(&s, v, b.want + i * b.slot, b.slot, &b.bytes[i]);
	}
	encode(&b);
	decode(&b, false);
	decode(&b, true);
	free(b.plain);
	free(b.want);
	free(b.got);
}

START_TEST(codecs_write_what_kvmd_writes)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);

	if (!opened())
		return;
	for (int i = 0; i < NR_SHAPES; i++) {
		struct codec_shape s = shapes[i];

		if (!ops->grouped)
			s.group = 0;
		if (s.axis >= ops->nr_axis)
			s.axis = CODEC_PER_TOKEN;
		one_shape(ops, s);
	}
	closed();
}
END_TEST

/* ------------------------------------------------------------------ layouts */

#define SLOTS		6u
#define LAYERS		3u
#define TOKENS		16u
#define HEADS		4u
#define ROW		96u
#define BLOCK		(LAYERS * 2 * TOKENS * HEADS * ROW)

/* Block-major from slots of one pool to head-major layer planes of another, on @d. */
static void copy_layout(struct kn_dev *d, enum kn_kernel k, const uint8_t *host, uint8_t *out)
{
	static const int32_t from[3] = { 4, 1, 5 }, to[3] = { 2, 0, 3 };
	char *src = on(d, host, SLOTS * BLOCK), *dst = on(d, NULL, SLOTS * BLOCK);
	void *dst_planes[LAYERS], *src_planes[1] = { src }, *lists[4];
	struct kn_gather_args a = {
		.from = { .slot_bytes = BLOCK, .layer_bytes = BLOCK / LAYERS,
			  .part_bytes = BLOCK / LAYERS / 2, .token_bytes = HEADS * ROW,
			  .head_bytes = ROW },
		.to = { .slot_bytes = BLOCK / LAYERS, .part_bytes = BLOCK / LAYERS / 2,
			.token_bytes = ROW, .head_bytes = TOKENS * ROW, .layer_planes = 1 },
		.nr = 3, .layers = LAYERS, .parts = 2, .tokens = TOKENS, .heads = HEADS,
		.row_bytes = ROW,
	};

	for (unsigned i = 0; i < LAYERS; i++)
		dst_planes[i] = dst + i * SLOTS * BLOCK / LAYERS;
	a.from.plane = lists[0] = on(d, src_planes, sizeof(src_planes));
	a.to.plane = lists[1] = on(d, dst_planes, sizeof(dst_planes));
	a.from_slot = lists[2] = on(d, from, sizeof(from));
	a.to_slot = lists[3] = on(d, to, sizeof(to));
	CR(!kn_launch(d, k, 3, LAYERS * 2, 1, 0, &a));
	CR(!kn_get(d, out, dst, SLOTS * BLOCK));
	for (unsigned i = 0; i < 4; i++)
		kn_free(d, lists[i]);
	kn_free(d, src);
	kn_free(d, dst);
}

START_TEST(layouts_are_the_cpus)
{
	uint8_t *host = room(SLOTS * BLOCK), *want = room(SLOTS * BLOCK);
	uint8_t *got = room(SLOTS * BLOCK);

	if (!opened())
		return;
	for (size_t i = 0; i < SLOTS * BLOCK; i++)
		host[i] = (uint8_t)(rnd() | 1);
	copy_layout(cpu, KN_GATHER, host, want);
	for (int k = 0; k < 2; k++) {
		memset(got, 0, SLOTS * BLOCK);
		copy_layout(gpu, k ? KN_SCATTER : KN_GATHER, host, got);
		CR(!memcmp(want, got, SLOTS * BLOCK));
	}
	free(host);
	free(want);
	free(got);
	closed();
}
END_TEST

START_TEST(scrubbed_is_scrubbed)
{
	enum { BYTES = 70000, NR = 3 };
	static const int32_t list[NR] = { 0, 4, 2 };
	uint32_t differ[NR] = { 0 };
	struct kn_scrub_args a = { .slot_bytes = BYTES + 60, .bytes = BYTES, .nr = NR,
				   .pattern = 0x01fe8055 };
	struct kn_scrub_check_args c = { .slot_bytes = BYTES + 60, .bytes = BYTES, .nr = NR,
					 .pattern = 0x01fe8055 };
	const size_t all = 5ul * (BYTES + 60);
	uint8_t *host = room(all), *back = room(all);
	void *count;

	if (!opened())
		return;
	memset(host, 0x33, all);
	c.plane = a.plane = on(gpu, host, all);
	c.slot = a.slot = on(gpu, list, sizeof(list));
	c.differ = count = on(gpu, NULL, sizeof(differ));
	CR(!kn_launch(gpu, KN_SCRUB, NR, 5, 1, 0, &a));
	CR(!kn_launch(gpu, KN_SCRUB_CHECK, NR, 5, 1, 0, &c));
	CR(!kn_get(gpu, differ, count, sizeof(differ)));
	CR(!differ[0] && !differ[1] && !differ[2]);
	CR(!kn_get(gpu, back, a.plane, all));
	for (int i = 0; i < NR; i++)
		for (size_t k = 0; k < BYTES; k++)
			host[(size_t)list[i] * (BYTES + 60) + k] =
				(uint8_t)(a.pattern >> 8 * (k % 4));
	CR(!memcmp(host, back, all));
	/* Two bytes of the second are not so. */
	CR(!kn_zero(gpu, (char *)a.plane + 4ul * (BYTES + 60) + 12345, 2));
	CR(!kn_launch(gpu, KN_SCRUB_CHECK, NR, 2, 1, 0, &c));
	CR(!kn_get(gpu, differ, count, sizeof(differ)));
	CR(!differ[0] && differ[1] == 2 && !differ[2]);
	kn_free(gpu, a.plane);
	kn_free(gpu, (void *)(uintptr_t)a.slot);
	kn_free(gpu, count);
	free(host);
	free(back);
	closed();
}
END_TEST

/* ---------------------------------------------------------------- attention */

#define LEN		1000u		/* tokens: four pieces */
#define Q_HEADS		16u
#define KV_HEADS	4u
#define DIM		128u
#define ROWS		40u
#define NR_BLOCKS	((LEN + TOKENS - 1) / TOKENS)
#define VALUES		((size_t)ROWS * Q_HEADS * DIM)

struct input {
	uint16_t *kv;			/* of slots 0 .. NR_BLOCKS: K, V */
	int32_t slot[NR_BLOCKS];
	struct kn_row row[ROWS];
	float *q;
};

static const size_t half = (size_t)TOKENS * KV_HEADS * DIM;	/* values of K in a block */

static void input_init(struct input *in)
{
	in->kv = room((NR_BLOCKS + 1) * 2 * half * 2);
	in->q = room(VALUES * sizeof(float));
	for (size_t i = 2 * half; i < (NR_BLOCKS + 1) * 2 * half; i++)
		in->kv[i] = kn_to_bf16(uniform());
	for (size_t i = 0; i < VALUES; i++)
		in->q[i] = uniform();
	for (uint32_t i = 0; i < NR_BLOCKS; i++)
		in->slot[i] = (int32_t)(i * 5 % NR_BLOCKS) + 1;
	in->slot[7] = 0;		/* thrown out */
	for (uint32_t i = 0; i < ROWS; i++)
		in->row[i] = (struct kn_row){ 0, LEN - ROWS + i, LEN - ROWS + i + 1, 0 };
}

/* Rows first .. of @nr: decode's pieces, or with @k KN_PREFILL. */
static void attention(struct kn_dev *d, const struct input *in, enum kn_kernel k, uint32_t first,
		      uint32_t nr, uint32_t pieces, uint32_t window, float *out)
{
	struct kn_attend_args a = {
		.kv = { .slot_bytes = 4 * half, .token_stride = KV_HEADS * DIM, .head_stride = DIM,
			.block_tokens = TOKENS, .dtype = KN_BF16, .k_scale = 1, .v_scale = 1 },
		.q_stride = Q_HEADS * DIM, .rows = nr, .q_heads = Q_HEADS, .kv_heads = KV_HEADS,
		.head_dim = DIM, .pieces = pieces, .scale = 0.088388f, .window = window,
		.sinks = window ? 4 : 0,
	};
	void *kv = on(d, in->kv, (NR_BLOCKS + 1) * 4 * half);
	void *slot = on(d, in->slot, sizeof(in->slot));
	void *row = on(d, in->row + first, nr * sizeof(*in->row));
	void *q = on(d, in->q + (size_t)first * Q_HEADS * DIM, (size_t)nr * Q_HEADS * DIM * 4);

	a.kv.k = kv;
	a.kv.v = (char *)kv + 2 * half;
	a.table = (struct kn_table){ slot, NR_BLOCKS };
	a.row = row;
	a.q = q;
	a.out = on(d, NULL, (size_t)nr * Q_HEADS * DIM * 4);
	a.part = on(d, NULL, kn_attend_part_bytes(nr, Q_HEADS, DIM, pieces));
	if (k == KN_PREFILL) {
		CR(!kn_launch(d, k, (nr + KN_PREFILL_ROWS - 1) / KN_PREFILL_ROWS, KV_HEADS, 1, 0,
			      &a));
	} else {
		CR(!kn_launch(d, KN_ATTEND, nr, KV_HEADS, pieces, 0, &a));
		CR(!kn_launch(d, KN_ATTEND_MERGE, nr, Q_HEADS, 1, 0, &a));
	}
	CR(!kn_get(d, out, a.out, (size_t)nr * Q_HEADS * DIM * 4));
	kn_free(d, kv);
	kn_free(d, slot);
	kn_free(d, row);
	kn_free(d, q);
	kn_free(d, a.out);
	kn_free(d, a.part);
}

/*
 * Beside the CPU's: twice the bound of scores (126 + 2 operations on sums of at most
 * 128 products below 1, times scale; the exponent is off by as much, relatively) and of
 * the sum over at most LEN values.
 */
#define OFF	(2 * (2 * 130 * 128 * 0.0884 + LEN + 100) * E)

static void rows_alone(uint32_t window)
{
	float *want = room(VALUES * 4), *all = room(VALUES * 4), *one = room(VALUES * 4);
	struct input in;
	double off = 0;

	input_init(&in);
	attention(cpu, &in, KN_ATTEND, 0, ROWS, 4, window, want);
	attention(gpu, &in, KN_ATTEND, 0, ROWS, 4, window, all);
	for (size_t i = 0; i < VALUES; i++)
		off = fmax(off, fabs((double)want[i] - all[i]));
	ck_assert_msg(off <= (is_fake ? 0 : OFF), "off by %.3g, of %.3g", off, OFF);
	attention(gpu, &in, KN_ATTEND, 0, ROWS, 9, window, one);
	ck_assert_msg(!memcmp(all, one, VALUES * 4), "another number of pieces");
	attention(gpu, &in, KN_PREFILL, 0, ROWS, 4, window, one);
	ck_assert_msg(!memcmp(all, one, VALUES * 4), "prefill");
	for (uint32_t r = 0; r < ROWS; r += 13) {
		attention(gpu, &in, KN_ATTEND, r, 1, 4, window, one);
		ck_assert_msg(!memcmp(all + (size_t)r * Q_HEADS * DIM, one, Q_HEADS * DIM * 4),
			      "row %u alone", r);
	}
	attention(gpu, &in, KN_PREFILL, 3, ROWS - 3, 4, window, one);
	ck_assert_msg(!memcmp(all + 3ul * Q_HEADS * DIM, one, (ROWS - 3ul) * Q_HEADS * DIM * 4),
		      "prefill from another row on");
	free(want);
	free(all);
	free(one);
	free(in.kv);
	free(in.q);
}

START_TEST(a_row_is_the_same_in_any_launch)
{
	if (!opened())
		return;
	rows_alone(0);
	rows_alone(300);
	closed();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda: kernels over blocks");
	TCase *t = tcase_create("blocks");

	tcase_add_loop_test(t, codecs_write_what_kvmd_writes, CODEC_WINDOW, NR_CODEC);
	tcase_add_test(t, layouts_are_the_cpus);
	tcase_add_test(t, scrubbed_is_scrubbed);
	tcase_add_test(t, a_row_is_the_same_in_any_launch);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	return cr_main(s);
}
