/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_idle.c - a daemon with nothing to do sleeps, and so does one whose
 * clients wait.
 *
 * The counters are read from the shared stats page, which costs the daemon
 * nothing. "Asleep" is what its rings say: NEED_WAKEUP is raised.
 */
#include "kvmd/stats.h"
#include "tests/harness.h"
#include "tests/raw.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nslab_deadline = 5ms\n" \
		"deadlock_time = 1h\n"

static struct hd d;

/* The stats page, by the descriptor that "stat fd" hands out. */
static const struct kvmd_stats_page *stats_page(void)
{
	char control[CMSG_SPACE(sizeof(int))], text[4096];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	struct cmsghdr *cm;
	void *p;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s.admin", d.sock);
	T(!connect(s, (struct sockaddr *)&sa, sizeof(sa)));
	T(write(s, "stat fd\n", 8) == 8);
	T(recvmsg(s, &mh, MSG_CMSG_CLOEXEC) > 0);
	cm = CMSG_FIRSTHDR(&mh);
	T(cm && cm->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
	while (read(s, text, sizeof(text)) > 0)
		;
	close(s);
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	T(p != MAP_FAILED);
	close(fd);
	return p;
}

static uint64_t wakeups(const struct kvmd_stats_page *p)
{
	return __atomic_load_n(&p->val[KVMD_STAT_WAKEUPS], __ATOMIC_RELAXED);
}

/* Until the daemon is about to wait. */
static void asleep(struct raw *r)
{
	uint64_t until = test_now_ns() + WAIT_NS;

	while (!(__atomic_load_n(&r->ring->daemon_flags, __ATOMIC_ACQUIRE) &
		 KVMD_RING_NEED_WAKEUP))
		T(test_now_ns() < until);
}

START_TEST(idle_with_eight_clients)
{
	const struct timespec second = { .tv_sec = 1 };
	const struct kvmd_stats_page *page;
	struct raw r[8];
	uint64_t was;

	hd_start(&d, POOL);
	page = stats_page();
	for (unsigned i = 0; i < 8; i++) {
		struct kvmd_sqe e = { .opcode = KVMD_OP_SEQ_OPEN };

		raw_open(&r[i], &d, "sp", 64);
		T_EQ(raw_do(&r[i], &e), 0);
		e = (struct kvmd_sqe) { .opcode = KVMD_OP_SEQ_EXTEND, .nr = 4 };
		T_EQ(raw_do(&r[i], &e), 4);
	}
	asleep(&r[7]);
	/* What it had under way (the eighth's slab) ends; then nothing comes any more. */
	nanosleep(&second, NULL);
	was = wakeups(page);
	nanosleep(&second, NULL);
	T_EQ(wakeups(page), was);
	for (unsigned i = 0; i < 8; i++)
		raw_close(&r[i]);
	munmap((void *)(uintptr_t)page, 4096);
	hd_stop(&d);
}
END_TEST

/* While an allocation waited the daemon turned round without ever sleeping. */
START_TEST(a_waiting_allocation_does_not_keep_the_daemon_awake)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_SEQ_OPEN };
	struct raw r;

	hd_start(&d, POOL);
	raw_open(&r, &d, "sp", 64);
	for (e.seq = 1; e.seq < 3; e.seq++)
		T_EQ(raw_do(&r, &e), 0);
	e = (struct kvmd_sqe) { .opcode = KVMD_OP_SEQ_EXTEND, .seq = 1, .nr = 64 };
	T_EQ(raw_do(&r, &e), 64);
	e = (struct kvmd_sqe) {
		.opcode = KVMD_OP_SEQ_EXTEND, .seq = 2, .nr = 1, .aux = test_now_ns() + WAIT_NS,
	};
	raw_put(&r, &e);
	e = (struct kvmd_sqe) { .opcode = KVMD_OP_NOP };
	T_EQ(raw_do(&r, &e), 0);
	for (unsigned i = 0; i < 8; i++)
		asleep(&r);
	e = (struct kvmd_sqe) { .opcode = KVMD_OP_SEQ_CLOSE, .seq = 1 };
	raw_put(&r, &e);
	T_EQ(raw_take(&r).res, 0);
	T_EQ(raw_take(&r).res, 1);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

/* A tail that promises entries without pos words kept the daemon awake as well. */
START_TEST(a_ring_that_jumps_back_a_little_does_not_keep_it_awake)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_NOP };
	struct raw r;

	hd_start(&d, POOL);
	raw_open(&r, &d, "sp", 64);
	for (unsigned i = 0; i < 5; i++)
		T_EQ(raw_do(&r, &e), 0);
	__atomic_store_n(&r.ring->sq_tail, r.tail - 3, __ATOMIC_RELEASE);
	raw_ring(&r);
	asleep(&r);
	T_EQ(raw_do(&r, &e), 0);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

/*
 * Entries that found no place for their completions stay in the ring, and the
 * daemon sleeps. A client that takes completions and submits nothing hung.
 */
START_TEST(places_for_completions_wake_the_daemon)
{
	struct kvmd_sqe nop = { .opcode = KVMD_OP_NOP };
	const struct kvmd_cqe *c;
	struct kvc_space s;
	struct kvc_opts o;
	struct raw r;
	struct kvc *k;

	hd_start(&d, POOL);
	raw_open(&r, &d, "sp", 64);
	plain_space(&s, "sp", 64);
	opts_for(&d, &o);
	o.sq_entries = o.cq_entries = 8;
	k = client_opts(&d, &s, &o);
	for (unsigned i = 0; i < 16; i++) {
		struct kvmd_sqe *e = kvc_get_sqe(k);

		T(e);
		kvc_prep_nop(e);
		if (i % 8 < 7)
			continue;
		T_EQ(kvc_submit(k), 8);
		/* Awake once more, then asleep: the first eight are answered, the others stay. */
		T_EQ(raw_do(&r, &nop), 0);
		asleep(&r);
	}
	for (unsigned i = 0; i < 16; i++) {
		T_EQ(kvc_wait_cqe(k, 20000000000ull, &c), 0);
		kvc_cqe_seen(k);
	}
	kvc_destroy(k);
	raw_close(&r);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("idle");
	TCase *t = tcase_create("idle");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, idle_with_eight_clients);
	tcase_add_test(t, a_waiting_allocation_does_not_keep_the_daemon_awake);
	tcase_add_test(t, a_ring_that_jumps_back_a_little_does_not_keep_it_awake);
	tcase_add_test(t, places_for_completions_wake_the_daemon);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
