// SPDX-License-Identifier: Apache-2.0
/*
 * fake_rig.c - the fake driver's own functions, and a state file for each test.
 */
#include <stdlib.h>
#include <unistd.h>

#include "tests/gpu/fake_rig.h"

static char state[256];

static void setup(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(state, sizeof(state), "%s/fakecuda-state.%d", dir ? dir : "/tmp", getpid());
	setenv("KVMD_FAKECUDA_STATE", state, 1);
	unsetenv("KVMD_FAKECUDA");
	unsetenv("CUDA_VISIBLE_DEVICES");
}

static void teardown(void)
{
	unlink(state);
}

const char *fake_state(void)
{
	return state;
}

void fake_told(const char *text)
{
	setenv("KVMD_FAKECUDA", text, 1);
}

struct fakecuda_sum fake_sum(void)
{
	struct fakecuda_sum s = { 0 };

	CR(!fakecuda_state(state, &s));
	return s;
}

int fake_hold(cu_ptr p, size_t n, bool write)
{
	void *sym = cr_fake("fakecuda_hold");
	int (*fn)(uint64_t, size_t, bool);

	memcpy(&fn, &sym, sizeof(fn));
	return fn(p, n, write);
}

int fake_unhold(cu_ptr p)
{
	void *sym = cr_fake("fakecuda_unhold");
	int (*fn)(uint64_t);

	memcpy(&fn, &sym, sizeof(fn));
	return fn(p);
}

uint64_t fake_calls(const char *name)
{
	void *sym = cr_fake("fakecuda_calls");
	uint64_t (*fn)(const char *);

	memcpy(&fn, &sym, sizeof(fn));
	return fn(name);
}

void fake_unhang(void)
{
	void *sym = cr_fake("fakecuda_unhang");
	void (*fn)(void);

	memcpy(&fn, &sym, sizeof(fn));
	fn();
}

char *fake_peek(cu_ptr p)
{
	void *sym = cr_fake("fakecuda_peek");
	void *(*fn)(uint64_t);

	memcpy(&fn, &sym, sizeof(fn));
	return fn(p);
}

cu_stream fake_stream(struct cr *r)
{
	cu_stream s;

	CR_OK(r->cu.stream_create(&s, CU_STREAM_OWN_ORDER, 0));
	return s;
}

TCase *fake_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	suite_add_tcase(s, t);
	return t;
}

bool fake_is_loaded(void)
{
	if (cr_fake("fakecuda_calls"))
		return true;
	printf("SKIP: the driver found is not the fake one\n");
	return false;
}
