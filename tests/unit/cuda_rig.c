/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_rig.c - see cuda_rig.h.
 */
#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/cuda_rig.h"

struct cuda_rig cr;

static unsigned nr_fds;
static char dir[] = "/tmp/kvmd-cuda-XXXXXX", state[64];

bool cr_has_fake(void)
{
	void *so = dlopen(CU_LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (so && dlsym(so, "fakecuda_calls"))
		return true;
	printf("SKIP: libcuda.so.1 is not the fake driver of the tests\n");
	return false;
}

int cr_handle(struct fake *x, uint32_t idx, size_t bytes)
{
	return maker_make(&cr.maker, idx / x->planes % x->nr_shards, bytes,
			  x->handle_kind == KVMD_HANDLE_CUDA_LEGACY);
}

/* @gpus GPUs; each shard on its own. */
void cr_start(unsigned gpus, uint32_t nr_shards, const char *more)
{
	char env[128];

	snprintf(env, sizeof(env), "gpus=%u", gpus);
	setenv("KVMD_FAKECUDA", env, 1);
	maker_start(&cr.maker);
	fake_init(&cr.f);
	cr.f.device = "cuda";
	cr.f.handle_kind = KVMD_HANDLE_CUDA_VMM;
	cr.f.plane_bytes = PLANE;
	cr.f.nr_shards = nr_shards;
	cr.f.handle = cr_handle;
	for (uint32_t s = 0; s < nr_shards; s++)
		ck_assert_int_eq(maker_uuid(&cr.maker, s, cr.f.uuid[s]), 0);
	if (more) {
		snprintf(env, sizeof(env), "gpus=%u,%s", gpus, more);
		setenv("KVMD_FAKECUDA", env, 1);
	}
	kvc_opts_init(&cr.opts);
	cr.opts.socket = cr.f.path;
	kvc_space_init(&cr.space, "models");
}

void cr_setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(state, sizeof(state), "%s/state", dir);
	setenv("KVMD_FAKECUDA_STATE", state, 1);
	unsetenv("CUDA_VISIBLE_DEVICES");
	nr_fds = fake_nr_fds();
	cr.k = NULL;
}

void cr_close_slab(void)
{
	for (uint32_t i = 0; i < cr.f.planes * cr.f.nr_shards; i++)
		close(cr.fds[i]);
}

void cr_finish(void)
{
	struct fakecuda_sum sum;

	kvc_destroy(cr.k);
	cr.k = NULL;
	fake_start(&cr.f, fake_hangup);
	fake_stop(&cr.f);
	maker_stop(&cr.maker);
	ck_assert_uint_eq(fake_nr_fds(), nr_fds);
	ck_assert_int_eq(fakecuda_state(state, &sum), 0);
	ck_assert_uint_eq(sum.violations, 0);
	ck_assert_uint_eq(sum.nr_mem, 0);
	unlink(state);
	rmdir(dir);
}

void cr_plain(struct fake *x)
{
	fake_accept(x);
	fake_hello(x);
	fake_space(x, 0);
}

void cr_create(void (*script)(struct fake *x))
{
	int err;

	fake_start(&cr.f, script);
	err = kvc_create(&cr.opts, &cr.space, &cr.k);
	ck_assert_msg(!err, "%d: %s", err, kvc_refusal());
	pthread_join(cr.f.thread, NULL);
}

/* The driver as the engine has it, with GPU 0 current. */
void cr_use_driver(void)
{
	char msg[256];
	void *sym;

	ck_assert_msg(!cu_load(&cr.cu, msg, sizeof(msg)), "%s", msg);
	sym = dlsym(cr.cu.so, "fakecuda_calls");
	ck_assert_ptr_nonnull(sym);
	memcpy(&cr.calls, &sym, sizeof(cr.calls));
	ck_assert_int_eq(cr.cu.ctx_retain(&cr.ctx, 0), 0);
	ck_assert_int_eq(cr.cu.ctx_set(cr.ctx), 0);
}

cu_stream cr_stream(void)
{
	cu_stream s;

	ck_assert_int_eq(cr.cu.stream_create(&s, CU_STREAM_OWN_ORDER, 0), 0);
	return s;
}

/* What GPU 0 may do at @p; -1: nothing is mapped. */
int cr_access(const void *p)
{
	const struct cu_location loc = { .type = CU_LOC_DEVICE };
	unsigned long long flags;

	return cr.cu.mem_get_access(&flags, &loc, (cu_ptr)(uintptr_t)p) ? -1 : (int)flags;
}

char *cr_rw(uint32_t shard, uint32_t plane, uint32_t slot)
{
	return kvc_addr(kvc_view(cr.k), 0, shard, plane, slot);
}

const char *cr_ro(uint32_t shard, uint32_t plane, uint32_t slot)
{
	return kvc_addr_ro(kvc_view(cr.k), 0, shard, plane, slot);
}

void cr_put(char *at, const char *text)
{
	ck_assert_int_eq(kvc_mem_put(cr.k, at, text, strlen(text) + 1), 0);
}

void cr_expect(const char *at, const char *text)
{
	char buf[64] = "";

	ck_assert_int_eq(kvc_mem_get(cr.k, buf, at, strlen(text) + 1), 0);
	ck_assert_str_eq(buf, text);
}

bool cr_is_zero(const char *at, size_t bytes)
{
	char *buf = malloc(bytes);
	bool yes = true;

	memset(buf, 1, bytes);
	ck_assert_int_eq(kvc_mem_get(cr.k, buf, at, bytes), 0);
	for (size_t i = 0; i < bytes; i++)
		yes = yes && !buf[i];
	free(buf);
	return yes;
}

static uint32_t add_id, add_first;

void cr_add(struct fake *x)
{
	fake_slab_add(x, add_id, add_first, SLAB_SLOTS, 1, cr.fds);
	fake_news(x);
	fake_slab_added(x, add_id, 0);
	fake_cqe(x, 1, 0, 0, 0);
	fake_cq_publish(x);
}

void cr_del(struct fake *x)
{
	fake_slab_del(x, add_id);
	fake_news(x);
	fake_slab_deleted(x, add_id);
	fake_cqe(x, 1, 0, 0, 0);
	fake_cq_publish(x);
}

void cr_change(void (*script)(struct fake *x), uint32_t id, uint32_t first)
{
	const struct kvmd_cqe *cqe;

	add_id = id;
	add_first = first;
	fake_start(&cr.f, script);
	ck_assert_int_eq(kvc_wait_cqe(cr.k, UINT64_MAX, &cqe), 0);
	kvc_cqe_seen(cr.k);
	pthread_join(cr.f.thread, NULL);
	if (script == cr_add)
		cr_close_slab();
}

void cr_slab(struct fake *x)
{
	fake_accept(x);
	fake_hello(x);
	fake_space(x, 1);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 1, cr.fds);
	fake_slab_added(x, 0, 0);
}

void cr_kill_daemon(void)
{
	fake_hangup(&cr.f);
	ck_assert_int_eq(kvc_poll(cr.k), -ECONNRESET);
}
