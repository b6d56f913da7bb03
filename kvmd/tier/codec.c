// SPDX-License-Identifier: Apache-2.0
/*
 * codec.c - the table of codecs, and the header of what they write.
 *
 * Pure functions; any thread.
 */
#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"

static const struct codec_ops *const table[NR_CODEC] = {
	[CODEC_WINDOW] = &codec_window,
	[CODEC_FP8_E4M3] = &codec_fp8_e4m3,
	[CODEC_FP8_E5M2] = &codec_fp8_e5m2,
	[CODEC_INT8] = &codec_int8,
	[CODEC_INT4] = &codec_int4,
	[CODEC_KIVI2] = &codec_kivi2,
};

const struct codec_ops *codec_get(uint32_t id)
{
	return id < NR_CODEC ? table[id] : NULL;
}

const char *codec_name(uint32_t id)
{
	if (id == CODEC_NONE)
		return "none";
	return id < NR_CODEC ? table[id]->name : NULL;
}

size_t codec_values(const struct codec_ops *ops, const struct codec_shape *s)
{
	return codec_shape_values(s, ops->grouped, ops->nr_axis);
}

void codec_seal(const struct codec_ops *ops, const struct codec_shape *s, struct codec_head *h,
		size_t bytes, void *dst)
{
	h->magic = CODEC_MAGIC;
	h->codec = (uint8_t)ops->id;
	h->tokens = s->tokens;
	h->channels = s->channels;
	h->group = s->group;
	h->axis = s->axis;
	h->bytes = (uint32_t)bytes;
	h->crc = crc32c(h, offsetof(struct codec_head, crc));
	memcpy(dst, h, sizeof(*h));
}

int codec_open(const struct codec_ops *ops, const struct codec_shape *s, const void *src,
	       size_t bytes, struct codec_head *ret_h)
{
	uint32_t rest = 0;
	struct codec_head h;

	if (bytes < sizeof(h))
		return -EBADMSG;
	memcpy(&h, src, sizeof(h));
	if (h.crc != crc32c(&h, offsetof(struct codec_head, crc)))
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(h.zero); i++)
		rest |= h.zero[i];
	if (rest || h.resv || h.magic != CODEC_MAGIC || h.codec != ops->id || h.bytes != bytes)
		return -EBADMSG;
	if (h.tokens != s->tokens || h.channels != s->channels || h.group != s->group ||
	    h.axis != s->axis)
		return -EBADMSG;
	if (h.form >= NR_CODEC_FORM || (ops->id != CODEC_WINDOW && (h.form || h.base || h.escapes)))
		return -EBADMSG;
	*ret_h = h;
	return 0;
}
