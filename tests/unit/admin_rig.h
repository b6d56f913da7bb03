/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_rig.h - the admin socket in a daemon without a loop: the test turns it by
 * hand, so that every interleaving is the test's own.
 */
#ifndef TEST_ADMIN_RIG_H
#define TEST_ADMIN_RIG_H

#include <check.h>

#include "kvmd/svc/daemon.h"

/* Made before each test of arig_group(), gone after it. */
extern struct arig {
	char dir[256], path[300];	/* of the admin socket */
	struct daemon *d;
} arig;

TCase *arig_group(Suite *s, const char *name);
struct space *arig_add_space(const char *name);
/* Blocks of one chain in @sp, all idle. */
void arig_add_blocks(struct space *sp, uint32_t nr);
int arig_dial(void);
int arig_dial_to(const char *where);
void arig_say(int fd, const char *text);
/* Turn the daemon until @fd ends; what it said, for the caller to free. */
char *arig_listen_to(int fd);
char *arig_ask(const char *line);		/* the answer, for the caller to free */
void arig_expect(const char *line, const char *part);	/* an answer with @part in it */

#endif
