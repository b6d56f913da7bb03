/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - the fixed pool of 64-byte nodes for deferred releases and tickets.
 */
#include "kvmd/pool/pool.h"

uint32_t node_alloc(struct pool *p)
{
	uint32_t n = p->node_head;

	if (!n)
		return 0;
	p->node_head = p->node[n].next;
	p->nr_free_nodes--;
	p->node[n].next = 0;
	p->node[n].nr = 0;
	return n;
}

void node_free(struct pool *p, uint32_t n)
{
	p->node[n].next = p->node_head;
	p->node_head = n;
	p->nr_free_nodes++;
}
