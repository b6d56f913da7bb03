/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ghost.h - what was here once: a remembered line per evicted block.
 *
 * A set-associative table, five entries to a cache line, the oldest of its line
 * replaced first; 12.8 bytes an entry. A false match (32 bits of hash in a
 * line) misleads a policy or an explanation, never a hit. Core thread only.
 */
#ifndef KVMD_INDEX_GHOST_H
#define KVMD_INDEX_GHOST_H

#include "kvmd/pool/policy.h"

struct ghosts;

/* Room for at least @nr entries; 0 makes a table that remembers nothing. */
int ghosts_create(uint32_t nr, struct ghosts **ret_g);
void ghosts_destroy(struct ghosts *g);
struct ghost *ghosts_find(struct ghosts *g, uint64_t hash);	/* NULL: not remembered */
/* Fetch the line of @hash ahead of a find. */
void ghosts_prefetch(const struct ghosts *g, uint64_t hash);
/* The entry for @hash, made (zeroed, hash set) if it is not there; NULL: table of size 0. */
struct ghost *ghosts_add(struct ghosts *g, uint64_t hash);
void ghosts_del(struct ghosts *g, uint64_t hash);
uint64_t ghosts_bytes(const struct ghosts *g);	/* memory used */

#endif
