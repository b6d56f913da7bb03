/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_index.c - keys to blocks: collisions, gaps closed, ghosts, the check.
 */
#include "kvmd/lib/mem.h"
#include "pool_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define NR	1000	/* blocks; the table has 2048 entries at most half full */

static struct prig r;
static struct kvmd_space m;
static struct space *sp;
static struct gpool *gp;

static void setup(void)
{
	prig_init(&r, "null", NR, 1 << 20, 64 << 20, NULL);
	prig_geometry(&m, 4096, NR + 1);
	sp = prig_space(&r, "s", r.t[0], &m, "lru");
	gp = &sp->gp[0];
	prig_grow(&r, gp, gp->max_slabs);
}

static void teardown(void)
{
	prig_exit(&r);
}

/* Seal a root under key @n, nobody holds it. */
static uint32_t root(uint32_t n)
{
	uint32_t id;

	prig_chain(&r, gp, n, 1, &id);
	return id;
}

/* A small table, so that everything collides: the mask is cut. */
static void make_crowded(uint32_t entries)
{
	ck_assert(is_pow2(entries));
	r.ix->mask = entries - 1;
}

START_TEST(found_until_evicted)
{
	uint32_t id = root(5);

	ck_assert_ptr_eq(prig_find(&r, sp, 0, 5), pool_block(r.p, id));
	ck_assert_ptr_null(prig_find(&r, sp, 0, 6));
	ck_assert_ptr_null(prig_find(&r, sp, 1, 5));
	index_evict(r.ix, pool_block(r.p, id), KVMD_MISS_EVICTED);
	ck_assert_ptr_null(prig_find(&r, sp, 0, 5));
	ck_assert_uint_eq(r.ix->nr, 0);
	prig_check(&r);
}
END_TEST

/* Runs that go round the table's end, deleted in random order. */
START_TEST(crowded_table)
{
	uint32_t ids[48], left = 48, seed = (uint32_t)_i;

	make_crowded(64);
	for (uint32_t i = 0; i < 48; i++)
		ids[i] = root(1000 * seed + i);
	prig_check(&r);
	while (left) {
		uint32_t k = (seed = seed * 1664525u + 1013904223u) >> 8;

		k %= left;
		index_evict(r.ix, pool_block(r.p, ids[k]), KVMD_MISS_EVICTED);
		ids[k] = ids[--left];
		prig_check(&r);
	}
	for (uint32_t i = 0; i < 64; i++)
		ck_assert_uint_eq(r.ix->tab[i].id, 0);
}
END_TEST

/* The same 32 bits of hash prove nothing. */
START_TEST(equal_hash_is_not_identity)
{
	uint32_t a = root(1), b = root(2);
	struct index_entry *e = NULL;

	for (uint32_t i = 0; i <= r.ix->mask; i++)
		if (r.ix->tab[i].id == b)
			e = &r.ix->tab[i];
	ck_assert_ptr_nonnull(e);
	/* b's entry pretends to be where a is looked for, in front of it. */
	for (uint32_t i = 0; i <= r.ix->mask; i++) {
		if (r.ix->tab[i].id != a)
			continue;
		r.ix->tab[(i + 1) & r.ix->mask] = r.ix->tab[i];
		r.ix->tab[i].id = b;
		break;
	}
	ck_assert_ptr_eq(prig_find(&r, sp, 0, 1), pool_block(r.p, a));
}
END_TEST

START_TEST(existing_identity_wins)
{
	uint32_t id = root(5), dup = prig_alloc(&r, gp);

	ck_assert_ptr_eq(prig_seal(&r, dup, 5, 0), pool_block(r.p, id));
	ck_assert_uint_eq(pool_block(r.p, dup)->state, BLK_SEALING);
	ck_assert_uint_eq(r.ix->nr, 1);
	prig_put(&r, dup);
	ck_assert_uint_eq(pool_block(r.p, dup)->state, BLK_FREE);
	prig_check(&r);
}
END_TEST

START_TEST(children_are_counted)
{
	uint32_t a = prig_alloc(&r, gp), b = prig_alloc(&r, gp), c = prig_alloc(&r, gp);

	prig_seal(&r, a, 1, 0);
	prig_seal(&r, b, 2, a);
	prig_seal(&r, c, 3, a);
	ck_assert_uint_eq(pool_block(r.p, a)->nr_kids, 2);
	ck_assert_uint_eq(pool_block(r.p, b)->pos, 1);
	prig_put(&r, a);
	prig_put(&r, b);
	prig_put(&r, c);
	ck_assert(!index_can_evict(r.ix, pool_block(r.p, a)));
	index_evict(r.ix, pool_block(r.p, b), KVMD_MISS_EVICTED);
	ck_assert(!index_can_evict(r.ix, pool_block(r.p, a)));
	index_evict(r.ix, pool_block(r.p, c), KVMD_MISS_EVICTED);
	ck_assert(index_can_evict(r.ix, pool_block(r.p, a)));
	prig_check(&r);
}
END_TEST

START_TEST(leases_and_idleness)
{
	uint32_t id = root(1);

	ck_assert_uint_eq(gp->nr_idle, 1);
	prig_get(&r, id);
	prig_get(&r, id);
	ck_assert_uint_eq(gp->nr_idle, 0);
	ck_assert(!index_can_evict(r.ix, pool_block(r.p, id)));
	prig_check(&r);
	prig_put(&r, id);
	ck_assert_uint_eq(gp->nr_idle, 0);
	prig_put(&r, id);
	ck_assert_uint_eq(gp->nr_idle, 1);
	prig_check(&r);
}
END_TEST

static uint32_t reason(uint32_t n)
{
	uint8_t key[KVMD_KEY_BYTES];

	prig_key(n, key);
	return index_miss_reason(r.ix, sp, 0, key);
}

START_TEST(reasons)
{
	uint32_t a = root(1), b = root(2), c = root(3);

	ck_assert_uint_eq(reason(9), KVMD_MISS_NEVER);
	index_evict(r.ix, pool_block(r.p, a), KVMD_MISS_EVICTED);
	index_evict(r.ix, pool_block(r.p, b), KVMD_MISS_DROPPED);
	ck_assert_uint_eq(reason(1), KVMD_MISS_EVICTED);
	ck_assert_uint_eq(reason(2), KVMD_MISS_DROPPED);
	/* Sealed again: nothing is remembered. */
	b = root(2);
	index_evict(r.ix, pool_block(r.p, b), KVMD_MISS_EVICTED);
	ck_assert_uint_eq(reason(2), KVMD_MISS_EVICTED);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 0), 0);
	ck_assert_uint_eq(reason(3), KVMD_MISS_EPOCH);
	index_evict(r.ix, pool_block(r.p, c), KVMD_MISS_EPOCH);
	ck_assert_uint_eq(reason(3), KVMD_MISS_NEVER);
}
END_TEST

/* A block past its time to live was reported as never seen. */
START_TEST(expired_is_a_reason)
{
	uint32_t id = root(1);
	struct block *b = pool_block(r.p, id);

	ck_assert(index_hittable(r.ix, b));
	b->flags |= BLK_F_TTL;
	b->until = r.p->now + 5;
	ck_assert(index_hittable(r.ix, b));
	r.p->now += 5;
	ck_assert(!index_hittable(r.ix, b));
	ck_assert(!index_hittable(r.ix, NULL));
	ck_assert_uint_eq(reason(1), KVMD_MISS_DROPPED);
}
END_TEST

static void caught(void)
{
	char msg[256] = "";

	ck_assert_int_eq(index_check(r.ix, msg, sizeof(msg)), -EUCLEAN);
	ck_assert_uint_ne(msg[0], 0);
}

START_TEST(check_catches_damage)
{
	uint32_t a = root(1);
	struct block *b = pool_block(r.p, a);
	struct index_entry *e = r.ix->tab;

	root(2);
	b->key[7] ^= 1;
	caught();
	b->key[7] ^= 1;
	prig_check(&r);
	r.ix->nr++;
	caught();
	r.ix->nr--;
	while (e->id != a)
		e++;
	e->id = 0;
	caught();
	e->id = a;
	e->hash ^= 0x80000000u;
	caught();
	e->hash ^= 0x80000000u;
	prig_check(&r);
}
END_TEST

/* Every record in the table: it never fills up. */
START_TEST(all_records)
{
	for (uint32_t i = 0; i < NR; i++)
		root(i);
	ck_assert_uint_eq(r.ix->nr, NR);
	ck_assert_uint_le((uint64_t)r.ix->nr * 4, ((uint64_t)r.ix->mask + 1) * 3);
	prig_check(&r);
	for (uint32_t i = 0; i < NR; i++)
		quiet_assert_ptr_nonnull(prig_find(&r, sp, 0, i));
	ck_assert_ptr_null(prig_find(&r, sp, 0, NR));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("index");
	TCase *tc = tcase_create("index");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, found_until_evicted);
	tcase_add_loop_test(tc, crowded_table, 0, 5);
	tcase_add_test(tc, equal_hash_is_not_identity);
	tcase_add_test(tc, existing_identity_wins);
	tcase_add_test(tc, children_are_counted);
	tcase_add_test(tc, leases_and_idleness);
	tcase_add_test(tc, reasons);
	tcase_add_test(tc, expired_is_a_reason);
	tcase_add_test(tc, check_catches_damage);
	tcase_add_test(tc, all_records);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
