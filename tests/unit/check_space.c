/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_space.c - geometry is checked field by field; spaces, epochs, tenants.
 */
#include <stdio.h>

#include "kvmd/reclaim/policy.h"
#include "pool_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

static struct prig r;
static struct kvmd_space m;
static char msg[256];

static void setup(void)
{
	prig_init(&r, "null", 64, 8 * 4096, 1 << 20, NULL);
	prig_geometry(&m, 4096, 33);
	strcpy(m.name, "s");
	msg[0] = 0;
}

static void teardown(void)
{
	prig_exit(&r);
}

/* All else valid: refused, and the field is named. */
static void refused(const char *field)
{
	ck_assert_int_eq(space_check_geometry(&m, msg, sizeof(msg)), -EINVAL);
	ck_assert_msg(strstr(msg, field) != NULL, "\"%s\" does not name %s", msg, field);
	prig_geometry(&m, 4096, 33);
	ck_assert_int_eq(space_check_geometry(&m, msg, sizeof(msg)), 0);
}

START_TEST(nr_groups)
{
	m.nr_groups = 0;
	refused("nr_groups");
	m.nr_groups = KVMD_MAX_GROUPS + 1;
	refused("nr_groups");
}
END_TEST

START_TEST(nr_shards)
{
	m.nr_shards = 0;
	refused("nr_shards");
	m.nr_shards = KVMD_MAX_SHARDS + 1;
	refused("nr_shards");
}
END_TEST

START_TEST(planes)
{
	m.group[0].planes = 0;
	refused("planes");
	m.group[0].planes = KVMD_MAX_PLANES + 1;
	refused("planes");
}
END_TEST

START_TEST(plane_bytes)
{
	m.group[0].plane_bytes = 0;
	refused("plane_bytes");
	m.group[0].plane_bytes = 100;
	refused("plane_bytes");
	m.group[0].plane_bytes = (1ull << 30) + 64;
	refused("plane_bytes");
	m.group[0].plane_bytes = 1ull << 63;
	refused("plane_bytes");
}
END_TEST

START_TEST(block_tokens)
{
	m.group[0].block_tokens = 0;
	refused("block_tokens");
	m.group[0].block_tokens = 65537;
	refused("block_tokens");
}
END_TEST

START_TEST(rule)
{
	m.group[0].rule = KVMD_NR_RULE;
	refused("rule");
}
END_TEST

START_TEST(window)
{
	m.group[0].rule = KVMD_RULE_WINDOW;
	refused("window");
	m.group[0].window = 5;
	refused("window");
	m.group[0].sinks = 5;
	refused("window");
	m.group[0].rule = KVMD_RULE_STATE;
	m.group[0].window = 5;
	refused("window");
	m.group[0].rule = KVMD_RULE_WINDOW;
	m.group[0].window = 5;
	m.group[0].sinks = 5;
	ck_assert_int_eq(space_check_geometry(&m, msg, sizeof(msg)), 0);
}
END_TEST

START_TEST(flags)
{
	m.group[0].flags = KVMD_GROUP_REPLICA << 1;
	refused("flags");
	m.group[0].flags = KVMD_GROUP_REPLICA;
	ck_assert_int_eq(space_check_geometry(&m, msg, sizeof(msg)), 0);
}
END_TEST

START_TEST(max_slots)
{
	m.group[0].max_slots = 1;
	refused("max_slots");
	m.group[0].max_slots = (1u << 30) + 1;
	refused("max_slots");
}
END_TEST

/* 4096 bytes: 16 tokens of 64 channels, K and V. */
static void with_codec(unsigned id)
{
	m.group[0].codec = (struct kvmd_codec) {
		.id = (uint8_t)id, .dtype = KVMD_DTYPE_BF16, .parts = 2, .channels = 64, .kv_run = 1,
	};
}

START_TEST(codec_reserved)
{
	m.group[0].codec.resv0 = 1;
	refused("resv0");
	m.group[0].codec.resv1 = 1;
	refused("resv1");
	for (size_t i = 0; i < ARRAY_SIZE(m.group[0].codec.resv2); i++) {
		m.group[0].codec.resv2[i] = 1;
		refused("resv2");
	}
}
END_TEST

/* All else valid, with a codec. */
#define CODEC_REFUSED(field, value) do { \
	with_codec(KVMD_CODEC_KIVI2); \
	ck_assert_int_eq(space_check_geometry(&m, msg, sizeof(msg)), 0); \
	m.group[0].codec.field = (value); \
	refused("codec." #field); \
} while (0)

START_TEST(codec_fields)
{
	CODEC_REFUSED(id, KVMD_NR_CODEC);
	CODEC_REFUSED(id, KVMD_CODEC_NONE);
	CODEC_REFUSED(dtype, KVMD_DTYPE_NONE);
	CODEC_REFUSED(dtype, KVMD_NR_DTYPE);
	CODEC_REFUSED(scale_values, 16);
	CODEC_REFUSED(scale_values, 65);
	CODEC_REFUSED(parts, 0);
	CODEC_REFUSED(channels, 0);
	CODEC_REFUSED(channels, 63);
	CODEC_REFUSED(kv_run, 2);
	CODEC_REFUSED(exact_first, 3);
	CODEC_REFUSED(exact_last, 3);
	with_codec(KVMD_CODEC_WINDOW);
	m.group[0].codec.scale_values = 64;
	refused("codec.scale_values");
	with_codec(KVMD_CODEC_WINDOW);
	m.group[0].planes = KVMD_MAX_PLANES;
	m.group[0].codec.parts = 2048;
	refused("codec.parts");
}
END_TEST

START_TEST(codecs_that_fit)
{
	for (unsigned id = KVMD_CODEC_WINDOW; id < KVMD_NR_CODEC; id++) {
		with_codec(id);
		ck_assert_msg(!space_check_geometry(&m, msg, sizeof(msg)), "%s", msg);
		m.group[0].codec.exact_first = 2;
		ck_assert_msg(!space_check_geometry(&m, msg, sizeof(msg)), "%s", msg);
		m.group[0].codec.kv_run = 0;
		ck_assert_msg(!space_check_geometry(&m, msg, sizeof(msg)), "%s", msg);
	}
}
END_TEST

START_TEST(second_group_is_named)
{
	m.nr_groups = 2;
	m.group[1] = m.group[0];
	m.group[1].planes = 0;
	refused("group 1");
}
END_TEST

static void differs(const struct space *sp, const char *field)
{
	ck_assert_int_eq(space_same_geometry(sp, &m, msg, sizeof(msg)), -EINVAL);
	ck_assert_msg(strstr(msg, field) != NULL, "\"%s\" does not name %s", msg, field);
	prig_geometry(&m, 4096, 33);
	ck_assert_int_eq(space_same_geometry(sp, &m, msg, sizeof(msg)), 0);
}

START_TEST(other_geometry_names_the_field)
{
	struct space *sp = prig_space(&r, "s", r.t[0], &m, "lru");

	m.nr_groups = 2;
	differs(sp, "nr_groups");
	m.nr_shards = 2;
	differs(sp, "nr_shards");
	m.salt_digest[3] = 1;
	differs(sp, "salt_digest");
	m.group[0].planes = 2;
	differs(sp, "group[0].planes");
	m.group[0].plane_bytes = 8192;
	differs(sp, "group[0].plane_bytes");
	m.group[0].block_tokens = 32;
	differs(sp, "group[0].block_tokens");
	m.group[0].rule = KVMD_RULE_STATE;
	differs(sp, "group[0].rule");
	m.group[0].window = 7;
	differs(sp, "group[0].window");
	m.group[0].sinks = 7;
	differs(sp, "group[0].sinks");
	m.group[0].flags = KVMD_GROUP_REPLICA;
	differs(sp, "group[0].flags");
	m.group[0].max_slots = 34;
	differs(sp, "group[0].max_slots");
	with_codec(KVMD_CODEC_WINDOW);
	differs(sp, "group[0].codec.id");
	m.group[0].max_slots = 0;	/* the daemon's choice was made */
	ck_assert_int_eq(space_same_geometry(sp, &m, msg, sizeof(msg)), 0);
}
END_TEST

START_TEST(slots_from_the_budget)
{
	struct space *sp;

	m.group[0].max_slots = 0;
	sp = prig_space(&r, "s", r.t[0], &m, "lru");
	ck_assert_uint_eq(sp->gp[0].max_slots, (1 << 20) / 4096 + 1);
	ck_assert_uint_eq(sp->gp[0].geo.max_slots, sp->gp[0].max_slots);
}
END_TEST

/* Two shards on one device share its budget. */
START_TEST(shards_on_one_device)
{
	struct space *sp;

	m.group[0].max_slots = 0;
	m.nr_shards = 2;
	strcpy(m.device[0], "dev-1");
	strcpy(m.device[1], "dev-1");
	sp = prig_space(&r, "s", r.t[0], &m, "lru");
	ck_assert_ptr_eq(sp->dev[0], &r.p->dev[1]);
	ck_assert_ptr_eq(sp->dev[1], &r.p->dev[1]);
	ck_assert_uint_eq(sp->gp[0].max_slots, (1 << 20) / 8192 + 1);
}
END_TEST

/* Unless they are named: not on those of another kind, nor on those that are down. */
START_TEST(shards_go_round_the_devices_of_one_kind)
{
	struct space *sp;

	m.nr_shards = 3;
	sp = prig_space(&r, "a", r.t[0], &m, "lru");
	ck_assert_ptr_eq(sp->dev[0], &r.p->dev[0]);
	ck_assert_ptr_eq(sp->dev[1], &r.p->dev[1]);
	ck_assert_ptr_eq(sp->dev[2], &r.p->dev[0]);
	r.p->dev[1].ops = &dev_host_ops;
	sp = prig_space(&r, "b", r.t[0], &m, "lru");
	ck_assert_ptr_eq(sp->dev[1], &r.p->dev[0]);
	r.p->dev[1].ops = &dev_null_ops;
	r.p->dev[0].down = true;
	sp = prig_space(&r, "c", r.t[0], &m, "lru");
	ck_assert_ptr_eq(sp->dev[0], &r.p->dev[1]);
	ck_assert_ptr_eq(sp->dev[2], &r.p->dev[1]);
	r.p->dev[0].down = false;
}
END_TEST

static int create(const char *name)
{
	struct space *sp;

	snprintf(m.name, sizeof(m.name), "%s", name);
	return space_create(r.p, &m, r.t[0], policy_find("lru"), &sp, msg, sizeof(msg));
}

START_TEST(refused_spaces_leave_nothing)
{
	uint64_t metadata = r.p->metadata_bytes;

	strcpy(m.device[0], "dev-9");
	ck_assert_int_eq(create("s"), -ENODEV);
	ck_assert_msg(strstr(msg, "dev-9") != NULL, "%s", msg);
	prig_geometry(&m, 1 << 22, 0);
	ck_assert_int_eq(create("s"), -ENOMEM);
	ck_assert_msg(strstr(msg, "budget") != NULL, "%s", msg);
	prig_geometry(&m, 4096, 33);
	r.p->dev[1].ops = &dev_host_ops;
	m.nr_shards = 2;
	strcpy(m.device[1], "dev-1");
	ck_assert_int_eq(create("s"), -EINVAL);
	ck_assert_msg(strstr(msg, "two kinds") != NULL, "%s", msg);
	r.p->dev[1].ops = &dev_null_ops;
	r.p->dev[1].down = true;
	strcpy(r.p->dev[1].text, "it fell off the bus");
	ck_assert_int_eq(create("s"), -ENODEV);
	ck_assert_msg(strstr(msg, "dev-1") && strstr(msg, "fell off"), "%s", msg);
	r.p->dev[1].down = false;
	m.device[1][0] = 0;
	ck_assert_ptr_null(space_find(r.p, "s"));
	ck_assert_uint_eq(r.p->metadata_bytes, metadata);
	m.nr_shards = 1;
	ck_assert_int_eq(create("s"), 0);
	ck_assert_ptr_nonnull(space_find(r.p, "s"));
	space_destroy(r.p, space_find(r.p, "s"));
	ck_assert_ptr_null(space_find(r.p, "s"));
	ck_assert_uint_eq(r.p->metadata_bytes, metadata);
}
END_TEST

START_TEST(spaces_run_out)
{
	char name[16];

	for (int i = 0; i < POOL_MAX_SPACES; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		ck_assert_int_eq(create(name), 0);
	}
	ck_assert_int_eq(create("one-more"), -ENOSPC);
	ck_assert_ptr_eq(space_find(r.p, "s200"), &r.p->space[200]);
}
END_TEST

START_TEST(epoch_can_only_rise)
{
	struct space *sp = prig_space(&r, "s", r.t[0], &m, "lru");

	ck_assert_int_eq(space_raise_epoch(r.p, sp, 0), 0);
	ck_assert_uint_eq(sp->epoch, 1);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 1), -EINVAL);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 70), 0);
	ck_assert_uint_eq(sp->epoch, 70);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 69), -EINVAL);
}
END_TEST

START_TEST(former_epoch_is_stale)
{
	struct space *sp = prig_space(&r, "s", r.t[0], &m, "lru");
	uint16_t old = sp->sid;
	uint32_t ids[3], open;

	prig_grow(&r, &sp->gp[0], 1);
	prig_chain(&r, &sp->gp[0], 1, 3, ids);
	open = prig_alloc(&r, &sp->gp[0]);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 0), 0);
	ck_assert_uint_ne(sp->sid, old);
	ck_assert_uint_eq(sp->nr_stale, 3);
	ck_assert_ptr_null(prig_find(&r, sp, 0, 1));
	prig_check(&r);
	/* The same key again, in the new epoch. */
	ck_assert_ptr_null(prig_seal(&r, prig_alloc(&r, &sp->gp[0]), 1, 0));
	ck_assert_ptr_nonnull(prig_find(&r, sp, 0, 1));
	for (int i = 3; i-- > 0;)
		index_evict(r.ix, pool_block(r.p, ids[i]), KVMD_MISS_EPOCH);
	ck_assert_uint_eq(sp->nr_stale, 0);
	/* The sid lives as long as a record of it. */
	ck_assert_ptr_eq(r.p->sid[old].sp, sp);
	pool_free(r.p, pool_block(r.p, open));
	ck_assert_ptr_null(r.p->sid[old].sp);
	prig_check(&r);
}
END_TEST

/* A sequence opened before two raises must not be taken for one of the last epoch. */
START_TEST(sid_is_not_used_again_soon)
{
	struct space *sp = prig_space(&r, "s", r.t[0], &m, "lru");
	uint16_t first = sp->sid;

	for (int i = 0; i < POOL_MAX_SIDS - 3; i++) {
		quiet_assert_int_eq(space_raise_epoch(r.p, sp, 0), 0);
		if (sp->sid == first)
			ck_abort_msg("sid %u is back after %d epochs", first, i + 1);
	}
}
END_TEST

START_TEST(tenants)
{
	struct tenant *t;

	ck_assert_ptr_eq(tenant_find(r.p, "other"), r.t[1]);
	ck_assert_ptr_null(tenant_find(r.p, "nobody"));
	while (r.p->nr_tenants < POOL_MAX_TENANTS)
		ck_assert_int_eq(tenant_add(r.p, "x", &t), 0);
	ck_assert_int_eq(tenant_add(r.p, "x", &t), -ENOSPC);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("space");
	TCase *tc = tcase_create("space");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, nr_groups);
	tcase_add_test(tc, nr_shards);
	tcase_add_test(tc, planes);
	tcase_add_test(tc, plane_bytes);
	tcase_add_test(tc, block_tokens);
	tcase_add_test(tc, rule);
	tcase_add_test(tc, window);
	tcase_add_test(tc, flags);
	tcase_add_test(tc, max_slots);
	tcase_add_test(tc, codec_reserved);
	tcase_add_test(tc, codec_fields);
	tcase_add_test(tc, codecs_that_fit);
	tcase_add_test(tc, second_group_is_named);
	tcase_add_test(tc, other_geometry_names_the_field);
	tcase_add_test(tc, slots_from_the_budget);
	tcase_add_test(tc, shards_on_one_device);
	tcase_add_test(tc, shards_go_round_the_devices_of_one_kind);
	tcase_add_test(tc, refused_spaces_leave_nothing);
	tcase_add_test(tc, spaces_run_out);
	tcase_add_test(tc, epoch_can_only_rise);
	tcase_add_test(tc, former_epoch_is_stale);
	tcase_add_test(tc, sid_is_not_used_again_soon);
	tcase_add_test(tc, tenants);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
