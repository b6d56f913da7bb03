/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_control.c - the check of control messages: each refusal alone, with a
 * text that names what was wrong.
 */
#include "kvmd/svc/control_check.h"

#include <check.h>

#include "tests/quiet.h"
#include "tests/suite.h"

static char msg[KVMD_TEXT_BYTES];
static struct kvmd_hello h;
static struct kvmd_space m;
static struct kvmd_join j;
static struct kvmd_resume r;

static void setup(void)
{
	h = (struct kvmd_hello) {
		.h = { .type = KVMD_MSG_HELLO, .bytes = sizeof(h), .cookie = 7 },
		.version = KVMD_WIRE_VERSION, .sq_entries = 64, .cq_entries = 128, .max_seqs = 16,
		.features = KVMD_FEATURES, .args_bytes = 1 << 20, .max_tokens = 4096,
		.nr_lanes = 2, .nr_ranks = 2, .tenant = "blue", .label = "engine-0",
	};
	m = (struct kvmd_space) {
		.h = { .type = KVMD_MSG_SPACE, .bytes = sizeof(m) },
		.name = "llama", .nr_groups = 1, .nr_shards = 1, .device = { "host-0" },
	};
	j = (struct kvmd_join) {
		.h = { .type = KVMD_MSG_JOIN, .bytes = sizeof(j) },
		.version = KVMD_WIRE_VERSION, .rank = 1,
	};
	r = (struct kvmd_resume) {
		.h = { .type = KVMD_MSG_RESUME, .bytes = sizeof(r) },
		.version = KVMD_WIRE_VERSION, .session = 5, .group_token = 99,
	};
}

static int check(const void *p, size_t bytes)
{
	memset(msg, 0x7f, sizeof(msg));
	return control_check(p, bytes, msg, sizeof(msg));
}

#define GOOD(x) do {								\
	int err_ = check(&(x), sizeof(x));					\
	ck_assert_msg(!err_, "%d: %s", err_, msg);				\
} while (0)

/* Refused with @err and a text with @word in it. Then as before again. */
#define BAD(x, err, word) do {							\
	ck_assert_int_eq(check(&(x), sizeof(x)), err);				\
	ck_assert_ptr_nonnull(memchr(msg, 0, sizeof(msg)));			\
	ck_assert_msg(strstr(msg, word), "\"%s\" does not name %s", msg, word);	\
	setup();								\
	GOOD(x);								\
} while (0)

/* -------------------------------------------------------------------- heads */

START_TEST(good_messages_pass)
{
	struct kvmd_slab_ack a = { .h = { .bytes = sizeof(a) } };
	struct kvmd_epoch e = { .h = { .type = KVMD_MSG_EPOCH, .bytes = sizeof(e) } };
	struct kvmd_msg bye = { .type = KVMD_MSG_BYE, .bytes = sizeof(bye) };

	GOOD(h);
	GOOD(m);
	GOOD(j);
	GOOD(r);
	GOOD(e);
	GOOD(bye);
	a.h.type = KVMD_MSG_SLAB_ADDED;
	GOOD(a);
	a.h.type = KVMD_MSG_SLAB_DELETED;
	GOOD(a);
}
END_TEST

START_TEST(lengths)
{
	union {
		struct kvmd_hello h;
		char buf[KVMD_MSG_MAX_BYTES];
	} u = { .h = h };

	for (size_t n = 0; n <= sizeof(u); n++) {
		if (n == sizeof(h))
			continue;
		quiet_assert_int_eq(check(&u, n), -EINVAL);
		quiet_assert_ptr_nonnull(strstr(msg, "length"));
		if (n < sizeof(u.h.h))
			continue;
		u.h.h.bytes = (uint32_t)n;	/* it says so itself */
		quiet_assert_int_eq(check(&u, n), -EINVAL);
		quiet_assert_ptr_nonnull(strstr(msg, "size"));
		u.h.h.bytes = sizeof(h);
	}
}
END_TEST

START_TEST(types)
{
	static const uint32_t bad[] = {
		0, KVMD_MSG_HELLO_REPLY, KVMD_MSG_SPACE_REPLY, KVMD_MSG_JOIN_REPLY,
		KVMD_MSG_SLAB_ADD, KVMD_MSG_SLAB_DEL, KVMD_MSG_EPOCH_REPLY,
		KVMD_MSG_RESUME_REPLY, KVMD_NR_MSG,
		KVMD_NR_MSG + 1, 0x10001, UINT32_MAX,
	};

	h.h.type = bad[_i];
	BAD(h, -EINVAL, "type");
}
END_TEST

START_TEST(file_descriptors)
{
	struct kvmd_msg bye = { .type = KVMD_MSG_BYE, .bytes = sizeof(bye), .nr_fds = 1 };

	ck_assert_int_eq(check(&bye, sizeof(bye)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(msg, "file descriptors"));
	h.h.nr_fds = 1;
	BAD(h, -EINVAL, "file descriptors");
	m.h.nr_fds = UINT32_MAX;
	BAD(m, -EINVAL, "file descriptors");
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(control_name(KVMD_MSG_HELLO), "hello");
	ck_assert_str_eq(control_name(KVMD_MSG_BYE), "bye");
	ck_assert_str_eq(control_name(0), "?");
	ck_assert_str_eq(control_name(KVMD_NR_MSG), "?");
	ck_assert_str_eq(control_name(UINT32_MAX), "?");
	for (unsigned t = 1; t < KVMD_NR_MSG; t++)
		for (unsigned u = 0; u < t; u++)
			ck_assert_str_ne(control_name(t), control_name(u));
}
END_TEST

/* A short buffer is filled and ended, never overrun. */
START_TEST(short_text)
{
	char few[8];

	memset(few, 'x', sizeof(few));
	h.max_seqs = 0;
	ck_assert_int_eq(control_check(&h, sizeof(h), few, 4), -EINVAL);
	ck_assert_str_eq(few, "max");
	ck_assert_int_eq(few[4], 'x');
}
END_TEST

/* -------------------------------------------------------------------- hello */

START_TEST(hello_version)
{
	h.version = KVMD_WIRE_VERSION + 1;
	BAD(h, -EPROTO, "version 1, the client 2");
	h.version = 0;
	BAD(h, -EPROTO, "version");
}
END_TEST

START_TEST(hello_ring_sizes)
{
	static const uint32_t bad_sq[] = { 0, 3, 65, 8192, 0x80000000, UINT32_MAX };
	static const uint32_t bad_cq[] = { 0, 32, 63, 96, 32768, 0x80000000 };

	for (size_t i = 0; i < ARRAY_SIZE(bad_sq); i++) {
		h.sq_entries = bad_sq[i];
		BAD(h, -EINVAL, "sq_entries");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_cq); i++) {
		h.cq_entries = bad_cq[i];
		BAD(h, -EINVAL, "cq_entries");
	}
	h.sq_entries = h.cq_entries = 1;
	GOOD(h);
	h.sq_entries = KVMD_MAX_SQ;
	h.cq_entries = KVMD_MAX_CQ;
	GOOD(h);
}
END_TEST

START_TEST(hello_sequences_and_tokens)
{
	h.max_seqs = 0;
	BAD(h, -EINVAL, "max_seqs");
	h.max_seqs = 65537;
	BAD(h, -EINVAL, "max_seqs");
	h.max_tokens = 0;
	BAD(h, -EINVAL, "max_tokens");
	h.max_tokens = (16 << 20) + 1;
	BAD(h, -EINVAL, "max_tokens");
	h.max_seqs = 65536;
	h.max_tokens = 16 << 20;
	GOOD(h);
}
END_TEST

START_TEST(hello_args)
{
	static const uint64_t bad[] = {
		0, 1, 4095, 4097, (256 << 20) + 4096, UINT64_MAX, 1ull << 63,
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		h.args_bytes = bad[i];
		BAD(h, -EINVAL, "args_bytes");
	}
	h.args_bytes = 256 << 20;
	GOOD(h);
}
END_TEST

START_TEST(hello_ranks_and_lanes)
{
	h.nr_ranks = 0;
	BAD(h, -EINVAL, "nr_ranks");
	h.nr_ranks = 9;
	BAD(h, -EINVAL, "nr_ranks");
	h.nr_lanes = 1;				/* two ranks */
	BAD(h, -EINVAL, "nr_lanes");
	h.nr_lanes = 33;
	BAD(h, -EINVAL, "nr_lanes");
	h.nr_lanes = 32;
	h.nr_ranks = 8;
	GOOD(h);
}
END_TEST

START_TEST(hello_reserved)
{
	h.flags = 1;
	BAD(h, -EINVAL, "flags");
	for (int i = 0; i < 4; i++) {
		h.resv[i] = 1ull << (16 * i);
		BAD(h, -EINVAL, "resv");
	}
}
END_TEST

START_TEST(hello_features_are_only_asked_for)
{
	h.features = ~0ull;
	GOOD(h);
	h.features = 0;
	GOOD(h);
}
END_TEST

START_TEST(hello_names)
{
	static const char bad[] = {
		' ', '\n', '\t', '"', '\\', 0x1b, 0x7f, (char)0x80, (char)0xff,
	};

	for (size_t i = 0; i < sizeof(bad); i++) {
		h.tenant[1] = bad[i];
		BAD(h, -EINVAL, "tenant");
		h.label[0] = bad[i];
		BAD(h, -EINVAL, "label");
	}
	memset(h.tenant, 'a', sizeof(h.tenant));
	BAD(h, -EINVAL, "tenant");		/* no NUL */
	h.tenant[sizeof(h.tenant) - 1] = 'x';
	BAD(h, -EINVAL, "tenant");		/* something behind it */
	memset(h.label, 'a', sizeof(h.label));
	BAD(h, -EINVAL, "label");
	memset(h.tenant, 'a', sizeof(h.tenant) - 1);
	GOOD(h);
	memset(h.tenant, 0, sizeof(h.tenant));	/* the default one */
	memset(h.label, 0, sizeof(h.label));
	GOOD(h);
}
END_TEST

/* -------------------------------------------------------------------- space */

START_TEST(space_name)
{
	memset(m.name, 0, sizeof(m.name));
	BAD(m, -EINVAL, "name");
	memset(m.name, 'a', sizeof(m.name));
	BAD(m, -EINVAL, "name");
	m.name[2] = ' ';
	BAD(m, -EINVAL, "name");
	m.name[2] = '\n';
	BAD(m, -EINVAL, "name");
	m.name[sizeof(m.name) - 1] = 'x';
	BAD(m, -EINVAL, "name");
	memset(m.name, 'a', sizeof(m.name) - 1);
	GOOD(m);
}
END_TEST

START_TEST(space_flags)
{
	for (unsigned bit = 2; bit < 32; bit++) {
		m.flags = 1u << bit;
		BAD(m, -EINVAL, "flags");
	}
	m.flags = KVMD_SPACE_EXISTING | KVMD_SPACE_ANY_GEOMETRY;
	GOOD(m);
}
END_TEST

START_TEST(space_reserved)
{
	m.resv0 = 1;
	BAD(m, -EINVAL, "resv");
	for (int i = 0; i < 4; i++) {
		m.resv[i] = 1ull << (16 * i + 15);
		BAD(m, -EINVAL, "resv");
	}
}
END_TEST

START_TEST(space_devices)
{
	for (unsigned i = 0; i < KVMD_MAX_SHARDS; i++) {
		memset(m.device[i], 'a', sizeof(m.device[i]));
		BAD(m, -EINVAL, "device");
		m.device[i][39] = 'x';
		BAD(m, -EINVAL, "device");
		m.device[i][0] = '\n';
		BAD(m, -EINVAL, "device");
	}
}
END_TEST

/* --------------------------------------------------------------------- join */

START_TEST(join)
{
	j.version = 9;
	BAD(j, -EPROTO, "the client 9");
	j.rank = 0;
	BAD(j, -EINVAL, "rank");
	j.rank = KVMD_MAX_RANKS;
	BAD(j, -EINVAL, "rank");
	for (int i = 0; i < 4; i++) {
		j.resv[i] = 1;
		BAD(j, -EINVAL, "resv");
	}
	j.rank = KVMD_MAX_RANKS - 1;
	GOOD(j);
}
END_TEST

START_TEST(resume)
{
	r.version = 9;
	BAD(r, -EPROTO, "the client 9");
	r.rank = KVMD_MAX_RANKS;
	BAD(r, -EINVAL, "rank");
	r.resv0 = 1;
	BAD(r, -EINVAL, "resv");
	for (int i = 0; i < 4; i++) {
		r.resv[i] = 1;
		BAD(r, -EINVAL, "resv");
	}
	r.rank = KVMD_MAX_RANKS - 1;
	GOOD(r);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, NULL);
	suite_add_tcase(s, tc);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("control");
	TCase *tc = group(s, "heads");

	tcase_add_test(tc, good_messages_pass);
	tcase_add_test(tc, lengths);
	tcase_add_loop_test(tc, types, 0, 12);
	tcase_add_test(tc, file_descriptors);
	tcase_add_test(tc, names);
	tcase_add_test(tc, short_text);
	tc = group(s, "hello");
	tcase_add_test(tc, hello_version);
	tcase_add_test(tc, hello_ring_sizes);
	tcase_add_test(tc, hello_sequences_and_tokens);
	tcase_add_test(tc, hello_args);
	tcase_add_test(tc, hello_ranks_and_lanes);
	tcase_add_test(tc, hello_reserved);
	tcase_add_test(tc, hello_features_are_only_asked_for);
	tcase_add_test(tc, hello_names);
	tc = group(s, "space");
	tcase_add_test(tc, space_name);
	tcase_add_test(tc, space_flags);
	tcase_add_test(tc, space_reserved);
	tcase_add_test(tc, space_devices);
	tc = group(s, "join");
	tcase_add_test(tc, join);
	tcase_add_test(tc, resume);
	return suite_run(s);
}
