// SPDX-License-Identifier: Apache-2.0
/*
 * ram_chunk.c - making, locking, registering and giving up chunks of RAM.
 *
 *	core				slow worker
 *	ram_kick(): one job		make: memfd, touch, seal, lock
 *					adopt: touch and lock what there is
 *					drop: unmap, close
 *	job_done(): into the tier
 *	poll(): register, one a turn
 *
 * There is at most one job. The worker sees the job alone, never the tier. A
 * chunk counts, and may be used, from job_done() on; a registration that took n
 * ns is followed by 4n ns without one, so that the core thread is never kept
 * for long. What cannot be had is said in the info's text and done without:
 * huge pages, locks, registrations one by one; the first chunk that cannot be
 * made at all ends the growth until the next ram_resize().
 *
 * A chunk is in the table (its memfd's inode) before the keeper hears of it, and
 * out of it before it is given up: an fd that the table does not know is of
 * nobody.
 */
#include "kvmd/tier/ram_int.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT	1
#endif

#define NR_TOUCH	8u		/* most threads that touch one chunk */

/* ------------------------------------------------------------ in the slow worker */

static unsigned touch_threads(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 8 ? 1 : min((unsigned)cpus / 4, NR_TOUCH);
}

/* All pages are there: MLOCK_ONFAULT spares touching them again. */
static int lock_chunk(void *map, uint64_t bytes)
{
	if (fault_hit(FAULT_LOCK))
		return -ENOMEM;
	if (!mlock2(map, bytes, MLOCK_ONFAULT) || (errno == ENOSYS && !mlock(map, bytes)))
		return 0;
	return -errno;
}

static uint64_t map_bytes(uint64_t bytes)
{
	return align_up(bytes, (uint64_t)sysconf(_SC_PAGESIZE));
}

/* Our own tables of one chunk. */
int ram_chunk_tables(struct ram_chunk *c, uint64_t bytes)
{
	uint64_t nr = bytes / RAM_PAGE;

	c->place = mem_big_alloc(nr * sizeof(*c->place), true);
	if (!c->place)
		return -ENOMEM;
	c->bits = mem_big_alloc(div_round_up(nr, 64) * sizeof(*c->bits), true);
	if (!c->bits) {
		mem_big_free(c->place, nr * sizeof(*c->place));
		c->place = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* Last: from here on devices copy to and from it at full speed. */
static void pin_chunk(struct ram_job *j)
{
	int r = dev_host_pin(j->c.ext.map, j->bytes, j->pin_text, sizeof(j->pin_text));

	j->c.pinned = r > 0;
	j->pin_failed = r < 0;
}

void ram_chunk_release(struct ram_chunk *c, uint64_t bytes)
{
	uint64_t nr = bytes / RAM_PAGE;

	if (c->pinned)
		dev_host_unpin(c->ext.map);
	if (c->ext.map)
		munmap(c->ext.map, map_bytes(bytes));
	if (c->fd >= 0)
		close(c->fd);
	mem_big_free(c->place, nr * sizeof(*c->place));
	mem_big_free(c->bits, div_round_up(nr, 64) * sizeof(*c->bits));
	*c = (struct ram_chunk) { .fd = -1 };
}

struct dev_extent ram_chunk_extent(void *map, uint64_t bytes)
{
	/* The memory is the daemon's alone: no child gets it, no core file has it. */
	(void)madvise(map, bytes, MADV_DONTFORK);
	(void)madvise(map, bytes, MADV_DONTDUMP);
	return (struct dev_extent) { .fd = -1, .map = map, .bytes = bytes };
}

static int make_chunk(struct ram_job *j)
{
	struct ram_chunk *c = &j->c;
	char name[32];
	void *map;
	int err;

	if (fault_hit(FAULT_CHUNK))
		return -ENOMEM;
	snprintf(name, sizeof(name), "kvmd-ram-%u", j->chunk);
	c->fd = mem_fd_create_paged(name, j->bytes, j->hugetlb, touch_threads(), &map, &c->pages);
	if (c->fd < 0)
		return c->fd;
	c->ext = ram_chunk_extent(map, j->bytes);
	err = mem_fd_seal(c->fd, false);
	if (!err)
		err = ram_chunk_tables(c, j->bytes);
	if (err) {
		ram_chunk_release(c, j->bytes);
		return err;
	}
	if (j->lock) {
		j->lock_err = lock_chunk(map, j->bytes);
		c->locked = !j->lock_err;
	}
	pin_chunk(j);
	return 0;
}

/* Of a former daemon, in use meanwhile: only its page tables are filled. */
static int adopt_chunk(struct ram_job *j)
{
	struct ram_chunk *c = &j->c;
	int err = mem_populate(c->ext.map, j->bytes, touch_threads());

	mem_get_pages(c->fd, c->ext.map, j->bytes, &c->pages);
	if (j->lock && !err) {
		j->lock_err = lock_chunk(c->ext.map, j->bytes);
		c->locked = !j->lock_err;
	}
	pin_chunk(j);
	return 0;
}

static void job_fn(struct work *w)
{
	struct ram_job *j = container_of(w, struct ram_job, work);

	if (j->kind == JOB_MAKE)
		j->err = make_chunk(j);
	else if (j->kind == JOB_ADOPT)
		j->err = adopt_chunk(j);
	else
		ram_chunk_release(&j->c, j->bytes);
	/* Pairs with the acquire in ram_destroy(). */
	st_rel(&j->finished, true);
}

/* -------------------------------------------------------------------- core thread */

void ram_keep_add(struct ram *rt, const char *name, int fd)
{
	if (rt->keep.add)
		rt->keep.add(rt->keep.ctx, name, fd);
}

void ram_keep_chunk(struct ram *rt, uint32_t no, int fd)
{
	char name[32];

	snprintf(name, sizeof(name), "ram-%u", no);
	if (fd >= 0)
		ram_keep_add(rt, name, fd);
	else if (rt->keep.del)
		rt->keep.del(rt->keep.ctx, name);
}

static void say_shortage(struct ram *rt, const struct ram_job *j)
{
	if (j->hugetlb && !j->c.pages.hugetlb_bytes && !rt->said_hugetlb) {
		rt->said_hugetlb = true;
		ram_say(rt, "chunk %u: no 2 MiB pages in the hugetlb pool, %s pages are used: "
			"raise vm.nr_hugepages", j->chunk,
			j->c.pages.thp_bytes ? "transparent huge" : "4 KiB");
	}
	if (j->pin_failed && !rt->said_pin) {
		rt->said_pin = true;
		ram_say(rt, "chunk %u is not pinned for the device, copies are slower: %s", j->chunk,
			j->pin_text);
	}
	if (j->lock_err && !rt->said_lock) {
		rt->said_lock = true;
		ram_say(rt, "chunk %u is used unlocked: mlock: %s: raise RLIMIT_MEMLOCK "
			"(LimitMEMLOCK=)", j->chunk, strerror(-j->lock_err));
	}
}

/* @c is in the tier from now on. */
void ram_chunk_ready(struct ram *rt, struct ram_chunk *c)
{
	c->state = CHUNK_READY;
	rt->t.bytes += rt->chunk_bytes;
	rt->nr_ready++;
	if (rt->u)
		rt->nr_unreg++;
	ram_relist(rt, c);
}

void ram_all_ready(struct ram *rt)
{
	if (!rt->start_ns && rt->nr_chunks && rt->nr_ready >= rt->nr_chunks)
		rt->start_ns = max(clock_ns() - rt->born_ns, (uint64_t)1);
}

static void made(struct ram *rt, struct ram_job *j)
{
	struct ram_chunk *c = &rt->chunk[j->chunk];
	struct stat st;

	if (!j->err && fstat(j->c.fd, &st)) {
		j->err = -errno;
		ram_chunk_release(&j->c, j->bytes);
	}
	if (j->err) {
		*c = (struct ram_chunk) { .fd = -1 };
		rt->stuck = true;
		ram_say(rt, "chunk %u of %u could not be made: %s: the tier stays at %llu MiB",
			j->chunk, rt->nr_chunks, strerror(-j->err),
			(unsigned long long)rt->t.bytes >> 20);
		return;
	}
	*c = j->c;
	rt->table->chunk[j->chunk].cls = 0;
	/* The entry counts from the inode's number on: ram_attach() looks at it first. */
	st_rel(&rt->table->chunk[j->chunk].ino, (uint64_t)st.st_ino);
	ram_keep_chunk(rt, j->chunk, c->fd);
	say_shortage(rt, j);
	ram_chunk_ready(rt, c);
	ram_all_ready(rt);
}

static void adopted(struct ram *rt, struct ram_job *j)
{
	struct ram_chunk *c = &rt->chunk[j->chunk];

	/* It was in use all the time: only what the job found out is taken over. */
	c->adopted = false;
	c->pages = j->c.pages;
	c->locked = j->c.locked;
	c->pinned = j->c.pinned;
	say_shortage(rt, j);
}

static void job_done(struct work *w)
{
	struct ram_job *j = container_of(w, struct ram_job, work);
	struct ram *rt = container_of(j, struct ram, job);

	if (j->kind == JOB_MAKE)
		made(rt, j);
	else if (j->kind == JOB_ADOPT)
		adopted(rt, j);
	else
		rt->chunk[j->chunk] = (struct ram_chunk) { .fd = -1 };
	while (rt->end && rt->chunk[rt->end - 1].state == CHUNK_NONE)
		rt->end--;
	j->kind = JOB_NONE;
	ram_kick(rt);
}

static void job_start(struct ram *rt, enum job_kind kind, uint32_t no)
{
	struct ram_chunk *c = &rt->chunk[no];

	rt->job = (struct ram_job) {
		.work = { .fn = job_fn, .done = job_done },
		.kind = (uint8_t)kind, .chunk = no, .bytes = rt->chunk_bytes,
		.hugetlb = kind == JOB_MAKE && rt->hugetlb, .lock = rt->lock, .c = { .fd = -1 },
	};
	if (kind != JOB_MAKE)
		rt->job.c = *c;
	workers_submit(rt->slow, &rt->job.work);
}

/* Out of the tier: empty, on no list, nobody's any more. */
static void chunk_drop(struct ram *rt, uint32_t no)
{
	struct ram_chunk *c = &rt->chunk[no];

	st_rel(&rt->table->chunk[no].ino, (uint64_t)0);
	ram_keep_chunk(rt, no, -1);
	if (c->registered)
		(void)uring_buffer_set(rt->u, no, NULL, 0);
	else if (rt->u && !c->reg_failed)
		rt->nr_unreg--;
	rt->t.bytes -= rt->chunk_bytes;
	rt->nr_ready--;
	c->state = CHUNK_DROPPING;
	job_start(rt, JOB_DROP, no);
}

void ram_kick(struct ram *rt)
{
	uint32_t i;

	if (rt->job.kind)
		return;
	for (i = rt->end; i-- > 0;) {
		const struct ram_chunk *c = &rt->chunk[i];

		if (c->state != CHUNK_READY)
			continue;
		if (c->adopted) {
			job_start(rt, JOB_ADOPT, i);
			return;
		}
		if (ram_leaves(rt, c) && !c->cls && !rt->claiming) {
			chunk_drop(rt, i);
			return;
		}
	}
	for (i = 0; i < rt->nr_chunks && !rt->stuck; i++) {
		if (rt->chunk[i].state != CHUNK_NONE)
			continue;
		rt->end = max(rt->end, i + 1);
		rt->chunk[i].state = CHUNK_MAKING;
		job_start(rt, JOB_MAKE, i);
		return;
	}
}

void ram_register_next(struct ram *rt)
{
	uint64_t now = clock_ns();
	uint32_t i;
	int err;

	if (now < rt->reg_due_ns)
		return;
	for (i = 0; i < rt->end; i++) {
		struct ram_chunk *c = &rt->chunk[i];

		if (c->state != CHUNK_READY || c->registered || c->reg_failed)
			continue;
		err = fault_hit(FAULT_REGISTER) ? -ENOMEM :
		      uring_buffer_set(rt->u, i, c->ext.map, rt->chunk_bytes);
		c->registered = !err;
		c->reg_failed = err;
		if (err && !rt->said_register) {
			rt->said_register = true;
			ram_say(rt, "chunk %u is no fixed buffer: %s: raise RLIMIT_MEMLOCK "
				"(LimitMEMLOCK=); disk I/O from it costs more", i,
				strerror(-err));
		}
		rt->nr_unreg--;
		break;
	}
	rt->reg_due_ns = now + 5 * (clock_ns() - now);
}
