/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep_io.c - records with two copies, and the head of the kept state. Pure.
 */
#include "kvmd/svc/keep.h"

#include <stdio.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/sum.h"

static uint64_t copy_sum(const struct keep_mark *m, size_t copy_bytes)
{
	return sum_of((const char *)m + sizeof(m->sum), copy_bytes - sizeof(m->sum));
}

static bool copy_valid(const struct keep_mark *m, size_t copy_bytes)
{
	return m->nr && m->sum == copy_sum(m, copy_bytes);
}

static struct keep_mark *other_copy(void *record, size_t copy_bytes)
{
	return (struct keep_mark *)(void *)((char *)record + copy_bytes);
}

/* Of two valid copies the one written last; NULL: neither is valid. */
static struct keep_mark *newest(void *record, size_t copy_bytes)
{
	struct keep_mark *a = record, *b = other_copy(record, copy_bytes);
	bool a_ok = copy_valid(a, copy_bytes), b_ok = copy_valid(b, copy_bytes);

	if (a_ok && b_ok)
		return (int32_t)(a->nr - b->nr) > 0 ? a : b;
	return a_ok ? a : b_ok ? b : NULL;
}

const void *keep_read(const void *record, size_t copy_bytes, bool *ret_torn)
{
	const struct keep_mark *a = record;
	const struct keep_mark *b = (const void *)((const char *)record + copy_bytes);
	struct keep_mark *m = newest((void *)(uintptr_t)record, copy_bytes);

	*ret_torn = !m && (a->nr || b->nr);
	return m && m->in_use ? m + 1 : NULL;
}

void keep_write(void *record, size_t copy_bytes, const void *v, size_t bytes)
{
	struct keep_mark *a = record, *b = other_copy(record, copy_bytes);
	struct keep_mark *last = newest(record, copy_bytes), *m = last == a ? b : a;
	uint32_t nr = last ? last->nr + 1 : 1;

	/* Invalid while it is written; the other one is not touched. */
	st_rel(&m->nr, 0u);
	smp_mb();
	memset(m + 1, 0, copy_bytes - sizeof(*m));
	if (v)
		memcpy(m + 1, v, bytes);
	fault_crash(CRASH_KEEP);
	m->in_use = v != NULL;
	m->nr = nr ? nr : 1;
	m->sum = copy_sum(m, copy_bytes);
	smp_mb();
}

/* ------------------------------------------------------------------- the head */

static struct keep_head head_of_this_build(void)
{
	const struct keep_state *st = NULL;

	return (struct keep_head) {
		.magic = KEEP_MAGIC, .version = KEEP_VERSION, .bytes = sizeof(*st),
		.block_bytes = sizeof(struct block), .block_version = POOL_ARRAY_VERSION,
		.seq_bytes = sizeof(struct seq), .wire_version = KVMD_WIRE_VERSION,
		.max_spaces = POOL_MAX_SPACES, .max_sids = POOL_MAX_SIDS,
		.max_slabs = POOL_MAX_SLABS, .max_conns = POOL_MAX_CONNS,
		.record_bytes = {
			sizeof(st->run), sizeof(st->space[0]), sizeof(st->sid[0]),
			sizeof(st->slab[0]), sizeof(st->conn[0]), sizeof(st->session[0]),
		},
	};
}

void keep_head_init(struct keep_state *st)
{
	struct keep_head h = head_of_this_build();

	h.magic = 0;
	st->h = h;
	st_rel(&st->h.magic, (uint64_t)KEEP_MAGIC);
}

int keep_head_check(const struct keep_state *st, uint64_t bytes, char *msg, size_t n)
{
	struct keep_head want = head_of_this_build();

	if (bytes < sizeof(st->h) || st->h.magic != KEEP_MAGIC) {
		snprintf(msg, n, "the kept state is not one of this program");
		return -EINVAL;
	}
	if (st->h.version != KEEP_VERSION) {
		snprintf(msg, n, "the kept state has version %u, not %u", st->h.version,
			 KEEP_VERSION);
		return -EINVAL;
	}
	if (bytes < sizeof(*st) || memcmp(&st->h, &want, sizeof(want))) {
		snprintf(msg, n, "the kept state is of another build: its records differ in size");
		return -EINVAL;
	}
	return 0;
}
