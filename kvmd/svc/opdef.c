/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opdef.c - one row per operation; and the operations too small for a file.
 */
#include "kvmd/svc/ops.h"

#include "kvmd/lib/clock.h"

const struct op_def op_defs[KVMD_NR_OP] = {
	[KVMD_OP_NOP] = { .name = "nop" },	/* answered where it is taken */
	[KVMD_OP_SEQ_OPEN] = {
		.name = "seq_open", .makes_seq = true, .takes = true, .run = op_seq_open,
	},
	[KVMD_OP_SEQ_EXTEND] = {
		.name = "seq_extend", .on_seq = true, .takes = true, .run = op_seq_extend,
	},
	[KVMD_OP_SEQ_PUBLISH] = { .name = "seq_publish", .on_seq = true, .run = op_seq_publish },
	[KVMD_OP_SEQ_FORK] = {
		.name = "seq_fork", .on_seq = true, .structural = true, .after_step = true,
		.takes = true, .run = op_seq_fork,
	},
	[KVMD_OP_SEQ_UNSHARE] = {
		.name = "seq_unshare", .on_seq = true, .structural = true, .after_step = true,
		.takes = true, .run = op_seq_unshare,
	},
	[KVMD_OP_SEQ_TRIM] = {
		.name = "seq_trim", .on_seq = true, .structural = true, .after_step = true,
		.run = op_seq_trim,
	},
	[KVMD_OP_SEQ_REPLACE] = {
		.name = "seq_replace", .on_seq = true, .structural = true, .after_step = true,
		.run = op_seq_replace,
	},
	[KVMD_OP_SEQ_SEND] = {
		.name = "seq_send", .on_seq = true, .structural = true, .after_step = true,
		.run = op_seq_send,
	},
	[KVMD_OP_SEQ_RECV] = {
		.name = "seq_recv", .makes_seq = true, .takes = true, .run = op_seq_recv,
	},
	[KVMD_OP_SEQ_SWAP_OUT] = {
		.name = "seq_swap_out", .on_seq = true, .structural = true, .after_step = true,
		.run = op_seq_swap_out,
	},
	[KVMD_OP_SEQ_SWAP_IN] = {
		.name = "seq_swap_in", .on_seq = true, .structural = true, .takes = true,
		.run = op_seq_swap_in,
	},
	[KVMD_OP_SEQ_WAIT] = { .name = "seq_wait", .on_seq = true, .run = op_seq_wait },
	[KVMD_OP_SEQ_CLOSE] = {
		.name = "seq_close", .on_seq = true, .structural = true, .after_step = true,
		.run = op_seq_close,
	},
	[KVMD_OP_CANCEL] = { .name = "cancel", .run = op_cancel },
	[KVMD_OP_LOOKUP] = { .name = "lookup", .run = op_lookup },
	[KVMD_OP_ADVISE] = { .name = "advise", .run = op_advise },
	[KVMD_OP_CLOCK] = { .name = "clock", .run = op_clock },
};

enum op_ret op_cancel(struct op *op, int err, struct kvmd_cqe *c)
{
	(void)err;
	return op_done(c, session_cancel(op->s, op->e.aux));
}

enum op_ret op_clock(struct op *op, int err, struct kvmd_cqe *c)
{
	struct daemon *d = op->s->d;

	(void)err;
	if (!d->conf.daemon.clock)
		return op_done(c, -EPERM);
	clock_policy_drive(op->e.aux);
	d->pool->now = (uint32_t)(clock_policy_ns() / (1000000000 / 16));
	return op_done(c, 0);
}
