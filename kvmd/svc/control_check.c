/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_check.c - is a control message well formed? Pure, fuzzed alone.
 */
#include "kvmd/svc/control_check.h"

#include <stdio.h>

#include "kvmd/lib/mem.h"

#define MAX_SEQS	65536u
#define MAX_TOKENS	(16u << 20)
#define MAX_ARGS	(256ull << 20)

static const struct {
	const char *name;
	size_t bytes;		/* of a client's message; 0: clients do not send it */
} kinds[KVMD_NR_MSG] = {
	[KVMD_MSG_HELLO] = { "hello", sizeof(struct kvmd_hello) },
	[KVMD_MSG_HELLO_REPLY] = { "hello_reply", 0 },
	[KVMD_MSG_SPACE] = { "space", sizeof(struct kvmd_space) },
	[KVMD_MSG_SPACE_REPLY] = { "space_reply", 0 },
	[KVMD_MSG_JOIN] = { "join", sizeof(struct kvmd_join) },
	[KVMD_MSG_JOIN_REPLY] = { "join_reply", 0 },
	[KVMD_MSG_SLAB_ADD] = { "slab_add", 0 },
	[KVMD_MSG_SLAB_ADDED] = { "slab_added", sizeof(struct kvmd_slab_ack) },
	[KVMD_MSG_SLAB_DEL] = { "slab_del", 0 },
	[KVMD_MSG_SLAB_DELETED] = { "slab_deleted", sizeof(struct kvmd_slab_ack) },
	[KVMD_MSG_EPOCH] = { "epoch", sizeof(struct kvmd_epoch) },
	[KVMD_MSG_EPOCH_REPLY] = { "epoch_reply", 0 },
	[KVMD_MSG_BYE] = { "bye", sizeof(struct kvmd_msg) },
	[KVMD_MSG_RESUME] = { "resume", sizeof(struct kvmd_resume) },
	[KVMD_MSG_RESUME_REPLY] = { "resume_reply", 0 },
};

const char *control_name(unsigned type)
{
	return type < KVMD_NR_MSG && kinds[type].name ? kinds[type].name : "?";
}

static int bad(char *msg, size_t n, const char *what)
{
	snprintf(msg, n, "%s", what);
	return -EINVAL;
}

/* NUL-terminated, printable, nothing behind the NUL. */
static bool name_ok(const char *s, size_t bytes)
{
	size_t len = strnlen(s, bytes);

	for (size_t i = 0; i < len; i++)
		if (s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\')
			return false;
	return len < bytes && mem_is_zero(s + len, bytes - len);
}

static int check_hello(const struct kvmd_hello *h, char *msg, size_t n)
{
	if (h->version != KVMD_WIRE_VERSION) {
		snprintf(msg, n, "the daemon speaks protocol version %u, the client %u: "
			 "install matching versions", KVMD_WIRE_VERSION, h->version);
		return -EPROTO;
	}
	if (!is_pow2(h->sq_entries) || h->sq_entries > KVMD_MAX_SQ)
		return bad(msg, n, "sq_entries must be a power of two, at most 4096");
	if (!is_pow2(h->cq_entries) || h->cq_entries > KVMD_MAX_CQ ||
	    h->cq_entries < h->sq_entries)
		return bad(msg, n, "cq_entries must be a power of two from sq_entries to 16384");
	if (!h->max_seqs || h->max_seqs > MAX_SEQS)
		return bad(msg, n, "max_seqs must be 1 to 65536");
	if (!h->max_tokens || h->max_tokens > MAX_TOKENS)
		return bad(msg, n, "max_tokens must be 1 to 16777216");
	if (!h->args_bytes || h->args_bytes > MAX_ARGS || h->args_bytes % 4096)
		return bad(msg, n, "args_bytes must be a multiple of 4096, at most 256 MiB");
	if (!h->nr_ranks || h->nr_ranks > KVMD_MAX_RANKS)
		return bad(msg, n, "nr_ranks must be 1 to 8");
	if (h->nr_lanes < h->nr_ranks || h->nr_lanes > KVMD_MAX_LANES)
		return bad(msg, n, "nr_lanes must be nr_ranks to 32");
	if (h->flags || !mem_is_zero(h->resv, sizeof(h->resv)))
		return bad(msg, n, "flags and resv must be zero");
	if (!name_ok(h->tenant, sizeof(h->tenant)) || !name_ok(h->label, sizeof(h->label)))
		return bad(msg, n, "tenant and label must be printable, without blanks, "
			   "NUL-terminated and NUL-filled");
	return 0;
}

static int check_space(const struct kvmd_space *m, char *msg, size_t n)
{
	if (!m->name[0] || !name_ok(m->name, sizeof(m->name)))
		return bad(msg, n, "name must be 1 to 63 printable characters, NUL-filled");
	if (m->flags & ~(KVMD_SPACE_EXISTING | KVMD_SPACE_ANY_GEOMETRY))
		return bad(msg, n, "flags has an unknown bit");
	if (m->resv0 || !mem_is_zero(m->resv, sizeof(m->resv)))
		return bad(msg, n, "resv must be zero");
	for (uint32_t i = 0; i < KVMD_MAX_SHARDS; i++)
		if (!name_ok(m->device[i], sizeof(m->device[i])))
			return bad(msg, n, "device must be printable and NUL-filled");
	return 0;
}

static int check_join(const struct kvmd_join *m, char *msg, size_t n)
{
	if (m->version != KVMD_WIRE_VERSION) {
		snprintf(msg, n, "the daemon speaks protocol version %u, the client %u",
			 KVMD_WIRE_VERSION, m->version);
		return -EPROTO;
	}
	if (!m->rank || m->rank >= KVMD_MAX_RANKS || !mem_is_zero(m->resv, sizeof(m->resv)))
		return bad(msg, n, "rank must be 1 to 7, resv zero");
	return 0;
}

static int check_resume(const struct kvmd_resume *m, char *msg, size_t n)
{
	if (m->version != KVMD_WIRE_VERSION) {
		snprintf(msg, n, "the daemon speaks protocol version %u, the client %u",
			 KVMD_WIRE_VERSION, m->version);
		return -EPROTO;
	}
	if (m->rank >= KVMD_MAX_RANKS || m->resv0 || !mem_is_zero(m->resv, sizeof(m->resv)))
		return bad(msg, n, "rank must be 0 to 7, resv zero");
	return 0;
}

int control_check(const void *m, size_t bytes, char *msg, size_t n)
{
	const struct kvmd_msg *h = m;

	if (bytes < sizeof(*h) || h->bytes != bytes)
		return bad(msg, n, "the message's length is not what it says");
	if (h->type >= KVMD_NR_MSG || !kinds[h->type].bytes)
		return bad(msg, n, "unknown message type");
	if (bytes != kinds[h->type].bytes)
		return bad(msg, n, "the message has another size in this version");
	if (h->nr_fds)
		return bad(msg, n, "the daemon takes no file descriptors");
	switch (h->type) {
	case KVMD_MSG_HELLO:
		return check_hello(m, msg, n);
	case KVMD_MSG_SPACE:
		return check_space(m, msg, n);
	case KVMD_MSG_JOIN:
		return check_join(m, msg, n);
	case KVMD_MSG_RESUME:
		return check_resume(m, msg, n);
	default:
		return 0;
	}
}
