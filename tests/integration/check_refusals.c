/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_refusals.c - bad input over the real socket and ring: refused by name,
 * and nobody else notices.
 */
#include "tests/harness.h"
#include "tests/raw.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nslab_deadline = 5ms\n"

static struct hd d;
static char text[KVMD_TEXT_BYTES];

/* --------------------------------------------------------------------- entries */

/* Sequence 1, generation 5, with four private blocks. */
static void prepare(struct raw *r)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_SEQ_OPEN, .seq = 1, .seq_gen = 5 };

	raw_open(r, &d, "sp", 64);
	T_EQ(raw_do(r, &e), 0);
	e = (struct kvmd_sqe) { .opcode = KVMD_OP_SEQ_EXTEND, .seq = 1, .seq_gen = 5, .nr = 4 };
	T_EQ(raw_do(r, &e), 4);
}

#define SEQ1	.seq = 1, .seq_gen = 5

static const struct bad {
	const char *name;
	struct kvmd_sqe e;
	int res;
} bad[] = {
	{ "bad opcode", { .opcode = KVMD_NR_OP }, -EINVAL },
	{ "bad opcode", { .opcode = 0xff }, -EINVAL },
	{ "bad flag", { .opcode = KVMD_OP_NOP, .flags = 1 }, -EINVAL },
	{ "bad flag", { .opcode = KVMD_OP_SEQ_OPEN, .flags = 64, .seq = 2 }, -EINVAL },
	{ "wait without load", { .opcode = KVMD_OP_SEQ_OPEN, .flags = KVMD_OPEN_WAIT, .seq = 2 },
	  -EINVAL },
	{ "bad flag", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1, .nr = 1, .flags = 4 }, -EINVAL },
	{ "reserved field", { .opcode = KVMD_OP_NOP, .resv = 1 }, -EINVAL },
	{ "unread field", { .opcode = KVMD_OP_NOP, .aux = 1 }, -EINVAL },
	{ "unread field", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1, .nr = 1, .first = 1 }, -EINVAL },
	{ "unread field", { .opcode = KVMD_OP_SEQ_CLOSE, SEQ1, .off = 8 }, -EINVAL },
	{ "unknown hint", { .opcode = KVMD_OP_SEQ_CLOSE, SEQ1, .arg = 1u << 20 }, -EINVAL },
	{ "sequence out of range", { .opcode = KVMD_OP_SEQ_OPEN, .seq = 16 }, -EINVAL },
	{ "sequence out of range", { .opcode = KVMD_OP_SEQ_CLOSE, .seq = ~0u }, -EINVAL },
	{ "group out of range", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1, .group = 1, .nr = 1 },
		-EINVAL },
	{ "all groups not allowed", { .opcode = KVMD_OP_SEQ_TRIM, SEQ1, .group = 0xff }, -EINVAL },
	{ "one group for tokens", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1, .nr = 1,
		.flags = KVMD_EXTEND_TOKENS }, -EINVAL },
	{ "no blocks", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1 }, -EINVAL },
	{ "row ends before", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1, .nr = 253 }, -ENOSPC },
	{ "row ends before", { .opcode = KVMD_OP_SEQ_EXTEND, SEQ1, .nr = ~0u }, -ENOSPC },
	{ "fork to itself", { .opcode = KVMD_OP_SEQ_FORK, SEQ1, .first = 1 }, -EINVAL },
	{ "fork out of range", { .opcode = KVMD_OP_SEQ_FORK, SEQ1, .first = 16 }, -EINVAL },
	{ "position out of range", { .opcode = KVMD_OP_SEQ_UNSHARE, SEQ1, .first = 4 }, -EINVAL },
	{ "range out of range", { .opcode = KVMD_OP_SEQ_TRIM, SEQ1, .first = 2, .nr = 3 },
		-EINVAL },
	{ "range out of range", { .opcode = KVMD_OP_SEQ_TRIM, SEQ1, .first = ~0u, .nr = 2 },
		-EINVAL },
	{ "range out of range", { .opcode = KVMD_OP_SEQ_REPLACE, SEQ1, .first = 3, .nr = 2 },
		-EINVAL },
	{ "more new than old", { .opcode = KVMD_OP_SEQ_REPLACE, SEQ1, .nr = 1, .arg = 2 },
		-EINVAL },
	{ "positions out of range", { .opcode = KVMD_OP_SEQ_PUBLISH, SEQ1, .first = 3, .nr = 2 },
		-EINVAL },
	{ "positions overflow", { .opcode = KVMD_OP_SEQ_PUBLISH, SEQ1, .first = ~0u, .nr = 2 },
		-EINVAL },
	{ "keys outside args", { .opcode = KVMD_OP_SEQ_PUBLISH, SEQ1, .nr = 2, .off = 65536 - 32 },
		-EFAULT },
	{ "keys outside args", { .opcode = KVMD_OP_LOOKUP, .nr = 1, .off = 65536 }, -EFAULT },
	{ "keys outside args", { .opcode = KVMD_OP_SEQ_OPEN, .seq = 2, .nr = 1, .off = ~7ull },
		-EFAULT },
	{ "keys not aligned", { .opcode = KVMD_OP_SEQ_OPEN, .seq = 2, .nr = 1, .off = 4 },
		-EINVAL },
	{ "more keys than a row", { .opcode = KVMD_OP_SEQ_OPEN, .seq = 2, .nr = 257 }, -EINVAL },
	{ "lists of another number", { .opcode = KVMD_OP_SEQ_OPEN, .seq = 2, .nr = 2,
		.flags = KVMD_OPEN_LISTS }, -EINVAL },
	{ "stale generation", { .opcode = KVMD_OP_SEQ_EXTEND, .seq = 1, .seq_gen = 4, .nr = 1 },
		-ESTALE },
	{ "stale generation", { .opcode = KVMD_OP_ADVISE, .seq = 1, .seq_gen = 4, .nr = 1,
		.flags = KVMD_ADVISE_SEQ }, -ESTALE },
	{ "foreign sequence", { .opcode = KVMD_OP_SEQ_EXTEND, .seq = 3, .seq_gen = 9, .nr = 1 },
		-ENOENT },
	{ "sequence in use", { .opcode = KVMD_OP_SEQ_OPEN, SEQ1 }, -EBUSY },
	{ "sequence in use", { .opcode = KVMD_OP_SEQ_RECV, SEQ1, .aux = 1 }, -EBUSY },
	{ "no such ticket", { .opcode = KVMD_OP_SEQ_RECV, .seq = 2, .aux = 1 }, -ENOENT },
	{ "step not submitted", { .opcode = KVMD_OP_SEQ_CLOSE, SEQ1, .step = 9 }, -EINVAL },
	{ "unknown advice", { .opcode = KVMD_OP_ADVISE, .arg = KVMD_NR_ADV }, -EINVAL },
	{ "priority over 100", { .opcode = KVMD_OP_ADVISE, .arg = KVMD_ADV_PRIORITY, .aux = 101 },
		-EINVAL },
	{ "advice needs no time", { .opcode = KVMD_OP_ADVISE, .arg = KVMD_ADV_PIN, .aux = 1 },
		-EINVAL },
	{ "positions out of range", { .opcode = KVMD_OP_ADVISE, SEQ1, .nr = 5,
		.flags = KVMD_ADVISE_SEQ }, -EINVAL },
	{ "not in this build", { .opcode = KVMD_OP_SEQ_SWAP_OUT, SEQ1 }, -EOPNOTSUPP },
	{ "no such entry", { .opcode = KVMD_OP_CANCEL, .aux = 77 }, -ENOENT },
	{ "clock not driven", { .opcode = KVMD_OP_CLOCK, .aux = 1 }, -EPERM },
};

START_TEST(each_malformed_entry_gets_its_own_answer)
{
	struct kvmd_sqe e, nop = { .user_data = 9 };
	uint64_t refused = 0;
	struct raw r;

	hd_start(&d, POOL);
	prepare(&r);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int res;

		e = bad[i].e;
		e.user_data = i;
		res = raw_do(&r, &e);
		if (res != bad[i].res)
			fprintf(stderr, "%s (%zu): %d\n", bad[i].name, i, res);
		T_EQ(res, bad[i].res);
		T_EQ(raw_do(&r, &nop), 0);
	}
	refused = hd_stat(&d, "refused_entries");
	T(refused >= 25);
	/* The sequence is as it was. */
	e = (struct kvmd_sqe) { .opcode = KVMD_OP_SEQ_CLOSE, SEQ1 };
	raw_put(&r, &e);
	T_EQ(raw_take(&r).v0, 4);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

START_TEST(a_key_list_is_checked_as_fetched)
{
	struct kvmd_key_list *l;
	struct kvmd_sqe e = {
		.opcode = KVMD_OP_SEQ_OPEN, .seq = 1, .nr = 1, .flags = KVMD_OPEN_LISTS,
	};
	struct raw r;

	hd_start(&d, POOL);
	raw_open(&r, &d, "sp", 64);
	l = (struct kvmd_key_list *)(void *)r.args;
	*l = (struct kvmd_key_list) { .off = 65536, .nr = 1 };
	T_EQ(raw_do(&r, &e), -EFAULT);
	*l = (struct kvmd_key_list) { .off = 64, .nr = 1, .resv = 1 };
	T_EQ(raw_do(&r, &e), -EINVAL);
	*l = (struct kvmd_key_list) { .off = 64, .nr = 1000 };
	T_EQ(raw_do(&r, &e), -EINVAL);
	*l = (struct kvmd_key_list) { .off = 64, .nr = 1 };
	T_EQ(raw_do(&r, &e), 0);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------------ rings */

static const int64_t jumps[] = { 65, 4096, INT32_MAX, -65, -100000 };

START_TEST(an_impossible_index_ends_the_session_and_no_other)
{
	struct kvc *k;
	struct raw r;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 4, 1);
	prepare(&r);
	__atomic_store_n(&r.ring->sq_tail, r.tail + (uint32_t)jumps[_i], __ATOMIC_RELEASE);
	raw_ring(&r);
	T_EQ(raw_ended(&r), -EPROTO);
	T_EQ(kvc_nop(k), 0);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 3), (1 << 8) + 3));
	T_EQ(hd_stat(&d, "broken_rings"), 1);
	raw_close(&r);		/* and a good-bye gives its memory back */
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* A client that was preempted between its pos words and its tail was thrown out. */
START_TEST(entries_are_found_by_pos_before_the_tail_is_stored)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_NOP };
	struct raw r;

	hd_start(&d, POOL);
	raw_open(&r, &d, "sp", 64);
	for (uint32_t i = 0; i < 4; i++) {
		struct kvmd_sqe *at = &r.sq[r.tail & r.sq_mask];

		e.user_data = i;
		memcpy(at, &e, offsetof(struct kvmd_sqe, pos));
		__atomic_store_n(&at->pos, ++r.tail, __ATOMIC_RELEASE);
	}
	raw_ring(&r);
	for (uint32_t i = 0; i < 4; i++)
		T_EQ(raw_take(&r).user_data, i);
	__atomic_store_n(&r.ring->sq_tail, r.tail, __ATOMIC_RELEASE);
	T_EQ(raw_do(&r, &e), 0);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

/* A tail without entries whose pos words agree kept the daemon from sleeping. */
START_TEST(entries_are_found_by_the_tail_when_their_pos_words_are_wrong)
{
	struct raw r;

	hd_start(&d, POOL);
	raw_open(&r, &d, "sp", 64);
	memset(r.sq, 0, 64 * sizeof(*r.sq));
	__atomic_store_n(&r.ring->sq_tail, 3, __ATOMIC_RELEASE);
	raw_ring(&r);
	for (uint32_t i = 0; i < 3; i++)
		T_EQ(raw_take(&r).res, 0);
	r.tail = 3;
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

START_TEST(a_nonsense_completion_head_hurts_only_its_owner)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_NOP };
	struct kvc *k;
	struct raw r;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	raw_open(&r, &d, "sp", 64);
	__atomic_store_n(&r.ring->cq_head, 12345678, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < 64; i++)
		raw_put(&r, &e);
	for (uint32_t i = 0; i < 100; i++)
		T_EQ(kvc_nop(k), 0);
	raw_close(&r);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* --------------------------------------------------------------------- messages */

static int hello_with(size_t at, uint32_t value)
{
	struct kvmd_hello h;
	struct raw r;
	int err;

	raw_connect(&r, &d);
	raw_hello_init(&h);
	memcpy((char *)&h + at, &value, sizeof(value));
	err = raw_hello(&r, &h, text);
	raw_close(&r);
	return err;
}

#define HELLO(f, v)	hello_with(offsetof(struct kvmd_hello, f), v)

START_TEST(a_hello_is_refused_by_field)
{
	hd_start(&d, POOL "[tenant default]\nmax_seqs = 20\n");
	T_EQ(HELLO(version, 2), -EPROTO);
	T(strstr(text, "version 1") && strstr(text, "2"));
	T_EQ(HELLO(sq_entries, 3), -EINVAL);
	T(strstr(text, "sq_entries"));
	T_EQ(HELLO(cq_entries, 32), -EINVAL);
	T(strstr(text, "cq_entries"));
	T_EQ(HELLO(max_seqs, 0), -EINVAL);
	T(strstr(text, "max_seqs"));
	T_EQ(HELLO(max_seqs, 21), -EDQUOT);	/* more sequences than allowed */
	T(strstr(text, "max_seqs = 20"));
	T_EQ(HELLO(max_tokens, 0), -EINVAL);
	T(strstr(text, "max_tokens"));
	T_EQ(HELLO(args_bytes, 100), -EINVAL);
	T(strstr(text, "args_bytes"));
	T_EQ(HELLO(nr_lanes, 33), -EINVAL);
	T(strstr(text, "nr_lanes"));
	T_EQ(HELLO(nr_ranks, 9), -EINVAL);
	T(strstr(text, "nr_ranks"));
	T_EQ(HELLO(flags, 1), -EINVAL);
	T(strstr(text, "flags"));
	T_EQ(HELLO(tenant[0], 0x6e), -ENOENT);	/* "n" */
	T(strstr(text, "no tenant n") && strstr(text, "[tenant n]"));
	T_EQ(HELLO(label[60], 0x41), -EINVAL);
	T(strstr(text, "label"));
	T_EQ(HELLO(h.nr_fds, 1), -EINVAL);
	T(strstr(text, "file descriptors"));
	T_EQ(HELLO(features, ~0u), 0);		/* unknown features are not granted */
	hd_stop(&d);
}
END_TEST

static int space_with(size_t at, uint32_t value)
{
	struct kvmd_hello h;
	struct kvmd_space s;
	struct raw r;
	int err;

	raw_connect(&r, &d);
	raw_hello_init(&h);
	raw_space_init(&s, "sp", 64);
	memcpy((char *)&s + at, &value, sizeof(value));
	T_EQ(raw_hello(&r, &h, NULL), 0);
	err = raw_space(&r, &s, text);
	raw_close(&r);
	return err;
}

#define SPACE(f, v)	space_with(offsetof(struct kvmd_space, f), v)

START_TEST(a_geometry_is_refused_by_field)
{
	char want[96];
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	T_EQ(SPACE(group[0].plane_bytes, test_bytes(8192)), -EINVAL);
	snprintf(want, sizeof(want), "group[0].plane_bytes = %llu, not %llu",
		 (unsigned long long)test_bytes(4096), (unsigned long long)test_bytes(8192));
	T(strstr(text, want));
	T_EQ(SPACE(group[0].planes, 2), -EINVAL);
	T(strstr(text, "planes = 1, not 2"));
	T_EQ(SPACE(group[0].block_tokens, 32), -EINVAL);
	T(strstr(text, "block_tokens = 16, not 32"));
	T_EQ(SPACE(group[0].max_slots, 32), -EINVAL);
	T(strstr(text, "max_slots"));
	T_EQ(SPACE(group[0].max_slots, 0), 0);		/* the space's own */
	T_EQ(SPACE(nr_shards, 2), -EINVAL);
	T(strstr(text, "nr_shards"));
	T_EQ(SPACE(salt_digest[0], 1), -EINVAL);
	T(strstr(text, "salt_digest"));
	T_EQ(SPACE(flags, 4), -EINVAL);
	T(strstr(text, "flags"));
	T_EQ(SPACE(resv0, 1), -EINVAL);
	T(strstr(text, "resv"));
	T_EQ(SPACE(name[0], 0), -EINVAL);
	T(strstr(text, "name"));
	T_EQ(SPACE(nr_groups, 9), -EINVAL);
	T_EQ(SPACE(nr_groups, 0), -EINVAL);
	T_EQ(SPACE(nr_shards, 9), -EINVAL);
	T_EQ(SPACE(group[0].plane_bytes, 0), -EINVAL);
	T_EQ(SPACE(group[0].rule, KVMD_NR_RULE), -EINVAL);
	T_EQ(SPACE(group[0].codec.resv2[1], 1), -EINVAL);
	T_EQ(SPACE(device[0][0], 0x78),-EINVAL);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_new_space_on_an_unknown_device_is_refused)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	hd_start(&d, POOL);
	plain_space(&s, "sp", 64);
	opts_for(&d, &o);
	s.device[0] = "GPU-none";
	T_EQ(kvc_create(&o, &s, &k), -ENODEV);
	T(strstr(kvc_refusal(), "GPU-none"));
	s.device[0] = NULL;
	s.flags = KVMD_SPACE_EXISTING;
	T_EQ(kvc_create(&o, &s, &k), -ENOENT);
	T(strstr(kvc_refusal(), "no space sp"));
	s.flags = 0;
	o.tenant = "nobody";
	T_EQ(kvc_create(&o, &s, &k), -ENOENT);
	T(strstr(kvc_refusal(), "no tenant nobody"));
	hd_stop(&d);
}
END_TEST

START_TEST(messages_that_make_no_sense_close_the_connection)
{
	struct kvmd_msg m = { .type = 99, .bytes = sizeof(m) };
	struct kvmd_space s;
	char junk[3000];
	struct raw r;

	hd_start(&d, POOL);
	raw_connect(&r, &d);
	raw_send(&r, &m, sizeof(m));
	T(raw_is_closed(&r));
	raw_close(&r);
	raw_connect(&r, &d);
	memset(junk, 0xff, sizeof(junk));
	raw_send(&r, junk, sizeof(junk));
	T(raw_is_closed(&r));
	raw_close(&r);
	raw_connect(&r, &d);
	raw_send(&r, junk, 3);
	T(raw_is_closed(&r));
	raw_close(&r);
	raw_connect(&r, &d);
	raw_space_init(&s, "sp", 64);
	T_EQ(raw_space(&r, &s, text), -EALREADY);
	T(strstr(text, "say hello first"));
	raw_close(&r);
	raw_open(&r, &d, "sp", 64);
	T_EQ(raw_space(&r, &s, text), -EALREADY);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

/* Descriptors that a client attaches are not taken. */
START_TEST(descriptors_of_a_client_are_dropped)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct kvmd_hello h;
	struct iovec iov = { .iov_base = &h, .iov_len = sizeof(h) };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
	struct kvmd_hello_reply rep;
	struct raw r;
	int p[2];
	char c;

	hd_start(&d, POOL);
	raw_connect(&r, &d);
	raw_hello_init(&h);
	T(!pipe2(p, O_CLOEXEC));
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &p[1], sizeof(int));
	T(sendmsg(r.sock, &mh, MSG_NOSIGNAL) == sizeof(h));
	raw_recv(&r, KVMD_MSG_HELLO_REPLY, &rep, sizeof(rep));
	T_EQ(rep.h.err, 0);
	close(p[1]);
	T_EQ(read(p[0], &c, 1), 0);	/* nobody else holds the writing end */
	close(p[0]);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

/* ----------------------------------------------------------------------- limits */

START_TEST(a_tenant_over_its_limits_is_refused)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k, *more, *third;

	hd_start(&d, POOL "deadlock_time = 1h\n"
		 "[tenant default]\nhbm_max = 32K\nmax_sessions = 2\nring_bytes = 3M\n");
	k = plain_client(&d, "sp", 64);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 8, 0, WAIT_NS, NULL), 8);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 1, 0, WAIT_NS, NULL), -EDQUOT);
	T_EQ(hd_stat(&d, "tenant_max_events"), 1);
	T_EQ(hd_stat(&d, "alloc_refused_quota"), 1);
	plain_space(&s, "sp", 64);
	opts_for(&d, &o);
	o.args_bytes = 4 << 20;
	T_EQ(kvc_create(&o, &s, &more), -EDQUOT);
	T(strstr(kvc_refusal(), "ring_bytes"));
	o.args_bytes = 4096;
	more = client_opts(&d, &s, &o);
	T_EQ(kvc_create(&o, &s, &third), -EDQUOT);
	T(strstr(kvc_refusal(), "max_sessions"));
	kvc_destroy(k);
	kvc_destroy(more);
	hd_stop(&d);
}
END_TEST

static void stranger(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	(void)arg;
	/* The directories above may be closed to others: go there first. */
	T(!chdir(hd->dir));
	T(!setgid(65534) && !setuid(65534));
	plain_space(&s, "sp", 64);
	opts_for(hd, &o);
	o.socket = "k";
	T_EQ(kvc_create(&o, &s, &k), -EACCES);
	T(strstr(kvc_refusal(), "uid 65534 may not use tenant default"));
	/* The fake driver's file is root's. */
	if (!test_fake_cuda()) {
		o.tenant = "guests";
		T_EQ(kvc_create(&o, &s, &k), 0);
		kvc_destroy(k);
	}
	say(me, 1);
}

START_TEST(a_user_that_may_not_is_refused)
{
	struct peer p;

	if (geteuid()) {
		printf("SKIP: not root: cannot become another user\n");
		return;
	}
	hd_start(&d, "socket_mode = 666\n" POOL "[tenant guests]\nuids = 65534\n");
	T(!chmod(d.dir, 0755));
	peer_start(&p, &d, stranger, NULL, 0);
	T_EQ(hear(&p), 1);
	peer_end(&p);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("refusals");
	TCase *t = tcase_create("refusals");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, each_malformed_entry_gets_its_own_answer);
	tcase_add_test(t, a_key_list_is_checked_as_fetched);
	tcase_add_loop_test(t, an_impossible_index_ends_the_session_and_no_other, 0,
			    (int)(sizeof(jumps) / sizeof(jumps[0])));
	tcase_add_test(t, entries_are_found_by_pos_before_the_tail_is_stored);
	tcase_add_test(t, entries_are_found_by_the_tail_when_their_pos_words_are_wrong);
	tcase_add_test(t, a_nonsense_completion_head_hurts_only_its_owner);
	tcase_add_test(t, a_hello_is_refused_by_field);
	tcase_add_test(t, a_geometry_is_refused_by_field);
	tcase_add_test(t, a_new_space_on_an_unknown_device_is_refused);
	tcase_add_test(t, messages_that_make_no_sense_close_the_connection);
	tcase_add_test(t, descriptors_of_a_client_are_dropped);
	tcase_add_test(t, a_tenant_over_its_limits_is_refused);
	tcase_add_test(t, a_user_that_may_not_is_refused);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
