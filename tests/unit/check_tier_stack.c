// SPDX-License-Identifier: Apache-2.0
/*
 * check_tier_stack.c - test tiers over a bottom tier that the test drives.
 */
#include "ram_rig.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/tier.h"
#include "tests/suite.h"

#define NR	600u		/* more than an element passes on at a time */

/* ------------------------------------------------------------ the bottom tier */

static struct fake {
	struct tier t;
	struct tier_req *head, **end;	/* accepted, finished by finish() */
	unsigned nr_reads, nr_writes, nr_polls, nr_frees, nr_destroyed;
	uint32_t last_free, next_place;
	uint64_t next_ns;
	bool freed_under_way;		/* a place was freed that a request had not reached */
} fake;

static uint32_t fake_alloc(struct tier *t, struct gpool *gp, uint32_t block, uint64_t bytes)
{
	(void)gp;
	(void)block;
	if (t->used_bytes + bytes > t->bytes)
		return 0;
	t->used_bytes += bytes;
	return fake.next_place++;
}

static void fake_free(struct tier *t, uint32_t place)
{
	t->used_bytes -= 4096;
	fake.nr_frees++;
	fake.last_free = place;
}

static void accept(struct tier_req *r)
{
	if (fake.nr_frees && r->place == fake.last_free)
		fake.freed_under_way = true;
	r->next = NULL;
	*fake.end = r;
	fake.end = &r->next;
	fake.t.nr_inflight++;
}

static void fake_read(struct tier *t, struct tier_req *r)
{
	ck_assert_ptr_eq(r->tier, t);
	fake.nr_reads++;
	accept(r);
}

static void fake_write(struct tier *t, struct tier_req *r)
{
	ck_assert_ptr_eq(r->tier, t);
	fake.nr_writes++;
	accept(r);
}

static unsigned fake_poll(struct tier *t)
{
	(void)t;
	fake.nr_polls++;
	return 0;
}

static uint64_t fake_next_ns(struct tier *t)
{
	(void)t;
	return fake.next_ns;
}

static void fake_destroy(struct tier *t)
{
	(void)t;
	fake.nr_destroyed++;
}

static const struct tier_ops fake_ops = {
	"fake", fake_alloc, fake_free, fake_read, fake_write, fake_poll, fake_next_ns, fake_destroy
};

/* End what the bottom tier has, all of it with @err. */
static unsigned finish(int err)
{
	struct tier_req *r = fake.head, *next;
	unsigned nr = 0;

	fake.head = NULL;
	fake.end = &fake.head;
	for (; r; r = next, nr++) {
		next = r->next;
		fake.t.nr_inflight--;
		r->err = err;
		if (!err && r->mem)
			r->sum = sum_of(r->mem, r->bytes);
		r->done(r);
	}
	return nr;
}

/* -------------------------------------------------------------------- the rig */

static struct tier *top;
static struct tier_req req[NR];
static struct tier_req *order[NR];
static unsigned nr_done;

static void done(struct tier_req *r)
{
	order[nr_done++] = r;
}

static void setup(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.t.ops = &fake_ops;
	fake.t.kind = TIER_DISK;
	fake.t.bytes = 1 << 20;
	fake.end = &fake.head;
	fake.next_place = 1;
	memset(req, 0, sizeof(req));
	for (unsigned i = 0; i < NR; i++) {
		req[i].place = i + 1;
		req[i].err = 1;
		req[i].done = done;
	}
	nr_done = 0;
	top = NULL;
}

static void teardown(void)
{
	unsigned nr = fake.nr_destroyed;

	if (!top)
		return;
	tier_destroy(top);
	ck_assert_uint_eq(fake.nr_destroyed, nr + 1);
}

static void stack(const char *spec)
{
	char msg[256] = "";
	int err = tier_stack(&fake.t, spec, &top, msg, sizeof(msg));

	ck_assert_msg(!err, "%s: %d %s", spec, err, msg);
}

static unsigned poll_top(void)
{
	return top->ops->poll(top);
}

/* ----------------------------------------------------------------------- null */

START_TEST(null_keeps_nothing)
{
	stack("null");
	ck_assert_str_eq(top->ops->name, "null");
	tier_write(top, &req[0]);
	tier_read(top, &req[1]);
	ck_assert_uint_eq(nr_done, 0);	/* never inside the call */
	ck_assert_uint_eq(top->nr_inflight, 2);
	ck_assert_uint_ne(top->ops->next_ns(top), 0);
	ck_assert_uint_eq(poll_top(), 2);
	ck_assert_uint_eq(nr_done, 2);
	ck_assert_int_eq(req[0].err, 0);
	ck_assert_int_eq(req[1].err, -ENODATA);
	ck_assert_ptr_eq(req[0].tier, top);
	ck_assert_uint_eq(fake.nr_reads + fake.nr_writes, 0);
	ck_assert_uint_eq(top->nr_inflight, 0);
	ck_assert_uint_eq(top->ops->next_ns(top), 0);
	ck_assert_uint_eq(poll_top(), 0);
}
END_TEST

static void again(struct tier_req *r)
{
	if (nr_done++ == 0)
		tier_write(r->tier, r);
}

START_TEST(submitted_from_done_waits_for_the_next_poll)
{
	stack("null");
	req[0].done = again;
	tier_write(top, &req[0]);
	ck_assert_uint_eq(poll_top(), 1);
	ck_assert_uint_eq(nr_done, 1);
	ck_assert_uint_eq(poll_top(), 1);
	ck_assert_uint_eq(nr_done, 2);
	ck_assert_uint_eq(poll_top(), 0);
}
END_TEST

START_TEST(places_and_size_are_those_below)
{
	uint32_t a, b;

	stack("null delay:1h error:alloc,nth=2");
	ck_assert_uint_eq(top->bytes, 1 << 20);
	ck_assert_int_eq(top->kind, TIER_DISK);
	ck_assert_ptr_eq(tier_bottom(top), &fake.t);
	a = top->ops->alloc(top, NULL, 7, 4096);
	b = top->ops->alloc(top, NULL, 8, 4096);
	ck_assert_uint_eq(a, 1);
	ck_assert_uint_eq(b, 0);	/* the error tier */
	ck_assert_uint_eq(top->ops->alloc(top, NULL, 8, 4096), 2);
	ck_assert_uint_eq(top->ops->alloc(top, NULL, 8, 1 << 20), 0);
	ck_assert_uint_eq(top->used_bytes, 8192);
	top->ops->free(top, a);
	ck_assert_uint_eq(fake.last_free, a);
	ck_assert_uint_eq(top->used_bytes, 4096);
	fake.t.bytes = 2 << 20;
	fake.t.broken = true;
	top->draining = true;
	poll_top();
	ck_assert_uint_eq(fake.nr_polls, 1);
	poll_top();	/* one level each */
	poll_top();
	ck_assert_uint_eq(top->bytes, 2 << 20);
	ck_assert(top->broken);
	ck_assert(fake.t.draining);
	fake.t.draining = false;
	for (int i = 0; i < 3; i++)
		poll_top();
	ck_assert(!top->draining);
}
END_TEST

/* ---------------------------------------------------------------------- delay */

START_TEST(passes_on_when_due_and_only_then)
{
	uint64_t before = clock_ns(), due;

	stack("delay:read=1h,write=0");
	tier_read(top, &req[0]);
	tier_write(top, &req[1]);
	ck_assert_uint_eq(fake.nr_writes, 0);
	ck_assert_uint_eq(top->ops->next_ns(top), 1);
	ck_assert_uint_eq(poll_top(), 0);
	ck_assert_uint_eq(fake.nr_writes, 1);
	ck_assert_uint_eq(fake.nr_reads, 0);
	due = top->ops->next_ns(top);
	ck_assert_uint_ge(due, before + 3600000000000ull);
	fake.next_ns = 5;
	ck_assert_uint_eq(top->ops->next_ns(top), 5);
	ck_assert_uint_eq(finish(0), 1);
	ck_assert_uint_eq(nr_done, 1);
	ck_assert_ptr_eq(order[0], &req[1]);
	ck_assert_ptr_eq(req[1].tier, top);
	ck_assert_int_eq(req[1].err, 0);
	ck_assert_uint_eq(top->nr_inflight, 1);
}
END_TEST

START_TEST(results_come_up_through_all)
{
	uint8_t mem[64] = { 1, 2, 3 };

	stack("delay:0 delay:0 delay:0");
	req[0].mem = mem;
	req[0].bytes = sizeof(mem);
	tier_read(top, &req[0]);
	for (int i = 0; i < 3; i++)
		poll_top();
	ck_assert_uint_eq(fake.nr_reads, 1);
	fake.head->planes = 3;
	for (int i = 0; i < 3; i++)
		poll_top();
	ck_assert_uint_eq(req[0].planes, 3);	/* while it is under way */
	finish(0);
	ck_assert_uint_eq(nr_done, 1);
	ck_assert_uint_eq(req[0].sum, sum_of(mem, sizeof(mem)));
	tier_read(top, &req[1]);
	for (int i = 0; i < 3; i++)
		poll_top();
	finish(-EBADMSG);
	ck_assert_int_eq(req[1].err, -EBADMSG);
	ck_assert_uint_eq(top->nr_inflight, 0);
}
END_TEST

/* More than it can pass on wait for their turn, in order. */
START_TEST(many_at_once)
{
	unsigned before;

	stack("delay:0");
	for (unsigned i = 0; i < NR; i++)
		tier_read(top, &req[i]);
	ck_assert_uint_eq(top->nr_inflight, NR);
	while (nr_done < NR) {
		before = nr_done;
		poll_top();
		ck_assert_uint_lt(fake.t.nr_inflight, NR);
		finish(0);
		ck_assert_uint_gt(nr_done, before);
	}
	for (unsigned i = 0; i < NR; i++)
		ck_assert_ptr_eq(order[i], &req[i]);
	ck_assert_uint_eq(top->nr_inflight, 0);
}
END_TEST

/* A place is free for others only when no request for it is waiting above. */
START_TEST(freed_while_waiting)
{
	stack("delay:0");
	tier_read(top, &req[0]);
	tier_write(top, &req[1]);
	req[1].place = req[0].place;
	top->ops->free(top, req[0].place);
	ck_assert_uint_eq(fake.nr_frees, 0);
	poll_top();
	ck_assert_uint_eq(fake.nr_reads, 1);
	ck_assert_uint_eq(fake.nr_writes, 1);
	ck_assert_uint_eq(fake.nr_frees, 1);
	ck_assert_uint_eq(fake.last_free, req[0].place);
	ck_assert(!fake.freed_under_way);
	finish(0);
	ck_assert_uint_eq(nr_done, 2);
}
END_TEST

/* ---------------------------------------------------------------------- error */

START_TEST(the_third_read_fails)
{
	stack("error:read,nth=3");
	for (int i = 0; i < 5; i++)
		tier_read(top, &req[i]);
	tier_write(top, &req[5]);
	ck_assert_uint_eq(poll_top(), 1);
	ck_assert_uint_eq(finish(0), 5);
	ck_assert_uint_eq(nr_done, 6);
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(req[i].err, i == 2 ? -EIO : 0);
}
END_TEST

START_TEST(every_second_write_twice)
{
	stack("error:write,every=2,times=2");
	for (int i = 0; i < 8; i++)
		tier_write(top, &req[i]);
	poll_top();
	finish(0);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(req[i].err, i == 1 || i == 3 ? -EIO : 0);
}
END_TEST

static uint32_t fates_of(const char *spec)
{
	uint32_t bits = 0;

	setup();
	stack(spec);
	for (int i = 0; i < 32; i++)
		tier_read(top, &req[i]);
	poll_top();
	finish(0);
	for (int i = 0; i < 32; i++)
		bits |= (uint32_t)(req[i].err != 0) << i;
	teardown();
	top = NULL;
	return bits;
}

START_TEST(chance_is_repeatable)
{
	uint32_t a = fates_of("error:read,prob=0.5,seed=7");

	ck_assert_uint_ne(a, 0);
	ck_assert_uint_ne(a, UINT32_MAX);
	ck_assert_uint_eq(fates_of("error:read,prob=0.5,seed=7"), a);
	ck_assert_uint_ne(fates_of("error:read,prob=0.5,seed=8"), a);
	ck_assert_uint_eq(fates_of("error:read,prob=1"), UINT32_MAX);
}
END_TEST

static unsigned nr_bits_set(const uint8_t *p, size_t bytes)
{
	unsigned nr = 0;

	for (size_t i = 0; i < bytes; i++)
		nr += (unsigned)__builtin_popcount(p[i]);
	return nr;
}

START_TEST(one_bit_of_what_was_read)
{
	uint8_t mem[2][256] = { { 0 } };

	stack("error:flip,every=2");
	for (int i = 0; i < 4; i++) {
		req[i].mem = mem[i % 2];
		req[i].bytes = sizeof(mem[0]);
		req[i].verify = i >= 2;
		tier_read(top, &req[i]);
		poll_top();
		finish(0);
	}
	ck_assert_uint_eq(nr_bits_set(mem[0], sizeof(mem[0])), 0);
	ck_assert_uint_eq(nr_bits_set(mem[1], sizeof(mem[1])), 2);	/* read twice */
	ck_assert_int_eq(req[1].err, 0);	/* nobody looked */
	ck_assert_uint_eq(req[1].sum, sum_of(mem[0], sizeof(mem[0])));
	ck_assert_int_eq(req[2].err, 0);
	ck_assert_int_eq(req[3].err, -EBADMSG);	/* verified */
}
END_TEST

/* RAM's own byte is turned, so that its checksum catches it, now and ever after. */
START_TEST(one_bit_of_ram)
{
	struct tier_req q = { .block = 1, .slot = 1, .bytes = 4096, .done = done };
	struct tier *bottom;
	struct rrig r;

	rrig_init(&r, "host");
	q.gp = rrig_space(&r, 1, 1, 4096, false);
	rrig_tier(&r, 4 << 20, 4 << 20);
	q.place = rrig_alloc(&r, q.gp, 1);
	memset(rrig_plane(q.gp, 1, 0, 0), 0x11, 4096);
	bottom = r.t;
	ck_assert_int_eq(tier_stack(bottom, "error:flip,nth=2", &r.t, NULL, 0), 0);
	for (unsigned i = 0; i < 4; i++) {
		nr_done = 0;
		if (i)
			tier_read(r.t, &q);
		else
			tier_write(r.t, &q);
		while (!nr_done)
			if (!rrig_turn(&r))
				r.t->ops->poll(r.t);
		ck_assert_int_eq(q.err, i < 2 ? 0 : -EBADMSG);
	}
	r.t->ops->destroy(r.t);
	r.t = bottom;
	rrig_free(&r, q.place);
	rrig_exit(&r);
}
END_TEST

/* ----------------------------------------------------------------------- specs */

START_TEST(an_empty_spec_is_the_bottom)
{
	stack("  ");
	ck_assert_ptr_eq(top, &fake.t);
}
END_TEST

START_TEST(bad_words_are_named)
{
	static const char *const bad[][2] = {
		{ "zero", "zero" },
		{ "null:1", "null:1" },
		{ "delay", "delay" },
		{ "delay:soon", "soon" },
		{ "delay:reed=1ms", "reed=1ms" },
		{ "error", "error" },
		{ "error:seek,nth=1", "seek" },
		{ "error:read", "error:read" },
		{ "error:read,nth=x", "'x'" },
		{ "error:read,often=3", "often" },
		{ "error:read,times=3", "read" },
		{ "null delay:1ms nonsense", "nonsense" },
		{ "null null null null null null null null ninth", "ninth" },
	};
	struct tier *t = NULL;
	char msg[256];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		msg[0] = 0;
		ck_assert_int_eq(tier_stack(&fake.t, bad[i][0], &t, msg, sizeof(msg)), -EINVAL);
		ck_assert_msg(strstr(msg, bad[i][1]), "'%s' says '%s'", bad[i][0], msg);
		ck_assert_ptr_null(t);
	}
	ck_assert_uint_eq(fake.nr_destroyed, 0);	/* still its owner's */
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(tier_kind_name(TIER_RAM), "ram");
	ck_assert_str_eq(tier_kind_name(TIER_DISK), "disk");
	ck_assert_str_eq(tier_kind_name(NR_TIER), "?");
	tier_destroy(NULL);
}
END_TEST

/* Each allocation in turn fails: nothing is left behind, the bottom is untouched. */
START_TEST(out_of_memory)
{
	char spec[32];
	int err = -ENOMEM;

	for (int nth = 1; err; nth++) {
		ck_assert_int_le(nth, 4);
		snprintf(spec, sizeof(spec), "alloc:nth=%d", nth);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		err = tier_stack(&fake.t, "null delay:1ms error:flip,nth=1", &top, NULL, 0);
		fault_disarm();
		ck_assert(!err || err == -ENOMEM);
	}
	ck_assert_uint_eq(fake.nr_destroyed, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tier_stack");
	TCase *tc = tcase_create("stack");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, null_keeps_nothing);
	tcase_add_test(tc, submitted_from_done_waits_for_the_next_poll);
	tcase_add_test(tc, places_and_size_are_those_below);
	tcase_add_test(tc, passes_on_when_due_and_only_then);
	tcase_add_test(tc, results_come_up_through_all);
	tcase_add_test(tc, many_at_once);
	tcase_add_test(tc, freed_while_waiting);
	tcase_add_test(tc, the_third_read_fails);
	tcase_add_test(tc, every_second_write_twice);
	tcase_add_test(tc, chance_is_repeatable);
	tcase_add_test(tc, one_bit_of_what_was_read);
	tcase_add_test(tc, one_bit_of_ram);
	tcase_add_test(tc, an_empty_spec_is_the_bottom);
	tcase_add_test(tc, bad_words_are_named);
	tcase_add_test(tc, names);
	tcase_add_test(tc, out_of_memory);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
