// SPDX-License-Identifier: Apache-2.0
/*
 * tier_start.c - starting: RAM made ready beside a bare touch of as many pages,
 * and a client that maps a pool that is there.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "tools/kvbench/tier.h"

#define HUGE_PAGE	(2ull << 20)

/* ------------------------------------------------------------------ RAM tier */

/* ms per GiB to make @bytes of a memfd with such pages, and touch each. */
static double bare_touch(uint64_t bytes, bool hugetlb, bool thp)
{
	uint64_t start = time_ns(), ns, step = hugetlb ? HUGE_PAGE : 4096;
	/* 21: the logarithm of 2 MiB (memfd_create(2)) */
	int fd = memfd_create("kvbench", hugetlb ? MFD_HUGETLB | 21u << 26 : 0);
	uint8_t *p;

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		kvb_die("memfd of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
	p = (uint8_t *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		kvb_die("memfd of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
	if (thp)
		madvise(p, bytes, MADV_HUGEPAGE);
	for (uint64_t i = 0; i < bytes; i += step)
		((volatile uint8_t *)p)[i] = 1;
	ns = time_ns() - start;
	munmap(p, bytes);
	close(fd);
	return (double)ns / 1e6 / ((double)bytes / (double)(1ull << 30));
}

static void ram_start(void)
{
	const struct rig_opts o = {
		.block = tier_size[1], .nr_blocks = 64, .ram_bytes = tier_amounts.mem_bytes,
	};
	struct ram_info i;
	struct rig r;
	double ours;

	rig_init(&r, &o);
	ram_get_info(r.ram, &i);
	rig_exit(&r);
	if (!i.start_ns || !i.bytes)
		kvb_die("the RAM tier does not say how long it took");
	ours = (double)i.start_ns / 1e6 / ((double)i.bytes / (double)(1ull << 30));
	row_add(ROW_POOL_TOUCH,
		bare_touch(i.bytes, i.hugetlb_bytes * 2 > i.bytes, i.thp_bytes * 2 > i.bytes), ours);
}

/* ------------------------------------------------------------------- clients */

static struct kvmd_proc attach;
static bool no_huge_pages;

/* All of the pool is there, touched by whoever was first. */
static uint32_t touch_all(struct kvc *k, uint32_t slots)
{
	const struct kvc_view *v = kvc_view(k);
	const volatile int32_t *row = kvc_row(v, 0, 0);
	uint32_t nr = slots - slots / 8;

	kvc_prep_open(kvc_get_sqe(k), 0, 1, 0, 0, 0, 0);
	client_wait(k, NULL);
	kvc_prep_extend(kvc_get_sqe(k), 0, 1, 0, nr, time_ns() + 30000000000ull);
	if (client_wait(k, NULL) < 0)
		return 0;
	for (uint32_t i = 0; i < nr; i++)
		memset(kvc_addr(v, 0, 0, 0, (uint32_t)row[i]), 1, HUGE_PAGE);
	kvc_prep_close(kvc_get_sqe(k), 0, 1, 0, 0);
	client_wait(k, NULL);
	return nr;
}

/* Is the mapping that @p lies in made of 2 MiB pages, @bytes of it at least? */
static bool is_huge(const void *p, uint64_t bytes)
{
	unsigned long long lo, hi, kb, huge_kb = 0, at = (uintptr_t)p;
	FILE *f = fopen("/proc/self/smaps", "r");
	bool here = false;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx ", &lo, &hi) == 2)
			here = lo < at + bytes && at < hi;
		else if (here && (sscanf(line, "ShmemPmdMapped: %llu", &kb) == 1 ||
				  sscanf(line, "Shared_Hugetlb: %llu", &kb) == 1 ||
				  sscanf(line, "Private_Hugetlb: %llu", &kb) == 1))
			huge_kb += kb;
	}
	if (f)
		fclose(f);
	return huge_kb * 1024 * 10 >= bytes * 9;
}

static void attach_start(void)
{
	struct kvmd_opts o = {
		.name = "attach", .plane_bytes = HUGE_PAGE, .anywhere = true,
		.blocks = tier_amounts.mem_bytes / HUGE_PAGE,
	};
	char conf[512];
	struct kvc *k;
	uint32_t nr;

	snprintf(conf, sizeof(conf), "[pool]\nblocks = %llu\nslab_bytes = %llu\n[device host]\n"
		 "kind = host\nbytes = %llu\nhugetlb = yes\n", (unsigned long long)o.blocks * 2,
		 (unsigned long long)tier_amounts.mem_bytes / 2,
		 (unsigned long long)tier_amounts.mem_bytes + (64ull << 20));
	o.conf = conf;
	kvmd_start(&attach, &o);
	k = client_open(&attach, o.blocks, 1);
	nr = touch_all(k, (uint32_t)o.blocks);
	if (!nr || !is_huge(kvc_view(k)->group[0].plane[0].rw, (uint64_t)nr * HUGE_PAGE)) {
		no_huge_pages = true;
		rows_skip(ROW_ATTACH, "no 2 MiB pages here (vm.nr_hugepages, or shmem_enabled)");
		kvmd_end(&attach);
	}
	kvc_destroy(k);
}

static void client_attach(void)
{
	const uint32_t blocks = (uint32_t)(tier_amounts.mem_bytes / HUGE_PAGE);
	volatile uint8_t sink = 0;
	uint64_t start;
	struct kvc *k;
	double ns;

	if (!attach.pid && !no_huge_pages)
		attach_start();
	if (no_huge_pages)
		return;
	start = time_ns();
	k = client_open(&attach, blocks, 1);
	/* As an engine would, that looks at each page once. */
	for (uint32_t i = 1; i < blocks - blocks / 8; i++)
		sink = sink + *(const volatile uint8_t *)kvc_addr(kvc_view(k), 0, 0, 0, i);
	ns = (double)(time_ns() - start);
	kvc_destroy(k);
	row_add(ROW_ATTACH, 0, ns / 1e6 /
		((double)(blocks - blocks / 8) * HUGE_PAGE / (double)(1ull << 30)));
}

void tier_start_round(void)
{
	cpu_any();
	ram_start();
	cpu_client();
	client_attach();
}
