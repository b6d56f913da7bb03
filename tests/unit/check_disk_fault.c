// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk_fault.c - the disk tier when something fails: writes, reads, seals,
 * bits that turn, places that are bad for good, caps that are reached.
 */
#include "disk_rig.h"

#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/tier/disk_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"

START_TEST(short_reads_and_writes_go_on)
{
	drig_open_one(&drig);
	drig.block_bytes = 1 << 20;
	drig_space(&drig, 0, 1);
	drig_arm("short:prob=0.5,seed=3");
	drig_fill(&drig, 1, 8);
	for (uint32_t n = 1; n <= 8; n++)
		ck_assert_int_eq(drig_read(&drig, n), 0);
	ck_assert_uint_gt(fault_nr_hits(FAULT_SHORT), 8);
	drig_check(&drig);
}
END_TEST

START_TEST(a_failed_write_stores_nothing)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 3);
	drig_block(&drig, 4, 0, 0);
	drig_arm("write:nth=1");
	ck_assert_int_eq(drig_write(&drig, 4), -EIO);
	ck_assert(strstr(drig_info(&drig).text, drig.path[0]));
	ck_assert(strstr(drig_info(&drig).text, "offset"));
	ck_assert_uint_eq(drig_info(&drig).live_bytes, 3 * drig.block_bytes);
	/* The header fails. */
	drig_arm("write:nth=2");
	ck_assert_int_eq(drig_write(&drig, 4), -EIO);
	ck_assert_int_eq(drig_write(&drig, 4), 0);
	ck_assert(!drig.t->broken);
	drig_quiet(&drig);
	drig_check(&drig);
	for (uint32_t n = 1; n <= 4; n++)
		ck_assert_int_eq(drig_read(&drig, n), 0);
}
END_TEST

START_TEST(a_device_that_fails_takes_no_more)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 20);
	drig_arm("write:every=1");
	for (uint32_t n = 21; n < 60 && !drig.t->broken; n++) {
		drig_block(&drig, n, 0, 0);
		ck_assert_int_eq(drig_write(&drig, n), -EIO);
	}
	ck_assert(drig.t->broken);
	ck_assert(strstr(drig_info(&drig).text, "in a row"));
	ck_assert_uint_eq(drig.t->ops->alloc(drig.t, &drig.p->space[0].gp[0], 1,
					     drig.block_bytes), 0);
	for (uint32_t n = 1; n <= 20; n++)
		ck_assert_int_eq(drig_read(&drig, n), 0);
	drig_check(&drig);
}
END_TEST

START_TEST(every_write_may_fail)
{
	/* The 1st, 2nd, ... write of any kind fails: nothing leaks, all is there or is not. */
	drig_open_one(&drig);
	for (unsigned k = 1; k <= 40; k++) {
		char spec[32];

		snprintf(spec, sizeof(spec), "write:nth=%u", k);
		drig_arm(spec);
		for (uint32_t n = 1; n <= 20; n++) {
			drig_block(&drig, n, 0, 0);
			(void)drig_write(&drig, n);
		}
		for (uint32_t n = 1; n <= 20; n++) {
			ck_assert_int_eq(drig_read(&drig, n), drig.rec[n].place ? 0 : -ENODATA);
			if (drig.rec[n].place)
				drig_free(&drig, n);
		}
		fault_disarm();
		drig_quiet(&drig);
		drig_check(&drig);
	}
}
END_TEST

START_TEST(a_failed_read_is_an_error)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 2);
	drig_arm("read:nth=1");
	ck_assert_int_eq(drig_read(&drig, 1), -EIO);
	ck_assert_int_eq(drig_read(&drig, 1), 0);
	ck_assert_uint_eq(drig.nr_lost, 0);
	/* The second time it is lost. */
	drig_arm("read:nth=1");
	ck_assert_int_eq(drig_read(&drig, 1), -EIO);
	ck_assert_uint_eq(drig.nr_lost, 1);
	ck_assert(drig.rec[1].lost);
	ck_assert_int_eq(drig_read(&drig, 2), 0);
	drig_check(&drig);
}
END_TEST

START_TEST(a_failed_seal_loses_nothing)
{
	drig_open_one(&drig);
	drig_arm("sync:every=1");
	drig_fill(&drig, 1, 40);
	drig_quiet(&drig);
	ck_assert_uint_gt(fault_nr_hits(FAULT_SYNC), 0);
	ck_assert(strstr(drig_info(&drig).text, "fdatasync"));
	for (uint32_t n = 1; n <= 40; n++)
		ck_assert_int_eq(drig_read(&drig, n), 0);
	drig_check(&drig);
}
END_TEST

START_TEST(a_flipped_bit_is_a_miss_the_second_makes_it_bad)
{
	uint64_t at;
	unsigned nr;

	drig_open_one(&drig);
	drig_fill(&drig, 1, 3);
	drig_quiet(&drig);
	at = drig_data_at(&drig, 2);
	drig_flip(&drig, 0, at + 4097);
	ck_assert_int_eq(drig_read(&drig, 2), -EBADMSG);
	ck_assert(drig.rec[2].lost);
	ck_assert(strstr(drig_info(&drig).text, "not what was written"));
	ck_assert_int_eq(drig_read(&drig, 1), 0);
	ck_assert_int_eq(drig_read(&drig, 3), 0);
	ck_assert_uint_eq(drig_info(&drig).nr_bad, 0);
	drig_check(&drig);
	/* The same bytes in the next use of the segment. */
	for (uint32_t n = 4; n < 2000 && !drig_info(&drig).nr_bad; n++) {
		drig_block(&drig, n, 0, 0);
		drig_until(&drig, drig_write(&drig, n) == 0);
		if (drig_data_at(&drig, n) == at) {
			drig_flip(&drig, 0, at + 9);
			ck_assert_int_eq(drig_read(&drig, n), -EBADMSG);
		}
	}
	ck_assert_uint_eq(drig_info(&drig).nr_bad, 1);
	ck_assert(strstr(drig_info(&drig).text, "twice"));
	/* Never again. */
	for (uint32_t n = 2000; n < 3000; n++) {
		drig_block(&drig, n, 0, 0);
		drig_until(&drig, drig_write(&drig, n) == 0);
		quiet_assert_uint_ne(drig_data_at(&drig, n), at);
	}
	drig_quiet(&drig);
	drig_check(&drig);
	/* And a restart remembers it. */
	nr = drig_info(&drig).nr_bad;
	drig_close(&drig, true);
	drig_reopen(&drig);
	ck_assert_uint_eq(drig_info(&drig).nr_bad, nr);
}
END_TEST

START_TEST(a_mismatch_on_the_way_up_is_told)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 2);
	disk_mismatch(drig.t, drig.rec[1].place);
	ck_assert(drig.rec[1].lost);
	ck_assert_int_eq(drig_read(&drig, 2), 0);
	drig_check(&drig);
}
END_TEST

START_TEST(scrub_finds_what_nobody_reads)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 40);
	drig_quiet(&drig);
	drig_flip(&drig, 0, drig_data_at(&drig, 5) + 100);
	disk_set_rates(drig.t, 0, 0, 1ull << 40);
	drig_until(&drig, drig.nr_lost);
	ck_assert(drig.rec[5].lost);
	drig_until(&drig, drig_info(&drig).scrub_pass >= 2);
	ck_assert_uint_eq(drig.nr_lost, 1);
	ck_assert_uint_gt(drig_info(&drig).scrubbed_bytes, 31 * drig.block_bytes);
	disk_set_rates(drig.t, 0, 0, 0);
	drig_quiet(&drig);
	drig_check(&drig);
}
END_TEST

START_TEST(caps_on_what_is_written)
{
	uint32_t n;

	drig.o.write_rate = 1;		/* one byte a second: one block, then no more for hours */
	drig_open_one(&drig);
	drig_block(&drig, 1, 0, 0);
	ck_assert_int_eq(drig_write(&drig, 1), 0);
	ck_assert_int_eq(drig_write(&drig, 2), -ENOSPC);
	ck_assert_uint_ne(drig.t->ops->next_ns(drig.t), 0);
	disk_set_rates(drig.t, 0, 4 * drig.block_bytes, 0);
	for (n = 2; n < 10; n++) {
		drig_block(&drig, n, 0, 0);
		if (drig_write(&drig, n))
			break;
	}
	ck_assert_uint_eq(n, 5);
	ck_assert_uint_eq(drig_info(&drig).written_day, 4 * drig.block_bytes);
	/* A restart does not make the day new. */
	drig_close(&drig, true);
	drig.o.write_rate = 0;
	drig.o.write_day = 4 * drig.block_bytes;
	drig_open(&drig);
	ck_assert_uint_eq(drig_info(&drig).written_day, 4 * drig.block_bytes);
	drig_space(&drig, 0, 1);
	drig_block(&drig, 99, 0, 0);
	ck_assert_int_eq(drig_write(&drig, 99), -ENOSPC);
}
END_TEST

START_TEST(test_faults_of_allocation)
{
	drig_open_one(&drig);
	drig_block(&drig, 1, 0, 0);
	drig_arm("tier-alloc:nth=1");
	ck_assert_int_eq(drig_write(&drig, 1), -ENOSPC);
	ck_assert_int_eq(drig_write(&drig, 1), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk_fault");

	drig_add(s, "short reads and writes go on", short_reads_and_writes_go_on);
	drig_add(s, "a failed write stores nothing", a_failed_write_stores_nothing);
	drig_add(s, "a device that fails takes no more", a_device_that_fails_takes_no_more);
	drig_add(s, "every write may fail", every_write_may_fail);
	drig_add(s, "a failed read is an error", a_failed_read_is_an_error);
	drig_add(s, "a failed seal loses nothing", a_failed_seal_loses_nothing);
	drig_add(s, "a flipped bit is a miss, the second makes it bad",
		 a_flipped_bit_is_a_miss_the_second_makes_it_bad);
	drig_add(s, "a mismatch on the way up is told", a_mismatch_on_the_way_up_is_told);
	drig_add(s, "scrub finds what nobody reads", scrub_finds_what_nobody_reads);
	drig_add(s, "caps on what is written", caps_on_what_is_written);
	drig_add(s, "faults of allocation", test_faults_of_allocation);
	return suite_run(s);
}
