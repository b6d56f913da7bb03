// SPDX-License-Identifier: Apache-2.0
/*
 * disk_format.c - what in a file of the disk tier is right, and where it is.
 *
 * Pure functions over structs that were read from anywhere: a check says fine
 * only if every field is one that the writer can have written. Order: magic, CRC,
 * version, fields; magic, version and crc stay where they are in all versions, so
 * that a file of another version is told from a broken one. Any thread.
 */
#include "kvmd/tier/disk_format.h"

#include "kvmd/lib/crc32c.h"
#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"
#include "kvmd/codec.h"

/* Structs are read and written as they lie in memory. */
BUILD_BUG_ON(__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__);

#define CRC_OF(s)	disk_crc((s), offsetof(__typeof__(*(s)), crc))

static const char *const why_names[NR_DISK_WHY] = {
	[DISK_FINE]		= "fine",
	[DISK_NO_MAGIC]		= "no magic number",
	[DISK_BAD_CRC]		= "wrong CRC",
	[DISK_BAD_VERSION]	= "another version",
	[DISK_BAD_FIELD]	= "impossible value",
	[DISK_OLD]		= "of a former use of the segment",
};

const char *disk_why_name(unsigned why)
{
	return why < NR_DISK_WHY ? why_names[why] : "?";
}

uint32_t disk_crc(const void *p, size_t bytes)
{
	return crc32c(p, bytes);
}

/* ------------------------------------------------------------------ writing */

void disk_super_finish(struct disk_super *s)
{
	s->magic = DISK_SUPER_MAGIC;
	s->version = DISK_VERSION;
	s->crc = CRC_OF(s);
}

void disk_space_finish(struct disk_space *s)
{
	s->magic = DISK_SPACE_MAGIC;
	s->crc = CRC_OF(s);
}

void disk_head_finish(struct disk_head *h)
{
	h->magic = DISK_HEAD_MAGIC;
	h->version = DISK_VERSION;
	h->crc = CRC_OF(h);
}

void disk_header_finish(struct disk_header *h)
{
	h->magic = DISK_HEADER_MAGIC;
	h->version = DISK_VERSION;
	h->crc = CRC_OF(h);
}

/* ----------------------------------------------------------------- checking */

enum disk_why disk_super_check(const struct disk_super *s)
{
	uint64_t summaries, data;

	if (s->magic != DISK_SUPER_MAGIC)
		return DISK_NO_MAGIC;
	if (s->crc != CRC_OF(s))
		return DISK_BAD_CRC;
	if (s->version != DISK_VERSION)
		return DISK_BAD_VERSION;
	if (!s->nr_files || s->nr_files > DISK_MAX_SET || s->index >= s->nr_files)
		return DISK_BAD_FIELD;
	if (!s->segment_bytes || s->segment_bytes % DISK_SEGMENT_UNIT ||
	    s->segment_bytes > DISK_MAX_SEGMENT)
		return DISK_BAD_FIELD;
	if (!s->nr_headers || s->nr_headers > s->segment_bytes / DISK_ALIGN ||
	    s->summary_bytes != disk_summary_bytes(s->nr_headers))
		return DISK_BAD_FIELD;
	if (!s->nr_segments || s->nr_segments > DISK_MAX_HEADERS / s->nr_headers ||
	    s->summary_off != DISK_SUMMARY_OFF)
		return DISK_BAD_FIELD;
	/* Below 2^63 by the limits above. */
	summaries = s->summary_off + (uint64_t)s->nr_segments * s->summary_bytes;
	data = (uint64_t)s->nr_segments * s->segment_bytes;
	if (s->data_off % DISK_ALIGN || s->data_off < summaries ||
	    s->data_off > (uint64_t)INT64_MAX - data)
		return DISK_BAD_FIELD;
	return mem_is_zero(s->resv, sizeof(s->resv)) ? DISK_FINE : DISK_BAD_FIELD;
}

static bool name_is_fine(const char *name, bool needed)
{
	size_t len = strnlen(name, KVMD_NAME_BYTES);

	return len < KVMD_NAME_BYTES && (len || !needed) &&
	       mem_is_zero(name + len, KVMD_NAME_BYTES - len);
}

/* As the pool takes it from a client (pool/space.c), max_slots aside. */
static bool group_is_fine(const struct kvmd_group *g)
{
	if (!g->planes || g->planes > KVMD_MAX_PLANES || !g->plane_bytes || g->plane_bytes % 64 ||
	    g->plane_bytes > 1ull << 30 || !g->block_tokens || g->block_tokens > 65536)
		return false;
	if (g->rule >= KVMD_NR_RULE ||
	    (g->rule == KVMD_RULE_WINDOW ? !g->window : g->window || g->sinks))
		return false;
	return !(g->flags & ~KVMD_GROUP_REPLICA) && !g->max_slots && !kvmd_codec_wrong(g);
}

enum disk_why disk_space_check(const struct disk_space *s, uint32_t idx)
{
	if (s->magic != DISK_SPACE_MAGIC)
		return DISK_NO_MAGIC;
	if (s->crc != CRC_OF(s))
		return DISK_BAD_CRC;
	if (s->idx != idx || idx >= DISK_MAX_SPACES || !name_is_fine(s->name, true) ||
	    !name_is_fine(s->tenant, true))
		return DISK_BAD_FIELD;
	if (!s->nr_groups || s->nr_groups > KVMD_MAX_GROUPS || !s->nr_shards ||
	    s->nr_shards > KVMD_MAX_SHARDS)
		return DISK_BAD_FIELD;
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++)
		if (g < s->nr_groups ? !group_is_fine(&s->group[g]) :
		    !mem_is_zero(&s->group[g], sizeof(s->group[g])))
			return DISK_BAD_FIELD;
	if (!s->inc || s->resv0)
		return DISK_BAD_FIELD;
	return mem_is_zero(s->resv, sizeof(s->resv)) ? DISK_FINE : DISK_BAD_FIELD;
}

static bool bad_ranges_are_fine(const struct disk_super *s, const struct disk_head *h)
{
	uint32_t pages = (uint32_t)(s->segment_bytes / DISK_ALIGN);

	if (h->nr_bad > DISK_MAX_BAD ||
	    !mem_is_zero(&h->bad[h->nr_bad], (DISK_MAX_BAD - h->nr_bad) * sizeof(h->bad[0])))
		return false;
	for (uint32_t i = 0; i < h->nr_bad; i++)
		if (!h->bad[i].times || h->bad[i].times > 2 || !h->bad[i].len ||
		    h->bad[i].off >= pages || h->bad[i].len > pages - h->bad[i].off)
			return false;
	return true;
}

enum disk_why disk_head_check(const struct disk_super *s, const struct disk_head *h, uint32_t seg)
{
	if (h->magic != DISK_HEAD_MAGIC)
		return DISK_NO_MAGIC;
	if (h->crc != CRC_OF(h))
		return DISK_BAD_CRC;
	if (h->version != DISK_VERSION)
		return DISK_BAD_VERSION;
	if (memcmp(h->set_uuid, s->set_uuid, sizeof(h->set_uuid)))
		return DISK_OLD;	/* what was on the device before */
	if (h->seg != seg || seg >= s->nr_segments || h->state >= NR_DISK_SEG_STATE ||
	    h->nr > s->nr_headers)
		return DISK_BAD_FIELD;
	if ((h->state != DISK_SEG_FREE && h->generation <= s->gen0) || !bad_ranges_are_fine(s, h))
		return DISK_BAD_FIELD;
	return mem_is_zero(h->resv, sizeof(h->resv)) ? DISK_FINE : DISK_BAD_FIELD;
}

enum disk_why disk_header_check(const struct disk_super *s, const struct disk_header *h,
				uint32_t seg, uint64_t gen)
{
	uint64_t at = (uint64_t)h->off * DISK_ALIGN;

	if (h->magic != DISK_HEADER_MAGIC)
		return DISK_NO_MAGIC;
	if (h->crc != CRC_OF(h))
		return DISK_BAD_CRC;
	if (h->version != DISK_VERSION)
		return DISK_BAD_VERSION;
	if (h->generation != gen || h->seg != seg)
		return DISK_OLD;
	if (h->codec >= KVMD_NR_CODEC || h->space >= DISK_MAX_SPACES || h->group >= KVMD_MAX_GROUPS ||
	    h->flags & ~DISK_HDR_DEAD || !h->space_inc)
		return DISK_BAD_FIELD;
	if (!h->bytes || at >= s->segment_bytes || h->bytes > s->segment_bytes - at)
		return DISK_BAD_FIELD;
	return DISK_FINE;
}

/* ------------------------------------------------------------------- layout */

/* Where the data of @nr segments begins. */
static uint64_t data_off(const struct disk_super *s, uint64_t nr)
{
	return align_up(s->summary_off + nr * s->summary_bytes, DISK_SEGMENT_UNIT);
}

int disk_super_make(struct disk_super *s, uint64_t file_bytes, uint64_t segment_bytes,
		    uint64_t block_bytes_hint, char *msg, size_t msg_bytes)
{
	uint64_t hint = max(block_bytes_hint, (uint64_t)DISK_ALIGN), nr, least;

	if (!segment_bytes || segment_bytes % DISK_SEGMENT_UNIT ||
	    segment_bytes > DISK_MAX_SEGMENT)
		return err_text(-EINVAL, msg, msg_bytes, "a segment has a multiple of 1M, at most "
				"1G, not %llu", (unsigned long long)segment_bytes);
	if (hint > segment_bytes)
		return err_text(-EINVAL, msg, msg_bytes, "a block of %llu bytes does not fit a "
				"segment of %llu: larger segments", (unsigned long long)hint,
				(unsigned long long)segment_bytes);
	memset(s, 0, sizeof(*s));
	s->nr_files = 1;
	s->segment_bytes = segment_bytes;
	/* Whole pages of headers, but not more than there are places for payloads. */
	nr = align_up(segment_bytes / align_up(hint, DISK_ALIGN), DISK_ALIGN /
		      sizeof(struct disk_header));
	s->nr_headers = (uint32_t)min(nr, segment_bytes / DISK_ALIGN);
	s->summary_bytes = (uint32_t)disk_summary_bytes(s->nr_headers);
	s->summary_off = DISK_SUMMARY_OFF;

	file_bytes = min(file_bytes, (uint64_t)INT64_MAX);
	nr = file_bytes > s->summary_off ?
	     (file_bytes - s->summary_off) / (segment_bytes + s->summary_bytes) : 0;
	nr = min(nr, (uint64_t)(DISK_MAX_HEADERS / s->nr_headers));
	while (nr && data_off(s, nr) + nr * segment_bytes > file_bytes)
		nr--;
	least = data_off(s, DISK_MIN_SEGMENTS) + DISK_MIN_SEGMENTS * segment_bytes;
	if (nr < DISK_MIN_SEGMENTS)
		return err_text(-EINVAL, msg, msg_bytes, "%llu bytes are too few: %u segments of "
				"%llu need %llu", (unsigned long long)file_bytes, DISK_MIN_SEGMENTS,
				(unsigned long long)segment_bytes, (unsigned long long)least);
	s->nr_segments = (uint32_t)nr;
	s->data_off = data_off(s, nr);
	disk_super_finish(s);
	return 0;
}
