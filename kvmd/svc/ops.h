/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.h - the run() of every operation (see struct op_def).
 */
#ifndef KVMD_SVC_OPS_H
#define KVMD_SVC_OPS_H

#include "kvmd/svc/daemon.h"

enum op_ret op_seq_open(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_extend(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_publish(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_fork(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_unshare(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_trim(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_replace(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_send(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_recv(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_close(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_swap_out(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_swap_in(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_seq_wait(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_cancel(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_lookup(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_advise(struct op *op, int err, struct kvmd_cqe *c);
enum op_ret op_clock(struct op *op, int err, struct kvmd_cqe *c);

#endif
