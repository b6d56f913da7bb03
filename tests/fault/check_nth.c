/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_nth.c - the daemon's 1st, 2nd, ... nth slab, copy, scrub or message
 * fails, until none is hit any more: an error for whom it concerns, everybody
 * else goes on, and nothing is lost.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS	60u

static struct hd d;
static const char *const sites[] = { "slab", "copy", "scrub", "send" };

/* Hits of the armed site. */
static uint64_t hits(const char *site)
{
	char name[64];
	const char *at = hd_ask(&d, "fault show");

	snprintf(name, sizeof(name), "\"site\":\"%s\"", site);
	at = strstr(at, name);
	T(at);
	at = strstr(at, "\"hits\":");
	T(at);
	return strtoull(at + 7, NULL, 10);
}

static void space_of(struct kvc_space *s, const char *name)
{
	plain_space(s, name, SLOTS);
	s->group[0].planes = 2;
	s->nr_shards = 2;
}

/* Whatever fails is said; nothing is expected to work. */
static void use(struct kvc *k)
{
	unsigned char keys[10][KEY];

	make_keys(keys, 1, 0, 10);
	if (kvc_seq_open(k, 1, 1, keys, 10, 10 * BT, 0, 0, NULL) < 0)
		return;
	(void)kvc_seq_extend(k, 1, 1, 0, 12, 0, 200000000, NULL);
	(void)kvc_seq_publish(k, 1, 1, 0, 0, keys, 10, 0, NULL);
	(void)kvc_seq_fork(k, 1, 1, 2, 1, 0);
	(void)kvc_seq_unshare(k, 1, 1, 0, 3, 0);
	(void)kvc_seq_extend(k, 2, 1, 0, 30, 0, 200000000, NULL);
	(void)kvc_seq_close(k, 1, 1, 0, 0);
	(void)kvc_seq_close(k, 2, 1, 0, 0);
}

/* In a process of its own: what a lost session held comes back with its end. */
static void scenario(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	(void)me;
	space_of(&s, arg);
	opts_for(hd, &o);
	if (kvc_create(&o, &s, &k))
		return;
	use(k);
	kvc_destroy(k);
}

/* Somebody who was there before. A message to it may be the one that is lost. */
static void witness(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_space s;
	struct kvc *k;

	space_of(&s, "one");
	k = client(hd, &s);
	open_publish(k, 1, 4, 9);
	do {
		say(me, 1);
		T(!kvc_poll(k) || !strcmp(arg, "send"));
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 3), (9 << 8) + 3));
	} while (hear(me));
	kvc_destroy(k);
}

START_TEST(the_nth_fails)
{
	const char *site = sites[_i];
	char line[64];
	struct kvc *k;
	struct kvc_space s;
	struct peer p, w;

	/* Memory for five slabs: spaces take it from one another. */
	hd_start(&d, "[pool]\npolicy = lru\nslab_bytes = 256K\nblocks = 512\nwmark_low = 0\n"
		 "wmark_high = 0\nslab_deadline = 5ms\nalloc_timeout = 50ms\n"
		 "[device host-0]\nbytes = 1280K\n");
	peer_start(&w, &d, witness, site, strlen(site) + 1);
	for (unsigned n = 1;; n++) {
		T_EQ(hear(&w), 1);
		snprintf(line, sizeof(line), "fault arm spec=%s:nth=%u", site, n);
		T(!strstr(hd_ask(&d, line), "error"));
		peer_start(&p, &d, scenario, n % 2 ? "one" : "two", 4);
		peer_end(&p);
		if (!hits(site))
			break;
		hd_ask(&d, "fault disarm");
		hd_check(&d);
		say(&w, 1);
		T(n < 1000);
	}
	hd_ask(&d, "fault disarm");
	say(&w, 0);
	peer_end(&w);
	space_of(&s, "one");
	k = client(&d, &s);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, SLOTS - 16, 0, WAIT_NS, NULL), SLOTS - 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nth");
	TCase *t = tcase_create("nth");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, the_nth_fails, 0, (int)(sizeof(sites) / sizeof(sites[0])));
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
