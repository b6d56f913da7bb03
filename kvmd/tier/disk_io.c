// SPDX-License-Identifier: Apache-2.0
/*
 * disk_io.c - pieces of I/O.
 *
 * A piece (struct dio) is retried until it is whole: short counts go on where
 * they ended, EINTR and EAGAIN are tried again, what else comes is an error. One
 * that finds no room in the ring waits for the next poll(). Core thread only.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

/* ------------------------------------------------------------------ pieces */

static int dio_push(struct dio *io)
{
	struct disk *d = io->f->d;
	unsigned file = d->o.file_base + io->f->idx;

	switch (io->op) {
	case DIO_READ:
		return uring_pread(d->u, &io->u, file, io->buf, io->p, io->bytes, io->off);
	case DIO_WRITE:
		return uring_pwrite(d->u, &io->u, file, io->buf, io->p, io->bytes, io->off);
	default:
		return uring_fdatasync(d->u, &io->u, file);
	}
}

/* No room in the ring: poll() tries again. */
static void dio_try(struct dio *io)
{
	struct disk *d = io->f->d;

	io->next = NULL;
	if (!d->stalled && !dio_push(io))
		return;
	*d->stalled_tail = io;
	d->stalled_tail = &io->next;
}

void dio_resume(struct disk *d)
{
	while (d->stalled) {
		struct dio *io = d->stalled, *next = io->next;

		if (dio_push(io))
			return;
		d->stalled = next;
		if (!next)
			d->stalled_tail = &d->stalled;
	}
}

static void dio_over(struct dio *io, int err)
{
	io->f->d->nr_io--;
	io->f->d->kick = true;
	io->f->nr_io--;
	io->done(io, err);
}

static int injected(const struct dio *io, int res)
{
	static const enum fault_site sites[] = { FAULT_READ, FAULT_WRITE, FAULT_SYNC };

	if (res < 0)
		return res;
	if (fault_hit(sites[io->op]))
		return -EIO;
	if (io->op != DIO_SYNC && res > (int)DISK_ALIGN && fault_hit(FAULT_SHORT))
		return (int)((unsigned)res / 2 & ~(DISK_ALIGN - 1));
	return res;
}

static void dio_end(struct uring_req *u, int res)
{
	struct dio *io = container_of(u, struct dio, u);
	uint32_t part;

	res = injected(io, res);
	if (res == -EINTR || res == -EAGAIN) {
		if (++io->tries < DISK_MAX_TRIES)
			dio_try(io);
		else
			dio_over(io, -EIO);
		return;
	}
	if (res < 0 || io->op == DIO_SYNC) {
		dio_over(io, min(res, 0));
		return;
	}
	part = (uint32_t)res & ~(DISK_ALIGN - 1);	/* O_DIRECT goes on at whole pages */
	if ((uint32_t)res >= io->bytes) {
		dio_over(io, 0);
		return;
	}
	if (!part && (!res || ++io->tries >= DISK_MAX_TRIES)) {
		dio_over(io, -EIO);	/* end of file, or no progress */
		return;
	}
	io->p += part;
	io->off += part;
	io->bytes -= part;
	dio_try(io);
}

void dio_submit(struct dio *io)
{
	io->u.done = dio_end;
	io->tries = 0;
	io->f->nr_io++;
	io->f->d->nr_io++;
	dio_try(io);
}

void dio_start(struct dio *io, struct dfile *f, enum dio_op op, void *p, uint32_t bytes,
	       uint64_t off, void (*done)(struct dio *io, int err), void *ctx)
{
	io->f = f;
	io->op = op;
	io->buf = -1;
	io->p = p;
	io->bytes = bytes;
	io->off = off;
	io->done = done;
	io->ctx = ctx;
	dio_submit(io);
}

/* -------------------------------------------------------------------- set-up */

int disk_io_init(struct disk *d)
{
	list_init(&d->dreq_free);
	list_init(&d->fin);
	d->stalled_tail = &d->stalled;
	d->dreq = mem_calloc(DISK_NR_DREQ, sizeof(*d->dreq));
	d->piece = mem_calloc(DISK_NR_PIECE, sizeof(*d->piece));
	if (!d->dreq || !d->piece)
		return -ENOMEM;
	for (unsigned i = 0; i < DISK_NR_DREQ; i++)
		list_add_tail(&d->dreq[i].link, &d->dreq_free);
	d->nr_dreq_free = DISK_NR_DREQ;
	for (unsigned i = 0; i < DISK_NR_PIECE; i++) {
		d->piece[i].next = d->piece_free;
		d->piece_free = &d->piece[i];
	}
	return 0;
}

void disk_io_exit(struct disk *d)
{
	mem_free(d->dreq);
	mem_free(d->piece);
}
