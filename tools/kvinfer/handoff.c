// SPDX-License-Identifier: Apache-2.0
/*
 * handoff.c - prefill in one process, decode in another.
 *
 * The first computes a prompt and the first token of its answer, and turns the sequence
 * into a ticket (SEQ_SEND); the second gets the same blocks for it (SEQ_RECV) and goes
 * on. No byte of K and V moves. What the second has to know besides is one line of JSON,
 * through a file that lines are appended to, or a pipe:
 *
 *	{"schema":1,"ticket":"HEX","space":NAME,"model":HEX,"id":0,"prompt":7,"want":32,
 *	 "published":0,"done":7,"logits_sum":HEX,"tokens":[...]}
 *
 * tokens: the prompt's, then those made; want: to be made, these included; done: tokens
 * that are in the blocks; published: leading blocks that are; model: ki_pool_root(). A
 * ticket lives as long as the daemon's ticket_timeout says and serves once. One that is
 * gone costs time and nothing else: its tokens are computed again. handoff_lines.c reads
 * the lines.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvmd/lib/base.h"
#include "kvmd/lib/json.h"


static bool is_std(const char *name)
{
	return !strcmp(name, "-");
}

/* -------------------------------------------------------------------- sending */

/* All of the line at once: several processes may append to one file. */
static int put_line(struct ki_engine *e, const char *line, size_t len)
{
	const char *name = e->o.handoff;
	int fd = is_std(name) ? STDOUT_FILENO :
		 open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	int err = fd < 0 ? -errno : 0;

	for (size_t at = 0; !err && at < len;) {
		ssize_t n = write(fd, line + at, len - at);

		if (n >= 0)
			at += (size_t)n;
		else if (errno != EINTR)
			err = -errno;
	}
	if (fd >= 0 && !is_std(name) && close(fd) && !err)
		err = -errno;
	return err ? ki_fail(e, err, "handing over to %s: %s", is_std(name) ? "standard output" :
			     name, strerror(-err)) : 0;
}

static int tell(struct ki_engine *e, const struct ki_seq *s, uint64_t ticket)
{
	char hex[17], sum[17], space[KVMD_NAME_BYTES];
	uint8_t root[32];
	struct json j;
	int err;

	ki_pool_root(e, root);
	ki_pool_name(e, space);
	snprintf(hex, sizeof(hex), "%016" PRIx64, ticket);
	snprintf(sum, sizeof(sum), "%016" PRIx64, s->logits_sum);
	json_init(&j);
	json_obj(&j, NULL);
	json_u64(&j, "schema", KI_HANDOFF_SCHEMA);
	json_str(&j, "ticket", hex);
	json_str(&j, "space", space);
	json_hex(&j, "model", root, sizeof(root));
	json_u64(&j, "id", s->req->id);
	json_u64(&j, "prompt", s->req->nr);
	json_u64(&j, "want", s->req->tokens);
	json_u64(&j, "published", s->published);
	json_u64(&j, "done", s->done);
	json_str(&j, "logits_sum", sum);
	json_arr(&j, "tokens");
	for (uint32_t i = 0; i < s->nr; i++)
		json_i64(&j, NULL, s->token[i]);
	json_arr_end(&j);
	json_obj_end(&j);
	if (j.err) {
		json_exit(&j);
		return ki_fail(e, -ENOMEM, "no memory for a ticket's line");
	}
	j.buf[j.len] = '\n';		/* where the NUL was */
	err = put_line(e, j.buf, j.len + 1);
	json_exit(&j);
	return err;
}

int ki_handoff_send(struct ki_engine *e, struct ki_seq *s)
{
	struct ki_pool *p = e->pool;
	uint64_t ticket = 0;
	int err;

	err = p->gone ? -ECONNRESET : kvc_seq_send(p->k, s->idx, s->gen, p->step, &ticket);
	if (err < 0 && ki_pool_retry(p, err) == 1) {
		/* A daemon that ended may have done it; what it called the ticket nobody knows. */
		err = 0;
		if (ki_slot(e, s, s->blocks - 1))
			err = kvc_seq_send(p->k, s->idx, s->gen, p->step, &ticket);
	}
	/* No daemon: the tokens can be handed over still. */
	if (err < 0 && err != -ECONNRESET)
		return ki_fail(e, err, "handing a sequence over: %s", kvc_strerror(err));
	s->closed = true;
	s->blocks = 0;
	s->end_ns = ki_now();
	s->state = KI_DONE;
	return tell(e, s, ticket);
}

/* ------------------------------------------------------------------- receiving */

/* Is it ours? */
static int check(struct ki_engine *e, const struct ki_request *r)
{
	char space[KVMD_NAME_BYTES];
	uint8_t root[32];

	ki_pool_root(e, root);
	ki_pool_name(e, space);
	if (memcmp(root, r->root, sizeof(root)))
		return ki_fail(e, -EINVAL, "ticket of prompt %u is of another model or of other "
			       "options (--model, --weights, --chunk, --batch, ...): start both "
			       "processes with the same", r->id);
	if (strcmp(space, r->space))
		return ki_fail(e, -EINVAL, "ticket of prompt %u is of space '%s', this is '%s': "
			       "start both processes with the same --space", r->id, r->space,
			       space);
	if ((uint64_t)r->nr + r->tokens > e->m->shape.max_tokens)
		return ki_fail(e, -E2BIG, "ticket of prompt %u: %u tokens and %u to make are more "
			       "than the model's %u", r->id, r->nr, r->tokens,
			       e->m->shape.max_tokens);
	if (r->published > r->done / e->o.block_tokens)
		return ki_fail(e, -EINVAL, "ticket of prompt %u: %u blocks of %u tokens cannot be "
			       "published", r->id, r->published, r->done);
	for (uint32_t i = 0; i <= r->done; i++)
		if ((uint32_t)r->token[i] >= e->m->shape.vocab)
			return ki_fail(e, -EINVAL, "ticket of prompt %u: token %d is outside the "
				       "vocabulary of %u", r->id, r->token[i], e->m->shape.vocab);
	return 0;
}

/* Blocks of group 0, or -errno. */
static int receive(struct ki_engine *e, const struct ki_seq *s, const struct ki_request *r)
{
	struct ki_pool *p = e->pool;
	int err = p->gone ? -ECONNRESET :
		  kvc_seq_recv(p->k, s->idx, s->gen, r->ticket, NULL);

	/* A daemon that ended may have done it: all blocks came at once. */
	if (err < 0 && ki_pool_retry(p, err) == 1)
		err = ki_slot(e, s, 0) ? (int)div_round_up(r->done, e->o.block_tokens) :
		      kvc_seq_recv(p->k, s->idx, s->gen, r->ticket, NULL);
	return err;
}

int ki_handoff_open(struct ki_engine *e, struct ki_request *r, struct ki_seq **ret_s)
{
	struct ki_seq *s;
	int err;

	err = check(e, r);
	if (err)
		return err;
	err = ki_seq_new(e, r, &s);
	if (err)
		return err;
	for (uint32_t i = r->nr; i <= r->done; i++)
		ki_seq_append(s, r->token[i]);
	s->made = s->unseen = s->nr - r->nr;
	s->logits_sum = r->logits_sum;
	err = receive(e, s, r);
	if (err >= 0 && (uint64_t)err * e->o.block_tokens >= r->done) {
		s->state = KI_DECODE;
		s->done = s->len = r->done;
		s->cached = r->nr;
		s->blocks = (uint32_t)err;
		s->published = r->published;
	} else if (err >= 0) {
		ki_seq_close(e, s);
		return ki_fail(e, -EINVAL, "ticket of prompt %u has %d blocks, too few for %u "
			       "tokens", r->id, err, r->done);
	} else if (err == -ENOENT || err == -ECONNRESET) {
		/* As if it had given its blocks up: the engine computes it when there is room. */
		s->state = KI_SWAPPED;
		s->closed = s->lost = true;
	} else {
		s->closed = true;
		ki_seq_close(e, s);
		return ki_fail(e, err, "taking a ticket: %s", kvc_strerror(err));
	}
	*ret_s = s;
	return 0;
}
