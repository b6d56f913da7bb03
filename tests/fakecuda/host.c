// SPDX-License-Identifier: Apache-2.0
/*
 * host.c - registered host memory.
 */
#include <stdlib.h>

#include "tests/fakecuda/fake.h"

#define PAGE	4096ull

struct fc_reg *fc_reg_at(uintptr_t at, size_t bytes)
{
	for (struct fc_reg *r = fc.regs; r; r = r->next)
		if (at < r->at + r->bytes && r->at < at + bytes)
			return r;
	return NULL;
}

/* "invalid argument" for a copy that leaves the registration it starts in (3.3). */
int fc_host_check(uintptr_t at, size_t bytes)
{
	struct fc_reg *r = fc_reg_at(at, bytes);

	if (!at || at + bytes < at)
		return CU_INVALID_VALUE;
	if (r && (at < r->at || at + bytes > r->at + r->bytes))
		return CU_INVALID_VALUE;
	return 0;
}

/* All of it is mapped here, and writable if it has to be. */
static bool is_mapped(uintptr_t at, size_t bytes, bool write)
{
	unsigned long first, end;
	uintptr_t next = at;
	char line[512], prot[8];
	FILE *f = fopen("/proc/self/maps", "re");

	if (!f)
		return false;
	while (next < at + bytes && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %7s", &first, &end, prot) != 3 || end <= next)
			continue;
		if (first > next || prot[0] != 'r' || (write && prot[1] != 'w'))
			break;
		next = end;
	}
	fclose(f);
	return next >= at + bytes;
}

/*
 * Page-locks whole pages: a page cannot be registered twice. The flag is "required in
 * order to register memory mapped to the CPU as read-only" and an error where the
 * device lacks the attribute (cuda.h at cuMemHostRegister()).
 */
int fc_host_register(void *p, size_t bytes, unsigned flags)
{
	uintptr_t first = (uintptr_t)p & ~(PAGE - 1);
	uintptr_t end = ((uintptr_t)p + bytes + PAGE - 1) & ~(PAGE - 1);
	struct fc_reg *r;
	struct fc_ctx *c;

	ENTER_CTX(host_register, &c);
	if (!p || !bytes || end <= first ||
	    (flags & ~(CU_HOST_PORTABLE | CU_HOST_DEVICEMAP | CU_HOST_READ_ONLY)))
		return fc_leave(CU_INVALID_VALUE);
	if ((flags & CU_HOST_READ_ONLY) && !fc.conf.rohost)
		return fc_leave(CU_NOT_SUPPORTED);
	for (r = fc.regs; r; r = r->next)
		if (first < ((r->at + r->bytes + PAGE - 1) & ~(PAGE - 1)) &&
		    (r->at & ~(PAGE - 1)) < end)
			return fc_leave(CU_ALREADY_REGISTERED);
	if (!is_mapped((uintptr_t)p, bytes, !(flags & CU_HOST_READ_ONLY)))
		return fc_leave(CU_INVALID_VALUE);
	r = calloc(1, sizeof(*r));
	if (!r)
		return fc_leave(CU_OUT_OF_MEMORY);
	r->at = (uintptr_t)p;
	r->bytes = bytes;
	r->flags = flags;
	r->ctx = c;
	r->next = fc.regs;
	fc.regs = r;
	return fc_leave(CU_OK);
}

int fc_host_unregister(void *p)
{
	struct fc_reg **at = &fc.regs, *r;
	struct fc_ctx *c;

	ENTER_CTX(host_unregister, &c);
	while (*at && (*at)->at != (uintptr_t)p)
		at = &(*at)->next;
	r = *at;
	if (!r)
		return fc_leave(CU_NOT_REGISTERED);
	if (fc_use_busy(fc_host_ino(fc.pid), r->at, r->bytes))
		fc_violation("host memory %p is unregistered while a copy with it is under way", p);
	*at = r->next;
	free(r);
	return fc_leave(CU_OK);
}

void fc_host_reset(struct fc_ctx *c)
{
	struct fc_reg **at = &fc.regs, *r;

	while ((r = *at)) {
		if (r->ctx != c) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		free(r);
	}
}

/* With unified addressing the device uses the host's address. */
int fc_host_ptr(cu_ptr *ret, void *p, unsigned flags)
{
	struct fc_ctx *c;

	ENTER_CTX(host_ptr, &c);
	if (flags || !fc_reg_at((uintptr_t)p, 1))
		return fc_leave(CU_INVALID_VALUE);
	*ret = (uintptr_t)p;
	return fc_leave(CU_OK);
}
