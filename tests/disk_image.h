/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_image.h - small files of a disk tier, written without one.
 *
 * For tests of whoever reads them. Blocks are of one space of one group; block
 * number n of a segment has payload bytes that follow from its key.
 */
#ifndef KVMD_TESTS_DISK_IMAGE_H
#define KVMD_TESTS_DISK_IMAGE_H

#include "kvmd/tier/disk_format.h"

#define IMAGE_SEGMENT	(1u << 20)
#define IMAGE_BLOCK	65536u		/* bytes of a block */
#define IMAGE_PER_SEG	16u		/* blocks that fill a segment */
#define IMAGE_GEN0	100u
#define IMAGE_EPOCH	3u
#define IMAGE_INC	0x1234u
#define IMAGE_SPACE	5u		/* entry of the space table */

struct image {
	char path[96];
	int fd;
	struct disk_super super;
	struct disk_space space;
};

/* A new file in $TMPDIR with superblocks and a space, no segment in use. */
void image_make(struct image *im, uint32_t nr_segments);
void image_put(struct image *im, const void *p, size_t bytes, uint64_t off);
void image_get(struct image *im, void *p, size_t bytes, uint64_t off);
/* Segment @seg of @state with blocks @nr; seq tells it from others. */
void image_segment(struct image *im, uint32_t seg, enum disk_seg_state state, uint32_t nr);
/* Header @i of segment @seg, as image_segment() writes it. */
struct disk_header image_header(const struct image *im, uint32_t seg, uint32_t i);
uint64_t image_header_at(const struct image *im, uint32_t seg, uint32_t i);
void image_remove(struct image *im);

#endif
