/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_damage.c - a daemon on a file that is not what was written.
 *
 * Two actors (actor.h) fill a file, the daemon stops in order; then copies of the
 * file are damaged in one region after the other, and a daemon is started on each:
 * no wrong byte, nothing lost track of, and either it serves or its message names
 * the file and what to do. KVMD_TEST_SEED repeats a run.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/crash/actor.h"
#include "tools/kvctl/fsck.h"

#define TURNS	300u

static struct hd d;
static struct actor_shared *shared;
static uint64_t rnd, nr_before;
static char file[160], kept[160];
static struct fsck_file was;		/* the file as it was written */
static struct place {
	uint64_t header, payload;
	uint32_t bytes;
} live[4096];				/* its blocks, some */
static unsigned nr_live;

static uint64_t below(uint64_t n)
{
	return test_random(&rnd) % n;
}

/* ------------------------------------------------------------------- actors */

static void work(struct peer *me, struct hd *hd, void *arg)
{
	uint32_t space = *(uint32_t *)arg;
	struct actor a;

	T(actor_init(&a, hd, shared, space, test_random(&rnd) + space));
	for (unsigned i = 0; i < TURNS; i++)
		T(actor_turn(&a));
	actor_exit(&a);
	say(me, 0);
}

static void verify(struct peer *me, struct hd *hd, void *arg)
{
	uint32_t space = *(uint32_t *)arg;
	struct actor a;

	/* The file may have forgotten that the epoch was ever raised: all its blocks too. */
	shared->epoch = 0;
	T(actor_init(&a, hd, shared, space, 1));
	say(me, 0);
	T_EQ(hear(me), 0);
	shared->nr_hit = 0;
	T(actor_verify(&a));
	say(me, shared->nr_hit);
	whole_pool(a.k, ACTOR_SLOTS);
	actor_exit(&a);
}

/* A space of the same name with larger blocks finds nothing. */
static void other_geometry(struct peer *me, struct hd *hd, void *arg)
{
	unsigned char keys[ACTOR_CHAIN][KEY];
	struct kvc_space s;
	struct kvc *k;

	(void)arg;
	actor_space(&s, 0);
	s.group[0].plane_bytes *= 2;
	k = client(hd, &s);
	say(me, 0);
	T_EQ(hear(me), 0);
	for (uint32_t i = 0; i < ACTOR_STREAMS; i++) {
		make_keys(keys, i, 0, ACTOR_CHAIN);
		T_EQ(kvc_seq_open(k, 0, 1, keys, ACTOR_CHAIN, ACTOR_CHAIN * BT, 0,
				  KVMD_OPEN_LOAD | KVMD_OPEN_WAIT, NULL), 0);
		T_EQ(kvc_seq_close(k, 0, 1, 0, 0), 0);
	}
	kvc_destroy(k);
	say(me, 0);
}

static void recovered(void)
{
	const char *said;

	do {
		said = hd_ask(&d, "tier show tier=disk");
		T(strstr(said, "\"recovering\":"));
	} while (strstr(said, "\"recovering\":true"));
}

static uint64_t look(peer_fn *fn, uint32_t space)
{
	struct peer p;
	uint64_t nr;

	peer_start(&p, &d, fn, &space, sizeof(space));
	T_EQ(hear(&p), 0);
	recovered();
	say(&p, 0);
	nr = hear(&p);
	peer_end(&p);
	hd_check(&d);
	return nr;
}

/* --------------------------------------------------------------------- files */

static void on_fault(void *ctx, uint64_t off, const char *text)
{
	(void)ctx;
	fprintf(stderr, "fsck: offset %llu: %s\n", (unsigned long long)off, text);
}

static void on_block(void *ctx, const struct fsck_space *sp, const struct disk_header *h)
{
	(void)ctx;
	(void)sp;
	if (nr_live == sizeof(live) / sizeof(live[0]))
		return;
	live[nr_live++] = (struct place) {
		.payload = disk_data_at(&was.super, h->seg) + (uint64_t)h->off * DISK_ALIGN,
		.header = h->seg, .bytes = h->bytes,
	};
}

static void copy_file(const char *from, const char *to)
{
	static char buf[1 << 20];
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	ssize_t n;

	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	T(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		T_EQ(write(out, buf, (size_t)n), n);
	T_EQ(n, 0);
	close(in);
	T(!close(out));
}

static void flip(uint64_t off)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	unsigned char c = 0;

	T(fd >= 0 && pread(fd, &c, 1, (off_t)off) == 1);
	c ^= (unsigned char)(1u << below(8));
	T(pwrite(fd, &c, 1, (off_t)off) == 1);
	T(!close(fd));
}

#define CONF	"[pool]\nslab_bytes = 1M\nblocks = 8192\ndeadlock_time = %s\n" \
		"[device host-0]\nbytes = 8M\n[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n" \
		"[disk]\npath = %s\nbytes = 64M\nsegment = 1M\nadmission = 1\n"

static void setup(void)
{
	struct fsck_ops ops = { .data = true, .fault = on_fault, .block = on_block };
	struct peer p[ACTOR_SPACES];
	char text[512];

	rnd = test_seed();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	T(shared != MAP_FAILED);
	hd_prepare(&d);
	snprintf(file, sizeof(file), "%s/disk", d.dir);
	snprintf(kept, sizeof(kept), "%s/kept", d.dir);
	snprintf(text, sizeof(text), CONF, "1ms", file);
	hd_conf(&d, text);
	hd_run(&d);
	for (uint32_t i = 0; i < ACTOR_SPACES; i++)
		peer_start(&p[i], &d, work, &i, sizeof(i));
	for (uint32_t i = 0; i < ACTOR_SPACES; i++) {
		T_EQ(hear(&p[i]), 0);
		peer_end(&p[i]);
	}
	hd_check(&d);
	T_EQ(hd_end(&d), 0);
	T_EQ(fsck_walk(file, &ops, &was), 0);
	T_EQ(was.nr_faults, 0);
	T(nr_live > 0);
	T(!rename(file, kept));
	/* Those who worked gave way at once; who looks at what is left waits for it. */
	snprintf(text, sizeof(text), CONF, "10s", file);
	hd_conf(&d, text);
}

static void teardown(void)
{
	unlink(file);
	unlink(kept);
	hd_remove(&d);
	munmap(shared, sizeof(*shared));
}

/* Start on the file as it is now, look at every chain; how many blocks hit. */
static uint64_t serves(void)
{
	uint64_t nr;

	hd_run(&d);
	nr = look(verify, 0) + look(verify, 1);
	T_EQ(hd_end(&d), 0);
	return nr;
}

/*
 * A hit is refused when RAM has nothing to let go of at that moment: a few of what is
 * there may not be served.
 */
static uint64_t less(uint64_t nr)
{
	return nr - nr / 10;
}

static uint64_t more(uint64_t nr)
{
	return nr + nr / 10 + 1;
}

/* It does not start, and says why. */
static void refused(const char *word)
{
	char *argv[] = { "kvmd", "-c", d.conf, NULL }, said[4096];

	T(kvmd_run(argv, said, sizeof(said)) != 0);
	if (!strstr(said, file) || !strstr(said, word))
		fprintf(stderr, "no '%s' in: %s\n", word, said);
	T(strstr(said, file) && strstr(said, word));
}

/* ---------------------------------------------------------------------- tests */

START_TEST(damaged_in_every_region)
{
	uint32_t space;

	copy_file(kept, file);
	nr_before = serves();
	T(nr_before > 0);
	/* One copy of what has two is enough. */
	for (unsigned copy = 0; copy < 2; copy++) {
		copy_file(kept, file);
		flip(copy * DISK_ALIGN + below(DISK_ALIGN));
		T(serves() >= less(nr_before));
		copy_file(kept, file);
		for (space = 0; space < DISK_MAX_SPACES; space++)
			if (was.space[space].there)
				flip(disk_space_at(space, copy) + below(DISK_ALIGN));
		T(serves() >= less(nr_before));
	}
	/* Both copies of an entry: what belongs to it is gone. */
	copy_file(kept, file);
	for (space = 0; space < DISK_MAX_SPACES; space++)
		for (unsigned copy = 0; was.space[space].there && copy < 2; copy++)
			flip(disk_space_at(space, copy) + below(DISK_ALIGN));
	T_EQ(serves(), 0);
	/* A head, headers, payloads: what was there is gone, the rest stays. */
	for (unsigned i = 0; i < 3; i++) {
		uint32_t seg = (uint32_t)live[below(nr_live)].header;

		copy_file(kept, file);
		flip(disk_summary_at(&was.super, seg) + below(DISK_ALIGN));
		T(serves() <= more(nr_before));
		copy_file(kept, file);
		for (unsigned k = 0; k < 20; k++)
			flip(disk_summary_at(&was.super, seg) + DISK_ALIGN + below(4096));
		T(serves() <= more(nr_before));
		copy_file(kept, file);
		for (unsigned k = 0; k < 20; k++) {
			const struct place *pl = &live[below(nr_live)];

			flip(pl->payload + below(pl->bytes));
		}
		T(serves() <= more(nr_before));
	}
	/* Anywhere. */
	copy_file(kept, file);
	for (unsigned k = 0; k < 500; k++)
		flip(2 * DISK_ALIGN + below(was.bytes - 2 * DISK_ALIGN));
	(void)serves();
}
END_TEST

START_TEST(cut_off_and_read_only)
{
	uint64_t all, nr;

	copy_file(kept, file);
	all = serves();
	copy_file(kept, file);
	T(!chmod(file, 0400));
	nr = serves();
	T(nr >= less(all) && nr <= more(all));
	T(!chmod(file, 0600));
	T(!truncate(file, (off_t)disk_data_at(&was.super, was.super.nr_segments / 2)));
	T(serves() <= more(all));
}
END_TEST

START_TEST(another_geometry)
{
	copy_file(kept, file);
	hd_run(&d);
	(void)look(other_geometry, 0);
	T_EQ(hd_end(&d), 0);
}
END_TEST

START_TEST(files_that_are_not_ours)
{
	struct disk_super s = was.super;
	FILE *f;
	int fd;

	copy_file(kept, file);
	flip(below(DISK_ALIGN));
	flip(DISK_ALIGN + below(DISK_ALIGN));
	refused("uperblock");
	s.version++;
	s.crc = disk_crc(&s, offsetof(struct disk_super, crc));
	fd = open(file, O_RDWR | O_CLOEXEC);
	T(fd >= 0);
	for (unsigned i = 0; i < 2; i++)
		T(pwrite(fd, &s, sizeof(s), (off_t)(i * DISK_ALIGN)) == sizeof(s));
	close(fd);
	refused("version 2");
	f = fopen(file, "w");
	T(f);
	for (unsigned i = 0; i < 4096; i++)
		T(fputs("somebody's letter\n", f) >= 0);
	T(!fclose(f));
	refused("not ours");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("damage");
	TCase *t = tcase_create("damage");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, damaged_in_every_region);
	tcase_add_test(t, cut_off_and_read_only);
	tcase_add_test(t, another_geometry);
	tcase_add_test(t, files_that_are_not_ours);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
