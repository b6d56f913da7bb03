// SPDX-License-Identifier: Apache-2.0
/*
 * disk_req.c - requests: queued, cut into pieces, verified, told.
 *
 * A request is cut into pieces of at most 512 KiB as there is room in the budget of
 * its file: urgent reads, reads, writes, then compaction and scrub. While reads
 * come writes have the small budget. Requests that are over wait on d->fin until
 * poll() runs their done(). Core thread; verification on a worker.
 */
#include "kvmd/tier/disk_int.h"

#define SAMPLE_NS	20000000ull	/* of busy time */
#define SAMPLE_PARTS	8u		/* ... of which the new one is one */

/* ------------------------------------------------------------------ finishing */

void disk_finish(struct dreq *q, int err)
{
	q->err = err;
	q->f->d->kick = true;
	list_add_tail(&q->link, &q->f->d->fin);
}

static void count_write(struct disk *d, struct dreq *q)
{
	if (!q->err) {
		d->nr_write_errs = 0;
		return;
	}
	if (q->err == -ECANCELED || q->err == -ENODATA)
		return;
	disk_say(d, "%s: write of %llu bytes at offset %llu failed: %s", q->f->path,
		 (unsigned long long)q->bytes, (unsigned long long)q->off, strerror(-q->err));
	disk_bad_note(d, q->f, dseg_idx(q->f, q->s), q->pl->off, disk_pages(q->bytes), 1);
	if (++d->nr_write_errs >= DISK_BROKEN_AT && !d->t.broken) {
		d->t.broken = true;
		disk_say(d, "%s: %u writes in a row failed, the last at offset %llu: no more "
			 "blocks are stored until a restart", q->f->path, d->nr_write_errs,
			 (unsigned long long)q->off);
	}
}

static void complete_write(struct disk *d, struct dreq *q)
{
	struct dplace *pl = q->pl;

	count_write(d, q);
	dopen_written(q);
	if (pl->state == DP_WRITING) {
		if (q->err)
			disk_place_drop(d, q->f, q->s, pl);
		else
			pl->state = DP_LIVE;
	} else if (!q->err) {
		q->err = -ECANCELED;	/* freed meanwhile */
	}
	if (pl->flags & DPF_LATE)
		disk_forget_late(d, q->s, pl);
}

static void complete_read(struct disk *d, struct dreq *q)
{
	struct dplace *pl = q->pl;

	q->r->sum = pl->sum;
	if (q->err == -EIO) {
		disk_say(d, "%s: read of %llu bytes at offset %llu failed", q->f->path,
			 (unsigned long long)q->bytes, (unsigned long long)q->off);
		if (pl->flags & DPF_FAILED)
			disk_place_failed(d, q->f, q->s, pl);
		pl->flags |= DPF_FAILED;
	} else if (q->err == -EBADMSG) {
		disk_place_failed(d, q->f, q->s, pl);
	}
}

static void tell(struct disk *d, struct tier_req *r)
{
	if (r->tier) {
		d->t.nr_inflight--;
		d->nr_done++;
	}
	r->done(r);
}

static void complete(struct disk *d, struct dreq *q)
{
	struct tier_req *r = q->r;

	if (q->o)
		complete_write(d, q);
	else
		complete_read(d, q);
	q->s->nr_io--;
	disk_maybe_free(d, q->f, q->s);
	r->err = q->err;
	list_add(&q->link, &d->dreq_free);
	d->nr_dreq_free++;
	tell(d, r);
}

void disk_run_finished(struct disk *d)
{
	struct tier_req *r, *last = d->failed.tail;
	struct list batch, *n;

	/* What ends meanwhile is for the next poll(). */
	list_init(&batch);
	if (!list_empty(&d->fin)) {
		list_insert(&batch, d->fin.prev, &d->fin);
		list_del(&d->fin);
	}
	while (!list_empty(&batch)) {
		n = batch.next;
		list_del(n);
		complete(d, list_entry(n, struct dreq, link));
	}
	while (last && (r = tier_queue_pop(&d->failed))) {
		bool end = r == last;

		tell(d, r);
		if (end)
			break;
	}
}

/* ------------------------------------------------------------------ requests */

static void verify_fn(struct work *w)
{
	struct dreq *q = container_of(w, struct dreq, work);

	q->sum = sum_of(q->r->mem, q->r->bytes);
}

static void verify_done(struct work *w)
{
	struct dreq *q = container_of(w, struct dreq, work);

	q->f->d->nr_work--;
	disk_finish(q, q->sum == q->pl->sum ? 0 : -EBADMSG);
}

/* All pieces are over. */
static void payload_over(struct dreq *q)
{
	struct disk *d = q->f->d;

	if (q->o) {
		if (q->err)
			disk_finish(q, q->err);
		else
			dopen_ready(q);
		return;
	}
	if (q->err || !q->r->verify) {
		disk_finish(q, q->err);
		return;
	}
	q->work.fn = verify_fn;
	q->work.done = verify_done;
	d->nr_work++;
	if (q->r->urgent)
		workers_submit_urgent(d->workers, &q->work);
	else
		workers_submit(d->workers, &q->work);
}

static uint64_t *inflight_of(struct dfile *f, enum dclass c)
{
	return c == DQ_WRITE ? &f->wr_bytes : c == DQ_BACK ? &f->bg_bytes : &f->rd_bytes;
}

static struct meter *meter_of(struct disk *d, enum dclass c)
{
	return c == DQ_WRITE ? &d->wr : c == DQ_BACK ? NULL : &d->rd;
}

static uint32_t piece_bytes(const struct dreq *q, uint64_t at)
{
	return (uint32_t)min(q->bytes - at, (uint64_t)DISK_PIECE);
}

static void piece_done(struct dio *io, int err)
{
	struct dreq *q = io->ctx;
	struct dfile *f = q->f;
	struct disk *d = f->d;
	struct meter *m = meter_of(d, q->class);
	/* Pieces begin at multiples of DISK_PIECE; io->off is in this one or at its end. */
	uint64_t first = (io->off + io->bytes - 1 - q->off) / DISK_PIECE * DISK_PIECE;
	uint32_t bytes = piece_bytes(q, first);

	*inflight_of(f, q->class) -= bytes;
	if (m)
		meter_end(m, bytes, SAMPLE_NS, SAMPLE_PARTS);
	if (q->class <= DQ_READ)
		f->last_read_ns = m->since_ns;	/* meter_end() looked at the clock */
	io->next = d->piece_free;
	d->piece_free = io;
	if (err && !q->err) {
		q->err = err;
		q->at = q->bytes;	/* no more of it */
		if (f->q[q->class].cur == q)
			f->q[q->class].cur = NULL;
	}
	if (!--q->nr_pieces && q->at == q->bytes)
		payload_over(q);
}

static void submit_piece(struct dreq *q)
{
	struct dfile *f = q->f;
	struct disk *d = f->d;
	struct meter *m = meter_of(d, q->class);
	struct dio *io = d->piece_free;
	uint32_t bytes = piece_bytes(q, q->at);

	d->piece_free = io->next;
	io->f = f;
	io->op = q->o ? DIO_WRITE : DIO_READ;
	io->buf = q->r->buf;
	io->p = (uint8_t *)q->r->mem + q->at;
	io->bytes = bytes;
	io->off = q->off + q->at;
	io->done = piece_done;
	io->ctx = q;
	q->at += bytes;
	q->nr_pieces++;
	*inflight_of(f, q->class) += bytes;
	if (m)
		meter_start(m, bytes);
	dio_submit(io);
}

/* A dreq for the next request of @c, NULL: none is left or it has to wait. */
static struct dreq *start(struct dfile *f, enum dclass c)
{
	struct disk *d = f->d;
	struct tier_req *r = f->q[c].wait.head;
	struct dplace *pl;
	struct dseg *s;
	struct dreq *q;

	if (!r || list_empty(&d->dreq_free))
		return NULL;
	pl = disk_place(d, r->place, NULL, &s);
	if (c == DQ_WRITE && s->state == DS_OPENING)
		return NULL;
	tier_queue_pop(&f->q[c].wait);
	q = list_first(&d->dreq_free, struct dreq, link);
	list_del(&q->link);
	d->nr_dreq_free--;
	q->r = r;
	q->f = f;
	q->s = s;
	q->pl = pl;
	q->o = c == DQ_WRITE ? disk_dopen(f, s) : NULL;
	q->class = c;
	q->off = disk_data_at(f->sb, dseg_idx(f, s)) + (uint64_t)q->pl->off * DISK_ALIGN;
	q->at = 0;
	q->bytes = align_up(r->bytes, DISK_ALIGN);
	q->nr_pieces = 0;
	q->err = 0;
	return q;
}

static bool has_room(const struct dfile *f, enum dclass c, uint64_t bytes)
{
	const struct disk *d = f->d;
	bool reads = f->rd_bytes || f->q[DQ_READ].wait.head || f->q[DQ_URGENT].wait.head ||
		     d->now - f->last_read_ns < DISK_CALM_NS;
	uint64_t limit = reads ? d->o.inflight_read_bytes : d->o.inflight_bytes;
	uint64_t use = f->wr_bytes + f->bg_bytes;

	if (!d->piece_free)
		return false;
	if (c <= DQ_READ)
		return !f->rd_bytes || f->rd_bytes + bytes <= d->o.inflight_bytes;
	if (c == DQ_BACK && !f->bg_bytes && !reads)
		return true;		/* writes make room by it */
	return !use || use + bytes <= limit;
}

/* 0, or why a request that could start is of no use any more. */
static int still_wanted(struct disk *d, struct dreq *q)
{
	enum dplace_state state = q->pl->state;

	if (!q->o)
		return state == DP_LIVE || state == DP_PARKED || state == DP_LATER ? 0 : -ENODATA;
	if (state != DP_WRITING)
		return -ECANCELED;
	if (q->o->failed)
		return -EIO;
	return disk_header_fill(d, q) ? 0 : -ENODATA;
}

void dfile_pump(struct dfile *f)
{
	for (enum dclass c = 0; c < NR_DQ; c++) {
		struct dqueue *dq = &f->q[c];
		int err;

		for (;;) {
			if (!dq->cur) {
				dq->cur = start(f, c);
				if (!dq->cur)
					break;
				err = still_wanted(f->d, dq->cur);
				if (err) {
					disk_finish(dq->cur, err);
					dq->cur = NULL;
					continue;
				}
			}
			if (!has_room(f, c, piece_bytes(dq->cur, dq->cur->at)))
				break;
			submit_piece(dq->cur);
			if (dq->cur && dq->cur->at == dq->cur->bytes)
				dq->cur = NULL;
		}
	}
}

bool dfile_writes_idle(const struct dfile *f)
{
	return !f->wr_bytes && !f->q[DQ_WRITE].wait.head && !f->q[DQ_WRITE].cur;
}

/* The place was checked: it and its segment are held until the request is over. */
void disk_queue(struct disk *d, struct tier_req *r, enum dclass class)
{
	struct dfile *f;
	struct dseg *s;

	(void)disk_place(d, r->place, &f, &s);
	d->kick = true;
	s->nr_io++;
	if (r->tier)
		d->t.nr_inflight++;
	tier_queue_push(&f->q[class].wait, r);
}

void disk_fail(struct disk *d, struct tier_req *r, int err)
{
	r->err = err;
	d->kick = true;
	if (r->tier)
		d->t.nr_inflight++;
	tier_queue_push(&d->failed, r);
}
