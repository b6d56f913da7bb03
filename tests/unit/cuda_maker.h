/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_maker.h - a process that owns device memory, as the daemon does.
 *
 * Forked before the caller starts the driver, since the driver does not survive
 * fork(). It makes memory on request, hands out what clients get of it, and reads and
 * writes its bytes through a mapping of its own. Calls wait for the answer; one thread
 * at a time.
 */
#ifndef KVMD_TESTS_CUDA_MAKER_H
#define KVMD_TESTS_CUDA_MAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAKER_BYTES	64u		/* at most, of a maker_get() or maker_put() */

struct maker {
	pid_t pid;
	int sock;
	unsigned nr;			/* pieces of memory made */
};

void maker_start(struct maker *m);
void maker_stop(struct maker *m);	/* waits for its end */
int maker_uuid(struct maker *m, unsigned gpu, uint8_t ret_uuid[16]);
/* @bytes of zeroes: piece number m->nr. An fd for a client, or -1; the caller closes it. */
int maker_make(struct maker *m, unsigned gpu, size_t bytes, bool legacy);
/* 0 or the driver's error. */
int maker_get(struct maker *m, unsigned piece, size_t off, void *ret_buf, size_t bytes);
int maker_put(struct maker *m, unsigned piece, size_t off, const void *buf, size_t bytes);

#endif
