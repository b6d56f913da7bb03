/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.h - the daemon's own objects: connections, sessions, operations.
 *
 * A connection is one client process: its control socket, its pidfd, the slabs
 * it mapped. A session is what rank 0 of a group of connections opened: one
 * space, one pair of rings, one table of sequences. An operation is one
 * submission entry between being taken and being completed.
 *
 * All of it belongs to the core thread. Objects live in fixed arrays; what a
 * session needs is allocated when it says hello, nothing afterwards.
 */
#ifndef KVMD_SVC_DAEMON_H
#define KVMD_SVC_DAEMON_H

#include <sys/types.h>

#include "kvmd/index/seq.h"
#include "kvmd/lib/worker_bell.h"
#include "kvmd/reclaim/reclaim.h"
#include "kvmd/ring/check.h"
#include "kvmd/ring/ring.h"
#include "kvmd/svc/config.h"
#include "kvmd/svc/psi.h"

#define FETCH_KEYS	2048	/* keys fetched and looked at in one turn of an entry */
#define WORK_BLOCKS	4096	/* leases moved in one turn of an entry */
#define TURN_ENTRIES	64	/* entries taken from one session in one turn */
#define TURN_BLOCKS	8192	/* and about so many blocks looked at for them */
#define MAX_TICKETS	1024
#define NR_COPY_JOBS	64
#define JOB_COPIES	64

struct daemon;
struct session;

/* A queue of pool nodes: record ids with a condition each (node.when). */
struct nodeq {
	uint32_t head, tail;		/* nodes, 0: empty */
};

/* ------------------------------------------------------------- operations */

enum op_state {
	OP_FREE,
	OP_RUNNING,		/* in its run() right now */
	OP_QUEUED,		/* behind another entry of its sequence */
	OP_WAIT_ALLOC,		/* on a gpool's waiters */
	OP_WAIT_STEP,		/* on session.step_ops */
	OP_WAIT_COPY,		/* a device copies for it */
	OP_WAIT_LOAD,		/* on session.load_ops: blocks of its sequence are coming */
	OP_MORE,		/* goes on next turn: on session.more */
	NR_OP_STATE
};
const char *op_state_name(unsigned state);

struct op {
	struct kvmd_sqe e;		/* private copy */
	struct session *s;
	struct list link;		/* step_ops or more */
	struct waiter w;
	uint32_t next;			/* behind it in its sequence's queue, SEQ_NO_OP: none */
	uint8_t state;			/* enum op_state */
	uint8_t phase;			/* the operation's own; 0 at first */
	uint8_t grp;			/* the operation's own: group in work */
	bool step_done;			/* its step has completed */
	bool answered;			/* op_answer() was called */
	uint32_t cursor;		/* the operation's own */
	uint32_t n0, n1, n2, n3;	/* the operation's own counts */
	uint32_t new_id;		/* record being filled by a copy, 0: none */
	struct nodeq held;		/* blocks to release after the completion was taken */
	uint64_t since_ns;		/* when it was taken */
	struct kvmd_key_list list[KVMD_MAX_GROUPS];	/* OPEN with lists */
	struct swap_wait swap;		/* SWAP_* */
	uint32_t nr_swaps;		/* copies under way for it */
};

/* What an operation's run() returns. */
enum op_ret {
	OP_DONE,			/* *c is filled: complete it */
	OP_PARKED,			/* it waits; somebody will run it again */
};

/* One row per operation. */
struct op_def {
	const char *name;
	bool on_seq;			/* seq must be live, generation must match */
	bool makes_seq;			/* seq must be free */
	bool structural;		/* waits for the sequence's publishes */
	bool after_step;		/* waits for completed_step >= step before run() */
	bool takes;			/* takes memory or leases: refused to a stalled session */
	/*
	 * First with err 0; again whenever what it waited for is over: 0, or why
	 * not (-ENOMEM, -EDEADLK, -ECANCELED, -EIO). With an error it gives back
	 * what it held and ends.
	 */
	enum op_ret (*run)(struct op *op, int err, struct kvmd_cqe *c);
};
extern const struct op_def op_defs[KVMD_NR_OP];

/* Copies for UNSHARE and FORK; a fixed pool. */
struct copy_job {
	struct dev_batch batch;
	struct dev_copy copy[JOB_COPIES];
	struct op *op;			/* NULL: its session ended meanwhile */
	struct session *s;
	struct gpool *gp;
	uint32_t src, dst;		/* records */
	uint32_t at;			/* next extent to copy */
	bool busy;
	bool orphan;			/* @dst is nobody's: free it when done */
};

/* ---------------------------------------------------------------- sessions */

enum session_state {
	SESSION_FREE,
	SESSION_HELLO,		/* rings are there, no space yet */
	SESSION_LIVE,
	SESSION_KEPT,		/* of a former daemon: waits for its client to resume it */
	SESSION_DEAD,		/* a process of it is gone or its ring broke: quarantined */
	SESSION_GRACE,		/* all its processes are gone: waits for the device's grace */
	SESSION_REAPING,	/* its blocks are being given back */
	NR_SESSION_STATE
};
const char *session_state_name(unsigned state);

struct session {
	struct daemon *d;
	uint32_t id;			/* of rank 0's connection */
	uint32_t serial;		/* over the daemon's life, shown to operators */
	uint8_t state;			/* enum session_state */
	bool stalled;			/* step stands still past the limit */
	bool quarantined;		/* DEAD: all its private blocks are marked */
	bool flags_set;			/* daemon_flags of the ring are not zero */
	uint32_t nr_ranks, nr_conns;	/* wanted, connected */
	uint64_t group_token;
	char label[KVMD_NAME_BYTES];
	struct tenant *tenant;
	struct space *sp;
	struct seqtab st;
	struct ring ring;
	struct ring_limits lim;
	char *args;			/* shared, client writes */
	int args_fd;
	struct kvmd_steps *steps;	/* shared, clients and GPUs write */
	int steps_fd;
	uint32_t nr_lanes;
	uint32_t max_tokens;
	uint64_t recompute_tps;
	uint64_t completed;		/* smallest lane, as last read */
	uint64_t completed_ns;		/* when it last advanced, or nothing waited for it */
	struct list step_ops;		/* in order of submission */
	struct list more;
	struct list load_ops;
	uint64_t loads_seen;		/* tiers.nr_done when its sequences were last looked at */
	struct nodeq cq_defer;		/* until the client took completion node.when */
	struct nodeq step_defer;	/* until completed >= node.when */
	struct nodeq pins;
	uint64_t pinned_bytes;
	struct op *ops;			/* [cq_entries] */
	uint32_t *op_free;		/* stack of free ones */
	uint32_t nr_op_free, nr_ops;
	uint32_t nr_waiting;		/* ops in OP_WAIT_ALLOC */
	uint32_t nr_copying;		/* ops in OP_WAIT_COPY, or jobs that outlived them */
	uint32_t held;			/* slabs not mapped in time, ranks not back yet */
	int bell_fd;			/* eventfd the client rings */
	struct uring_req bell_req;
	uint64_t bell_val;
	uint64_t last_entry_ns;		/* coarse: turn in which it last submitted */
	uint64_t dead_ns, release_ns;	/* when it died, when its blocks may go */
	uint32_t reap_seq;		/* next sequence to give back */
	uint64_t ring_bytes;		/* charged to the tenant */
	uint64_t nr_entries, nr_hit_blocks, nr_asked_blocks;	/* for kvctl */
	uint32_t news_pressure;		/* last told */
	int end_err;			/* why it ended, -errno */
	bool kept;			/* what it has outlives the daemon (keep.h) */
	bool barrier;			/* of a former daemon: may read what it had until then */
	uint64_t barrier_step;		/* submitted when this daemon began */
	uint32_t nr_ended;		/* sequences whose close is ours to finish, SEQ_F_ENDED */
};

/* ------------------------------------------------------------- connections */

enum conn_state {
	CONN_FREE,
	CONN_NEW,		/* no hello yet */
	CONN_LIVE,
	CONN_GONE,		/* socket closed; the process may still live */
	NR_CONN_STATE
};

struct conn {
	struct daemon *d;
	uint32_t id;
	uint8_t state;			/* enum conn_state */
	bool said_bye;			/* it unmapped everything and no step runs */
	bool pid_gone;
	bool doomed;			/* its control socket failed: closed at the next slow turn */
	bool waiting;			/* of a former daemon: has not resumed yet */
	uint32_t keep_n;		/* number in the name of its kept pidfd, 0: not kept */
	int sock, pidfd;
	pid_t pid;
	uid_t uid;
	uint32_t rank;
	struct session *s;		/* NULL before hello */
	struct uring_req sock_req, pid_req;
	uint64_t connected_ns;
	uint32_t control_seq;		/* messages sent */
	uint64_t join_cookie;		/* of a JOIN that waits for rank 0's space */
	bool join_pending;
};

/* ----------------------------------------------------------------- tickets */

struct ticket {
	uint64_t id;			/* random, 0: free */
	struct space *sp;
	uint16_t sid;
	uint8_t flags;			/* of the sequence */
	uint32_t len[KVMD_MAX_GROUPS], hole[KVMD_MAX_GROUPS];
	struct nodeq ids;		/* record ids of all groups in order, 0 for NULL entries */
	uint64_t deadline_ns;
};

/* ------------------------------------------------------------------ daemon */

struct admin;
struct keep;

#define NR_EPOCH_WAIT	64

/* An epoch that is being made durable, and who is told then. */
struct epoch_wait {
	void (*done)(struct epoch_wait *w, int err);	/* NULL: free */
	struct daemon *d;
	uint32_t conn;			/* a client's, or kvctl's */
	uint64_t connected_ns;		/* of that connection: is it still the same? kvctl: serial */
	struct kvmd_msg h;		/* to be answered */
	uint64_t epoch;
};

struct daemon {
	struct config conf;
	struct workers *workers;
	struct uring *u;
	struct dev dev[POOL_MAX_DEVS];	/* as in conf; the pool's */
	struct pool *pool;
	struct index *ix;
	struct reclaim rc;
	struct tiers *tiers;		/* NULL: nothing below HBM */
	struct workers *slow;		/* for what may take long: chunks, recovery */
	struct worker_bell slow_bell;
	uint64_t ram_bytes;		/* of the RAM tier when that was last looked at */
	uint32_t nr_said[NR_TIER];	/* tier.nr_said when its text was last logged */
	bool ram_said;			/* what the RAM tier is made of was logged */
	char *disk_paths;		/* words that tiers' options point to */
	struct epoch_wait epoch_wait[NR_EPOCH_WAIT];
	struct admin *admin;
	struct keep *keep;		/* keep.h; NULL: no supervisor, nothing outlives us */
	uint8_t boot_id[16];
	uint64_t start_ns;
	int listen_fd;
	struct uring_req listen_req;
	struct worker_bell work_bell;
	struct uring_req sig_req;
	int sig_fd;
	struct work populate;
	char *conf_path;		/* NULL: defaults */
	struct conn conn[POOL_MAX_CONNS];
	struct session session[POOL_MAX_CONNS];
	struct session *live[POOL_MAX_CONNS];	/* sessions that are polled */
	uint32_t nr_live;
	uint32_t nr_dying;		/* sessions DEAD, GRACE or REAPING */
	uint32_t nr_doomed;		/* connections to be closed */
	uint32_t next_serial;
	struct ticket ticket[MAX_TICKETS];
	uint32_t nr_tickets;
	struct copy_job job[NR_COPY_JOBS];
	uint8_t *keys;			/* FETCH_KEYS private keys */
	uint32_t *ids;			/* WORK_BLOCKS record ids */
	uint64_t now_ns;		/* of this turn */
	uint64_t gave_up_ns;		/* when a load gave way for lack of slots last */
	struct psi psi[NR_PSI_RES];	/* PSI_HBM: the worst of all spaces */
	bool stop;
};

/* ------------------------------------------------------------- session.c */

/* One bounded turn of a live session; true: something was done. */
bool session_turn(struct session *s);
/* Read the lanes; true when the smallest advanced. */
bool session_read_steps(struct session *s);
bool session_wants_step(const struct session *s);	/* something waits for a step */
/* Publish completions; wake a sleeping client. */
void session_flush(struct session *s);

/* What a parked op waited for is over: run it again. */
void op_resume(struct op *op, int err);
/* Post the completion, free the op, let the next one of its sequence run. */
void op_complete(struct op *op, struct kvmd_cqe *c);
/*
 * The completion, before the operation is over: run() goes on with what the
 * client need not wait for, in this turn, and returns OP_DONE.
 */
void op_answer(struct op *op, struct kvmd_cqe *c);
/* Park helpers. @block: others of the sequence wait behind it. */
enum op_ret op_park_step(struct op *op, bool block);
enum op_ret op_park_more(struct op *op, bool block);
enum op_ret op_park_alloc(struct op *op, struct gpool *gp, uint32_t nr, uint32_t records);
void op_block(struct op *op, uint32_t sq);	/* others of sequence @sq wait behind it */
void op_unblock(struct op *op, uint32_t sq);
void seq_kick(struct session *s, uint32_t sq);	/* run what queued, as far as it may */
/* CANCEL of @user_data in @s: 0, -ENOENT, -EALREADY. */
int session_cancel(struct session *s, uint64_t user_data);
/* Drop everything parked, without completions (the session ended). */
void session_abort_ops(struct session *s);

static inline struct seq *op_seq(const struct op *op)
{
	return &op->s->st.seq[op->e.seq];
}
static inline uint32_t op_id(const struct op *op)	/* never 0 */
{
	return (uint32_t)(op - op->s->ops) + 1;
}
static inline enum op_ret op_done(struct kvmd_cqe *c, int res)
{
	c->res = res;
	return OP_DONE;
}

/* --------------------------------------------------------------- defer.c */

/* Append @id to @q under @when; false: no node left. */
bool nodeq_add(struct pool *p, struct nodeq *q, uint64_t when, uint32_t id);
void nodeq_splice(struct pool *p, struct nodeq *to, struct nodeq *from, uint64_t when);
void nodeq_release(struct index *ix, struct nodeq *q);	/* drop all leases in it */
bool nodeq_remove(struct pool *p, struct nodeq *q, uint32_t id);	/* one occurrence */
/* Release what the client's taken completions and completed steps allow. */
bool defer_turn(struct session *s);
/*
 * Drop the lease of @id once the completion of @op is taken and the steps
 * submitted by then are over. False: no node left, nothing was done.
 */
bool op_release_later(struct op *op, uint32_t id);

/* ---------------------------------------------------------------- loads.c */

/*
 * The sequence of @op holds blocks below HBM: decide what is worth loading, give
 * the rest back, begin. False: nothing is coming.
 */
bool loads_begin(struct op *op);
/* Blocks that arrived, loads that wait for a slot. True: something changed. */
bool loads_turn(struct session *s);
void loads_stop(struct session *s, uint32_t sq);	/* it is closed: nobody waits any more */
/* Loads of @sq were begun by a swap: rows follow. False: all is there already. */
bool loads_resume(struct session *s, uint32_t sq);
enum op_ret op_park_load(struct op *op, bool block);

/* -------------------------------------------------------------- tiering.c */

/* RAM and disk as configured; @keep, @kept as tiers_create(). 0 or -errno (logged). */
int tiering_start(struct daemon *d, const struct ram_keep *keep, const struct ram_kept *kept);
bool tiering_turn(struct daemon *d);		/* true: something was done */
bool tiering_wants_turn(const struct daemon *d);
void tiering_reload(struct daemon *d);		/* take over what the configuration may change */
void tiering_stop(struct daemon *d);		/* what is under way ends; blocks for that */
void tiering_exit(struct daemon *d);
/*
 * w->done() with a copy of @w when @sp's epoch is on disk, maybe before this
 * returns. False: there is no disk to make it durable, or too many wait
 * (d->tiers->disk says which).
 */
bool epoch_make_durable(struct daemon *d, struct space *sp, const struct epoch_wait *w);

/* ------------------------------------------------------------ op_advise.c */

/*
 * @b, which can be found, will be wanted: kept where it is and brought to HBM as
 * that has room. 0: it is there or coming; 1: asked for; -ENOBUFS: too many are.
 */
int block_willneed(struct daemon *d, struct block *b);

/* ----------------------------------------------------------------- copy.c */

/*
 * Copy block @src to @dst (record ids) of group @g, for @op: OP_PARKED, and
 * op_resume() with 0 or -EIO when all planes are done. op->new_id = @dst until
 * then. A job must be free.
 */
enum op_ret copy_start(struct op *op, uint32_t g, uint32_t src, uint32_t dst);
bool copy_job_free(const struct daemon *d);	/* is one left? */
/* The session ended: its copies finish for nobody. */
void copy_orphan(struct session *s);

/* ------------------------------------------------------------ announce.c */

extern const struct pool_events announce_events;
/* All present slabs of the session's space to a new connection: 0 or -errno. */
int announce_all(struct conn *c);
void announce_acked(struct conn *c, uint32_t slab, uint32_t gen, bool deleted);
void announce_conn_closed(struct conn *c);	/* it answers no more, but may still map */
void announce_conn_gone(struct conn *c);	/* its process is gone, or it said bye */
void announce_conn_recycle(struct conn *c);	/* it said bye, lives on, and its place is needed */
/* Deadlines: hold laggards back. Returns the next deadline, 0: none. */
uint64_t announce_turn(struct daemon *d);

/* ---------------------------------------------------------------- conn.c */

void conn_init(struct daemon *d);		/* before anything else of conn.c */
int conn_listen(struct daemon *d);		/* 0 or -errno (logged) */
void conn_unlisten(struct daemon *d);
void conn_close(struct conn *c);		/* socket closed; frees it when its process is gone */
void conn_end(struct conn *c);			/* its session is over; it may still say bye */
void conn_session_gone(struct conn *c);		/* its session was freed */
void conn_close_doomed(struct daemon *d);
/* 0, or -errno when the message could not be sent (the connection is hopeless). */
int conn_send(struct conn *c, void *msg, size_t bytes, const int *fds, unsigned nr_fds);
/* control.c: every message of a client goes through this. */
void control_message(struct conn *c, const void *msg, size_t bytes);

void epoch_raised(struct daemon *d, struct space *sp);	/* tell its sessions */

/* -------------------------------------------------------------- lifecycle */

/* conn.c: a process of a former daemon's client again; its socket when it resumes. */
struct keep_conn;
void conn_restore(struct daemon *d, uint32_t id, const struct keep_conn *k, int pidfd,
		  struct session *s);
void conn_take_over(struct conn *o, struct conn *c);	/* @c is free then */
bool conn_is_over(const struct conn *c);	/* its process has ended, now */

/* hello.c: a former daemon's session, KEPT; owns the fds (keep_session_fd) on success. */
struct keep_session;
int session_restore(struct daemon *d, uint32_t id, const struct keep_session *k, const int *fd);
/* hello.c: make the session object of a checked hello. */
int session_create(struct conn *c, const struct kvmd_hello *h, char *msg, size_t msg_bytes,
		   struct session **ret_s);
int session_open_space(struct session *s, const struct kvmd_space *m, char *msg, size_t n);
/* death.c: @err is why. Quarantine at once; blocks go when the processes are gone. */
void session_end(struct session *s, int err);
/* Go on with dying sessions; the next time to look, 0: none. */
uint64_t death_turn(struct daemon *d);
void session_free(struct session *s);

/* -------------------------------------------------------------- tickets.c */

int ticket_send(struct op *op, uint64_t *ret_ticket);
int ticket_recv(struct op *op);
uint64_t ticket_turn(struct daemon *d);		/* next deadline, 0: none */

/* ----------------------------------------------------------------- attrib.c */

void attrib_open(struct session *s, struct seq *q, uint32_t asked, uint32_t ready, uint32_t miss);
void attrib_merged(struct session *s, struct seq *q, uint32_t pos);
/* Positions @first .. @first+@nr-1 of group 0 arrived from below. */
void attrib_loaded(struct session *s, struct seq *q, uint32_t first, uint32_t nr);
void attrib_close(struct session *s, struct seq *q);
/* Of a former daemon: what it had not attributed yet was asked of this one. */
void attrib_restore(const struct seqtab *st);

/* op_open.c: why @key is not there, with what is being published: enum kvmd_miss. */
uint32_t miss_reason(const struct daemon *d, const struct space *sp, uint32_t g,
		     const uint8_t *key);

/* ------------------------------------------------------------------ admin */

int admin_start(struct daemon *d);		/* 0 or -errno (logged) */
void admin_stop(struct daemon *d);
/* Requests that wait for something: has it come? When to look again, 0: no need. */
uint64_t admin_turn(struct daemon *d);
/* admin_trace.c: an open request, its lists checked, for recorders; cheap without one. */
void admin_trace_open(const struct session *s, const struct op *op);

/* ------------------------------------------------------------------- loop */

int daemon_init(struct daemon *d);		/* conf is loaded; 0 or -errno (logged) */
int daemon_run(struct daemon *d);		/* until stopped */
void daemon_exit(struct daemon *d);
int daemon_reload(struct daemon *d, char *msg, size_t msg_bytes);
/* reload.c: put the reloadable part of @c into force. */
/* Devices sized by a share keep the bytes they have. */
void reload_shares(const struct daemon *d, struct config *c);
int reload_apply(struct daemon *d, const struct config *c, char *msg, size_t msg_bytes);
void daemon_set_pressure(struct daemon *d);

#endif
