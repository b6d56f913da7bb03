// SPDX-License-Identifier: Apache-2.0
/*
 * ram_setup.c - the RAM tier's beginning, its second life, its size and its end.
 *
 * The table's memfd: struct ram_table, then the sums. It is laid out for
 * RAM_MAX_CHUNKS chunks, so that the tier can grow; what is not touched costs
 * nothing. Core thread; creating may take milliseconds, attaching maps.
 */
#include "kvmd/tier/ram_int.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"

#define TABLE_NAME	"ram-table"

static uint64_t table_bytes(uint64_t chunk_bytes)
{
	return align_up(sizeof(struct ram_table), RAM_PAGE) +
	       RAM_MAX_CHUNKS * (chunk_bytes / RAM_PAGE) * sizeof(uint64_t);
}

static bool chunk_bytes_ok(uint64_t bytes)
{
	return bytes && bytes <= RAM_MAX_CHUNK && bytes % RAM_PAGE == 0;
}

/* All but the table and the first job. */
static int ram_new(const struct ram_opts *o, uint64_t chunk_bytes, struct uring *u,
		   struct workers *slow, const struct ram_keep *keep, struct ram **ret_rt)
{
	uint64_t nr = div_round_up(o->bytes, chunk_bytes);
	struct ram *rt;
	int err = -ENOMEM;

	if (nr > RAM_MAX_CHUNKS)
		return -EINVAL;
	rt = mem_zalloc(sizeof(*rt));
	if (!rt)
		return -ENOMEM;
	rt->t = (struct tier) { .ops = &ram_ops, .kind = TIER_RAM };
	rt->slow = slow;
	if (keep)
		rt->keep = *keep;
	rt->hugetlb = o->hugetlb && chunk_bytes % RAM_HUGE == 0;
	rt->lock = o->lock;
	rt->chunk_bytes = chunk_bytes;
	rt->chunk_pages = (uint32_t)(chunk_bytes / RAM_PAGE);
	rt->nr_chunks = (uint32_t)nr;
	rt->table_fd = -1;
	rt->steal = rt->steal_not = rt->drain = RAM_NONE;
	rt->born_ns = clock_ns();
	rt->chunk = mem_big_alloc(RAM_MAX_CHUNKS * sizeof(*rt->chunk), false);
	rt->list = mem_big_alloc((rt->chunk_pages + 1) * sizeof(*rt->list), false);
	if (!rt->chunk || !rt->list)
		goto err_free;
	err = ram_ctx_init(rt);
	if (err)
		goto err_free;
	if (u) {
		err = uring_buffers_init(u, RAM_MAX_CHUNKS);
		if (err)
			ram_say(rt, "no fixed buffers: %s: disk I/O costs more", strerror(-err));
		else
			rt->u = u;
	}
	*ret_rt = rt;
	return 0;

err_free:
	ram_destroy(&rt->t);
	return err;
}

static int table_map(struct ram *rt, int fd, uint64_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	(void)madvise(map, bytes, MADV_DONTFORK);
	rt->table = map;
	rt->table_bytes = bytes;
	return 0;
}

static int table_create(struct ram *rt)
{
	uint64_t bytes = table_bytes(rt->chunk_bytes);
	int fd, err;

	fd = mem_fd_create("kvmd-ram-table", bytes, false, NULL);
	if (fd < 0)
		return fd;
	err = mem_fd_seal(fd, false);
	if (!err)
		err = table_map(rt, fd, bytes);
	if (err) {
		close(fd);
		return err;
	}
	rt->table_fd = fd;
	rt->table->version = RAM_VERSION;
	rt->table->max_chunks = RAM_MAX_CHUNKS;
	rt->table->chunk_bytes = rt->chunk_bytes;
	rt->table->sums_off = align_up(sizeof(struct ram_table), RAM_PAGE);
	/* Last: a table without it is of nobody. */
	st_rel(&rt->table->magic, (uint64_t)RAM_MAGIC);
	rt->sum = (uint64_t *)((char *)rt->table + rt->table->sums_off);
	return 0;
}

int ram_create(const struct ram_opts *o, struct uring *u, struct workers *slow,
	       const struct ram_keep *keep, struct tier **ret_t)
{
	uint64_t chunk_bytes = o->chunk_bytes;
	struct ram *rt;
	int err;

	if (!o->bytes)
		return -EINVAL;
	if (!chunk_bytes)
		chunk_bytes = min(max(align_up(o->bytes / 64, RAM_HUGE), (uint64_t)RAM_HUGE),
				  (uint64_t)RAM_MAX_CHUNK);
	if (!chunk_bytes_ok(chunk_bytes))
		return -EINVAL;
	err = ram_new(o, chunk_bytes, u, slow, keep, &rt);
	if (err)
		return err;
	err = table_create(rt);
	if (err) {
		ram_destroy(&rt->t);
		return err;
	}
	ram_keep_add(rt, TABLE_NAME, rt->table_fd);
	ram_kick(rt);
	*ret_t = &rt->t;
	return 0;
}

/* Is @fd a table of ours? Its chunk size. */
static int table_check(int fd, uint64_t *ret_chunk_bytes)
{
	struct ram_table *head;
	struct stat st;
	uint64_t chunk_bytes;
	int err = -EINVAL;

	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < sizeof(*head))
		return -EINVAL;
	head = mmap(NULL, sizeof(*head), PROT_READ, MAP_SHARED, fd, 0);
	if (head == MAP_FAILED)
		return -EINVAL;
	chunk_bytes = head->chunk_bytes;
	if (head->magic == RAM_MAGIC && head->version == RAM_VERSION &&
	    head->max_chunks == RAM_MAX_CHUNKS && chunk_bytes_ok(chunk_bytes) &&
	    head->sums_off == align_up(sizeof(*head), RAM_PAGE) &&
	    (uint64_t)st.st_size == table_bytes(chunk_bytes)) {
		*ret_chunk_bytes = chunk_bytes;
		err = 0;
	}
	munmap(head, sizeof(*head));
	return err;
}

/* Chunk @no from @fd, if it is what the table says; owns @fd only then. */
static bool chunk_attach(struct ram *rt, uint32_t no, int fd)
{
	struct ram_chunk *c = &rt->chunk[no];
	struct stat st;
	void *map;

	if (fstat(fd, &st) || (uint64_t)st.st_ino != rt->table->chunk[no].ino ||
	    (uint64_t)st.st_size != rt->chunk_bytes || mem_fd_map(fd, rt->chunk_bytes, &map))
		return false;
	*c = (struct ram_chunk) {
		.fd = fd, .ext = ram_chunk_extent(map, rt->chunk_bytes), .adopted = true,
		.pages.small_bytes = rt->chunk_bytes,	/* until it was looked at */
	};
	if (ram_chunk_tables(c, rt->chunk_bytes)) {
		c->fd = -1;
		ram_chunk_release(c, rt->chunk_bytes);
		return false;
	}
	return true;
}

int ram_attach(const struct ram_opts *o, struct uring *u, struct workers *slow,
	       const struct ram_keep *keep, int table_fd, const int *fd, unsigned nr,
	       struct tier **ret_t)
{
	struct ram_opts opts = *o;
	uint64_t chunk_bytes = 0;
	struct ram *rt;
	int err;

	err = table_check(table_fd, &chunk_bytes);
	if (err)
		return err;
	opts.bytes = min(o->bytes, RAM_MAX_CHUNKS * chunk_bytes);
	err = ram_new(&opts, chunk_bytes, u, slow, keep, &rt);
	if (err)
		return err;
	err = table_map(rt, table_fd, table_bytes(chunk_bytes));
	if (err) {
		ram_destroy(&rt->t);
		return err;
	}
	/* It cannot fail any more: the fds are ours. */
	if (opts.bytes < o->bytes)
		ram_say(rt, "chunks of %llu bytes from before allow no more than %llu MiB: "
			"empty the tier and restart for more", (unsigned long long)chunk_bytes,
			(unsigned long long)opts.bytes >> 20);
	rt->table_fd = table_fd;
	rt->sum = (uint64_t *)((char *)rt->table + rt->table->sums_off);
	rt->claiming = true;
	for (uint32_t i = 0; i < nr; i++) {
		if (fd[i] < 0)
			continue;
		if (i < RAM_MAX_CHUNKS && chunk_attach(rt, i, fd[i])) {
			rt->end = i + 1;
			ram_chunk_ready(rt, &rt->chunk[i]);
			continue;
		}
		close(fd[i]);
		ram_keep_chunk(rt, i, -1);
	}
	for (uint32_t i = 0; i < RAM_MAX_CHUNKS; i++)
		if (rt->table->chunk[i].ino && (i >= rt->end || !rt->chunk[i].state))
			rt->table->chunk[i].ino = 0;
	ram_all_ready(rt);
	ram_kick(rt);
	*ret_t = &rt->t;
	return 0;
}

/*
 * The owner has seen to it that no job is in a worker's hands: it reaped what
 * there was, or has joined the workers, whose last completions nobody runs.
 */
void ram_destroy(struct tier *t)
{
	struct ram *rt;

	if (!t)
		return;
	rt = ram_of(t);
	/* The acquire pairs with the release in job_fn(). */
	BUG_ON(rt->job.kind && !ld_acq(&rt->job.finished));
	if (rt->job.kind == JOB_MAKE && !rt->job.err)
		ram_chunk_release(&rt->job.c, rt->chunk_bytes);
	/* Fixed buffers end with the ring, which may have gone before. */
	for (uint32_t i = 0; i < rt->end; i++)
		if (rt->chunk[i].state == CHUNK_READY)
			ram_chunk_release(&rt->chunk[i], rt->chunk_bytes);
	ram_ctx_exit(rt);
	ram_code_exit(rt);
	if (rt->table)
		munmap(rt->table, rt->table_bytes);
	if (rt->table_fd >= 0)
		close(rt->table_fd);
	mem_big_free(rt->list, (rt->chunk_pages + 1) * sizeof(*rt->list));
	mem_big_free(rt->chunk, RAM_MAX_CHUNKS * sizeof(*rt->chunk));
	mem_free(rt);
}

/* ----------------------------------------------------------------- size, report */

int ram_resize(struct tier *t, uint64_t bytes)
{
	struct ram *rt = ram_of(t);
	uint64_t nr = div_round_up(bytes, rt->chunk_bytes);

	if (nr > RAM_MAX_CHUNKS)
		return -EINVAL;
	rt->nr_chunks = (uint32_t)nr;
	rt->stuck = false;
	rt->drain = RAM_NONE;
	if (rt->steal != RAM_NONE && rt->steal >= nr)
		rt->steal = RAM_NONE;
	for (uint32_t i = 0; i < rt->end; i++)
		ram_relist(rt, &rt->chunk[i]);
	ram_kick(rt);
	return 0;
}

bool ram_is_growing(struct tier *t)
{
	const struct ram *rt = ram_of(t);

	return rt->nr_ready < rt->nr_chunks && !rt->stuck;
}

void ram_get_info(struct tier *t, struct ram_info *ret_i)
{
	const struct ram *rt = ram_of(t);
	struct ram_info i = {
		.bytes = rt->nr_chunks * rt->chunk_bytes, .chunk_bytes = rt->chunk_bytes,
		.nr_chunks = rt->nr_chunks, .nr_ready = rt->nr_ready, .nr_bad = rt->nr_bad,
		.start_ns = rt->start_ns,
	};

	for (uint32_t n = 0; n < rt->end; n++) {
		const struct ram_chunk *c = &rt->chunk[n];

		if (c->state != CHUNK_READY)
			continue;
		i.nr_places += c->nr_used;
		i.hugetlb_bytes += c->pages.hugetlb_bytes;
		i.thp_bytes += c->pages.thp_bytes;
		i.small_bytes += c->pages.small_bytes;
		i.locked_bytes += c->locked ? rt->chunk_bytes : 0;
		i.pinned_bytes += c->pinned ? rt->chunk_bytes : 0;
		i.registered_bytes += c->registered ? rt->chunk_bytes : 0;
	}
	memcpy(i.text, rt->text, sizeof(i.text));
	*ret_i = i;
}
