/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - a whole block, coded: what a place in RAM or on disk has of a block of a
 * group with a codec (kvmd-codec(7)).
 *
 *   0	struct image_head
 *   64	the length of each part, 32 bits; parts shard by shard, plane by plane
 *	the parts one after the other as their codecs write them (codec.h)
 *	zeros up to the group's coded size (include/kvmd/codec.h)
 *
 * The head has the XXH3-64 of what decoding gives back, so that whatever is wrong in
 * what is stored, a decoder included, is found before it is used; that of the stored
 * bytes is kept with the place. Pure functions without allocation; any thread.
 */
#ifndef KVMD_TIER_IMAGE_H
#define KVMD_TIER_IMAGE_H

#include "kvmd/codec.h"
#include "kvmd/lib/base.h"

#define IMAGE_MAGIC	0x494d564bu	/* "KVMI" */
#define IMAGE_VERSION	1u

struct image_head {
	uint32_t magic;
	uint16_t version;
	uint8_t codec;			/* enum kvmd_codec_id, of the group */
	uint8_t resv;			/* zero */
	uint32_t nr_parts;		/* over all shards that are stored */
	uint32_t table_crc;		/* CRC-32C of the lengths */
	uint64_t bytes;			/* up to the end of the last part */
	uint64_t plain_bytes;		/* of the block */
	uint64_t sum;			/* XXH3-64 of the block as decoded */
	uint32_t zero[5];
	uint32_t crc;			/* CRC-32C of the 60 bytes before */
};
BUILD_BUG_ON(sizeof(struct image_head) != KVMD_CODEC_HEAD);

/* Room that image_encode() needs besides. */
size_t image_scratch_bytes(const struct kvmd_group *g);
/*
 * The block at @plain, which has a codec that makes it smaller, to kvmd_codec_bytes() at
 * @dst, all of them written. *ret_error: the largest |decoded - plain| of a finite value.
 * -E2BIG: it cannot be coded, for it has values that the codec does not take, or too many
 * that do not fit; @dst was written to all the same. @plain is 2-byte aligned, @scratch
 * of image_scratch_bytes() too; nothing overlaps.
 */
int image_encode(const struct kvmd_group *g, uint32_t nr_shards, const void *plain, void *dst,
		 void *scratch, double *ret_error);
/*
 * Back: @plain has all bytes of the block, or -EBADMSG and they are of no use. @src has
 * kvmd_codec_bytes() and does not change meanwhile.
 */
int image_decode(const struct kvmd_group *g, uint32_t nr_shards, const void *src, void *plain);

#endif
