/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_rig.h - one device, one stream, and processes, for tests of the driver's ways.
 *
 * CUDA does not survive fork(): processes are made before the driver is opened, and
 * open it for themselves. A failed CR() ends the test, or the process, which then
 * fails the test in cr_end().
 */
#ifndef KVMD_TESTS_GPU_DRIVER_RIG_H
#define KVMD_TESTS_GPU_DRIVER_RIG_H

#include <check.h>
#include <stdbool.h>
#include <sys/types.h>

#include "kvmd/cuda_abi.h"

#define CR(c)		cr_true(!!(c), #c, __FILE__, __LINE__, 0)
#define CR_IS(call, r)	cr_result((call), (r), #call, __FILE__, __LINE__)
#define CR_OK(call)	CR_IS(call, CU_OK)
/* It refuses, with whatever error. */
#define CR_NOT(call)	cr_refused((call), #call, __FILE__, __LINE__)
void cr_true(bool ok, const char *what, const char *file, int line, int r);
void cr_result(int r, int want, const char *what, const char *file, int line);
void cr_refused(int r, const char *what, const char *file, int line);

struct cr {
	struct cu cu;
	cu_ctx ctx;
	cu_stream s;
	cu_event e;
	size_t gran;			/* of device memory */
};

void cr_open(struct cr *r);		/* device 0, its context current */
void cr_context(struct cr *r);		/* the same, after a reset */
/* "" and true: a driver and a device are there; else why not. Asks in a process. */
bool cr_there(char *why, size_t n);
/* A function that only the fake driver has; NULL: the driver is a real one. */
void *cr_fake(const char *name);
/* Runs @s, with a state file for the fake: main()'s value. Where no device is, one skip. */
int cr_main(Suite *s);
const char *cr_state(void);		/* that file */

/* VMM memory, mapped with @prot. */
struct cr_mem {
	cu_mem mem;
	cu_ptr ptr;
	size_t bytes;
};
cu_mem cr_create(struct cr *r, size_t bytes);		/* exportable */
int cr_export(struct cr *r, cu_mem mem);
cu_mem cr_import(struct cr *r, int fd);
cu_ptr cr_map(struct cr *r, cu_mem mem, size_t bytes, int prot);
void cr_access(struct cr *r, cu_ptr ptr, size_t bytes, int prot);
void cr_unmap(struct cr *r, cu_ptr ptr, size_t bytes);
void cr_new(struct cr *r, struct cr_mem *m, size_t bytes);	/* all of these, read and write */
void cr_free(struct cr *r, struct cr_mem *m);

/* Bytes by copies of the stream, and back when they are done: 0 or the error. */
int cr_put(struct cr *r, cu_ptr dst, const void *src, size_t n);
int cr_get(struct cr *r, void *dst, cu_ptr src, size_t n);
/* Each byte of [@ptr, @ptr + @n) becomes, or is, @c. */
void cr_fill(struct cr *r, cu_ptr ptr, int c, size_t n);
bool cr_is(struct cr *r, cu_ptr ptr, int c, size_t n);
/* Whole pages, zero; pinned. */
void *cr_host(struct cr *r, size_t n);
static inline cu_ptr cr_ptr(const void *p)
{
	return (uintptr_t)p;
}
/* An operation that holds up stream @s until cr_go(). */
void cr_stop(struct cr *r, cu_stream s, uint64_t *gate);
void cr_go(uint64_t *gate);
uint64_t *cr_gate(struct cr *r);

struct cr_child {
	pid_t pid;
	int sock;
};
typedef void cr_child_fn(struct cr_child *me, void *arg);
void cr_fork(struct cr_child *c, cr_child_fn *fn, void *arg);
void cr_say(struct cr_child *c, uint64_t v);
uint64_t cr_hear(struct cr_child *c);
void cr_send(struct cr_child *c, int fd);		/* and closes it */
int cr_take(struct cr_child *c);
void cr_say_bytes(struct cr_child *c, const void *p, size_t n);
void cr_hear_bytes(struct cr_child *c, void *p, size_t n);
void cr_end(struct cr_child *c);			/* it ends by itself, without a failure */
int cr_status(struct cr_child *c);			/* exit status, or 128 + signal */
void cr_kill(struct cr_child *c);			/* SIGKILL, and gone when this returns */

#endif
