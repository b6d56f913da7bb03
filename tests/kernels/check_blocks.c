// SPDX-License-Identifier: Apache-2.0
/*
 * check_blocks.c - kernels that move and clear: every byte goes where the layouts say,
 * and no other byte changes.
 *
 * The references go value by value, or byte by byte, over a copy of the memory; then
 * all of the memory is compared.
 */
#include "kernels/kernels.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ref.h"
#include "tests/suite.h"

#define ROUNDS	60u

static uint64_t seed = 5;

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)ref_rand(&seed);
}

/* Numbers from @first, each once, in some order. */
static void shuffled(int32_t *p, uint32_t nr, int32_t first)
{
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t k = ref_below(&seed, i + 1);

		p[i] = p[k];
		p[k] = first + (int32_t)i;
	}
}

static unsigned some_threads(void)
{
	static const unsigned nr[] = { 0, 1, 7, 32, 96, 128, 256 };

	return nr[ref_below(&seed, sizeof(nr) / sizeof(nr[0]))];
}

/* ------------------------------------------------------------------- tokens */

#define SLOTS	8u

static void ref_move(const struct kn_kv *kv, uint8_t *p, const struct kn_token_move *m,
		     uint32_t head, uint32_t value)
{
	uint64_t size = kn_dtype_bytes(kv->dtype), in = (uint64_t)head * kv->head_stride + value;
	uint64_t from = m->from_slot * kv->slot_bytes +
			size * ((uint64_t)m->from * kv->token_stride + in);
	uint64_t to = m->to_slot * kv->slot_bytes +
		      size * ((uint64_t)m->to * kv->token_stride + in);

	if (m->to_slot)
		memcpy(p + to, p + from, size);
}

static void one_tokens(uint32_t dtype, bool head_major, bool has_v)
{
	uint32_t heads = 1 + ref_below(&seed, 4), dim = 1 + ref_below(&seed, 70);
	uint32_t tokens = 1 + ref_below(&seed, 16), pad = ref_below(&seed, 2) * 3;
	struct kn_kv kv = { .dtype = dtype, .block_tokens = tokens, .k_scale = 1, .v_scale = 1 };
	struct kn_token_move move[12];
	size_t bytes, v_at;
	uint8_t *mem, *want;

	if (ref_below(&seed, 2))
		dim = 8 * (1 + dim / 8);
	kv.head_stride = head_major ? tokens * (dim + pad) : dim + pad;
	kv.token_stride = head_major ? dim + pad : heads * (dim + pad);
	/* K, then V, in one slot. */
	v_at = (size_t)kn_dtype_bytes(dtype) * heads * tokens * (dim + pad);
	kv.slot_bytes = 2 * v_at;
	bytes = SLOTS * kv.slot_bytes;
	mem = ref_alloc(bytes);
	want = ref_alloc(bytes);
	fill(mem, bytes);
	memcpy(want, mem, bytes);
	kv.k = mem;
	kv.v = has_v ? mem + v_at : NULL;
	for (uint32_t i = 0; i < 12; i++)
		/* From the lower half of the slots to the upper one, or to nowhere. */
		move[i] = (struct kn_token_move){
			1 + ref_below(&seed, SLOTS / 2 - 1), ref_below(&seed, tokens),
			i % 6 == 5 ? 0 : SLOTS / 2 + i % (SLOTS / 2), i * tokens / 12 };
	for (uint32_t i = 0; i < 12; i++)
		for (uint32_t h = 0; h < heads; h++)
			for (uint32_t d = 0; d < dim; d++) {
				ref_move(&kv, want, &move[i], h, d);
				if (has_v)
					ref_move(&kv, want + v_at, &move[i], h, d);
			}
	/* Where two go to the same place either may win: one launch each. */
	for (uint32_t i = 0; i < 12; i++) {
		struct kn_tokens_args args = { kv, &move[i], 1, heads, dim, 0 };

		ref_launch(KN_TOKENS, 1, 1, 1, some_threads(), &args);
	}
	ck_assert_msg(!memcmp(mem, want, bytes), "dtype %u, %u heads of %u, %u tokens", dtype,
		      heads, dim, tokens);
	free(mem);
	free(want);
}

START_TEST(tokens_move_within_blocks)
{
	for (unsigned i = 0; i < ROUNDS; i++)
		one_tokens(i % KN_F32, i / 4 % 2, i % 3 != 2);
}
END_TEST

START_TEST(tokens_of_a_launch_all_move)
{
	enum { NR = 40, DIM = 64, HEADS = 2, TOKENS = 16 };
	struct kn_token_move move[NR];
	size_t bytes = 2ul * SLOTS * TOKENS * HEADS * DIM;
	uint16_t *mem = ref_alloc(2 * bytes), *want = ref_alloc(2 * bytes);
	struct kn_kv kv = { mem, mem + bytes / 2, bytes / SLOTS, HEADS * DIM, DIM, TOKENS,
			    KN_BF16, 1, 1 };
	struct kn_tokens_args args = { kv, move, NR, HEADS, DIM, 0 };

	fill((uint8_t *)mem, 2 * bytes);
	memcpy(want, mem, 2 * bytes);
	for (uint32_t i = 0; i < NR; i++) {
		move[i] = (struct kn_token_move){ 1 + i % 3, ref_below(&seed, TOKENS), 4 + i / TOKENS,
						  i % TOKENS };
		for (uint32_t h = 0; h < HEADS; h++)
			for (uint32_t d = 0; d < DIM; d++) {
				ref_move(&kv, (uint8_t *)want, &move[i], h, d);
				ref_move(&kv, (uint8_t *)(want + bytes / 2), &move[i], h, d);
			}
	}
	ref_launch(KN_TOKENS, NR, 1, 1, 0, &args);
	ck_assert(!memcmp(mem, want, 2 * bytes));
	free(mem);
	free(want);
}
END_TEST

/* ------------------------------------------------------------------ layouts */

#define MAX_PLANES	12u

struct shape {
	uint32_t layers, parts, tokens, heads, row;
};

/* Memory in some layout. */
struct place {
	struct kn_layout l;
	void *plane[MAX_PLANES];
	uint8_t *mem;
	size_t bytes;			/* of all planes */
	uint32_t slots;
};

enum planes { BLOCK_MAJOR, LAYER_PLANES, KV_PLANES, NR_PLANES };

static void place_init(struct place *p, const struct shape *s, enum planes planes, bool head_major,
		       uint32_t pad, uint32_t slots)
{
	uint64_t row = s->row + pad, part = row * s->tokens * s->heads + pad;
	uint32_t nr = planes == BLOCK_MAJOR ? 1 : planes == LAYER_PLANES ? s->layers :
		      s->layers * s->parts;

	*p = (struct place){ .slots = slots };
	p->l.head_bytes = head_major ? row * s->tokens : row;
	p->l.token_bytes = head_major ? row : row * s->heads;
	p->l.part_bytes = planes == KV_PLANES ? 0 : part;
	p->l.layer_bytes = planes == BLOCK_MAJOR ? part * s->parts : 0;
	p->l.layer_planes = planes == BLOCK_MAJOR ? 0 : planes == LAYER_PLANES ? 1 : s->parts;
	p->l.part_planes = planes == KV_PLANES;
	p->l.slot_bytes = part * s->layers * s->parts / nr;
	p->bytes = nr * p->l.slot_bytes * slots;
	p->mem = ref_alloc(p->bytes);
	fill(p->mem, p->bytes);
	for (uint32_t i = 0; i < nr; i++)
		p->plane[i] = p->mem + i * p->l.slot_bytes * slots;
	p->l.plane = p->plane;
}

/* A row, by what blocks.h says; in a copy of the place's memory at @mem. */
static uint8_t *row_at(const struct place *p, uint8_t *mem, int32_t slot, uint32_t layer,
		       uint32_t part, uint32_t token, uint32_t head)
{
	const struct kn_layout *l = &p->l;
	uint8_t *base = l->plane[layer * l->layer_planes + part * l->part_planes];

	return mem + (base - p->mem) + (uint64_t)slot * l->slot_bytes + layer * l->layer_bytes +
	       part * l->part_bytes + token * l->token_bytes + head * l->head_bytes;
}

static void ref_copy(const struct shape *s, struct place *to, uint8_t *want, int32_t to_slot,
		     struct place *from, int32_t from_slot)
{
	for (uint32_t l = 0; l < s->layers; l++)
		for (uint32_t p = 0; p < s->parts; p++)
			for (uint32_t t = 0; t < s->tokens; t++)
				for (uint32_t h = 0; h < s->heads; h++)
					memcpy(row_at(to, want, to_slot, l, p, t, h),
					       row_at(from, from->mem, from_slot, l, p, t, h),
					       s->row);
}

static void copy(enum kn_kernel k, const struct shape *s, struct place *to, const int32_t *to_slot,
		 struct place *from, const int32_t *from_slot, uint32_t nr)
{
	struct kn_gather_args args = {
		.from = from->l, .to = to->l, .from_slot = from_slot, .to_slot = to_slot,
		.nr = nr, .layers = s->layers, .parts = s->parts, .tokens = s->tokens,
		.heads = s->heads, .row_bytes = s->row,
	};

	ref_launch(k, nr, s->layers * s->parts, 1, some_threads(), &args);
}

static struct shape some_shape(void)
{
	struct shape s = { 1 + ref_below(&seed, 4), 1 + ref_below(&seed, 2),
			   1 + ref_below(&seed, 17), 1 + ref_below(&seed, 4),
			   1 + ref_below(&seed, 300) };

	if (ref_below(&seed, 2))
		s.row = 16 * (1 + s.row / 16);
	return s;
}

/* From one to the other and, elsewhere, back. */
static void one_pair(enum planes a, bool a_head_major, enum planes b, bool b_head_major)
{
	enum { SLOTS_A = 9, SLOTS_B = 7, NR = 5 };
	struct shape s = some_shape();
	int32_t in_a[SLOTS_A - 1], in_b[SLOTS_B - 1];
	struct place pa, pb;
	uint8_t *want;

	place_init(&pa, &s, a, a_head_major, ref_below(&seed, 2) * 5, SLOTS_A);
	place_init(&pb, &s, b, b_head_major, ref_below(&seed, 2) * 16, SLOTS_B);
	shuffled(in_a, SLOTS_A - 1, 1);
	shuffled(in_b, SLOTS_B - 1, 1);
	in_b[2] = 0;			/* nothing goes there */
	want = ref_alloc(pb.bytes);
	memcpy(want, pb.mem, pb.bytes);
	for (uint32_t i = 0; i < NR; i++)
		if (in_b[i])
			ref_copy(&s, &pb, want, in_b[i], &pa, in_a[i]);
	copy(ref_below(&seed, 2) ? KN_GATHER : KN_SCATTER, &s, &pb, in_b, &pa, in_a, NR);
	ck_assert_msg(!memcmp(want, pb.mem, pb.bytes), "layouts %d.%d to %d.%d", a, a_head_major,
		      b, b_head_major);
	free(want);
	/* From 0.. on by no list, to slots that had others. */
	want = ref_alloc(pa.bytes);
	memcpy(want, pa.mem, pa.bytes);
	for (int32_t i = 0; i < NR; i++)
		ref_copy(&s, &pa, want, in_a[SLOTS_A - 2 - i], &pb, i);
	shuffled(in_b, NR, 0);
	for (uint32_t i = 0; i < NR; i++)
		in_b[i] = in_a[SLOTS_A - 2 - i];
	copy(ref_below(&seed, 2) ? KN_GATHER : KN_SCATTER, &s, &pa, in_b, &pb, NULL, NR);
	ck_assert_msg(!memcmp(want, pa.mem, pa.bytes), "layouts %d.%d from %d.%d", a, a_head_major,
		      b, b_head_major);
	free(want);
	free(pa.mem);
	free(pb.mem);
}

START_TEST(blocks_go_between_all_layouts)
{
	for (unsigned i = 0; i < NR_PLANES * NR_PLANES * 4 * 3; i++)
		one_pair((enum planes)(i / 4 % NR_PLANES), i % 2,
			 (enum planes)(i / 4 / NR_PLANES % NR_PLANES), i / 2 % 2);
}
END_TEST

/* What is gathered to a staging area and scattered to other slots is the same there. */
START_TEST(gathered_and_scattered_is_the_same)
{
	enum { SLOTS_A = 12, NR = 4 };
	const struct shape s = { 3, 2, 16, 4, 128 };
	static const int32_t was[NR] = { 7, 1, 9, 4 }, is[NR] = { 2, 10, 3, 11 };
	struct place pool, other, stage;

	place_init(&pool, &s, BLOCK_MAJOR, false, 0, SLOTS_A);
	place_init(&other, &s, KV_PLANES, true, 0, SLOTS_A);
	place_init(&stage, &s, BLOCK_MAJOR, false, 0, NR);
	copy(KN_GATHER, &s, &stage, NULL, &pool, was, NR);
	copy(KN_SCATTER, &s, &other, is, &stage, NULL, NR);
	copy(KN_GATHER, &s, &stage, NULL, &other, is, NR);
	for (unsigned i = 0; i < NR; i++)
		ck_assert(!memcmp(stage.mem + i * stage.l.slot_bytes,
				  pool.mem + (size_t)was[i] * pool.l.slot_bytes,
				  stage.l.slot_bytes));
	free(pool.mem);
	free(other.mem);
	free(stage.mem);
}
END_TEST

/* -------------------------------------------------------------------- scrub */

static void one_scrub(uint64_t askew, uint64_t stride, uint64_t bytes, uint32_t pattern)
{
	enum { ALL = 9, NR = 4 };
	size_t size = askew + ALL * stride;
	uint8_t *mem = ref_alloc(size), *want = ref_alloc(size);
	int32_t slot[ALL];
	uint32_t differ[ALL] = { 0 }, off[ALL] = { 0 }, y = 1 + ref_below(&seed, 5);
	struct kn_scrub_args args = { mem + askew, stride, bytes, slot, NR, pattern };
	struct kn_scrub_check_args check = { mem + askew, stride, bytes, NULL, differ, ALL, pattern };

	fill(mem, size);
	memcpy(want, mem, size);
	shuffled(slot, ALL, 0);
	for (unsigned i = 0; i < NR; i++)
		for (uint64_t k = 0; k < bytes; k++)
			want[askew + (uint64_t)slot[i] * stride + k] =
				(uint8_t)(pattern >> 8 * (k % 4));
	for (unsigned i = 0; i < ALL; i++)
		for (uint64_t k = 0; k < bytes; k++)
			off[i] += want[askew + i * stride + k] != (uint8_t)(pattern >> 8 * (k % 4));
	ref_launch(KN_SCRUB, NR, y, 1, some_threads(), &args);
	ck_assert(!memcmp(mem, want, size));
	ref_launch(KN_SCRUB_CHECK, ALL, y, 1, some_threads(), &check);
	ck_assert(!memcmp(differ, off, sizeof(off)));
	/* Those of the list, and one byte that is not so: added to what was counted. */
	if (bytes) {
		check.slot = slot;
		mem[askew + (uint64_t)slot[2] * stride + ref_below(&seed, (uint32_t)bytes)] ^= 0x80;
		memset(differ, 0, sizeof(differ));
		differ[1] = 7;
		ref_launch(KN_SCRUB_CHECK, NR, y, 1, some_threads(), &check);
		ck_assert_uint_eq(differ[0], 0);
		ck_assert_uint_eq(differ[1], 7);
		ck_assert_uint_eq(differ[2], 1);
		ck_assert_uint_eq(differ[3], 0);
	}
	free(mem);
	free(want);
}

START_TEST(slots_are_scrubbed_and_looked_at)
{
	one_scrub(0, 4096, 4096, 0);
	one_scrub(0, 4096, 4096, 0xa5a5a5a5);
	one_scrub(0, 65536, 65536, 0x01020380);
	one_scrub(0, 48, 0, 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t stride = 1 + ref_below(&seed, 3000);

		one_scrub(ref_below(&seed, 17), stride, 1 + ref_below(&seed, (uint32_t)stride),
			  (uint32_t)ref_rand(&seed));
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels/blocks");

	suite_test(s, "tokens move within blocks", tokens_move_within_blocks, NULL, NULL);
	suite_test(s, "tokens of a launch all move", tokens_of_a_launch_all_move, NULL, NULL);
	suite_test(s, "blocks go between all layouts", blocks_go_between_all_layouts, NULL, NULL);
	suite_test(s, "gathered and scattered is the same", gathered_and_scattered_is_the_same,
		   NULL, NULL);
	suite_test(s, "slots are scrubbed and looked at", slots_are_scrubbed_and_looked_at, NULL,
		   NULL);

	return suite_run(s);
}
