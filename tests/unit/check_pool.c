/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_pool.c - records, slots and charges: allocation, release, and the check.
 */
#include "kvmd/lib/mem.h"
#include "pool_rig.h"
#include "tests/suite.h"

static struct prig r;
static struct kvmd_space m;
static struct space *sp;
static struct gpool *gp;

/* Slabs of 8 slots: 7 usable ones in the first, 8, 8, and 1 in the last. */
static void setup(void)
{
	prig_init(&r, "null", 64, 8 * 4096, 1 << 20, NULL);
	prig_geometry(&m, 4096, 25);
	sp = prig_space(&r, "s", r.t[0], &m, "lru");
	gp = &sp->gp[0];
}

static void teardown(void)
{
	prig_exit(&r);
}

START_TEST(all_or_nothing)
{
	uint32_t ids[16];

	ck_assert_int_eq(pool_alloc(r.p, gp, 1, 7, 0, ids), -EAGAIN);
	prig_grow(&r, gp, 1);
	ck_assert_uint_eq(gp->nr_free, 7);
	ck_assert_int_eq(pool_alloc(r.p, gp, 8, 7, 0, ids), -EAGAIN);
	ck_assert_int_eq(pool_alloc(r.p, gp, 7, 7, 1, ids), -EAGAIN);
	ck_assert_uint_eq(gp->nr_free, 7);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 0);
	ck_assert_int_eq(pool_alloc(r.p, gp, 6, 7, 1, ids), 0);
	ck_assert_uint_eq(gp->nr_free, 1);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 6 * 4096);
	prig_check(&r);
}
END_TEST

START_TEST(private_block_as_told)
{
	uint32_t id;
	const struct block *b;

	prig_grow(&r, gp, 1);
	id = prig_alloc(&r, gp);
	b = pool_block(r.p, id);
	ck_assert_uint_ne(id, 0);
	ck_assert_uint_eq(b->state, BLK_OPEN);
	ck_assert_uint_eq(b->leases, 1);
	ck_assert_uint_eq(b->owner, 7);
	ck_assert_uint_eq(b->sid, sp->sid);
	ck_assert_uint_eq(b->prio, KVMD_PRIO_DEFAULT);
	ck_assert_uint_eq(gp->slot_owner[b->slot], id);
	ck_assert_uint_eq(pool_id(r.p, b), id);
	ck_assert_ptr_eq(pool_gpool(r.p, b), gp);
}
END_TEST

/* Over several slabs in one go; slot 0 belongs to nobody. */
START_TEST(every_slot_once_and_never_the_null_slot)
{
	uint32_t ids[24];
	bool seen[25] = { 0 };

	prig_grow(&r, gp, 4);
	ck_assert_uint_eq(gp->nr_slots, 24);
	ck_assert_int_eq(slab_grow(r.p, gp), -ENOSPC);
	ck_assert_int_eq(pool_alloc(r.p, gp, 24, 7, 0, ids), 0);
	for (int i = 0; i < 24; i++) {
		uint32_t slot = pool_block(r.p, ids[i])->slot;

		ck_assert(slot > 0 && slot < 25);
		ck_assert(!seen[slot]);
		seen[slot] = true;
	}
	ck_assert_uint_eq(gp->slot_owner[0], 0);
	prig_check(&r);
	for (int i = 0; i < 24; i++)
		pool_free(r.p, pool_block(r.p, ids[i]));
	ck_assert_uint_eq(gp->nr_free, 24);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 0);
	prig_check(&r);
}
END_TEST

START_TEST(last_freed_is_first_used)
{
	uint32_t a, b, slot, gen;

	prig_grow(&r, gp, 1);
	a = prig_alloc(&r, gp);
	b = prig_alloc(&r, gp);
	slot = pool_block(r.p, a)->slot;
	gen = pool_block(r.p, a)->gen;
	pool_free(r.p, pool_block(r.p, a));
	ck_assert_uint_eq(pool_block(r.p, a)->state, BLK_FREE);
	ck_assert_uint_eq(pool_block(r.p, a)->slot, 0);
	ck_assert_uint_eq(prig_alloc(&r, gp), a);
	ck_assert_uint_eq(pool_block(r.p, a)->slot, slot);
	ck_assert_uint_eq(pool_block(r.p, a)->gen, gen + 1);
	pool_free(r.p, pool_block(r.p, b));
	prig_check(&r);
}
END_TEST

START_TEST(records_run_out)
{
	uint32_t ids[64];
	struct space *big;

	prig_geometry(&m, 4096, 0);
	big = prig_space(&r, "big", r.t[1], &m, "lru");
	prig_grow(&r, &big->gp[0], 10);
	ck_assert_uint_gt(big->gp[0].nr_free, 64);
	ck_assert_int_eq(pool_alloc(r.p, &big->gp[0], 65, 7, 0, ids), -ENOSPC);
	ck_assert_int_eq(pool_alloc(r.p, &big->gp[0], 64, 7, 0, ids), 0);
	ck_assert_int_eq(pool_alloc(r.p, &big->gp[0], 1, 7, 0, ids), -ENOSPC);
	ck_assert_uint_eq(r.t[1]->hbm_bytes, 64 * 4096);
	prig_check(&r);
}
END_TEST

/* Planes and shards: one slot number, one charge, an extent for each. */
START_TEST(planes_and_shards)
{
	struct space *wide;
	uint32_t id;

	prig_geometry(&m, 4096, 9);
	m.group[0].planes = 3;
	m.nr_shards = 2;
	wide = prig_space(&r, "wide", r.t[1], &m, "lru");
	ck_assert_uint_eq(wide->gp[0].slot_bytes, 6 * 4096);
	ck_assert_uint_eq(wide->gp[0].slab_slots, 1);
	ck_assert_ptr_ne(wide->dev[0], wide->dev[1]);
	prig_grow(&r, &wide->gp[0], 2);
	ck_assert_uint_eq(wide->gp[0].slab[1]->nr_ext, 6);
	ck_assert_uint_eq(wide->gp[0].nr_slots, 1);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 2 * 3 * 4096);
	ck_assert_uint_eq(r.p->dev[1].used_bytes, 2 * 3 * 4096);
	id = prig_alloc(&r, &wide->gp[0]);
	ck_assert_uint_eq(pool_block(r.p, id)->slot, 1);
	ck_assert_uint_eq(r.t[1]->hbm_bytes, 6 * 4096);
	prig_check(&r);
}
END_TEST

START_TEST(bad_slot_is_never_used_again)
{
	uint32_t id, slot, ids[8];

	prig_grow(&r, gp, 1);
	id = prig_alloc(&r, gp);
	slot = pool_block(r.p, id)->slot;
	pool_mark_bad(r.p, pool_block(r.p, id));
	ck_assert_uint_eq(pool_block(r.p, id)->state, BLK_BAD);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 0);
	ck_assert_int_eq(pool_alloc(r.p, gp, 7, 7, 0, ids), -EAGAIN);
	ck_assert_int_eq(pool_alloc(r.p, gp, 6, 7, 0, ids), 0);
	for (int i = 0; i < 6; i++)
		ck_assert_uint_ne(pool_block(r.p, ids[i])->slot, slot);
	prig_check(&r);
}
END_TEST

/* Who holds it goes on; nobody gets its slot after that. */
START_TEST(a_poisoned_slot_is_bad_when_it_is_freed)
{
	uint32_t id, other, slot;

	prig_grow(&r, gp, 1);
	id = prig_alloc(&r, gp);
	other = prig_alloc(&r, gp);
	slot = pool_block(r.p, id)->slot;
	pool_poison(r.p, pool_block(r.p, id));
	ck_assert_uint_eq(pool_block(r.p, id)->state, BLK_OPEN);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 2 * gp->slot_bytes);
	pool_free(r.p, pool_block(r.p, id));
	ck_assert_uint_eq(pool_block(r.p, id)->state, BLK_BAD);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, gp->slot_bytes);
	pool_free(r.p, pool_block(r.p, other));
	for (int i = 0; i < 6; i++) {
		other = prig_alloc(&r, gp);
		ck_assert_uint_ne(other, 0);
		ck_assert_uint_ne(pool_block(r.p, other)->slot, slot);
	}
	prig_check(&r);
}
END_TEST

START_TEST(nodes)
{
	uint32_t n[64];

	for (int i = 0; i < 64; i++) {
		n[i] = node_alloc(r.p);
		ck_assert_uint_ne(n[i], 0);
		ck_assert_uint_eq(r.p->node[n[i]].nr, 0);
		ck_assert_uint_eq(r.p->node[n[i]].next, 0);
	}
	ck_assert_uint_eq(node_alloc(r.p), 0);
	ck_assert_uint_eq(r.p->nr_free_nodes, 0);
	node_free(r.p, n[5]);
	ck_assert_uint_eq(node_alloc(r.p), n[5]);
}
END_TEST

static void caught(const char *word)
{
	char msg[256] = "";

	ck_assert_int_eq(pool_check(r.p, msg, sizeof(msg)), -EUCLEAN);
	ck_assert_msg(strstr(msg, word) != NULL, "%s", msg);
}

/* Plant a damage, see it caught, repair it. */
START_TEST(check_catches_damage)
{
	uint32_t ids[3], open;
	struct block *b;

	prig_grow(&r, gp, 1);
	prig_chain(&r, gp, 100, 3, ids);
	open = prig_alloc(&r, gp);
	prig_check(&r);
	b = pool_block(r.p, ids[1]);
#define DAMAGE(lvalue, value, word) do { \
		__typeof__(lvalue) was = (lvalue); \
		(lvalue) = (value); \
		caught(word); \
		(lvalue) = was; \
		prig_check(&r); \
	} while (0)
	DAMAGE(b->slot, pool_block(r.p, ids[0])->slot, "slot is not its own");
	DAMAGE(b->slot, 0, "is in no tier");
	DAMAGE(b->nr_kids_ram, 1, "children");
	DAMAGE(b->nr_kids_disk, 1, "children");
	DAMAGE(b->state, 77, "impossible");
	DAMAGE(b->sid, POOL_MAX_SIDS - 1, "impossible");
	DAMAGE(b->leases, 1, "idle flag");
	DAMAGE(b->flags, 0, "idle flag");
	DAMAGE(b->nr_kids, 2, "children");
	DAMAGE(b->parent, 0, "children");
	DAMAGE(b->parent, open, "parent is not sealed");
	DAMAGE(pool_block(r.p, open)->leases, 2, "exactly one lease");
	DAMAGE(gp->nr_free, 1, "free");
	DAMAGE(gp->nr_idle, 1, "idle");
	DAMAGE(gp->nr_slots, 1, "slots");
	DAMAGE(gp->slot_owner[7], open, "counted as used");
	DAMAGE(r.t[0]->hbm_bytes, 4096, "tenant default");
	DAMAGE(r.p->nr_free_blk, 1, "records");
#undef DAMAGE
}
END_TEST

START_TEST(fresh_records_are_not_touched)
{
	prig_grow(&r, gp, 1);
	ck_assert_uint_eq(r.p->next_fresh, 1);
	prig_alloc(&r, gp);
	ck_assert_uint_eq(r.p->next_fresh, 2);
	ck_assert_uint_eq(r.p->nr_free_blk, 63);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pool");
	TCase *tc = tcase_create("pool");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, all_or_nothing);
	tcase_add_test(tc, private_block_as_told);
	tcase_add_test(tc, every_slot_once_and_never_the_null_slot);
	tcase_add_test(tc, last_freed_is_first_used);
	tcase_add_test(tc, records_run_out);
	tcase_add_test(tc, planes_and_shards);
	tcase_add_test(tc, bad_slot_is_never_used_again);
	tcase_add_test(tc, a_poisoned_slot_is_bad_when_it_is_freed);
	tcase_add_test(tc, nodes);
	tcase_add_test(tc, check_catches_damage);
	tcase_add_test(tc, fresh_records_are_not_touched);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
