/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_format.h - what is in a file of the disk tier (kvmd-disk(5)).
 *
 *   0       superblock, copy A, 4 KiB      4096    copy B
 *   8192    space table: 256 entries of 2 x 4 KiB (copy A, copy B)
 *   table   per segment: a head of 4 KiB and nr_headers headers of 128 bytes
 *   data    per segment: segment_bytes of payloads, each 4 KiB aligned
 *
 * Numbers are little endian. CRCs are CRC-32C (Castagnoli) over the bytes before
 * the crc field. All summaries lie side by side, so that recovery is one
 * sequential read; a block's header is therefore not in front of its payload but
 * in its segment's summary, written after the payload and before the segment's
 * head says how many there are. A header's CRC binds key, segment, generation,
 * offset and the payload's XXH3-64 together, so that bytes of another place,
 * time or block never verify, and whoever reads the payload can verify it in
 * passing, by its plain XXH3-64.
 *
 * A segment is opened (head with its new generation), written front to back,
 * then sealed (head with the number of headers). generation grows with every
 * reuse of a segment, from the file's gen0 on: headers of another generation
 * are not there. Each header that verifies counts, one that does not is a hole:
 * a write that failed, or in an unsealed segment one that was not over. A head
 * that does not verify: the segment is empty, and its next generation is above
 * that of any header in it. Pure functions; any thread.
 */
#ifndef KVMD_TIER_DISK_FORMAT_H
#define KVMD_TIER_DISK_FORMAT_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

#define DISK_VERSION		1u
#define DISK_ALIGN		4096u
#define DISK_MAX_SPACES		256u
#define DISK_SUPER_MAGIC	0x4b53494444564d4bull	/* "KMVDDISK" */
#define DISK_SPACE_MAGIC	0x43415053u		/* "SPAC" */
#define DISK_HEAD_MAGIC		0x44414548u		/* "HEAD" */
#define DISK_HEADER_MAGIC	0x424b564bu		/* "KVKB" */
#define DISK_SPACE_OFF		8192u
#define DISK_SUMMARY_OFF	(DISK_SPACE_OFF + DISK_MAX_SPACES * 2u * DISK_ALIGN)
#define DISK_SEGMENT_UNIT	(1ull << 20)	/* data begins at a multiple of it, too */
#define DISK_MAX_SEGMENT	(1ull << 30)
#define DISK_MIN_SEGMENTS	4u		/* two written, one emptied, one spare */
#define DISK_MAX_BAD	32u		/* ranges of one segment */
#define DISK_DAY_HOURS	24u
#define DISK_MAX_SET		8u		/* files */
/* Of one file: the blocks of a set of files are numbered in 32 bits, 0 left out. */
#define DISK_MAX_HEADERS	((1u << 29) - 1)

struct disk_super {
	uint64_t magic;
	uint32_t version;
	uint32_t index;			/* of this file in its set */
	uint32_t nr_files;		/* of the set */
	uint32_t nr_segments;
	uint64_t segment_bytes;		/* multiple of 1 MiB */
	uint32_t nr_headers;		/* per segment */
	uint32_t summary_bytes;		/* head and headers, multiple of 4 KiB */
	uint64_t summary_off, data_off;	/* bytes */
	uint8_t set_uuid[16];
	uint64_t seq;			/* grows with each write; the higher valid copy counts */
	uint64_t gen0;			/* drawn at creation: generations are above it */
	uint64_t hour;			/* since 1970, of the last entry that counts: */
	uint64_t hour_bytes[DISK_DAY_HOURS]; /* written, by hour % 24; about, see write_day */
	uint8_t resv[4096 - 292];
	uint32_t crc;
};

struct disk_space {
	uint32_t magic;
	uint32_t idx;
	uint64_t seq;
	char name[KVMD_NAME_BYTES];
	char tenant[KVMD_NAME_BYTES];
	uint8_t salt_digest[16];
	uint64_t epoch;			/* lower ones are over */
	uint32_t nr_groups, nr_shards;
	struct kvmd_group group[KVMD_MAX_GROUPS]; /* max_slots is zero */
	uint64_t used_s;		/* seconds since 1970: last opened, about */
	uint32_t inc;			/* drawn when the entry is given to a space; not zero */
	uint32_t resv0;			/* zero */
	uint8_t resv[4096 - 708];
	uint32_t crc;
};

enum disk_seg_state { DISK_SEG_FREE, DISK_SEG_OPEN, DISK_SEG_SEALED, NR_DISK_SEG_STATE };

/* Part of a segment that did not give back what was written; both in 4 KiB. */
struct disk_bad {
	uint32_t off;
	uint32_t len;
	uint32_t times;			/* 1: suspect, 2: never used again */
};

struct disk_head {
	uint32_t magic;
	uint32_t version;
	uint32_t seg;			/* number in this file */
	uint32_t state;			/* enum disk_seg_state */
	uint64_t generation;
	uint32_t nr;			/* headers, when sealed */
	uint32_t nr_bad;		/* of bad[] */
	uint64_t seq;			/* of this use, over all files: tells older from younger */
	uint8_t set_uuid[16];		/* of the superblock */
	struct disk_bad bad[DISK_MAX_BAD];
	uint8_t resv[4096 - 444];
	uint32_t crc;
};

#define DISK_HDR_DEAD	0x01		/* dropped: not there any more */

struct disk_header {
	uint32_t magic;			/*   0 */
	uint16_t version;		/*   4 */
	uint16_t codec;			/*   6 0: none */
	uint64_t generation;		/*   8 of the segment */
	uint16_t space;			/*  16 entry of the space table */
	uint8_t group;			/*  18 */
	uint8_t flags;			/*  19 DISK_HDR_* */
	uint32_t pos;			/*  20 blocks before it in its chain */
	uint8_t key[KVMD_KEY_BYTES];	/*  24 */
	uint8_t parent[KVMD_KEY_BYTES];	/*  56 zero: root, or a group without chains */
	uint64_t epoch;			/*  88 */
	uint32_t bytes;			/*  96 of the payload */
	uint32_t space_inc;		/* 100 disk_space.inc of that entry */
	uint32_t off;			/* 104 in the segment, in 4 KiB */
	uint32_t seg;			/* 108 number in this file */
	uint64_t sum;			/* 112 XXH3-64 of the payload */
	uint32_t block_gen;		/* 120 of the record that it was written from */
	uint32_t crc;			/* 124 */
};

BUILD_BUG_ON(sizeof(struct disk_super) != 4096);
BUILD_BUG_ON(sizeof(struct disk_space) != 4096);
BUILD_BUG_ON(sizeof(struct disk_head) != 4096);
BUILD_BUG_ON(sizeof(struct disk_header) != 128);

/* Why something was refused. 0 is fine. */
enum disk_why {
	DISK_FINE,
	DISK_NO_MAGIC,
	DISK_BAD_CRC,
	DISK_BAD_VERSION,
	DISK_BAD_FIELD,		/* CRC is right, a value is impossible */
	DISK_OLD,		/* of another generation: simply not there */
	NR_DISK_WHY
};
const char *disk_why_name(unsigned why);

uint32_t disk_crc(const void *p, size_t bytes);		/* CRC-32C */
/* Fill in magic, version and crc. */
void disk_super_finish(struct disk_super *s);
void disk_space_finish(struct disk_space *s);
void disk_head_finish(struct disk_head *h);
void disk_header_finish(struct disk_header *h);
enum disk_why disk_super_check(const struct disk_super *s);
enum disk_why disk_space_check(const struct disk_space *s, uint32_t idx);
enum disk_why disk_head_check(const struct disk_super *s, const struct disk_head *h, uint32_t seg);
/* @gen: of the head of segment @seg, where the header was read. */
enum disk_why disk_header_check(const struct disk_super *s, const struct disk_header *h,
				uint32_t seg, uint64_t gen);
/* Lay out a file of @file_bytes; -EINVAL with text: too small. */
int disk_super_make(struct disk_super *s, uint64_t file_bytes, uint64_t segment_bytes,
		    uint64_t block_bytes_hint, char *msg, size_t msg_bytes);

/* A head and @nr_headers headers, in whole pages. */
static inline uint64_t disk_summary_bytes(uint32_t nr_headers)
{
	return DISK_ALIGN + align_up((uint64_t)nr_headers * sizeof(struct disk_header), DISK_ALIGN);
}

/* Copy @copy (0, 1) of entry @idx of the space table. */
static inline uint64_t disk_space_at(uint32_t idx, unsigned copy)
{
	return DISK_SPACE_OFF + ((uint64_t)idx * 2 + copy) * DISK_ALIGN;
}

static inline uint64_t disk_summary_at(const struct disk_super *s, uint32_t seg)
{
	return s->summary_off + (uint64_t)seg * s->summary_bytes;
}

static inline uint64_t disk_data_at(const struct disk_super *s, uint32_t seg)
{
	return s->data_off + (uint64_t)seg * s->segment_bytes;
}

#endif
