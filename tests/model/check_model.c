/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_model.c - random operations on the daemon's real code, against model.c.
 *
 * Three clients, two spaces of two tenants on one small device: memory runs out,
 * slabs move, clients die, steps complete late. Each step of the test does one
 * thing, then compares: completions with what the model says; rows with the
 * model's sequences; the bytes of every slot that a sequence or an unfinished
 * GPU step names with the content that was written for that key; and all of the
 * daemon's own books with each other (core_walk).
 *
 * GPU steps are played: one reads and writes the slots that its row named when it
 * was submitted, at the moment when it completes. Free slots are overwritten after
 * each step of the test, so that one that is freed too early is found at once.
 *
 * KVMD_MODEL_SEED (printed) and KVMD_MODEL_STEPS repeat a run.
 */
#include <check.h>
#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"
#include "driver.h"

static uint64_t seed, seen[6];
static const char *const tenants[M_SPACES] = { "default", "other" };

/* ------------------------------------------------------------ clients, the rest */

static void connect_client(unsigned i)
{
	struct client *k = &cli[i];

	*k = (struct client) { .space = i == M_SESSIONS - 1, .life = GONE };
	for (uint32_t sq = 0; sq < M_SEQS; sq++)
		mm.seq[i][sq] = (struct m_seq) { 0 };
	mc.features = i == 1 ? 0 : KVMD_FEAT_POS;	/* one that knows no pos words */
	core_client(&mc, &k->cl, tenants[k->space], &geo[k->space], M_SEQS, M_POS * 16);
	k->life = ALIVE;
}

static void die(unsigned i)
{
	struct client *k = &cli[i];

	if (k->life != ALIVE)
		return;
	core_close(&k->cl);
	k->life = CLOSED;
	k->prepared = false;		/* what was prepared may be running */
	for (uint32_t sq = 0; sq < M_SEQS; sq++)
		mm.seq[i][sq] = (struct m_seq) { 0 };
}

/* A dead client's steps run on until its process is gone. */
static void go_on_dying(unsigned i)
{
	struct client *k = &cli[i];

	if (k->life == CLOSED && !k->nr_steps) {
		core_gone(&k->cl);
		k->life = GONE;
	} else if (k->life == GONE) {
		connect_client(i);
	}
}

static void raise_epoch(uint32_t sp)
{
	struct space *space = space_find(mc.d->pool, geo[sp].name);

	/* An open that is on its way could be of either epoch. */
	for (unsigned i = 0; i < M_SESSIONS; i++)
		for (unsigned n = 0; n < NR_OPS; n++)
			if (cli[i].life == ALIVE && cli[i].op[n].busy &&
			    cli[i].op[n].e.opcode == KVMD_OP_SEQ_OPEN)
				return;
	if (space && !space_raise_epoch(mc.d->pool, space, 0)) {
		epoch_raised(mc.d, space);
		mm.epoch[sp]++;
	}
}

static void drain_some_slab(void)
{
	struct slab *s = &mc.d->pool->slab[rnd(12)];

	if (s->state == SLAB_DRAINING && !s->taker) {
		slab_undrain(mc.d->pool, s);
	} else if (s->state == SLAB_ACTIVE) {
		s->scan = 0;
		slab_drain(mc.d->pool, s, NULL);
	}
	mc.d->rc.kick = true;
}

/* They were seen before; now the daemon is told. */
static void take_completions(unsigned i)
{
	if (cli[i].life == ALIVE && !cli[i].prepared)
		st_rel(&cli[i].cl.s->ring.sh->cq_head, cli[i].cl.cq_head);
}

static void one_step(void)
{
	unsigned i = rnd(M_SESSIONS), what = rnd(1000);

	if (what < 600)
		act(i);
	else if (what < 740)
		step_submit(i);
	else if (what < 890)
		step_complete(i);
	else if (what < 930)
		take_completions(i);
	else if (what < 960)
		core_work(&mc);
	else if (what < 963)
		die(i);
	else if (what < 965)
		raise_epoch(cli[i].space);
	else if (what < 970)
		drain_some_slab();
	else if (what < 990)
		go_on_dying(i);
	else
		mc.skew_ns += what < 998 ? 200000 : TICKET_NS;
	mc.skew_ns += rnd(20000);
	mc.ticks += !rnd(10);
	if (rnd(3))
		core_turn(&mc);
	if (rnd(2))
		for (i = 0; i < M_SESSIONS; i++)
			if (cli[i].life == ALIVE)
				core_pump(&cli[i].cl);
	/* The client must not run out of places for completions. */
	for (i = 0; i < M_SESSIONS; i++)
		if (cli[i].life == ALIVE && cli[i].cl.sq_tail - cli[i].cl.s->ring.sh->cq_head > 48)
			take_completions(i);
}

static void run(const char *const *opts, uint32_t nr_steps)
{
	core_init(&mc, opts);
	mc.base_ns = clock_ns();
	mc.by_hand = true;
	mc.after = collect;
	mc.d->rc.throttle_ns = 0;	/* measured by the real clock */
	memset(&mc.d->ix->seed, 7, sizeof(mc.d->ix->seed));	/* a run can be repeated */
	mm = (struct model) { .next_tag = 1 };
	memset(tick, 0, sizeof(tick));
	memset(cli, 0, sizeof(cli));
	core_geometry(&geo[0], "first", 1024, 41);
	core_geometry(&geo[1], "second", 1024, 33);
	for (unsigned i = 0; i < M_SESSIONS; i++)
		connect_client(i);
	for (uint32_t n = 0; n < nr_steps; n++) {
		one_step();
		poison_free_slots();
		check_rows();
		core_walk(&mc);
	}
	for (unsigned i = 0; i < M_SESSIONS; i++) {
		die(i);
		while (cli[i].nr_steps)
			step_complete(i);
		if (cli[i].life == CLOSED)
			core_gone(&cli[i].cl);
	}
	mc.skew_ns += 2 * TICKET_NS;
	core_settle(&mc);
	core_walk(&mc);
	/* What is left is cache, and nobody's. */
	for (uint32_t id = 1; id < mc.d->pool->next_fresh; id++)
		ck_assert_uint_eq(pool_block(mc.d->pool, id)->state == BLK_FREE ? 0 :
				  pool_block(mc.d->pool, id)->leases, 0);
	seen[0] = stat_get(BLOCKS_HIT);
	seen[1] = stat_get(BLOCKS_PUBLISHED);
	seen[2] = stat_get(BLOCKS_MERGED);
	seen[3] = stat_get(BLOCKS_EVICTED);
	seen[4] = stat_get(SLABS_MOVED);
	seen[5] = stat_get(ALLOC_DEADLOCKS);
	core_exit(&mc);
}

static uint32_t steps_of(uint32_t standard)
{
	const char *env = getenv("KVMD_MODEL_STEPS");

	return env ? (uint32_t)strtoul(env, NULL, 0) : standard;
}

static void start(int n)
{
	const char *env = getenv("KVMD_MODEL_SEED");

	seed = env ? strtoull(env, NULL, 0) : clock_ns() + (uint64_t)n;
	rng = seed;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
}

static void report(void)
{
	for (unsigned op = 0; getenv("KVMD_MODEL_SEED") && op < KVMD_NR_OP; op++)
		if (nr_done[op])
			printf("%s: %llu, refused %llu\n", ring_op_name(op),
			       (unsigned long long)nr_done[op],
			       (unsigned long long)nr_refused[op]);
	if (getenv("KVMD_MODEL_SEED"))
		printf("hit %llu, sealed %llu, merged %llu, evicted %llu, slabs moved %llu, "
		       "deadlocks %llu\n",
		       (unsigned long long)seen[0], (unsigned long long)seen[1],
		       (unsigned long long)seen[2], (unsigned long long)seen[3],
		       (unsigned long long)seen[4], (unsigned long long)seen[5]);
}

#define COMMON	"pool.deadlock_time=100us", "pool.ticket_timeout=20ms", \
		"pool.step_stall=10000s", "pool.slab_bytes=8K", "pool.nodes=256", \
		"tenant.other.pin_bytes=4K", \
		"tenant.default.pin_bytes=4K"

/* Slots are short: reclaim, waiting, deadlocks; slabs move between the spaces. */
START_TEST(memory_is_short)
{
	const char *const opts[] = {
		COMMON, "device.host-0.bytes=60K", "pool.policy=lru", "pool.blocks=200", NULL,
	};

	start(_i);
	run(opts, steps_of(40000));
	report();
}
END_TEST

/* Records are short before slots are, and some copies fail. */
START_TEST(records_are_short)
{
	const char *const opts[] = {
		COMMON, "device.host-0.bytes=1M", "pool.policy=s3fifo", "pool.blocks=40",
		"daemon.workers=1", "pool.fault=copy:prob=0.1,seed=5", NULL,
	};

	start(_i + 1000);
	run(opts, steps_of(40000));
	report();
}
END_TEST

/* Watermarks, a max, a high and a min. */
START_TEST(tenants_have_limits)
{
	const char *const opts[] = {
		COMMON, "device.host-0.bytes=64K", "pool.blocks=100", "pool.wmark_min=5%",
		"pool.wmark_low=10%", "pool.wmark_high=20%", "tenant.default.hbm_max=30K",
		"tenant.default.hbm_high=24K", "tenant.other.hbm_min=8K", NULL,
	};

	start(_i + 2000);
	run(opts, steps_of(40000));
	report();
}
END_TEST

static void add(Suite *s, const char *name, const TTest *t)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 600);
	tcase_add_loop_test(tc, t, 0, 4);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("model");
	SRunner *sr;
	int failed;

	add(s, "memory", memory_is_short);
	add(s, "records", records_are_short);
	add(s, "tenants", tenants_have_limits);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
