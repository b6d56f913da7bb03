/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attrib.c - every token asked for is counted once.
 *
 * At open the hit is counted; the rest is pending until the sequence ends, for
 * it may still be merged into somebody else's block at publish. So at any time
 *   asked = hbm + ram + disk + merged + recomputed + pending
 * and recomputed is the sum over its reasons.
 */
#include "kvmd/svc/daemon.h"

#include "kvmd/lib/stats.h"

void attrib_open(struct session *s, struct seq *q, uint32_t asked, uint32_t ready, uint32_t miss)
{
	uint32_t bt = s->sp->gp[0].geo.block_tokens;
	uint32_t hit = min(asked, ready);

	stat_add(TOKENS_ASKED, asked);
	stat_add(TOKENS_HBM, hit);
	stat_add(TOKENS_PENDING, asked - hit);
	q->tokens_asked = asked - hit;
	q->tokens_full = asked / bt * bt;
	q->tokens_tail = asked - max(q->tokens_full, hit);
	q->miss = (uint8_t)miss;
}

void attrib_merged(struct session *s, struct seq *q, uint32_t pos)
{
	uint32_t bt = s->sp->gp[0].geo.block_tokens, n = bt;

	if ((uint64_t)(pos + 1) * bt > q->tokens_full)
		n = (uint64_t)pos * bt >= q->tokens_full ? q->tokens_tail : 0;
	n = min(n, q->tokens_asked);
	if (n && (uint64_t)pos * bt >= q->tokens_full)
		q->tokens_tail = 0;
	q->tokens_asked -= n;
	stat_add(TOKENS_MERGED, n);
	stat_sub(TOKENS_PENDING, n);
}

void attrib_loaded(struct session *s, struct seq *q, uint32_t first, uint32_t nr)
{
	uint32_t bt = s->sp->gp[0].geo.block_tokens;
	uint32_t ram_end = q->nr_hbm + q->nr_ram, end = first + nr, ram, disk;

	ram = first < ram_end ? (min(end, ram_end) - first) * bt : 0;
	disk = nr * bt - ram;
	ram = min(ram, q->tokens_asked);
	disk = min(disk, q->tokens_asked - ram);
	q->tokens_asked -= ram + disk;
	stat_add(TOKENS_RAM, ram);
	stat_add(TOKENS_DISK, disk);
	stat_sub(TOKENS_PENDING, ram + disk);
}

void attrib_restore(const struct seqtab *st)
{
	for (uint32_t i = 0; i < st->max_seqs; i++) {
		if (st->seq[i].state == SEQ_FREE)
			continue;
		stat_add(TOKENS_ASKED, st->seq[i].tokens_asked);
		stat_add(TOKENS_PENDING, st->seq[i].tokens_asked);
	}
}

static void count_reason(uint8_t miss, uint32_t n)
{
	switch (miss) {
	case KVMD_MISS_EVICTED:
		stat_add(RECOMPUTED_EVICTED, n);
		break;
	case KVMD_MISS_DROPPED:
		stat_add(RECOMPUTED_DROPPED, n);
		break;
	case KVMD_MISS_EPOCH:
		stat_add(RECOMPUTED_EPOCH, n);
		break;
	case KVMD_MISS_PENDING:
		stat_add(RECOMPUTED_PENDING, n);
		break;
	case KVMD_MISS_REFUSED:
		stat_add(RECOMPUTED_REFUSED, n);
		break;
	case KVMD_MISS_UNASKED:
		stat_add(RECOMPUTED_UNASKED, n);
		break;
	case KVMD_MISS_GROUP:
		stat_add(RECOMPUTED_GROUP, n);
		break;
	default:
		stat_add(RECOMPUTED_NEVER, n);
		break;
	}
}

void attrib_close(struct session *s, struct seq *q)
{
	uint32_t rest = q->tokens_asked, tail = min(rest, q->tokens_tail);

	(void)s;
	if (!rest)
		return;
	stat_sub(TOKENS_PENDING, rest);
	stat_add(TOKENS_RECOMPUTED, rest);
	stat_add(RECOMPUTED_TAIL, tail);
	count_reason(q->miss, rest - tail);
	q->tokens_asked = q->tokens_tail = 0;
}
