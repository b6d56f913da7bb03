/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen.h - what a generated workload is made of.
 *
 * Lengths are tokens and, like times, means of a distribution; see gen.c.
 */
#ifndef KVTRACE_GEN_H
#define KVTRACE_GEN_H

#include "tools/kvtrace/trace.h"

struct gen_opts {
	uint64_t requests;		/* stop after; 0: no limit */
	uint64_t sessions;		/* start so many; 0: no limit; not both 0 */
	uint64_t block_tokens;
	uint64_t system_prompts;	/* different ones, at least 1 */
	uint64_t system_tokens;		/* mean length; 0: none */
	uint64_t turns;			/* mean per session */
	uint64_t turn_tokens;		/* mean new tokens a turn */
	uint64_t output_tokens;		/* mean */
	uint64_t gap_ns;		/* mean, from one turn to the next */
	uint64_t start_gap_ns;		/* mean between session starts */
	uint64_t context_tokens;	/* a session ends before it grows longer */
	uint64_t seed;
	enum trace_form form;
	const char *path;		/* NULL: standard output */
	bool quiet;
};

/* Generate and write; an exit code, after a message if it is not KVT_OK. */
int gen_run(const struct gen_opts *o);

#endif
