/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - the counter page and the table that names its words.
 */
#include "kvmd/lib/stats.h"

#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"

#define STATS_BYTES	4096

BUILD_BUG_ON(sizeof(struct kvmd_stats_page) + KVMD_NR_STAT * sizeof(uint64_t) > STATS_BYTES);

static const struct {
	const char *name, *unit, *help;
	char kind;
} rows[KVMD_NR_STAT] = {
#define ROW(id, n, u, k, h) [KVMD_STAT_##id] = { n, u, h, #k[0] },
	KVMD_STATS(ROW)
#undef ROW
};

static uint64_t private_val[KVMD_NR_STAT];
uint64_t *stats_val = private_val;
static int page_fd = -1;
static void *page;

int stats_init(void)
{
	struct kvmd_stats_page *p;
	int fd;

	fd = mem_fd_create("kvmd-stats", STATS_BYTES, false, &page);
	if (fd < 0)
		return fd;
	p = page;
	p->version = 1;
	p->nr = KVMD_NR_STAT;
	p->boot_ns = clock_ns();
	stats_val = p->val;
	page_fd = fd;
	return mem_fd_seal(fd, true);
}

void stats_exit(void)
{
	if (page_fd < 0)
		return;
	stats_val = private_val;
	munmap(page, STATS_BYTES);
	close(page_fd);
	page_fd = -1;
}

int stats_fd(void)
{
	return page_fd;
}

const char *stats_name(unsigned id)
{
	return id < KVMD_NR_STAT ? rows[id].name : NULL;
}

const char *stats_unit(unsigned id)
{
	return id < KVMD_NR_STAT ? rows[id].unit : NULL;
}

const char *stats_help(unsigned id)
{
	return id < KVMD_NR_STAT ? rows[id].help : NULL;
}

char stats_kind(unsigned id)
{
	return id < KVMD_NR_STAT ? rows[id].kind : 0;
}
