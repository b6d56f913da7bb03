/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - the shape of every operation in one table, and the check by it.
 */
#include "kvmd/ring/check.h"

/* Fields an operation reads; all others must be zero. */
#define F_SEQ	0x01	/* seq, seq_gen */
#define F_FIRST	0x02
#define F_NR	0x04
#define F_ARG	0x08
#define F_OFF	0x10	/* keys: off .. off + nr * 32 in args */
#define F_STEP	0x20
#define F_AUX	0x40
#define F_GROUP	0x80	/* one group of the space */

/*
 * What an operation may set, as the bits of the entry's eight words that must
 * be zero: one pass over the entry checks every unread field, unknown flag and
 * reserved word at once.
 */
struct shape {
	const char *name;
	uint64_t zero[8];
	uint8_t fields;
};

BUILD_BUG_ON(offsetof(struct kvmd_sqe, seq) != 4 || offsetof(struct kvmd_sqe, seq_gen) != 16 ||
	     offsetof(struct kvmd_sqe, nr) != 24 || offsetof(struct kvmd_sqe, off) != 32 ||
	     offsetof(struct kvmd_sqe, step) != 40 || offsetof(struct kvmd_sqe, aux) != 48 ||
	     offsetof(struct kvmd_sqe, resv) != 56);

#define UNLESS(f, bit, mask)	((f) & (bit) ? 0 : (uint64_t)(mask))
#define LOW	0xffffffffull
#define HIGH	0xffffffff00000000ull
#define ALL	0xffffffffffffffffull
#define SHAPE(name_, flags_, f) {						\
	.name = (name_), .fields = (f),						\
	.zero = {								\
		UNLESS(f, F_GROUP, 0xff00) | (uint64_t)(~(flags_) & 0xffffu) << 16 | \
		UNLESS(f, F_SEQ, HIGH),						\
		0,			/* user_data */				\
		UNLESS(f, F_SEQ, LOW) | UNLESS(f, F_FIRST, HIGH),		\
		UNLESS(f, F_NR, LOW) | UNLESS(f, F_ARG, HIGH),			\
		UNLESS(f, F_OFF, ALL), UNLESS(f, F_STEP, ALL), UNLESS(f, F_AUX, ALL), \
		LOW,			/* resv */				\
	},									\
}

static const struct shape shapes[KVMD_NR_OP] = {
	[KVMD_OP_NOP] = SHAPE("nop", 0, 0),
	[KVMD_OP_SEQ_OPEN] = SHAPE("seq_open",
		KVMD_OPEN_LISTS | KVMD_OPEN_NO_STORE | KVMD_OPEN_NO_HIT | KVMD_OPEN_LOAD |
		KVMD_OPEN_WAIT | KVMD_OPEN_BY_PLANE,
		F_SEQ | F_OFF | F_NR | F_FIRST | F_ARG | F_AUX),
	[KVMD_OP_SEQ_EXTEND] = SHAPE("seq_extend", KVMD_EXTEND_NOWAIT | KVMD_EXTEND_TOKENS,
		F_SEQ | F_GROUP | F_NR | F_AUX),
	[KVMD_OP_SEQ_PUBLISH] = SHAPE("seq_publish", 0,
		F_SEQ | F_GROUP | F_FIRST | F_OFF | F_NR | F_STEP),
	[KVMD_OP_SEQ_FORK] = SHAPE("seq_fork", 0, F_SEQ | F_FIRST | F_ARG | F_STEP | F_AUX),
	[KVMD_OP_SEQ_UNSHARE] = SHAPE("seq_unshare", 0,
		F_SEQ | F_GROUP | F_FIRST | F_STEP | F_AUX),
	[KVMD_OP_SEQ_TRIM] = SHAPE("seq_trim", KVMD_TRIM_TAIL | KVMD_TRIM_KEEP,
		F_SEQ | F_GROUP | F_FIRST | F_NR | F_STEP),
	[KVMD_OP_SEQ_REPLACE] = SHAPE("seq_replace", KVMD_REPLACE_HOLES,
		F_SEQ | F_GROUP | F_FIRST | F_NR | F_ARG | F_STEP),
	[KVMD_OP_SEQ_SEND] = SHAPE("seq_send", 0, F_SEQ | F_STEP),
	[KVMD_OP_SEQ_RECV] = SHAPE("seq_recv", 0, F_SEQ | F_AUX),
	[KVMD_OP_SEQ_SWAP_OUT] = SHAPE("seq_swap_out", 0, F_SEQ | F_STEP),
	[KVMD_OP_SEQ_SWAP_IN] = SHAPE("seq_swap_in", 0, F_SEQ | F_AUX),
	[KVMD_OP_SEQ_CLOSE] = SHAPE("seq_close", 0, F_SEQ | F_STEP | F_ARG),
	[KVMD_OP_CANCEL] = SHAPE("cancel", 0, F_AUX),
	[KVMD_OP_LOOKUP] = SHAPE("lookup", 0, F_GROUP | F_OFF | F_NR),
	[KVMD_OP_ADVISE] = SHAPE("advise", KVMD_ADVISE_SEQ, 0xff),
	[KVMD_OP_CLOCK] = SHAPE("clock", 0, F_AUX),
	[KVMD_OP_SEQ_WAIT] = SHAPE("seq_wait", 0, F_SEQ | F_FIRST),
};

const char *ring_op_name(unsigned opcode)
{
	return opcode < KVMD_NR_OP ? shapes[opcode].name : "?";
}

/* off, nr items of @size bytes lie in the args area. */
static int check_range(uint64_t off, uint32_t nr, uint32_t size, const struct ring_limits *lim)
{
	uint64_t bytes = (uint64_t)nr * size;

	if (off % 8)
		return -EINVAL;
	if (off > lim->args_bytes || bytes > lim->args_bytes - off)
		return -EFAULT;
	return 0;
}

int ring_check_list(const struct kvmd_key_list *l, const struct ring_limits *lim)
{
	if (l->resv || l->nr > lim->max_blocks)
		return -EINVAL;
	return check_range(l->off, l->nr, KVMD_KEY_BYTES, lim);
}

static int check_hints(uint32_t hints)
{
	uint32_t known = KVMD_HINT_CLASS_MASK | KVMD_HINT_WILL_CONTINUE | KVMD_HINT_LAST;

	return hints & ~known ? -EINVAL : 0;
}

/* Loads are asked for, and in one way. */
static bool open_flags_agree(uint16_t flags)
{
	const uint16_t how = flags & (KVMD_OPEN_WAIT | KVMD_OPEN_BY_PLANE);

	if (!(flags & KVMD_OPEN_LOAD))
		return !how;
	return !(flags & KVMD_OPEN_NO_HIT) && how != (KVMD_OPEN_WAIT | KVMD_OPEN_BY_PLANE);
}

static int check_open(const struct kvmd_sqe *e, const struct ring_limits *lim)
{
	if (check_hints(e->arg) || !open_flags_agree(e->flags))
		return -EINVAL;
	if (e->flags & KVMD_OPEN_LISTS) {
		if (e->nr != lim->nr_groups)
			return -EINVAL;
		return check_range(e->off, e->nr, sizeof(struct kvmd_key_list), lim);
	}
	if (e->nr > lim->max_blocks)
		return -EINVAL;
	return check_range(e->off, e->nr, KVMD_KEY_BYTES, lim);
}

static int check_advise(const struct kvmd_sqe *e, const struct ring_limits *lim)
{
	bool timed = e->arg == KVMD_ADV_PRIORITY || e->arg == KVMD_ADV_TTL;

	if (e->arg >= KVMD_NR_ADV || e->step || (e->aux && !timed))
		return -EINVAL;
	if (e->arg == KVMD_ADV_PRIORITY && (e->aux & 0xff) > KVMD_PRIO_MAX)
		return -EINVAL;
	if (e->flags & KVMD_ADVISE_SEQ)
		return e->off || e->seq >= lim->max_seqs ? -EINVAL : 0;
	if (e->seq || e->seq_gen || e->first || e->nr > lim->max_blocks)
		return -EINVAL;
	return check_range(e->off, e->nr, KVMD_KEY_BYTES, lim);
}

/* What only some operations have to keep. */
static int check_op(const struct kvmd_sqe *e, const struct ring_limits *lim)
{
	switch (e->opcode) {
	case KVMD_OP_SEQ_OPEN:
		return check_open(e, lim);
	case KVMD_OP_SEQ_EXTEND:
		return e->nr ? 0 : -EINVAL;
	case KVMD_OP_SEQ_PUBLISH:
		if (!e->nr || e->nr > lim->max_blocks)
			return -EINVAL;
		return check_range(e->off, e->nr, KVMD_KEY_BYTES, lim);
	case KVMD_OP_SEQ_FORK:
		return e->first >= lim->max_seqs || e->first == e->seq ? -EINVAL : 0;
	case KVMD_OP_SEQ_TRIM:
		if (e->flags == (KVMD_TRIM_TAIL | KVMD_TRIM_KEEP))
			return -EINVAL;
		return (e->flags & KVMD_TRIM_TAIL) && e->nr ? -EINVAL : 0;
	case KVMD_OP_SEQ_REPLACE:
		return !e->nr || e->arg > e->nr ? -EINVAL : 0;
	case KVMD_OP_SEQ_CLOSE:
		return check_hints(e->arg);
	case KVMD_OP_LOOKUP:
		if (e->nr > lim->max_blocks)
			return -EINVAL;
		return check_range(e->off, e->nr, KVMD_KEY_BYTES, lim);
	case KVMD_OP_ADVISE:
		return check_advise(e, lim);
	default:
		return 0;
	}
}

int ring_check(const struct kvmd_sqe *e, const struct ring_limits *lim)
{
	const struct shape *sh;
	uint64_t w[8], bits = 0;

	if (e->opcode >= KVMD_NR_OP)
		return -EINVAL;
	sh = &shapes[e->opcode];
	memcpy(w, e, sizeof(w));
	for (int i = 0; i < 8; i++)
		bits |= w[i] & sh->zero[i];
	if (bits)
		return -EINVAL;
	if (e->opcode == KVMD_OP_NOP)
		return 0;
	if ((sh->fields & F_SEQ) && e->seq >= lim->max_seqs)
		return -EINVAL;
	if (e->opcode == KVMD_OP_SEQ_EXTEND && (e->flags & KVMD_EXTEND_TOKENS)) {
		if (e->group != KVMD_GROUP_ALL)
			return -EINVAL;
	} else if ((sh->fields & F_GROUP) && e->group >= lim->nr_groups) {
		return -EINVAL;
	}
	return check_op(e, lim);
}
