/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.h - intrusive doubly linked list with a sentinel head.
 *
 * A node belongs to at most one list. list_del() leaves the node pointing at
 * itself, so that deleting twice and asking list_empty(node) are both safe.
 */
#ifndef KVMD_LIB_LIST_H
#define KVMD_LIB_LIST_H

#include "kvmd/lib/base.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert(struct list *n, struct list *prev, struct list *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

/* Append @n behind the last entry of @head. */
static inline void list_add_tail(struct list *n, struct list *head)
{
	list_insert(n, head->prev, head);
}

/* Put @n before the first entry of @head. */
static inline void list_add(struct list *n, struct list *head)
{
	list_insert(n, head, head->next);
}

static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

#define list_entry(ptr, type, member)	container_of(ptr, type, member)
#define list_first(head, type, member)	list_entry((head)->next, type, member)

#define list_for_each(pos, head) \
	for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

/* Safe against deletion of @pos (and only of @pos) in the body. */
#define list_for_each_safe(pos, tmp, head) \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
	     (pos) = (tmp), (tmp) = (pos)->next)

#endif
