/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_ram_copy.c - blocks to RAM and back: every shape, checksums, order, faults.
 */
#include "ram_rig.h"

#include <stdio.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/sum.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define CHUNK	(4u << 20)
#define MANY	1000u

static struct rrig r;

static void setup(void)
{
	rrig_init(&r, "host");
}

static void setup_null(void)
{
	rrig_init(&r, "null");
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

	quiet_assert_ptr_eq(q->tier, r.t);
	quiet_assert_uint_eq(x->nr_done, 0);
	x->nr_done++;
	x->nth = nr_done++;
}

static struct req req(struct gpool *gp, uint32_t slot, uint32_t place)
{
	return (struct req) {
		.r = { .gp = gp, .slot = slot, .place = place, .block = 1, .done = done },
	};
}

static int run(struct req *x, bool write)
{
	if (write)
		tier_write(r.t, &x->r);
	else
		tier_read(r.t, &x->r);
	ck_assert_uint_eq(x->nr_done, 0);	/* never from within the call */
	while (!x->nr_done)
		if (!rrig_turn(&r))
			(void)r.t->ops->poll(r.t);
	return x->r.err;
}

static uint8_t byte_of(uint32_t seed, uint32_t shard, uint32_t plane, uint64_t i)
{
	return (uint8_t)((i * 31 + plane * 7 + shard * 101 + seed * 13) ^ (i >> 8));
}

/* The bytes of a block in HBM; those of replicas are equal. */
static void fill(struct gpool *gp, uint32_t slot, uint32_t seed)
{
	bool same = gp->geo.flags & KVMD_GROUP_REPLICA;

	for (uint32_t s = 0; s < gp->sp->nr_shards; s++)
		for (uint32_t k = 0; k < gp->geo.planes; k++) {
			uint8_t *p = rrig_plane(gp, slot, s, k);

			for (uint64_t i = 0; p && i < gp->geo.plane_bytes; i++)
				p[i] = byte_of(seed, same ? 0 : s, k, i);
		}
}

static void expect(struct gpool *gp, uint32_t slot, uint32_t seed)
{
	bool same = gp->geo.flags & KVMD_GROUP_REPLICA;

	for (uint32_t s = 0; s < gp->sp->nr_shards; s++)
		for (uint32_t k = 0; k < gp->geo.planes; k++) {
			uint8_t *p = rrig_plane(gp, slot, s, k);

			for (uint64_t i = 0; i < gp->geo.plane_bytes; i++)
				if (p[i] != byte_of(seed, same ? 0 : s, k, i))
					ck_abort_msg("slot %u shard %u plane %u byte %llu", slot, s,
						     k, (unsigned long long)i);
		}
}

static void clear(struct gpool *gp, uint32_t slot)
{
	for (uint32_t s = 0; s < gp->sp->nr_shards; s++)
		for (uint32_t k = 0; k < gp->geo.planes; k++)
			memset(rrig_plane(gp, slot, s, k), 0xee, gp->geo.plane_bytes);
}

/* In RAM it is one run: shard by shard, plane by plane, replicas once. */
static void expect_ram(struct gpool *gp, uint32_t place, uint32_t seed)
{
	uint32_t shards = gp->geo.flags & KVMD_GROUP_REPLICA ? 1 : gp->sp->nr_shards;
	const uint8_t *p = ram_mem(r.t, place);

	for (uint32_t s = 0; s < shards; s++)
		for (uint32_t k = 0; k < gp->geo.planes; k++)
			for (uint64_t i = 0; i < gp->geo.plane_bytes; i++)
				if (*p++ != byte_of(seed, s, k, i))
					ck_abort_msg("shard %u plane %u byte %llu in RAM", s, k,
						     (unsigned long long)i);
}

static const struct shape {
	uint32_t planes, shards;
	uint64_t plane_bytes;
	bool replica;
} shapes[] = {
	{ 1, 1, 64, false }, { 1, 1, 4096, false }, { 1, 1, 524288, false },
	{ 1, 2, 65536 + 64, false }, { 1, 3, 12288, true }, { 2, 1, 4096, false },
	{ 2, 3, 4160, false }, { 3, 2, 65536, true }, { 63, 1, 4096, false },
	{ 64, 2, 64, false }, { 65, 1, 1024, false }, { 130, 1, 8192, false },
	{ 130, 3, 4160, false }, { 130, 3, 2112, true }, { 512, 1, 64, false },
	/* rounds that end within a plane */
	{ 1, 1, (9u << 20) + 4096, false }, { 2, 1, (5u << 20) + 64, false },
	{ 1, 2, 5u << 20, true },
};

START_TEST(every_shape_comes_back_whole)
{
	const struct shape *s = &shapes[_i];
	struct gpool *gp = rrig_space(&r, s->planes, s->shards, s->plane_bytes, s->replica);
	uint64_t bytes = tier_block_bytes(gp);
	struct req x, y;
	uint32_t place[2];

	rrig_tier(&r, 4 * align_up(bytes, CHUNK), align_up(bytes, CHUNK));
	for (uint32_t i = 0; i < 2; i++) {
		place[i] = rrig_alloc(&r, gp, i + 1);
		ck_assert_uint_ne(place[i], 0);
		fill(gp, 3 + i, i);
		x = req(gp, 3 + i, place[i]);
		ck_assert_int_eq(run(&x, true), 0);
		ck_assert_uint_eq(x.r.bytes, bytes);
		expect_ram(gp, place[i], i);
		ck_assert_uint_eq(x.r.sum, sum_of(ram_mem(r.t, place[i]), bytes));
		ck_assert_uint_eq(ram_sum(r.t, place[i]), x.r.sum);
		clear(gp, 3 + i);
	}
	for (uint32_t i = 0; i < 2; i++) {
		y = req(gp, 7 + i, place[i]);
		ck_assert_int_eq(run(&y, false), 0);
		ck_assert_uint_eq(y.r.planes, s->planes);
		ck_assert_uint_eq(y.r.sum, ram_sum(r.t, place[i]));
		expect(gp, 7 + i, i);
		rrig_free(&r, place[i]);
	}
	/* Nothing but the slots named was touched. */
	for (uint32_t k = 0; k < s->planes; k++) {
		const uint8_t *p = rrig_plane(gp, 9, s->shards - 1, k);

		ck_assert_uint_eq(p[0], 0);
		ck_assert_uint_eq(p[s->plane_bytes - 1], 0);
	}
	ck_assert_uint_eq(r.t->used_bytes, 0);
	ck_assert_uint_eq(r.t->nr_inflight, 0);
}
END_TEST

START_TEST(planes_become_ready_one_after_the_other)
{
	struct gpool *gp = rrig_space(&r, 130, 2, 8192, false);
	uint32_t place, was = 0, steps = 0;
	struct req x, y;

	rrig_tier(&r, CHUNK, CHUNK);
	place = rrig_alloc(&r, gp, 1);
	fill(gp, 1, 1);
	x = req(gp, 1, place);
	ck_assert_int_eq(run(&x, true), 0);
	y = req(gp, 2, place);
	y.r.planes = 99;
	tier_read(r.t, &y.r);
	ck_assert_uint_eq(y.r.planes, 0);
	while (!y.nr_done && rrig_turn(&r)) {
		const struct tier_req *q = &y.r;

		ck_assert_uint_ge(q->planes, was);
		steps += q->planes > was;
		for (uint32_t k = was; k < q->planes; k++)
			ck_assert_mem_eq(rrig_plane(gp, 2, 0, k), rrig_plane(gp, 1, 0, k), 8192);
		was = q->planes;
	}
	ck_assert_uint_eq(was, 130);
	ck_assert_uint_ge(steps, 3);
}
END_TEST

/* A bit turned in RAM: the read says so, and of several planes none counts. */
START_TEST(a_flipped_bit_is_found)
{
	const struct shape *s = &shapes[_i];
	struct gpool *gp = rrig_space(&r, s->planes, s->shards, s->plane_bytes, s->replica);
	uint64_t bytes = tier_block_bytes(gp);
	const uint64_t at[] = { 0, bytes / 2, bytes - 1 };
	uint8_t *mem;
	struct req x;
	uint32_t place;

	rrig_tier(&r, align_up(bytes, CHUNK), align_up(bytes, CHUNK));
	place = rrig_alloc(&r, gp, 1);
	fill(gp, 1, 5);
	x = req(gp, 1, place);
	ck_assert_int_eq(run(&x, true), 0);
	mem = ram_mem(r.t, place);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		mem[at[i]] ^= 0x10;
		x = req(gp, 2, place);
		ck_assert_int_eq(run(&x, false), -EBADMSG);
		if (s->planes > 1)
			ck_assert_uint_eq(x.r.planes, 0);
		mem[at[i]] ^= 0x10;
	}
	x = req(gp, 2, place);
	ck_assert_int_eq(run(&x, false), 0);
	expect(gp, 2, 5);
	/* Bytes that came from elsewhere bring their sum. */
	memset(mem, 0x55, bytes);
	x = req(gp, 2, place);
	ck_assert_int_eq(run(&x, false), -EBADMSG);
	ram_set_sum(r.t, place, sum_of(mem, bytes));
	x = req(gp, 2, place);
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert_mem_eq(rrig_plane(gp, 2, s->shards - 1, s->planes - 1), mem, s->plane_bytes);
}
END_TEST

START_TEST(without_device_memory_sums_agree)
{
	const struct shape *s = &shapes[_i];
	struct gpool *gp = rrig_space(&r, s->planes, s->shards, s->plane_bytes, s->replica);
	uint64_t bytes = tier_block_bytes(gp);
	struct req x;
	uint32_t place;
	uint8_t *mem;

	rrig_tier(&r, align_up(bytes, CHUNK), align_up(bytes, CHUNK));
	place = rrig_alloc(&r, gp, 1);
	mem = ram_mem(r.t, place);
	memset(mem, 3, bytes);
	x = req(gp, 1, place);
	ck_assert_int_eq(run(&x, true), 0);
	ck_assert_uint_eq(x.r.sum, sum_of(mem, bytes));
	x = req(gp, 1, place);
	x.r.urgent = true;
	ck_assert_int_eq(run(&x, false), 0);
	ck_assert_uint_eq(x.r.planes, s->planes);
	mem[bytes - 1]++;
	x = req(gp, 1, place);
	ck_assert_int_eq(run(&x, false), -EBADMSG);
	ck_assert_uint_eq(x.r.planes, 0);
}
END_TEST

/* Fail the first, second, ... copy until none is hit: both ends stay usable. */
START_TEST(a_failed_copy_fails_its_request_alone)
{
	struct gpool *gp = rrig_space(&r, 130, 2, 4096, _i);
	struct req x;
	uint32_t place;
	bool write_hit = true, read_hit = true;
	char spec[64];

	rrig_tier(&r, CHUNK, CHUNK);
	fill(gp, 1, 5);
	place = rrig_alloc(&r, gp, 1);
	for (unsigned n = 1; write_hit || read_hit; n++) {
		snprintf(spec, sizeof(spec), "copy:nth=%u", n);
		rrig_arm(spec);
		x = req(gp, 1, place);
		write_hit = run(&x, true);
		ck_assert_int_eq(x.r.err, fault_nr_hits(FAULT_COPY) ? -EIO : 0);
		fault_disarm();
		x = req(gp, 1, place);
		ck_assert_int_eq(run(&x, true), 0);
		rrig_arm(spec);
		x = req(gp, 2, place);
		read_hit = run(&x, false);
		ck_assert_int_eq(x.r.err, fault_nr_hits(FAULT_COPY) ? -EIO : 0);
		fault_disarm();
		rrig_clean(&r);
		ck_assert_uint_lt(n, 50);
	}
	expect(gp, 2, 5);
	ck_assert_uint_eq(r.t->nr_inflight, 0);
}
END_TEST

START_TEST(what_is_not_there_is_refused_by_poll)
{
	struct gpool *gp = rrig_space(&r, 1, 1, 4096, false);
	struct gpool *big = rrig_space(&r, 1, 1, 8192, false);
	uint32_t place;
	struct req x[4];

	rrig_tier(&r, CHUNK, CHUNK);
	place = rrig_alloc(&r, gp, 1);
	x[0] = req(gp, 1, 0);
	x[1] = req(gp, 1, place + 1);
	x[2] = req(gp, 1, UINT32_MAX);
	x[3] = req(big, 1, place);		/* larger than the place */
	for (int i = 0; i < 4; i++) {
		if (i % 2)
			tier_write(r.t, &x[i].r);
		else
			tier_read(r.t, &x[i].r);
		ck_assert_uint_eq(x[i].nr_done, 0);
	}
	ck_assert_uint_eq(r.t->nr_inflight, 4);
	ck_assert_uint_ne(r.t->ops->next_ns(r.t), 0);
	ck_assert_uint_eq(r.t->ops->poll(r.t), 4);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(x[i].r.err, -ENODATA);
	ck_assert_uint_eq(r.t->nr_inflight, 0);
	ck_assert_uint_eq(r.t->ops->poll(r.t), 0);
}
END_TEST

static struct req many[MANY], hurry[10];

START_TEST(more_requests_than_contexts_all_end)
{
	struct gpool *gp = rrig_space(&r, 1, 1, 4096, false);
	uint32_t place[MANY];
	unsigned i;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	fill(gp, 1, 1);
	for (i = 0; i < MANY; i++) {
		place[i] = rrig_alloc(&r, gp, i + 1);
		quiet_assert_uint_ne(place[i], 0);
		many[i] = req(gp, 1, place[i]);
		tier_write(r.t, &many[i].r);
	}
	for (i = 0; i < 10; i++) {
		hurry[i] = req(gp, 1, place[i]);
		hurry[i].r.urgent = true;
		tier_write(r.t, &hurry[i].r);
	}
	ck_assert_uint_eq(r.t->nr_inflight, MANY + 10);
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->nr_inflight, 0);
	ck_assert_uint_eq(nr_done, MANY + 10);
	/* At most what had a context before may have come first. */
	for (i = 0; i < 10; i++)
		quiet_assert_uint_lt(hurry[i].nth, 256);
	for (i = 0; i < MANY; i++) {
		quiet_assert_int_eq(many[i].r.err, 0);
		many[i] = req(gp, 2 + i % 8, place[i]);
		if (i % 3)
			tier_read(r.t, &many[i].r);
		else
			tier_write(r.t, &many[i].r);
	}
	rrig_settle(&r);
	ck_assert_uint_eq(nr_done, 2 * MANY + 10);
	ck_assert_uint_eq(r.t->nr_inflight, 0);
}
END_TEST

START_TEST(a_place_freed_during_a_copy_is_reused_after_it)
{
	struct gpool *gp = rrig_space(&r, 1, 1, 1u << 20, false);
	uint32_t place[4], i;
	struct req x, y;

	rrig_tier(&r, CHUNK, CHUNK);
	for (i = 0; i < 4; i++)
		place[i] = rrig_alloc(&r, gp, i + 1);
	fill(gp, 1, 1);
	x = req(gp, 1, place[2]);
	tier_write(r.t, &x.r);
	y = req(gp, 2, place[2]);
	tier_write(r.t, &y.r);
	rrig_free(&r, place[2]);
	ck_assert_uint_eq(ram_owner(r.t, place[2]), 0);
	ck_assert_uint_eq(r.t->used_bytes, CHUNK);
	ck_assert_uint_eq(rrig_alloc(&r, gp, 9), 0);
	rrig_clean(&r);
	while (!x.nr_done || !y.nr_done)
		ck_assert(rrig_turn(&r));
	rrig_clean(&r);
	ck_assert_uint_eq(rrig_alloc(&r, gp, 9), place[2]);
	ck_assert_uint_eq(ram_owner(r.t, place[2]), 9);
}
END_TEST

/* All of a chunk is freed under a copy: it changes its class only afterwards. */
START_TEST(a_chunk_with_a_copy_keeps_its_class)
{
	struct gpool *gp = rrig_space(&r, 1, 1, 1u << 20, false);
	struct gpool *other = rrig_space(&r, 1, 1, 8192, false);
	uint32_t place;
	struct req x;

	rrig_tier(&r, CHUNK, CHUNK);
	place = rrig_alloc(&r, gp, 1);
	x = req(gp, 1, place);
	tier_write(r.t, &x.r);
	rrig_free(&r, place);
	ck_assert_uint_eq(rrig_alloc(&r, other, 2), 0);
	ck_assert_int_eq(ram_resize(r.t, 0), 0);
	ck_assert_uint_eq(r.t->bytes, CHUNK);
	ck_assert_int_eq(ram_resize(r.t, CHUNK), 0);
	while (!x.nr_done)
		ck_assert(rrig_turn(&r));
	ck_assert_uint_ne(rrig_alloc(&r, other, 2), 0);
}
END_TEST

static TCase *group(Suite *s, const char *name, void (*before)(void))
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, before, teardown);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("ram-copy");
	TCase *tc = group(s, "shapes", setup);

	tcase_add_loop_test(tc, every_shape_comes_back_whole, 0, ARRAY_SIZE(shapes));
	tcase_add_test(tc, planes_become_ready_one_after_the_other);
	tc = group(s, "sums", setup);
	tcase_add_loop_test(tc, a_flipped_bit_is_found, 0, ARRAY_SIZE(shapes));
	tc = group(s, "null", setup_null);
	tcase_add_loop_test(tc, without_device_memory_sums_agree, 0, ARRAY_SIZE(shapes));
	tc = group(s, "failures", setup);
	tcase_add_loop_test(tc, a_failed_copy_fails_its_request_alone, 0, 2);
	tcase_add_test(tc, what_is_not_there_is_refused_by_poll);
	tc = group(s, "order", setup);
	tcase_add_test(tc, more_requests_than_contexts_all_end);
	tcase_add_test(tc, a_place_freed_during_a_copy_is_reused_after_it);
	tcase_add_test(tc, a_chunk_with_a_copy_keeps_its_class);
	return suite_run(s);
}
