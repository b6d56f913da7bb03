/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sessions.c - clients of a test, and the bytes of their blocks.
 *
 * Bytes of the pool are only touched through kvc_mem_put() and kvc_mem_get(): on a
 * GPU they are out of the CPU's reach.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void plain_space(struct kvc_space *s, const char *name, uint32_t slots)
{
	kvc_space_init(s, name);
	s->nr_groups = 1;
	s->nr_shards = 1;
	s->group[0] = (struct kvmd_group) {
		.plane_bytes = test_bytes(4096), .planes = 1, .block_tokens = BT, .max_slots = slots + 1,
	};
}

void opts_for(struct hd *d, struct kvc_opts *o)
{
	kvc_opts_init(o);
	o->socket = d->sock;
	o->max_seqs = 64;
	o->max_tokens = 65536;
	o->args_bytes = 1 << 20;
}

struct kvc *client_opts(struct hd *d, const struct kvc_space *s, const struct kvc_opts *o)
{
	struct kvc *k = NULL;
	int err = kvc_create(o, s, &k);

	(void)d;
	if (err)
		fprintf(stderr, "kvc_create: %s: %s\n", kvc_strerror(err), kvc_refusal());
	T_EQ(err, 0);
	return k;
}

struct kvc *client(struct hd *d, const struct kvc_space *s)
{
	struct kvc_opts o;

	opts_for(d, &o);
	return client_opts(d, s, &o);
}

struct kvc *plain_client(struct hd *d, const char *name, uint32_t slots)
{
	struct kvc_space s;

	plain_space(&s, name, slots);
	return client(d, &s);
}

void make_keys(unsigned char (*keys)[KEY], uint32_t stream, uint32_t first, uint32_t nr)
{
	memset(keys, 0, (size_t)nr * KEY);
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t n = first + i;

		memcpy(keys[i], &stream, sizeof(stream));
		memcpy(keys[i] + 8, &n, sizeof(n));
		keys[i][KEY - 1] = 0x5a;
	}
}

/* Room for one plane of one block; one thread of a process at a time. */
static uint64_t *plane_buf(uint64_t bytes)
{
	static uint64_t *buf, room;

	if (bytes > room) {
		free(buf);
		buf = malloc(bytes);
		room = buf ? bytes : 0;
	}
	T(buf);
	return buf;
}

static uint64_t word_at(uint64_t word, uint32_t sh, uint32_t p, uint64_t i)
{
	return word ^ (uint64_t)sh << 40 ^ (uint64_t)p << 48 ^ i << 20;
}

void fill(struct kvc *k, uint32_t g, uint32_t slot, uint64_t word)
{
	const struct kvc_view *v = kvc_view(k);
	const struct kvc_group_view *gv = &v->group[g];
	uint64_t *buf = plane_buf(gv->plane_bytes);

	for (uint32_t sh = 0; sh < gv->nr_shards; sh++)
		for (uint32_t p = 0; p < gv->planes; p++) {
			for (uint64_t i = 0; i < gv->plane_bytes / 8; i++)
				buf[i] = word_at(word, sh, p, i);
			T_EQ(kvc_mem_put(k, kvc_addr(v, g, sh, p, slot), buf, gv->plane_bytes), 0);
		}
}

bool holds(struct kvc *k, uint32_t g, uint32_t slot, uint64_t word)
{
	const struct kvc_view *v = kvc_view(k);
	const struct kvc_group_view *gv = &v->group[g];
	uint64_t *buf = plane_buf(gv->plane_bytes);

	for (uint32_t sh = 0; sh < gv->nr_shards; sh++)
		for (uint32_t p = 0; p < gv->planes; p++) {
			T_EQ(kvc_mem_get(k, buf, kvc_addr_ro(v, g, sh, p, slot),
					 gv->plane_bytes), 0);
			for (uint64_t i = 0; i < gv->plane_bytes / 8; i++)
				if (buf[i] != word_at(word, sh, p, i))
					return false;
		}
	return true;
}

bool is_blank(struct kvc *k, uint32_t g, uint32_t slot)
{
	const struct kvc_view *v = kvc_view(k);
	const struct kvc_group_view *gv = &v->group[g];
	uint64_t *buf = plane_buf(gv->plane_bytes);

	for (uint32_t sh = 0; sh < gv->nr_shards; sh++)
		for (uint32_t p = 0; p < gv->planes; p++) {
			T_EQ(kvc_mem_get(k, buf, kvc_addr_ro(v, g, sh, p, slot),
					 gv->plane_bytes), 0);
			for (uint64_t i = 0; i < gv->plane_bytes / 8; i++)
				if (buf[i])
					return false;
		}
	return true;
}

struct kvmd_cqe take(struct kvc *k)
{
	const struct kvmd_cqe *c;
	struct kvmd_cqe copy;

	T_EQ(kvc_wait_cqe(k, WAIT_NS, &c), 0);
	copy = *c;
	kvc_cqe_seen(k);
	return copy;
}

struct kvmd_cqe take_for(struct kvc *k, uint64_t user_data)
{
	struct kvmd_cqe c = take(k);

	T_EQ(c.user_data, user_data);
	return c;
}

void open_extend(struct kvc *k, uint32_t seq, uint32_t nr, uint64_t word)
{
	T_EQ(kvc_seq_open(k, seq, 1, NULL, 0, nr * BT, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, seq, 1, 0, nr, 0, WAIT_NS, NULL), nr);
	for (uint32_t i = 0; i < nr; i++)
		fill(k, 0, (uint32_t)slot_at(k, 0, seq, i), word + i);
}

void open_publish(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream)
{
	unsigned char (*keys)[KEY] = malloc((size_t)nr * KEY);

	T(keys);
	make_keys(keys, stream, 0, nr);
	open_extend(k, seq, nr, (uint64_t)stream << 8);
	T_EQ(kvc_seq_publish(k, seq, 1, 0, 0, keys, nr, 0, NULL), nr);
	free(keys);
}

void whole_pool(struct kvc *k, uint32_t nr)
{
	const uint32_t seq = kvc_view(k)->max_seqs - 1;
	int res;

	T_EQ(kvc_seq_open(k, seq, 77, NULL, 0, 0, 0, 0, NULL), 0);
	res = kvc_seq_extend(k, seq, 77, 0, nr, 0, WAIT_NS, NULL);
	T_EQ(res, nr);
	T_EQ(kvc_seq_close(k, seq, 77, 0, 0), 0);
}
