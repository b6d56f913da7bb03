/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_fake.h - a scripted daemon in a thread, for the tests of libkvclient.
 *
 * A test gives a script, which runs in the fake's thread from fake_start() on
 * and plays the daemon's part by the calls below; fake_stop() ends it and says
 * whether all went as the script wanted. The socket is an abstract one, so
 * nothing is left behind. Every wait ends after 20 s.
 */
#ifndef KVMD_TESTS_CLIENT_FAKE_H
#define KVMD_TESTS_CLIENT_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvclient.h>

#define FAKE_SQ		16u
#define FAKE_CQ		32u
#define FAKE_SLOTS	1024u
#define FAKE_SEQS	4u
#define FAKE_ROW	16u
#define FAKE_ARGS	65536u

struct fake {
	char path[64];			/* for kvc_opts.socket */
	pthread_t thread;
	void (*script)(struct fake *f);
	int listener;
	int conn;			/* of the last fake_accept() */
	int bell;
	int ring_fd, args_fd, steps_fd, tables_fd;
	struct kvmd_ring *ring;		/* of the last fake_hello() */
	struct kvmd_sqe *sq;
	struct kvmd_cqe *cq;
	struct kvmd_steps *steps;
	char *args;
	int32_t *tables;
	uint32_t sq_head, cq_tail;
	uint32_t cq_held;		/* completions whose cq_tail is not stored */
	uint64_t cookie;		/* of the last message */
	int failed_line;		/* first FAKE_CHECK() that failed, 0: none */
	const char *failed_what;
	/* what the replies say; set by the test before fake_start() */
	uint32_t version;
	uint32_t planes;
	uint32_t nr_shards;
	uint64_t plane_bytes;
	uint64_t features;
	const char *device;
	uint32_t handle_kind;		/* of a device that is not "null" */
	uint8_t uuid[KVMD_MAX_SHARDS][16];	/* of the shards' GPUs */
	/* Makes handle @idx of a slab, of @bytes; NULL: a memfd. */
	int (*handle)(struct fake *f, uint32_t idx, size_t bytes);
	uint32_t slab_gen;		/* of slabs in messages */
	uint8_t boot;			/* first byte of the boot id */
	void *aux;			/* the test's own */
};

#define FAKE_CHECK(f, c) do { \
	if (!(c) && !(f)->failed_line) { \
		(f)->failed_line = __LINE__; \
		(f)->failed_what = #c; \
	} \
} while (0)

void fake_start(struct fake *f, void (*script)(struct fake *f));
/* Joins the thread; asserts that no FAKE_CHECK() failed. */
void fake_stop(struct fake *f);
void fake_init(struct fake *f);

/* For scripts. */
void fake_accept(struct fake *f);
void fake_accept_kept(struct fake *f);	/* as a daemon that kept the session's memory */
void fake_hangup(struct fake *f);
/* Receives one message of @type into @buf (KVMD_MSG_MAX_BYTES). */
void fake_recv(struct fake *f, uint32_t type, void *buf);
void fake_send(struct fake *f, void *msg, size_t bytes, const int *fds, uint32_t nr_fds);
void fake_hello(struct fake *f);		/* takes HELLO, answers it */
void fake_refuse_hello(struct fake *f, int err, const char *text);
/* Takes RESUME of the boot before, rank 0, and answers; ring as on the first day. */
void fake_resume(struct fake *f, uint32_t nr_slabs);
void fake_refuse_resume(struct fake *f, int err, uint32_t retry_ms, const char *text);
void fake_space(struct fake *f, uint32_t nr_slabs);	/* takes SPACE, answers it */
void fake_space_reply(struct fake *f, uint32_t type, uint32_t nr_slabs);
/* A slab of @nr_slots; its memory fds go to @ret_fds (planes * shards), for the caller to close. */
void fake_slab_add(struct fake *f, uint32_t slab, uint32_t first_slot, uint32_t nr_slots,
		   uint32_t per_message, int *ret_fds);
void fake_slab_added(struct fake *f, uint32_t slab, int err);	/* waits for the answer */
void fake_slab_del(struct fake *f, uint32_t slab);
void fake_slab_deleted(struct fake *f, uint32_t slab);
void fake_news(struct fake *f);			/* a control message was sent */
void fake_ended(struct fake *f, int err);

/* Ring side of the daemon. */
bool fake_sqe(struct fake *f, struct kvmd_sqe *ret_e);	/* waits for the next entry */
void fake_cqe(struct fake *f, uint64_t user_data, int32_t res, uint32_t v0, uint32_t v1);
void fake_cq_publish(struct fake *f);		/* stores cq_tail, wakes a sleeper */
void fake_echo(struct fake *f, uint32_t nr);	/* answers @nr entries with res = nr field */
/* Waits until @word has the bits @mask (true) or 20 s passed. */
bool fake_wait_bits(const uint32_t *word, uint32_t mask);
bool fake_readable(const void *p);	/* is there memory */
bool fake_writable(void *p);	/* writes a byte */
int fake_memfd(size_t bytes);
unsigned fake_nr_fds(void);			/* open descriptors of this process */
#endif
