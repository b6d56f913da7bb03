/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_control_fuzz.c - the check of control messages: of any length, any
 * bytes; and space geometries behind it.
 */
#include "kvmd/pool/pool.h"
#include "kvmd/svc/control_check.h"
#include "tests/harness.h"
#include "tests/raw.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

union message {
	struct kvmd_msg h;
	struct kvmd_hello hello;
	struct kvmd_space space;
	struct kvmd_join join;
	struct kvmd_slab_ack ack;
	struct kvmd_epoch epoch;
	uint64_t w[KVMD_MSG_MAX_BYTES / 8];
};

static size_t good(uint64_t *rnd, union message *m)
{
	static const uint32_t head_only[] = {
		KVMD_MSG_SLAB_ADDED, KVMD_MSG_SLAB_DELETED, KVMD_MSG_EPOCH, KVMD_MSG_BYE,
	};
	static const size_t bytes[] = {
		sizeof(m->ack), sizeof(m->ack), sizeof(m->epoch), sizeof(m->h),
	};
	unsigned i = (unsigned)(test_random(rnd) % 7);

	memset(m, 0, sizeof(*m));
	if (i == 0) {
		raw_hello_init(&m->hello);
		return sizeof(m->hello);
	}
	if (i == 1) {
		raw_space_init(&m->space, "sp", 64);
		return sizeof(m->space);
	}
	if (i == 2) {
		m->join = (struct kvmd_join) {
			.h = { .type = KVMD_MSG_JOIN, .bytes = sizeof(m->join) },
			.version = KVMD_WIRE_VERSION, .rank = 1, .group_token = 9,
		};
		return sizeof(m->join);
	}
	m->h.type = head_only[i - 3];
	m->h.bytes = (uint32_t)bytes[i - 3];
	return bytes[i - 3];
}

static void hello_passed(const struct kvmd_hello *h)
{
	T_EQ(h->version, KVMD_WIRE_VERSION);
	T(h->sq_entries && h->sq_entries <= KVMD_MAX_SQ && !(h->sq_entries & (h->sq_entries - 1)));
	T(h->cq_entries >= h->sq_entries && h->cq_entries <= KVMD_MAX_CQ &&
	  !(h->cq_entries & (h->cq_entries - 1)));
	T(h->max_seqs && h->max_tokens && h->args_bytes && h->args_bytes % 4096 == 0);
	T(h->nr_ranks && h->nr_ranks <= KVMD_MAX_RANKS);
	T(h->nr_lanes >= h->nr_ranks && h->nr_lanes <= KVMD_MAX_LANES);
	T(memchr(h->tenant, 0, sizeof(h->tenant)) && memchr(h->label, 0, sizeof(h->label)));
}

static void passed(const union message *m, size_t bytes)
{
	char text[256] = "";

	T(bytes >= sizeof(m->h) && m->h.bytes == bytes && !m->h.nr_fds);
	switch (m->h.type) {
	case KVMD_MSG_HELLO:
		T_EQ(bytes, sizeof(m->hello));
		hello_passed(&m->hello);
		break;
	case KVMD_MSG_SPACE:
		T_EQ(bytes, sizeof(m->space));
		T(m->space.name[0] && memchr(m->space.name, 0, sizeof(m->space.name)));
		if (space_check_geometry(&m->space, text, sizeof(text))) {
			T(text[0]);
			break;
		}
		T(m->space.nr_groups && m->space.nr_groups <= KVMD_MAX_GROUPS);
		T(m->space.nr_shards && m->space.nr_shards <= KVMD_MAX_SHARDS);
		for (uint32_t g = 0; g < m->space.nr_groups; g++)
			T(m->space.group[g].planes && m->space.group[g].plane_bytes &&
			  m->space.group[g].block_tokens &&
			  m->space.group[g].planes <= KVMD_MAX_PLANES);
		break;
	case KVMD_MSG_JOIN:
		T(m->join.rank && m->join.rank < KVMD_MAX_RANKS);
		break;
	default:
		break;
	}
}

static int ask(const union message *m, size_t bytes)
{
	char text[KVMD_TEXT_BYTES];
	int err;

	memset(text, 'x', sizeof(text));
	err = control_check(m, bytes, text, sizeof(text));
	T(err == 0 || err == -EINVAL || err == -EPROTO);
	if (err)
		T(memchr(text, 0, sizeof(text)) && text[0]);
	else
		passed(m, bytes);
	return err;
}

START_TEST(messages)
{
	uint64_t rnd = test_seed(), runs = test_fuzz_runs(200000);

	for (uint64_t i = 0; i < runs; i++) {
		union message m;
		size_t bytes = good(&rnd, &m);
		unsigned hurt = (unsigned)(test_random(&rnd) % 4);

		T_EQ(ask(&m, bytes), 0);
		for (unsigned k = 0; k < hurt; k++) {
			size_t at = test_random(&rnd) % (bytes / 8);

			m.w[at] ^= test_random(&rnd) % 2 ? 1ull << test_random(&rnd) % 64 :
				   test_random(&rnd) >> test_random(&rnd) % 64;
		}
		ask(&m, bytes);
		if (i % 8 == 0)
			ask(&m, test_random(&rnd) % sizeof(m));
	}
}
END_TEST

START_TEST(nonsense)
{
	uint64_t rnd = test_seed(), runs = test_fuzz_runs(20000);

	for (uint64_t i = 0; i < runs; i++) {
		union message m;
		size_t bytes = test_random(&rnd) % sizeof(m);

		for (size_t k = 0; k < sizeof(m) / 8; k++)
			m.w[k] = test_random(&rnd) >> test_random(&rnd) % 64;
		m.h.type %= KVMD_NR_MSG + 2;
		if (i % 2)
			m.h.bytes = (uint32_t)bytes;
		ask(&m, bytes);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("control_fuzz");
	TCase *t = tcase_create("control_fuzz");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, messages);
	tcase_add_test(t, nonsense);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
