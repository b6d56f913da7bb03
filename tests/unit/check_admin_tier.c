/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_tier.c - an operator among the tiers, and advice for blocks below
 * HBM, in the whole daemon turned by hand.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/core_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"
#include "kvmd/svc/admin.h"

#define BLOCK	4096u
#define SLOTS	20u

static struct core c;
static struct core_client cl;
static char dir[64], path[96], disk_opt[128];

/* ------------------------------------------------------------------ the rig */

static void start(const char *disk)
{
	const char *const opts[] = {
		"pool.blocks=4096", "pool.policy=lru", "pool.wmark_low=0", "pool.wmark_high=0",
		"pool.clean_ahead=0", "ram.bytes=16M", "ram.lock=no", "ram.hugetlb=no",
		"ram.chunk=2M", "disk.bytes=16M", "disk.segment=1M",
		"disk.block_bytes_hint=4096", "disk.admission=1", disk, NULL,
	};
	struct kvmd_space m;

	core_init(&c, opts);
	core_geometry(&m, "s", BLOCK, SLOTS + 1);
	core_client(&c, &cl, "default", &m, 64, 4096);
	core_settle(&c);
}

static void setup_ram(void)
{
	start(NULL);
}

static void setup_disk(void)
{
	struct disk_info i;
	int fd;

	snprintf(dir, sizeof(dir), "/tmp/kvmd-admin.XXXXXX");
	ck_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/kv.img", dir);
	fd = open(path, O_CREAT | O_RDWR | O_DIRECT, 0600);
	if (fd < 0 && errno == EINVAL) {
		puts("SKIP: /tmp takes no O_DIRECT: no disk tier");
		exit(0);
	}
	close(fd);
	unlink(path);
	snprintf(disk_opt, sizeof(disk_opt), "disk.path=%s", path);
	start(disk_opt);
	do {				/* even a new file is looked at first */
		core_turn(&c);
		disk_get_info(c.d->tiers->disk, &i);
	} while (i.recovering);
}

static void teardown(void)
{
	fault_disarm();
	core_walk(&c);
	core_exit(&c);
	if (dir[0]) {
		unlink(path);
		rmdir(dir);
	}
	dir[0] = '\0';
}

static int dial(const char *line)
{
	const char *name = c.d->conf.daemon.admin_socket;
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(un.sun_path, name, strlen(name));
	un.sun_path[0] = '\0';
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, len), 0);
	ck_assert_int_eq(send(fd, line, strlen(line), 0), (ssize_t)strlen(line));
	return fd;
}

/* The daemon's answer on @fd; *ret_waited: it waited for something. */
static char *hear(int fd, bool *ret_waited)
{
	size_t len = 0, cap = 1 << 16;
	char *buf = calloc(1, cap);

	for (;;) {
		ssize_t n;

		core_turn(&c);
		for (int i = 0; ret_waited && i < ADMIN_MAX_CONNS; i++)
			*ret_waited |= c.d->admin->conn[i].state == ADMIN_WAIT;
		n = recv(fd, buf + len, cap - len - 1, 0);
		if (!n)
			break;
		quiet_assert(n > 0 || errno == EAGAIN);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	return buf;
}

static void expect(const char *line, const char *part)
{
	char *answer = hear(dial(line), NULL);

	ck_assert_msg(strstr(answer, part) != NULL, "%s%.900s", line, answer);
	free(answer);
}

/* Nobody's blocks of @nr chains of 10, the first of them long out of HBM. */
static void fill(uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		struct kvmd_sqe e = core_op(KVMD_OP_SEQ_CLOSE, 0);

		core_fill(&cl, 0, i + 1, 10);
		ck_assert_int_eq(core_do(&cl, &e).res, 0);
		core_settle(&c);
	}
}

static struct block *block_of(uint32_t chain, uint32_t i)
{
	const struct space *sp = cl.s->sp;
	uint8_t key[KVMD_KEY_BYTES];

	core_keys(chain, i, 1, key);
	return index_find(c.d->ix, sp->sid, 0, key, index_hash(c.d->ix, sp->sid, 0, key));
}

static int advise(uint32_t arg, uint32_t chain, uint32_t nr)
{
	struct kvmd_sqe e = core_op(KVMD_OP_ADVISE, 0);
	uint8_t keys[KVMD_KEY_BYTES * 16];

	core_keys(chain, 0, nr, keys);
	e.seq_gen = 0;
	e.arg = arg;
	e.nr = nr;
	e.off = core_args(&cl, keys, nr * KVMD_KEY_BYTES);
	return core_do(&cl, &e).res;
}

static uint32_t nr_at(uint32_t chain, enum blk_level l)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < 10; i++) {
		const struct block *b = block_of(chain, i);

		nr += b && block_level(b) == l;
	}
	return nr;
}

/* ------------------------------------------------------------------- advice */

START_TEST(willneed_brings_a_chain_up_from_its_root)
{
	uint64_t asked = stat_get(BLOCKS_PREFETCHED);

	fill(6);
	ck_assert_uint_eq(nr_at(1, LEVEL_RAM), 10);
	/* HBM is full of idle blocks: the hint keeps them in RAM, the youngest there. */
	ck_assert_int_eq(advise(KVMD_ADV_WILLNEED, 1, 10), 10);
	core_settle(&c);
	ck_assert_uint_eq(stat_get(BLOCKS_PREFETCHED) - asked, 10);
	ck_assert_uint_eq(c.d->ix->low[LEVEL_RAM].tail, pool_id(c.d->pool, block_of(1, 9)));
	/* With slots free it is brought to HBM. */
	ck_assert_int_eq(advise(KVMD_ADV_DROP, 6, 10), 10);
	ck_assert_int_eq(advise(KVMD_ADV_WILLNEED, 1, 10), 10);
	core_settle(&c);
	ck_assert_uint_eq(nr_at(1, LEVEL_HBM), 10);
	/* Of keys that are not there, and blocks in HBM, nothing is wanted. */
	asked = stat_get(BLOCKS_PREFETCHED);
	ck_assert_int_eq(advise(KVMD_ADV_WILLNEED, 77, 10), 0);
	ck_assert_int_eq(advise(KVMD_ADV_WILLNEED, 1, 10), 10);
	ck_assert_uint_eq(stat_get(BLOCKS_PREFETCHED), asked);
}
END_TEST

START_TEST(the_end_of_a_chain_alone_does_not_come)
{
	struct kvmd_sqe e = core_op(KVMD_OP_ADVISE, 0);
	uint8_t key[KVMD_KEY_BYTES];

	fill(6);
	ck_assert_int_eq(advise(KVMD_ADV_DROP, 6, 10), 10);
	core_keys(1, 9, 1, key);
	e.seq_gen = 0;
	e.arg = KVMD_ADV_WILLNEED;
	e.nr = 1;
	e.off = core_args(&cl, key, sizeof(key));
	ck_assert_int_eq(core_do(&cl, &e).res, 1);
	core_settle(&c);
	ck_assert_uint_eq(nr_at(1, LEVEL_RAM), 10);	/* its parent is not in HBM */
	core_walk(&c);
}
END_TEST

START_TEST(cold_goes_first_from_every_tier)
{
	uint32_t used;

	fill(6);
	used = block_of(3, 0)->last_use;
	c.ticks += 100;
	ck_assert_int_eq(advise(KVMD_ADV_COLD, 3, 10), 10);
	/* The root was advised last: it is the head, but its children are in front of it. */
	ck_assert_uint_eq(c.d->ix->low[LEVEL_RAM].head, pool_id(c.d->pool, block_of(3, 0)));
	ck_assert_uint_eq(block_of(3, 0)->last_use, used);
}
END_TEST

START_TEST(drop_reaches_below)
{
	uint64_t ram = c.d->tiers->ram->used_bytes;

	fill(6);
	ck_assert_uint_eq(nr_at(2, LEVEL_RAM), 10);
	ck_assert_uint_gt(c.d->tiers->ram->used_bytes, ram);
	ck_assert_int_eq(advise(KVMD_ADV_DROP, 2, 10), 10);
	ck_assert_uint_eq(nr_at(2, LEVEL_RAM), 0);
	expect("space drop space=s\n", "\"dropped_blocks\":50");
	core_settle(&c);
	ck_assert_uint_eq(c.d->tiers->ram->used_bytes, ram);
	expect("check run\n", "\"ok\":true");
}
END_TEST

START_TEST(a_pin_brings_its_blocks_up)
{
	fill(6);
	ck_assert_int_eq(advise(KVMD_ADV_DROP, 6, 10), 10);
	ck_assert_int_eq(advise(KVMD_ADV_WILLNEED, 1, 1), 1);
	core_settle(&c);
	ck_assert_int_eq(advise(KVMD_ADV_PIN, 1, 3), 3);
	core_settle(&c);
	ck_assert_uint_eq(block_of(1, 0)->leases, 1);
	ck_assert_uint_ge(nr_at(1, LEVEL_HBM), 1);
	ck_assert_int_eq(advise(KVMD_ADV_UNPIN, 1, 3), 3);
	core_settle(&c);
	ck_assert_uint_eq(block_of(1, 2)->leases, 0);
}
END_TEST

/* ------------------------------------------------------------------ operator */

START_TEST(prefetch_counts_what_it_finds)
{
	char line[4096] = "prefetch run space=s keys=";
	uint8_t key[KVMD_KEY_BYTES];

	fill(6);
	for (uint32_t i = 0; i < 4; i++) {
		core_keys(i < 2 ? 1 : i == 2 ? 6 : 99, i % 2, 1, key);
		for (size_t k = 0; k < sizeof(key); k++)
			sprintf(line + strlen(line), "%02x", key[k]);
		strcat(line, i < 3 ? "," : "\n");
	}
	expect(line, "\"keys\":4,\"hbm_keys\":1,\"prefetched_keys\":2,\"missing_keys\":1,"
	       "\"refused_keys\":0}");
	core_settle(&c);
}
END_TEST

START_TEST(tiers_say_what_they_hold)
{
	fill(6);
	expect("tier show tier=ram\n", "\"tier\":\"ram\",\"state\":\"ok\",\"bytes\":16777216,");
	expect("tier show tier=ram\n", "\"small_page_bytes\":16777216,\"locked_bytes\":0,");
	expect("tier show tier=disk\n", "no disk tier");
	expect("tier list\n", "\"tier\":\"hbm\",\"state\":\"ok\",\"bytes\":81920,");
	expect("tier list\n", "\"blocks_cleaned\":");
	expect("block list tier=ram limit=1\n", "\"tier\":\"ram\",\"slot\":0,\"ram_place\":");
	expect("tenant list\n", "\"disk_bytes\":0,\"disk_max_bytes\":0");
	expect("conf show\n",
	       "\"section\":\"ram\",\"name\":null,\"key\":\"bytes\",\"value\":\"16M\"");
	expect("status show\n", "\"tier\":\"ram\"");
}
END_TEST

START_TEST(ram_is_drained_and_used_again)
{
	fill(6);
	expect("tier drain tier=ram\n", "\"draining\":true");
	core_settle(&c);
	expect("tier list\n", "\"tier\":\"ram\",\"state\":\"drained\"");
	ck_assert_uint_eq(c.d->tiers->ram->used_bytes, 0);
	core_walk(&c);
	fill(3);			/* it does without */
	ck_assert_uint_eq(c.d->tiers->ram->used_bytes, 0);
	expect("tier undrain tier=ram\n", "\"draining\":false");
	fill(6);
	ck_assert_uint_gt(c.d->tiers->ram->used_bytes, 0);
	expect("tier add tier=ram bytes=25165824\n", "\"bytes\":25165824");
	core_settle(&c);
	expect("tier add tier=ram bytes=99999999999999\n", "\"errno\":22");
}
END_TEST

/* All that is in RAM goes to disk, as the disk has time for it. */
static void sink_all(void)
{
	expect("tier drain tier=ram\n", "\"draining\":true");
	while (c.d->tiers->ram->used_bytes)
		core_turn(&c);
	core_settle(&c);
	expect("tier undrain tier=ram\n", "\"draining\":false");
}

START_TEST(disk_is_drained_and_used_again)
{
	fill(6);
	sink_all();
	ck_assert_uint_gt(cl.s->tenant->disk_bytes, 0);
	expect("tier drain tier=disk\n", "\"file\":null,\"draining\":true");
	core_settle(&c);
	expect("tier list\n", "\"tier\":\"disk\",\"state\":\"drained\"");
	ck_assert_uint_eq(cl.s->tenant->disk_bytes, 0);
	core_walk(&c);
	expect("tier undrain tier=disk\n", "\"draining\":false");
	expect("tier list\n", "\"tier\":\"disk\",\"state\":\"ok\"");
}
END_TEST

START_TEST(a_file_is_drained_or_kept_after_all)
{
	char line[256], two[96];
	struct disk_info i;

	snprintf(two, sizeof(two), "%s/two.img", dir);
	fill(6);
	sink_all();
	snprintf(line, sizeof(line), "tier drain path=%s\n", path);
	expect(line, "there is no other file");
	snprintf(line, sizeof(line), "tier add tier=disk path=%s bytes=8388608\n", two);
	expect(line, "\"tier\":\"disk\"");
	expect(line, "\"errno\":");			/* twice */
	expect("tier show tier=disk\n", "\"files\":2");
	snprintf(line, sizeof(line), "tier drain path=%s\n", path);
	expect(line, "\"draining\":true");
	snprintf(line, sizeof(line), "tier undrain path=%s\n", path);
	expect(line, "\"draining\":false");
	expect(line, "\"draining\":false");		/* it is not: fine */
	core_settle(&c);
	expect("tier show tier=disk\n", "\"files\":2");
	expect("check run\n", "\"ok\":true");
	fill(6);
	snprintf(line, sizeof(line), "tier drain path=%s\n", path);
	expect(line, "\"draining\":true");
	/* The disk's own copies are nobody's request: they end when they end. */
	for (disk_get_info(c.d->tiers->disk, &i); i.nr_files > 1;
	     disk_get_info(c.d->tiers->disk, &i))
		core_turn(&c);
	core_settle(&c);
	expect("tier show tier=disk\n", "\"files\":1");
	expect("check run\n", "\"ok\":true");
	snprintf(line, sizeof(line), "tier undrain path=%s\n", path);
	expect(line, "not a file of the disk tier");
	ck_assert_int_eq(unlink(two), 0);
}
END_TEST

START_TEST(what_is_held_stays_until_then)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_CLOSE, 1);
	uint8_t keys[KVMD_KEY_BYTES * 10];
	struct kvmd_sqe open;

	fill(6);
	core_keys(1, 0, 10, keys);
	open = core_open(&cl, 1, keys, 10);
	open.flags |= KVMD_OPEN_LOAD | KVMD_OPEN_WAIT;
	ck_assert_int_eq(core_do(&cl, &open).res, 10);
	expect("tier drain tier=ram\n", "\"draining\":true");
	core_settle(&c);
	/* Loaded and leased: it only lost its copy. */
	ck_assert_uint_eq(nr_at(1, LEVEL_HBM), 10);
	ck_assert_uint_eq(c.d->tiers->ram->used_bytes, 0);
	ck_assert_int_eq(core_do(&cl, &e).res, 0);
}
END_TEST

START_TEST(a_raised_epoch_is_answered_when_it_is_on_disk)
{
	bool waited = false;
	char *answer;

	fill(2);
	answer = hear(dial("space raise space=s epoch=5\n"), &waited);
	ck_assert_msg(strstr(answer, "\"former_epoch\":0,\"epoch\":5,"), "%s", answer);
	ck_assert(waited);
	ck_assert_uint_eq(disk_space_epoch(c.d->tiers->disk, "default", "s"), 5);
	free(answer);
	/* Refused at once. */
	waited = false;
	answer = hear(dial("space raise space=s epoch=5\n"), &waited);
	ck_assert_msg(strstr(answer, "a new one must be higher"), "%s", answer);
	ck_assert(!waited);
	free(answer);
}
END_TEST

START_TEST(who_asked_for_an_epoch_may_be_gone)
{
	int fd;

	fill(1);
	fd = dial("space raise space=s\n");
	while (!cl.s->sp->epoch)
		uring_poll(c.d->u);
	close(fd);
	core_settle(&c);
	ck_assert_uint_eq(cl.s->sp->epoch, 1);
	expect("space raise space=s\n", "\"epoch\":2");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_tier");
	TCase *ram = tcase_create("ram"), *disk = tcase_create("disk");

	tcase_set_timeout(ram, 60);
	tcase_set_timeout(disk, 60);
	tcase_add_checked_fixture(ram, setup_ram, teardown);
	tcase_add_test(ram, willneed_brings_a_chain_up_from_its_root);
	tcase_add_test(ram, the_end_of_a_chain_alone_does_not_come);
	tcase_add_test(ram, cold_goes_first_from_every_tier);
	tcase_add_test(ram, drop_reaches_below);
	tcase_add_test(ram, a_pin_brings_its_blocks_up);
	tcase_add_test(ram, prefetch_counts_what_it_finds);
	tcase_add_test(ram, tiers_say_what_they_hold);
	tcase_add_test(ram, ram_is_drained_and_used_again);
	tcase_add_test(ram, what_is_held_stays_until_then);
	suite_add_tcase(s, ram);
	tcase_add_checked_fixture(disk, setup_disk, teardown);
	tcase_add_test(disk, disk_is_drained_and_used_again);
	tcase_add_test(disk, a_file_is_drained_or_kept_after_all);
	tcase_add_test(disk, a_raised_epoch_is_answered_when_it_is_on_disk);
	tcase_add_test(disk, who_asked_for_an_epoch_may_be_gone);
	suite_add_tcase(s, disk);
	return suite_run(s);
}
