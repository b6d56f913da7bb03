/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy.c - copies of one block to another, for UNSHARE and FORK.
 *
 * A fixed pool of jobs; a block with more planes than one job holds is copied
 * in several rounds of the same job. The source is leased by the op's sequence,
 * the target belongs to the op; neither is released before the device is done,
 * even when the session has ended meanwhile (death waits for nr_copying).
 */
#include "kvmd/svc/daemon.h"

#include "kvmd/lib/stats.h"

bool copy_job_free(const struct daemon *d)
{
	for (uint32_t i = 0; i < NR_COPY_JOBS; i++)
		if (!d->job[i].busy)
			return true;
	return false;
}

/* Fill and submit the next round: planes job->at .. */
static void submit_round(struct copy_job *j)
{
	const struct gpool *gp = j->gp;
	const struct pool *p = j->s->d->pool;
	uint32_t src = pool_block(p, j->src)->slot, dst = pool_block(p, j->dst)->slot;
	const struct slab *from = gpool_slab(gp, src), *to = gpool_slab(gp, dst);
	uint32_t shard = j->at / gp->geo.planes;

	j->batch.nr = 0;
	/* One device per round: copies stay on their shard. */
	while (j->at < from->nr_ext && j->at / gp->geo.planes == shard &&
	       j->batch.nr < JOB_COPIES) {
		j->copy[j->batch.nr++] = (struct dev_copy) {
			.src = &from->ext[j->at],
			.dst = &to->ext[j->at],
			.src_off = (src - from->first) * gp->geo.plane_bytes,
			.dst_off = (dst - to->first) * gp->geo.plane_bytes,
			.bytes = gp->geo.plane_bytes,
		};
		j->at++;
	}
	gp->sp->dev[shard]->ops->copy(gp->sp->dev[shard], &j->batch);
}

/*
 * Which of the two is broken, nobody says: neither is given out again, and the one
 * that was shared is shared no more.
 */
static void poison_both(struct daemon *d, const struct copy_job *j)
{
	struct block *src = pool_block(d->pool, j->src);

	if (pool_is_moving(d->pool, src))
		pool_poison(d->pool, src);
	else
		index_poisoned(d->ix, j->gp, src);
	pool_poison(d->pool, pool_block(d->pool, j->dst));
}

static void round_done(struct dev_batch *b)
{
	struct copy_job *j = container_of(b, struct copy_job, batch);
	struct session *s = j->s;
	const struct slab *to = gpool_slab(j->gp, pool_block(s->d->pool, j->dst)->slot);
	struct op *op = j->op;
	int err = b->err;

	if (!err && j->at < to->nr_ext) {
		submit_round(j);
		return;
	}
	if (err == -EHWPOISON)
		poison_both(s->d, j);
	if (err) {
		stat_inc(COPIES_FAILED);
	} else {
		stat_inc(BLOCKS_COPIED);
		stat_add(BYTES_COPIED, j->gp->slot_bytes);
	}
	j->busy = false;
	s->nr_copying--;
	if (op) {
		op->new_id = 0;
		op_resume(op, err ? -EIO : 0);
	} else if (j->orphan) {
		pool_free(s->d->pool, pool_block(s->d->pool, j->dst));
	}
}

enum op_ret copy_start(struct op *op, uint32_t g, uint32_t src, uint32_t dst)
{
	struct daemon *d = op->s->d;
	struct copy_job *j = d->job;

	while (j->busy)
		j++;
	*j = (struct copy_job) {
		.op = op, .s = op->s, .gp = &op->s->sp->gp[g], .src = src, .dst = dst, .busy = true,
	};
	j->batch.copy = j->copy;
	j->batch.done = round_done;
	op->state = OP_WAIT_COPY;
	op->new_id = dst;
	op->s->nr_copying++;
	submit_round(j);
	return OP_PARKED;
}

void copy_orphan(struct session *s)
{
	for (uint32_t i = 0; i < NR_COPY_JOBS; i++) {
		struct copy_job *j = &s->d->job[i];

		if (!j->busy || j->s != s || !j->op)
			continue;
		/* A fork's target is in its new sequence already; an unshare's is nobody's. */
		j->orphan = j->op->e.opcode == KVMD_OP_SEQ_UNSHARE;
		j->op = NULL;
	}
}
