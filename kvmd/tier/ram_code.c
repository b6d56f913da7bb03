// SPDX-License-Identifier: Apache-2.0
/*
 * ram_code.c - coded blocks on their way between HBM and RAM: the memory that they are
 * plain in, and the work of coding and decoding.
 *
 *	core thread			device		worker
 *	ram_write(): a stage		copy: HBM -> stage
 *							code: stage -> place, sum
 *	finish(): sum kept, stage back
 *
 *	ram_read(): a stage				sum of the place compared, decode:
 *							place -> stage, its sum compared
 *					copy: stage -> HBM
 *	finish(): stage back
 *
 * Stages are made when a space is opened, of the size of its largest block, all of them
 * in one piece of memory, touched and pinned by a slow worker while they are in use
 * already. When larger ones are needed the old are given up, as soon as no request
 * has one. One is kept for urgent requests, so that a load never waits for cleaning.
 */
#include "kvmd/tier/ram_int.h"

#include <sys/mman.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/image.h"

/* ------------------------------------------------------------------- in a worker */

static int code(struct ram_ctx *x, void *place)
{
	const struct gpool *gp = x->r->gp;
	int err;

	err = image_encode(&gp->geo, gp->sp->nr_shards, x->stage->ext.map, place,
			   (char *)x->stage->ext.map + x->stage->ext.bytes, &x->code_error);
	if (!err)
		x->r->sum = sum_of(place, x->r->bytes);
	return err;
}

static int decode(struct ram_ctx *x, const void *place)
{
	const struct gpool *gp = x->r->gp;

	x->r->sum = sum_of(place, x->r->bytes);
	if (x->r->sum != x->want)
		return -EBADMSG;
	return image_decode(&gp->geo, gp->sp->nr_shards, place, x->stage->ext.map);
}

void ram_code_run(struct ram_ctx *x)
{
	void *place = (char *)x->c->ext.map + x->base;
	uint64_t begin = clock_ns();

	x->code_err = x->write ? code(x, place) : decode(x, place);
	x->code_ns = clock_ns() - begin;
}

/* What a slow worker does with stages: pin new ones, give up old ones. */
static void stages_fn(struct work *w)
{
	struct ram_stages *s = container_of(w, struct ram_stages, work);
	char text[128];

	if (s->drop) {
		if (s->pinned)
			dev_host_unpin(s->map);
		munmap(s->map, s->map_bytes);
		s->map = NULL;
	} else {
		/* What cannot be pinned is copied all the same, only slower. */
		s->pinned = dev_host_pin(s->map, s->map_bytes, text, sizeof(text)) > 0;
	}
	/* Pairs with the acquire in ram_code_exit(). */
	st_rel(&s->finished, true);
}

/* ---------------------------------------------------------------- core thread */

int ram_code_over(struct ram_ctx *x)
{
	struct gpool *gp = x->r->gp;

	if (x->write) {
		stat_add(CODEC_ENCODE_NS, x->code_ns);
		if (x->code_err) {
			if (x->code_err != -E2BIG)
				stat_inc(CODEC_FAILED);
			return x->code_err;
		}
		stat_inc(BLOCKS_ENCODED);
		stat_add(BYTES_ENCODED_IN, tier_block_bytes(gp));
		stat_add(BYTES_ENCODED_OUT, x->r->bytes);
		gp->codec_error = max(gp->codec_error, x->code_error);
		return 0;
	}
	stat_add(CODEC_DECODE_NS, x->code_ns);
	if (!x->code_err)
		stat_inc(BLOCKS_DECODED);
	else if (x->r->sum == x->want)
		stat_inc(CODEC_FAILED);		/* what is stored is right, what it says is not */
	return x->code_err;
}

bool ram_code_fits(const struct ram *rt, const struct gpool *gp)
{
	return rt->stages && rt->stages->block_bytes >= tier_block_bytes(gp) &&
	       rt->stages->scratch_bytes >= image_scratch_bytes(&gp->geo);
}

bool ram_stage_ready(const struct ram *rt, bool urgent)
{
	return rt->nr_free_stages > (urgent ? 0 : RAM_NR_STAGES_URGENT);
}

struct ram_stage *ram_stage_get(struct ram *rt)
{
	struct ram_stage *s = rt->free_stage;

	rt->free_stage = s->next;
	rt->nr_free_stages--;
	s->of->nr_used++;
	return s;
}

static void stages_over(struct work *w);

/* To the slow worker, if it has nothing of @s in hand and @s is done with. */
static void stages_give_up(struct ram *rt, struct ram_stages *s)
{
	if (!s->old || s->nr_used || s->working)
		return;
	s->working = s->drop = true;
	s->finished = false;
	workers_submit(rt->slow, &s->work);
}

void ram_stage_put(struct ram *rt, struct ram_stage *s)
{
	s->of->nr_used--;
	if (s->of->old) {
		stages_give_up(rt, s->of);
		return;
	}
	s->next = rt->free_stage;
	rt->free_stage = s;
	rt->nr_free_stages++;
}

static void stages_over(struct work *w)
{
	struct ram_stages *s = container_of(w, struct ram_stages, work), **at = &s->rt->stages;

	s->working = false;
	if (s->map) {
		stages_give_up(s->rt, s);
		return;
	}
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	mem_free(s);
}

/* @s is what requests get from now on. */
static void stages_use(struct ram *rt, struct ram_stages *s, uint64_t each)
{
	struct ram_stages *old = rt->stages;

	rt->free_stage = NULL;
	rt->nr_free_stages = 0;
	s->next = old;
	rt->stages = s;
	for (uint32_t i = s->nr; i-- > 0;) {
		s->stage[i] = (struct ram_stage) {
			.ext = { .fd = -1, .map = (char *)s->map + i * each,
				 .bytes = s->block_bytes },
			.of = s, .next = rt->free_stage,
		};
		rt->free_stage = &s->stage[i];
		rt->nr_free_stages++;
	}
	if (old) {
		old->old = true;
		stages_give_up(rt, old);
	}
	s->work = (struct work) { .fn = stages_fn, .done = stages_over };
	s->working = true;
	workers_submit(rt->slow, &s->work);
}

int ram_code_fit(struct tier *t, const struct gpool *gp)
{
	struct ram *rt = ram_of(t);
	uint64_t block = align_up(tier_block_bytes(gp), RAM_PAGE);
	uint64_t scratch = align_up(image_scratch_bytes(&gp->geo), RAM_PAGE), each;
	struct ram_stages *s;
	void *map;

	/* What no chunk can hold, coded, never comes here. */
	if (!gp->coded_bytes || ram_class(gp->coded_bytes) > rt->chunk_bytes ||
	    ram_code_fits(rt, gp))
		return 0;
	if (rt->stages) {
		block = max(block, rt->stages->block_bytes);
		scratch = max(scratch, rt->stages->scratch_bytes);
	}
	each = block + scratch;
	s = mem_zalloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->nr = (uint32_t)min(max(RAM_STAGES_BYTES / each, (uint64_t)2), (uint64_t)RAM_NR_STAGES);
	map = mmap(NULL, s->nr * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		ram_say(rt, "no %llu MiB to code blocks of %llu bytes in: they are kept plain",
			(unsigned long long)(s->nr * each) >> 20, (unsigned long long)block);
		mem_free(s);
		return -ENOMEM;
	}
	s->rt = rt;
	s->map = map;
	s->map_bytes = s->nr * each;
	s->block_bytes = block;
	s->scratch_bytes = scratch;
	stages_use(rt, s, each);
	return 0;
}

/* As ram_destroy(): no worker has anything of ours in hand, completions may never run. */
void ram_code_exit(struct ram *rt)
{
	struct ram_stages *s;

	while ((s = rt->stages)) {
		rt->stages = s->next;
		/* The acquire pairs with the release in stages_fn(). */
		BUG_ON(s->working && !ld_acq(&s->finished));
		if (s->map && s->pinned)
			dev_host_unpin(s->map);
		if (s->map)
			munmap(s->map, s->map_bytes);
		mem_free(s);
	}
}
