/* SPDX-License-Identifier: Apache-2.0 */
/*
 * owed.h - what the design takes for granted of a GPU, asked of the one that is here.
 *
 * Each question is a function that runs in a process of its own, with a time
 * limit; what asks the driver is an actor, again a process of its own, because a
 * context cannot be inherited and a fault ends it. The question's own process
 * never loads the driver. It prints
 *   answer NAME: TEXT		what the GPU and the driver do
 *   ok NAME | not ok NAME: WHY	whether kvmd can stand on that
 *   SKIP: NAME: WHY		it could not be asked here
 * Nothing here is shared with the tests of the cuda device but the driver API.
 */
#ifndef KVMD_TESTS_OWED_H
#define KVMD_TESTS_OWED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kvmd/cuda_abi.h"
#include "kvmd/lib/base.h"

#define OWED_TEXT	400u
#define OWED_WAIT_MS	30000
#define OWED_BLOCK	(2ull << 20)		/* bytes that most questions look at */
#define OWED_NOBODY	65534u

/* ------------------------------------------------------------ the question */

struct owed {
	const char *name;
	void (*ask)(const struct owed *o);
	const char *what;			/* for the list */
	unsigned limit_s;
};

extern const struct owed owed_list[];		/* ends with name NULL */

void owed_answer(const struct owed *o, const char *fmt, ...) __printf(2, 3);
void owed_ok(const struct owed *o);
void owed_not_ok(const struct owed *o, const char *fmt, ...) __printf(2, 3);
extern bool owed_failed;			/* owed_not_ok() was called in this process */
void owed_skip(const struct owed *o, const char *fmt, ...) __printf(2, 3);
/* @why is NULL: ok; else not ok. */
void owed_verdict(const struct owed *o, const char *why);

uint64_t owed_ns(void);
double owed_ms_since(uint64_t ns);
/* Of another program of the same build; until the next call. */
const char *owed_built(const char *name);

/* ------------------------------------------------------------ actors */

struct owed_gpu {
	struct cu cu;
	int dev;
	cu_ctx ctx;
	cu_stream s;
	size_t gran;
	cu_module module;			/* NULL: no kernels */
	cu_function k_fill, k_count;
	char no_kernel[120];			/* why */
};

struct owed_actor {
	pid_t pid;
	int sock;
	struct owed_gpu g;			/* in the actor only */
};

typedef void owed_fn(struct owed_actor *me, void *arg);

/* @uid 0: as we are. The actor ends when @fn returns. */
void owed_start(struct owed_actor *a, uid_t uid, owed_fn *fn, void *arg);
void owed_kill(struct owed_actor *a);		/* SIGKILL, and gone */
int owed_end(struct owed_actor *a);		/* its exit status, 128 + signal; NULL-safe */

/* One number, perhaps a descriptor (-1: none) and a text, to the other side. */
void owed_say(struct owed_actor *a, uint64_t v, int fd, const char *fmt, ...) __printf(4, 5);
/* What the other side says: 0, or -1 with @text: what failed there, or that it is gone. */
int owed_hear(struct owed_actor *a, uint64_t *ret_v, int *ret_fd, char text[OWED_TEXT]);
/* In an actor: tell the other side what failed, and end. */
void owed_fail(struct owed_actor *me, const char *fmt, ...) __printf(2, 3)
	__attribute__((noreturn));
/* In an actor: @r must be 0. */
void owed_must(struct owed_actor *me, const char *what, int r);
/* In an actor: wait for the next word; ends the actor when nobody is there. */
uint64_t owed_next(struct owed_actor *me, int *ret_fd);

/* ------------------------------------------------------------ the GPU */

/* In an actor. Loads the driver; @ctx: makes a context, a stream, loads the kernels. */
void owed_open(struct owed_actor *me, bool ctx);
void owed_read_kernels(void);			/* first of all: other users cannot, perhaps */
void owed_kernels(struct owed_gpu *g);		/* into the current context, or says why not */

struct owed_mem {
	cu_mem h;
	cu_ptr ptr;
	size_t bytes;
	int fd;					/* exported, -1: not */
};

struct cu_mem_prop owed_prop(const struct owed_gpu *g);
/* Creates, maps, exports; filled with the pattern of @seed when that is not 0. */
void owed_make(struct owed_actor *me, size_t bytes, uint64_t seed, struct owed_mem *ret_m);
/* Imports @fd (which stays open) and maps it. */
void owed_import(struct owed_actor *me, int fd, size_t bytes, int prot, struct owed_mem *ret_m);
void owed_map(struct owed_actor *me, struct owed_mem *m, int prot);
void owed_unmap(struct owed_actor *me, struct owed_mem *m);

/* The pattern of @seed into host memory, and how many of its words are something else. */
void owed_pattern(void *p, size_t bytes, uint64_t seed);
uint64_t owed_wrong(const void *p, size_t bytes, uint64_t seed);
/* The same with device memory, by copies; a CUDA error. */
int owed_put(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed);
int owed_get(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed, uint64_t *ret_wrong);
/* The same with kernels; CU_NOT_SUPPORTED: there are none. */
int owed_kernel_put(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed);
int owed_kernel_get(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed,
		    uint64_t *ret_wrong);
/* In an actor: both ways; ends it with @what when a word is wrong. */
void owed_expect(struct owed_actor *me, const char *what, cu_ptr ptr, size_t bytes, uint64_t seed);
/* "by copies and a kernel", or why there was no kernel. */
const char *owed_means(const struct owed_gpu *g);

/* ------------------------------------------------------------ what is asked */

void owed_driver(const struct owed *o);		/* owed_slab.c */
void owed_granularity(const struct owed *o);
void owed_no_context(const struct owed *o);
void owed_slab_times(const struct owed *o);
void owed_fd(const struct owed *o);
void owed_close_frees(const struct owed *o);

void owed_cross_uid(const struct owed *o);	/* owed_share.c */
void owed_cross_uid_legacy(const struct owed *o);
void owed_exporter_killed(const struct owed *o);
void owed_kept_fd(const struct owed *o);
void owed_keeper(const struct owed *o);
void owed_death(const struct owed *o);
int owed_keeper_child(void);			/* the program that kvkeeper runs there */

void owed_read_only(const struct owed *o);	/* owed_fault.c */

void owed_ro_register(const struct owed *o);	/* owed_host.c */
void owed_uring(const struct owed *o);
void owed_write64(const struct owed *o);
void owed_register_stall(const struct owed *o);

void owed_mps(const struct owed *o);		/* owed_mps.c */

#endif
