/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sent.c - user_data of the entries that were submitted and not completed.
 *
 * A daemon that is gone answers nothing any more; when the session goes on with
 * the next one (resume.c), these get their completions from the library. Kept in
 * order of submission. Completions mostly come in that order: then one compare and
 * one index is all. Others leave holes, and the next such is looked for behind the
 * last. Twice as many places as entries can be on their way, so that closing the
 * holes when the end is reached is cheap.
 */
#include <stdlib.h>
#include <string.h>

#include "libkvclient/internal.h"

int kvci_sent_init(struct kvci_sent *s, uint32_t most)
{
	uint32_t size = 1;

	kvci_sent_exit(s);
	if (!most)
		return 0;
	while (size < 2 * most)
		size *= 2;
	s->data = (uint64_t *)malloc(size * sizeof(*s->data));
	s->hole = (uint8_t *)calloc(size, 1);
	if (!s->data || !s->hole) {
		kvci_sent_exit(s);
		return -ENOMEM;
	}
	s->size = size;
	return 0;
}

void kvci_sent_exit(struct kvci_sent *s)
{
	free(s->data);
	free(s->hole);
	memset(s, 0, sizeof(*s));
}

bool kvci_sent_room(struct kvci_sent *s)
{
	const uint32_t mask = s->size - 1;
	uint32_t to = s->head;

	for (uint32_t i = s->head; i != s->tail; i++) {
		if (!s->hole[i & mask])
			s->data[to++ & mask] = s->data[i & mask];
		s->hole[i & mask] = 0;
	}
	s->tail = to;
	s->hint = s->head;
	/* Full only by a daemon that took entries without room for their completions. */
	return s->tail - s->head < s->size;
}

static bool make_hole(struct kvci_sent *s, uint64_t user_data, uint32_t from, uint32_t to)
{
	const uint32_t mask = s->size - 1;

	for (uint32_t i = from; i != to; i++) {
		if (s->data[i & mask] != user_data || s->hole[i & mask])
			continue;
		s->hole[i & mask] = 1;
		s->hint = i + 1;
		return true;
	}
	return false;
}

void kvci_sent_find(struct kvci_sent *s, uint64_t user_data)
{
	uint32_t first = s->head + 1, hint = s->hint;	/* the oldest is another */

	if (s->head == s->tail)
		return;
	if (hint - first > s->tail - first)
		hint = first;		/* the oldest have gone past it */
	if (!make_hole(s, user_data, hint, s->tail))
		make_hole(s, user_data, first, hint);
}

bool kvci_sent_take(struct kvci_sent *s, uint64_t *ret_user_data)
{
	if (s->head == s->tail)
		return false;
	*ret_user_data = s->data[s->head & (s->size - 1)];
	kvci_sent_next(s);
	return true;
}
