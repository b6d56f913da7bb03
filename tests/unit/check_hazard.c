// SPDX-License-Identifier: Apache-2.0
/*
 * check_hazard.c - what the default policy learns: cohorts, chances, the index.
 */
#include <check.h>

#include "kvmd/lib/fault.h"
#include "kvmd/reclaim/hazard.h"
#include "tests/suite.h"

#define SECOND	16U
#define START	1000000U

static uint64_t state;

static uint32_t random_below(uint32_t n)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)((state >> 33) % n);
}

/*
 * Class 1 comes back after 10 s, class 2 after 1000 s, class 3 never. Until
 * its time class 1 is worth most; past it, it is worth nothing.
 */
START_TEST(learns_when_blocks_come_back)
{
	struct hazard *h = hazard_create(START);
	uint32_t now = START, i;

	ck_assert_ptr_nonnull(h);
	for (i = 0; i < 4000; i++, now += SECOND) {
		hazard_advance(h, now);
		hazard_born(h, 1);
		hazard_born(h, 2);
		hazard_born(h, 3);
		if (i >= 10)
			hazard_reused(h, 1, now - 10 * SECOND);
		if (i >= 1000)
			hazard_reused(h, 2, now - 1000 * SECOND);
	}
	hazard_refresh(h, 8);
	hazard_refresh(h, 8);
	ck_assert(hazard_index(h, 1, now - 8 * SECOND) > 2 * hazard_index(h, 1, now));
	ck_assert(hazard_index(h, 1, now) > 5 * hazard_index(h, 3, now));
	ck_assert(hazard_index(h, 2, now - 900 * SECOND) >
		  5 * hazard_index(h, 3, now - 900 * SECOND));
	ck_assert(hazard_index(h, 1, now) > hazard_index(h, 2, now));
	ck_assert(hazard_index(h, 2, now - 500 * SECOND) > hazard_index(h, 1, now - 500 * SECOND));
	hazard_destroy(h);
}
END_TEST

START_TEST(unknown_class_is_as_all)
{
	struct hazard *h = hazard_create(START);
	uint32_t now = START, i;

	for (i = 0; i < 2000; i++, now += SECOND / 4) {
		hazard_advance(h, now);
		hazard_born(h, 1);
		if (i >= 40)
			hazard_reused(h, 1, now - 10 * SECOND);
		hazard_refresh(h, 4);
	}
	hazard_born(h, 9);
	hazard_advance(h, now);
	ck_assert(hazard_index(h, 9, now - 5 * SECOND) > 0);
	ck_assert(hazard_index(h, 9, now - 5 * SECOND) > hazard_index(h, 9, now - 600 * SECOND));
	hazard_destroy(h);
}
END_TEST

/* Births at random, a part used again at random, against a plain list of them. */
#define NR_PLAIN	20000
struct plain {
	uint32_t when;
	uint32_t until;			/* used again; 0: never */
	uint8_t c;
};

/*
 * @ret_least of those of class @c got to @age by any counting, @ret_most by the
 * most generous: a cell is an eighth of its age wide at most.
 */
static void plain_reached(const struct plain *p, uint8_t c, uint32_t age, uint32_t now,
			  double *ret_least, double *ret_most)
{
	uint32_t i, lived;

	*ret_least = *ret_most = 0;
	for (i = 0; i < NR_PLAIN; i++) {
		if (p[i].c != c)
			continue;
		lived = p[i].until ? p[i].until - p[i].when : now - p[i].when;
		*ret_least += lived >= age + age / 8 + 2;
		*ret_most += lived + lived / 8 + 2 >= age;
	}
}

static double plain_reused(const struct plain *p, uint8_t c, uint32_t from, uint32_t to)
{
	uint32_t i, nr = 0;

	for (i = 0; i < NR_PLAIN; i++)
		nr += p[i].c == c && p[i].until && p[i].until - p[i].when >= from &&
		      p[i].until - p[i].when < to;
	return nr;
}

static uint32_t plain_fill(struct plain *p, struct hazard *h, uint32_t now)
{
	uint32_t i, j;

	for (i = 0; i < NR_PLAIN; i++) {
		/* Mostly crowded, now and then a pause of up to an hour. */
		if (!random_below(8))
			now += random_below(SECOND);
		if (!random_below(2000))
			now += random_below(3600 * SECOND);
		hazard_advance(h, now);
		p[i] = (struct plain){ .when = now, .c = (uint8_t)(1 + random_below(2)) };
		hazard_born(h, p[i].c);
		j = i - random_below(min(i + 1, 3000U));
		if (random_below(2) && !p[j].until && p[j].when != now) {
			hazard_reused(h, p[j].c, p[j].when);
			p[j].until = now;
		}
	}
	return now;
}

START_TEST(cohorts_count_as_a_plain_list)
{
	static struct plain p[NR_PLAIN];
	uint32_t now = _i == 1 ? 0U - 40000U : START, from, to, k;
	struct hazard *h = hazard_create(now);
	double reused, reached, next, least, most;

	state = (uint64_t)_i + 1;
	now = plain_fill(p, h, now);
	for (k = 0; k < HAZARD_BINS; k++) {
		to = UINT32_MAX;
		if (k + 1 < HAZARD_BINS)
			to = hazard_counts(h, 1, k + 1, &next, &next);
		from = hazard_counts(h, 1, k, &reused, &reached);
		ck_assert_double_eq(reused, plain_reused(p, 1, from, to));
		plain_reached(p, 1, from, now, &least, &most);
		ck_assert_msg(reached >= (k ? least : most) && reached <= most,
			      "bin %u from %u: %g, not in %g to %g", k, from, reached, least, most);
	}
	hazard_destroy(h);
}
END_TEST

START_TEST(birth_taken_back)
{
	struct hazard *h = hazard_create(START);
	double reused, reached;
	unsigned k;

	hazard_born(h, 5);
	hazard_born(h, 5);
	hazard_advance(h, START + 3 * SECOND);
	hazard_unborn(h, 5, START);
	hazard_advance(h, START + 20000 * SECOND);
	/* One counted as having got to 2.2 s, one as having got to all later ages. */
	for (k = 0; k < HAZARD_BINS; k++) {
		uint32_t age = hazard_counts(h, 5, k, &reused, &reached);

		ck_assert_double_eq(reused, 0);
		ck_assert_double_eq(reached, k && age <= 3 * SECOND ? 2 : 1);
	}
	hazard_unborn(h, 5, START + 30000 * SECOND);	/* never happened */
	hazard_destroy(h);
}
END_TEST

/* Ten years pass in a few steps: bounded work, and the clock wraps. */
START_TEST(long_pauses)
{
	struct hazard *h = hazard_create(START);
	uint32_t now = START, i;

	for (i = 0; i < 100; i++, now += 365 * 86400 * SECOND / 10) {
		hazard_advance(h, now);
		hazard_born(h, 1);
		hazard_reused(h, 1, now);
		hazard_refresh(h, 1);
	}
	ck_assert(hazard_index(h, 1, now) > 0);
	hazard_destroy(h);
}
END_TEST

START_TEST(stated_budget)
{
	char spec[] = "alloc:nth=1";

	ck_assert_uint_le(hazard_bytes(), 640 * 1024);
	ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
	ck_assert_ptr_null(hazard_create(START));
	fault_disarm();
	hazard_destroy(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hazard");
	TCase *tc = tcase_create("hazard");

	tcase_add_test(tc, learns_when_blocks_come_back);
	tcase_add_test(tc, unknown_class_is_as_all);
	tcase_add_loop_test(tc, cohorts_count_as_a_plain_list, 0, 4);
	tcase_add_test(tc, birth_taken_back);
	tcase_add_test(tc, long_pauses);
	tcase_add_test(tc, stated_budget);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
