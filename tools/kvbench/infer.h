/* SPDX-License-Identifier: Apache-2.0 */
/*
 * infer.h - first tokens of kvinfer, cold and warm: parts "infer" and "gpu".
 */
#ifndef KVBENCH_INFER_H
#define KVBENCH_INFER_H

#include "tools/kvbench/kvbench.h"

struct infer_opts {
	const char *name;		/* of the daemon */
	const char *kind;		/* of its device: "host", "cuda" */
	const char *device;		/* kvinfer's: "cpu", "cuda" */
	const char *model;		/* its shape */
	uint32_t vocab;
	uint32_t prefix, question;	/* tokens */
	uint32_t chunk;
	uint64_t pool_bytes;
};

/* What it is, as @text. Starts the daemon. 0, or -errno with @why. */
int infer_open(const struct infer_opts *o, struct kvmd_proc *daemon, char *text, size_t text_n,
	       char *why, size_t n);
/*
 * Two processes, one after the other, answer a prompt that nobody had before: ms from
 * where each takes the request up to its first token. That both have the same logits,
 * and the second one the first one's prefix, is looked at. 0, or -errno with @why.
 */
int infer_pair(const struct infer_opts *o, const struct kvmd_proc *daemon, double *ret_cold,
	       double *ret_warm, char *why, size_t n);

#endif
