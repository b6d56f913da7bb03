// SPDX-License-Identifier: Apache-2.0
/*
 * module.c - kernels that run on the CPU: functions of a shared object.
 *
 * An image is the text "fakecuda:PATH". A function NAME of that object has the type
 * of fc_func.run; an array NAME_args beside it (const unsigned[], ended by 0) says how
 * many bytes each of its arguments has, so that they are copied at the launch as a
 * driver does. Without it the launch waits until the function has run.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "tests/fakecuda/fake.h"

#define IMAGE	"fakecuda:"

int fc_module_load(cu_module *ret, const void *image)
{
	struct fc_mod *m;
	struct fc_ctx *c;
	const char *path = image;

	ENTER_CTX(module_load, &c);
	if (!image)
		return fc_leave(CU_INVALID_VALUE);
	if (strncmp(path, IMAGE, strlen(IMAGE)))
		return fc_leave(CU_INVALID_IMAGE);
	m = calloc(1, sizeof(*m));
	if (!m)
		return fc_leave(CU_OUT_OF_MEMORY);
	m->so = dlopen(path + strlen(IMAGE), RTLD_NOW | RTLD_LOCAL);
	if (!m->so) {
		fprintf(stderr, "fakecuda: %s\n", dlerror());
		free(m);
		return fc_leave(CU_INVALID_IMAGE);
	}
	m->ctx = c;
	m->next = fc.mods;
	fc.mods = m;
	*ret = m;
	return fc_leave(CU_OK);
}

static void unload(struct fc_mod **at)
{
	struct fc_mod *m = *at;
	struct fc_func *f;

	*at = m->next;
	while ((f = m->funcs)) {
		m->funcs = f->next;
		free(f);
	}
	dlclose(m->so);
	free(m);
}

static struct fc_mod **find(struct fc_ctx *c, cu_module want)
{
	struct fc_mod **at = &fc.mods;

	while (*at && (*at != want || (*at)->ctx != c))
		at = &(*at)->next;
	return *at ? at : NULL;
}

int fc_module_unload(cu_module module)
{
	struct fc_mod **at;
	struct fc_ctx *c;

	ENTER_CTX(module_unload, &c);
	fc_drain(c);
	at = find(c, module);
	if (!at)
		return fc_leave(CU_INVALID_HANDLE);
	unload(at);
	return fc_leave(CU_OK);
}

void fc_module_reset(struct fc_ctx *c)
{
	struct fc_mod **at = &fc.mods;

	while (*at) {
		if ((*at)->ctx == c)
			unload(at);
		else
			at = &(*at)->next;
	}
}

int fc_module_function(cu_function *ret, cu_module module, const char *name)
{
	struct fc_mod **at;
	struct fc_func *f;
	struct fc_ctx *c;
	char args[128];
	void *sym;

	ENTER_CTX(module_function, &c);
	at = find(c, module);
	if (!at)
		return fc_leave(CU_INVALID_HANDLE);
	sym = dlsym((*at)->so, name);
	if (!sym)
		return fc_leave(CU_NOT_FOUND);
	f = calloc(1, sizeof(*f));
	if (!f)
		return fc_leave(CU_OUT_OF_MEMORY);
	memcpy(&f->run, &sym, sizeof(sym));
	snprintf(args, sizeof(args), "%s_args", name);
	f->arg_bytes = dlsym((*at)->so, args);
	f->mod = *at;
	f->next = (*at)->funcs;
	(*at)->funcs = f;
	*ret = f;
	return fc_leave(CU_OK);
}

static struct fc_func *find_func(struct fc_ctx *c, cu_function want)
{
	struct fc_func *f;

	for (struct fc_mod *m = fc.mods; m; m = m->next)
		for (f = m->ctx == c ? m->funcs : NULL; f; f = f->next)
			if (f == want)
				return f;
	return NULL;
}

/* Pointers and what they point to, in one piece of memory. */
static void **copy_args(const struct fc_func *f, void *const *args)
{
	size_t nr = 0, bytes = 0, at = 0;
	void **copy;
	char *room;

	for (; f->arg_bytes[nr]; nr++)
		bytes += (f->arg_bytes[nr] + 15) & ~15ul;
	copy = malloc((nr + 2) * sizeof(*copy) + bytes + 16);
	if (!copy)
		return NULL;
	room = (char *)(((uintptr_t)(copy + nr + 1) + 15) & ~(uintptr_t)15);
	for (size_t i = 0; i < nr; i++) {
		copy[i] = memcpy(room + at, args[i], f->arg_bytes[i]);
		at += (f->arg_bytes[i] + 15) & ~15ul;
	}
	copy[nr] = NULL;
	return copy;
}

int fc_launch(cu_function func, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
	      unsigned bz, unsigned shared_bytes, cu_stream stream, void **args, void **extra)
{
	struct fc_stream *s;
	struct fc_func *f;
	struct fc_ctx *c;
	struct fc_op *op;
	bool wait, finished = false;

	ENTER_CTX(launch, &c);
	s = fc_stream_find(c, stream);
	f = find_func(c, func);
	if (!s || !f)
		return fc_leave(CU_INVALID_HANDLE);
	if (!gx || !gy || !gz || !bx || !by || !bz || (uint64_t)bx * by * bz > 1024 || extra)
		return fc_leave(CU_INVALID_VALUE);
	/* It would die at the first device address. */
	if (!fc.conf.cpu)
		return fc_leave(CU_NOT_SUPPORTED);
	op = fc_op_new(OP_LAUNCH, 0);
	if (!op)
		return fc_leave(CU_OUT_OF_MEMORY);
	op->func = f;
	memcpy(op->grid, (unsigned[]){ gx, gy, gz }, sizeof(op->grid));
	memcpy(op->block, (unsigned[]){ bx, by, bz }, sizeof(op->block));
	op->shared_bytes = shared_bytes;
	wait = !f->arg_bytes;
	op->args = wait ? args : copy_args(f, args);
	if (!wait && !op->args) {
		fc_op_free(op);
		return fc_leave(CU_OUT_OF_MEMORY);
	}
	if (wait)
		op->finished = &finished;
	fc_submit(s, op);
	while (wait && !finished)
		pthread_cond_wait(&fc.done, &fc.lock);
	return fc_leave(CU_OK);
}
