/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_defer.c - queues of nodes, and leases that end only when nobody reads.
 */
#include "tests/core_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

static const char *const opts[] = {
	"pool.blocks=256", "pool.nodes=64", "pool.slab_bytes=64K", "device.host-0.bytes=1M",
	"pool.policy=lru", "tenant.default.pin_bytes=1M", "tenant.default.hbm_max=1M", NULL,
};

static struct core c;
static struct core_client a, b;
static struct pool *p;
static struct gpool *gp;

static void setup(void)
{
	struct kvmd_space m;

	core_init(&c, opts);
	core_geometry(&m, "s", 4096, 65);
	core_client(&c, &a, "default", &m, 4, 1024);
	core_client(&c, &b, "default", &m, 4, 1024);
	p = c.d->pool;
	gp = &a.s->sp->gp[0];
}

static void teardown(void)
{
	core_walk(&c);
	core_exit(&c);
}

/* ------------------------------------------------------------------ the queues */

START_TEST(order_and_conditions)
{
	struct nodeq q = { 0 };
	uint32_t free0 = p->nr_free_nodes;

	for (uint32_t i = 1; i <= 2 * NODE_IDS; i++)
		ck_assert(nodeq_add(p, &q, 5, i));
	ck_assert_uint_eq(p->nr_free_nodes, free0 - 2);
	ck_assert(nodeq_add(p, &q, 6, 100));
	ck_assert_uint_eq(p->nr_free_nodes, free0 - 3);
	ck_assert_uint_eq(p->node[q.head].when, 5);
	ck_assert_uint_eq(p->node[q.head].id[0], 1);
	ck_assert_uint_eq(p->node[q.tail].when, 6);
	for (uint32_t i = 1; i <= 2 * NODE_IDS; i++)
		ck_assert(nodeq_remove(p, &q, i));
	ck_assert(nodeq_remove(p, &q, 100));
	ck_assert(!nodeq_remove(p, &q, 100));
	ck_assert_uint_eq(q.head, 0);
	ck_assert_uint_eq(q.tail, 0);
	ck_assert_uint_eq(p->nr_free_nodes, free0);
}
END_TEST

START_TEST(splice)
{
	struct nodeq q = { 0 }, more = { 0 };

	nodeq_splice(p, &q, &more, 3);
	ck_assert_uint_eq(q.head, 0);
	nodeq_add(p, &more, 0, 1);
	nodeq_splice(p, &q, &more, 3);
	ck_assert_uint_eq(more.head, 0);
	ck_assert_uint_eq(p->node[q.head].when, 3);
	nodeq_add(p, &more, 0, 2);
	nodeq_splice(p, &q, &more, 4);
	ck_assert_uint_eq(p->node[q.tail].when, 4);
	ck_assert_uint_eq(p->node[q.head].next, q.tail);
	nodeq_remove(p, &q, 1);
	nodeq_remove(p, &q, 2);
}
END_TEST

START_TEST(nodes_run_out)
{
	struct nodeq q = { 0 };
	uint32_t n = 0;

	while (nodeq_add(p, &q, n, 1))
		n++;
	ck_assert_uint_eq(n, 64);
	while (nodeq_remove(p, &q, 1))
		n--;
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(p->nr_free_nodes, 64);
}
END_TEST

/*
 * Pinned and unpinned in turns, each time the oldest goes: the emptied nodes
 * stayed in the queue until no node was left for anybody.
 */
START_TEST(pins_that_come_and_go)
{
	uint8_t keys[64 * KVMD_KEY_BYTES];
	struct kvmd_sqe e = { .opcode = KVMD_OP_ADVISE, .nr = 1 };

	core_fill(&a, 0, 1, 48);
	core_keys(1, 0, 48, keys);
	for (int i = 0; i < 1500; i++) {
		e.arg = KVMD_ADV_PIN;
		e.off = core_args(&a, keys + i % 48 * KVMD_KEY_BYTES, KVMD_KEY_BYTES);
		quiet_assert_int_eq(core_do(&a, &e).res, 1);
		if (i < 24)
			continue;
		e.arg = KVMD_ADV_UNPIN;
		e.off = core_args(&a, keys + (i - 24) % 48 * KVMD_KEY_BYTES, KVMD_KEY_BYTES);
		quiet_assert_int_eq(core_do(&a, &e).res, 1);
	}
	ck_assert_uint_ge(p->nr_free_nodes, 64 - 26);
}
END_TEST

/* --------------------------------------------------------------- merged blocks */

/* Both clients compute one block; @b publishes second, and its own is the duplicate. */
static uint32_t merge_one(void)
{
	uint8_t key[KVMD_KEY_BYTES];
	struct kvmd_sqe e;
	struct kvmd_cqe q;
	uint32_t dup;

	core_keys(9, 0, 1, key);
	e = core_open(&b, 0, key, 1);
	ck_assert_int_eq(core_do(&b, &e).res, 0);
	e = core_extend(0, 1);
	ck_assert_int_eq(core_do(&b, &e).res, 1);
	dup = seq_blocks(&b.s->st, 0, 0)[0];
	core_fill(&a, 0, 9, 1);
	core_step_submit(&b, 7);
	e = core_publish(&b, 0, 0, key, 1);
	core_submit(&b, &e);
	core_settle(&c);
	ck_assert(core_peek(&b, &q));
	ck_assert_int_eq(q.res, 1);
	ck_assert_uint_eq(q.v0, 1);
	ck_assert_uint_eq(seq_blocks(&b.s->st, 0, 0)[0], seq_blocks(&a.s->st, 0, 0)[0]);
	core_walk(&c);
	return dup;
}

START_TEST(duplicate_waits_for_taking_and_for_steps)
{
	uint32_t dup = merge_one();
	struct kvmd_cqe q;

	core_step_complete(&b, 7);
	core_settle(&c);
	/* The client has not taken it: a step it submits now may still read it. */
	ck_assert_uint_ne(pool_block(p, dup)->state, BLK_FREE);
	core_step_submit(&b, 8);
	ck_assert(core_take(&b, &q));
	core_settle(&c);
	ck_assert_uint_ne(pool_block(p, dup)->state, BLK_FREE);
	/* What is submitted afterwards does not count. */
	core_step_submit(&b, 9);
	core_settle(&c);
	core_walk(&c);
	core_step_complete(&b, 8);
	core_settle(&c);
	ck_assert_uint_eq(pool_block(p, dup)->state, BLK_FREE);
}
END_TEST

START_TEST(duplicate_of_a_dead_client)
{
	uint32_t dup = merge_one();

	core_close(&b);
	core_settle(&c);
	ck_assert_uint_ne(pool_block(p, dup)->state, BLK_FREE);
	core_walk(&c);
	core_gone(&b);
	core_settle(&c);
	ck_assert_uint_eq(pool_block(p, dup)->state, BLK_FREE);
	ck_assert_uint_eq(pool_block(p, seq_blocks(&a.s->st, 0, 0)[0])->leases, 1);
}
END_TEST

/* No node: the block stays private, and the publish says so. */
START_TEST(no_node_no_merge)
{
	struct nodeq q = { 0 };
	uint8_t key[KVMD_KEY_BYTES];
	struct kvmd_sqe e;
	struct kvmd_cqe r;

	core_fill(&a, 0, 9, 1);
	core_keys(9, 0, 1, key);
	e = core_open(&b, 0, NULL, 0);
	core_do(&b, &e);
	e = core_extend(0, 1);
	core_do(&b, &e);
	while (nodeq_add(p, &q, p->nr_free_nodes, 0))
		;
	e = core_publish(&b, 0, 0, key, 1);
	r = core_do(&b, &e);
	ck_assert_int_eq(r.res, 0);
	ck_assert_uint_eq(r.v1, 1);
	ck_assert_uint_eq(pool_block(p, seq_blocks(&b.s->st, 0, 0)[0])->state, BLK_OPEN);
	nodeq_release(c.d->ix, &q);
}
END_TEST

/*
 * A client that says it has taken completions that were never written. Its
 * operations were all in use, room was seen for more, and one that is not there
 * was taken from the stack of free ones.
 */
START_TEST(hostile_head_with_all_operations_in_use)
{
	struct kvmd_sqe e;
	uint32_t parked;

	merge_one();			/* something waits for b to take this completion */
	core_step_submit(&b, 100);
	for (uint32_t i = 0; i < 63; i++) {
		e = core_extend(0, 1);
		e.opcode = KVMD_OP_SEQ_TRIM;
		e.nr = 0;
		e.step = 100;
		core_submit(&b, &e);
	}
	core_settle(&c);
	parked = b.s->nr_ops - b.s->nr_op_free;
	ck_assert_uint_eq(parked, 63);
	b.s->ring.sh->cq_head = b.s->ring.cq_tail + parked;
	for (uint32_t i = 0; i < 64; i++)
		core_submit(&b, &e);
	core_settle(&c);
	ck_assert_uint_eq(b.s->nr_op_free, 1);
	core_walk(&c);
}
END_TEST

/* ----------------------------------------------------------- unshare, and deaths */

static void occupy_jobs(bool busy)
{
	for (uint32_t i = 0; i < NR_COPY_JOBS; i++)
		c.d->job[i].busy = busy;
}

/* It has its block and waits for a copy engine; the block was lost with the session. */
START_TEST(unshare_without_a_copy_engine_dies)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_UNSHARE, 0);
	uint32_t nr_free;

	core_fill(&a, 0, 1, 2);
	core_fill(&b, 0, 1, 2);
	nr_free = gp->nr_free;
	occupy_jobs(true);
	core_submit(&b, &e);
	for (int i = 0; i < 5; i++)
		core_turn(&c);
	ck_assert_uint_eq(gp->nr_free, nr_free - 1);
	core_walk(&c);
	core_gone(&b);
	for (int i = 0; i < 5; i++)
		core_turn(&c);
	occupy_jobs(false);
	core_settle(&c);
	ck_assert_uint_eq(gp->nr_free, nr_free);
}
END_TEST

/* It was served, then had to wait for a copy engine, and believed in its reserve still. */
START_TEST(fork_waits_for_memory_then_for_a_copy_engine)
{
	struct kvmd_sqe e;
	struct kvmd_cqe q;

	e = core_open(&b, 0, NULL, 0);
	core_do(&b, &e);
	e = core_extend(0, 60);
	ck_assert_int_eq(core_do(&b, &e).res, 60);
	e = core_open(&a, 0, NULL, 0);
	core_do(&a, &e);
	e = core_extend(0, 4);
	ck_assert_int_eq(core_do(&a, &e).res, 4);
	e = core_op(KVMD_OP_SEQ_FORK, 0);
	e.first = 1;
	core_submit(&a, &e);
	core_turn(&c);
	ck_assert_uint_eq(a.s->nr_waiting, 1);
	occupy_jobs(true);
	e = core_op(KVMD_OP_SEQ_TRIM, 0);
	e.flags = KVMD_TRIM_TAIL;
	e.first = 59;
	core_submit(&b, &e);
	for (int i = 0; i < 5; i++)
		core_turn(&c);
	/* b takes it back before a copy engine is free. */
	e = core_extend(0, 1);
	core_submit(&b, &e);
	core_turn(&c);
	occupy_jobs(false);
	for (int i = 0; i < 5; i++)
		core_turn(&c);
	core_walk(&c);
	core_gone(&b);
	core_settle(&c);
	ck_assert(core_take(&a, &q));
	ck_assert_int_eq(q.res, 4);
}
END_TEST

/* The pins of a client whose bell was armed were taken off its tenant's account twice. */
START_TEST(pins_of_a_dead_client_are_given_back_once)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_ADVISE, .nr = 2, .arg = KVMD_ADV_PIN };
	uint8_t keys[2 * KVMD_KEY_BYTES];

	core_fill(&a, 0, 1, 2);
	core_keys(1, 0, 2, keys);
	e.off = core_args(&a, keys, sizeof(keys));
	ck_assert_int_eq(core_do(&a, &e).res, 2);
	ck_assert_uint_eq(a.s->tenant->pinned_bytes, 8192);
	ck_assert_int_eq(uring_read(c.d->u, &a.s->bell_req, a.s->bell_fd, &a.s->bell_val,
				    sizeof(a.s->bell_val)), 0);
	core_gone(&a);
	for (int i = 0; i < 100 && a.conn->s; i++) {
		core_turn(&c);
		core_walk(&c);
		uring_wait(c.d->u, 1000000);
	}
	ck_assert_ptr_null(a.conn->s);
	ck_assert_uint_eq(tenant_find(p, "default")->pinned_bytes, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("defer");
	TCase *tc = tcase_create("defer");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, order_and_conditions);
	tcase_add_test(tc, splice);
	tcase_add_test(tc, nodes_run_out);
	tcase_add_test(tc, pins_that_come_and_go);
	tcase_add_test(tc, duplicate_waits_for_taking_and_for_steps);
	tcase_add_test(tc, duplicate_of_a_dead_client);
	tcase_add_test(tc, no_node_no_merge);
	tcase_add_test(tc, hostile_head_with_all_operations_in_use);
	tcase_add_test(tc, unshare_without_a_copy_engine_dies);
	tcase_add_test(tc, fork_waits_for_memory_then_for_a_copy_engine);
	tcase_add_test(tc, pins_of_a_dead_client_are_given_back_once);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
