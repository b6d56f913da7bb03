/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_trace.c - record real traffic: one line per SEQ_OPEN, as it comes.
 *
 * A recorder is an admin connection that stays. Lines go into its own bounded
 * buffer and from there to the socket when that has room; a line that does not
 * fit is lost, counted, and the loss is told in a line of its own before the
 * next one that fits. So a slow recorder costs the others the writing of lines
 * and nothing else.
 *
 * A line is one request in Mooncake's form, but that hash_ids are the first 8
 * bytes of the keys in hex: the reader numbers them.
 *
 * Invariant: used <= cap; the buffer is a ring of bytes, out is where the
 * socket reads, out + used where lines are put. Core thread only.
 */
#include "kvmd/svc/admin.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"

#define BUFFER_BYTES	(4u << 20)	/* unless buffer_bytes= says otherwise */
#define MIN_BUFFER	4096
#define MAX_BUFFER	(256u << 20)
#define HEAD_BYTES	384		/* at most, of a line without its ids */
#define ID_BYTES	19		/* "0123456789abcdef", */
#define CHUNK_IDS	512		/* converted at once */

struct recorder {
	char space[KVMD_NAME_BYTES];	/* only of this one; "": all */
	uint64_t start_ns;		/* policy clock, ns */
	char *buf;
	uint32_t cap, out, used;	/* bytes */
	uint64_t lost;			/* lines, not yet told */
};

/* --------------------------------------------------------------- the buffer */

static void ring_put(struct recorder *r, const char *s, size_t n)
{
	uint32_t at = (uint32_t)(((uint64_t)r->out + r->used) % r->cap);
	size_t first = min(n, (size_t)(r->cap - at));

	memcpy(r->buf + at, s, first);
	memcpy(r->buf, s + first, n - first);
	r->used += (uint32_t)n;
}

__printf(2, 3) static void ring_printf(struct recorder *r, const char *fmt, ...)
{
	char text[HEAD_BYTES];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ring_put(r, text, min((size_t)max(n, 0), sizeof(text) - 1));
}

/* There is room to write. */
void admin_trace_flush(struct admin_conn *c)
{
	struct recorder *r = c->rec;

	while (r->used) {
		size_t run = min(r->used, r->cap - r->out);
		ssize_t n = send(c->fd, r->buf + r->out, run, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n <= 0) {
			admin_conn_close(c);
			return;
		}
		r->out = (uint32_t)((r->out + (size_t)n) % r->cap);
		r->used -= (uint32_t)n;
	}
	if (r->used)
		admin_conn_poll_out(c);
}

/* --------------------------------------------------------------- the recorder */

void admin_trace_end(struct admin_conn *c)
{
	mem_free(c->rec->buf);
	mem_free(c->rec);
	c->rec = NULL;
	c->a->nr_recorders--;
}

static int trace_start(struct admin_conn *c)
{
	const char *space = admin_arg(c, "space");
	struct recorder *r;
	uint64_t cap;
	int err = admin_arg_u64(c, "buffer_bytes", BUFFER_BYTES, MIN_BUFFER, MAX_BUFFER, &cap);

	if (err)
		return err;
	if (space && strlen(space) >= sizeof(r->space))
		return admin_refuse(c, -EINVAL, "space: a name has at most %zu characters",
				    sizeof(r->space) - 1);
	r = mem_zalloc(sizeof(*r));
	if (!r)
		return admin_refuse(c, -ENOMEM, "out of memory for a recorder");
	r->buf = mem_zalloc(cap);
	if (!r->buf) {
		mem_free(r);
		return admin_refuse(c, -ENOMEM, "out of memory for a buffer of %llu bytes",
				    (unsigned long long)cap);
	}
	r->cap = (uint32_t)cap;
	if (space)
		strcpy(r->space, space);
	r->start_ns = clock_policy_ns();
	ring_printf(r, "{\"schema\":%d,\"recording\":true,\"buffer_bytes\":%u}\n", ADMIN_SCHEMA,
		    r->cap);
	c->rec = r;
	c->a->nr_recorders++;
	return 0;			/* the caller has it flushed */
}

/* ------------------------------------------------------------------ the lines */

/*
 * First 8 bytes of @n keys, straight from the client's memory: what is served is
 * decided on a private copy, this is for the record alone.
 */
static void put_ids(struct recorder *r, const uint8_t *keys, uint32_t n, bool first)
{
	static const char digits[] = "0123456789abcdef";
	char text[CHUNK_IDS * ID_BYTES], *t = text;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t word = ld_rlx((const uint64_t *)(const void *)
				       (keys + (size_t)i * KVMD_KEY_BYTES));
		uint8_t b[8];

		memcpy(b, &word, sizeof(b));
		if (!first || i)
			*t++ = ',';
		*t++ = '"';
		for (unsigned k = 0; k < sizeof(b); k++) {
			*t++ = digits[b[k] >> 4];
			*t++ = digits[b[k] & 15];
		}
		*t++ = '"';
	}
	ring_put(r, text, (size_t)(t - text));
}

static void put_line(struct recorder *r, const struct session *s, const struct op *op)
{
	const struct kvmd_key_list *l = &op->list[0];
	uint32_t bt = s->sp->gp[0].geo.block_tokens;
	uint64_t need = 2 * HEAD_BYTES + (uint64_t)l->nr * ID_BYTES;
	uint64_t now = clock_policy_ns(), ms;

	if (need > r->cap - r->used) {
		r->lost++;
		return;
	}
	if (r->lost)
		ring_printf(r, "{\"lost\":%llu}\n", (unsigned long long)r->lost);
	r->lost = 0;
	ms = now > r->start_ns ? (now - r->start_ns) / 1000000 : 0;
	ring_printf(r, "{\"timestamp\":%llu,\"input_length\":%llu,\"output_length\":0,"
		    "\"block_tokens\":%u,\"session\":%u,\"hash_ids\":[",
		    (unsigned long long)ms,
		    op->e.first ? (unsigned long long)op->e.first : (unsigned long long)l->nr * bt,
		    bt, s->serial);
	for (uint32_t i = 0; i < l->nr; i += CHUNK_IDS)
		put_ids(r, (const uint8_t *)s->args + l->off + (size_t)i * KVMD_KEY_BYTES,
			min(l->nr - i, (uint32_t)CHUNK_IDS), !i);
	ring_put(r, "]}\n", 3);
}

void admin_trace_open(const struct session *s, const struct op *op)
{
	struct admin *a = s->d->admin;

	if (!a || !a->nr_recorders)
		return;
	for (unsigned i = 0; i < ADMIN_MAX_CONNS; i++) {
		struct admin_conn *c = &a->conn[i];
		if (c->state != ADMIN_TRACE)
			continue;
		if (c->rec->space[0] && strcmp(c->rec->space, s->sp->name))
			continue;
		put_line(c->rec, s, op);
		admin_conn_poll_out(c);	/* sent between turns, not in the request's */
	}
}

const struct admin_verb admin_trace_verbs[] = {
	{ "trace",	"start",	"space buffer_bytes ",	false, trace_start },
	{ 0 },
};
