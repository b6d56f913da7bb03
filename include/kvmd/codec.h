/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.h - a group's codec as its client describes it (struct kvmd_codec): is the
 * description right, what is each part, how many bytes has a coded block.
 *
 * Parts are numbered over all planes of a shard; every shard is alike, and of
 * replicas one is stored. A coded block has the same size whatever its values: the
 * most that its parts can take, but of `window' parts, whose most would be more than
 * the plain ones, what they take when at most one value in KVMD_CODEC_ESCAPES has an
 * exponent out of the window. A block that needs more is stored plain. kvmd-codec(7).
 * Pure, for a client and the daemon alike; any thread.
 */
#ifndef KVMD_CODEC_H
#define KVMD_CODEC_H

#include <stddef.h>

#include "kvmd/wire.h"

#define KVMD_CODEC_HEAD		64u	/* bytes, of a block, and of each part */
#define KVMD_CODEC_ALIGN	4096u	/* a coded block has a multiple of it */
#define KVMD_CODEC_ESCAPES	64u	/* one value of so many may be out of the window */
#define KVMD_CODEC_PART_MOST	(512ull << 20)	/* bytes of a part */

/* Does it have a scale per scale_values values? */
static inline int kvmd_codec_is_grouped(unsigned id)
{
	return id == KVMD_CODEC_INT8 || id == KVMD_CODEC_INT4 || id == KVMD_CODEC_KIVI2;
}

static inline const char *kvmd_codec_name(unsigned id)
{
	static const char *const name[KVMD_NR_CODEC] = {
		"none", "window", "fp8_e4m3", "fp8_e5m2", "int8", "int4", "kivi2",
	};

	return id < KVMD_NR_CODEC ? name[id] : "?";
}

/* Parts of a block in one shard. */
static inline uint64_t kvmd_codec_parts(const struct kvmd_group *g)
{
	return (uint64_t)g->planes * g->codec.parts;
}

/* Values of a part. */
static inline uint64_t kvmd_codec_values(const struct kvmd_group *g)
{
	return (uint64_t)g->block_tokens * g->codec.channels;
}

/* Values per scale; 0: it has none. */
static inline uint32_t kvmd_codec_scale_values(const struct kvmd_codec *c)
{
	if (!kvmd_codec_is_grouped(c->id))
		return 0;
	return c->scale_values ? c->scale_values : 64;
}

/* How part @p of a shard is coded. */
static inline unsigned kvmd_codec_of_part(const struct kvmd_group *g, uint64_t p)
{
	const struct kvmd_codec *c = &g->codec;

	if (p < c->exact_first || p >= kvmd_codec_parts(g) - c->exact_last)
		return KVMD_CODEC_WINDOW;
	return c->id;
}

/* Is part @p of keys: grouped per channel by kivi2? */
static inline int kvmd_codec_is_key(const struct kvmd_codec *c, uint64_t p)
{
	return !c->kv_run || p / c->kv_run % 2 == 0;
}

/* Bytes that a part has in the coded block, coded by @id. */
static inline uint64_t kvmd_codec_part_bytes(const struct kvmd_group *g, unsigned id, int key)
{
	uint64_t n = kvmd_codec_values(g), per = kvmd_codec_scale_values(&g->codec), nr = 0;

	if (per && id == KVMD_CODEC_KIVI2 && key)
		nr = (g->block_tokens + per - 1) / per * g->codec.channels;
	else if (per)
		nr = (g->codec.channels + per - 1) / per * g->block_tokens;
	switch (id) {
	case KVMD_CODEC_WINDOW:
		return KVMD_CODEC_HEAD + n + (n + 1) / 2 + n / KVMD_CODEC_ESCAPES;
	case KVMD_CODEC_INT8:
		return KVMD_CODEC_HEAD + 2 * nr + n;
	case KVMD_CODEC_INT4:
		return KVMD_CODEC_HEAD + 2 * nr + (n + 1) / 2;
	case KVMD_CODEC_KIVI2:
		return KVMD_CODEC_HEAD + 4 * nr + (n + 3) / 4;
	default:
		return KVMD_CODEC_HEAD + n;	/* fp8 */
	}
}

/*
 * Bytes of a coded block of the group, which is right, over @nr_shards; 0: it has no codec,
 * or one that makes nothing smaller: its blocks are plain below HBM too.
 */
static inline uint64_t kvmd_codec_bytes(const struct kvmd_group *g, uint32_t nr_shards)
{
	uint32_t shards = g->flags & KVMD_GROUP_REPLICA ? 1 : nr_shards;
	uint64_t plain = g->planes * g->plane_bytes * shards, sum = 0, p;

	if (g->codec.id == KVMD_CODEC_NONE)
		return 0;
	for (p = 0; p < kvmd_codec_parts(g); p++)
		sum += sizeof(uint32_t) + kvmd_codec_part_bytes(g, kvmd_codec_of_part(g, p),
								kvmd_codec_is_key(&g->codec, p));
	sum = KVMD_CODEC_HEAD + sum * shards;
	sum = (sum + KVMD_CODEC_ALIGN - 1) / KVMD_CODEC_ALIGN * KVMD_CODEC_ALIGN;
	return sum < plain ? sum : 0;
}

/* NULL: the codec of @g fits its other fields, which are right; else what must be what. */
static inline const char *kvmd_codec_wrong(const struct kvmd_group *g)
{
	const struct kvmd_codec *c = &g->codec;
	uint64_t nr = kvmd_codec_parts(g), bytes = kvmd_codec_values(g) * 2;

	if (c->id >= KVMD_NR_CODEC)
		return "codec.id must be that of a codec, see kvmd-codec(7)";
	if (c->resv0 || c->resv1 || c->resv2[0] || c->resv2[1] || c->resv2[2])
		return "codec.resv0, resv1, resv2 must be zero";
	if (c->id == KVMD_CODEC_NONE) {
		if (c->dtype || c->scale_values || c->parts || c->channels || c->kv_run ||
		    c->exact_first || c->exact_last)
			return "codec.id must be set when its other fields are: or leave all zero";
		return NULL;
	}
	if (c->dtype != KVMD_DTYPE_BF16)
		return "codec.dtype must be bf16, or codec.id none";
	if (!kvmd_codec_is_grouped(c->id) ? c->scale_values :
	    c->scale_values && c->scale_values != 32 && c->scale_values != 64 &&
	    c->scale_values != 128)
		return "codec.scale_values must be 0, 32, 64 or 128 for int8, int4 and kivi2, "
		       "else 0";
	if (!c->parts || nr > KVMD_MAX_CODEC_PARTS)
		return "codec.parts must be 1 or more, and at most 65536 in all planes";
	if (!c->channels || bytes > KVMD_CODEC_PART_MOST || bytes * c->parts != g->plane_bytes)
		return "codec.channels must make plane_bytes = parts * block_tokens * channels * "
		       "2, a part at most 512 MiB";
	if (c->kv_run && nr % (2u * c->kv_run))
		return "codec.kv_run must divide half of the parts of all planes, or be 0";
	if ((uint64_t)c->exact_first + c->exact_last > nr)
		return "codec.exact_first and codec.exact_last must not be more than the parts of "
		       "all planes";
	return NULL;
}

#endif
