/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_restore.c - a pool rebuilt from a block array that another one left.
 *
 * The former pool is made and brought to a state, then a second one is built over
 * the same array and the same slabs, as the next daemon would; what it finds, and
 * its invariants, are compared. The former one is not told.
 */
#include "pool_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvmd/index/restore.h"
#include "kvmd/lib/mem.h"
#include "kvmd/reclaim/policy.h"
#include "tests/suite.h"

#define PLANE	4096
#define BLOCKS	256u

struct second {
	struct prig rig;
	struct pool_restore r;
	struct space *sp;
	uint32_t *refs;
};

/* What a keeper would have of @sp and its slabs. */
static void kept_of(const struct space *sp, struct space_kept *k)
{
	*k = (struct space_kept) {
		.epoch = sp->epoch, .nr_groups = sp->nr_groups, .nr_shards = sp->nr_shards,
		.sid = sp->sid,
	};
	memcpy(k->name, sp->name, sizeof(k->name));
	memcpy(k->tenant, sp->tenant->name, sizeof(k->tenant));
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		k->group[g] = sp->gp[g].geo;
		k->slab_slots[g] = sp->gp[g].slab_slots;
	}
	for (uint32_t s = 0; s < sp->nr_shards; s++)
		memcpy(k->device[s], sp->dev[s]->uuid, sizeof(k->device[s]));
}

static void restore_slab_of(struct pool *p, const struct slab *s)
{
	struct slab_kept k = {
		.state = s->state, .gen = s->gen, .space = s->gp->sp->id, .group = s->gp->idx,
		.first = s->first, .nr = s->nr, .nr_ext = s->nr_ext,
		.extent_bytes = s->extent_bytes,
	};
	int fd[KVMD_MAX_SHARDS];

	for (uint32_t i = 0; i < s->nr_ext; i++)
		fd[i] = s->ext[i].fd >= 0 ? dup(s->ext[i].fd) : -1;
	ck_assert_int_eq(slab_restore(p, s->id, &k, fd), 0);
	ck_assert_uint_eq(p->slab[s->id].state, SLAB_ACTIVE);
}

/* As prig_init(), over the array of @f; spaces, sids and slabs are there again. */
static void second_begin(struct second *n, const struct prig *f, const char *kind,
			 uint64_t dev_bytes)
{
	struct pool_opts o = f->p->opts;
	struct space_kept k;
	char uuid[16], msg[256] = "";
	uint32_t nr;

	memset(n, 0, sizeof(*n));
	o.kept_fd = dup(f->p->blk_fd);
	ck_assert_int_eq(pool_array_check(o.kept_fd, &nr, msg, sizeof(msg)), 0);
	ck_assert_uint_eq(nr, f->p->nr_blocks);
	ck_assert_int_eq(workers_create(1, &n->rig.w), 0);
	ck_assert_int_eq(pool_create(&o, n->rig.w, &n->rig.p), 0);
	ck_assert_int_eq(index_create(n->rig.p, 1000, &n->rig.ix), 0);
	reclaim_init(&n->rig.rc, n->rig.p, n->rig.ix, NULL);
	for (int i = 0; i < 2; i++) {
		snprintf(uuid, sizeof(uuid), "dev-%d", i);
		dev_init(&n->rig.p->dev[i], dev_ops_find(kind), uuid, dev_bytes, n->rig.w);
		n->rig.p->nr_devs++;
	}
	for (uint32_t i = 0; i < f->p->nr_tenants; i++)
		ck_assert_int_eq(tenant_add(n->rig.p, f->p->tenant[i].name, &n->rig.t[i]), 0);
	n->rig.p->now = f->p->now + 10;
	kept_of(&f->p->space[0], &k);
	ck_assert_msg(!space_restore(n->rig.p, 0, &k, n->rig.t[0], policy_find("lru"), msg,
				     sizeof(msg)), "%s", msg);
	n->sp = &n->rig.p->space[0];
	for (uint32_t i = 1; i < POOL_MAX_SIDS; i++)
		if (f->p->sid[i].sp == &f->p->space[0] && i != f->p->space[0].sid)
			ck_assert(sid_restore(n->rig.p, i, 0, f->p->sid[i].epoch));
	for (uint32_t i = 0; i < f->p->slab_end; i++)
		if (f->p->slab[i].state == SLAB_ACTIVE)
			restore_slab_of(n->rig.p, &f->p->slab[i]);
	n->refs = mem_calloc((size_t)nr + 1, sizeof(*n->refs));
	ck_assert_ptr_nonnull(n->refs);
	n->r = (struct pool_restore) {
		.p = n->rig.p, .refs = n->refs, .fresh = pool_array_fresh(n->rig.p->blk),
	};
}

static void second_scan(struct second *n)
{
	pool_restore_scan(&n->r);
	ck_assert_int_eq(index_restore(n->rig.ix, &n->r), 0);
}

static void second_finish(struct second *n)
{
	ck_assert_int_eq(index_restore_idle(n->rig.ix, &n->r), 0);
	pool_restore_finish(&n->r);
	prig_check(&n->rig);
}

static void second_end(struct second *n)
{
	pool_restore_release(n->rig.p, &n->r.held[0]);
	prig_check(&n->rig);
	mem_free(n->refs);
	prig_exit(&n->rig);
}

static struct prig f;
static struct gpool *fgp;

static void first(uint32_t max_slots)
{
	struct kvmd_space m;

	prig_init(&f, "host", BLOCKS, 16 * PLANE, 1 << 20, NULL);
	prig_geometry(&m, PLANE, max_slots);
	fgp = &prig_space(&f, "sp", f.t[0], &m, "lru")->gp[0];
	prig_grow(&f, fgp, (max_slots + 15) / 16);
}

static void first_end(void)
{
	prig_exit(&f);
}

/* State of a record, behind the former pool's back. */
static void force(uint32_t id, enum blk_state s)
{
	pool_block(f.p, id)->state = (uint8_t)s;
}

/* -------------------------------------------------------------------- the scan */

START_TEST(sealed_chains_are_found_again)
{
	uint32_t ids[10], more[4];
	struct second n;

	first(64);
	prig_chain(&f, fgp, 100, 10, ids);
	prig_chain(&f, fgp, 200, 4, more);
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	ck_assert_uint_eq(n.r.nr_hbm, 14);
	ck_assert_uint_eq(n.r.nr_damaged, 0);
	ck_assert_uint_eq(n.r.nr_held, 0);
	for (uint32_t i = 0; i < 10; i++) {
		struct block *b = prig_find(&n.rig, n.sp, 0, 100 + i);

		ck_assert_ptr_nonnull(b);
		ck_assert_uint_eq(pool_id(n.rig.p, b), ids[i]);
		ck_assert_uint_eq(b->nr_kids, i < 9);
		ck_assert_uint_eq(b->slot, pool_block(f.p, ids[i])->slot);
	}
	ck_assert_uint_eq(n.sp->gp[0].nr_free, fgp->nr_free);
	ck_assert_uint_eq(n.rig.t[0]->hbm_bytes, f.t[0]->hbm_bytes);
	ck_assert_uint_eq(n.rig.p->nr_free_blk, BLOCKS - 14);
	second_end(&n);
	first_end();
}
END_TEST

/* Who leaves first is who was used first, the end of its chain before its start. */
START_TEST(idle_blocks_are_in_the_order_of_their_last_use)
{
	uint32_t ids[3][4], expect[12], nr = 0;
	struct second n;

	first(64);
	for (uint32_t c = 0; c < 3; c++) {
		f.p->now += 100;
		prig_chain(&f, fgp, 100 * (c + 1), 4, ids[c]);
	}
	/* The first one is used again. */
	f.p->now += 100;
	for (uint32_t i = 0; i < 4; i++)
		prig_get(&f, ids[0][i]);
	for (uint32_t i = 4; i-- > 0;)
		prig_put(&f, ids[0][i]);
	for (uint32_t c = 1; c <= 3; c++)
		for (uint32_t i = 4; i-- > 0;)
			expect[nr++] = ids[c % 3][i];
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	for (uint32_t i = 0; i < nr; i++) {
		struct gpool *gp = &n.sp->gp[0];
		struct block *b = gp->policy->ops->victim(gp->policy);

		ck_assert_ptr_nonnull(b);
		ck_assert_uint_eq(pool_id(n.rig.p, b), expect[i]);
		index_evict(n.rig.ix, b, KVMD_MISS_EVICTED);
	}
	prig_check(&n.rig);
	second_end(&n);
	first_end();
}
END_TEST

START_TEST(private_blocks_nobody_names_are_held)
{
	uint32_t named, twice, none;
	struct second n;

	first(64);
	named = prig_alloc(&f, fgp);
	twice = prig_alloc(&f, fgp);
	none = prig_alloc(&f, fgp);
	second_begin(&n, &f, "host", 1 << 20);
	n.refs[named] = 1;
	n.refs[twice] = 2;
	pool_restore_scan(&n.r);
	pool_block(n.rig.p, named)->owner = 3;	/* as its sequence does */
	ck_assert_int_eq(index_restore(n.rig.ix, &n.r), 0);
	second_finish(&n);
	ck_assert_uint_eq(pool_block(n.rig.p, named)->state, BLK_OPEN);
	ck_assert_uint_eq(pool_block(n.rig.p, named)->leases, 1);
	ck_assert_uint_eq(pool_block(n.rig.p, twice)->state, BLK_QUARANTINE);
	ck_assert_uint_eq(pool_block(n.rig.p, none)->state, BLK_QUARANTINE);
	ck_assert_uint_eq(n.r.held[0].nr, 2);
	ck_assert_uint_eq(n.sp->gp[0].nr_free, fgp->nr_free);
	ck_assert_uint_eq(pool_restore_release(n.rig.p, &n.r.held[0]), 2);
	ck_assert_uint_eq(n.sp->gp[0].nr_free, fgp->nr_free + 2);
	second_end(&n);
	first_end();
}
END_TEST

START_TEST(what_was_leaving_stays_and_what_was_coming_goes)
{
	uint32_t ids[4];
	struct second n;

	first(64);
	prig_chain(&f, fgp, 100, 4, ids);
	force(ids[3], BLK_EVICTING);
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	ck_assert_ptr_nonnull(prig_find(&n.rig, n.sp, 0, 103));
	second_end(&n);
	/* Its bytes were on their way to the slot: nobody may take them for whole. */
	force(ids[3], BLK_LOADING);
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	ck_assert_ptr_null(prig_find(&n.rig, n.sp, 0, 103));
	ck_assert_uint_eq(n.r.held[0].nr, 1);
	second_end(&n);
	first_end();
}
END_TEST

START_TEST(bad_slots_stay_bad)
{
	struct second n;
	uint32_t id;

	first(64);
	id = prig_alloc(&f, fgp);
	pool_mark_bad(f.p, pool_block(f.p, id));
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	ck_assert_uint_eq(n.r.nr_bad, 1);
	ck_assert_uint_eq(n.sp->gp[0].nr_free, fgp->nr_free);
	second_end(&n);
	first_end();
}
END_TEST

START_TEST(blocks_of_a_former_epoch_are_swept)
{
	uint32_t ids[3], now[2];
	struct second n;

	first(64);
	prig_chain(&f, fgp, 100, 3, ids);
	ck_assert_int_eq(space_raise_epoch(f.p, fgp->sp, 0), 0);
	prig_chain(&f, fgp, 100, 2, now);
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	ck_assert_uint_eq(n.sp->epoch, 1);
	ck_assert_uint_eq(n.sp->nr_stale, 3);
	ck_assert_uint_eq(pool_id(n.rig.p, prig_find(&n.rig, n.sp, 0, 101)), now[1]);
	while (reclaim_sweep_turn(&n.rig.rc))
		;
	ck_assert_uint_eq(n.sp->nr_stale, 0);
	second_end(&n);
	first_end();
}
END_TEST

/* ---------------------------------------------------------------------- damage */

static void expect_gone(uint32_t first_key, uint32_t nr, uint32_t nr_left)
{
	struct second n;
	uint32_t found = 0;

	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	while (found < nr && prig_find(&n.rig, n.sp, 0, first_key + found))
		found++;
	ck_assert_uint_eq(found, nr_left);
	ck_assert_uint_gt(n.r.nr_damaged, 0);
	/* Nothing that may have been read is given out before it may be. */
	ck_assert_uint_le(n.sp->gp[0].nr_free, fgp->nr_free + 1);
	second_end(&n);
}

START_TEST(a_chain_that_lost_a_block_ends_there)
{
	uint32_t ids[6];

	first(64);
	prig_chain(&f, fgp, 100, 6, ids);
	pool_block(f.p, ids[3])->group = 7;
	expect_gone(100, 6, 3);
	first_end();
}
END_TEST

START_TEST(a_circle_is_no_chain)
{
	uint32_t ids[6];

	first(64);
	prig_chain(&f, fgp, 100, 6, ids);
	pool_block(f.p, ids[0])->parent = ids[5];
	expect_gone(100, 6, 0);
	first_end();
}
END_TEST

START_TEST(a_parent_that_cannot_be)
{
	uint32_t ids[6];

	first(64);
	prig_chain(&f, fgp, 100, 6, ids);
	pool_block(f.p, ids[2])->parent = 0x7fffffff;
	expect_gone(100, 6, 2);
	first_end();
}
END_TEST

START_TEST(two_blocks_of_one_slot_are_both_not_believed)
{
	uint32_t ids[6];

	first(64);
	prig_chain(&f, fgp, 100, 6, ids);
	pool_block(f.p, ids[2])->slot = pool_block(f.p, ids[4])->slot;
	expect_gone(100, 6, 2);
	first_end();
}
END_TEST

START_TEST(two_blocks_of_one_name)
{
	uint32_t ids[6];
	struct second n;

	first(64);
	prig_chain(&f, fgp, 100, 6, ids);
	memcpy(pool_block(f.p, ids[3])->key, pool_block(f.p, ids[1])->key, KVMD_KEY_BYTES);
	second_begin(&n, &f, "host", 1 << 20);
	second_scan(&n);
	second_finish(&n);
	ck_assert_uint_gt(n.r.nr_damaged, 0);
	second_end(&n);
	first_end();
}
END_TEST

/* Bits of everything, over and over: the invariants hold whatever it was. */
START_TEST(any_bit_may_be_wrong)
{
	uint64_t rnd = (uint64_t)_i * 0x9e3779b97f4a7c15ull + 1;
	uint32_t ids[12];

	first(64);
	for (uint32_t c = 0; c < 3; c++)
		prig_chain(&f, fgp, 100 * (c + 1), 12, ids);
	for (uint32_t i = 0; i < 4; i++)
		ids[i] = prig_alloc(&f, fgp);
	for (int round = 0; round < 40; round++) {
		struct second n;

		for (int i = 0; i < 1 + round % 8; i++) {
			uint8_t *at = (uint8_t *)(f.p->blk + 1);

			rnd ^= rnd << 13;
			rnd ^= rnd >> 7;
			rnd ^= rnd << 17;
			at[rnd % (44 * sizeof(struct block))] ^= (uint8_t)(1u << (rnd >> 40) % 8);
		}
		second_begin(&n, &f, "host", 1 << 20);
		for (uint32_t i = 0; i < 4; i++)
			n.refs[ids[i]] = 1;
		second_scan(&n);
		second_finish(&n);
		second_end(&n);
	}
	/* What the others made of the array the first one does not know. */
	for (uint32_t id = 0; id <= BLOCKS; id++)
		pool_block(f.p, id)->state = BLK_FREE;
	first_end();
}
END_TEST

/* ------------------------------------------------------------- heads and sizes */

START_TEST(an_array_of_another_shape_is_refused)
{
	struct pool_array *h;
	char msg[160] = "";
	uint32_t nr;

	first(32);
	h = (struct pool_array *)(void *)f.p->blk;
	ck_assert_int_eq(pool_array_check(f.p->blk_fd, &nr, msg, sizeof(msg)), 0);
	h->version++;
	ck_assert_int_eq(pool_array_check(f.p->blk_fd, &nr, msg, sizeof(msg)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(msg, "version 2"));
	h->version--;
	h->block_bytes = 64;
	ck_assert_int_eq(pool_array_check(f.p->blk_fd, &nr, msg, sizeof(msg)), -EINVAL);
	h->block_bytes = sizeof(struct block);
	h->nr_blocks = 1u << 30;
	ck_assert_int_eq(pool_array_check(f.p->blk_fd, &nr, msg, sizeof(msg)), -EINVAL);
	h->nr_blocks = BLOCKS;
	h->fresh = BLOCKS + 2;
	ck_assert_int_eq(pool_array_check(f.p->blk_fd, &nr, msg, sizeof(msg)), -EINVAL);
	h->fresh = 1;
	h->magic++;
	ck_assert_int_eq(pool_array_check(f.p->blk_fd, &nr, msg, sizeof(msg)), -EINVAL);
	first_end();
}
END_TEST

START_TEST(a_slab_that_makes_no_sense_is_refused)
{
	struct slab_kept k;
	struct second n;
	int fd[1];

	first(32);
	second_begin(&n, &f, "host", 1 << 20);
	k = (struct slab_kept) {
		.state = SLAB_ACTIVE, .gen = 1, .first = 0, .nr = 16, .nr_ext = 1,
		.extent_bytes = 16 * PLANE,
	};
	fd[0] = dup(n.rig.p->slab[0].ext[0].fd);
	/* Its place is taken; it is none; it is of no space; it has another size. */
	ck_assert_int_eq(slab_restore(n.rig.p, 9, &k, fd), -EINVAL);
	k.first = 8;
	ck_assert_int_eq(slab_restore(n.rig.p, 9, &k, fd), -EINVAL);
	k.first = 1u << 20;
	ck_assert_int_eq(slab_restore(n.rig.p, 9, &k, fd), -EINVAL);
	k.space = 5;
	ck_assert_int_eq(slab_restore(n.rig.p, 9, &k, fd), -EINVAL);
	close(fd[0]);
	second_scan(&n);
	second_finish(&n);
	second_end(&n);
	first_end();
}
END_TEST

/* A million records; the time is printed, and nobody's verdict. */
START_TEST(a_million_records)
{
	const uint32_t nr = 1u << 20, chain = 64;
	struct timespec a, b, c;
	struct kvmd_space m;
	struct second n;
	uint32_t *ids;

	prig_init(&f, "null", nr, (uint64_t)nr * PLANE / 16, 1ull << 40, NULL);
	prig_geometry(&m, PLANE, nr + 1);
	fgp = &prig_space(&f, "sp", f.t[0], &m, "lru")->gp[0];
	prig_grow(&f, fgp, 17);
	ids = malloc(chain * sizeof(*ids));
	ck_assert_ptr_nonnull(ids);
	for (uint32_t i = 0; i + chain <= nr; i += chain) {
		f.p->now++;
		prig_chain(&f, fgp, i, chain, ids);
	}
	second_begin(&n, &f, "null", 1ull << 40);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	second_scan(&n);
	ck_assert_int_eq(index_restore_idle(n.rig.ix, &n.r), 0);
	pool_restore_finish(&n.r);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	prig_check(&n.rig);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c);
	printf("%u blocks restored in %.0f ms of CPU, checked in %.0f ms\n", n.r.nr_hbm,
	       (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6,
	       (double)(c.tv_sec - b.tv_sec) * 1e3 + (double)(c.tv_nsec - b.tv_nsec) / 1e6);
	ck_assert_uint_eq(n.r.nr_hbm, nr);
	second_end(&n);
	free(ids);
	first_end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("restore");
	TCase *t = tcase_create("restore");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, sealed_chains_are_found_again);
	tcase_add_test(t, idle_blocks_are_in_the_order_of_their_last_use);
	tcase_add_test(t, private_blocks_nobody_names_are_held);
	tcase_add_test(t, what_was_leaving_stays_and_what_was_coming_goes);
	tcase_add_test(t, bad_slots_stay_bad);
	tcase_add_test(t, blocks_of_a_former_epoch_are_swept);
	tcase_add_test(t, a_chain_that_lost_a_block_ends_there);
	tcase_add_test(t, a_circle_is_no_chain);
	tcase_add_test(t, a_parent_that_cannot_be);
	tcase_add_test(t, two_blocks_of_one_slot_are_both_not_believed);
	tcase_add_test(t, two_blocks_of_one_name);
	tcase_add_loop_test(t, any_bit_may_be_wrong, 0, 16);
	tcase_add_test(t, an_array_of_another_shape_is_refused);
	tcase_add_test(t, a_slab_that_makes_no_sense_is_refused);
	tcase_add_test(t, a_million_records);
	return suite_run(s);
}
