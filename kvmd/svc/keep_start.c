/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep_start.c - what came from the supervisor, the lock, warm or cold.
 *
 * See keep.h. What the records say is restore.c's to read, keep.c's to write.
 */
#include "kvmd/svc/keep.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/fdstore.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"

/* ------------------------------------------------------------ what came to us */

static void take_one(void *arg, const char *name, int fd)
{
	struct keep *k = arg;

	if (k->nr_came == k->max_came) {
		uint32_t more = k->max_came ? k->max_came * 2 : 256;
		struct keep_fd *p = mem_realloc(k->came, more * sizeof(*p));

		if (!p) {
			close(fd);
			return;
		}
		k->came = p;
		k->max_came = more;
	}
	k->came[k->nr_came] = (struct keep_fd) { .fd = fd };
	snprintf(k->came[k->nr_came++].name, sizeof(k->came[0].name), "%s", name);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct keep_fd *)a)->name, ((const struct keep_fd *)b)->name);
}

static struct keep_fd *find_came(const struct daemon *d, const char *name)
{
	const struct keep *k = d->keep;
	struct keep_fd want;

	if (!k || !k->nr_came)
		return NULL;
	snprintf(want.name, sizeof(want.name), "%s", name);
	return bsearch(&want, k->came, k->nr_came, sizeof(want), by_name);
}

int keep_take(struct daemon *d, const char *name)
{
	struct keep_fd *f = find_came(d, name);
	int fd = f ? f->fd : -1;

	if (fd < 0)
		return -1;
	f->fd = -1;
	f->used = true;
	return fd;
}

void keep_give_back(struct daemon *d, const char *name, int fd)
{
	struct keep_fd *f = find_came(d, name);

	if (!f || fd < 0)
		return;
	f->fd = fd;
	f->used = false;
}

/* Nobody took these: the supervisor need not hold them any longer. */
static void drop_rest(struct keep *k)
{
	for (uint32_t i = 0; i < k->nr_came; i++) {
		struct keep_fd *f = &k->came[i];

		if (f->used)
			continue;
		(void)fdstore_del(f->name);
		if (f->fd >= 0)
			close(f->fd);
		f->fd = -1;
		f->used = true;
	}
}

/* ------------------------------------------------------------------- the lock */

/*
 * A description of our own: the supervisor's duplicate does not share its locks,
 * and it is closed with the last reference of this process and its io_uring.
 */
static int lock_state(struct keep *k, int fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[64];
	int own, err;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	if (own < 0)
		return -errno;
	if (fcntl(own, F_OFD_SETLK, &fl)) {
		log_info("waiting until the former daemon and its I/O are gone");
		while (fcntl(own, F_OFD_SETLKW, &fl)) {
			if (errno == EINTR)
				continue;
			err = -errno;
			close(own);
			return err;
		}
	}
	k->lock_fd = own;
	return 0;
}

void keep_lock_ring(struct daemon *d, unsigned file)
{
	if (d->keep && d->keep->lock_fd >= 0 && uring_file_set(d->u, file, d->keep->lock_fd))
		log_warn("the next daemon will not wait for I/O of this one: io_uring takes no "
			 "fixed file");
}

/* ------------------------------------------------------------------ starting */

static int new_state(struct keep *k)
{
	void *map;
	int fd = mem_fd_create("kvmd-state", sizeof(struct keep_state), false, &map), err;

	if (fd < 0)
		return fd;
	err = lock_state(k, fd);
	if (err) {
		munmap(map, sizeof(struct keep_state));
		close(fd);
		return err;
	}
	k->fd = fd;
	k->st = map;
	keep_head_init(k->st);
	return fdstore_add("state", fd);
}

static void drop_state(struct keep *k)
{
	if (k->st)
		munmap(k->st, sizeof(*k->st));
	if (k->lock_fd >= 0)
		close(k->lock_fd);
	if (k->fd >= 0)
		close(k->fd);
	k->st = NULL;
	k->fd = k->lock_fd = -1;
}

/* 0: @k->st is the former daemon's; -EINVAL with the reason: it is of no use. */
static int open_state(struct daemon *d, int fd, char *msg, size_t n)
{
	struct keep *k = d->keep;
	const struct keep_run *run;
	struct stat st;
	void *map;
	bool torn;
	int err = lock_state(k, fd);

	k->fd = fd;
	if (err || fstat(fd, &st)) {
		snprintf(msg, n, "the kept state cannot be locked: %s",
			 strerror(err ? -err : errno));
		return -EINVAL;
	}
	if (st.st_size < (off_t)sizeof(struct keep_head)) {
		snprintf(msg, n, "the kept state has %lld bytes: it is not one of this program",
			 (long long)st.st_size);
		return -EINVAL;
	}
	map = mmap(NULL, sizeof(struct keep_state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	k->st = map;
	err = keep_head_check(k->st, (uint64_t)st.st_size, msg, n);
	run = err ? NULL : keep_get(&k->st->run, &torn);
	if (!err && !run) {
		snprintf(msg, n, "the kept state was never begun");
		err = -EINVAL;
	}
	if (!err)
		k->run = *run;
	return err;
}

static int open_blocks(struct daemon *d, char *msg, size_t n)
{
	struct keep_fd *f = find_came(d, "blocks");
	uint32_t nr;

	if (!f || f->fd < 0) {
		snprintf(msg, n, "the block array was not kept");
		return -EINVAL;
	}
	return pool_array_check(f->fd, &nr, msg, n);
}

void keep_blocks(struct daemon *d, struct pool_opts *o)
{
	char msg[160];
	uint32_t nr;
	int fd = keep_take(d, "blocks");

	if (fd < 0 || pool_array_check(fd, &nr, msg, sizeof(msg)))
		return;
	if (nr != o->nr_blocks)
		log_info("pool.blocks: %u, as the kept array has, until the next cold start", nr);
	o->nr_blocks = nr;
	o->kept_fd = fd;
}

void keep_cold(struct daemon *d, const char *why)
{
	struct keep *k = d->keep;

	log_warn("nothing of the former daemon's pool is used: %s", why);
	snprintf(k->why_cold, sizeof(k->why_cold), "%s", why);
	k->start = KEEP_COLD;
	for (uint32_t i = 0; i < k->nr_came; i++)
		k->came[i].used = false;
	drop_rest(k);
	drop_state(k);
}

int keep_start(struct daemon *d)
{
	char msg[256] = "";
	struct keep *k;
	int err, fd;

	if (!fdstore_present())
		return 0;
	k = mem_big_alloc(sizeof(*k), false);
	if (!k)
		return -ENOMEM;
	d->keep = k;
	k->d = d;
	k->fd = k->lock_fd = -1;
	k->start = KEEP_COLD;
	err = fdstore_take(take_one, k);
	if (err < 0)
		log_warn("kept descriptors: %s", strerror(-err));
	if (k->nr_came)
		qsort(k->came, k->nr_came, sizeof(*k->came), by_name);
	fd = keep_take(d, "state");
	if (fd >= 0) {
		err = open_state(d, fd, msg, sizeof(msg));
		err = err ? err : open_blocks(d, msg, sizeof(msg));
		if (err && err != -EINVAL)
			return err;
		if (!err) {
			k->start = KEEP_WARM;
			k->next_conn = k->run.next_conn;
			d->next_serial = k->run.next_serial;
			return 0;
		}
		keep_cold(d, msg);
	} else if (k->nr_came) {
		keep_cold(d, "its state was not kept");
	}
	memset(&k->run, 0, sizeof(k->run));
	return new_state(k);
}

static void write_run(struct daemon *d)
{
	struct keep *k = d->keep;
	struct keep_run *r = &k->run;

	if (k->start == KEEP_WARM) {
		memmove(r->former[1], r->former[0], sizeof(r->former) - sizeof(r->former[0]));
		memcpy(r->former[0], r->boot_id, sizeof(r->boot_id));
		r->nr_former = min(r->nr_former + 1, KEEP_FORMER);
		r->restarts++;
	}
	memcpy(r->boot_id, d->boot_id, sizeof(r->boot_id));
	r->next_serial = d->next_serial;
	r->next_conn = k->next_conn;
	keep_put(&k->st->run, r);
}

void keep_begin(struct daemon *d)
{
	struct keep *k = d->keep;

	if (!k)
		return;
	write_run(d);
	if (k->start == KEEP_COLD && fdstore_add("blocks", d->pool->blk_fd))
		log_warn("the supervisor does not take descriptors: a restart will be cold");
	drop_rest(k);
	mem_free(k->came);
	mem_free(k->ram_fd);
	k->came = NULL;
	k->ram_fd = NULL;
	k->nr_came = k->max_came = 0;
}

void keep_freeze(struct daemon *d)
{
	if (d->keep)
		d->keep->frozen = true;
}

void keep_exit(struct daemon *d)
{
	struct keep *k = d->keep;

	if (!k)
		return;
	for (uint32_t i = 0; i < k->nr_came; i++)
		if (k->came[i].fd >= 0)
			close(k->came[i].fd);
	drop_state(k);
	mem_free(k->came);
	mem_free(k->ram_fd);
	mem_big_free(k, sizeof(*k));
	d->keep = NULL;
}

/* --------------------------------------------------------------- the RAM tier */

static void ram_add(void *ctx, const char *name, int fd)
{
	struct daemon *d = ctx;
	struct keep_fd *f = find_came(d, name);

	if (!keep_is_on(d))
		return;
	if (f)
		f->used = true;		/* a new one under an old name */
	if (fdstore_add(name, fd))
		log_warn("the supervisor did not take %s: a restart will lose what is there", name);
}

static void ram_del(void *ctx, const char *name)
{
	if (keep_is_on(ctx))
		(void)fdstore_del(name);
}

const struct ram_keep *keep_ram(struct daemon *d)
{
	if (!d->keep)
		return NULL;
	d->keep->ram = (struct ram_keep) { .add = ram_add, .del = ram_del, .ctx = d };
	return &d->keep->ram;
}

const struct ram_kept *keep_ram_kept(struct daemon *d)
{
	struct keep *k = d->keep;
	unsigned nr = 0;
	char name[32];
	int table;

	if (!keep_is_warm(d))
		return NULL;
	table = keep_take(d, "ram-table");
	if (table < 0)
		return NULL;
	for (uint32_t i = 0; i < k->nr_came; i++) {
		unsigned no;

		if (sscanf(k->came[i].name, "ram-%u", &no) == 1 && no < RAM_MAX_CHUNKS)
			nr = max(nr, no + 1);
	}
	k->ram_fd = mem_calloc(max(nr, 1u), sizeof(*k->ram_fd));
	if (!k->ram_fd) {
		keep_give_back(d, "ram-table", table);
		return NULL;
	}
	for (unsigned i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "ram-%u", i);
		k->ram_fd[i] = keep_take(d, name);
	}
	k->ram_kept = (struct ram_kept) { .table_fd = table, .fd = k->ram_fd, .nr = nr };
	return &k->ram_kept;
}
