/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep.h - what is kept outside the process, so that the next daemon goes on.
 *
 * File descriptors, by name, with the supervisor (kvmd/lib/fdstore.h):
 *
 *   state                      struct keep_state below
 *   blocks                     the block array (pool/restore.h)
 *   slab.<id>.<gen>.<n>        extents of a slab
 *   sess.<id>.<serial>.<what>  ring, args, steps, seqs, mirror, rows
 *   pid.<id>.<n>               a client process
 *   ram-table, ram-<n>         the RAM tier (tier/ram.h)
 *
 * The state says what they are. It is written on slow paths only: when a space,
 * a slab, a session or a connection begins, changes or ends. Each record has two
 * copies with a number and a checksum; the older one is overwritten, so that a
 * death in the middle of a store leaves the other. Fds are stored before the
 * record that names them is written, and removed after it is cleared: what no
 * record names is dropped at the next start.
 *
 * Every daemon locks the state through a file description of its own (the
 * supervisor's copy has another) and keeps the lock until its process and all its
 * I/O are gone: the description is also a fixed file of its io_uring.
 *
 * Without a supervisor nothing is kept and every call here does nothing.
 * Core thread only.
 */
#ifndef KVMD_SVC_KEEP_H
#define KVMD_SVC_KEEP_H

#include "kvmd/index/restore.h"
#include "kvmd/svc/daemon.h"
#include "kvmd/tier/tiers.h"

#define KEEP_MAGIC	0x3165746174736476ull	/* "vdstate1" */
#define KEEP_VERSION	1u
#define KEEP_FORMER	15u	/* former daemons whose sessions can still be resumed */

struct keep_mark {
	uint64_t sum;			/* XXH3-64 of the rest of the copy */
	uint32_t nr;			/* the copy with the higher one counts */
	uint32_t in_use;
};

/* A record and its two copies. */
#define KEEP_RECORD(type)	struct { struct { struct keep_mark m; type v; } copy[2]; }

struct keep_run {
	uint8_t boot_id[16];		/* of the daemon that writes now */
	uint8_t former[KEEP_FORMER][16];
	uint32_t nr_former;
	uint32_t restarts;		/* since the pool was made */
	uint32_t next_serial;		/* of sessions, at least that */
	uint32_t next_conn;		/* of names of processes, at least that */
};

struct keep_sid {
	uint32_t space, resv;
	uint64_t epoch;
};

struct keep_conn {
	uint32_t n;			/* in the name of its pidfd */
	int32_t pid;
	uint32_t uid;
	uint32_t rank;
	uint32_t session;		/* id + 1, 0: none any more */
	uint32_t said_bye;
};

struct keep_session {
	char label[KVMD_NAME_BYTES];
	char tenant[KVMD_NAME_BYTES];
	uint32_t serial;
	uint32_t space;
	uint32_t dying;			/* it cannot be resumed */
	uint32_t nr_ranks, nr_lanes;
	uint32_t max_seqs, max_tokens;
	uint32_t sq_entries, cq_entries;
	uint32_t use_pos;
	uint64_t args_bytes;
	uint64_t group_token;
	uint64_t recompute_tps;
};

/* Everything whose shape the next daemon has to share. */
struct keep_head {
	uint64_t magic;
	uint32_t version;
	uint32_t bytes;			/* of struct keep_state */
	uint32_t block_bytes, block_version, seq_bytes, wire_version;
	uint32_t max_spaces, max_sids, max_slabs, max_conns;
	uint32_t record_bytes[6];	/* run, space, sid, slab, conn, session */
	uint32_t resv[4];
};

struct keep_state {
	struct keep_head h;
	KEEP_RECORD(struct keep_run) run;
	KEEP_RECORD(struct space_kept) space[POOL_MAX_SPACES];
	KEEP_RECORD(struct keep_sid) sid[POOL_MAX_SIDS];
	KEEP_RECORD(struct slab_kept) slab[POOL_MAX_SLABS];
	KEEP_RECORD(struct keep_conn) conn[POOL_MAX_CONNS];
	KEEP_RECORD(struct keep_session) session[POOL_MAX_CONNS];
};

/* A descriptor that came from the supervisor. */
struct keep_fd {
	char name[64];
	int fd;				/* -1: somebody has it */
	bool used;			/* stays with the supervisor */
};

enum keep_start { KEEP_NONE, KEEP_COLD, KEEP_WARM };

struct keep {
	struct daemon *d;
	struct keep_state *st;
	int fd, lock_fd;		/* memfd; the lock's own description */
	bool frozen;			/* the process ends: what is kept stays as it is */
	bool restoring;			/* records are being read: slabs are not stored anew */
	uint32_t stored_gen[POOL_MAX_SLABS];
	uint32_t stored_ext[POOL_MAX_SLABS];	/* extents that are with the supervisor */
	uint32_t next_conn;
	struct keep_run run;
	enum keep_start start;
	char why_cold[160];		/* why nothing was taken over; "" if there was nothing */
	/* While starting: what came. */
	struct keep_fd *came;		/* sorted by name */
	uint32_t nr_came, max_came;
	struct ram_keep ram;
	int *ram_fd;			/* by chunk */
	struct ram_kept ram_kept;
	/* After a warm start. */
	struct blklist held[POOL_MAX_SPACES];
	uint64_t deadline_ns;		/* sessions that have not come back end then; 0: over */
	bool over;			/* all are back or gone, nothing is held any more */
	uint32_t nr_barrier;		/* sessions that may still be reading what they had */
	struct {
		uint32_t spaces, slabs, sessions, hbm, ram, open, held, bad;
		uint32_t disk, damaged, lost, slabs_gone, sessions_gone, resumed;
		uint64_t ns;
	} nr;				/* shown by kvctl status */
};

/*
 * keep_start.c. Look at what came, wait until the former daemon is gone, decide:
 * d->keep says how to start. Makes the state when there is none. 0 or -errno (logged).
 */
int keep_start(struct daemon *d);
/* The io_uring is there: I/O under way holds the lock too. */
void keep_lock_ring(struct daemon *d, unsigned file);
/* What came is not to be used: it goes, and @why is said. */
void keep_cold(struct daemon *d, const char *why);
/* The start is over: drop what nobody took, begin to write as this run. */
void keep_begin(struct daemon *d);
void keep_freeze(struct daemon *d);	/* no change is written any more */
void keep_exit(struct daemon *d);
static inline bool keep_is_warm(const struct daemon *d)
{
	return d->keep && d->keep->start == KEEP_WARM;
}
/* Is there a supervisor, and does what we have outlive us? */
static inline bool keep_is_on(const struct daemon *d)
{
	return d->keep && !d->keep->frozen;
}
/* The fd that came as @name, the caller's from now on; -1: none. */
int keep_take(struct daemon *d, const char *name);
void keep_give_back(struct daemon *d, const char *name, int fd);	/* not used after all */
/* For pool_create(): the array that was kept, with as many records as it has. */
void keep_blocks(struct daemon *d, struct pool_opts *o);
/* For tiers_create(): where its fds go, and what there was (NULL: nothing). */
const struct ram_keep *keep_ram(struct daemon *d);
const struct ram_kept *keep_ram_kept(struct daemon *d);

/* keep.c: names of descriptors. */
void keep_slab_name(char name[64], uint32_t id, uint32_t gen, uint32_t ext);
void keep_conn_name(char name[64], uint32_t id, uint32_t n);
/* Descriptors of a session. */
enum keep_session_fd {
	KEEP_FD_RING, KEEP_FD_ARGS, KEEP_FD_STEPS, KEEP_FD_SEQS, KEEP_FD_MIRROR, KEEP_FD_ROWS,
	KEEP_NR_FDS
};
void keep_session_name(char name[64], uint32_t id, uint32_t serial, unsigned which);

/* A session got its space, a process joined it: from now on they are kept. */
void keep_new_session(struct session *s);
void keep_new_conn(struct conn *c);
/* What changed. */
void keep_space(struct daemon *d, const struct space *sp);
void keep_slab(struct daemon *d, const struct slab *s);
void keep_conn(struct daemon *d, const struct conn *c);		/* CONN_FREE: forgotten */
void keep_session(struct daemon *d, const struct session *s);	/* SESSION_FREE: forgotten */

/*
 * keep_io.c, for tests too. Reading: the valid copy. NULL: not in use, or neither is
 * valid (*ret_torn).
 */
const void *keep_read(const void *record, size_t copy_bytes, bool *ret_torn);
#define keep_get(record, ret_torn) \
	((const __typeof__((record)->copy[0].v) *) \
	 keep_read((record), sizeof((record)->copy[0]), (ret_torn)))
/* Write @v (NULL: not in use) over the older copy. */
void keep_write(void *record, size_t copy_bytes, const void *v, size_t bytes);
#define keep_put(record, val) \
	keep_write((record), sizeof((record)->copy[0]), (val), sizeof((record)->copy[0].v))
#define keep_clear(record) \
	keep_write((record), sizeof((record)->copy[0]), NULL, 0)
void keep_head_init(struct keep_state *st);
int keep_head_check(const struct keep_state *st, uint64_t bytes, char *msg, size_t msg_bytes);

/* struct dev_opts' kept_bytes, @ctx: the keep. */
uint64_t keep_device_bytes(const void *ctx, const char *uuid);
/* restore.c: spaces and slabs; then, tiers being there, blocks and sessions. 0 or -errno. */
int restore_memory(struct daemon *d, char *msg, size_t msg_bytes);
int restore_blocks(struct daemon *d, char *msg, size_t msg_bytes);

/* resume.c */
void resume_message(struct conn *c, const struct kvmd_resume *m, int err, char *text);
/* Deadlines, and what may be read no more; the next time to look, 0: none. */
uint64_t resume_turn(struct daemon *d);

#endif
