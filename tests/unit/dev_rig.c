/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_rig.c - see dev_rig.h.
 */
#include "tests/unit/dev_rig.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fakecuda/fakecuda.h"
#include "tests/quiet.h"

struct workers *grig_w;
unsigned grig_nr_done, grig_nr_trouble;
static char state[256];

static void *fake_symbol(const char *name)
{
	static void *so;

	if (!so)
		so = dlopen(CU_LIBRARY, RTLD_NOW | RTLD_LOCAL);
	return so ? dlsym(so, name) : NULL;
}

bool grig_is_fake(void)
{
	return fake_symbol("fakecuda_calls");
}

uint64_t grig_calls(const char *func)
{
	uint64_t (*calls)(const char *);
	void *sym = fake_symbol("fakecuda_calls");

	memcpy(&calls, &sym, sizeof(calls));
	return calls(func);
}

void grig_unhang(void)
{
	void (*unhang)(void);
	void *sym = fake_symbol("fakecuda_unhang");

	memcpy(&unhang, &sym, sizeof(unhang));
	unhang();
}

static void reap(void)
{
	uint64_t events;

	quiet_assert_int_eq(read(workers_notify_fd(grig_w), &events, sizeof(events)), 8);
	workers_reap(grig_w);
}

void grig_settle(void)
{
	workers_reap(grig_w);
	while (workers_nr_pending(grig_w))
		reap();
}

void grig_init(void)
{
	int fd;

	snprintf(state, sizeof(state), "%s/fakecuda.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	fd = mkstemp(state);
	ck_assert_int_ge(fd, 0);
	close(fd);
	unlink(state);		/* the fake makes it */
	setenv("KVMD_FAKECUDA_STATE", state, 1);
	ck_assert_int_eq(workers_create(2, &grig_w), 0);
	grig_nr_done = grig_nr_trouble = 0;
}

void grig_exit(void)
{
	struct fakecuda_sum s;

	grig_settle();
	workers_destroy(grig_w);
	if (!fakecuda_state(state, &s)) {
		ck_assert_uint_eq(s.violations, 0);
		ck_assert_uint_eq(s.nr_mem, 0);
	}
	unlink(state);
}

void grig_driver(const char *conf)
{
	setenv("KVMD_FAKECUDA", conf, 1);
}

struct dev_opts grig_opts(void)
{
	return (struct dev_opts) { .bytes = 64 * GRIG_MIB, .copy_threads = 2 };
}

static void troubled(struct dev *d)
{
	(void)d;
	grig_nr_trouble++;
}

int grig_try(struct dev *d, const struct dev_opts *o, char msg[256])
{
	dev_init(d, &dev_cuda_ops, "gpu", 0, grig_w);
	d->troubled = troubled;
	msg[0] = 0;
	return dev_open(d, o, msg, 256);
}

void grig_open(struct dev *d, const struct dev_opts *o)
{
	struct dev_opts def = grig_opts();
	char msg[256];

	ck_assert_msg(!grig_try(d, o ? o : &def, msg), "%s", msg);
}

struct dev_extent grig_extent(struct dev *d, uint64_t bytes)
{
	struct dev_extent e;

	ck_assert_int_eq(d->ops->extent_create(d, bytes, &e), 0);
	return e;
}

struct dev_extent grig_chunk(uint64_t bytes, bool pinned)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char msg[256] = "";

	ck_assert_ptr_ne(map, MAP_FAILED);
	if (pinned)
		ck_assert_msg(dev_host_pin(map, bytes, msg, sizeof(msg)) == 1, "%s", msg);
	return (struct dev_extent) { .fd = -1, .map = map, .bytes = bytes };
}

void grig_drop(struct dev *d, struct dev_extent *e)
{
	if (e->handle) {
		d->ops->extent_destroy(d, e);
		ck_assert_int_eq(e->fd, -1);
		return;
	}
	dev_host_unpin(e->map);
	munmap(e->map, e->bytes);
}

uint8_t *grig_bytes(const struct dev_extent *e)
{
	void *(*peek)(uint64_t);
	void *sym = fake_symbol("fakecuda_peek");

	if (!e->handle)
		return e->map;
	memcpy(&peek, &sym, sizeof(peek));
	return peek(cuda_extent_of(e)->addr);
}

void grig_done(struct dev_batch *b)
{
	(void)b;
	grig_nr_done++;
}

void grig_wait(unsigned nr_done)
{
	while (grig_nr_done < nr_done)
		reap();
}

void grig_wait_trouble(unsigned nr)
{
	while (grig_nr_trouble < nr)
		reap();
}

int grig_copy(struct dev *d, const struct dev_extent *dst, uint64_t dst_off,
	      const struct dev_extent *src, uint64_t src_off, uint64_t bytes, bool urgent)
{
	struct dev_copy k = { .dst = dst, .dst_off = dst_off, .src = src, .src_off = src_off,
			      .bytes = bytes };
	struct dev_batch b = { .copy = &k, .nr = 1, .urgent = urgent, .done = grig_done };
	unsigned before = grig_nr_done;

	d->ops->copy(d, &b);
	grig_wait(before + 1);
	return b.err;
}

/* ------------------------------------------------------------------ traffic */

enum { AREAS = 5, CELL = 16384, CELLS = 128, AREA = CELL * CELLS, BATCHES = 24, COPIES = 12 };

struct traffic {
	struct dev_extent area[AREAS];	/* two on the device, two registered, one not */
	uint8_t *want[AREAS];
	bool used[AREAS][CELLS];	/* in this round, by any end */
	uint64_t rnd;
	struct dev_batch batch[BATCHES];
	struct dev_copy copy[BATCHES][COPIES];
	struct sum sum[BATCHES], want_sum[BATCHES];
};

static uint64_t draw(struct traffic *t, uint64_t below)
{
	t->rnd = t->rnd * 6364136223846793005ull + 1442695040888963407ull;
	return (t->rnd >> 33) % below;
}

/* A free cell of area @a, often the one behind @near; used now. -1: none is free. */
static int take_cell(struct traffic *t, unsigned a, int near)
{
	int at = (int)draw(t, CELLS);

	if (near >= 0 && near + 1 < CELLS && !t->used[a][near + 1] && draw(t, 2))
		at = near + 1;
	for (int i = 0; i < CELLS; i++, at = (at + 1) % CELLS)
		if (!t->used[a][at]) {
			t->used[a][at] = true;
			return at;
		}
	return -1;
}

/* Batch @i: from one area to another, so that neighbours can be merged. */
static void make_batch(struct traffic *t, unsigned i)
{
	struct dev_batch *b = &t->batch[i];
	unsigned src = (unsigned)draw(t, AREAS), dst = (unsigned)draw(t, AREAS);
	int from = -1, to = -1;

	*b = (struct dev_batch) { .copy = t->copy[i], .done = grig_done, .urgent = !draw(t, 4) };
	if ((src > 1 || dst > 1) && draw(t, 2)) {
		b->sum = &t->sum[i];
		sum_start(b->sum);
		sum_start(&t->want_sum[i]);
	}
	for (unsigned nr = (unsigned)draw(t, COPIES + 1); nr; nr--) {
		bool whole = draw(t, 2);
		uint64_t off = whole ? 0 : draw(t, CELL / 2);
		uint64_t bytes = whole ? CELL : draw(t, CELL / 2);
		struct dev_copy *k = &b->copy[b->nr];

		from = take_cell(t, src, from);
		to = take_cell(t, dst, to);
		if (from < 0 || to < 0)
			break;
		*k = (struct dev_copy) {
			.src = &t->area[src], .src_off = (uint64_t)from * CELL + off,
			.dst = &t->area[dst], .dst_off = (uint64_t)to * CELL + off, .bytes = bytes,
		};
		memcpy(t->want[dst] + k->dst_off, t->want[src] + k->src_off, bytes);
		if (b->sum)
			sum_add(&t->want_sum[i], t->want[src] + k->src_off, bytes);
		b->nr++;
	}
}

static void traffic_round(struct dev *d, struct traffic *t)
{
	unsigned before = grig_nr_done;

	memset(t->used, 0, sizeof(t->used));
	for (unsigned i = 0; i < BATCHES; i++)
		make_batch(t, i);
	for (unsigned i = 0; i < BATCHES; i++)
		d->ops->copy(d, &t->batch[i]);
	grig_wait(before + BATCHES);
	for (unsigned i = 0; i < BATCHES; i++) {
		quiet_assert_int_eq(t->batch[i].err, 0);
		if (t->batch[i].sum)
			quiet_assert(sum_end(&t->sum[i]) == sum_end(&t->want_sum[i]));
	}
	for (unsigned a = 0; a < AREAS; a++)
		quiet_assert_mem_eq(grig_bytes(&t->area[a]), t->want[a], AREA);
}

void grig_traffic(struct dev *d, unsigned rounds, uint64_t seed)
{
	static struct traffic t;

	t.rnd = seed;
	for (unsigned a = 0; a < AREAS; a++) {
		t.area[a] = a < 2 ? grig_extent(d, AREA) : grig_chunk(AREA, a < 4);
		t.want[a] = calloc(1, AREA);
		for (unsigned i = 0; a > 1 && i < AREA; i++)
			((uint8_t *)t.area[a].map)[i] = t.want[a][i] = (uint8_t)draw(&t, 256);
	}
	for (unsigned i = 0; i < rounds; i++)
		traffic_round(d, &t);
	for (unsigned a = 0; a < AREAS; a++) {
		grig_drop(d, &t.area[a]);
		free(t.want[a]);
	}
}
