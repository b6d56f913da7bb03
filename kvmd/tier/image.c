// SPDX-License-Identifier: Apache-2.0
/*
 * image.c - a whole block to its coded form and back; see image.h.
 *
 * Pure functions; any thread.
 */
#include "kvmd/lib/crc32c.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/image.h"

BUILD_BUG_ON((int)KVMD_CODEC_WINDOW != CODEC_WINDOW || (int)KVMD_CODEC_FP8_E4M3 != CODEC_FP8_E4M3);
BUILD_BUG_ON((int)KVMD_CODEC_FP8_E5M2 != CODEC_FP8_E5M2 || (int)KVMD_CODEC_INT8 != CODEC_INT8);
BUILD_BUG_ON((int)KVMD_CODEC_INT4 != CODEC_INT4 || (int)KVMD_CODEC_KIVI2 != CODEC_KIVI2);
BUILD_BUG_ON((int)KVMD_NR_CODEC != NR_CODEC || KVMD_CODEC_HEAD != CODEC_HEAD_BYTES);

/* A block under way. */
struct image {
	const struct kvmd_group *g;
	uint64_t per_shard;		/* parts */
	uint64_t nr_parts;
	size_t part_bytes;		/* plain */
	uint64_t bytes;			/* coded, in all */
};

static struct image image_of(const struct kvmd_group *g, uint32_t nr_shards)
{
	uint32_t shards = g->flags & KVMD_GROUP_REPLICA ? 1 : nr_shards;

	return (struct image) {
		.g = g, .per_shard = kvmd_codec_parts(g), .nr_parts = kvmd_codec_parts(g) * shards,
		.part_bytes = 2 * kvmd_codec_values(g), .bytes = kvmd_codec_bytes(g, nr_shards),
	};
}

static const struct codec_ops *part_codec(const struct image *m, uint64_t i, struct codec_shape *s)
{
	const struct kvmd_group *g = m->g;
	uint64_t p = i % m->per_shard;
	const struct codec_ops *ops = codec_get(kvmd_codec_of_part(g, p));

	*s = (struct codec_shape) { .tokens = g->block_tokens, .channels = g->codec.channels };
	if (ops->grouped)
		s->group = kvmd_codec_scale_values(&g->codec);
	if (ops->id == CODEC_KIVI2 && kvmd_codec_is_key(&g->codec, p))
		s->axis = CODEC_PER_CHANNEL;
	return ops;
}

static uint64_t data_off(const struct image *m)
{
	return sizeof(struct image_head) + m->nr_parts * sizeof(uint32_t);
}

size_t image_scratch_bytes(const struct kvmd_group *g)
{
	return CODEC_HEAD_BYTES + 2 * kvmd_codec_values(g);
}

/* One part to @dst, of @room bytes. -E2BIG: it does not fit, or its codec does not take it. */
static int encode_part(const struct codec_ops *ops, const struct codec_shape *s,
		       const uint16_t *src, uint8_t *dst, size_t room, void *scratch,
		       size_t *ret_bytes)
{
	size_t most = ops->encoded_max(s);
	int err;

	if (room >= most) {
		err = ops->encode(s, src, dst, room, ret_bytes);
		return err ? -E2BIG : 0;
	}
	/* Only window writes less than its most, which is what the scratch has room for. */
	if (!ops->lossless)
		return -E2BIG;
	err = ops->encode(s, src, scratch, most, ret_bytes);
	if (err || *ret_bytes > room)
		return -E2BIG;
	memcpy(dst, scratch, *ret_bytes);
	return 0;
}

int image_encode(const struct kvmd_group *g, uint32_t nr_shards, const void *plain, void *dst,
		 void *scratch, double *ret_error)
{
	struct image m = image_of(g, nr_shards);
	struct image_head h = { .magic = IMAGE_MAGIC, .version = IMAGE_VERSION };
	uint8_t *out = dst, *table = out + sizeof(h);
	uint64_t at = data_off(&m);
	float worst = 0;
	struct sum sum;

	if (!m.bytes)
		return -EINVAL;
	sum_start(&sum);
	for (uint64_t i = 0; i < m.nr_parts; i++) {
		const uint16_t *src = (const void *)((const uint8_t *)plain + i * m.part_bytes);
		const struct codec_ops *ops;
		struct codec_shape s;
		uint32_t len;
		size_t n = 0;

		ops = part_codec(&m, i, &s);
		if (encode_part(ops, &s, src, out + at, m.bytes - at, scratch, &n))
			return -E2BIG;
		if (!ops->lossless) {
			if (ops->decode(&s, out + at, n, scratch))
				return -EBADMSG;
			worst = max(worst, codec_worst(src, scratch, m.part_bytes / 2));
			src = scratch;
		}
		sum_add(&sum, src, m.part_bytes);
		len = (uint32_t)n;
		memcpy(table + i * sizeof(len), &len, sizeof(len));
		at += n;
	}
	memset(out + at, 0, m.bytes - at);
	h.codec = g->codec.id;
	h.nr_parts = (uint32_t)m.nr_parts;
	h.table_crc = crc32c(table, m.nr_parts * sizeof(uint32_t));
	h.bytes = at;
	h.plain_bytes = m.nr_parts * m.part_bytes;
	h.sum = sum_end(&sum);
	h.crc = crc32c(&h, offsetof(struct image_head, crc));
	memcpy(out, &h, sizeof(h));
	*ret_error = (double)worst;
	return 0;
}

static bool head_is_fine(const struct image *m, const struct image_head *h, const uint8_t *table)
{
	if (h->crc != crc32c(h, offsetof(struct image_head, crc)) || h->magic != IMAGE_MAGIC ||
	    h->version != IMAGE_VERSION || h->codec != m->g->codec.id || h->resv ||
	    !mem_is_zero(h->zero, sizeof(h->zero)))
		return false;
	if (h->nr_parts != m->nr_parts || h->plain_bytes != m->nr_parts * m->part_bytes ||
	    h->bytes > m->bytes || h->bytes < data_off(m))
		return false;
	return h->table_crc == crc32c(table, m->nr_parts * sizeof(uint32_t));
}

int image_decode(const struct kvmd_group *g, uint32_t nr_shards, const void *src, void *plain)
{
	struct image m = image_of(g, nr_shards);
	const uint8_t *in = src, *table = in + sizeof(struct image_head);
	uint64_t at = data_off(&m);
	struct image_head h;
	struct sum sum;

	if (!m.bytes)
		return -EINVAL;
	memcpy(&h, in, sizeof(h));
	if (!head_is_fine(&m, &h, table))
		return -EBADMSG;
	sum_start(&sum);
	for (uint64_t i = 0; i < m.nr_parts; i++) {
		uint16_t *dst = (void *)((uint8_t *)plain + i * m.part_bytes);
		const struct codec_ops *ops;
		struct codec_shape s;
		uint32_t len;

		memcpy(&len, table + i * sizeof(len), sizeof(len));
		ops = part_codec(&m, i, &s);
		if (len > h.bytes - at || ops->decode(&s, in + at, len, dst))
			return -EBADMSG;
		sum_add(&sum, dst, m.part_bytes);
		at += len;
	}
	return at == h.bytes && sum_end(&sum) == h.sum ? 0 : -EBADMSG;
}
