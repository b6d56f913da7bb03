/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_ram_code.c - coded blocks in RAM: every shape, what does not fit, damage, the
 * memory they are coded in, a second life.
 */
#include "ram_rig.h"

#include <stdio.h>

#include "kvmd/codec.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/image.h"
#include "kvmd/tier/ram_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/codec_rig.h"

#define CHUNK	(4u << 20)
#define MANY	40u

static struct rrig r;

static void setup(void)
{
	rrig_init(&r, "host");
}

static void teardown(void)
{
	rrig_exit(&r);
}

struct req {
	struct tier_req r;
	unsigned nr_done, nth;		/* of all done */
};

static unsigned nr_done;

static void done(struct tier_req *q)
{
	struct req *x = container_of(q, struct req, r);

	quiet_assert_uint_eq(x->nr_done, 0);
	x->nr_done++;
	x->nth = nr_done++;
}

static struct req req(struct gpool *gp, uint32_t slot, uint32_t place, bool coded)
{
	return (struct req) {
		.r = { .gp = gp, .slot = slot, .place = place, .block = 1, .coded = coded,
		       .done = done },
	};
}

static void wait_for(const struct req *x)
{
	while (!x->nr_done)
		if (!rrig_turn(&r))
			(void)r.t->ops->poll(r.t);
}

static int run(struct req *x, bool write)
{
	if (write)
		tier_write(r.t, &x->r);
	else
		tier_read(r.t, &x->r);
	ck_assert_uint_eq(x->nr_done, 0);	/* never from within the call */
	wait_for(x);
	return x->r.err;
}

/* Parts of 16 tokens. */
static struct gpool *coded_space(unsigned id, uint32_t planes, uint32_t shards, uint32_t parts,
				 uint32_t channels, bool replica)
{
	struct gpool *gp = rrig_space(&r, planes, shards, 32ull * parts * channels, replica);

	gp->geo.block_tokens = 16;
	gp->geo.codec = (struct kvmd_codec) {
		.id = (uint8_t)id, .dtype = KVMD_DTYPE_BF16, .parts = (uint16_t)parts,
		.channels = (uint16_t)channels,
	};
	ck_assert_msg(!kvmd_codec_wrong(&gp->geo), "%s", kvmd_codec_wrong(&gp->geo));
	gp->coded_bytes = kvmd_codec_bytes(&gp->geo, shards);
	ck_assert_uint_gt(gp->coded_bytes, 0);
	return gp;
}

/* Values with few exponents; of replicas they are equal. */
static void fill(struct gpool *gp, uint32_t slot)
{
	uint64_t n = gp->geo.plane_bytes / 2;

	for (uint32_t s = 0; s < gp->sp->nr_shards; s++)
		for (uint32_t k = 0; k < gp->geo.planes; k++) {
			uint16_t *v = rrig_plane(gp, slot, s, k);

			if (s && gp->geo.flags & KVMD_GROUP_REPLICA)
				memcpy(v, rrig_plane(gp, slot, 0, k), 2 * n);
			for (uint64_t i = 0; !(s && gp->geo.flags) && i < n; i++)
				v[i] = ct_rnd_value(2);
		}
}

static bool same(struct gpool *gp, uint32_t a, uint32_t b)
{
	bool eq = true;

	for (uint32_t s = 0; s < gp->sp->nr_shards; s++)
		for (uint32_t k = 0; k < gp->geo.planes; k++)
			eq &= !memcmp(rrig_plane(gp, a, s, k), rrig_plane(gp, b, s, k),
				      gp->geo.plane_bytes);
	return eq;
}

static uint32_t alloc(struct gpool *gp, uint32_t block, bool coded)
{
	return r.t->ops->alloc(r.t, gp, block, tier_copy_bytes(gp, coded));
}

static const struct shape {
	uint32_t planes, shards, parts, channels;
	bool replica;
} shapes[] = {
	{ 1, 1, 8, 128, false }, { 1, 2, 8, 128, false }, { 1, 3, 8, 128, true },
	{ 16, 1, 2, 64, false }, { 64, 2, 1, 256, false }, { 130, 3, 1, 64, true },
	{ 4, 1, 64, 512, false },	/* 4 MiB: several rounds */
};

START_TEST(every_shape_comes_back_whole)
{
	const struct shape *s = &shapes[_i];
	struct gpool *gp = coded_space(KVMD_CODEC_WINDOW, s->planes, s->shards, s->parts,
				       s->channels, s->replica);
	uint64_t encoded = stat_get(BLOCKS_ENCODED), decoded = stat_get(BLOCKS_DECODED);
	uint64_t in = stat_get(BYTES_ENCODED_IN), out = stat_get(BYTES_ENCODED_OUT);
	struct req x, y;
	uint32_t place;

	rrig_tier(&r, 4 * CHUNK, CHUNK);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	fill(gp, 3);
	place = alloc(gp, 1, true);
	ck_assert_uint_ne(place, 0);
	x = req(gp, 3, place, true);
	ck_assert_int_eq(run(&x, true), 0);
	ck_assert_uint_eq(x.r.bytes, gp->coded_bytes);
	ck_assert_uint_lt(x.r.bytes, tier_block_bytes(gp));
	ck_assert_uint_eq(x.r.sum, sum_of(ram_mem(r.t, place), x.r.bytes));
	ck_assert_uint_eq(x.r.sum, ram_sum(r.t, place));
	y = req(gp, 5, place, true);
	ck_assert_int_eq(run(&y, false), 0);
	ck_assert_uint_eq(y.r.planes, s->planes);
	ck_assert(same(gp, 3, 5));
	ck_assert_uint_eq(stat_get(BLOCKS_ENCODED), encoded + 1);
	ck_assert_uint_eq(stat_get(BLOCKS_DECODED), decoded + 1);
	ck_assert_uint_eq(stat_get(BYTES_ENCODED_IN), in + tier_block_bytes(gp));
	ck_assert_uint_eq(stat_get(BYTES_ENCODED_OUT), out + gp->coded_bytes);
	/* The other form is of another class. */
	y = req(gp, 5, place, false);
	ck_assert_int_eq(run(&y, false), -ENODATA);
	y = req(gp, 5, place, false);
	ck_assert_int_eq(run(&y, true), -ENODATA);
	rrig_free(&r, place);
	place = alloc(gp, 1, false);
	y = req(gp, 5, place, true);
	ck_assert_int_eq(run(&y, true), -ENODATA);
	x = req(gp, 3, place, false);
	ck_assert_int_eq(run(&x, true), 0);
	ck_assert_int_eq(run(&(struct req){ .r = { .gp = gp, .slot = 6, .place = place, .block = 1,
						   .done = done } }, false), 0);
	ck_assert(same(gp, 3, 6));
	rrig_free(&r, place);
	ck_assert_uint_eq(r.t->used_bytes, 0);
	ck_assert_uint_eq(r.t->nr_inflight, 0);
}
END_TEST

START_TEST(what_does_not_fit_is_said)
{
	struct gpool *gp = coded_space(KVMD_CODEC_WINDOW, 2, 1, 8, 128, false);
	struct gpool *q = coded_space(KVMD_CODEC_INT8, 2, 1, 8, 128, false);
	uint64_t encoded = stat_get(BLOCKS_ENCODED);
	uint16_t *v = rrig_plane(gp, 1, 0, 0);
	uint32_t place, other;
	struct req x;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	ck_assert_int_eq(ram_code_fit(r.t, q), 0);
	place = alloc(gp, 1, true);
	other = alloc(q, 2, true);
	for (uint64_t i = 0; i < gp->geo.plane_bytes / 2; i++)
		v[i] = (uint16_t)ct_rnd(65536);
	x = req(gp, 1, place, true);
	ck_assert_int_eq(run(&x, true), -E2BIG);
	fill(q, 1);
	*(uint16_t *)rrig_plane(q, 1, 0, 1) = 0x7fc0;
	x = req(q, 1, other, true);
	ck_assert_int_eq(run(&x, true), -E2BIG);
	ck_assert_uint_eq(stat_get(BLOCKS_ENCODED), encoded);
	/* The place and the memory are as good as before. */
	fill(gp, 2);
	x = req(gp, 2, place, true);
	ck_assert_int_eq(run(&x, true), 0);
	x = req(gp, 3, place, true);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert(same(gp, 2, 3));
}
END_TEST

/* A copy to or from the device fails: so does the request, and nothing is held. */
START_TEST(a_copy_that_fails)
{
	struct gpool *gp = coded_space(KVMD_CODEC_WINDOW, 1, 1, 8, 128, false);
	uint32_t place;
	struct req x;

	rrig_tier(&r, CHUNK, CHUNK);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	place = alloc(gp, 1, true);
	fill(gp, 1);
	for (int n = 0; n < 12; n++) {
		rrig_arm("copy:nth=1");
		x = req(gp, 1, place, true);
		ck_assert_int_ne(run(&x, true), 0);
		fault_disarm();
	}
	x = req(gp, 1, place, true);
	ck_assert_int_eq(run(&x, true), 0);
	for (int n = 0; n < 12; n++) {
		rrig_arm("copy:nth=1");
		x = req(gp, 2, place, true);
		ck_assert_int_ne(run(&x, false), 0);
		fault_disarm();
	}
	x = req(gp, 2, place, true);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert(same(gp, 1, 2));
}
END_TEST

/* Head, table, parts; with the place's own checksum wrong, or right again. */
START_TEST(damage_is_found)
{
	struct gpool *gp = coded_space(_i ? KVMD_CODEC_INT8 : KVMD_CODEC_WINDOW, 2, 1, 8, 128, false);
	uint64_t at[] = { 0, 7, 20, 30, 40, 63, 64, 66, 120, 64 + 16 * 4, 64 + 16 * 4 + 6,
			  64 + 16 * 4 + 64 + 3, 8000, 12001, 30000 };
	uint64_t failed = stat_get(CODEC_FAILED);
	uint32_t place;
	uint8_t *mem;
	struct req x;

	rrig_tier(&r, CHUNK, CHUNK);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	place = alloc(gp, 1, true);
	fill(gp, 1);
	x = req(gp, 1, place, true);
	ck_assert_int_eq(run(&x, true), 0);
	x = req(gp, 4, place, true);
	ck_assert_int_eq(run(&x, false), 0);
	mem = ram_mem(r.t, place);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		mem[at[i]] ^= 0x04;
		memset(rrig_plane(gp, 2, 0, 0), 0, gp->geo.plane_bytes);
		x = req(gp, 2, place, true);
		ck_assert_int_eq(run(&x, false), -EBADMSG);
		ck_assert_uint_eq(x.r.planes, 0);
		ck_assert_uint_eq(stat_get(CODEC_FAILED), failed + i);
		ram_set_sum(r.t, place, sum_of(mem, gp->coded_bytes));
		x = req(gp, 2, place, true);
		ck_assert_int_eq(run(&x, false), -EBADMSG);
		ck_assert_uint_eq(*(uint16_t *)rrig_plane(gp, 2, 0, 0), 0);	/* untouched */
		ck_assert_uint_eq(stat_get(CODEC_FAILED), failed + i + 1);
		mem[at[i]] ^= 0x04;
		ram_set_sum(r.t, place, sum_of(mem, gp->coded_bytes));
	}
	x = req(gp, 2, place, true);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert(same(gp, 4, 2));
}
END_TEST

START_TEST(more_at_once_than_there_is_memory_for)
{
	struct gpool *gp = coded_space(KVMD_CODEC_WINDOW, 1, 1, 16, 128, false);
	static struct req w[MANY], u;
	uint32_t place[MANY], up;
	unsigned last = 0;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	for (uint32_t i = 1; i < RRIG_SLOTS; i++)
		fill(gp, i);
	up = alloc(gp, 99, true);
	u = req(gp, 1, up, true);
	ck_assert_int_eq(run(&u, true), 0);
	nr_done = 0;
	for (uint32_t i = 0; i < MANY; i++) {
		place[i] = alloc(gp, i + 1, true);
		ck_assert_uint_ne(place[i], 0);
		w[i] = req(gp, 1 + i % 12, place[i], true);
		tier_write(r.t, &w[i].r);
	}
	/* What somebody waits for is not behind all of them. */
	u = req(gp, 14, up, true);
	u.r.urgent = true;
	tier_read(r.t, &u.r);
	wait_for(&u);
	rrig_settle(&r);
	for (uint32_t i = 0; i < MANY; i++) {
		ck_assert_uint_eq(w[i].nr_done, 1);
		ck_assert_int_eq(w[i].r.err, 0);
		last = max(last, w[i].nth);
	}
	ck_assert_uint_lt(u.nth, last);
	ck_assert(same(gp, 1, 14));
	for (uint32_t i = 0; i < MANY; i++) {
		struct req x = req(gp, 13, place[i], true);

		ck_assert_int_eq(run(&x, false), 0);
		ck_assert(same(gp, 13, 1 + i % 12));
	}
}
END_TEST

/* A space with larger blocks comes while smaller ones are under way. */
START_TEST(the_memory_grows)
{
	struct gpool *gp = coded_space(KVMD_CODEC_WINDOW, 1, 1, 8, 128, false);
	struct gpool *large = coded_space(KVMD_CODEC_WINDOW, 1, 1, 8, 4096, false);
	static struct req w[20];
	struct req x;
	uint32_t place[20], p;

	rrig_tier(&r, 3 * CHUNK, CHUNK);
	p = alloc(large, 77, true);
	fill(large, 1);
	x = req(large, 1, p, true);
	ck_assert_int_eq(run(&x, true), -ENOMEM);	/* nobody asked for it */
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	x = req(large, 1, p, true);
	ck_assert_int_eq(run(&x, true), -ENOMEM);
	for (uint32_t i = 0; i < 20; i++) {
		fill(gp, 1 + i % 15);
		place[i] = alloc(gp, i + 1, true);
		w[i] = req(gp, 1 + i % 15, place[i], true);
		if (i == 10)
			ck_assert_int_eq(ram_code_fit(r.t, large), 0);
		tier_write(r.t, &w[i].r);
	}
	x = req(large, 1, p, true);
	ck_assert_int_eq(run(&x, true), 0);
	x = req(large, 2, p, true);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert(same(large, 1, 2));
	rrig_settle(&r);
	for (uint32_t i = 0; i < 20; i++)
		ck_assert_int_eq(w[i].r.err, 0);
	ck_assert_ptr_null(ram_of(r.t)->stages->next);	/* the old is gone */
	ck_assert_uint_eq(ram_of(r.t)->nr_free_stages, ram_of(r.t)->stages->nr);
}
END_TEST

START_TEST(a_second_life_finds_both_forms)
{
	struct gpool *gp = coded_space(KVMD_CODEC_INT8, 1, 1, 8, 128, false);
	uint64_t plain = tier_block_bytes(gp), coded = gp->coded_bytes;
	uint32_t a, b;
	struct req x;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	fill(gp, 1);
	a = alloc(gp, 1, true);
	b = alloc(gp, 2, false);
	x = req(gp, 1, a, true);
	ck_assert_int_eq(run(&x, true), 0);
	x = req(gp, 1, b, false);
	ck_assert_int_eq(run(&x, true), 0);
	x = req(gp, 2, a, true);
	ck_assert_int_eq(run(&x, false), 0);	/* what it comes back as */
	ck_assert_int_eq(rrig_restart(&r, 2 * CHUNK), 0);
	ck_assert(!ram_claim(r.t, a, plain, 1));
	ck_assert(!ram_claim(r.t, b, coded, 2));
	ck_assert(!ram_claim(r.t, a, 0, 1));
	ck_assert(ram_claim(r.t, a, coded, 1));
	ck_assert(ram_claim(r.t, b, plain, 2));
	rrig_settle(&r);
	x = req(gp, 3, a, true);
	ck_assert_int_eq(run(&x, false), -ENOMEM);
	ck_assert_int_eq(ram_code_fit(r.t, gp), 0);
	x = req(gp, 3, a, true);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert(same(gp, 2, 3));
	x = req(gp, 4, b, false);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert(same(gp, 1, 4));
	ck_assert(gp->codec_error > 0 && gp->codec_error < 0.1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ram_code");
	TCase *tc = suite_group(s, "ram_code", setup, teardown);

	tcase_add_loop_test(tc, every_shape_comes_back_whole, 0, ARRAY_SIZE(shapes));
	tcase_add_test(tc, what_does_not_fit_is_said);
	tcase_add_test(tc, a_copy_that_fails);
	tcase_add_loop_test(tc, damage_is_found, 0, 2);
	tcase_add_test(tc, more_at_once_than_there_is_memory_for);
	tcase_add_test(tc, the_memory_grows);
	tcase_add_test(tc, a_second_life_finds_both_forms);
	return suite_run(s);
}
