// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk.c - the disk tier: blocks in, blocks out, places, compaction.
 */
#include "disk_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/tier/disk_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"

START_TEST(what_was_written_is_read)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 40);
	for (uint32_t n = 1; n <= 40; n++)
		ck_assert_int_eq(drig_read(&drig, n), 0);
	drig_check(&drig);
	ck_assert_uint_eq(drig_info(&drig).live_bytes, 40 * drig.block_bytes);
	ck_assert_uint_eq(drig.t->used_bytes, 40 * drig.block_bytes);
	ck_assert_str_eq(drig_info(&drig).text, "");
}
END_TEST

START_TEST(blocks_of_all_sizes)
{
	static const uint64_t sizes[] = { 64, 4096, 4160, 262144, 524288, 528384, 786432, 1 << 20 };

	drig.o.block_bytes_hint = 4096;
	drig_open(&drig);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		drig.block_bytes = sizes[i];
		drig_space(&drig, 0, 1);
		drig_fill(&drig, 1, 6);
		for (uint32_t n = 1; n <= 6; n++)
			ck_assert_int_eq(drig_read(&drig, n), 0);
		for (uint32_t n = 1; n <= 6; n++)
			drig_free(&drig, n);
	}
	/* One that fits no segment has no place. */
	drig.block_bytes = (1 << 20) + 64;
	drig_space(&drig, 0, 1);
	drig_block(&drig, 1, 0, 0);
	ck_assert_int_eq(drig_write(&drig, 1), -ENOSPC);
	drig_quiet(&drig);
	drig_check(&drig);
}
END_TEST

START_TEST(many_at_once)
{
	static struct drig_req q[100];

	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 100; n++) {
		drig_block(&drig, n, 0, n - 1);
		/* Only so many segments are open at once. */
		drig_until(&drig, drig_write_start(&drig, &q[n - 1], n,
						   (n - 1) * drig.block_bytes));
		ck_assert(n > 64 || drig.t->nr_inflight == n);
	}
	for (uint32_t n = 1; n <= 100; n++) {
		drig_until(&drig, q[n - 1].over);
		ck_assert_int_eq(q[n - 1].r.err, 0);
	}
	ck_assert_uint_eq(drig.t->nr_inflight, 0);
	for (uint32_t n = 1; n <= 100; n++) {
		drig_read_start(&drig, &q[n - 1], n, (n - 1) * drig.block_bytes);
		q[n - 1].r.urgent = n % 2;
	}
	for (uint32_t n = 1; n <= 100; n++) {
		drig_until(&drig, q[n - 1].over);
		ck_assert_int_eq(q[n - 1].r.err, 0);
	}
	drig_check(&drig);
}
END_TEST

START_TEST(more_requests_than_can_be_started)
{
	static struct drig_req q[DISK_NR_DREQ + 500];

	drig.block_bytes = 4096;
	drig.o.block_bytes_hint = 4096;
	drig.o.bytes = 40 << 20;
	drig_open_one(&drig);
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++) {
		drig_block(&drig, n, 0, n - 1);
		drig_until(&drig, drig_write_start(&drig, &q[n - 1], n,
						   (n - 1) * drig.block_bytes));
	}
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++)
		drig_until(&drig, q[n - 1].over);
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++)
		drig_read_start(&drig, &q[n - 1], n, (n - 1) * drig.block_bytes);
	ck_assert_uint_eq(drig.t->nr_inflight, ARRAY_SIZE(q));
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++) {
		drig_until(&drig, q[n - 1].over);
		quiet_assert_int_eq(q[n - 1].r.err, 0);
	}
	drig_check(&drig);
}
END_TEST

static void (*real_done)(struct uring_req *u, int res);
static unsigned nr_again;

/* The first times it was interrupted, or there was no room for it. */
static void again(struct uring_req *u, int res)
{
	nr_again++;
	real_done(u, nr_again % 2 ? -EINTR : nr_again < 6 ? -EAGAIN : res);
}

static int last_err;

static void io_over(struct dio *io, int err)
{
	last_err = err;
	io->p = NULL;
}

static int run_io(struct dio *io, enum dio_op op, uint64_t off)
{
	*io = (struct dio) {
		.f = &disk_of(drig.t)->file[0], .op = op, .buf = 0, .p = drig.mem, .bytes = 8192,
		.off = off, .done = io_over,
	};
	dio_submit(io);
	real_done = io->u.done;
	io->u.done = again;
	nr_again = 0;
	drig_until(&drig, !io->p);
	return last_err;
}

START_TEST(interrupted_io_is_tried_again)
{
	struct dio io;

	drig_open_one(&drig);
	ck_assert_int_eq(run_io(&io, DIO_READ, 0), 0);
	ck_assert_uint_ge(nr_again, 6);
	ck_assert_int_eq(disk_super_check((const struct disk_super *)drig.mem), DISK_FINE);
	ck_assert_int_eq(run_io(&io, DIO_WRITE, 0), 0);
	ck_assert_int_eq(run_io(&io, DIO_SYNC, 0), 0);
	/* Behind the end of the file there is nothing, and that is an error. */
	ck_assert_int_eq(run_io(&io, DIO_READ, drig.o.bytes), -EIO);
	ck_assert_int_eq(run_io(&io, DIO_READ, drig.o.bytes - 4096), -EIO);
}
END_TEST

START_TEST(a_stranger_is_not_there)
{
	struct drig_req q;

	drig_open_one(&drig);
	drig_fill(&drig, 1, 2);
	drig_free(&drig, 2);
	for (uint32_t place = 0; place < 40; place += 3) {
		if (place == drig.rec[1].place)
			continue;
		drig_block(&drig, 3, 0, 0);
		drig.rec[3].place = place;
		drig_read_start(&drig, &q, 3, 0);
		ck_assert(!q.over);
		drig_until(&drig, q.over);
		ck_assert_int_eq(q.r.err, -ENODATA);
		drig.rec[3].place = 0;
	}
	drig.t->ops->free(drig.t, 0);
	drig.t->ops->free(drig.t, 7777777);
	ck_assert_uint_eq(disk_owner(drig.t, 7777777), 0);
	drig_check(&drig);
}
END_TEST

START_TEST(freed_while_it_is_written)
{
	struct drig_req q;
	uint32_t place;

	drig_open_one(&drig);
	drig_block(&drig, 1, 0, 0);
	ck_assert(drig_write_start(&drig, &q, 1, 0));
	place = drig.rec[1].place;
	drig_free(&drig, 1);
	drig_until(&drig, q.over);
	ck_assert_int_eq(q.r.err, -ECANCELED);
	ck_assert_uint_eq(disk_owner(drig.t, place), 0);
	drig_quiet(&drig);
	drig_check(&drig);
	/* A place that no write ever came for. */
	place = drig.t->ops->alloc(drig.t, &drig.p->space[0].gp[0], 1, drig.block_bytes);
	ck_assert_uint_ne(place, 0);
	drig.t->ops->free(drig.t, place);
	drig_check(&drig);
	drig_close(&drig, true);
}
END_TEST

START_TEST(freed_while_it_is_read)
{
	struct drig_req q;

	drig_open_one(&drig);
	drig_fill(&drig, 1, 1);
	drig_read_start(&drig, &q, 1, 0);
	drig_step(&drig);
	drig_free(&drig, 1);
	drig_until(&drig, q.over);
	ck_assert(q.r.err == 0 || q.r.err == -ENODATA);
	drig_quiet(&drig);
	drig_check(&drig);
}
END_TEST

START_TEST(bytes_in_flight_are_bounded_and_writes_step_back)
{
	static struct drig_req w[8], q[2];
	const struct dfile *f;
	uint64_t before, limit = 2 << 20;
	unsigned nr_read = 0;

	drig.block_bytes = 512 << 10;
	drig.o.segment_bytes = 4 << 20;
	drig.o.bytes = 80 << 20;
	drig.o.inflight_bytes = limit;
	drig_open_one(&drig);
	drig_fill(&drig, 1, 2);
	f = &disk_of(drig.t)->file[0];
	for (uint32_t n = 0; n < 8; n++) {
		drig_block(&drig, 10 + n, 0, 0);
		ck_assert(drig_write_start(&drig, &w[n], 10 + n, n * drig.block_bytes));
	}
	drig.t->ops->poll(drig.t);
	ck_assert_uint_eq(f->wr_bytes, limit);
	/* From now on there is always a read under way. */
	for (unsigned i = 0; i < 2; i++)
		drig_read_start(&drig, &q[i], 1 + i, (8 + i) * drig.block_bytes);
	while (!w[7].over) {
		before = f->wr_bytes;
		drig_step(&drig);
		/* When both reads ended in this step, writes behind them saw none. */
		if (!q[0].over || !q[1].over)
			ck_assert_uint_le(f->wr_bytes, max(before, (uint64_t)512 << 10));
		ck_assert_uint_le(f->rd_bytes, limit);
		for (unsigned i = 0; i < 2; i++) {
			if (!q[i].over)
				continue;
			ck_assert_int_eq(q[i].r.err, 0);
			nr_read++;
			drig_read_start(&drig, &q[i], 1 + i, (8 + i) * drig.block_bytes);
		}
	}
	ck_assert_uint_gt(nr_read, 0);
	for (unsigned i = 0; i < 2; i++)
		drig_until(&drig, q[i].over);
	for (uint32_t n = 0; n < 8; n++)
		ck_assert_int_eq(drig_read(&drig, 10 + n), 0);
}
END_TEST

static unsigned order[8], nr_order;

static void note_order(struct tier_req *tr)
{
	order[nr_order++] = tr->block;
}

START_TEST(urgent_reads_come_first)
{
	static struct drig_req q[8];

	drig.block_bytes = 512 << 10;
	drig.o.inflight_bytes = 512 << 10;	/* one at a time */
	drig_open_one(&drig);
	drig_fill(&drig, 1, 8);
	nr_order = 0;
	for (uint32_t n = 1; n <= 8; n++) {
		struct tier_req *tr = &q[n - 1].r;

		*tr = (struct tier_req) {
			.block = n, .place = drig.rec[n].place, .gp = &drig.p->space[0].gp[0],
			.mem = drig.mem + (n - 1) * drig.block_bytes, .buf = 0,
			.bytes = drig.block_bytes, .urgent = n == 7, .done = note_order,
		};
		tier_read(drig.t, tr);
	}
	drig_until(&drig, nr_order == 8);
	ck_assert_uint_eq(order[0], 7);
	for (unsigned i = 1; i < 7; i++)
		ck_assert_uint_eq(order[i], i);
}
END_TEST

START_TEST(nothing_to_do_costs_nothing)
{
	struct disk *d;

	drig_open_one(&drig);
	drig_fill(&drig, 1, 3);
	drig_quiet(&drig);
	d = disk_of(drig.t);
	ck_assert_uint_eq(drig.t->ops->poll(drig.t), 0);
	ck_assert_uint_eq(drig.t->ops->next_ns(drig.t), 0);
	ck_assert(!d->kick);
	drig_free(&drig, 2);
	ck_assert_uint_ne(drig.t->ops->next_ns(drig.t), 0);
}
END_TEST

/* ----------------------------------------------------------------- compaction */

START_TEST(old_blocks_make_room_for_new_ones)
{
	drig_open_one(&drig);
	/* Three times what there is room for; the owner keeps nothing. */
	drig_fill_roots(&drig, 1, 900);
	ck_assert_uint_gt(drig.nr_keep, 500);
	drig_quiet(&drig);
	drig_check(&drig);
	for (uint32_t n = 1; n <= 900; n++)
		quiet_assert_int_eq(drig_read(&drig, n), drig.rec[n].place ? 0 : -ENODATA);
	for (uint32_t n = 880; n <= 900; n++)
		ck_assert_uint_ne(drig.rec[n].place, 0);
	ck_assert_uint_eq(drig.nr_moved, 0);
	ck_assert_uint_eq(drig.nr_lost, 0);
}
END_TEST

START_TEST(blocks_that_stay_are_moved)
{
	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 900; n++) {
		drig_block(&drig, n, 0, 0);
		drig.rec[n].keep = n % 16 == 3 && n < 200;
		drig_until(&drig, drig_write(&drig, n) == 0);
	}
	drig_quiet(&drig);
	drig_check(&drig);
	ck_assert_uint_gt(drig.nr_moved, 10);
	ck_assert_uint_eq(drig.nr_lost, 0);
	for (uint32_t n = 1; n <= 200; n++) {
		if (drig.rec[n].keep)
			ck_assert_uint_ne(drig.rec[n].place, 0);
		ck_assert_int_eq(drig_read(&drig, n), drig.rec[n].place ? 0 : -ENODATA);
	}
}
END_TEST

START_TEST(an_owner_that_keeps_everything)
{
	uint32_t n;

	drig_open_one(&drig);
	for (n = 1; n < DRIG_MAX; n++) {
		drig_block(&drig, n, 0, 0);
		drig.rec[n].keep = true;
		if (drig_write(&drig, n))
			break;
	}
	/* Full is an answer, not a hang, and nothing is lost for it. */
	for (int i = 0; i < 200; i++)
		drig_step(&drig);
	ck_assert_uint_eq(drig.nr_lost, 0);
	for (uint32_t i = 1; i < n; i++)
		ck_assert_int_eq(drig_read(&drig, i), 0);
	/* Room comes with the first that goes. */
	for (uint32_t i = 1; i < 60; i++)
		drig_free(&drig, i);
	drig_block(&drig, n, 0, 0);
	drig_until(&drig, drig_write(&drig, n) == 0);
}
END_TEST

START_TEST(shrinking_gives_a_segment_back)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 48);
	disk_shrink(drig.t);
	drig_until(&drig, drig.nr_keep >= 16);
	drig_quiet(&drig);
	ck_assert_uint_eq(drig.nr_keep, 16);
	ck_assert_uint_eq(drig.rec[1].place, 0);
	ck_assert_uint_ne(drig.rec[17].place, 0);
	drig_check(&drig);
}
END_TEST

START_TEST(discarded_segments_have_no_bytes)
{
	struct stat st;
	blkcnt_t full;

	drig.o.discard = true;
	drig_open_one(&drig);
	drig_fill(&drig, 1, 64);
	ck_assert_int_eq(stat(drig.path[0], &st), 0);
	full = st.st_blocks;
	for (uint32_t n = 1; n <= 48; n++)
		drig_free(&drig, n);
	drig_quiet(&drig);
	ck_assert_int_eq(stat(drig.path[0], &st), 0);
	ck_assert_int_le(st.st_blocks, full - 3 * 2048);
	for (uint32_t n = 49; n <= 64; n++)
		ck_assert_int_eq(drig_read(&drig, n), 0);
	drig_check(&drig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk");

	drig_add(s, "what was written is read", what_was_written_is_read);
	drig_add(s, "blocks of all sizes", blocks_of_all_sizes);
	drig_add(s, "many at once", many_at_once);
	drig_add(s, "more requests than can be started", more_requests_than_can_be_started);
	drig_add(s, "interrupted I/O is tried again", interrupted_io_is_tried_again);
	drig_add(s, "a stranger is not there", a_stranger_is_not_there);
	drig_add(s, "freed while it is written", freed_while_it_is_written);
	drig_add(s, "freed while it is read", freed_while_it_is_read);
	drig_add(s, "bytes in flight are bounded, and writes step back",
		 bytes_in_flight_are_bounded_and_writes_step_back);
	drig_add(s, "urgent reads come first", urgent_reads_come_first);
	drig_add(s, "nothing to do costs nothing", nothing_to_do_costs_nothing);
	drig_add(s, "old blocks make room for new ones", old_blocks_make_room_for_new_ones);
	drig_add(s, "blocks that stay are moved", blocks_that_stay_are_moved);
	drig_add(s, "an owner that keeps everything", an_owner_that_keeps_everything);
	drig_add(s, "shrinking gives a segment back", shrinking_gives_a_segment_back);
	drig_add(s, "discarded segments have no bytes", discarded_segments_have_no_bytes);
	return suite_run(s);
}
