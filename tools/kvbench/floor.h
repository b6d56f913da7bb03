/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor.h - the floors: the least that two processes and plain arrays need.
 *
 * The floor server is a forked process on the server's processor. Entries of 64
 * bytes reach it and completions of 32 bytes leave it through a pair of rings in
 * shared memory; it reads every word of an entry and the client every word of a
 * completion. Modes:
 *   ECHO   a tail index per batch on each ring
 *   PHASE  no tail: the last word of an entry carries its sequence number
 *   WORK   ECHO, and the entry asks for an operation on bare arrays (bare.h);
 *          the keys lie in shared memory, written by the client just before
 * Parked it sleeps in a futex. One writer and one reader per ring:
 * tails and sequence words are stored with release, loaded with acquire.
 */
#ifndef KVBENCH_FLOOR_H
#define KVBENCH_FLOOR_H

#include "tools/kvbench/kvbench.h"

#define FLOOR_SQ	1024u
#define FLOOR_CQ	2048u
#define FLOOR_KEYS	1024u		/* of one request */
#define FLOOR_SEQS	16u

enum floor_mode { FLOOR_PARK, FLOOR_ECHO, FLOOR_PHASE, FLOOR_WORK, FLOOR_EXIT };

/* What a WORK entry asks for. */
enum floor_op {
	FLOOR_OPEN,		/* look up keys, take them off the LRU list, write the row */
	FLOOR_CLOSE,		/* append to the LRU list, last one first */
	FLOOR_ALLOC,		/* pop from the free list, write the row */
	FLOOR_FREE,		/* give back what ALLOC took */
	FLOOR_PUBLISH,		/* store keys, insert into the table */
	FLOOR_DROP,		/* delete from the table, give back */
	FLOOR_LOOKUP,		/* look up keys, count */
	FLOOR_FILL,		/* make a pool of nr blocks with the keys first.. */
};

struct floor_req {
	uint64_t op;		/* enum floor_op */
	uint64_t pool;		/* 0 hot, 1 cold */
	uint64_t seq;		/* row and list of blocks */
	uint64_t nr;
	uint64_t first;		/* position (PUBLISH, ALLOC), first key (FILL) */
	uint64_t pad[3];
};

struct floor_shm {
	_Alignas(128) uint32_t sq_head;
	_Alignas(128) uint32_t sq_tail;
	_Alignas(128) uint32_t cq_head;
	_Alignas(128) uint32_t cq_tail;
	_Alignas(128) uint32_t mode;	/* client: count << 8 | enum floor_mode; futex */
	_Alignas(128) uint32_t ack;	/* server: the mode it is in */
	_Alignas(128) uint32_t batch;	/* entries answered with one tail store */
	_Alignas(128) uint64_t sq[FLOOR_SQ][8];
	_Alignas(128) uint64_t cq[FLOOR_CQ][4];
	_Alignas(4096) uint8_t keys[FLOOR_KEYS][KVMD_KEY_BYTES];
	_Alignas(4096) int32_t row[FLOOR_SEQS][FLOOR_KEYS];
};

extern struct floor_shm *floor_shm;

/* floor.c: the client's side */
void floor_start(void);			/* once; later calls do nothing */
void floor_end(void);
void floor_mode(enum floor_mode m, uint32_t batch);
/* Slices: ns per message with that batch and depth, for 0.. of bench.slice_ns. */
double floor_echo(uint32_t batch, uint32_t depth);
double floor_phase(uint32_t batch, uint32_t depth);
/* One request in WORK mode: what it returned; its work in ticks. */
uint64_t floor_call(const struct floor_req *r, uint64_t *ret_work, uint64_t *ret_rtt);

/* floor_srv.c: the server's side; does not return */
void floor_serve(struct floor_shm *s) __attribute__((noreturn));

/* Is it time for the next look at the clock? */
static inline bool floor_look(uint32_t i)
{
	return one_cpu || i % 64 == 0;
}

#endif
