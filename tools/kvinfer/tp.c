// SPDX-License-Identifier: Apache-2.0
/*
 * tp.c - two ranks: a second process with the other half of every layer.
 *
 * Rank 0 schedules, asks the daemon and picks tokens; rank 1 does what rank 0 tells it,
 * on its own device and its own shard of the same blocks. One block table serves both:
 * rank 1 has it mapped by kvc_join(). Twice a layer their partial sums are added.
 *
 * Between them are a socket and memory that both have mapped. A byte through the socket
 * says that there is a command in the memory; rank 1 sleeps on the socket and on
 * kvc_fd(), because blocks of a new slab are given out only when every rank has mapped
 * it. The socket also tells each that the other is gone. In a step they wait for each
 * other on words of the memory: a word only grows, its writer is one rank, and the
 * other sleeps on it by futex, looking at the socket every LOOK_NS.
 *
 *	rank 0					rank 1
 *	  command, nr + 1, a byte	-->	  reads nr, the command
 *	  part[0], summed[0] + 1	<-->	  part[1], summed[1] + 1	(each sum)
 *	  waits for done		<--	  done = nr
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/base.h"

#define PIECE		(64u << 10)	/* values added at a time */
#define MOVES		4096u		/* token moves of one command */
#define LOOK_NS		50000000	/* between looks whether the other rank lives */
#define SPINS		4000u		/* before sleeping in a step */

enum what { TP_JOIN, TP_STEP, TP_MOVE, TP_CHECK };

/* What rank 0 wants done; rank 1 reads it between nr and done. */
struct command {
	enum what what;
	/* TP_JOIN: the session's token; 0: memory of its own, so large. TP_CHECK: tokens. */
	uint64_t token;
	uint32_t seqs, tokens;
	/* TP_STEP, and the number of moves of TP_MOVE. */
	uint64_t step;
	uint32_t shape, nr, layers, mass_tokens;
	bool one_seq;
	bool check;			/* over the cache of TP_CHECK */
};

struct word {
	uint32_t v;
	uint32_t pad[15];		/* a cache line each */
};

struct shared {
	struct word nr;			/* rank 0: of the last command */
	struct word done;		/* rank 1: of the last one that is over */
	struct word summed[2];		/* of each rank: parts written */
	int32_t err;			/* rank 1: why it ended; set before it does */
	char msg[KI_TEXT];
	struct command cmd;
	struct kn_token_move move[MOVES];
	float part[2][2][PIECE];	/* [rank][parity of summed]: partial sums */
	int32_t tokens_rows[];		/* token of each row of a step, then its kn_row */
};

struct ki_tp {
	struct ki_reduce reduce;
	struct ki_engine *e;
	struct shared *m;
	size_t bytes;			/* of it */
	uint32_t rows;			/* of the largest step */
	uint32_t rank;
	bool gone;			/* the other rank is */
	bool lost;			/* rank 1: the daemon is, another may come */
	struct ki_private *check_mem;	/* rank 1: of TP_CHECK */
	struct ki_cache check;
	int sock;			/* to the other rank */
	pid_t child;			/* rank 0: the other; 0: it was waited for */
	float sum[PIECE];
};

static int32_t *tokens_of(struct ki_tp *t)
{
	return t->m->tokens_rows;
}

static struct kn_row *rows_of(struct ki_tp *t)
{
	return (struct kn_row *)(void *)(t->m->tokens_rows + t->rows);
}

/* ------------------------------------------------------------------- waiting */

static bool peer_gone(const struct ki_tp *t)
{
	struct pollfd p = { .fd = t->sock, .events = 0 };

	return poll(&p, 1, 0) > 0;
}

/* Says why the other rank is gone, as well as can be known. */
static int gone(struct ki_tp *t)
{
	int status = 0;

	t->gone = true;
	if (t->rank)
		return ki_fail(t->e, -EOWNERDEAD, "rank 0 is gone");
	if (t->child && waitpid(t->child, &status, 0) == t->child)
		t->child = 0;
	if (ld_acq(&t->m->err))		/* release in fail_child() */
		return ki_fail(t->e, t->m->err, "rank 1: %.200s", t->m->msg);
	if (WIFSIGNALED(status))
		return ki_fail(t->e, -EOWNERDEAD, "rank 1 was killed by signal %d (%s): start "
			       "again", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return ki_fail(t->e, -EOWNERDEAD, "rank 1 is gone: start again");
}

bool ki_tp_gone(const struct ki_tp *t)
{
	return t && t->gone;
}

static void raise_word(struct word *w, uint32_t v)
{
	st_rel(&w->v, v);		/* pairs with the acquire in wait_word() */
	syscall(SYS_futex, &w->v, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Until the other rank has raised @w to @v. -EOWNERDEAD and others: it is gone. */
static int wait_word(struct ki_tp *t, struct word *w, uint32_t v)
{
	const struct timespec look = { .tv_nsec = LOOK_NS };
	uint32_t now;

	for (uint32_t i = 0; (int32_t)((now = ld_acq(&w->v)) - v) < 0; i++) {
		if (i < SPINS) {
			cpu_relax();
			continue;
		}
		/* Gone is not all: the word may have been raised before that. */
		if (peer_gone(t) && ld_acq(&w->v) == now)
			return gone(t);
		syscall(SYS_futex, &w->v, FUTEX_WAIT, now, &look, NULL, 0);
	}
	return 0;
}

/* -------------------------------------------------------------------- sums */

/*
 * x[i] = part of rank 0 + part of rank 1, in pieces. A rank writes piece n + 2 where n
 * was, which the other has read: it could not have come to n + 1 otherwise.
 */
static int sum(struct ki_reduce *r, float *x, size_t n)
{
	struct ki_tp *t = container_of(r, struct ki_tp, reduce);
	struct shared *m = t->m;
	int err = 0;

	for (size_t at = 0; !err && at < n; at += PIECE) {
		size_t len = min(n - at, (size_t)PIECE);
		uint32_t turn = m->summed[t->rank].v + 1;
		const float *a = m->part[0][turn & 1], *b = m->part[1][turn & 1];

		err = kn_get(t->e->dev, m->part[t->rank][turn & 1], x + at, len * sizeof(*x));
		if (err)
			return err;
		raise_word(&m->summed[t->rank], turn);
		err = wait_word(t, &m->summed[!t->rank], turn);
		if (err)
			return err;
		for (size_t i = 0; i < len; i++)
			t->sum[i] = a[i] + b[i];
		err = kn_put(t->e->dev, x + at, t->sum, len * sizeof(*x));
	}
	return err;
}

struct ki_reduce *ki_tp_reduce(struct ki_tp *t)
{
	return t ? &t->reduce : NULL;
}

/* ------------------------------------------------------------------ rank 0 */

int ki_tp_wait(struct ki_engine *e)
{
	return wait_word(e->tp, &e->tp->m->done, e->tp->m->nr.v);
}

/* What rank 1 is to do, once it has done what it was told before. */
static int prepare(struct ki_engine *e, struct command c)
{
	int err = ki_tp_wait(e);

	if (!err)
		e->tp->m->cmd = c;
	return err;
}

/* It may begin. */
static int tell(struct ki_tp *t)
{
	raise_word(&t->m->nr, t->m->nr.v + 1);
	return send(t->sock, "", 1, MSG_NOSIGNAL) == 1 ? 0 : gone(t);
}

int ki_tp_ready(struct ki_engine *e, uint64_t group_token)
{
	int err = prepare(e, (struct command) {
		.what = TP_JOIN, .token = group_token, .seqs = e->o.batch,
		.tokens = (uint32_t)e->cache.table.stride * e->cache.block_tokens,
	});

	if (!err)
		err = tell(e->tp);
	return err ? err : ki_tp_wait(e);
}

int ki_tp_check(struct ki_engine *e, uint32_t tokens)
{
	int err = prepare(e, (struct command) { .what = TP_CHECK, .tokens = tokens });

	if (!err)
		err = tell(e->tp);
	return err ? err : ki_tp_wait(e);
}

int ki_tp_step(struct ki_engine *e, const struct ki_step *st, bool check)
{
	struct ki_tp *t = e->tp;
	int err;

	if (st->nr > t->rows)
		return ki_fail(e, -EINVAL, "a step of %u rows, and two ranks agreed on %u", st->nr,
			       t->rows);
	err = prepare(e, (struct command) {
		.what = TP_STEP, .step = e->pool ? e->pool->step : 0, .shape = st->shape,
		.nr = st->nr, .layers = st->layers, .one_seq = st->one_seq, .check = check,
		.mass_tokens = st->ret_mass ? st->mass_tokens : 0,
	});
	if (err)
		return err;
	memcpy(tokens_of(t), st->token, st->nr * sizeof(*st->token));
	memcpy(rows_of(t), st->row, st->nr * sizeof(*st->row));
	return tell(t);
}

int ki_tp_move(struct ki_engine *e, const struct kn_token_move *move, uint32_t nr)
{
	int err = 0;

	for (uint32_t at = 0; !err && at < nr; at += MOVES) {
		uint32_t len = min(nr - at, MOVES);

		err = prepare(e, (struct command) {
			.what = TP_MOVE, .step = e->pool ? e->pool->step : 0, .nr = len,
		});
		if (err)
			return err;
		memcpy(e->tp->m->move, move + at, len * sizeof(*move));
		err = tell(e->tp);
	}
	return err ? err : ki_tp_wait(e);
}

void ki_tp_stop(struct ki_tp *t)
{
	if (!t)
		return;
	close(t->sock);			/* it sees that, and ends */
	if (t->child)
		waitpid(t->child, NULL, 0);
	munmap(t->m, t->bytes);
	free(t);
}

/* ------------------------------------------------------------------ rank 1 */

static void __attribute__((noreturn)) fail_child(struct ki_tp *t, int err)
{
	memcpy(t->m->msg, t->e->msg, sizeof(t->m->msg));
	st_rel(&t->m->err, err);	/* acquire in gone() */
	_exit(1);
}

static int do_join(struct ki_engine *e, const struct command *c)
{
	if (c->token)
		return ki_pool_join(e, c->token, &e->pool, &e->cache);
	return ki_private_create(e, c->seqs, c->tokens, &e->mem, &e->cache);
}

static int do_step(struct ki_tp *t, const struct command *c)
{
	struct ki_engine *e = t->e;
	float *mass = NULL;
	struct ki_step st = {
		.shape = c->shape, .nr = c->nr, .token = tokens_of(t), .row = rows_of(t),
		.one_seq = c->one_seq, .layers = c->layers, .mass_tokens = c->mass_tokens,
	};
	int err;

	if (c->mass_tokens) {
		mass = calloc((size_t)c->nr * c->mass_tokens, sizeof(*mass));
		if (!mass)
			return ki_fail(e, -ENOMEM, "no memory");
		st.ret_mass = mass;
	}
	err = ki_step(e->run, c->check ? &t->check : &e->cache, &st);
	free(mass);
	/* A sum that failed has said more. */
	if (err && !*e->msg)
		ki_fail(e, err, "%s", ki_run_error(e->run));
	return err;
}

/* Memory of ki_check(), or its end. */
static int do_check(struct ki_tp *t, const struct command *c)
{
	ki_private_free(t->e, t->check_mem);
	t->check_mem = NULL;
	return c->tokens ? ki_private_create(t->e, 1, c->tokens, &t->check_mem, &t->check) : 0;
}

static int do_command(struct ki_tp *t)
{
	struct ki_engine *e = t->e;
	const struct command *c = &t->m->cmd;
	bool blocks = e->pool && c->step && !c->check;
	int err = 0;

	if (blocks) {
		e->pool->step = c->step - 1;
		err = ki_pool_begin(e, e->pool);
	}
	if (err)
		return ki_fail(e, err, "block tables: %s", kn_error(e->dev));
	switch (c->what) {
	case TP_JOIN:
		return do_join(e, c);
	case TP_CHECK:
		return do_check(t, c);
	case TP_STEP:
		err = do_step(t, c);
		break;
	case TP_MOVE:
		err = ki_move_layers(e, t->m->move, c->nr);
		break;
	}
	if (!err && blocks)
		kvc_step_complete(e->pool->k, t->rank, c->step);
	return err;
}

/*
 * The daemon went. What is mapped stays so; if one comes back that kept the pool, and
 * rank 0 was there, this rank is of the session again.
 */
static void look_for_daemon(struct ki_tp *t)
{
	struct ki_pool *p = t->e->pool;
	int ret = kvc_reconnect(p->k);

	if (ret == 1)
		p->v = kvc_view(p->k);
	/* With another session's: rank 0 says what has become of it. */
	p->gone = ret == 0 || ret == -ESTALE;
	t->lost = ret != 1 && !p->gone;
}

/* The next command; meanwhile new slabs are mapped. Ends with rank 0. */
static int next_command(struct ki_tp *t)
{
	struct ki_pool *p = t->e->pool;
	char byte;

	for (;;) {
		bool news = p && !p->gone && !t->lost;
		struct pollfd fd[2] = {
			{ .fd = t->sock, .events = POLLIN },
			{ .fd = news ? kvc_fd(p->k) : -1, .events = POLLIN },
		};

		if (poll(fd, 2, t->lost ? (int)(LOOK_NS / 1000000) : -1) < 0 && errno != EINTR)
			return ki_fail(t->e, -errno, "poll: %s", strerror(errno));
		if (fd[0].revents) {
			if (recv(t->sock, &byte, 1, 0) == 1)
				return 0;
			if (p)
				ki_pool_close(t->e, p);	/* says goodbye to the daemon */
			_exit(0);
		}
		if (t->lost)
			look_for_daemon(t);
		else if (fd[1].revents && kvc_poll(p->k))
			t->lost = true;
	}
}

static void __attribute__((noreturn)) serve(struct ki_tp *t)
{
	struct ki_engine *e = t->e;
	int err = ki_engine_open_rank(e, t->rank);

	while (!err) {
		uint32_t nr;

		err = next_command(t);
		if (err)
			break;
		nr = ld_acq(&t->m->nr.v);	/* release in tell() */
		err = do_command(t);
		if (!err)
			raise_word(&t->m->done, nr);
	}
	fail_child(t, err);
}

/* ------------------------------------------------------------------- start */

int ki_tp_start(struct ki_engine *e, struct ki_tp **ret_t)
{
	struct ki_tp *t = calloc(1, sizeof(*t));
	uint32_t rows = max(e->o.batch, e->o.chunk);
	pid_t parent = getpid();
	int sock[2], err;

	if (!t)
		return ki_fail(e, -ENOMEM, "no memory");
	*t = (struct ki_tp) { .reduce.sum = sum, .e = e, .rows = rows };
	t->bytes = sizeof(*t->m) + rows * (sizeof(int32_t) + sizeof(struct kn_row));
	t->m = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (t->m == MAP_FAILED) {
		err = -errno;
		goto err_free;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock)) {
		err = -errno;
		goto err_unmap;
	}
	fflush(NULL);
	t->child = fork();
	if (t->child < 0) {
		err = -errno;
		goto err_close;
	}
	t->rank = !t->child;
	close(sock[!t->rank]);
	t->sock = sock[t->rank];
	*ret_t = t;
	if (t->child)
		return 0;
	e->tp = t;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	serve(t);

err_close:
	close(sock[0]);
	close(sock[1]);
err_unmap:
	munmap(t->m, t->bytes);
err_free:
	free(t);
	return ki_fail(e, err, "starting a second rank: %s", strerror(-err));
}
