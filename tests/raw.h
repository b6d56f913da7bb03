/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.h - a client without the library: it may say anything.
 *
 * It maps rings and tables, answers slab announcements without mapping them, and
 * writes entries and indices as the test says.
 */
#ifndef KVMD_TESTS_RAW_H
#define KVMD_TESTS_RAW_H

#include "tests/harness.h"

struct raw {
	int sock, bell;
	struct kvmd_ring *ring;
	struct kvmd_sqe *sq;
	struct kvmd_cqe *cq;
	char *args;
	struct kvmd_steps *steps;
	uint32_t sq_mask, cq_mask;
	uint32_t tail, head;		/* of its entries, of completions taken */
	struct kvmd_hello_reply hello;
	struct kvmd_space_reply space;
	bool closed;			/* the daemon closed the socket */
	bool mute;			/* do not answer slab announcements */
};

void raw_connect(struct raw *r, struct hd *d);
void raw_hello_init(struct kvmd_hello *m);
void raw_space_init(struct kvmd_space *m, const char *name, uint32_t slots);
void raw_send(struct raw *r, const void *msg, size_t bytes);
/* A message of @type, other announcements answered; descriptors mapped or closed. */
void raw_recv(struct raw *r, uint32_t type, void *msg, size_t bytes);
bool raw_is_closed(struct raw *r);	/* waits for the daemon to close the socket */
/* hello and space; err of the first that was refused, its text in @text. */
int raw_hello(struct raw *r, const struct kvmd_hello *m, char *text);
int raw_space(struct raw *r, const struct kvmd_space *m, char *text);
void raw_open(struct raw *r, struct hd *d, const char *space, uint32_t slots);
void raw_close(struct raw *r);

void raw_put(struct raw *r, const struct kvmd_sqe *e);	/* with pos and tail */
void raw_ring(struct raw *r);				/* the bell */
struct kvmd_cqe raw_take(struct raw *r);
int raw_do(struct raw *r, const struct kvmd_sqe *e);	/* put, take: res */
/* Wait until the session was ended; why. */
int raw_ended(struct raw *r);

#endif
