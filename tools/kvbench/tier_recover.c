// SPDX-License-Identifier: Apache-2.0
/*
 * tier_recover.c - a daemon that starts with a million blocks on its disk.
 *
 * The file is made here: sealed segments full of headers of 4 KiB blocks, chains
 * of 100, in the order in which a daemon would have written them. Payloads are a
 * hole, for recovery reads summaries only. The daemon's client opens the space at
 * once, as engines do that reconnect. What the daemon's CPU time is without a
 * disk is taken off.
 */
#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/kvbench/tier.h"

#define BLOCK	4096ull
#define CHAIN	100u
#define SEGMENT	(64ull << 20)
#define SLOTS	4096u

static struct disk_super super;

/* ---------------------------------------------------------------- the file */

static void put(int fd, const void *p, size_t bytes, uint64_t off)
{
	if (pwrite(fd, p, bytes, (off_t)off) != (ssize_t)bytes)
		kvb_die("%s: %s", tier_path("recover.img"), strerror(errno));
}

static void fill_space(struct disk_space *e)
{
	static const char domain[] = "kvmd space salt";
	unsigned char full[SHA256_DIGEST_LENGTH], text[sizeof(domain) + sizeof(full)];

	/* The digest of no salt, as libkvclient makes it. */
	SHA256((const unsigned char *)"", 0, full);
	memcpy(text, domain, sizeof(domain));
	memcpy(text + sizeof(domain), full, sizeof(full));
	SHA256(text, sizeof(text), full);
	*e = (struct disk_space) {
		.seq = 1, .name = "bench", .tenant = "default", .epoch = 1, .nr_groups = 1,
		.nr_shards = 1, .inc = 1, .used_s = 1,
	};
	memcpy(e->salt_digest, full, sizeof(e->salt_digest));
	e->group[0] = (struct kvmd_group) {
		.plane_bytes = BLOCK, .planes = 1, .block_tokens = BENCH_TOKENS,
		.rule = KVMD_RULE_FULL,
	};
	disk_space_finish(e);
}

static void fill_segment(uint8_t *summary, uint32_t seg, uint32_t first, uint32_t nr)
{
	struct disk_head *head = (struct disk_head *)(void *)summary;
	struct disk_header *h = (struct disk_header *)(void *)(summary + DISK_ALIGN);

	memset(summary, 0, super.summary_bytes);
	*head = (struct disk_head) {
		.seg = seg, .state = DISK_SEG_SEALED, .generation = super.gen0 + 1 + seg,
		.nr = nr, .seq = seg + 1,
	};
	memcpy(head->set_uuid, super.set_uuid, sizeof(head->set_uuid));
	disk_head_finish(head);
	for (uint32_t i = 0; i < nr; i++, h++) {
		uint32_t n = first + i;

		*h = (struct disk_header) {
			.generation = head->generation, .pos = n % CHAIN, .epoch = 1,
			.bytes = BLOCK, .space_inc = 1, .off = i, .seg = seg, .sum = n,
			.block_gen = 1,
		};
		bench_key(n, h->key);
		if (n % CHAIN)
			bench_key(n - 1, h->parent);
		disk_header_finish(h);
	}
}

static void make_file(void)
{
	const uint32_t nr = tier_amounts.recover_blocks;
	const uint32_t nr_segs = (uint32_t)div_round_up(nr, SEGMENT / BLOCK) + 4;
	const uint64_t bytes = (64ull << 20) + nr_segs * (SEGMENT + (4ull << 20));
	int fd = open(tier_path("recover.img"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct disk_space space;
	uint8_t *summary;
	char msg[256] = "";

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		kvb_die("%s: %s", tier_path("recover.img"), strerror(errno));
	if (disk_super_make(&super, bytes, SEGMENT, BLOCK, msg, sizeof(msg)))
		kvb_die("recovery's file: %s", msg);
	super.seq = 1;
	super.gen0 = 1;
	memset(super.set_uuid, 0x5a, sizeof(super.set_uuid));
	disk_super_finish(&super);
	put(fd, &super, sizeof(super), 0);
	put(fd, &super, sizeof(super), DISK_ALIGN);
	fill_space(&space);
	put(fd, &space, sizeof(space), disk_space_at(0, 0));
	summary = (uint8_t *)malloc(super.summary_bytes);
	if (!summary)
		kvb_die("no memory");
	for (uint32_t s = 0, first = 0; s < super.nr_segments && first < nr; s++) {
		uint32_t n = min(super.nr_headers, nr - first);

		fill_segment(summary, s, first, n);
		put(fd, summary, super.summary_bytes, disk_summary_at(&super, s));
		first += n;
	}
	free(summary);
	fsync(fd);
	close(fd);
}

/* One sequential read of all summaries, past the page cache; seconds. */
static double read_summaries(void)
{
	const size_t step = 2 << 20;
	const uint64_t end = disk_summary_at(&super, super.nr_segments);
	int fd = open(tier_path("recover.img"), O_RDONLY | O_DIRECT | O_CLOEXEC);
	void *p = mmap(NULL, step, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t start = time_ns();

	if (fd < 0 || p == MAP_FAILED)
		kvb_die("%s: %s", tier_path("recover.img"), strerror(errno));
	for (uint64_t off = super.summary_off; off < end; off += step)
		if (pread(fd, p, step, (off_t)off) <= 0)
			kvb_die("%s: %s", tier_path("recover.img"), strerror(errno));
	munmap(p, step);
	close(fd);
	return (double)(time_ns() - start) / 1e9;
}

/* -------------------------------------------------------------- the daemon */

struct start {
	double open_ns;			/* from exec to a published block */
	double cpu_s;			/* when all was over */
	double wall_s;			/* from exec */
	double adopted_at_open;
};

static void wait_quiet(const struct kvmd_proc *p)
{
	uint64_t cpu = cpu_of_process(p->pid), now;

	for (int i = 0; i < 200; i++) {
		usleep(50000);
		now = cpu_of_process(p->pid);
		if (now - cpu < 500000)
			return;
		cpu = now;
	}
}

static void start(bool disk, struct start *ret)
{
	struct kvmd_opts o = {
		.name = disk ? "recover" : "nodisk", .plane_bytes = BLOCK, .anywhere = true,
		.blocks = SLOTS,
	};
	const uint64_t nr = tier_amounts.recover_blocks;
	struct kvmd_proc p;
	char conf[6000], line[4300] = "";
	uint64_t begin, off;
	uint8_t *args;
	struct kvc *k;
	double v = 0;

	if (disk)
		snprintf(line, sizeof(line), "[disk]\npath = %s\nadmission = 1\nscrub_rate = 0\n",
			 tier_path("recover.img"));
	snprintf(conf, sizeof(conf), "[pool]\nblocks = %llu\n[device host]\nkind = host\n"
		 "bytes = 64M\n[ram]\nbytes = 64M\n%s", (unsigned long long)nr + 4 * SLOTS, line);
	o.conf = conf;
	begin = time_ns();
	kvmd_start(&p, &o);
	k = client_open(&p, SLOTS, 1);
	args = (uint8_t *)kvc_args_alloc(k, KVMD_KEY_BYTES, &off);
	if (!args)
		kvb_die("no room for a key");
	bench_key(1ull << 40, args);
	kvc_prep_open(kvc_get_sqe(k), 0, 1, off, 0, 0, 0);
	client_wait(k, NULL);
	kvc_prep_extend(kvc_get_sqe(k), 0, 1, 0, 1, time_ns() + 10000000000ull);
	client_wait(k, NULL);
	kvc_prep_publish(kvc_get_sqe(k), 0, 1, 0, 0, off, 1, 0);
	if (client_wait(k, NULL) < 0)
		kvb_die("%s: a block could not be published", p.name);
	ret->open_ns = (double)(time_ns() - begin);
	kvmd_status(&p, "blocks_adopted", &ret->adopted_at_open);
	while (disk && v < (double)nr && !interrupted) {
		if (kvmd_status(&p, "blocks_adopted", &v))
			kvb_die("the daemon's status has no blocks_adopted");
		if (time_ns() - begin > 60000000000ull)
			kvb_die("%s: %.0f of %llu blocks are back after a minute", p.name, v,
				(unsigned long long)nr);
		usleep(10000);
	}
	ret->wall_s = (double)(time_ns() - begin) / 1e9;
	wait_quiet(&p);
	ret->cpu_s = (double)cpu_of_process(p.pid) / 1e9;
	kvc_destroy(k);
	kvmd_end(&p);
}

void tier_recover_round(void)
{
	const double per_1m = 1e6 / tier_amounts.recover_blocks;
	struct start with = { 0 }, without = { 0 };
	double floor;

	/* A daemon that ran has changed it. */
	make_file();
	floor = read_summaries();
	start(false, &without);
	start(true, &with);
	row_add(ROW_RECOVER, 0, (with.cpu_s - without.cpu_s) * per_1m);
	row_add(ROW_RECOVER_WALL, floor, with.wall_s);
	row_add(ROW_RECOVER_OPEN, without.open_ns / 1e6, with.open_ns / 1e6);
	if (with.adopted_at_open >= tier_amounts.recover_blocks)
		kvb_note("recovery was over before the first block was served");
}
