/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness_int.h - what the parts of the harness share.
 */
#ifndef KVMD_TESTS_HARNESS_INT_H
#define KVMD_TESTS_HARNESS_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* harness.c: this process is a client of the test; a failure ends it alone. */
extern bool test_in_child;

/* peers.c: a child that ends with this test, whatever the test does. */
pid_t test_fork(void);
int test_wait(pid_t pid);	/* its exit status, or 128 + signal */
/* The process that client processes are forked from, before this one uses a driver. */
void peers_prepare(void);

/* device.c: before a daemon's directory is made. */
void device_prepare(void);
/* @conf for the device of this run, in @text. */
void device_conf(const char *conf, char *text, size_t bytes);
/* What the fake driver has seen was right; @gone: and no memory is in use any more. */
void device_check(bool gone);
/* The test is over; of the process that outlives it. */
void device_cleanup(void);

#endif
