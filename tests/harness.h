/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness.h - a real daemon, real client processes, and what tests ask of them.
 *
 * A test starts its own kvmd in a directory of its own and stops it again.
 * Waiting is for events: a line of the daemon's log, a word from a client
 * process, a completion. Every wait has a limit far above what can happen, after
 * which the test fails; no verdict depends on how long anything took.
 *
 * T() may be used in the test and in its client processes: there a failure ends
 * the process, which peer_end() reports. All of them die with the test.
 */
#ifndef KVMD_TESTS_HARNESS_H
#define KVMD_TESTS_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "include/kvclient.h"

#define WAIT_MS		60000			/* no wait of a test takes longer */
#define WAIT_NS		60000000000ull

#define T(c)		test_true(!!(c), #c, __FILE__, __LINE__, NULL, 0, 0)
#define T_EQ(a, b)	test_eq((int64_t)(a), (int64_t)(b), #a " == " #b, __FILE__, __LINE__)
void test_true(bool ok, const char *what, const char *file, int line, const char *more,
	       int64_t a, int64_t b);
static inline void test_eq(int64_t a, int64_t b, const char *what, const char *file, int line)
{
	test_true(a == b, what, file, line, "values", a, b);
}
/* Seed of a random test: $KVMD_TEST_SEED, else the clock; printed. */
uint64_t test_seed(void);
uint64_t test_random(uint64_t *state);
/* Inputs per fuzz target: $KVMD_FUZZ_RUNS cut to @most unless it is the long run. */
uint64_t test_fuzz_runs(uint64_t most);
uint64_t test_now_ns(void);

/* ---------------------------------------------------------------- devices */

/* Daemons of this run have cuda devices ($KVMD_TEST_DEVICE, device.c); of the fake. */
bool test_cuda(void);
bool test_fake_cuda(void);
uint64_t test_bytes(uint64_t bytes);		/* times $KVMD_TEST_SCALE */
bool test_skip(bool when, const char *why);	/* says so; @when */
const char *device_state(void);			/* the fake driver's file */
/* What fakes that start from now on are told beside ($KVMD_FAKECUDA); after hd_prepare(). */
void device_fake(const char *more);
bool test_only_fake(void);			/* false: a real one, says so */

/* ---------------------------------------------------------------- daemons */

struct hd {
	char dir[64], sock[96], conf[96];
	pid_t pid;			/* 0: not running */
	int log;			/* read end of its stderr */
	char *text;			/* what it said */
	size_t len, mark;		/* said, searched so far */
	bool keeper;			/* run it under kvkeeper; pid is the keeper's */
};

/* @conf: lines behind "[daemon] socket = ...". Waits until it serves. */
void hd_start(struct hd *d, const char *conf);
void hd_prepare(struct hd *d);			/* its directory; hd_conf() and hd_run() follow */
void hd_conf(struct hd *d, const char *conf);	/* write another configuration */
/* Both, and device_fake(): hd_run() follows. */
void hd_prepare_fake(struct hd *d, const char *conf, const char *more);
void hd_run(struct hd *d);			/* start with the directory's configuration */
bool hd_try_run(struct hd *d);			/* false: it ended before it served; hd_kill() it */
int hd_end(struct hd *d);			/* SIGTERM; exit status */
int hd_reap(struct hd *d);			/* it ends by itself; exit status */
void hd_kill(struct hd *d);			/* SIGKILL */
void hd_stop(struct hd *d);			/* check, end, remove the directory */
void hd_remove(struct hd *d);			/* the directory */
/* A line with @word, behind the last one found. Waits for it. */
void hd_said(struct hd *d, const char *word);
bool hd_says(struct hd *d, const char *word);	/* false: it ended without that */
/* Ask the admin socket; the answer lives until the next call. */
const char *hd_ask(struct hd *d, const char *line);
uint64_t hd_stat(struct hd *d, const char *counter);
void hd_check(struct hd *d);			/* the pool's and index's invariants hold */
/* Run kvmd with arguments until it exits: status; output in @buf. */
int kvmd_run(char *const argv[], char *buf, size_t bytes);
const char *kvmd_path(void);
const char *built_path(const char *name);	/* of another program; until the next call */
pid_t hd_daemon_pid(struct hd *d);		/* the daemon's own, keeper or not */

/* ------------------------------------------------------- client processes */

struct peer {
	pid_t pid;
	int to, from;
};

typedef void peer_fn(struct peer *me, struct hd *d, void *arg);
/*
 * A process with a copy of @bytes (256 at most) at @arg; 0: NULL. What else it knows
 * of the test is what stood there when the first daemon was prepared, or is shared
 * since before that: with cuda it is no fork of the test as it is now.
 */
void peer_start(struct peer *p, struct hd *d, peer_fn *fn, const void *arg, size_t bytes);
/* The test as it is now, with its descriptors; it may not use the pool. */
void peer_fork(struct peer *p, struct hd *d, peer_fn *fn, void *arg);
void say(struct peer *p, uint64_t v);
uint64_t hear(struct peer *p);
void peer_end(struct peer *p);			/* it ends by itself, without a failure */
int peer_status(struct peer *p);		/* it ends; its exit status, or 128 + signal */
void peer_kill(struct peer *p);			/* SIGKILL, and gone when this returns */
void peer_halt(struct peer *me);		/* in the child: wait to be killed */

/* ------------------------------------------------------------- sessions */

#define KEY	KVMD_KEY_BYTES
#define BT	16u				/* tokens of a block in plain spaces */

/* One full group, one shard, one plane of test_bytes(4096), @slots usable slots. */
void plain_space(struct kvc_space *s, const char *name, uint32_t slots);
struct kvc *client(struct hd *d, const struct kvc_space *s);
struct kvc *client_opts(struct hd *d, const struct kvc_space *s, const struct kvc_opts *o);
struct kvc *plain_client(struct hd *d, const char *name, uint32_t slots);
void opts_for(struct hd *d, struct kvc_opts *o);	/* small defaults */
/* Keys @first .. of a chain named @stream. */
void make_keys(unsigned char (*keys)[KEY], uint32_t stream, uint32_t first, uint32_t nr);
/* Write, compare all planes of all shards of one block. */
void fill(struct kvc *k, uint32_t g, uint32_t slot, uint64_t word);
bool holds(struct kvc *k, uint32_t g, uint32_t slot, uint64_t word);
bool is_blank(struct kvc *k, uint32_t g, uint32_t slot);	/* all zero */
static inline int32_t slot_at(struct kvc *k, uint32_t g, uint32_t seq, uint32_t pos)
{
	return kvc_row(kvc_view(k), g, seq)[pos];
}
/* The next completion. */
struct kvmd_cqe take(struct kvc *k);
struct kvmd_cqe take_for(struct kvc *k, uint64_t user_data);	/* it must be this one's */
/* Open @seq without keys, extend by @nr, filled with @word + position. */
void open_extend(struct kvc *k, uint32_t seq, uint32_t nr, uint64_t word);
/* The same, and publish chain @stream. */
void open_publish(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream);
/* All @nr blocks of the pool can be had at once: waits for that. Nothing else may hold any. */
void whole_pool(struct kvc *k, uint32_t nr);

#endif
