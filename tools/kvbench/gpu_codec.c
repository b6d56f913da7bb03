// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_codec.c - codecs' kernels over many parts at once: memory for them, and a first
 * run of each that is looked at.
 *
 * A part is K or V of 16 tokens, 8 heads of 128 values each.
 */
#include <stdlib.h>

#include "kvmd/tier/codec.h"
#include "tools/kvbench/on_dev.h"

#define TOKENS		16u
#define CHANNELS	1024u
#define PART		(2u * TOKENS * CHANNELS)
#define GROUP		64u

static struct codec_shape shape_of(unsigned id)
{
	const bool grouped = id >= CODEC_INT8;

	return (struct codec_shape) {
		.tokens = TOKENS, .channels = CHANNELS, .group = grouped ? GROUP : 0,
		.axis = id == CODEC_KIVI2 ? CODEC_PER_CHANNEL : CODEC_PER_TOKEN,
	};
}

static int launch(struct one_codec *o, enum kn_kernel k, const void *parts)
{
	const struct codec_shape s = shape_of(o->id);
	const struct kn_codec_args args = {
		.part = (const struct kn_part *)parts, .status = o->status, .coded_bytes = o->bytes,
		.tokens = s.tokens, .channels = s.channels, .group = s.group, .axis = s.axis,
	};

	return kn_launch(o->c->d, k, o->c->parts, 1, 1, 0, &args);
}

int encode_launch(void *one_codec)
{
	struct one_codec *o = (struct one_codec *)one_codec;

	return launch(o, KN_ENCODE(o->id), o->encode);
}

int decode_launch(void *one_codec)
{
	struct one_codec *o = (struct one_codec *)one_codec;

	return launch(o, KN_DECODE(o->id), o->decode);
}

/* ------------------------------------------------------------ set-up */

/* 0, or the first error of a part. */
static int status_of(struct one_codec *o, int32_t *status)
{
	int err = kn_get(o->c->d, status, o->status, o->c->parts * sizeof(*status));

	for (uint32_t i = 0; i < o->c->parts && !err; i++)
		err = status[i];
	return err;
}

/* Encode, take the lengths over, decode. */
static int first_run(struct one_codec *o, struct kn_part *part, uint64_t slot)
{
	struct coding *c = o->c;
	const size_t list = c->parts * sizeof(*part);
	uint32_t *bytes = (uint32_t *)calloc(c->parts, sizeof(*bytes));
	int err = bytes ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < c->parts; i++)
		part[i] = (struct kn_part) { c->plain + (uint64_t)i * PART, o->coded + i * slot,
					     (uint32_t)slot, 0 };
	if (!err)
		err = kn_put(c->d, o->encode, part, list);
	if (!err)
		err = encode_launch(o);
	if (!err)
		err = kn_get(c->d, bytes, o->bytes, c->parts * sizeof(*bytes));
	if (!err)
		err = status_of(o, (int32_t *)(void *)part);
	o->moved = (uint64_t)c->parts * PART;
	for (uint32_t i = 0; i < c->parts && !err; i++) {
		part[i] = (struct kn_part) { o->coded + i * slot, c->back + (uint64_t)i * PART,
					     bytes[i], 0 };
		o->moved += bytes[i];
	}
	if (!err)
		err = kn_put(c->d, o->decode, part, list);
	if (!err)
		err = decode_launch(o);
	if (!err)
		err = status_of(o, (int32_t *)(void *)part);
	free(bytes);
	return err;
}

/* What `window' gave back, of the first parts. */
static int is_the_same(struct coding *c)
{
	const size_t n = min(c->parts, 64u) * (size_t)PART;
	char *v = (char *)malloc(2 * n);
	int err = v ? kn_get(c->d, v, c->plain, n) : -ENOMEM;

	if (!err)
		err = kn_get(c->d, v + n, c->back, n);
	if (!err && memcmp(v, v + n, n))
		err = -EILSEQ;
	free(v);
	return err;
}

static int open_one(struct coding *c, unsigned i, struct kn_part *part)
{
	struct one_codec *o = &c->of[i];
	struct codec_shape s;
	uint64_t slot;
	int err;

	*o = (struct one_codec) { .c = c, .id = CODEC_WINDOW + i };
	s = shape_of(o->id);
	slot = align_up(codec_get(o->id)->encoded_max(&s), 256);
	o->coded = (char *)kn_alloc(c->d, c->parts * slot);
	o->encode = kn_alloc(c->d, c->parts * sizeof(*part));
	o->decode = kn_alloc(c->d, c->parts * sizeof(*part));
	o->status = (int32_t *)kn_alloc(c->d, c->parts * sizeof(int32_t));
	o->bytes = (uint32_t *)kn_alloc(c->d, c->parts * sizeof(uint32_t));
	if (!o->coded || !o->encode || !o->decode || !o->status || !o->bytes)
		return -ENOMEM;
	err = first_run(o, part, slot);
	return err || o->id != CODEC_WINDOW ? err : is_the_same(c);
}

int coding_open(struct coding *c, struct kn_dev *d, uint64_t bytes, char *msg, size_t n)
{
	struct kn_part *part;
	int err;

	*c = (struct coding) { .d = d, .parts = (uint32_t)(bytes / PART) };
	part = (struct kn_part *)calloc(c->parts, sizeof(*part));
	c->plain = (char *)kn_alloc(d, (size_t)c->parts * PART);
	c->back = (char *)kn_alloc(d, (size_t)c->parts * PART);
	err = part && c->plain && c->back ? fill_normal(d, c->plain, (size_t)c->parts * PART) :
					    -ENOMEM;
	if (err)
		snprintf(msg, n, "codecs: %s", err == -EIO ? kn_error(d) : strerror(-err));
	for (unsigned i = 0; i < NR_CODED && !err; i++) {
		err = open_one(c, i, part);
		if (err)
			snprintf(msg, n, "%s: %s", codec_name(CODEC_WINDOW + i),
				 err == -EIO ? kn_error(d) : err == -EILSEQ ?
				 "other values came back" : strerror(-err));
	}
	free(part);
	return err;
}

void coding_close(struct coding *c)
{
	if (!c->d)
		return;
	kn_free(c->d, c->plain);
	kn_free(c->d, c->back);
	for (unsigned i = 0; i < NR_CODED; i++) {
		kn_free(c->d, c->of[i].coded);
		kn_free(c->d, c->of[i].encode);
		kn_free(c->d, c->of[i].decode);
		kn_free(c->d, c->of[i].status);
		kn_free(c->d, c->of[i].bytes);
	}
	c->d = NULL;
}
