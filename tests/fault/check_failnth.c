/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_failnth.c - the 1st, 2nd, ... nth allocation, copy, message fails: a clean
 * error, nothing leaked, everything as before, until none is hit any more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"
#include "tests/core_rig.h"

static const char *const small[] = {
	"pool.blocks=256", "pool.nodes=64", "pool.slab_bytes=32K", "device.host-0.bytes=1M",
	"pool.policy=lru", NULL,
};

static struct core c;

struct before {
	unsigned fds, maps;
};

static struct before look(void)
{
	return (struct before) { core_nr_fds(), core_nr_maps() };
}

static void same(struct before b)
{
	ck_assert_uint_eq(core_nr_fds(), b.fds);
	ck_assert_uint_eq(core_nr_maps(), b.maps);
}

static void arm(const char *site, unsigned nth)
{
	char spec[64];

	snprintf(spec, sizeof(spec), "%s:nth=%u", site, nth);
	ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
}

/* How often it failed; no more failures. */
static uint64_t disarm(enum fault_site site)
{
	uint64_t hits = fault_nr_hits(site);

	fault_disarm();
	return hits;
}

static void setup(void)
{
	core_init(&c, small);
}

static void teardown(void)
{
	core_exit(&c);
}

/* ------------------------------------------------------------------- allocation */

START_TEST(daemon_start)
{
	struct before b;
	uint64_t hits;
	unsigned n = 0;

	/* What a first start leaves behind for good (signal mask, libraries' own). */
	core_init(&c, small);
	core_exit(&c);
	b = look();
	do {
		int err;

		arm("alloc", ++n);
		err = core_try(&c, small);
		hits = disarm(FAULT_ALLOC);
		ck_assert(!err || (err < 0 && hits));
		core_exit(&c);
		same(b);
	} while (hits);
	ck_assert_uint_gt(n, 8);
}
END_TEST

/* With tiers, whose chunks are made and whose file is read while it starts. */
START_TEST(daemon_start_with_tiers)
{
	char dir[] = "/tmp/kvmd-failnth.XXXXXX", path[64], disk[80];
	const char *const opts[] = {
		"pool.blocks=256", "pool.nodes=64", "device.host-0.bytes=1M", "ram.bytes=16M",
		"ram.chunk=2M", "ram.lock=no", "ram.hugetlb=no", "disk.bytes=16M",
		"disk.segment=1M", disk, NULL,
	};
	struct before b;
	uint64_t hits;
	unsigned n = 0;

	ck_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/kv.img", dir);
	snprintf(disk, sizeof(disk), "disk.path=%s", path);
	core_init(&c, opts);
	core_exit(&c);
	b = look();
	do {
		int err;

		arm("alloc", ++n);
		err = core_try(&c, opts);
		if (!err)
			core_quiet(&c);
		hits = disarm(FAULT_ALLOC);
		ck_assert(!err || (err < 0 && hits));
		if (!err)
			core_walk(&c);
		core_exit(&c);
		same(b);
		ck_assert_int_eq(access(path, F_OK), 0);
	} while (hits);
	ck_assert_uint_gt(n, 20);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

START_TEST(pool_and_index)
{
	const struct pool_opts o = { .nr_blocks = 1000, .nr_nodes = 100, .slab_bytes = 65536 };
	struct before b = look();
	uint64_t hits;
	unsigned n = 0;

	do {
		struct pool *p = NULL;
		struct index *ix = NULL;
		int err;

		arm("alloc", ++n);
		err = pool_create(&o, NULL, &p);
		ck_assert(err ? err == -ENOMEM && !p : p != NULL);
		if (!err) {
			err = index_create(p, 100, &ix);
			ck_assert(err ? err == -ENOMEM && !ix : ix != NULL);
		}
		hits = disarm(FAULT_ALLOC);
		ck_assert(!err == !hits);
		index_destroy(ix);
		pool_destroy(p);
		same(b);
	} while (hits);
	ck_assert_uint_ge(n, 6);
}
END_TEST

START_TEST(hello)
{
	const struct tenant *t = tenant_find(c.d->pool, "default");
	struct before b = look();
	struct core_client cl;
	uint64_t hits;
	unsigned n = 0;

	do {
		int err;

		arm("alloc", ++n);
		err = core_hello(&c, &cl, "default", 4, 256);
		hits = disarm(FAULT_ALLOC);
		ck_assert_int_eq(err, hits ? -ENOMEM : 0);
		if (!err) {
			ck_assert_uint_eq(t->nr_sessions, 1);
			core_gone(&cl);
		}
		core_settle(&c);
		ck_assert_uint_eq(t->nr_sessions, 0);
		ck_assert_uint_eq(t->nr_seqs, 0);
		ck_assert_int_eq(cl.conn->state, CONN_FREE);
		same(b);
	} while (hits);
	ck_assert_uint_gt(n, 4);
}
END_TEST

/* A refused space can be asked for again on the same connection. */
START_TEST(space_open)
{
	struct pool *p = c.d->pool;
	uint64_t metadata = p->metadata_bytes;
	struct core_client cl;
	struct kvmd_space m;
	struct before b;
	unsigned n = 0;
	int err;

	core_geometry(&m, "s", 4096, 33);
	m.nr_groups = 2;
	m.group[1] = m.group[0];
	ck_assert_int_eq(core_hello(&c, &cl, "default", 4, 256), 0);
	b = look();
	do {
		arm("alloc", ++n);
		err = core_space(&cl, &m);
		core_work(&c);
		disarm(FAULT_ALLOC);
		if (err) {
			ck_assert_int_eq(err, -ENOMEM);
			ck_assert_uint_eq(cl.s->state, SESSION_HELLO);
			same(b);
			if (!space_find(p, "s"))
				ck_assert_uint_eq(p->metadata_bytes, metadata);
		}
	} while (err);
	ck_assert_uint_gt(n, 8);
	core_settle(&c);
	core_walk(&c);
	core_gone(&cl);
	core_settle(&c);
	ck_assert_uint_eq(space_find(p, "s")->nr_sessions, 0);
}
END_TEST

/* ------------------------------------------------------------------------ slabs */

/* A space whose first slab could not be made once was of no use for ever after. */
START_TEST(first_slab_fails_and_is_tried_again)
{
	struct core_client cl;
	struct kvmd_space m;
	struct gpool *gp;
	struct kvmd_sqe e;

	core_geometry(&m, "s", 4096, 33);
	arm("slab", 1);
	core_client(&c, &cl, "default", &m, 4, 256);
	gp = &cl.s->sp->gp[0];
	ck_assert_uint_eq(disarm(FAULT_SLAB), 1);
	ck_assert(gp->growth_failed);
	ck_assert_uint_eq(gp->nr_slots, 0);
	ck_assert_uint_eq(c.d->pool->dev[0].used_bytes, 0);
	e = core_open(&cl, 0, NULL, 0);
	ck_assert_int_eq(core_do(&cl, &e).res, 0);
	gp->growth_retry_ns = 0;	/* the pause is over */
	e = core_extend(0, 3);
	ck_assert_int_eq(core_do(&cl, &e).res, 3);
	core_walk(&c);
	core_gone(&cl);
}
END_TEST

/* Each slab of several planes and shards, each extent of it. */
START_TEST(every_extent)
{
	struct core_client cl;
	struct kvmd_space m;
	struct before b;
	uint64_t hits;
	unsigned n = 0;

	core_geometry(&m, "s", 4096, 0);
	m.group[0].planes = 3;
	m.nr_shards = 2;
	m.group[0].max_slots = 3;
	ck_assert_int_eq(core_hello(&c, &cl, "default", 4, 256), 0);
	arm("slab", 1);
	ck_assert_int_eq(core_space(&cl, &m), 0);
	core_settle(&c);
	disarm(FAULT_SLAB);
	b = look();
	do {
		struct gpool *gp = &cl.s->sp->gp[0];

		gp->growth_failed = false;
		arm("slab", ++n);
		ck_assert_int_eq(slab_grow(c.d->pool, gp), 0);
		core_settle(&c);
		hits = disarm(FAULT_SLAB);
		core_walk(&c);
		if (hits) {
			ck_assert_uint_eq(gp->nr_coming, 0);
			ck_assert_uint_eq(c.d->pool->dev[0].used_bytes, 0);
			same(b);
		}
	} while (hits);
	ck_assert_uint_eq(n, 7);
	core_gone(&cl);
}
END_TEST

/* Memory that could not be scrubbed is given back, and fresh memory taken. */
START_TEST(scrub_fails)
{
	struct core_client a, b;
	struct kvmd_space m;
	struct slab *s;

	core_geometry(&m, "a", 4096, 9);
	core_client(&c, &a, "default", &m, 4, 256);
	core_geometry(&m, "b", 4096, 17);
	core_client(&c, &b, "default", &m, 4, 256);
	s = a.s->sp->gp[0].slab[0];
	ck_assert_uint_eq(s->state, SLAB_ACTIVE);
	arm("scrub", 1);
	s->scan = 0;
	slab_drain(c.d->pool, s, &b.s->sp->gp[0]);
	for (int i = 0; i < 4; i++) {
		core_pump(&a);
		core_pump(&b);
		core_settle(&c);
	}
	ck_assert_uint_eq(disarm(FAULT_SCRUB), 1);
	ck_assert_uint_eq(stat_get(SLABS_MOVED), 0);
	ck_assert_uint_eq(stat_get(SLABS_DESTROYED), 1);
	ck_assert_uint_eq(b.s->sp->gp[0].nr_slots, 15);
	ck_assert_uint_eq(a.s->sp->gp[0].nr_slots, 0);
	core_walk(&c);
	core_gone(&a);
	core_gone(&b);
}
END_TEST

/* ----------------------------------------------------------------------- copies */

static uint32_t used(const struct gpool *gp)
{
	return gp->nr_slots - gp->nr_free;
}

static void two_planes(struct core_client *cl)
{
	struct kvmd_space m;

	core_geometry(&m, "s", 4096, 33);
	m.group[0].planes = 70;		/* two rounds of a copy job */
	m.nr_shards = 2;
	c.d->pool->dev[0].budget_bytes = 1ull << 30;
	core_client(&c, cl, "default", &m, 4, 256);
}

START_TEST(unshare_copy_fails)
{
	struct core_client cl;
	struct kvmd_sqe e;
	struct kvmd_cqe q;
	struct gpool *gp;
	unsigned n = 0;
	uint64_t hits;

	two_planes(&cl);
	gp = &cl.s->sp->gp[0];
	core_fill(&cl, 0, 1, 2);
	do {
		uint32_t nr_used = used(gp);
		int32_t slot = seq_row(&cl.s->st, 0, 0)[1];

		arm("copy", ++n);
		e = core_op(KVMD_OP_SEQ_UNSHARE, 0);
		e.first = 1;
		q = core_do(&cl, &e);
		hits = disarm(FAULT_COPY);
		core_walk(&c);
		ck_assert_int_eq(q.res, hits ? -EIO : 1);
		if (hits) {
			ck_assert_uint_eq(used(gp), nr_used);
			ck_assert_int_eq(seq_row(&cl.s->st, 0, 0)[1], slot);
		}
	} while (hits);
	ck_assert_uint_eq(n, 5);
	core_gone(&cl);
}
END_TEST

START_TEST(fork_copy_fails)
{
	struct core_client cl;
	struct kvmd_sqe e;
	struct kvmd_cqe q;
	struct gpool *gp;
	unsigned n = 0;
	uint64_t hits;

	two_planes(&cl);
	gp = &cl.s->sp->gp[0];
	core_fill(&cl, 0, 1, 2);
	e = core_extend(0, 2);
	ck_assert_int_eq(core_do(&cl, &e).res, 2);
	do {
		uint32_t nr_used = used(gp);

		arm("copy", ++n);
		e = core_op(KVMD_OP_SEQ_FORK, 0);
		e.first = 1;
		e.arg = 1;
		q = core_do(&cl, &e);
		hits = disarm(FAULT_COPY);
		core_walk(&c);
		ck_assert_int_eq(q.res, hits ? -EIO : 4);
		ck_assert_uint_eq(cl.s->st.seq[1].state, hits ? SEQ_FREE : SEQ_LIVE);
		ck_assert_uint_eq(used(gp), nr_used + (hits ? 0 : 2));
	} while (hits);
	ck_assert_uint_eq(n, 9);
	core_gone(&cl);
}
END_TEST

/* --------------------------------------------------------------------- messages */

/* The client that cannot be told is lost; nobody else, and nothing with it. */
START_TEST(every_message)
{
	struct core_client cl, other;
	struct kvmd_space m;
	struct before b;
	uint64_t hits;
	unsigned n = 0;

	core_geometry(&m, "s", 4096, 33);
	core_client(&c, &other, "default", &m, 4, 256);
	b = look();
	do {
		arm("send", ++n);
		core_hello(&c, &cl, "default", 4, 256);
		if (cl.conn->sock >= 0)
			core_space(&cl, &m);
		core_settle(&c);
		hits = disarm(FAULT_SEND);
		ck_assert_int_eq(cl.conn->sock < 0, hits != 0);
		if (cl.peer >= 0 || cl.conn->state != CONN_FREE)
			core_gone(&cl);
		core_settle(&c);
		core_walk(&c);
		same(b);
		ck_assert_int_eq(other.conn->state, CONN_LIVE);
	} while (hits);
	ck_assert_uint_eq(n, 4);	/* hello, space, one slab */
	core_gone(&other);
}
END_TEST

/*
 * A slab of many extents goes out in several messages. A client that got the
 * first of them was not remembered as having its memory.
 */
START_TEST(half_announced_slab_is_remembered)
{
	struct core_client cl;
	struct kvmd_space m;
	const struct slab *s;

	core_geometry(&m, "s", 4096, 3);
	m.group[0].planes = KVMD_MAX_FDS + 1;
	c.d->pool->dev[0].budget_bytes = 1ull << 30;
	ck_assert_int_eq(core_hello(&c, &cl, "default", 4, 256), 0);
	ck_assert_int_eq(core_space(&cl, &m), 0);
	arm("send", 2);
	core_settle(&c);
	ck_assert_uint_eq(disarm(FAULT_SEND), 1);
	ck_assert_int_lt(cl.conn->sock, 0);
	s = space_find(c.d->pool, "s")->gp[0].slab[0];
	ck_assert(slab_bit(s->ever, cl.conn->id));
	core_gone(&cl);
	ck_assert(!slab_bit(s->ever, cl.conn->id));
	core_settle(&c);
	core_walk(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("failnth");
	TCase *start = tcase_create("start"), *tc = tcase_create("failnth");
	SRunner *sr;
	int failed;

	tcase_add_test(start, daemon_start);
	tcase_add_test(start, daemon_start_with_tiers);
	tcase_add_test(start, pool_and_index);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, hello);
	tcase_add_test(tc, space_open);
	tcase_add_test(tc, first_slab_fails_and_is_tried_again);
	tcase_add_test(tc, every_extent);
	tcase_add_test(tc, scrub_fails);
	tcase_add_test(tc, unshare_copy_fails);
	tcase_add_test(tc, fork_copy_fails);
	tcase_add_test(tc, every_message);
	tcase_add_test(tc, half_announced_slab_is_remembered);
	tcase_set_timeout(start, 120);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, start);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
