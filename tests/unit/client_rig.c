/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_rig.c - see client_rig.h.
 */
#include "client_rig.h"

#include <check.h>
#include <errno.h>

static void script_session(struct fake *f)
{
	fake_accept(f);
	fake_hello(f);
	fake_space(f, 0);
}

struct kvc *crig_session(struct fake *f, uint64_t features)
{
	const struct kvmd_cqe *cqe;
	struct kvc_opts o;
	struct kvc_space s;
	struct kvc *k;

	fake_init(f);
	f->features = features;
	f->device = "null";
	fake_start(f, script_session);
	kvc_opts_init(&o);
	o.socket = f->path;
	kvc_space_init(&s, "s");
	ck_assert_int_eq(kvc_create(&o, &s, &k), 0);
	pthread_join(f->thread, NULL);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	return k;
}

static void script_nothing(struct fake *f)
{
	(void)f;
}

void crig_drop(struct fake *f, struct kvc *k)
{
	kvc_destroy(k);
	fake_start(f, script_nothing);
	fake_stop(f);
}

static void *script_run(void *arg)
{
	((struct fake *)arg)->script(arg);
	return NULL;
}

void crig_start(struct fake *f, void (*script)(struct fake *f))
{
	f->script = script;
	ck_assert_int_eq(pthread_create(&f->thread, NULL, script_run, f), 0);
}

void crig_join(struct fake *f)
{
	pthread_join(f->thread, NULL);
}

void crig_take(struct kvc *k, uint64_t user_data)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	ck_assert_ptr_nonnull(e);
	kvc_prep_nop(e);
	e->user_data = user_data;
}
