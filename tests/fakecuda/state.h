/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - the file that the processes of one fake GPU share.
 *
 * A mapping of the file ($KVMD_FAKECUDA_STATE), or anonymous memory when there is
 * none. Everything in it is guarded by its lock, a robust one: its holder may be
 * killed at any time; entries are written so that each of them is whole or unused.
 * Device memory is memfds; an entry of mem[] lives as long as any process has an fd
 * of its memfd, which is looked up in /proc (reap), so that memory whose owners were
 * killed is free again, and memory whose fd a third process keeps is not.
 */
#ifndef KVMD_FAKECUDA_STATE_H
#define KVMD_FAKECUDA_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FC_STATE_MAGIC	0x31657461746366ull
#define FC_MAX_GPUS	8
#define FC_MAX_PROCS	1024
#define FC_MAX_MEMS	16384
#define FC_MAX_USES	32768
#define FC_MAX_BAD	64
#define FC_BUCKETS	256

struct fc_proc {
	int pid;			/* 0: unused */
	uint64_t start;			/* of the process, clock ticks: pids come again */
	uint64_t calls;			/* atomic */
};

struct fc_mem {
	uint64_t ino, dev;		/* of the memfd; ino 0: unused */
	uint64_t bytes;
	int gpu;			/* physical */
	int pid, fd;			/* somebody who has it */
};

enum fc_use_kind {
	FC_USE_COPY,
	FC_USE_HOLD,
};

/* Bytes that a copy under way reads or writes, or that a process holds. */
struct fc_use {
	uint64_t ino, off, bytes;	/* bytes 0: unused; ino: or fc_host_ino() */
	uint64_t start;
	uint64_t order;			/* uses of one order and another batch do not run at once */
	uint64_t batch;
	int pid;
	uint8_t kind, write;
	int next;			/* in its bucket; -1: last */
};

struct fc_bad {
	uint64_t ino, off, bytes;	/* broken device memory; bytes 0: unused */
};

struct fc_state {
	uint64_t magic;
	pthread_mutex_t lock;
	uint64_t violations;
	char text[256];			/* the last violation */
	uint64_t next_order;
	struct fc_proc proc[FC_MAX_PROCS];
	struct fc_mem mem[FC_MAX_MEMS];
	int bucket[FC_BUCKETS];
	int free_use;
	int fresh_use;			/* never used from here on */
	struct fc_use use[FC_MAX_USES];
	struct fc_bad bad[FC_MAX_BAD];
};

/* Host memory counts too, by address, within its process. */
static inline uint64_t fc_host_ino(int pid)
{
	return 1ull << 63 | (uint64_t)pid;
}

/* NULL with errno. @path NULL: anonymous. @make: make it when it is not there. */
struct fc_state *fc_state_open(const char *path, bool make);
void fc_state_close(struct fc_state *s);
void fc_lock(struct fc_state *s);
void fc_unlock(struct fc_state *s);

/* When the process started; 0: it is gone, or a zombie. */
uint64_t fc_proc_start(int pid);

/* All under the lock. */
void fc_reap_mem(struct fc_state *s);		/* drop what nobody has an fd of any more */
uint64_t fc_used(const struct fc_state *s, int gpu);	/* bytes; -1: all */

#endif
