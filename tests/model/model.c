/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.c - the reference; see model.h. Plain arrays, written from kvmd-protocol(7).
 */
#include "model.h"

#include <errno.h>
#include <string.h>

#include "kvmd/wire.h"

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint32_t m_child(uint32_t node, uint32_t token)
{
	return (uint32_t)mix(((uint64_t)node << 8) + token + 1) | 1;
}

uint64_t m_tag(uint32_t node)
{
	return mix(node) | 1ull << 63;
}

/* ------------------------------------------------------------------------ keys */

static struct m_key *find_key(const struct model *m, uint32_t space, uint32_t epoch,
			      uint32_t node)
{
	uint32_t i = (uint32_t)mix(node + ((uint64_t)space << 32) +
				   ((uint64_t)epoch << 40));
	const struct m_key *k;

	for (;; i++) {
		k = &m->key[i % M_KEYS];
		if (!k->node || (k->node == node && k->space == space && k->epoch == epoch))
			return (struct m_key *)k;
	}
}

void m_note_publish(struct model *m, const struct m_seq *q, uint32_t pos)
{
	struct m_key *k = find_key(m, q->space, q->epoch, q->node[pos]);

	k->node = q->node[pos];
	k->space = q->space;
	k->epoch = q->epoch;
	k->nr_published++;
}

static bool holds(const struct model *m, const struct m_seq *q, uint32_t space, uint32_t epoch,
		  uint32_t node)
{
	if (!q->live || q->nr_structural || q->space != space || q->epoch != epoch)
		return false;
	for (uint32_t i = 0; i < q->len; i++)
		if (q->pos[i].kind == M_SEALED && q->pos[i].tag == m_tag(node) &&
		    q->pos[i].batch != m->batch)
			return true;
	return false;
}

bool m_is_held(const struct model *m, uint32_t space, uint32_t epoch, uint32_t node)
{
	for (unsigned s = 0; s < M_SESSIONS; s++)
		for (unsigned i = 0; i < M_SEQS; i++)
			if (holds(m, &m->seq[s][i], space, epoch, node))
				return true;
	return false;
}

void m_hit_bounds(const struct model *m, const struct m_seq *q, uint32_t nr, uint32_t *ret_lo,
		  uint32_t *ret_hi)
{
	uint32_t hi = 0;

	while (hi < nr && find_key(m, q->space, q->epoch, q->node[hi])->nr_published)
		hi++;
	*ret_hi = hi;
	*ret_lo = 0;
	/* A block's whole prefix is there as long as it is. */
	for (uint32_t i = 0; i < hi; i++)
		if (m_is_held(m, q->space, q->epoch, q->node[i]))
			*ret_lo = i + 1;
}

/* ------------------------------------------------------------------ operations */

void m_touch(const struct model *m, struct m_seq *q)
{
	for (uint32_t i = 0; i < q->len; i++)
		q->pos[i].batch = m->batch;
}

void m_open(const struct model *m, struct m_seq *q, uint32_t hit)
{
	q->live = true;
	q->len = hit;
	q->hole = M_NO_HOLE;
	memset(q->pos, 0, sizeof(q->pos));
	for (uint32_t i = 0; i < hit; i++)
		q->pos[i] = (struct m_pos) {
			.kind = M_SEALED, .filled = true, .tag = m_tag(q->node[i]),
			.batch = m->batch,
		};
}

void m_extend(struct m_seq *q, uint32_t nr)
{
	while (nr--)
		q->pos[q->len++] = (struct m_pos) { .kind = M_PRIVATE };
}

uint32_t m_publish_takes(const struct m_seq *q, uint32_t first, uint32_t nr)
{
	uint32_t i;

	if ((uint64_t)first + nr > q->len)
		return 0;
	for (i = 0; i < nr; i++) {
		const struct m_pos *p = &q->pos[first + i];

		if (p->kind == M_NULL ||
		    (p->kind == M_SEALED && p->tag != m_tag(q->node[first + i])))
			break;
	}
	return i;
}

static bool may_seal(const struct model *m, const struct m_seq *q, uint32_t pos)
{
	return !q->no_store && q->epoch == m->epoch[q->space] && pos < q->hole &&
	       (!pos || q->pos[pos - 1].kind == M_SEALED);
}

void m_publish(const struct model *m, struct m_seq *q, uint32_t first, uint32_t nr,
	       uint32_t *ret_sealed, uint32_t *ret_private, uint32_t *ret_merge_lo,
	       uint32_t *ret_merge_hi)
{
	*ret_sealed = *ret_private = *ret_merge_lo = *ret_merge_hi = 0;
	for (uint32_t i = first; i < first + nr; i++) {
		if (q->pos[i].kind == M_SEALED) {
			++*ret_sealed;
			continue;
		}
		if (!may_seal(m, q, i)) {
			++*ret_private;
			continue;
		}
		*ret_merge_lo += m_is_held(m, q->space, q->epoch, q->node[i]);
		*ret_merge_hi += find_key(m, q->space, q->epoch, q->node[i])->nr_published > 1;
		q->pos[i].kind = M_SEALED;
		q->pos[i].batch = m->batch;
		q->pos[i].tag = m_tag(q->node[i]);
		++*ret_sealed;
	}
}

uint32_t m_fork(const struct m_seq *q, struct m_seq *to, uint32_t gen)
{
	uint32_t copied = 0;

	*to = *q;
	to->gen = gen;
	to->nr_pending = to->nr_structural = to->nr_publishing = to->nr_unsharing = 0;
	for (uint32_t i = 0; i < q->len; i++)
		copied += q->pos[i].kind == M_PRIVATE;
	return copied;
}

int m_unshare(struct m_seq *q, uint32_t pos)
{
	if (pos >= q->len || q->pos[pos].kind == M_NULL)
		return -EINVAL;
	if (q->pos[pos].kind == M_PRIVATE)
		return 0;
	q->pos[pos].kind = M_PRIVATE;
	return 1;
}

static int drop(struct m_seq *q, uint32_t from, uint32_t to)
{
	int nr = 0;

	for (; from < to; from++) {
		nr += q->pos[from].kind != M_NULL;
		q->pos[from] = (struct m_pos) { .kind = M_NULL };
	}
	return nr;
}

int m_trim(struct m_seq *q, uint16_t flags, uint32_t first, uint32_t nr)
{
	uint32_t from = first < q->len ? first : q->len, to = q->len;
	int dropped;

	if (flags & KVMD_TRIM_TAIL) {
		dropped = drop(q, from, to);
		q->len = from;
		if (q->hole >= from)
			q->hole = M_NO_HOLE;
		return dropped;
	}
	if (flags & KVMD_TRIM_KEEP) {
		to = nr < q->len - from ? q->len - nr : from;
	} else {
		if (first > q->len || nr > q->len - first)
			return -EINVAL;
		to = first + nr;
	}
	if (from < to && from < q->hole)
		q->hole = from;
	return drop(q, from, to);
}

int m_replace(struct m_seq *q, uint16_t flags, uint32_t first, uint32_t nr, uint32_t nr_new)
{
	struct m_pos out[M_POS] = { { 0 } };
	uint32_t n = 0, end;

	if (first > q->len || nr > q->len - first || nr_new > q->len - first - nr)
		return -EINVAL;
	end = q->len - nr_new;
	for (uint32_t i = end; i < q->len; i++)
		if (q->pos[i].kind != M_PRIVATE)
			return -EINVAL;
	for (uint32_t i = 0; i < first; i++)
		out[n++] = q->pos[i];
	for (uint32_t i = 0; i < nr_new; i++)
		out[n++] = q->pos[end + i];
	if (flags & KVMD_REPLACE_HOLES)
		n = first + nr;
	for (uint32_t i = first + nr; i < end; i++)
		out[n++] = q->pos[i];
	memcpy(q->pos, out, sizeof(out));
	q->len = n;
	if (first < q->hole)
		q->hole = first;
	return (int)n;
}
