/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvinfer.h - a small inference engine whose KV cache is a kvmd pool.
 *
 * An example to read: pool.c and seq.c are all it takes to use kvmd, engine.c is
 * continuous batching with chunked prefill, model.h is the model. One concern a file:
 *
 *	opts.c prompts.c report.c	what is asked for, what is said
 *	open.c				device, model, memory of a step
 *	pool.c private.c		blocks of the pool; a cache of its own memory
 *	seq.c				one sequence: open, grow, publish, trim, close
 *	engine.c			which rows the next step has
 *	check.c				the same answer without any cache?
 *	fork.c spec.c h2o.c handoff.c tp.c	samples, speculation, eviction of tokens,
 *				prefill and decode apart, two ranks
 *
 * A step's GEMMs have one of two shapes: `chunk' rows for prefill, which begins at
 * multiples of `chunk', and `batch' rows for everything else. So a token's logits are
 * the same bits with a warm cache, a cold one, or none.
 *
 * One thread. Errors are -errno with text in ki_engine.msg.
 */
#ifndef KVINFER_H
#define KVINFER_H

#include <kvclient.h>

#include "tools/kvinfer/model.h"

enum ki_role { KI_ROLE_RUN, KI_ROLE_PREFILL, KI_ROLE_DECODE };

struct ki_opts {
	/* What to answer. */
	const char *system;		/* put before each prompt; NULL: none */
	char **prompt;			/* texts, from the command line */
	uint32_t nr_prompts;
	const char *prompt_file;	/* a text or {"text": ...} or {"ids": [...]} per line */
	const char *trace;		/* in Mooncake's form; lengths divided by trace_scale */
	uint32_t trace_requests, trace_scale;
	uint32_t repeat;		/* all of it so many times */
	uint32_t tokens;		/* to generate, each */
	uint32_t samples;		/* of each prompt, by fork */
	float temperature;
	uint32_t top_k;
	uint64_t seed;			/* of sampling */

	/* The model. */
	const char *weights;		/* safetensors; NULL: random */
	struct ki_shape shape;		/* without weights */
	uint64_t model_seed;

	/* The engine. */
	const char *device;		/* "cpu", "cuda", "cuda:N" */
	enum ki_gemm_kind gemm;
	int threads;
	uint32_t batch, chunk;		/* rows of a decode step, of a prefill step */
	uint32_t window, sinks;
	uint32_t h2o;			/* tokens kept; 0: all */
	uint32_t draft_layers, draft_tokens; /* speculation; 0: none */
	uint32_t ranks;			/* 1 or 2 */

	/* The pool. */
	bool private;			/* no daemon: own memory */
	const char *socket, *space, *tenant;
	uint32_t wait_s;		/* for a daemon to appear */
	uint32_t block_tokens;
	enum kn_dtype dtype;		/* of K and V */
	bool layer_planes;		/* a plane per layer instead of one */
	struct kvmd_codec codec;	/* id; and exact_first, exact_last in layers */
	uint64_t private_tokens;	/* size of a private cache; 0: what the prompts need */

	/* What is said. */
	enum ki_role role;
	const char *handoff;		/* file or "-": where tickets go to or come from */
	bool check, json, no_cache;	/* no_cache: take no hit */
	bool prompt_only;		/* publish blocks of the prompt only, not what was made */
	bool quiet;
};

/* Ends the process with usage and exit code 2 when they make no sense. */
void ki_opts_parse(struct ki_opts *o, int argc, char **argv);

/* What to answer: tokens of one prompt. */
struct ki_request {
	uint32_t id;
	int32_t *token;			/* owned */
	uint32_t nr;
	uint32_t tokens;		/* to generate */
	uint32_t samples;
	/* Of another process: its prefill is over (KI_ROLE_DECODE). */
	bool handed;
	uint64_t ticket;
	uint32_t done;			/* tokens behind the ticket; token[done] is there */
	uint32_t published;		/* of its blocks */
	uint64_t logits_sum;		/* of ki_seq, so far */
	uint8_t root[32];		/* ki_pool_root() of that process */
	char space[KVMD_NAME_BYTES];
	struct ki_request *next;
};

struct ki_requests {
	struct ki_request *head, **tail;
	uint32_t nr;
};

/*
 * All prompts that the options name, in order. Byte tokens: a text's bytes. -EINVAL, -ENOENT with
 * file and line in @msg; a prompt of more than @max_tokens - tokens is -E2BIG and says both.
 */
int ki_prompts_load(const struct ki_opts *o, const struct ki_shape *s, struct ki_requests *ret_q,
		    char *msg);
void ki_request_free(struct ki_request *r);

/* -------------------------------------------------------------------- caches */

struct ki_engine;

/* A session with the daemon. */
struct ki_pool {
	struct kvc *k;
	const struct kvc_view *v;
	uint64_t step;			/* last one submitted */
	bool gone;			/* the daemon is; what is held may still be used */
	int32_t *rows;			/* GPU that cannot read the rows: a copy; else NULL */
	size_t rows_bytes;
};

/* Connect and open the space that fits model and options; fills @c. Blocks. */
int ki_pool_open(struct ki_engine *e, struct ki_pool **ret_p, struct ki_cache *c);
/* SHA-256 of all that changes the bytes of K and V: root of the keys, and the space's name. */
void ki_pool_root(const struct ki_engine *e, uint8_t root[32]);
/* The space's: of the options, or of the root's first bytes. */
void ki_pool_name(const struct ki_engine *e, char name[KVMD_NAME_BYTES]);
/* The other ranks' side of it: joins @group_token. */
int ki_pool_join(struct ki_engine *e, uint64_t group_token, struct ki_pool **ret_p,
		 struct ki_cache *c);
void ki_pool_close(struct ki_engine *e, struct ki_pool *p);
/*
 * An operation failed with @err: -ECONNRESET makes this try kvc_reconnect(). 1: a daemon
 * that kept the pool is there, do it again; else @err, and p->gone if nobody is there.
 */
int ki_pool_retry(struct ki_pool *p, int err);
/* Around ki_step(): tells the daemon which step may still touch its blocks. */
int ki_pool_begin(struct ki_engine *e, struct ki_pool *p);
void ki_pool_end(struct ki_pool *p);

/* Own memory for @seqs sequences of @tokens tokens; sequence i has its blocks for good. */
struct ki_private;
int ki_private_create(struct ki_engine *e, uint32_t seqs, uint32_t tokens,
		      struct ki_private **ret_p, struct ki_cache *c);
void ki_private_free(struct ki_engine *e, struct ki_private *p);
/* One layer's K and V of a block at @base, block-major: the layout of both caches. */
void ki_cache_layer(const struct ki_engine *e, struct kn_kv *kv, void *base, uint64_t slot_bytes);
/* Bytes of one layer's K and V in a block of this rank. */
uint64_t ki_layer_bytes(const struct ki_engine *e);

/* ----------------------------------------------------------------- sequences */

enum ki_state {
	KI_PREFILL,			/* tokens done .. nr are still to be computed */
	KI_DECODE,			/* one token is: the one that was made last */
	KI_SWAPPED,			/* gave its blocks up until there is room again */
	KI_DONE
};

struct ki_seq {
	struct ki_request *req;
	uint32_t sample;		/* of its request */
	uint32_t idx, gen;		/* in the session; row of the table */
	enum ki_state state;
	int32_t *token;			/* [cap]: prompt, then what was made */
	uint32_t nr, cap;
	uint32_t made;			/* tokens generated */
	uint32_t done;			/* tokens computed: position of the next */
	uint32_t len;			/* tokens in the cache: done, less those thrown out */
	uint32_t blocks;		/* in the table */
	uint32_t published;		/* leading blocks that were */
	uint32_t cached;		/* tokens that the pool had */
	uint32_t trimmed;		/* window: blocks behind the sinks that are gone */
	bool private;			/* not to be published any more */
	bool closed;			/* SWAPPED: RAM does not have it, it is computed again */
	bool stopped;			/* DONE before its time: the daemon is gone */
	bool lost;			/* its ticket was gone: it is computed again */
	uint32_t alone_tries;		/* waits for room since it last made a token */
	uint32_t nr_forks;		/* still to be made when prefill is over */
	struct kvc_chain chain;
	uint8_t (*key)[KVMD_KEY_BYTES];	/* of full blocks of the prompt and beyond */
	uint32_t nr_keys;
	float *logits;			/* check: [tokens][vocab] of each token made */
	uint32_t unseen;		/* leading tokens made whose logits another has */
	uint64_t logits_sum;		/* over all logits seen, in order */
	float *mass;			/* h2o: [cap] of each cached token */
	uint64_t start_ns, first_ns, end_ns;
	uint32_t steps, drafted, accepted, evicted;
	double check_diff;		/* largest |difference| of a logit; -1: not checked */
	bool check_equal;		/* bit for bit */
	struct ki_seq *next;
};

int ki_seq_open(struct ki_engine *e, struct ki_request *r, struct ki_seq **ret_s);
/* A place in the session and memory, nothing opened: for forks and tickets. */
int ki_seq_new(struct ki_engine *e, struct ki_request *r, struct ki_seq **ret_s);
/* Blocks for tokens up to @len. -EDEADLK, -ENOMEM: the caller gives something up. */
int ki_seq_grow(struct ki_engine *e, struct ki_seq *s, uint32_t len);
/* Tokens up to done are computed: publish full blocks, let those behind the window go. */
int ki_seq_advance(struct ki_engine *e, struct ki_seq *s);
/* Out of HBM (or, where RAM takes nothing, closed: to be computed again), and back. */
int ki_seq_swap_out(struct ki_engine *e, struct ki_seq *s);
int ki_seq_swap_in(struct ki_engine *e, struct ki_seq *s, uint64_t timeout_ns);
/* The cache ends after @len tokens: blocks behind go. */
int ki_seq_cut(struct ki_engine *e, struct ki_seq *s, uint32_t len);
int ki_seq_append(struct ki_seq *s, int32_t token);
void ki_seq_close(struct ki_engine *e, struct ki_seq *s);	/* and frees it */

/* -------------------------------------------------------------------- engine */

#define KI_MAX_SEQS	256u	/* rows of --batch at most */
#define KI_MAX_CHUNK	512u	/* ... and of --chunk */

struct ki_totals {
	uint64_t requests, prompt_tokens, cached_tokens, computed_tokens, made_tokens;
	uint64_t prefill_steps, decode_steps, swaps, restarts;
	uint64_t drafted, accepted, evicted;
	uint64_t unequal;		/* answers whose logits differ from the check's */
	double check_diff;
	uint64_t start_ns, end_ns;
};

struct ki_engine {
	struct ki_opts o;
	struct kn_dev *dev;
	struct ki_model *m;
	struct ki_gemm *gemm;
	struct ki_run *run;
	struct ki_cache cache;
	struct ki_pool *pool;		/* NULL: private */
	struct ki_private *mem;
	struct ki_tp *tp;		/* NULL: one rank */
	struct ki_requests wait;
	struct ki_seq *seqs, **seqs_tail; /* running, oldest first */
	uint32_t nr_seqs;
	bool used[KI_MAX_SEQS];
	uint32_t gen;
	bool freed;			/* a sequence ended or was swapped: others may have room */
	uint32_t in_vain;		/* one gave up its own blocks, since a token was made */
	struct {			/* of ki_engine_pick(), device memory */
		float *logits;
		uint64_t *seed;
		int32_t *token;
	} pick;
	struct ki_totals total;
	char msg[KI_TEXT];
};

/* Answer all of e->wait; reports each. 0, or -errno when the engine cannot go on. */
int ki_engine_run(struct ki_engine *e);
/* One step of the model over the engine's cache, announced to daemon and ranks. */
int ki_engine_step(struct ki_engine *e, const struct ki_step *st);
/* The next token of @s out of @logits [vocab], host memory. */
int ki_engine_pick(struct ki_engine *e, const struct ki_seq *s, const float *logits,
		   int32_t *ret_token);
/* A token was made from @logits: append it, remember what the check needs; state follows. */
int ki_engine_made(struct ki_engine *e, struct ki_seq *s, int32_t token, const float *logits);
void ki_engine_add(struct ki_engine *e, struct ki_seq *s);	/* to the running ones */
uint64_t ki_now(void);			/* CLOCK_MONOTONIC, ns */
int ki_fail(struct ki_engine *e, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));	/* text into e->msg; err */

/* open.c: device, model, GEMM and memory of a step of one rank. main.c, and tp.c in the child. */
int ki_engine_open_rank(struct ki_engine *e, uint32_t rank);
void ki_engine_close(struct ki_engine *e);	/* all that was opened, half-built too */

/* check.c: recompute @s without a cache and compare. */
int ki_check(struct ki_engine *e, struct ki_seq *s);

/* move.c: slot of a block of @s; tokens copied between blocks: by this rank, by all. */
uint32_t ki_slot(const struct ki_engine *e, const struct ki_seq *s, uint32_t block);
int ki_move_layers(struct ki_engine *e, const struct kn_token_move *move, uint32_t nr);
int ki_move(struct ki_engine *e, const struct kn_token_move *move, uint32_t nr);

/* fork.c: prefill of @s is over, @logits are its last row's: its other samples. */
int ki_fork(struct ki_engine *e, struct ki_seq *s, const float *logits);

/*
 * spec.c: one round of drafts and one step that verifies them, for @s, which has blocks for
 * ki_drafts() + 1 tokens more.
 */
uint32_t ki_drafts(const struct ki_engine *e, const struct ki_seq *s);
int ki_speculate(struct ki_engine *e, struct ki_seq *s);

/* h2o.c: add a row's @mass[@nr] to @s; throw out tokens when the budget is exceeded. */
int ki_h2o_mass(struct ki_engine *e, struct ki_seq *s, const float *mass, uint32_t nr);
int ki_h2o_evict(struct ki_engine *e, struct ki_seq *s);

/* handoff.c: @s becomes a ticket, its line goes out; requests out of such lines. */
#define KI_HANDOFF_SCHEMA 1
int ki_handoff_send(struct ki_engine *e, struct ki_seq *s);
int ki_handoff_load(const struct ki_opts *o, struct ki_requests *ret_q, char *msg);
int ki_handoff_open(struct ki_engine *e, struct ki_request *r, struct ki_seq **ret_s);

/*
 * tp.c: a second process with the other half of the model. start() forks; in the child it
 * serves until rank 0 ends, and does not return. Before any device is opened.
 */
struct ki_tp;
int ki_tp_start(struct ki_engine *e, struct ki_tp **ret_t);
/* Rank 0 has its session: the other one may join. Waits until it has. */
int ki_tp_ready(struct ki_engine *e, uint64_t group_token);
/* The other one runs it too; @check: over the cache of ki_tp_check(). It goes on meanwhile. */
int ki_tp_step(struct ki_engine *e, const struct ki_step *st, bool check);
int ki_tp_wait(struct ki_engine *e);	/* until it has done all that it was told */
int ki_tp_move(struct ki_engine *e, const struct kn_token_move *move, uint32_t nr);
/* Its part of a private cache for ki_check() of @tokens; 0: it goes. */
int ki_tp_check(struct ki_engine *e, uint32_t tokens);
bool ki_tp_gone(const struct ki_tp *t);	/* the other one is, and e->msg says why */
struct ki_reduce *ki_tp_reduce(struct ki_tp *t);
void ki_tp_stop(struct ki_tp *t);	/* waits for the child */

/* report.c */
void ki_report_seq(const struct ki_engine *e, const struct ki_seq *s);
void ki_report_end(const struct ki_engine *e);

#endif
