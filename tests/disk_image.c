// SPDX-License-Identifier: Apache-2.0
/*
 * disk_image.c - see disk_image.h.
 */
#include "tests/disk_image.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/sum.h"
#include "tests/harness.h"

void image_put(struct image *im, const void *p, size_t bytes, uint64_t off)
{
	T_EQ(pwrite(im->fd, p, bytes, (off_t)off), bytes);
}

void image_get(struct image *im, void *p, size_t bytes, uint64_t off)
{
	T_EQ(pread(im->fd, p, bytes, (off_t)off), bytes);
}

void image_make(struct image *im, uint32_t nr_segments)
{
	const char *tmp = getenv("TMPDIR");
	uint64_t bytes = 4ull * IMAGE_SEGMENT + nr_segments * (uint64_t)IMAGE_SEGMENT;
	char msg[256];

	memset(im, 0, sizeof(*im));
	snprintf(im->path, sizeof(im->path), "%s/disk.XXXXXX", tmp ? tmp : "/tmp");
	im->fd = mkstemp(im->path);
	T(im->fd >= 0);
	T_EQ(disk_super_make(&im->super, bytes, IMAGE_SEGMENT, IMAGE_BLOCK, msg, sizeof(msg)), 0);
	T(im->super.nr_segments >= nr_segments);
	im->super.nr_segments = nr_segments;
	im->super.gen0 = IMAGE_GEN0;
	memset(im->super.set_uuid, 0xab, sizeof(im->super.set_uuid));
	for (unsigned i = 0; i < 2; i++) {
		im->super.seq = i + 1;
		disk_super_finish(&im->super);
		image_put(im, &im->super, sizeof(im->super), i * DISK_ALIGN);
	}
	im->space = (struct disk_space) {
		.idx = IMAGE_SPACE, .seq = 1, .name = "llama", .tenant = "default",
		.epoch = IMAGE_EPOCH, .nr_groups = 1, .nr_shards = 1, .inc = IMAGE_INC,
		.group[0] = { .plane_bytes = IMAGE_BLOCK, .planes = 1, .block_tokens = 16 },
	};
	disk_space_finish(&im->space);
	image_put(im, &im->space, sizeof(im->space), disk_space_at(IMAGE_SPACE, 0));
	T(!ftruncate(im->fd, (off_t)disk_data_at(&im->super, nr_segments)));
}

static void payload_of(const struct disk_header *h, uint64_t *buf)
{
	uint64_t word;

	memcpy(&word, h->key, sizeof(word));
	for (uint32_t i = 0; i < IMAGE_BLOCK / 8; i++)
		buf[i] = word * 0x9e3779b97f4a7c15ull + i;
}

struct disk_header image_header(const struct image *im, uint32_t seg, uint32_t i)
{
	static uint64_t buf[IMAGE_BLOCK / 8];
	struct disk_header h = {
		.generation = IMAGE_GEN0 + 1 + seg, .space = IMAGE_SPACE, .pos = i,
		.epoch = IMAGE_EPOCH, .bytes = IMAGE_BLOCK, .space_inc = IMAGE_INC,
		.off = i * (IMAGE_BLOCK / DISK_ALIGN), .seg = seg, .block_gen = 1,
	};
	uint64_t n = (uint64_t)seg << 32 | (i + 1);

	(void)im;
	memcpy(h.key, &n, sizeof(n));
	n--;
	if (i)
		memcpy(h.parent, &n, sizeof(n));
	payload_of(&h, buf);
	h.sum = sum_of(buf, sizeof(buf));
	disk_header_finish(&h);
	return h;
}

uint64_t image_header_at(const struct image *im, uint32_t seg, uint32_t i)
{
	return disk_summary_at(&im->super, seg) + DISK_ALIGN + i * sizeof(struct disk_header);
}

void image_segment(struct image *im, uint32_t seg, enum disk_seg_state state, uint32_t nr)
{
	static uint64_t buf[IMAGE_BLOCK / 8];
	struct disk_head head = {
		.seg = seg, .state = state, .generation = IMAGE_GEN0 + 1 + seg, .seq = seg + 1,
		.nr = state == DISK_SEG_SEALED ? nr : 0,
	};

	memcpy(head.set_uuid, im->super.set_uuid, sizeof(head.set_uuid));
	disk_head_finish(&head);
	image_put(im, &head, sizeof(head), disk_summary_at(&im->super, seg));
	for (uint32_t i = 0; i < nr; i++) {
		struct disk_header h = image_header(im, seg, i);

		payload_of(&h, buf);
		image_put(im, buf, sizeof(buf), disk_data_at(&im->super, seg) +
			  (uint64_t)h.off * DISK_ALIGN);
		image_put(im, &h, sizeof(h), image_header_at(im, seg, i));
	}
}

void image_remove(struct image *im)
{
	close(im->fd);
	unlink(im->path);
}
