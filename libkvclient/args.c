/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.c - room for key lists in the args area.
 *
 * First fit over units of 64 bytes, with boundary tags beside the area, in
 * private memory: tag[first] and tag[last] of every run hold its length, all
 * other tags are 0, so that neighbours are found and joined in constant time
 * and an offset that is not a run's start is recognised. First fit (not a
 * rotating one) keeps using the same warm cache lines.
 */
#include <stdlib.h>
#include <string.h>

#include "libkvclient/internal.h"

#define UNIT		64u
#define TAG_USED	(1u << 31)
#define TAG_FIRST	(1u << 30)	/* not in the last tag of a longer run */
#define TAG_LEN		(TAG_FIRST - 1)

static void run_set(struct kvci_args *a, uint32_t first, uint32_t len, uint32_t flags)
{
	a->tag[first + len - 1] = len | flags;
	a->tag[first] = len | flags | TAG_FIRST;
}

static void run_clear(struct kvci_args *a, uint32_t first, uint32_t len)
{
	a->tag[first] = 0;
	a->tag[first + len - 1] = 0;
}

int kvci_args_init(struct kvci_args *a, uint64_t bytes)
{
	uint64_t units = bytes / UNIT;

	if (units > TAG_LEN)
		units = TAG_LEN;
	memset(a, 0, sizeof(*a));
	if (!units)
		return 0;
	a->tag = (uint32_t *)calloc(units, sizeof(*a->tag));
	if (!a->tag)
		return -ENOMEM;
	a->nr_units = (uint32_t)units;
	run_set(a, 0, a->nr_units, 0);
	return 0;
}

void kvci_args_exit(struct kvci_args *a)
{
	free(a->tag);
	memset(a, 0, sizeof(*a));
}

int64_t kvci_args_get(struct kvci_args *a, size_t bytes)
{
	uint64_t need = bytes / UNIT + (bytes % UNIT != 0);
	bool below = true;	/* only used runs so far */

	if (!need || need > a->nr_units)
		return -ENOSPC;
	for (uint32_t u = a->low; u < a->nr_units;) {
		uint32_t tag = a->tag[u], len = tag & TAG_LEN;

		if (!(tag & TAG_USED)) {
			if (len >= need) {
				uint32_t n = (uint32_t)need;

				run_clear(a, u, len);
				run_set(a, u, n, TAG_USED);
				if (len > n)
					run_set(a, u + n, len - n, 0);
				if (below)
					a->low = u + n;
				return (int64_t)u * UNIT;
			}
			if (below)
				a->low = u;
			below = false;
		}
		u += len;
	}
	return -ENOSPC;
}

int kvci_args_put(struct kvci_args *a, uint64_t off)
{
	uint32_t first, len, tag;

	if (off % UNIT || off / UNIT >= a->nr_units)
		return -EINVAL;
	first = (uint32_t)(off / UNIT);
	tag = a->tag[first];
	if ((tag & (TAG_USED | TAG_FIRST)) != (TAG_USED | TAG_FIRST))
		return -EINVAL;
	len = tag & TAG_LEN;
	run_clear(a, first, len);
	if (first + len < a->nr_units && !(a->tag[first + len] & TAG_USED)) {
		uint32_t after = a->tag[first + len] & TAG_LEN;

		run_clear(a, first + len, after);
		len += after;
	}
	if (first && !(a->tag[first - 1] & TAG_USED)) {
		uint32_t before = a->tag[first - 1] & TAG_LEN;

		first -= before;
		run_clear(a, first, before);
		len += before;
	}
	run_set(a, first, len, 0);
	if (first < a->low)
		a->low = first;
	return 0;
}

void *kvc_args_alloc(struct kvc *k, size_t bytes, uint64_t *ret_off)
{
	int64_t off = kvci_args_get(&k->args, bytes);

	if (off < 0)
		return NULL;
	*ret_off = (uint64_t)off;
	return k->args_mem + off;
}

void kvc_args_free(struct kvc *k, uint64_t off)
{
	/* An offset that names no run is the caller's bug; nothing to damage. */
	(void)kvci_args_put(&k->args, off);
}
