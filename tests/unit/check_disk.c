// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk.c - the disk tier: blocks in, blocks out, places, segments, faults.
 */
#include "disk_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/tier/disk_int.h"

static struct drig r;

static void setup(void)
{
	drig_init(&r);
}

static void teardown(void)
{
	fault_disarm();
	drig_exit(&r);
}

static void open_one(void)
{
	drig_open(&r);
	drig_space(&r, 0, 1);
}

START_TEST(what_was_written_is_read)
{
	open_one();
	drig_fill(&r, 1, 40);
	for (uint32_t n = 1; n <= 40; n++)
		ck_assert_int_eq(drig_read(&r, n), 0);
	drig_check(&r);
	ck_assert_uint_eq(drig_info(&r).live_bytes, 40 * r.block_bytes);
	ck_assert_uint_eq(r.t->used_bytes, 40 * r.block_bytes);
	ck_assert_str_eq(drig_info(&r).text, "");
}
END_TEST

START_TEST(blocks_of_all_sizes)
{
	static const uint64_t sizes[] = { 64, 4096, 4160, 262144, 524288, 528384, 786432, 1 << 20 };

	r.o.block_bytes_hint = 4096;
	drig_open(&r);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		r.block_bytes = sizes[i];
		drig_space(&r, 0, 1);
		drig_fill(&r, 1, 6);
		for (uint32_t n = 1; n <= 6; n++)
			ck_assert_int_eq(drig_read(&r, n), 0);
		for (uint32_t n = 1; n <= 6; n++)
			drig_free(&r, n);
	}
	/* One that fits no segment has no place. */
	r.block_bytes = (1 << 20) + 64;
	drig_space(&r, 0, 1);
	drig_block(&r, 1, 0, 0);
	ck_assert_int_eq(drig_write(&r, 1), -ENOSPC);
	drig_quiet(&r);
	drig_check(&r);
}
END_TEST

START_TEST(many_at_once)
{
	static struct drig_req q[100];

	open_one();
	for (uint32_t n = 1; n <= 100; n++) {
		drig_block(&r, n, 0, n - 1);
		/* Only so many segments are open at once. */
		drig_until(&r, drig_write_start(&r, &q[n - 1], n, (n - 1) * r.block_bytes));
		ck_assert(n > 64 || r.t->nr_inflight == n);
	}
	for (uint32_t n = 1; n <= 100; n++) {
		drig_until(&r, q[n - 1].over);
		ck_assert_int_eq(q[n - 1].r.err, 0);
	}
	ck_assert_uint_eq(r.t->nr_inflight, 0);
	for (uint32_t n = 1; n <= 100; n++) {
		drig_read_start(&r, &q[n - 1], n, (n - 1) * r.block_bytes);
		q[n - 1].r.urgent = n % 2;
	}
	for (uint32_t n = 1; n <= 100; n++) {
		drig_until(&r, q[n - 1].over);
		ck_assert_int_eq(q[n - 1].r.err, 0);
	}
	drig_check(&r);
}
END_TEST

START_TEST(more_requests_than_can_be_started)
{
	static struct drig_req q[DISK_NR_DREQ + 500];

	r.block_bytes = 4096;
	r.o.block_bytes_hint = 4096;
	r.o.bytes = 40 << 20;
	open_one();
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++) {
		drig_block(&r, n, 0, n - 1);
		drig_until(&r, drig_write_start(&r, &q[n - 1], n, (n - 1) * r.block_bytes));
	}
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++)
		drig_until(&r, q[n - 1].over);
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++)
		drig_read_start(&r, &q[n - 1], n, (n - 1) * r.block_bytes);
	ck_assert_uint_eq(r.t->nr_inflight, ARRAY_SIZE(q));
	for (uint32_t n = 1; n <= ARRAY_SIZE(q); n++) {
		drig_until(&r, q[n - 1].over);
		ck_assert_int_eq(q[n - 1].r.err, 0);
	}
	drig_check(&r);
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
		.f = &disk_of(r.t)->file[0], .op = op, .buf = 0, .p = r.mem, .bytes = 8192,
		.off = off, .done = io_over,
	};
	dio_submit(io);
	real_done = io->u.done;
	io->u.done = again;
	nr_again = 0;
	drig_until(&r, !io->p);
	return last_err;
}

START_TEST(interrupted_io_is_tried_again)
{
	struct dio io;

	open_one();
	ck_assert_int_eq(run_io(&io, DIO_READ, 0), 0);
	ck_assert_uint_ge(nr_again, 6);
	ck_assert_int_eq(disk_super_check((const struct disk_super *)r.mem), DISK_FINE);
	ck_assert_int_eq(run_io(&io, DIO_WRITE, 0), 0);
	ck_assert_int_eq(run_io(&io, DIO_SYNC, 0), 0);
	/* Behind the end of the file there is nothing, and that is an error. */
	ck_assert_int_eq(run_io(&io, DIO_READ, r.o.bytes), -EIO);
	ck_assert_int_eq(run_io(&io, DIO_READ, r.o.bytes - 4096), -EIO);
}
END_TEST

START_TEST(a_stranger_is_not_there)
{
	struct drig_req q;

	open_one();
	drig_fill(&r, 1, 2);
	drig_free(&r, 2);
	for (uint32_t place = 0; place < 40; place += 3) {
		if (place == r.rec[1].place)
			continue;
		drig_block(&r, 3, 0, 0);
		r.rec[3].place = place;
		drig_read_start(&r, &q, 3, 0);
		ck_assert(!q.over);
		drig_until(&r, q.over);
		ck_assert_int_eq(q.r.err, -ENODATA);
		r.rec[3].place = 0;
	}
	r.t->ops->free(r.t, 0);
	r.t->ops->free(r.t, 7777777);
	ck_assert_uint_eq(disk_owner(r.t, 7777777), 0);
	drig_check(&r);
}
END_TEST

START_TEST(freed_while_it_is_written)
{
	struct drig_req q;
	uint32_t place;

	open_one();
	drig_block(&r, 1, 0, 0);
	ck_assert(drig_write_start(&r, &q, 1, 0));
	place = r.rec[1].place;
	drig_free(&r, 1);
	drig_until(&r, q.over);
	ck_assert_int_eq(q.r.err, -ECANCELED);
	ck_assert_uint_eq(disk_owner(r.t, place), 0);
	drig_quiet(&r);
	drig_check(&r);
	/* A place that no write ever came for. */
	place = r.t->ops->alloc(r.t, &r.p->space[0].gp[0], 1, r.block_bytes);
	ck_assert_uint_ne(place, 0);
	r.t->ops->free(r.t, place);
	drig_check(&r);
	drig_close(&r, true);
}
END_TEST

START_TEST(freed_while_it_is_read)
{
	struct drig_req q;

	open_one();
	drig_fill(&r, 1, 1);
	drig_read_start(&r, &q, 1, 0);
	drig_step(&r);
	drig_free(&r, 1);
	drig_until(&r, q.over);
	ck_assert(q.r.err == 0 || q.r.err == -ENODATA);
	drig_quiet(&r);
	drig_check(&r);
}
END_TEST

START_TEST(bytes_in_flight_are_bounded_and_writes_step_back)
{
	static struct drig_req w[8], q[2];
	const struct dfile *f;
	uint64_t before, limit = 2 << 20;
	unsigned nr_read = 0;

	r.block_bytes = 512 << 10;
	r.o.segment_bytes = 4 << 20;
	r.o.bytes = 80 << 20;
	r.o.inflight_bytes = limit;
	open_one();
	drig_fill(&r, 1, 2);
	f = &disk_of(r.t)->file[0];
	for (uint32_t n = 0; n < 8; n++) {
		drig_block(&r, 10 + n, 0, 0);
		ck_assert(drig_write_start(&r, &w[n], 10 + n, n * r.block_bytes));
	}
	r.t->ops->poll(r.t);
	ck_assert_uint_eq(f->wr_bytes, limit);
	/* From now on there is always a read under way. */
	for (unsigned i = 0; i < 2; i++)
		drig_read_start(&r, &q[i], 1 + i, (8 + i) * r.block_bytes);
	while (!w[7].over) {
		before = f->wr_bytes;
		drig_step(&r);
		ck_assert_uint_le(f->wr_bytes, max(before, (uint64_t)512 << 10));
		ck_assert_uint_le(f->rd_bytes, limit);
		for (unsigned i = 0; i < 2; i++) {
			if (!q[i].over)
				continue;
			ck_assert_int_eq(q[i].r.err, 0);
			nr_read++;
			drig_read_start(&r, &q[i], 1 + i, (8 + i) * r.block_bytes);
		}
	}
	ck_assert_uint_gt(nr_read, 0);
	for (unsigned i = 0; i < 2; i++)
		drig_until(&r, q[i].over);
	for (uint32_t n = 0; n < 8; n++)
		ck_assert_int_eq(drig_read(&r, 10 + n), 0);
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

	r.block_bytes = 512 << 10;
	r.o.inflight_bytes = 512 << 10;	/* one at a time */
	open_one();
	drig_fill(&r, 1, 8);
	nr_order = 0;
	for (uint32_t n = 1; n <= 8; n++) {
		struct tier_req *tr = &q[n - 1].r;

		*tr = (struct tier_req) {
			.block = n, .place = r.rec[n].place, .gp = &r.p->space[0].gp[0],
			.mem = r.mem + (n - 1) * r.block_bytes, .buf = 0, .bytes = r.block_bytes,
			.urgent = n == 7, .done = note_order,
		};
		tier_read(r.t, tr);
	}
	drig_until(&r, nr_order == 8);
	ck_assert_uint_eq(order[0], 7);
	for (unsigned i = 1; i < 7; i++)
		ck_assert_uint_eq(order[i], i);
}
END_TEST

START_TEST(nothing_to_do_costs_nothing)
{
	struct disk *d;

	open_one();
	drig_fill(&r, 1, 3);
	drig_quiet(&r);
	d = disk_of(r.t);
	ck_assert_uint_eq(r.t->ops->poll(r.t), 0);
	ck_assert_uint_eq(r.t->ops->next_ns(r.t), 0);
	ck_assert(!d->kick);
	drig_free(&r, 2);
	ck_assert_uint_ne(r.t->ops->next_ns(r.t), 0);
}
END_TEST

/* ----------------------------------------------------------------- compaction */

START_TEST(old_blocks_make_room_for_new_ones)
{
	open_one();
	/* Three times what there is room for; the owner keeps nothing. */
	for (uint32_t n = 1; n <= 900; n++) {
		drig_block(&r, n, 0, 0);
		drig_until(&r, drig_write(&r, n) == 0);
	}
	ck_assert_uint_gt(r.nr_keep, 500);
	drig_quiet(&r);
	drig_check(&r);
	for (uint32_t n = 1; n <= 900; n++)
		ck_assert_int_eq(drig_read(&r, n), r.rec[n].place ? 0 : -ENODATA);
	for (uint32_t n = 880; n <= 900; n++)
		ck_assert_uint_ne(r.rec[n].place, 0);
	ck_assert_uint_eq(r.nr_moved, 0);
	ck_assert_uint_eq(r.nr_lost, 0);
}
END_TEST

START_TEST(blocks_that_stay_are_moved)
{
	open_one();
	for (uint32_t n = 1; n <= 900; n++) {
		drig_block(&r, n, 0, 0);
		r.rec[n].keep = n % 16 == 3 && n < 200;
		drig_until(&r, drig_write(&r, n) == 0);
	}
	drig_quiet(&r);
	drig_check(&r);
	ck_assert_uint_gt(r.nr_moved, 10);
	ck_assert_uint_eq(r.nr_lost, 0);
	for (uint32_t n = 1; n <= 200; n++) {
		if (r.rec[n].keep)
			ck_assert_uint_ne(r.rec[n].place, 0);
		ck_assert_int_eq(drig_read(&r, n), r.rec[n].place ? 0 : -ENODATA);
	}
}
END_TEST

START_TEST(an_owner_that_keeps_everything)
{
	uint32_t n;

	open_one();
	for (n = 1; n < DRIG_MAX; n++) {
		drig_block(&r, n, 0, 0);
		r.rec[n].keep = true;
		if (drig_write(&r, n))
			break;
	}
	/* Full is an answer, not a hang, and nothing is lost for it. */
	for (int i = 0; i < 200; i++)
		drig_step(&r);
	ck_assert_uint_eq(r.nr_lost, 0);
	for (uint32_t i = 1; i < n; i++)
		ck_assert_int_eq(drig_read(&r, i), 0);
	/* Room comes with the first that goes. */
	for (uint32_t i = 1; i < 60; i++)
		drig_free(&r, i);
	drig_block(&r, n, 0, 0);
	drig_until(&r, drig_write(&r, n) == 0);
}
END_TEST

START_TEST(shrinking_gives_a_segment_back)
{
	open_one();
	drig_fill(&r, 1, 48);
	disk_shrink(r.t);
	drig_until(&r, r.nr_keep >= 16);
	drig_quiet(&r);
	ck_assert_uint_eq(r.nr_keep, 16);
	ck_assert_uint_eq(r.rec[1].place, 0);
	ck_assert_uint_ne(r.rec[17].place, 0);
	drig_check(&r);
}
END_TEST

START_TEST(discarded_segments_have_no_bytes)
{
	struct stat st;
	blkcnt_t full;

	r.o.discard = true;
	open_one();
	drig_fill(&r, 1, 64);
	ck_assert_int_eq(stat(r.path[0], &st), 0);
	full = st.st_blocks;
	for (uint32_t n = 1; n <= 48; n++)
		drig_free(&r, n);
	drig_quiet(&r);
	ck_assert_int_eq(stat(r.path[0], &st), 0);
	ck_assert_int_le(st.st_blocks, full - 3 * 2048);
	for (uint32_t n = 49; n <= 64; n++)
		ck_assert_int_eq(drig_read(&r, n), 0);
	drig_check(&r);
}
END_TEST

/* --------------------------------------------------------------------- faults */

static void arm(const char *spec)
{
	char msg[128] = "";

	ck_assert_msg(!fault_arm(spec, msg, sizeof(msg)), "%s", msg);
}

START_TEST(short_reads_and_writes_go_on)
{
	open_one();
	r.block_bytes = 1 << 20;
	drig_space(&r, 0, 1);
	arm("short:prob=0.5,seed=3");
	drig_fill(&r, 1, 8);
	for (uint32_t n = 1; n <= 8; n++)
		ck_assert_int_eq(drig_read(&r, n), 0);
	ck_assert_uint_gt(fault_nr_hits(FAULT_SHORT), 8);
	drig_check(&r);
}
END_TEST

START_TEST(a_failed_write_stores_nothing)
{
	open_one();
	drig_fill(&r, 1, 3);
	drig_block(&r, 4, 0, 0);
	arm("write:nth=1");
	ck_assert_int_eq(drig_write(&r, 4), -EIO);
	ck_assert(strstr(drig_info(&r).text, r.path[0]));
	ck_assert(strstr(drig_info(&r).text, "offset"));
	ck_assert_uint_eq(drig_info(&r).live_bytes, 3 * r.block_bytes);
	/* The header fails. */
	arm("write:nth=2");
	ck_assert_int_eq(drig_write(&r, 4), -EIO);
	ck_assert_int_eq(drig_write(&r, 4), 0);
	ck_assert(!r.t->broken);
	drig_quiet(&r);
	drig_check(&r);
	for (uint32_t n = 1; n <= 4; n++)
		ck_assert_int_eq(drig_read(&r, n), 0);
}
END_TEST

START_TEST(a_device_that_fails_takes_no_more)
{
	open_one();
	drig_fill(&r, 1, 20);
	arm("write:every=1");
	for (uint32_t n = 21; n < 60 && !r.t->broken; n++) {
		drig_block(&r, n, 0, 0);
		ck_assert_int_eq(drig_write(&r, n), -EIO);
	}
	ck_assert(r.t->broken);
	ck_assert(strstr(drig_info(&r).text, "in a row"));
	ck_assert_uint_eq(r.t->ops->alloc(r.t, &r.p->space[0].gp[0], 1, r.block_bytes), 0);
	for (uint32_t n = 1; n <= 20; n++)
		ck_assert_int_eq(drig_read(&r, n), 0);
	drig_check(&r);
}
END_TEST

START_TEST(every_write_may_fail)
{
	/* The 1st, 2nd, ... write of any kind fails: nothing leaks, all is there or is not. */
	open_one();
	for (unsigned k = 1; k <= 40; k++) {
		char spec[32];

		snprintf(spec, sizeof(spec), "write:nth=%u", k);
		arm(spec);
		for (uint32_t n = 1; n <= 20; n++) {
			drig_block(&r, n, 0, 0);
			(void)drig_write(&r, n);
		}
		for (uint32_t n = 1; n <= 20; n++) {
			ck_assert_int_eq(drig_read(&r, n), r.rec[n].place ? 0 : -ENODATA);
			if (r.rec[n].place)
				drig_free(&r, n);
		}
		fault_disarm();
		drig_quiet(&r);
		drig_check(&r);
	}
}
END_TEST

START_TEST(a_failed_read_is_an_error)
{
	open_one();
	drig_fill(&r, 1, 2);
	arm("read:nth=1");
	ck_assert_int_eq(drig_read(&r, 1), -EIO);
	ck_assert_int_eq(drig_read(&r, 1), 0);
	ck_assert_uint_eq(r.nr_lost, 0);
	/* The second time it is lost. */
	arm("read:nth=1");
	ck_assert_int_eq(drig_read(&r, 1), -EIO);
	ck_assert_uint_eq(r.nr_lost, 1);
	ck_assert(r.rec[1].lost);
	ck_assert_int_eq(drig_read(&r, 2), 0);
	drig_check(&r);
}
END_TEST

START_TEST(a_failed_seal_loses_nothing)
{
	open_one();
	arm("sync:every=1");
	drig_fill(&r, 1, 40);
	drig_quiet(&r);
	ck_assert_uint_gt(fault_nr_hits(FAULT_SYNC), 0);
	ck_assert(strstr(drig_info(&r).text, "fdatasync"));
	for (uint32_t n = 1; n <= 40; n++)
		ck_assert_int_eq(drig_read(&r, n), 0);
	drig_check(&r);
}
END_TEST

START_TEST(a_flipped_bit_is_a_miss_the_second_makes_it_bad)
{
	uint64_t at;
	unsigned nr;

	open_one();
	drig_fill(&r, 1, 3);
	drig_quiet(&r);
	at = drig_data_at(&r, 2);
	drig_flip(&r, 0, at + 4097);
	ck_assert_int_eq(drig_read(&r, 2), -EBADMSG);
	ck_assert(r.rec[2].lost);
	ck_assert(strstr(drig_info(&r).text, "not what was written"));
	ck_assert_int_eq(drig_read(&r, 1), 0);
	ck_assert_int_eq(drig_read(&r, 3), 0);
	ck_assert_uint_eq(drig_info(&r).nr_bad, 0);
	drig_check(&r);
	/* The same bytes in the next use of the segment. */
	for (uint32_t n = 4; n < 2000 && !drig_info(&r).nr_bad; n++) {
		drig_block(&r, n, 0, 0);
		drig_until(&r, drig_write(&r, n) == 0);
		if (drig_data_at(&r, n) == at) {
			drig_flip(&r, 0, at + 9);
			ck_assert_int_eq(drig_read(&r, n), -EBADMSG);
		}
	}
	ck_assert_uint_eq(drig_info(&r).nr_bad, 1);
	ck_assert(strstr(drig_info(&r).text, "twice"));
	/* Never again. */
	for (uint32_t n = 2000; n < 3000; n++) {
		drig_block(&r, n, 0, 0);
		drig_until(&r, drig_write(&r, n) == 0);
		ck_assert_uint_ne(drig_data_at(&r, n), at);
	}
	drig_quiet(&r);
	drig_check(&r);
	/* And a restart remembers it. */
	nr = drig_info(&r).nr_bad;
	drig_close(&r, true);
	drig_reopen(&r);
	ck_assert_uint_eq(drig_info(&r).nr_bad, nr);
}
END_TEST

START_TEST(a_mismatch_on_the_way_up_is_told)
{
	open_one();
	drig_fill(&r, 1, 2);
	disk_mismatch(r.t, r.rec[1].place);
	ck_assert(r.rec[1].lost);
	ck_assert_int_eq(drig_read(&r, 2), 0);
	drig_check(&r);
}
END_TEST

START_TEST(scrub_finds_what_nobody_reads)
{
	open_one();
	drig_fill(&r, 1, 40);
	drig_quiet(&r);
	drig_flip(&r, 0, drig_data_at(&r, 5) + 100);
	disk_set_rates(r.t, 0, 0, 1ull << 40);
	drig_until(&r, r.nr_lost);
	ck_assert(r.rec[5].lost);
	drig_until(&r, drig_info(&r).scrub_pass >= 2);
	ck_assert_uint_eq(r.nr_lost, 1);
	ck_assert_uint_gt(drig_info(&r).scrubbed_bytes, 31 * r.block_bytes);
	disk_set_rates(r.t, 0, 0, 0);
	drig_quiet(&r);
	drig_check(&r);
}
END_TEST

START_TEST(caps_on_what_is_written)
{
	uint32_t n;

	r.o.write_rate = 1;		/* one byte a second: one block, then no more for hours */
	open_one();
	drig_block(&r, 1, 0, 0);
	ck_assert_int_eq(drig_write(&r, 1), 0);
	ck_assert_int_eq(drig_write(&r, 2), -ENOSPC);
	ck_assert_uint_ne(r.t->ops->next_ns(r.t), 0);
	disk_set_rates(r.t, 0, 4 * r.block_bytes, 0);
	for (n = 2; n < 10; n++) {
		drig_block(&r, n, 0, 0);
		if (drig_write(&r, n))
			break;
	}
	ck_assert_uint_eq(n, 5);
	ck_assert_uint_eq(drig_info(&r).written_day, 4 * r.block_bytes);
	/* A restart does not make the day new. */
	drig_close(&r, true);
	r.o.write_rate = 0;
	r.o.write_day = 4 * r.block_bytes;
	drig_open(&r);
	ck_assert_uint_eq(drig_info(&r).written_day, 4 * r.block_bytes);
	drig_space(&r, 0, 1);
	drig_block(&r, 99, 0, 0);
	ck_assert_int_eq(drig_write(&r, 99), -ENOSPC);
}
END_TEST

START_TEST(test_faults_of_allocation)
{
	open_one();
	drig_block(&r, 1, 0, 0);
	arm("tier-alloc:nth=1");
	ck_assert_int_eq(drig_write(&r, 1), -ENOSPC);
	ck_assert_int_eq(drig_write(&r, 1), 0);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	TCase *tc = tcase_create(behaviour);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("disk");
	SRunner *sr;
	int nr_failed;

	add(s, "what was written is read", what_was_written_is_read);
	add(s, "blocks of all sizes", blocks_of_all_sizes);
	add(s, "many at once", many_at_once);
	add(s, "more requests than can be started", more_requests_than_can_be_started);
	add(s, "interrupted I/O is tried again", interrupted_io_is_tried_again);
	add(s, "a stranger is not there", a_stranger_is_not_there);
	add(s, "freed while it is written", freed_while_it_is_written);
	add(s, "freed while it is read", freed_while_it_is_read);
	add(s, "bytes in flight are bounded, and writes step back",
	    bytes_in_flight_are_bounded_and_writes_step_back);
	add(s, "urgent reads come first", urgent_reads_come_first);
	add(s, "nothing to do costs nothing", nothing_to_do_costs_nothing);
	add(s, "old blocks make room for new ones", old_blocks_make_room_for_new_ones);
	add(s, "blocks that stay are moved", blocks_that_stay_are_moved);
	add(s, "an owner that keeps everything", an_owner_that_keeps_everything);
	add(s, "shrinking gives a segment back", shrinking_gives_a_segment_back);
	add(s, "discarded segments have no bytes", discarded_segments_have_no_bytes);
	add(s, "short reads and writes go on", short_reads_and_writes_go_on);
	add(s, "a failed write stores nothing", a_failed_write_stores_nothing);
	add(s, "a device that fails takes no more", a_device_that_fails_takes_no_more);
	add(s, "every write may fail", every_write_may_fail);
	add(s, "a failed read is an error", a_failed_read_is_an_error);
	add(s, "a failed seal loses nothing", a_failed_seal_loses_nothing);
	add(s, "a flipped bit is a miss, the second makes it bad",
	    a_flipped_bit_is_a_miss_the_second_makes_it_bad);
	add(s, "a mismatch on the way up is told", a_mismatch_on_the_way_up_is_told);
	add(s, "scrub finds what nobody reads", scrub_finds_what_nobody_reads);
	add(s, "caps on what is written", caps_on_what_is_written);
	add(s, "faults of allocation", test_faults_of_allocation);

	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? 1 : 0;
}
