/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tenants.c - who pays: min, high, max, and memory that changes hands.
 *
 * The device has room for four slabs of 16 slots of 4 KiB; slot 0 of a space is
 * none, so two slabs are 31 blocks.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <string.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 64K\nblocks = 512\nwmark_low = 0\n" \
		"wmark_high = 0\ndeadlock_time = 1h\nslab_deadline = 5ms\n" \
		"[device host-0]\nbytes = 256K\n"
#define CACHED	31u

static struct hd d;

static struct kvc *tenant_client(struct hd *hd, const char *tenant)
{
	struct kvc_space s;
	struct kvc_opts o;

	plain_space(&s, tenant, 63);
	opts_for(hd, &o);
	o.tenant = tenant;
	return client_opts(hd, &s, &o);
}

/* Tenant "a": a cache of 31 blocks that nobody uses, and a process that lives. */
static void cacher(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = tenant_client(hd, "a");
	const struct kvmd_cqe *c;

	(void)arg;
	open_publish(k, 1, CACHED, 3);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	say(me, 1);
	/* It looks at what the daemon announces, as an engine does. */
	for (;;)
		T_EQ(kvc_wait_cqe(k, 1000000, &c), -ETIMEDOUT);
}

static int cached(void)
{
	unsigned char keys[CACHED][KEY];
	struct kvc *k = tenant_client(&d, "a");
	int n;

	make_keys(keys, 3, 0, CACHED);
	n = kvc_lookup(k, 0, keys, CACHED, NULL);
	kvc_destroy(k);
	return n;
}

START_TEST(what_is_kept_for_a_tenant_is_not_taken)
{
	struct peer p;
	struct kvc *b;

	hd_start(&d, POOL "[tenant a]\nhbm_min = 128K\n[tenant b]\n");
	peer_start(&p, &d, cacher, NULL, 0);
	T_EQ(hear(&p), 1);
	b = tenant_client(&d, "b");
	T_EQ(kvc_seq_open(b, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(b, 1, 1, 0, 31, 0, WAIT_NS, NULL), 31);
	T_EQ(kvc_seq_extend(b, 1, 1, 0, 1, 0, 20000000, NULL), -ENOMEM);
	T_EQ(cached(), CACHED);
	peer_kill(&p);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

/* Another tenant's processes can still get at the memory: it waits for their end. */
START_TEST(memory_changes_tenant_when_its_processes_are_gone)
{
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	struct peer p;
	struct kvc *b;

	hd_start(&d, POOL "[tenant a]\nhbm_low = 128K\n[tenant b]\n");
	peer_start(&p, &d, cacher, NULL, 0);
	T_EQ(hear(&p), 1);
	b = tenant_client(&d, "b");
	T_EQ(kvc_seq_open(b, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(b, 1, 1, 0, 31, 0, WAIT_NS, NULL), 31);
	e = kvc_get_sqe(b);
	kvc_prep_extend(e, 1, 1, 0, 16, test_now_ns() + WAIT_NS);
	e->user_data = 8;
	T_EQ(kvc_submit(b), 1);
	T_EQ(kvc_nop(b), 0);
	T_EQ(kvc_seq_open(b, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(b, 2, 1, 0, 1, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	peer_kill(&p);
	c = take_for(b, 8);
	T_EQ(c.res, 16);
	for (uint32_t i = 31; i < 47; i++)
		T(is_blank(b, 0, (uint32_t)slot_at(b, 0, 1, i)));
	T(hd_stat(&d, "slabs_moved") + hd_stat(&d, "slabs_destroyed") >= 1);
	T(hd_stat(&d, "tenant_low_events") >= 1);
	T(cached() < (int)CACHED);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

START_TEST(over_its_high_a_tenant_evicts_its_own_blocks_first)
{
	unsigned char keys[20][KEY];
	struct kvc *k;

	hd_start(&d, POOL "[tenant a]\nhbm_high = 80K\n[tenant b]\n");
	k = tenant_client(&d, "a");
	open_publish(k, 1, 20, 3);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 8, 0, WAIT_NS, NULL), 8);
	make_keys(keys, 3, 0, 20);
	T_EQ(kvc_lookup(k, 0, keys, 20, NULL), 12);	/* though 35 slots were free */
	T(hd_stat(&d, "tenant_high_events") >= 1);
	/* All of it in use: slowed down, not refused. */
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 20, 0, WAIT_NS, NULL), 20);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(at_its_max_a_tenant_lives_on_its_own_cache)
{
	unsigned char keys[20][KEY];
	struct kvc *k;

	hd_start(&d, POOL "[tenant a]\nhbm_max = 80K\n[tenant b]\n");
	k = tenant_client(&d, "a");
	open_publish(k, 1, 20, 3);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 8, 0, WAIT_NS, NULL), 8);
	make_keys(keys, 3, 0, 20);
	T_EQ(kvc_lookup(k, 0, keys, 20, NULL), 12);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 13, 0, WAIT_NS, NULL), -EDQUOT);
	T_EQ(kvc_lookup(k, 0, keys, 20, NULL), 12);	/* a refusal costs nothing */
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_space_belongs_to_its_tenant)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k, *b;

	hd_start(&d, POOL "[tenant a]\n[tenant b]\n");
	k = tenant_client(&d, "a");
	plain_space(&s, "a", 63);
	opts_for(&d, &o);
	o.tenant = "b";
	T_EQ(kvc_create(&o, &s, &b), -EACCES);
	T(strstr(kvc_refusal(), "belongs to another tenant"));
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tenants");
	TCase *t = tcase_create("tenants");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, what_is_kept_for_a_tenant_is_not_taken);
	tcase_add_test(t, memory_changes_tenant_when_its_processes_are_gone);
	tcase_add_test(t, over_its_high_a_tenant_evicts_its_own_blocks_first);
	tcase_add_test(t, at_its_max_a_tenant_lives_on_its_own_cache);
	tcase_add_test(t, a_space_belongs_to_its_tenant);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
