// SPDX-License-Identifier: Apache-2.0
/*
 * disk_rig.c - see disk_rig.h.
 */
#include "disk_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/disk_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define WAIT_NS	50000000ull	/* of one step, when nobody says less */

/* ------------------------------------------------------------------- the owner */

static uint32_t number(const uint8_t *key)
{
	uint32_t n;

	memcpy(&n, key, sizeof(n));
	return n;
}

static struct space *space_make(struct drig *r, unsigned i, uint64_t epoch)
{
	struct space *sp = &r->p->space[i];

	snprintf(sp->name, sizeof(sp->name), "space-%u", i);
	sp->id = i;
	sp->sid = (uint16_t)(i + 1);
	sp->epoch = epoch;
	sp->tenant = &r->tenant;
	sp->nr_groups = sp->nr_shards = 1;
	sp->gp[0].sp = sp;
	sp->gp[0].geo = (struct kvmd_group) {
		.plane_bytes = r->block_bytes, .planes = 1, .block_tokens = 16, .max_slots = 100,
	};
	sp->in_use = true;
	r->p->sid[sp->sid].sp = sp;
	r->p->sid[sp->sid].epoch = epoch;
	return sp;
}

static int space_of(const struct drig *r, const struct disk_space *e)
{
	for (unsigned i = 0; i < DRIG_SPACES; i++)
		if (r->p->space[i].in_use && !strcmp(r->p->space[i].name, e->name))
			return (int)i;
	return -1;
}

static enum disk_verdict found(void *ctx, const struct disk_space *e, const struct disk_header *h,
			       uint32_t place, uint32_t *ret_block)
{
	struct drig *r = ctx;
	uint32_t n = number(h->key), parent = number(h->parent);
	int i = space_of(r, e);

	quiet_assert_uint_lt(n, DRIG_MAX);
	if (i < 0) {
		if (++r->nr_parked == r->open_after) {
			space_make(r, 0, disk_space_epoch(r->t, e->tenant, e->name));
			disk_space_opened(r->t, &r->p->space[0]);
		}
		return DISK_PARK;
	}
	if (h->epoch != r->p->space[i].epoch || r->rec[n].place) {
		r->nr_gone++;
		return DISK_GONE;
	}
	if (parent && !r->rec[parent].place) {
		r->nr_later++;
		r->rec[n].nr_later++;
		return DISK_LATER;
	}
	r->nr_taken++;
	drig_block(r, n, (unsigned)i, parent);
	r->rec[n].place = place;
	*ret_block = n;
	return DISK_TAKEN;
}

static bool keep(void *ctx, uint32_t block, uint32_t place)
{
	struct drig *r = ctx;

	quiet_assert_uint_eq(r->rec[block].place, place);
	r->nr_keep++;
	r->rec[block].was_kept = true;
	if (!r->rec[block].keep)
		r->rec[block].place = 0;
	return r->rec[block].keep;
}

static void moved(void *ctx, uint32_t block, uint32_t from, uint32_t to)
{
	struct drig *r = ctx;

	ck_assert_uint_eq(r->rec[block].place, from);
	r->rec[block].place = to;
	r->rec[block].was_moved = true;
	r->nr_moved++;
}

static void lost(void *ctx, uint32_t block, uint32_t place)
{
	struct drig *r = ctx;

	ck_assert_uint_eq(r->rec[block].place, place);
	r->rec[block].place = 0;
	r->rec[block].lost = true;
	r->nr_lost++;
}

static void recovered(void *ctx)
{
	((struct drig *)ctx)->recovered = true;
}

/* ------------------------------------------------------------------------ set-up */

static void bell_arm(struct drig *r)
{
	int err = uring_read(r->u, &r->bell, workers_notify_fd(r->w), &r->bell_val, 8);

	quiet_assert_int_eq(err, 0);
}

static void bell_done(struct uring_req *req, int res)
{
	struct drig *r = container_of(req, struct drig, bell);

	if (res > 0)
		bell_arm(r);
}

static void rings_up(struct drig *r)
{
	ck_assert_int_eq(uring_create(256, &r->u), 0);
	ck_assert_int_eq(uring_files_init(r->u, 16), 0);
	ck_assert_int_eq(uring_buffers_init(r->u, 4), 0);
	ck_assert_int_eq(uring_buffer_set(r->u, 0, r->mem, DRIG_MEM), 0);
	ck_assert_int_eq(workers_create(2, &r->w), 0);
	r->bell.done = bell_done;
	bell_arm(r);
}

static void rings_down(struct drig *r)
{
	workers_destroy(r->w);
	uring_destroy(r->u);
	r->bell.armed = false;
}

void drig_files(struct drig *r, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		snprintf(r->path[i], sizeof(r->path[i]), "%s/kv%u.img", r->dir, i);
		r->o.path[i] = r->path[i];
	}
	r->o.nr_paths = nr;
}

/* O_DIRECT is what the tier stands on; some file systems have none. */
static bool has_direct(const char *dir)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/direct", dir);
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (fd >= 0)
		close(fd);
	unlink(path);
	return fd >= 0;
}

void drig_init(struct drig *r)
{
	const char *tmp = getenv("TMPDIR");

	memset(r, 0, sizeof(*r));
	snprintf(r->dir, sizeof(r->dir), "%.40s/kvmd-disk-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(r->dir));
	if (!has_direct(r->dir)) {
		printf("SKIP: the file system of %s refuses O_DIRECT\n", r->dir);
		rmdir(r->dir);
		exit(0);
	}
	r->p = calloc(1, sizeof(*r->p));
	ck_assert_ptr_nonnull(r->p);
	r->p->blk = calloc(DRIG_MAX, sizeof(struct block));
	ck_assert_ptr_nonnull(r->p->blk);
	r->mem = mmap(NULL, DRIG_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(r->mem, MAP_FAILED);
	r->acked = mmap(NULL, DRIG_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(r->acked, MAP_FAILED);
	strcpy(r->tenant.name, "default");
	r->block_bytes = 64 << 10;
	r->o = (struct disk_opts) {
		.bytes = 20ull << 20, .segment_bytes = 1 << 20, .block_bytes_hint = 64 << 10,
		.file_base = 2,
	};
	drig_files(r, 1);
	r->ev = (struct disk_events) {
		.found = found, .keep = keep, .moved = moved, .lost = lost, .recovered = recovered,
		.ctx = r,
	};
	rings_up(r);
}

int drig_try_open(struct drig *r)
{
	int err;

	r->msg[0] = 0;
	r->recovered = false;
	err = disk_create(&r->o, r->p, r->u, r->w, r->w, &r->ev, &r->t, r->msg, sizeof(r->msg));
	ck_assert_msg(!err == !r->msg[0], "error %d with text '%s'", err, r->msg);
	if (err) {
		r->t = NULL;
		return err;
	}
	if (r->orphan_most)
		disk_of(r->t)->orphan_most = r->orphan_most;
	drig_until(r, r->recovered);
	return 0;
}

void drig_open(struct drig *r)
{
	int err = drig_try_open(r);

	ck_assert_msg(!err, "%s", r->msg);
}

void drig_open_one(struct drig *r)
{
	drig_open(r);
	drig_space(r, 0, 1);
}

void drig_close(struct drig *r, bool orderly)
{
	if (!r->t)
		return;
	if (orderly)
		drig_until(r, disk_stop(r->t));
	r->t->ops->destroy(r->t);
	r->t = NULL;
}

void drig_reopen(struct drig *r)
{
	if (r->t)
		drig_close(r, false);
	for (unsigned i = 0; i < DRIG_SPACES; i++)
		drig_space_close(r, i);
	memset(r->rec, 0, sizeof(r->rec));
	r->nr_taken = r->nr_parked = r->nr_later = r->nr_gone = 0;
	drig_open(r);
}

void drig_exit(struct drig *r)
{
	drig_close(r, false);
	rings_down(r);
	for (unsigned i = 0; i < DISK_MAX_FILES; i++)
		if (r->path[i][0])
			unlink(r->path[i]);
	ck_assert_int_eq(rmdir(r->dir), 0);
	munmap(r->mem, DRIG_MEM);
	munmap(r->acked, DRIG_MAX);
	free(r->p->blk);
	free(r->p);
}

/* ------------------------------------------------------------- spaces and blocks */

struct space *drig_space(struct drig *r, unsigned i, uint64_t epoch)
{
	struct space *sp = space_make(r, i, epoch);

	disk_space_opened(r->t, sp);
	drig_quiet(r);
	return sp;
}

void drig_space_close(struct drig *r, unsigned i)
{
	memset(&r->p->space[i], 0, sizeof(r->p->space[i]));
}

static void raise_done(void *ctx, int err)
{
	((struct drig *)ctx)->raised = err;
}

void drig_raise(struct drig *r, unsigned i, uint64_t epoch)
{
	struct space *sp = &r->p->space[i];

	sp->epoch = epoch;
	r->p->sid[sp->sid].epoch = epoch;
	r->raised = 1;
	disk_space_raise(r->t, sp, epoch, raise_done, r);
	drig_until(r, r->raised != 1);
}

/* The dead child's rings let go of the files when their last I/O is over. */
static void wait_for_locks(struct drig *r)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	for (unsigned i = 0; i < r->o.nr_paths; i++) {
		int fd = open(r->o.path[i], O_RDWR);

		if (fd < 0)
			continue;
		ck_assert_int_eq(fcntl(fd, F_OFD_SETLKW, &fl), 0);
		close(fd);
	}
}

int drig_child(struct drig *r, void (*fn)(struct drig *r, void *arg), void *arg)
{
	int status = 0;
	pid_t pid;

	ck_assert_ptr_null(r->t);
	rings_down(r);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		rings_up(r);
		fn(r, arg);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	rings_up(r);
	wait_for_locks(r);
	return status;
}

static void key_of(uint32_t n, uint8_t *key)
{
	memset(key, 0, KVMD_KEY_BYTES);
	if (n)
		memset(key, 0xa5, KVMD_KEY_BYTES);
	memcpy(key, &n, sizeof(n));
}

void drig_block(struct drig *r, uint32_t n, unsigned i, uint32_t parent)
{
	struct block *b = pool_block(r->p, n);

	*b = (struct block) { .gen = 1, .sid = (uint16_t)(i + 1), .state = BLK_SEALED,
			      .parent = parent };
	key_of(n, b->key);
	if (parent)
		b->pos = pool_block(r->p, parent)->pos + 1;
	r->rec[n] = (struct drig_rec) { .parent = parent, .space = (uint8_t)i };
}

void drig_bytes(uint32_t n, void *p, uint64_t bytes)
{
	uint64_t x = n * 0x9e3779b97f4a7c15ull + 1, *at = p;

	for (uint64_t i = 0; i < bytes / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		at[i] = x;
	}
}

/* ---------------------------------------------------------------------- requests */

/* Wait for what is under way, or for the tier's time. */
static void wait_once(struct drig *r)
{
	uint64_t next = r->t ? r->t->ops->next_ns(r->t) : 0, now = clock_ns();

	uring_wait(r->u, !next ? WAIT_NS : next <= now ? 0 : min(next - now, (uint64_t)WAIT_NS));
	workers_reap(r->w);
}

void drig_step(struct drig *r)
{
	if (!r->t || !r->t->ops->poll(r->t))
		wait_once(r);
}

static bool is_under_way(const struct disk *d)
{
	return d->nr_io || d->nr_work || !list_empty(&d->fin) || d->failed.head ||
	       disk_space_busy(d) || d->t.nr_inflight || d->c.step != DV_NONE || d->c.again ||
	       d->nr_empty || d->scanning || d->rescan || d->nr_forget;
}

void drig_quiet(struct drig *r)
{
	struct disk *d = disk_of(tier_bottom(r->t));

	for (;;) {
		if (r->t->ops->poll(r->t))
			continue;
		if (!is_under_way(d))
			return;
		wait_once(r);
	}
}

static void req_done(struct tier_req *tr)
{
	struct drig_req *q = container_of(tr, struct drig_req, r);

	quiet_assert(!q->over);
	q->over = true;
}

static void req_make(struct drig *r, struct drig_req *q, uint32_t n, uint64_t at)
{
	q->over = false;
	q->r = (struct tier_req) {
		.block = n, .place = r->rec[n].place, .gp = &r->p->space[r->rec[n].space].gp[0],
		.mem = r->mem + at, .buf = 0, .bytes = r->block_bytes, .done = req_done,
	};
}

bool drig_write_start(struct drig *r, struct drig_req *q, uint32_t n, uint64_t at)
{
	struct gpool *gp = &r->p->space[r->rec[n].space].gp[0];

	quiet_assert_uint_le(at + r->block_bytes, DRIG_MEM);
	r->rec[n].place = r->t->ops->alloc(r->t, gp, n, r->block_bytes);
	if (!r->rec[n].place)
		return false;
	req_make(r, q, n, at);
	drig_bytes(n, q->r.mem, r->block_bytes);
	q->r.sum = sum_of(q->r.mem, r->block_bytes);
	tier_write(r->t, &q->r);
	return true;
}

void drig_read_start(struct drig *r, struct drig_req *q, uint32_t n, uint64_t at)
{
	req_make(r, q, n, at);
	q->r.verify = true;
	memset(q->r.mem, 0x11, r->block_bytes);
	tier_read(r->t, &q->r);
}

int drig_write(struct drig *r, uint32_t n)
{
	struct drig_req q;

	if (!drig_write_start(r, &q, n, 0))
		return -ENOSPC;
	drig_until(r, q.over);
	if (q.r.err)
		r->rec[n].place = 0;
	else
		r->acked[n] = 1;
	return q.r.err;
}

int drig_read(struct drig *r, uint32_t n)
{
	uint8_t *want = malloc(r->block_bytes);
	struct drig_req q;

	drig_read_start(r, &q, n, DRIG_MEM / 2);
	drig_until(r, q.over);
	if (!q.r.err) {
		drig_bytes(n, want, r->block_bytes);
		quiet_assert_mem_eq(q.r.mem, want, r->block_bytes);
		quiet_assert_uint_eq(q.r.sum, sum_of(want, r->block_bytes));
	}
	free(want);
	return q.r.err;
}

void drig_free(struct drig *r, uint32_t n)
{
	r->t->ops->free(r->t, r->rec[n].place);
	r->rec[n].place = 0;
}

void drig_fill(struct drig *r, uint32_t first, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		drig_block(r, first + i, 0, i ? first + i - 1 : 0);
		quiet_assert_int_eq(drig_write(r, first + i), 0);
	}
}

void drig_fill_roots(struct drig *r, uint32_t first, uint32_t nr)
{
	for (uint32_t n = first; n < first + nr; n++) {
		drig_block(r, n, 0, 0);
		drig_until(r, drig_write(r, n) == 0);
	}
}

unsigned drig_nr_there(struct drig *r, uint32_t first, uint32_t nr)
{
	unsigned there = 0;

	for (uint32_t n = first; n < first + nr; n++) {
		if (!r->rec[n].place)
			continue;
		quiet_assert_int_eq(drig_read(r, n), 0);
		there++;
	}
	return there;
}

/* -------------------------------------------------------------------- looking */

void drig_check(struct drig *r)
{
	char msg[256] = "";

	quiet_assert_msg(!disk_check(r->t, msg, sizeof(msg)), "%s", msg);
	for (uint32_t n = 1; n < DRIG_MAX; n++)
		if (r->rec[n].place)
			quiet_assert_uint_eq(disk_owner(r->t, r->rec[n].place), n);
}

struct disk_info drig_info(struct drig *r)
{
	struct disk_info i;

	disk_get_info(r->t, &i);
	return i;
}

uint64_t drig_data_at(struct drig *r, uint32_t n)
{
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(disk_of(tier_bottom(r->t)), r->rec[n].place, &f, &s);

	return disk_data_at(f->sb, dseg_idx(f, s)) + (uint64_t)pl->off * DISK_ALIGN;
}

uint64_t drig_header_at(struct drig *r, uint32_t n)
{
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(disk_of(tier_bottom(r->t)), r->rec[n].place, &f, &s);

	return disk_summary_at(f->sb, dseg_idx(f, s)) + DISK_ALIGN +
	       (uint64_t)(pl - dseg_place(f, s, 0)) * sizeof(struct disk_header);
}

void drig_peek(struct drig *r, unsigned file, uint64_t at, void *p, size_t bytes)
{
	int fd = open(r->path[file], O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, p, bytes, (off_t)at), (ssize_t)bytes);
	close(fd);
}

void drig_poke(struct drig *r, unsigned file, uint64_t at, const void *p, size_t bytes)
{
	int fd = open(r->path[file], O_WRONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, p, bytes, (off_t)at), (ssize_t)bytes);
	ck_assert_int_eq(fsync(fd), 0);
	close(fd);
}

void drig_flip(struct drig *r, unsigned file, uint64_t at)
{
	uint8_t byte;

	drig_peek(r, file, at, &byte, 1);
	byte ^= 0x04;
	drig_poke(r, file, at, &byte, 1);
}

void drig_arm(const char *spec)
{
	char msg[128] = "";

	ck_assert_msg(!fault_arm(spec, msg, sizeof(msg)), "%s", msg);
}

/* ------------------------------------------------------------------- the suite's */

struct drig drig;

static void setup(void)
{
	drig_init(&drig);
}

static void teardown(void)
{
	fault_disarm();
	drig_exit(&drig);
}

void drig_add(Suite *s, const char *behaviour, const TTest *test)
{
	tcase_set_timeout(suite_test(s, behaviour, test, setup, teardown), 120);
}
