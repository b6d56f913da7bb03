// SPDX-License-Identifier: Apache-2.0
/*
 * replay_device.c - does a step's reads and writes, late if that is asked for.
 *
 * The ring of steps holds two more than the lateness: a step becomes due
 * before the ring is full, so device_begin() waits only for work that goes on.
 */
#include "tools/kvtrace/replay_bytes.h"
#include "tools/kvtrace/replay_engine.h"

static void note_wrong(struct device *d, const struct work_step *s, const struct work_item *it,
		       struct replay_wrong where)
{
	if (d->page->has_wrong)
		return;
	where.req = s->req;
	where.pos = it->pos;
	where.slot = it->slot;
	d->page->wrong = where;
	/* release: the parent reads what is noted only with the flag */
	st_rel(&d->page->has_wrong, 1);
}

/*
 * The bytes of a plane at @at; NULL: they cannot be read. A GPU's pass through a
 * buffer, which is one thread's at a time.
 */
static const void *plane_read(struct device *d, const void *at, uint64_t bytes)
{
	if (!d->buf)
		return at;
	return kvc_mem_get(d->k, d->buf, at, bytes) ? NULL : d->buf;
}

/* 0 or -errno. */
static int plane_fill(struct device *d, void *at, uint64_t bytes, uint64_t seed, uint32_t sh,
		      uint32_t pl)
{
	bytes_fill(d->buf ? d->buf : at, bytes, seed, sh, pl, d->o->codec);
	return d->buf ? kvc_mem_put(d->k, at, d->buf, bytes) : 0;
}

/* Turn a bit, for tests. */
static void plane_spoil(struct device *d, uint8_t *at)
{
	uint8_t b = 0;

	if (!d->buf) {
		*at ^= 1;
		return;
	}
	if (!kvc_mem_get(d->k, &b, at, 1)) {
		b ^= 1;
		(void)kvc_mem_put(d->k, at, &b, 1);
	}
}

/* Wrong bytes of one plane, all of them if it cannot be read; *ret_at the first. */
static uint64_t verify_plane(struct device *d, const struct work_step *s,
			     const struct work_item *it, uint32_t sh, uint32_t pl, uint64_t *ret_at)
{
	const struct kvc_view *v = kvc_view(d->k);
	uint64_t bytes = v->group[0].plane_bytes;
	const void *p = plane_read(d, kvc_addr_ro(v, 0, sh, pl, it->slot), bytes);

	if (!p)
		return bytes;
	return it->kind == WORK_VERIFY ?
		bytes_verify(p, bytes, it->seed, sh, pl, d->o->codec, ret_at) :
		bytes_sample(p, bytes, it->seed, sh, pl, d->o->codec, s->step, ret_at);
}

/* Wrong bytes of one block. */
static uint64_t verify_block(struct device *d, const struct work_step *s,
			     const struct work_item *it)
{
	const struct kvc_view *v = kvc_view(d->k);
	const struct kvc_group_view *g = &v->group[0];
	uint64_t wrong = 0, n, at = 0;
	uint32_t sh, pl;

	for (sh = 0; sh < g->nr_shards; sh++) {
		for (pl = 0; pl < g->planes; pl++) {
			n = verify_plane(d, s, it, sh, pl, &at);
			if (n)
				note_wrong(d, s, it, (struct replay_wrong){
					.offset = at, .shard = sh, .plane = pl });
			wrong += n;
		}
	}
	return wrong;
}

/* Bytes that could not be written count as wrong ones. */
static void write_block(struct device *d, const struct work_step *s, const struct work_item *it)
{
	const struct kvc_view *v = kvc_view(d->k);
	const struct kvc_group_view *g = &v->group[0];
	uint32_t sh, pl;

	if (!g->plane->rw)
		return;			/* a null device */
	for (sh = 0; sh < g->nr_shards; sh++)
		for (pl = 0; pl < g->planes; pl++) {
			if (!plane_fill(d, kvc_addr(v, 0, sh, pl, it->slot), g->plane_bytes,
					it->seed, sh, pl))
				continue;
			note_wrong(d, s, it, (struct replay_wrong){ .shard = sh, .plane = pl });
			d->page->wrong_bytes += g->plane_bytes;
		}
	d->page->written_blocks++;
	if (d->o->corrupt && d->page->written_blocks % d->o->corrupt == 0)
		plane_spoil(d, (uint8_t *)kvc_addr(v, 0, 0, 0, it->slot) + g->plane_bytes / 2);
}

static void do_step(struct device *d, const struct work_step *s)
{
	uint64_t wrong;
	uint32_t i;

	for (i = 0; i < s->nr; i++) {
		const struct work_item *it = &s->item[i];

		if (it->kind == WORK_WRITE) {
			write_block(d, s, it);
			continue;
		}
		wrong = verify_block(d, s, it);
		d->page->verified_blocks++;
		d->page->wrong_bytes += wrong;
		d->page->wrong_blocks += wrong > 0;
	}
	kvc_step_complete(d->k, 0, s->step);
}

static bool is_due(const struct device *d)
{
	if (d->head == d->tail)
		return false;
	return d->idle || d->stop || d->tail - d->head > d->o->late;
}

static void *device_thread(void *arg)
{
	struct device *d = arg;

	pthread_mutex_lock(&d->lock);
	for (;;) {
		while (!is_due(d) && !(d->stop && d->head == d->tail))
			pthread_cond_wait(&d->more, &d->lock);
		if (d->head == d->tail)
			break;
		pthread_mutex_unlock(&d->lock);
		/* Nobody else touches a step between submit and head. */
		do_step(d, &d->ring[d->head % d->nr_ring]);
		pthread_mutex_lock(&d->lock);
		d->head++;
		pthread_cond_signal(&d->room);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

int device_start(struct device *d, struct kvc *k, const struct replay_opts *o,
		 struct replay_slot *page)
{
	int err;

	memset(d, 0, sizeof(*d));
	d->k = k;
	d->o = o;
	d->page = page;
	d->nr_ring = o->late + 2;
	if (kvc_cuda_device(k, 0) != -EOPNOTSUPP) {
		d->buf = malloc(kvc_view(k)->group[0].plane_bytes);
		if (!d->buf)
			return -ENOMEM;
	}
	d->ring = calloc(d->nr_ring, sizeof(*d->ring));
	if (!d->ring) {
		free(d->buf);
		return -ENOMEM;
	}
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->more, NULL);
	pthread_cond_init(&d->room, NULL);
	if (!o->late)
		return 0;
	err = pthread_create(&d->thread, NULL, device_thread, d);
	if (err) {
		free(d->buf);
		free(d->ring);
		d->ring = NULL;
		return -err;
	}
	d->has_thread = true;
	return 0;
}

void device_stop(struct device *d)
{
	uint64_t i;

	if (!d->ring)
		return;
	if (d->has_thread) {
		pthread_mutex_lock(&d->lock);
		d->stop = true;
		pthread_cond_signal(&d->more);
		pthread_mutex_unlock(&d->lock);
		pthread_join(d->thread, NULL);
	}
	pthread_cond_destroy(&d->room);
	pthread_cond_destroy(&d->more);
	pthread_mutex_destroy(&d->lock);
	for (i = 0; i < d->nr_ring; i++)
		free(d->ring[i].item);
	free(d->buf);
	free(d->ring);
	d->ring = NULL;
}

struct work_step *device_begin(struct device *d, uint64_t step, uint64_t req)
{
	struct work_step *s;

	pthread_mutex_lock(&d->lock);
	while (d->tail - d->head == d->nr_ring)
		pthread_cond_wait(&d->room, &d->lock);
	pthread_mutex_unlock(&d->lock);
	s = &d->ring[d->tail % d->nr_ring];
	s->step = step;
	s->req = req;
	s->nr = 0;
	return s;
}

int device_add(struct work_step *s, const struct work_item *it)
{
	struct work_item *item;
	uint32_t cap;

	if (s->nr == s->cap) {
		cap = max(2 * s->cap, 64U);
		item = realloc(s->item, cap * sizeof(*item));
		if (!item)
			return -ENOMEM;
		s->item = item;
		s->cap = cap;
	}
	s->item[s->nr++] = *it;
	return 0;
}

void device_submit(struct device *d)
{
	if (!d->has_thread) {
		do_step(d, &d->ring[d->tail % d->nr_ring]);
		d->head = ++d->tail;
		return;
	}
	pthread_mutex_lock(&d->lock);
	d->tail++;
	d->idle = false;
	if (is_due(d))
		pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
}

void device_idle(struct device *d)
{
	if (!d->has_thread)
		return;
	pthread_mutex_lock(&d->lock);
	d->idle = true;
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
}

void device_quiesce(struct device *d)
{
	device_idle(d);
	pthread_mutex_lock(&d->lock);
	while (d->head != d->tail)
		pthread_cond_wait(&d->room, &d->lock);
	pthread_mutex_unlock(&d->lock);
}
