// SPDX-License-Identifier: Apache-2.0
/*
 * sum.c - copy and sum by plain means, and the choice among the ways.
 *
 * The choice is made at the first call, by whichever threads make it: all of
 * them choose the same. Any thread.
 */
#include "kvmd/lib/sum_body.h"

static const struct sum_impl *const impls[] = {
	&sum_impl_avx512,
	&sum_impl_avx2,
	&sum_impl_memcpy,
};

static const struct sum_impl *chosen;

const struct sum_impl *sum_impl_get(unsigned i)
{
	for (unsigned k = 0; k < ARRAY_SIZE(impls); k++)
		if (impls[k]->usable() && i-- == 0)
			return impls[k];
	return NULL;
}

static inline const struct sum_impl *impl(void)
{
	const struct sum_impl *i = ld_rlx(&chosen);

	if (unlikely(!i)) {
		i = sum_impl_get(0);
		st_rlx(&chosen, i);
	}
	return i;
}

void sum_start(struct sum *s)
{
	impl()->start(s);
}

void sum_add(struct sum *s, const void *p, size_t bytes)
{
	impl()->add(s, p, bytes);
}

uint64_t sum_end(const struct sum *s)
{
	return impl()->end(s);
}

uint64_t sum_of(const void *p, size_t bytes)
{
	return impl()->of(p, bytes);
}

void mem_copy_cold(void *dst, const void *src, size_t bytes)
{
	impl()->copy(dst, src, bytes);
}

void mem_copy_sum(void *dst, const void *src, size_t bytes, struct sum *s)
{
	impl()->copy_sum(dst, src, bytes, s, NULL, 0);
}

void mem_copy_sum_next(void *dst, const void *src, size_t bytes, struct sum *s,
		       const void *next, size_t next_bytes)
{
	impl()->copy_sum(dst, src, bytes, s, next, next_bytes);
}

const char *mem_copy_name(void)
{
	return impl()->name;
}
