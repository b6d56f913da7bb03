/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvclient.h - borrow KV blocks from kvmd (libkvclient(3)).
 *
 * Two shapes of one interface. Asynchronous, as liburing: take an entry
 * (kvc_get_sqe), fill it (kvc_prep_*), kvc_submit(), then kvc_wait_cqe() or
 * kvc_peek_cqe() and kvc_cqe_seen(). Synchronous: kvc_seq_open() and its
 * siblings submit one entry and wait for its completion; completions of other
 * entries that arrive meanwhile are kept for kvc_peek_cqe().
 *
 * Threads: one struct kvc, one thread, except kvc_step_complete(), which any
 * thread may call. The library never logs, never exits, starts no thread and
 * touches no signal. Errors are -errno; kvc_strerror() gives the last refusal's
 * text. Nothing blocks unless it says so. After -ECONNRESET (daemon gone or
 * session ended) only kvc_reconnect() and kvc_destroy() make sense; memory that
 * was mapped stays mapped until then, and steps may go on with it.
 *
 * New slabs are mapped by the library itself, inside kvc_peek_cqe(),
 * kvc_wait_cqe() and the synchronous calls, so that no completion ever names a
 * slot that is not mapped. An engine that stays away from the library for long
 * should call kvc_poll().
 */
#ifndef KVCLIENT_H
#define KVCLIENT_H

#include <stddef.h>
#include <stdint.h>

#include <kvmd/wire.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KVC_API __attribute__((visibility("default")))
#else
#define KVC_API
#endif

struct kvc;

/* One plane of one group on one shard: what kvc_addr() needs. */
struct kvc_plane {
	char *rw;		/* window for filling private blocks; NULL: no memory */
	const char *ro;		/* read-only window for sealed blocks, same bytes */
};

/* The part of a session that inline helpers read; do not write it. */
struct kvc_group_view {
	uint64_t plane_bytes;	/* of one block in one plane */
	uint32_t planes;
	uint32_t nr_shards;
	uint32_t block_tokens;
	uint32_t max_slots;	/* slots are 1 .. max_slots-1 */
	uint32_t rule;		/* enum kvmd_rule */
	uint32_t row_blocks;	/* entries in a row */
	const char *rows;	/* row of sequence 0 */
	uint64_t seq_stride;	/* bytes to the next sequence's row */
	const struct kvc_plane *plane;	/* [shard * planes + plane] */
};

struct kvc_view {
	uint32_t nr_groups;
	uint32_t nr_shards;
	uint32_t max_seqs;
	uint32_t session;	/* id at the daemon */
	struct kvc_group_view group[KVMD_MAX_GROUPS];
};

/* ---------------------------------------------------------------- set-up */

struct kvc_opts {
	size_t size;			/* sizeof(struct kvc_opts) */
	const char *socket;		/* NULL: $KVMD_SOCKET, else the built-in path */
	const char *tenant;		/* NULL: "default" */
	const char *label;		/* NULL: program name */
	uint32_t sq_entries;		/* 0: 256 */
	uint32_t cq_entries;		/* 0: 4 * sq_entries */
	uint32_t max_seqs;		/* 0: 256 */
	uint32_t max_tokens;		/* of one sequence; 0: 131072 */
	uint32_t nr_lanes;		/* completed_step lanes; 0: one per rank */
	uint32_t nr_ranks;		/* processes of the session group; 0: 1 */
	uint64_t args_bytes;		/* 0: 4 MiB */
	uint64_t recompute_tps;		/* tokens/s the engine recomputes; 0: unknown */
	uint64_t wait_ns;		/* wait this long for a daemon to appear; 0: do not */
	uint64_t spin_ns;		/* spin before sleeping in waits; 0: 20 us */
	uint64_t resume_ns;		/* kvc_reconnect(): wait this long for a daemon that
					   recovers; 0: 30 s */
};

/* Fill with defaults. */
KVC_API void kvc_opts_init(struct kvc_opts *o);

/* Geometry and name of a space. */
struct kvc_space {
	size_t size;			/* sizeof(struct kvc_space) */
	const char *name;
	const void *salt;		/* key salt; only its digest reaches the daemon */
	size_t salt_bytes;
	uint32_t nr_groups;		/* 0: take the existing space's geometry */
	uint32_t nr_shards;
	uint32_t flags;			/* KVMD_SPACE_* */
	struct kvmd_group group[KVMD_MAX_GROUPS];
	const char *device[KVMD_MAX_SHARDS]; /* UUID, NULL: the daemon's choice */
};

KVC_API void kvc_space_init(struct kvc_space *s, const char *name);

/*
 * Connect, say hello, open @s, map what is announced. Blocks for the handshake
 * (at most a few seconds; opts->wait_ns longer when no daemon is there).
 * -ECONNREFUSED or -ENOENT: no daemon; -EPROTO: other version; -EACCES: tenant
 * or uid; -EINVAL: geometry (kvc_refusal() names the field); -EDQUOT: limits.
 */
KVC_API int kvc_create(const struct kvc_opts *o, const struct kvc_space *s, struct kvc **ret_k);

/*
 * Rank @rank (>= 1) of rank 0's group: maps tables and slabs, has no ring. Waits
 * until rank 0 has its space: a few seconds, opts->wait_ns longer. Whenever
 * kvc_fd() is readable it has to call kvc_poll(): a new slab is used only when
 * every rank has mapped it, and the group is held back until then.
 */
KVC_API int kvc_join(const struct kvc_opts *o, uint64_t group_token, uint32_t rank,
		     struct kvc **ret_k);

/*
 * Unmap and disconnect; NULL is fine. The daemon takes all leases back. A forked
 * child inherits no mapping and may call nothing else.
 */
KVC_API void kvc_destroy(struct kvc *k);

/*
 * After -ECONNRESET: connect again with the same options.
 *
 * 1: the daemon restarted and kept the pool; the session goes on. Sequences are
 * as their rows say, nothing moved, leases, steps and args are what they were.
 * Completions that had come are there to be taken, and every entry that was
 * submitted and has none ends with -ECONNRESET now, though it may have taken
 * effect. Entries that were taken and not submitted are gone.
 *
 * 0: a new session. Sequences are gone (open them again: what was published may
 * still be there), completions and args too; addresses are kept when the geometry
 * allows, kvc_view() must be read again; kvc_step_word() stays where it is.
 *
 * < 0: nothing changed, it may be tried again. -EAGAIN: the daemon still
 * recovers after opts->resume_ns; -ECONNREFUSED, -ENOENT: no daemon; -EISCONN: the
 * session lives; -ESTALE: of kvc_join(), whose session was not kept (destroy it and
 * join with rank 0's new token). After a new session was refused only
 * kvc_reconnect() and kvc_destroy() are left.
 *
 * Rank 0 first. Not while another thread is in kvc_step_complete(). Blocks as
 * kvc_create(), and opts->resume_ns.
 */
KVC_API int kvc_reconnect(struct kvc *k);

KVC_API const struct kvc_view *kvc_view(const struct kvc *k);
KVC_API uint64_t kvc_group_token(const struct kvc *k);	/* for kvc_join() */
KVC_API int kvc_fd(const struct kvc *k);	/* readable: call kvc_poll(); owned by @k */
/* Text of the last refusal of the calling thread ("" if none). */
KVC_API const char *kvc_refusal(void);
KVC_API const char *kvc_strerror(int err);	/* of a -errno, in kvmd's words */
KVC_API const char *kvc_version(void);

/*
 * Handle what the daemon announced (new slabs, slabs to unmap, the end of the
 * session) without waiting. 0, or -ECONNRESET.
 */
KVC_API int kvc_poll(struct kvc *k);
KVC_API uint32_t kvc_pressure(const struct kvc *k);	/* enum kvmd_pressure */
KVC_API uint32_t kvc_epoch(const struct kvc *k);
/* Raise the space's epoch (new weights): blocks for the round trip. */
KVC_API int kvc_epoch_raise(struct kvc *k, uint64_t *ret_epoch);

/* ----------------------------------------------------------------- steps */

/* The engine handed step @step to the device. Steps only grow. */
KVC_API void kvc_step_submit(struct kvc *k, uint64_t step);
/* Lane @lane has finished all steps up to @step (an event was queried). Any thread. */
KVC_API void kvc_step_complete(struct kvc *k, uint32_t lane, uint64_t step);
/* The lane's word, for a GPU to write; lives as long as @k. */
KVC_API uint64_t *kvc_step_word(struct kvc *k, uint32_t lane);

/* ------------------------------------------------------------- async API */

/*
 * Next free entry, zeroed but for its position; NULL when the ring is full
 * (submit, then reap). Valid until kvc_submit().
 */
KVC_API struct kvmd_sqe *kvc_get_sqe(struct kvc *k);
/* Publish all taken entries; count, or -ECONNRESET. No system call while the daemon is awake. */
KVC_API int kvc_submit(struct kvc *k);
/*
 * The oldest completion, without waiting: 0 and *ret_cqe (valid until the next
 * peek or wait), -EAGAIN, -ECONNRESET.
 */
KVC_API int kvc_peek_cqe(struct kvc *k, const struct kvmd_cqe **ret_cqe);
/* Waits (spins, then sleeps); @timeout_ns UINT64_MAX: no limit; -ETIMEDOUT. */
KVC_API int kvc_wait_cqe(struct kvc *k, uint64_t timeout_ns, const struct kvmd_cqe **ret_cqe);
/* Up to @max completions copied into @cqes and consumed; count or -ECONNRESET. */
KVC_API int kvc_reap(struct kvc *k, struct kvmd_cqe *cqes, unsigned max);
/* Consume the completion of the last peek or wait. */
KVC_API void kvc_cqe_seen(struct kvc *k);

/*
 * Room for @nr keys (or @bytes) in the args area: *ret_off is what entries
 * carry. It belongs to the daemon from submission to completion and is given
 * back by kvc_args_free(). NULL: full.
 */
KVC_API void *kvc_args_alloc(struct kvc *k, size_t bytes, uint64_t *ret_off);
KVC_API void kvc_args_free(struct kvc *k, uint64_t off);

/* Fill an entry. user_data is set by the caller afterwards. Fields: kvmd-protocol(7). */
static inline void kvc_prep_nop(struct kvmd_sqe *e)
{
	e->opcode = KVMD_OP_NOP;
}

static inline void kvc_prep_seq(struct kvmd_sqe *e, uint8_t op, uint32_t seq, uint32_t gen)
{
	e->opcode = op;
	e->seq = seq;
	e->seq_gen = gen;
}

static inline void kvc_prep_open(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint64_t off,
				 uint32_t nr_keys, uint32_t tokens, uint32_t hints)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_OPEN, seq, gen);
	e->off = off;
	e->nr = nr_keys;
	e->first = tokens;
	e->arg = hints;
}

static inline void kvc_prep_extend(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint8_t group,
				   uint32_t nr, uint64_t deadline_ns)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_EXTEND, seq, gen);
	e->group = group;
	e->nr = nr;
	e->aux = deadline_ns;
}

static inline void kvc_prep_publish(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint8_t group,
				    uint32_t first, uint64_t off, uint32_t nr_keys, uint64_t step)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_PUBLISH, seq, gen);
	e->group = group;
	e->first = first;
	e->off = off;
	e->nr = nr_keys;
	e->step = step;
}

static inline void kvc_prep_fork(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint32_t dst,
				 uint32_t dst_gen, uint64_t step, uint64_t deadline_ns)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_FORK, seq, gen);
	e->first = dst;
	e->arg = dst_gen;
	e->step = step;
	e->aux = deadline_ns;
}

static inline void kvc_prep_unshare(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint8_t group,
				    uint32_t pos, uint64_t step, uint64_t deadline_ns)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_UNSHARE, seq, gen);
	e->group = group;
	e->first = pos;
	e->step = step;
	e->aux = deadline_ns;
}

static inline void kvc_prep_trim(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint8_t group,
				 uint16_t flags, uint32_t first, uint32_t nr, uint64_t step)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_TRIM, seq, gen);
	e->group = group;
	e->flags = flags;
	e->first = first;
	e->nr = nr;
	e->step = step;
}

static inline void kvc_prep_replace(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint8_t group,
				    uint16_t flags, uint32_t first, uint32_t nr, uint32_t nr_new,
				    uint64_t step)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_REPLACE, seq, gen);
	e->group = group;
	e->flags = flags;
	e->first = first;
	e->nr = nr;
	e->arg = nr_new;
	e->step = step;
}

static inline void kvc_prep_send(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint64_t step)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_SEND, seq, gen);
	e->step = step;
}

static inline void kvc_prep_recv(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint64_t ticket)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_RECV, seq, gen);
	e->aux = ticket;
}

/* Completes when @blocks of group 0 are ready, or a load failed. */
static inline void kvc_prep_wait(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint32_t blocks)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_WAIT, seq, gen);
	e->first = blocks;
}

static inline void kvc_prep_swap_out(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint64_t step)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_SWAP_OUT, seq, gen);
	e->step = step;
}

static inline void kvc_prep_swap_in(struct kvmd_sqe *e, uint32_t seq, uint32_t gen,
				    uint64_t deadline_ns)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_SWAP_IN, seq, gen);
	e->aux = deadline_ns;
}

static inline void kvc_prep_close(struct kvmd_sqe *e, uint32_t seq, uint32_t gen, uint64_t step,
				  uint32_t hints)
{
	kvc_prep_seq(e, KVMD_OP_SEQ_CLOSE, seq, gen);
	e->step = step;
	e->arg = hints;
}

static inline void kvc_prep_cancel(struct kvmd_sqe *e, uint64_t user_data)
{
	e->opcode = KVMD_OP_CANCEL;
	e->aux = user_data;
}

static inline void kvc_prep_lookup(struct kvmd_sqe *e, uint8_t group, uint64_t off, uint32_t nr)
{
	e->opcode = KVMD_OP_LOOKUP;
	e->group = group;
	e->off = off;
	e->nr = nr;
}

static inline void kvc_prep_advise_keys(struct kvmd_sqe *e, uint32_t advice, uint8_t group,
					uint64_t off, uint32_t nr, uint64_t aux)
{
	e->opcode = KVMD_OP_ADVISE;
	e->group = group;
	e->arg = advice;
	e->off = off;
	e->nr = nr;
	e->aux = aux;
}

static inline void kvc_prep_advise_seq(struct kvmd_sqe *e, uint32_t advice, uint32_t seq,
				       uint32_t gen, uint8_t group, uint32_t first, uint32_t nr,
				       uint64_t aux)
{
	kvc_prep_seq(e, KVMD_OP_ADVISE, seq, gen);
	e->flags = KVMD_ADVISE_SEQ;
	e->group = group;
	e->arg = advice;
	e->first = first;
	e->nr = nr;
	e->aux = aux;
}

static inline void kvc_prep_clock(struct kvmd_sqe *e, uint64_t ns)
{
	e->opcode = KVMD_OP_CLOCK;
	e->aux = ns;
}

/* -------------------------------------------------------------- sync API */

/*
 * Each submits one entry (and all that kvc_get_sqe() gave out before) and waits
 * for it. >= 0 or -errno is the completion's res; ret_cqe (may be NULL) gets the
 * whole completion. Keys are copied into the args area by the library (-E2BIG:
 * more than fit it; -ENOBUFS: entries on their way occupy it). user_data whose
 * top 16 bits are all set belong to these calls.
 */
KVC_API int kvc_nop(struct kvc *k);
/*
 * Without KVMD_OPEN_LOAD, _WAIT, _BY_PLANE or _NO_HIT in @flags this takes blocks
 * of lower tiers too and returns when they are there, if the daemon can
 * (KVMD_OPEN_LOAD | KVMD_OPEN_WAIT). KVC_OPEN_NO_LOAD: only what is in HBM.
 */
#define KVC_OPEN_NO_LOAD	(1u << 15)	/* the library's own, never on the wire */
KVC_API int kvc_seq_open(struct kvc *k, uint32_t seq, uint32_t gen, const void *keys,
			 uint32_t nr_keys, uint32_t tokens, uint32_t hints, uint16_t flags,
			 struct kvmd_cqe *ret_cqe);
/* One key list per group (keys[g], nr_keys[g]). */
KVC_API int kvc_seq_open_lists(struct kvc *k, uint32_t seq, uint32_t gen,
			       const void *const keys[], const uint32_t nr_keys[],
			       uint32_t tokens, uint32_t hints, uint16_t flags,
			       struct kvmd_cqe *ret_cqe);
/* @timeout_ns from now; 0: the daemon's alloc_timeout. */
KVC_API int kvc_seq_extend(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint32_t nr,
			   uint16_t flags, uint64_t timeout_ns, struct kvmd_cqe *ret_cqe);
KVC_API int kvc_seq_publish(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group,
			    uint32_t first, const void *keys, uint32_t nr_keys, uint64_t step,
			    struct kvmd_cqe *ret_cqe);
KVC_API int kvc_seq_fork(struct kvc *k, uint32_t seq, uint32_t gen, uint32_t dst,
			 uint32_t dst_gen, uint64_t step);
KVC_API int kvc_seq_unshare(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group,
			    uint32_t pos, uint64_t step);
KVC_API int kvc_seq_trim(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint16_t flags,
			 uint32_t first, uint32_t nr, uint64_t step);
KVC_API int kvc_seq_replace(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group,
			    uint16_t flags, uint32_t first, uint32_t nr, uint32_t nr_new,
			    uint64_t step);
KVC_API int kvc_seq_send(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t step,
			 uint64_t *ret_ticket);
KVC_API int kvc_seq_recv(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t ticket,
			 struct kvmd_cqe *ret_cqe);
/* Until @blocks of group 0 are ready or a load failed (ret_cqe->v1); blocks ready. */
KVC_API int kvc_seq_wait(struct kvc *k, uint32_t seq, uint32_t gen, uint32_t blocks,
			 struct kvmd_cqe *ret_cqe);
/* Pre-empt a sequence: its blocks leave HBM; only swap_in and close are left for it. */
KVC_API int kvc_seq_swap_out(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t step);
/* @timeout_ns from now; 0: the daemon's alloc_timeout. */
KVC_API int kvc_seq_swap_in(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t timeout_ns);
KVC_API int kvc_seq_close(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t step,
			  uint32_t hints);
KVC_API int kvc_cancel(struct kvc *k, uint64_t user_data);
KVC_API int kvc_lookup(struct kvc *k, uint8_t group, const void *keys, uint32_t nr_keys,
		       struct kvmd_cqe *ret_cqe);
KVC_API int kvc_advise_keys(struct kvc *k, uint32_t advice, uint8_t group, const void *keys,
			    uint32_t nr_keys, uint64_t aux);
KVC_API int kvc_advise_seq(struct kvc *k, uint32_t advice, uint32_t seq, uint32_t gen,
			   uint8_t group, uint32_t first, uint32_t nr, uint64_t aux);
KVC_API int kvc_clock(struct kvc *k, uint64_t ns);

/* ------------------------------------------------------- tables and bytes */

/* Row of @seq: row_blocks slot numbers; written by the daemon only. */
static inline const volatile int32_t *kvc_row(const struct kvc_view *v, uint32_t group,
					      uint32_t seq)
{
	const struct kvc_group_view *g = &v->group[group];

	return (const volatile int32_t *)(const void *)(g->rows + seq * g->seq_stride);
}

/*
 * How far the loads of @seq are, written by the daemon while they go on: read it by
 * the helpers below, once kvc_seq_open() with KVMD_OPEN_LOAD has its completion. NULL:
 * this daemon has no such line, or there is no such sequence. Valid as kvc_view().
 */
KVC_API const struct kvmd_seq_status *kvc_seq_status(const struct kvc *k, uint32_t seq);

/* Leading blocks of group 0 that are there: entries of the row below this are set. */
static inline uint32_t kvc_status_ready(const struct kvmd_seq_status *s)
{
	return __atomic_load_n(&s->ready, __ATOMIC_ACQUIRE);
}

/* Blocks behind these that are on their way. */
static inline uint32_t kvc_status_coming(const struct kvmd_seq_status *s)
{
	return __atomic_load_n(&s->coming, __ATOMIC_ACQUIRE);
}

/* Planes that are in place in every block held (KVMD_OPEN_BY_PLANE). */
static inline uint32_t kvc_status_planes(const struct kvmd_seq_status *s)
{
	return __atomic_load_n(&s->planes, __ATOMIC_ACQUIRE);
}

/* 0, or -errno of the load that failed: trim the sequence to what is ready. */
static inline int kvc_status_err(const struct kvmd_seq_status *s)
{
	return __atomic_load_n(&s->err, __ATOMIC_ACQUIRE);
}

/* Where @slot of @plane on @shard is, for filling; NULL-device pools have none. */
static inline void *kvc_addr(const struct kvc_view *v, uint32_t group, uint32_t shard,
			     uint32_t plane, uint32_t slot)
{
	const struct kvc_group_view *g = &v->group[group];

	return g->plane[shard * g->planes + plane].rw + slot * g->plane_bytes;
}

/* The same bytes through the read-only window. */
static inline const void *kvc_addr_ro(const struct kvc_view *v, uint32_t group, uint32_t shard,
				      uint32_t plane, uint32_t slot)
{
	const struct kvc_group_view *g = &v->group[group];

	return g->plane[shard * g->planes + plane].ro + slot * g->plane_bytes;
}

/*
 * Copy @bytes between host memory and pool memory, given as kvc_addr() or
 * kvc_addr_ro() say, whatever the device. Blocks until the bytes are there. For
 * tests, tools and engines on the CPU; -EIO: the device failed (kvc_refusal()).
 */
KVC_API int kvc_mem_put(struct kvc *k, void *dst, const void *src, size_t bytes);
KVC_API int kvc_mem_get(struct kvc *k, void *dst, const void *src, size_t bytes);

/* ------------------------------------------------------------------ cuda */

/*
 * A pool on GPUs (kvmd-cuda(7)). The library loads the driver itself when a space
 * lies on one, and needs none otherwise. Addresses in kvc_view() are device
 * addresses then: rw and ro are two mappings of the same bytes, and a kernel that
 * writes through ro faults. Planes of shards whose GPU this process cannot see are
 * NULL; one at least must be there (-ENODEV). Mapping is done at set-up and when a
 * slab is announced; no other call talks to the driver but those below.
 *
 * Streams are CUstream, given as void *. These calls retain each GPU's primary
 * context, which is also what the runtime API uses.
 */

/* Ordinal, in this process, of the GPU of @shard; -ENODEV not seen, -EOPNOTSUPP no GPU. */
KVC_API int kvc_cuda_device(const struct kvc *k, uint32_t shard);

/*
 * Device address of kvc_row(view, group, 0): the rows of all sequences, as the
 * daemon writes them, for kernels to read; seq_stride bytes apart. The first call
 * pins the whole table (max_seqs * seq_stride bytes). It blocks for that. Valid as
 * kvc_view(). -EOPNOTSUPP: the GPU cannot read memory that this process may not
 * write; copy the rows then.
 */
KVC_API int kvc_cuda_rows(struct kvc *k, uint32_t group, uint64_t *ret_ptr);

/* Device address of kvc_step_word(), for cuStreamWriteValue64 or a kernel. */
KVC_API int kvc_cuda_step_word(struct kvc *k, uint32_t lane, uint64_t *ret_ptr);

/*
 * Enqueue on @stream: when all before it is done, the GPU itself writes @step into
 * the lane's word. Does not wait. -EOPNOTSUPP: the GPU has no such operation, use
 * kvc_cuda_step_event().
 */
KVC_API int kvc_cuda_step_write(struct kvc *k, uint32_t lane, uint64_t step, void *stream);

/*
 * Record an event of @stream for @step of @lane; kvc_cuda_steps() completes the step
 * once it has passed. Does not wait. -EBUSY: KVC_CUDA_EVENTS are pending.
 */
KVC_API int kvc_cuda_step_event(struct kvc *k, uint32_t lane, uint64_t step, void *stream);
#define KVC_CUDA_EVENTS		256u

/* Query the events recorded, complete their steps; how many are still pending. */
KVC_API int kvc_cuda_steps(struct kvc *k);

/* ------------------------------------------------------------------ keys */

/*
 * A chain of block keys: key[i] = keyed SHA-256(salt; key[i-1], tokens of block
 * i, extras of block i), key[-1] = the root over everything that changes the
 * bytes; libkvclient(3) gives the bytes hashed. The chain remembers its last
 * key, so that a growing conversation hashes only its new blocks. Pure
 * computation, no connection, any thread.
 */
struct kvc_chain {
	/* hash state keyed by the salt, before any input; private layout */
	unsigned char state[384] __attribute__((aligned(64)));
	unsigned char root[KVMD_KEY_BYTES];	/* key[-1] */
	unsigned char last[KVMD_KEY_BYTES];	/* key of the last block, or the root */
	uint32_t block_tokens;
	uint32_t nr_blocks;			/* hashed so far */
};

/*
 * @salt: the space's secret (may be empty). @root: bytes that identify model and
 * weights digest, dtype, layout, LoRA, user salt... as the engine serialises them.
 */
KVC_API int kvc_chain_init(struct kvc_chain *c, const void *salt, size_t salt_bytes,
			   const void *root, size_t root_bytes, uint32_t block_tokens);
/* Keys of the next @nr_blocks full blocks; tokens: nr_blocks * block_tokens int32. */
KVC_API void kvc_chain_blocks(struct kvc_chain *c, const int32_t *tokens, uint32_t nr_blocks,
			      void *ret_keys);
/* One block with extras that change its bytes (image digests and the like). */
KVC_API void kvc_chain_block_extra(struct kvc_chain *c, const int32_t *tokens,
				   const void *extra, size_t extra_bytes, void *ret_key);
/* Go back to behind block @nr_blocks, whose key is @key (root: nr_blocks 0, NULL). */
KVC_API void kvc_chain_rewind(struct kvc_chain *c, uint32_t nr_blocks, const void *key);

#ifdef __cplusplus
}
#endif

#endif
