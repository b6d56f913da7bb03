/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - between the files of the admin socket; nobody else includes it.
 *
 * A connection is one request: a line in, one JSON document out, end. The
 * document is an object with "schema": 1 and either data or "error": {"errno",
 * "message"}. A verb's run() writes members of that object. What takes long
 * returns ADMIN_MORE and goes on in a later turn of the core thread, from the
 * cursors in the connection; what has to wait for something else returns
 * ADMIN_LATER. A recorder (trace start) stays connected.
 *
 * Everything runs in the core thread and allocates only here, on the operator's
 * behalf; nothing waits for a peer.
 */
#ifndef KVMD_SVC_ADMIN_H
#define KVMD_SVC_ADMIN_H

#include "kvmd/lib/json.h"
#include "kvmd/svc/admin_parse.h"
#include "kvmd/svc/daemon.h"

#define ADMIN_MAX_CONNS		16
#define ADMIN_SCHEMA		1
#define ADMIN_MORE		1	/* run(): call me again next turn */
#define ADMIN_LATER		2	/* run(): again when admin_resume() or wake_ns says */
#define ADMIN_MAX_WAITS		8	/* that wait for something: the others stay free */
#define ADMIN_SCAN		4096	/* records looked at in one turn */
#define ADMIN_ROW_COST		64	/* writing a row takes as long as looking at so many */
#define ADMIN_ROWS		1000	/* of a listing, unless limit= says otherwise */
#define ADMIN_MAX_ROWS		10000

enum admin_state {
	ADMIN_FREE,
	ADMIN_READ,		/* waits for the line */
	ADMIN_RUN,		/* run() has more to do */
	ADMIN_WAIT,		/* run() waits for something */
	ADMIN_WRITE,		/* the document is on its way */
	ADMIN_TRACE,		/* a recorder */
	ADMIN_CLOSING,		/* closed; poll requests are still to come back */
	NR_ADMIN_STATE
};

struct admin_conn {
	struct admin *a;
	struct daemon *d;
	uint8_t state;			/* enum admin_state */
	bool may;			/* the peer may ask */
	bool started;			/* run() was called once */
	bool each_look;			/* WAIT: run again at every admin_turn() */
	int fd;
	int send_fd;			/* goes with the document; not owned; -1: none */
	pid_t pid;
	uid_t uid;
	struct uring_req req;		/* whatever it waits for; recorder, WAIT: the peer's end */
	struct uring_req out_req;	/* room to write, while req is for something else */
	uint64_t since_ns;		/* of its last byte, either way */
	char *in;			/* the line; owned */
	size_t in_len, in_cap;
	struct admin_req rq;
	const struct admin_verb *verb;
	struct json j;
	size_t sent;			/* of the document */
	uint64_t cur[4];		/* run()'s own, zero at first */
	uint64_t count[8];		/* run()'s own, zero at first */
	uint64_t serial;		/* over the daemon's life: is it still the same request? */
	uint64_t wake_ns;		/* WAIT: run again then; 0: no need */
	int wait_err;			/* what it waited for ended so */
	struct psi_trigger trigger;	/* pressure wait */
	uint8_t *keys;			/* run()'s own, freed with the connection */
	char msg[512];			/* why it is refused */
	struct recorder *rec;		/* ADMIN_TRACE */
};

/* One row per verb. */
struct admin_verb {
	const char *noun, *verb;
	const char *args;		/* names allowed, each followed by a blank */
	bool long_line;			/* may be longer than ADMIN_LINE_BYTES */
	/* 0: the document is complete; ADMIN_MORE; -errno after admin_refuse(). */
	int (*run)(struct admin_conn *c);
};

/* One table per file; noun NULL: end. */
extern const struct admin_verb admin_show_verbs[], admin_conf_verbs[], admin_list_verbs[],
	admin_block_verbs[], admin_slab_verbs[], admin_act_verbs[], admin_explain_verbs[],
	admin_trace_verbs[], admin_tier_verbs[], admin_prefetch_verbs[], admin_pressure_verbs[];

struct admin {
	struct daemon *d;
	int listen_fd;
	struct uring_req listen_req;
	char path[256];			/* of the socket; "": not bound */
	struct admin_conn conn[ADMIN_MAX_CONNS];
	uint32_t nr_recorders;
	uint64_t next_serial;
};

/* ---------------------------------------------------------- for the verbs */

/* Says why in c->msg and returns @err. */
int admin_refuse(struct admin_conn *c, int err, const char *fmt, ...) __printf(3, 4);
static inline const char *admin_arg(const struct admin_conn *c, const char *key)
{
	return admin_req_arg(&c->rq, key);
}
/* A number in [@lo, @hi]; @def when it is not given. 0 or a refusal. */
int admin_arg_u64(struct admin_conn *c, const char *key, uint64_t def, uint64_t lo, uint64_t hi,
		  uint64_t *ret_v);
/* "space": 0 and NULL when it is not given and not needed. */
int admin_arg_space(struct admin_conn *c, bool needed, struct space **ret_sp);
int admin_arg_group(struct admin_conn *c, const struct space *sp, uint32_t *ret_g);
int admin_arg_session(struct admin_conn *c, bool needed, struct session **ret_s);
int admin_arg_slab(struct admin_conn *c, struct slab **ret_s);

const char *admin_miss_name(unsigned miss);	/* enum kvmd_miss */
const char *admin_rule_name(unsigned rule);	/* enum kvmd_rule */
/* Since @when on the policy clock (1/16 s), in ms. */
uint64_t admin_age_ms(const struct pool *p, uint32_t when);
/* Extents of a slab, by its geometry: the worker may be changing nr_ext. */
static inline uint64_t admin_slab_bytes(const struct slab *s)
{
	return s->extent_bytes * s->gp->geo.planes * s->gp->sp->nr_shards;
}

/* "limit" and "offset" of a listing. */
int admin_arg_bounds(struct admin_conn *c, uint64_t *ret_limit, uint64_t *ret_offset);
/*
 * keys=: 64 hex digits each, commas between them, into c->keys; how many is in
 * c->count[0]. 0 or a refusal.
 */
int admin_arg_keys(struct admin_conn *c);

/* admin_pressure.c, admin_tier.c: members for `status show` too. */
void admin_put_pressure(const struct daemon *d, struct json *j);
void admin_put_tiers(const struct daemon *d, struct json *j);
/* Where @b can be hit: "hbm", "ram", "disk"; "loading": on its way to HBM. */
const char *admin_block_tier(const struct block *b);

/* ------------------------------------------------------------- admin.c */

/* What @c (state ADMIN_WAIT) waited for is over: run it again. */
void admin_resume(struct admin_conn *c, int err);

void admin_conn_close(struct admin_conn *c);
/* Poll @c for @events; a failure closes it. */
void admin_conn_poll(struct admin_conn *c, unsigned events);
/* Have admin_trace_flush() called when there is room to write. */
void admin_conn_poll_out(struct admin_conn *c);
/* admin_trace.c */
void admin_trace_flush(struct admin_conn *c);
void admin_trace_end(struct admin_conn *c);

#endif
