/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_rig.h - a session with the fake daemon that is there already: the test
 * plays both sides, or lets a second thread be the daemon where the client waits.
 */
#ifndef TEST_CLIENT_RIG_H
#define TEST_CLIENT_RIG_H

#include "tests/unit/client_fake.h"

/* Make it, in a space without slabs, with a daemon of @features. */
struct kvc *crig_session(struct fake *f, uint64_t features);
/* The client lets go of it; the fake goes on. */
void crig_drop(struct fake *f, struct kvc *k);
/* Run @script as the daemon while the test goes on, until crig_join(). */
void crig_start(struct fake *f, void (*script)(struct fake *f));
void crig_join(struct fake *f);
void crig_take(struct kvc *k, uint64_t user_data);	/* one entry, an empty one */

#endif
