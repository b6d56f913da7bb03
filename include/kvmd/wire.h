/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - the ABI between kvmd and its clients (kvmd-protocol(7)).
 *
 * Two channels. Control: one Unix SOCK_SEQPACKET connection per client process,
 * fixed-size messages, file descriptors from the daemon to the client and never
 * the other way. Data: one pair of rings per session in shared memory, shaped
 * and ordered like io_uring's.
 *
 * All integers are little endian and naturally aligned, padding is spelled out
 * and must be zero, sizes and offsets are asserted below. Opcodes, message
 * types, bits and offsets are never reused. Times are CLOCK_MONOTONIC ns.
 * The header is clean for C11 and C++11.
 */
#ifndef KVMD_WIRE_H
#define KVMD_WIRE_H

#include <stdint.h>

#ifdef __cplusplus
#define KVMD_WIRE_ASSERT(c) static_assert(c, #c)
#else
#define KVMD_WIRE_ASSERT(c) _Static_assert(c, #c)
#endif

#define KVMD_WIRE_VERSION	1u

/* Fixed bounds of the protocol. */
#define KVMD_KEY_BYTES		32u
#define KVMD_MAX_GROUPS		8u
#define KVMD_MAX_SHARDS		8u
#define KVMD_MAX_PLANES		512u	/* per group */
#define KVMD_MAX_LANES		32u	/* completed_step lanes of a session */
#define KVMD_MAX_RANKS		8u
#define KVMD_NAME_BYTES		64u	/* with the NUL */
#define KVMD_TEXT_BYTES		256u	/* refusal text, with the NUL */
#define KVMD_MAX_FDS		128u	/* file descriptors in one message */
#define KVMD_MAX_SQ		4096u	/* submission entries */
#define KVMD_MAX_CQ		16384u	/* completion entries */

/*
 * Slot 0 of every group is a zeroed block that is never allocated. Table
 * entries that name nothing (unset, trimmed, punched) hold 0.
 */
#define KVMD_SLOT_NULL		0

/* ------------------------------------------------------------ the rings */

/*
 * struct kvmd_ring - head of the ring memfd; entries follow at sq_off, cq_off
 * (hello reply). Indices run free and are masked; "tail" is where the producer
 * writes next. Writers: C client, D daemon. Each index has a cache line pair of
 * its own. An index that its own reader cannot accept (more entries than the
 * ring holds, or going back) ends the session with -EPROTO.
 *
 * A producer fills entries, then stores the tail with release; the consumer
 * loads it with acquire. Each entry also carries its free-running index plus
 * one in its last word (pos), stored last with release, so that a consumer may
 * poll the entry itself instead of the tail.
 */
struct kvmd_ring {
	uint32_t sq_tail;		/*    0 C */
	uint32_t pad0[31];
	uint32_t sq_head;		/*  128 D */
	uint32_t pad1[31];
	uint32_t cq_tail;		/*  256 D; futex word of a sleeping client */
	uint32_t pad2[31];
	uint32_t cq_head;		/*  384 C */
	uint32_t pad3[31];
	uint32_t daemon_flags;		/*  512 D: KVMD_RING_* */
	uint32_t pad4[31];
	uint32_t client_flags;		/*  640 C: KVMD_RING_NEED_WAKEUP: futex-wake cq_tail */
	uint32_t pad5[31];
	uint64_t submitted_step;	/*  768 C: last GPU step handed to the device */
	uint64_t pad6[15];
	uint32_t news_seq;		/*  896 D: changes whenever a word below does */
	uint32_t pressure;		/*  900 D: enum kvmd_pressure */
	uint32_t control_seq;		/*  904 D: messages sent on the control socket */
	uint32_t epoch;			/*  908 D: the space's epoch, low 32 bits */
	int32_t ended;			/*  912 D: 0, or -errno: the session is over */
	uint32_t pad7[27];
	uint8_t pad8[3072];		/* 1024: zero */
};

#define KVMD_RING_NEED_WAKEUP	(1u << 0) /* the owner of the word sleeps: wake it */
#define KVMD_RING_WANT_STEP	(1u << 1) /* daemon waits for completed_step to advance */

enum kvmd_pressure {
	KVMD_PRESSURE_NONE,
	KVMD_PRESSURE_SOME,	/* over nine tenths of the blocks are leased: shrink */
	KVMD_PRESSURE_FULL,	/* an allocation waits that nothing can serve now */
	KVMD_NR_PRESSURE
};

/*
 * Completed steps: one lane per rank or stream, in a memfd of its own (a GPU
 * may write it: cuStreamWriteValue64). The smallest of the session's lanes
 * counts. Values never go back.
 */
struct kvmd_lane {
	uint64_t completed_step;	/* C or GPU */
	uint64_t pad[15];
};

struct kvmd_steps {
	struct kvmd_lane lane[KVMD_MAX_LANES];
};

/* -------------------------------------------------------------- entries */

enum kvmd_opcode {
	KVMD_OP_NOP		= 0,
	KVMD_OP_SEQ_OPEN	= 1,
	KVMD_OP_SEQ_EXTEND	= 2,
	KVMD_OP_SEQ_PUBLISH	= 3,
	KVMD_OP_SEQ_FORK	= 4,
	KVMD_OP_SEQ_UNSHARE	= 5,
	KVMD_OP_SEQ_TRIM	= 6,
	KVMD_OP_SEQ_REPLACE	= 7,
	KVMD_OP_SEQ_SEND	= 8,
	KVMD_OP_SEQ_RECV	= 9,
	KVMD_OP_SEQ_SWAP_OUT	= 10,
	KVMD_OP_SEQ_SWAP_IN	= 11,
	KVMD_OP_SEQ_CLOSE	= 12,
	KVMD_OP_CANCEL		= 13,
	KVMD_OP_LOOKUP		= 14,
	KVMD_OP_ADVISE		= 15,
	KVMD_OP_CLOCK		= 16,	/* replay only: drive the policy clock */
	KVMD_OP_SEQ_WAIT	= 17,
	KVMD_NR_OP
};

/*
 * struct kvmd_sqe - one submission, 64 bytes. Which fields an operation reads
 * is said at the flags below and in kvmd-protocol(7); every other field must be
 * zero (-EINVAL).
 *
 * seq names a sequence of this session: an index below the hello's max_seqs,
 * chosen by the client; seq_gen is any number the client chose at open, recv or
 * fork, and must match afterwards (-ESTALE). Entries that name one sequence
 * take effect in order, others in any order.
 */
struct kvmd_sqe {
	uint8_t opcode;			/*  0 enum kvmd_opcode */
	uint8_t group;			/*  1 block group, or KVMD_GROUP_ALL where allowed */
	uint16_t flags;			/*  2 KVMD_<OP>_* */
	uint32_t seq;			/*  4 sequence index */
	uint64_t user_data;		/*  8 returned in the completion */
	uint32_t seq_gen;		/* 16 generation of seq */
	uint32_t first;			/* 20 position, tokens or destination, see op */
	uint32_t nr;			/* 24 blocks, keys */
	uint32_t arg;			/* 28 see op */
	uint64_t off;			/* 32 byte offset in args, multiple of 8 */
	uint64_t step;			/* 40 GPU step, at most submitted_step */
	uint64_t aux;			/* 48 deadline, ticket, user_data, time: see op */
	uint32_t resv;			/* 56 zero */
	uint32_t pos;			/* 60 free-running index + 1, stored last */
};

/* struct kvmd_cqe - one completion, 32 bytes. */
struct kvmd_cqe {
	uint64_t user_data;		/*  0 of the submission */
	int32_t res;			/*  8 >= 0, or -errno */
	uint16_t flags;			/* 12 KVMD_CQE_* */
	uint16_t resv;			/* 14 zero */
	uint32_t v0;			/* 16 see op */
	uint32_t v1;			/* 20 */
	uint32_t v2;			/* 24 */
	uint32_t pos;			/* 28 free-running index + 1, stored last */
};

#define KVMD_GROUP_ALL		0xffu

/*
 * SEQ_OPEN: off, nr = keys of the prompt's blocks in order (32 bytes each), for
 * every group whose block_tokens equals group 0's; with KVMD_OPEN_LISTS, off
 * names an array of struct kvmd_key_list, one per group, and nr must be their
 * number. first = tokens asked for (attribution; 0: nr blocks of group 0).
 * arg = hints. aux = expected gap to the next request of this session, ns.
 * res = blocks of group 0 ready, v0 = blocks coming from lower tiers,
 * v1 = tokens ready (what every group can serve), v2 = enum kvmd_miss, why the
 * prefix ended. Blocks until nothing; -EBUSY: seq is in use.
 *
 * Without KVMD_OPEN_LOAD only HBM is looked at and v0 is 0. With it, blocks that
 * are in lower tiers are leased too and their loads begin, in chain order: the
 * sequence holds res + v0 blocks of group 0, and a row entry that is still to
 * come is KVMD_SLOT_NULL until its block is there. struct kvmd_seq_status says
 * how far it is, SEQ_WAIT waits. With KVMD_OPEN_WAIT the completion comes when
 * all loads are over: res blocks and v1 tokens are ready, v0 is 0, what could not
 * be loaded is not part of the sequence. With KVMD_OPEN_BY_PLANE the row entries
 * of coming blocks are set at once; only planes below status.planes may be read.
 */
#define KVMD_OPEN_LISTS		(1u << 0)
#define KVMD_OPEN_NO_STORE	(1u << 1)	/* nothing of this sequence is cached */
#define KVMD_OPEN_NO_HIT	(1u << 2)	/* take no hit: recompute all */
#define KVMD_OPEN_LOAD		(1u << 3)	/* take blocks of lower tiers too */
#define KVMD_OPEN_WAIT		(1u << 4)	/* with LOAD: complete when they are there */
#define KVMD_OPEN_BY_PLANE	(1u << 5)	/* with LOAD: slots at once, readiness by plane */

/*
 * At the start of a sequence's rows (KVMD_FEAT_LOADS; row_off[0] is 64 then),
 * written by the daemon. ready + coming only shrinks, when a load failed: then err
 * says why, positions from ready on are NULL for good and the client trims the
 * sequence to `ready' (KVMD_TRIM_TAIL) before it goes on.
 */
struct kvmd_seq_status {
	uint32_t ready;			/*  0 leading blocks of group 0 that are there */
	uint32_t coming;		/*  4 blocks of group 0 behind them, being loaded */
	uint32_t planes;		/*  8 planes in place of every block held (BY_PLANE) */
	int32_t err;			/* 12 0, or -errno of the load that failed */
	uint32_t gen;			/* 16 seq_gen that this is about */
	uint32_t pad[11];
};

struct kvmd_key_list {
	uint64_t off;			/* byte offset of 32-byte keys in args */
	uint32_t nr;			/* keys */
	uint32_t resv;			/* zero */
};

/* Hints (arg of OPEN and CLOSE). */
#define KVMD_HINT_CLASS_MASK	0xffu		/* small request class, 0: none */
#define KVMD_HINT_WILL_CONTINUE	(1u << 8)	/* this prompt will be extended */
#define KVMD_HINT_LAST		(1u << 9)	/* it will not; end of session */

/*
 * SEQ_EXTEND: nr private blocks for group, all or nothing; with
 * KVMD_EXTEND_TOKENS (group = KVMD_GROUP_ALL) every full and window group grows
 * until it covers nr tokens from the start of the sequence. aux = deadline (CLOCK_MONOTONIC
 * ns; 0: the daemon's alloc_timeout). res = blocks added, v0 = first position.
 * -EAGAIN (KVMD_EXTEND_NOWAIT), -ENOMEM (deadline passed or more than there can
 * be), -EDEADLK (all wait for each other and this one is the youngest: swap or
 * close), -EDQUOT (tenant's max), -EBUSY (the session's step stands still),
 * -ENOSPC (row or pool has no such position).
 */
#define KVMD_EXTEND_NOWAIT	(1u << 0)
#define KVMD_EXTEND_TOKENS	(1u << 1)

/*
 * SEQ_PUBLISH: seals blocks first .. first+nr-1 of group under keys at off once
 * completed_step >= step. res = blocks sealed or merged, v0 = merged into
 * blocks that existed, v1 = kept private (after a hole, no-store).
 * The table entry of a merged block is rewritten before the completion; the
 * duplicate's memory stays until every step that was submitted when the client
 * took the completion has completed.
 */

/*
 * SEQ_FORK: first = index and arg = generation of the new sequence of this
 * session. Sealed blocks are shared; unpublished ones are copied once
 * completed_step >= step. aux = deadline. res = blocks of group 0,
 * v0 = blocks copied. Errors as SEQ_EXTEND.
 */

/*
 * SEQ_UNSHARE: position first of group becomes a private copy (made once
 * completed_step >= step). aux = deadline. res = 1, or 0 when it was private
 * already.
 */

/*
 * SEQ_TRIM: ends leases once completed_step >= step. KVMD_TRIM_TAIL: positions
 * from first on go, the sequence gets shorter. KVMD_TRIM_KEEP: keeps the first
 * `first` and the last nr positions, the rest become NULL entries. Neither:
 * positions first .. first+nr-1 become NULL entries. Other positions keep their
 * place. res = leases ended.
 */
#define KVMD_TRIM_TAIL		(1u << 0)
#define KVMD_TRIM_KEEP		(1u << 1)

/*
 * SEQ_REPLACE: positions first .. first+nr-1 of group are replaced by the arg
 * (at most nr) private blocks at the end of the sequence, once completed_step
 * >= step; the old leases end. Later positions move down, or with
 * KVMD_REPLACE_HOLES keep their place (the rest of the range becomes NULL).
 * res = new length of the group in blocks.
 */
#define KVMD_REPLACE_HOLES	(1u << 0)

/*
 * SEQ_SEND: once completed_step >= step the whole sequence becomes a ticket;
 * seq is free again. v0, v1 = low and high half of the ticket.
 * SEQ_RECV: aux = ticket; seq, seq_gen are the new sequence. res = blocks of
 * group 0. A ticket serves once, in its space, and ends after the daemon's
 * ticket_timeout (-ENOENT).
 */

/*
 * SEQ_CLOSE: drops all leases once completed_step >= step; seq is free when the
 * completion is there. arg = hints. res = 0. v0 = blocks it held.
 */

/*
 * SEQ_SWAP_OUT: once completed_step >= step the sequence gives up its HBM: blocks
 * that only it holds, private ones included, are copied to RAM and their slots
 * freed; row entries become KVMD_SLOT_NULL. res = blocks that left HBM. Until
 * SWAP_IN only CLOSE, SWAP_IN and ADVISE are taken for it (-EBUSY). -ENOSPC: RAM
 * has no room, nothing changed; -EOPNOTSUPP: there is no RAM tier.
 * SEQ_SWAP_IN: brings all of it back, all or nothing, aux = deadline as for
 * EXTEND; completes when it is there. res = blocks that came back. Errors as
 * SEQ_EXTEND; -EIO: a block could not be read back: only CLOSE is left.
 */

/*
 * SEQ_WAIT: first = blocks of group 0 wanted, at most what it holds. Completes
 * when they are ready or a load failed. res = blocks ready, v0 = still coming,
 * v1 = -errno of the failed load as a positive number, 0: none.
 */

/*
 * CANCEL: aux = user_data of a waiting or loading entry, which then ends with
 * -ECANCELED. res = 0, -ENOENT (no such entry) or -EALREADY (cannot be stopped).
 */

/*
 * LOOKUP: off, nr = keys, group. res = leading blocks in HBM, v0 = then in RAM
 * or higher, v1 = then on disk or higher, v2 = enum kvmd_miss. Takes no lease.
 */

/*
 * ADVISE: arg = enum kvmd_advice. Keys at off, nr in group; or with
 * KVMD_ADVISE_SEQ positions first .. first+nr-1 of seq. aux: priority 0-100 and
 * its duration in ms (KVMD_PRIO), time to live in ms. A hint may be ignored and
 * never fails the data. res = blocks it was applied to.
 */
#define KVMD_ADVISE_SEQ		(1u << 0)

enum kvmd_advice {
	KVMD_ADV_WILLNEED,	/* load from lower tiers */
	KVMD_ADV_COLD,		/* first to be reclaimed */
	KVMD_ADV_DROP,		/* forget it now, unless leased */
	KVMD_ADV_PIN,		/* keep it in HBM, within the pin budget (-EDQUOT) */
	KVMD_ADV_UNPIN,
	KVMD_ADV_PRIORITY,	/* aux = KVMD_PRIO(priority, ms); 50 is normal */
	KVMD_ADV_TTL,		/* aux = ms until it is dropped; 0: no limit */
	KVMD_ADV_NO_STORE,	/* never copied to a lower tier */
	KVMD_NR_ADV
};
#define KVMD_PRIO(prio, ms)	((uint64_t)(ms) << 8 | (prio))
#define KVMD_PRIO_DEFAULT	50u
#define KVMD_PRIO_MAX		100u

/*
 * CLOCK: aux = policy time in ns. Only when the daemon runs with
 * clock = driven (-EPERM otherwise).
 */

/* Why a prefix ended where it did. */
enum kvmd_miss {
	KVMD_MISS_NONE,		/* all keys hit */
	KVMD_MISS_NEVER,	/* this key was never published, as far as known */
	KVMD_MISS_EVICTED,	/* it was here and was reclaimed */
	KVMD_MISS_DROPPED,	/* a client or operator dropped it, or its ttl ended */
	KVMD_MISS_EPOCH,	/* the space's epoch was raised since */
	KVMD_MISS_PENDING,	/* being published or loaded at this moment */
	KVMD_MISS_REFUSED,	/* in a lower tier, but recomputing is faster */
	KVMD_MISS_UNASKED,	/* the client asked for no hit */
	KVMD_MISS_GROUP,	/* another group of the space ends earlier */
	KVMD_NR_MISS
};

/* -------------------------------------------------------------- control */

enum kvmd_msg_type {
	KVMD_MSG_HELLO		= 1,	/* C -> D */
	KVMD_MSG_HELLO_REPLY	= 2,	/* D -> C, fds: ring, args, steps, bell */
	KVMD_MSG_SPACE		= 3,	/* C -> D */
	KVMD_MSG_SPACE_REPLY	= 4,	/* D -> C, fds: tables */
	KVMD_MSG_JOIN		= 5,	/* C -> D, instead of HELLO: rank r of a group */
	KVMD_MSG_JOIN_REPLY	= 6,	/* D -> C, fds: steps, tables */
	KVMD_MSG_SLAB_ADD	= 7,	/* D -> C, fds: planes of one slab */
	KVMD_MSG_SLAB_ADDED	= 8,	/* C -> D: mapped */
	KVMD_MSG_SLAB_DEL	= 9,	/* D -> C: unmap it */
	KVMD_MSG_SLAB_DELETED	= 10,	/* C -> D: unmapped, and no step uses it */
	KVMD_MSG_EPOCH		= 11,	/* C -> D: raise the space's epoch */
	KVMD_MSG_EPOCH_REPLY	= 12,	/* D -> C */
	KVMD_MSG_BYE		= 13,	/* C -> D, head only: unmapped, no step runs, leases may go */
	KVMD_MSG_RESUME		= 14,	/* C -> D, instead of HELLO: the session of a former daemon */
	KVMD_MSG_RESUME_REPLY	= 15,	/* D -> C, fds: bell */
	KVMD_NR_MSG
};

/* Head of every message. A reply echoes cookie. err: 0 or -errno. */
struct kvmd_msg {
	uint32_t type;			/*  0 enum kvmd_msg_type */
	uint32_t bytes;			/*  4 of the whole message */
	uint64_t cookie;		/*  8 */
	int32_t err;			/* 16 replies only */
	uint32_t nr_fds;		/* 20 that came with this message */
};

/* Feature bits, both ways: the client asks, the daemon answers with what both have. */
#define KVMD_FEAT_POS		(1ull << 0)	/* pos words in entries */
#define KVMD_FEAT_GROUPS	(1ull << 1)	/* session groups (JOIN) */
#define KVMD_FEAT_LOADS		(1ull << 2)	/* OPEN_LOAD, SEQ_WAIT, status lines */
#define KVMD_FEAT_RESUME	(1ull << 3)	/* RESUME after the daemon's restart */
#define KVMD_FEATURES \
	(KVMD_FEAT_POS | KVMD_FEAT_GROUPS | KVMD_FEAT_LOADS | KVMD_FEAT_RESUME)

struct kvmd_hello {
	struct kvmd_msg h;
	uint32_t version;		/*  24 KVMD_WIRE_VERSION */
	uint32_t sq_entries;		/*  28 power of two */
	uint32_t cq_entries;		/*  32 power of two, at least sq_entries */
	uint32_t max_seqs;		/*  36 sequences at a time */
	uint64_t features;		/*  40 KVMD_FEAT_* */
	uint64_t args_bytes;		/*  48 of the args area */
	uint32_t max_tokens;		/*  56 of one sequence */
	uint32_t nr_lanes;		/*  60 completed_step lanes, over all ranks */
	uint32_t nr_ranks;		/*  64 processes of the session group, 1: none */
	uint32_t flags;			/*  68 zero */
	uint64_t recompute_tps;		/*  72 tokens/s the engine recomputes; 0: unknown */
	char tenant[KVMD_NAME_BYTES];	/*  80 "" is "default" */
	char label[KVMD_NAME_BYTES];	/* 144 shown by kvctl */
	uint64_t resv[4];		/* 208 zero */
};

struct kvmd_hello_reply {
	struct kvmd_msg h;
	uint32_t version;		/*  24 of the daemon */
	uint32_t session;		/*  28 id, shown by kvctl */
	uint64_t features;		/*  32 */
	uint8_t boot_id[16];		/*  40 of this daemon's run */
	uint64_t group_token;		/*  56 for the other ranks' JOIN */
	uint64_t ring_bytes;		/*  64 */
	uint64_t args_bytes;		/*  72 */
	uint32_t sq_entries;		/*  80 granted */
	uint32_t cq_entries;		/*  84 */
	uint32_t sq_off;		/*  88 bytes from the ring's start */
	uint32_t cq_off;		/*  92 */
	uint32_t max_seqs;		/*  96 */
	uint32_t max_tokens;		/* 100 */
	char device[16];		/* 104 "host", "null", "cuda" */
	uint64_t resv[4];		/* 120 */
	char text[KVMD_TEXT_BYTES];	/* 152 refusal: what was wrong and what to do */
};

enum kvmd_rule {
	KVMD_RULE_FULL,		/* a hit needs every block of the prefix */
	KVMD_RULE_WINDOW,	/* the last `window` tokens and the first `sinks` */
	KVMD_RULE_STATE,	/* one object, at its exact token count */
	KVMD_NR_RULE
};

#define KVMD_GROUP_REPLICA	(1u << 0)	/* shards hold the same bytes (MLA) */

/*
 * How blocks are kept below HBM (kvmd-codec(7)): the daemon's business alone, a block
 * in HBM has plain bytes. The lossy ones give other bytes back, within a bound.
 */
enum kvmd_codec_id {
	KVMD_CODEC_NONE,
	KVMD_CODEC_WINDOW,	/* lossless: exponents in four bits */
	KVMD_CODEC_FP8_E4M3,
	KVMD_CODEC_FP8_E5M2,
	KVMD_CODEC_INT8,	/* a scale per scale_values values */
	KVMD_CODEC_INT4,	/* the same */
	KVMD_CODEC_KIVI2,	/* two bits; K grouped per channel, V per token */
	KVMD_NR_CODEC
};

enum kvmd_dtype {
	KVMD_DTYPE_NONE,
	KVMD_DTYPE_BF16,	/* the one that codecs take */
	KVMD_NR_DTYPE
};

#define KVMD_MAX_CODEC_PARTS	65536u	/* of one block in one shard */

/*
 * A plane is `parts' equal pieces, one after the other; a part is block_tokens rows of
 * `channels' values. Parts are counted over all planes of a shard, in their order;
 * every shard is alike. All zero: no codec.
 *   [layer][K|V][token][heads * dim]	parts 2 * layers, channels heads * dim, kv_run 1
 *   [layer][K|V][head][token][dim]	parts 2 * layers * heads, channels dim, kv_run heads
 */
struct kvmd_codec {
	uint8_t id;			/*  0 enum kvmd_codec_id */
	uint8_t dtype;			/*  1 enum kvmd_dtype */
	uint8_t scale_values;		/*  2 int8, int4, kivi2: 32, 64 or 128, 0: 64; others: zero */
	uint8_t resv0;			/*  3 zero */
	uint16_t parts;			/*  4 of a plane */
	uint16_t channels;		/*  6 plane_bytes = parts * block_tokens * channels * 2 */
	uint16_t kv_run;		/*  8 so many parts are K, then as many V, ...; 0: all like K */
	uint16_t resv1;			/* 10 zero */
	uint16_t exact_first;		/* 12 so many leading parts are kept by `window' */
	uint16_t exact_last;		/* 14 and trailing ones */
	uint32_t resv2[3];		/* 16 zero */
};

struct kvmd_group {
	uint64_t plane_bytes;		/*  0 of one block in one plane, per shard */
	uint32_t planes;		/*  8 1 = block-major */
	uint32_t block_tokens;		/* 12 */
	uint32_t rule;			/* 16 enum kvmd_rule */
	uint32_t window;		/* 20 tokens (window) */
	uint32_t sinks;			/* 24 tokens (window) */
	uint32_t flags;			/* 28 KVMD_GROUP_* */
	uint32_t max_slots;		/* 32 largest slot number + 1; 0: the daemon's choice */
	struct kvmd_codec codec;	/* 36 how blocks are kept below HBM */
};

struct kvmd_space {
	struct kvmd_msg h;
	char name[KVMD_NAME_BYTES];	/*  24 */
	uint8_t salt_digest[16];	/*  88 of the key salt: a space has one */
	uint32_t nr_groups;		/* 104 */
	uint32_t nr_shards;		/* 108 */
	uint32_t flags;			/* 112 KVMD_SPACE_* */
	uint32_t resv0;			/* 116 zero */
	struct kvmd_group group[KVMD_MAX_GROUPS]; /* 120 */
	char device[KVMD_MAX_SHARDS][40]; /* 632 UUID per shard, "": the daemon's choice */
	uint64_t resv[4];		/* 952 zero */
};

#define KVMD_SPACE_EXISTING	(1u << 0)	/* -ENOENT instead of creating it */
#define KVMD_SPACE_ANY_GEOMETRY	(1u << 1)	/* take the space's own (groups unread) */

struct kvmd_space_reply {
	struct kvmd_msg h;
	uint32_t space;			/*  24 id */
	uint32_t nr_groups;		/*  28 */
	uint32_t nr_shards;		/*  32 */
	uint32_t nr_slabs;		/*  36 SLAB_ADD messages that follow at once */
	uint64_t epoch;			/*  40 */
	uint64_t tables_bytes;		/*  48 */
	uint64_t seq_stride;		/*  56 bytes from one sequence's rows to the next */
	struct kvmd_group group[KVMD_MAX_GROUPS]; /* 64 as granted (max_slots set) */
	uint32_t row_off[KVMD_MAX_GROUPS]; /* 576 bytes from a sequence's start to its row */
	uint32_t row_blocks[KVMD_MAX_GROUPS]; /* 608 entries in a row */
	uint8_t salt_digest[16];	/* 640 */
	uint32_t handle_kind;		/* 656 enum kvmd_handle of its slabs */
	uint32_t resv;			/* 660 */
	uint8_t device[KVMD_MAX_SHARDS][16]; /* 664 GPU per shard, its UUID's bytes; 0: none */
	char text[KVMD_TEXT_BYTES];	/* 792 */
};

struct kvmd_join {
	struct kvmd_msg h;
	uint32_t version;		/* 24 */
	uint32_t rank;			/* 28 1 .. nr_ranks-1 */
	uint64_t group_token;		/* 32 from rank 0's hello reply */
	uint64_t resv[4];		/* 40 zero */
};

/*
 * RESUME: the daemon this session was opened with is gone and another one
 * listens. If that one kept the pool (boot_id is the former daemon's), the
 * session goes on: same rings, args, steps, tables and slabs, which the client
 * still has mapped; the rings are empty, entries that were not completed are
 * over (-ECONNRESET) though some may have taken effect, sequences are as their
 * rows say. Rank 0 first; the others were never told session and boot_id and
 * leave both zero: the group_token names the session. err: -ESTALE the pool was not kept (say HELLO instead,
 * nothing of the old session is left), -EACCES, -EAGAIN still recovering: again
 * in retry_ms.
 */
struct kvmd_resume {
	struct kvmd_msg h;
	uint32_t version;		/*  24 */
	uint32_t rank;			/*  28 */
	uint32_t session;		/*  32 as in hello_reply; 0 from rank 1 on */
	uint32_t resv0;			/*  36 zero */
	uint64_t group_token;		/*  40 as in hello_reply: proves the session */
	uint8_t boot_id[16];		/*  48 of the daemon before; 0 from rank 1 on */
	uint64_t resv[4];		/*  64 zero */
};

struct kvmd_resume_reply {
	struct kvmd_msg h;
	uint32_t retry_ms;		/*  24 with -EAGAIN */
	uint32_t nr_slabs;		/*  28 SLAB_ADD messages that follow: all of the space */
	uint8_t boot_id[16];		/*  32 of the daemon now */
	uint64_t epoch;			/*  48 of the space */
	uint64_t resv[4];		/*  56 */
	char text[KVMD_TEXT_BYTES];	/*  88 */
};

/* JOIN is answered when rank 0 has its space: the reply is that of SPACE. */

/*
 * One slab: slots first_slot .. first_slot+nr_slots-1 of a group, one handle per
 * plane and shard, shard-major (fd index = shard * planes + plane). Handles that
 * do not fit one message follow in further messages with the same slab and gen
 * and fd_first advanced.
 */
struct kvmd_slab {
	struct kvmd_msg h;
	uint32_t slab;			/* 24 id */
	uint32_t gen;			/* 28 of the id */
	uint32_t group;			/* 32 */
	uint32_t first_slot;		/* 36 */
	uint32_t nr_slots;		/* 40 */
	uint32_t fd_first;		/* 44 index of this message's first handle */
	uint32_t fd_total;		/* 48 handles of the whole slab; 0: no memory (null device) */
	uint32_t handle_kind;		/* 52 enum kvmd_handle */
	uint64_t extent_bytes;		/* 56 of one handle */
	uint64_t resv[2];		/* 64 zero */
};

enum kvmd_handle {
	KVMD_HANDLE_NONE,	/* null device: nothing to map */
	KVMD_HANDLE_MEMFD,	/* mmap it */
	KVMD_HANDLE_CUDA_VMM,	/* cuMemImportFromShareableHandle */
	KVMD_HANDLE_CUDA_LEGACY, /* a memfd of 64 bytes: what cuIpcOpenMemHandle takes */
	KVMD_NR_HANDLE
};

/* SLAB_ADDED, SLAB_DELETED. */
struct kvmd_slab_ack {
	struct kvmd_msg h;
	uint32_t slab;			/* 24 */
	uint32_t gen;			/* 28 */
};

struct kvmd_epoch {
	struct kvmd_msg h;
	uint64_t epoch;			/* 24 C: the new one, 0: the next; D: the one now */
	char text[KVMD_TEXT_BYTES];	/* 32 D */
};

#define KVMD_MSG_MAX_BYTES	2048u	/* no message is longer */

KVMD_WIRE_ASSERT(sizeof(struct kvmd_ring) == 4096);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_steps) == 4096);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_sqe) == 64);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_cqe) == 32);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_msg) == 24);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_hello) == 240);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_hello_reply) == 408);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_codec) == 28);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_group) == 64);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_space) == 984);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_space_reply) == 1048);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_join) == 72);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_slab) == 80);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_slab_ack) == 32);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_epoch) == 288);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_seq_status) == 64);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_resume) == 96);
KVMD_WIRE_ASSERT(sizeof(struct kvmd_resume_reply) == 344);

#endif
