// SPDX-License-Identifier: Apache-2.0
/*
 * main.c - kvinfer: the order of things, and what the process ends with.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_FINE, EXIT_REFUSED, EXIT_USAGE, EXIT_NO_DAEMON, EXIT_UNEQUAL = 5 };

static struct ki_engine engine;

/* --check has to find the same bits: nothing that was asked for changes them. */
static bool is_exact(const struct ki_engine *e)
{
	/* What was made and is computed again as part of a prompt has other steps. */
	return !e->o.h2o && e->o.codec.id <= KVMD_CODEC_WINDOW && !e->total.restarts;
}

/* So large that each sequence which may run at a time has its longest. */
static int open_private(struct ki_engine *e)
{
	uint64_t seqs = 0, longest = 1, want = e->o.private_tokens;
	uint64_t most = (uint64_t)e->o.h2o + e->o.chunk + e->o.block_tokens;

	for (const struct ki_request *r = e->wait.head; r; r = r->next) {
		uint64_t nr = (uint64_t)r->nr + r->tokens + e->o.draft_tokens + 1;

		/* Those that stay are copied behind the others. */
		nr += e->o.h2o;

		longest = nr > longest ? nr : longest;
		seqs += r->samples;
	}
	/* What is thrown out makes room, and what is kept is copied behind it first. */
	if (e->o.h2o && longest > most)
		longest = most;
	if (e->o.h2o)
		longest += e->o.h2o + e->o.block_tokens;
	seqs = seqs < e->o.batch ? seqs : e->o.batch;
	if (want && want < seqs * longest)
		return ki_fail(e, -EINVAL, "--private-tokens %llu: %llu sequences of up to %llu "
			       "tokens at a time need %llu: give that, or a smaller --batch",
			       (unsigned long long)want, (unsigned long long)seqs,
			       (unsigned long long)longest, (unsigned long long)(seqs * longest));
	if (want && want / seqs < UINT32_MAX)
		longest = want / seqs;
	return ki_private_create(e, (uint32_t)seqs, (uint32_t)longest, &e->mem, &e->cache);
}

static int open_cache(struct ki_engine *e, int *ret_status)
{
	int err;

	if (e->o.private) {
		err = open_private(e);
	} else {
		err = ki_pool_open(e, &e->pool, &e->cache);
		if (err == -ENOENT || err == -ECONNREFUSED)
			*ret_status = EXIT_NO_DAEMON;
	}
	if (!err && e->tp)
		err = ki_tp_ready(e, e->pool ? kvc_group_token(e->pool->k) : 0);
	return err;
}

static int run(struct ki_engine *e, int *ret_status)
{
	int err = 0;

	/* A rank is a process: it is made before there is a device, or a thread of one. */
	if (e->o.ranks > 1)
		err = ki_tp_start(e, &e->tp);
	if (!err)
		err = ki_engine_open_rank(e, 0);
	if (!err)
		err = e->o.role == KI_ROLE_DECODE ?
			ki_handoff_load(&e->o, &e->wait, e->msg) :
			ki_prompts_load(&e->o, &e->m->shape, &e->wait, e->msg);
	if (!err)
		err = open_cache(e, ret_status);
	if (err)
		return err;
	err = ki_engine_run(e);
	ki_report_end(e);
	if (err == -ECONNRESET && e->pool && e->pool->gone)
		*ret_status = EXIT_NO_DAEMON;
	else if (!err && e->total.unequal && is_exact(e))
		*ret_status = EXIT_UNEQUAL;
	return err;
}

int main(int argc, char **argv)
{
	struct ki_engine *e = &engine;
	int status = EXIT_FINE, err;

	ki_opts_parse(&e->o, argc, argv);
	err = run(e, &status);
	if (err) {
		fprintf(stderr, "kvinfer: %s%s\n", *e->msg ? e->msg : strerror(-err),
			status == EXIT_NO_DAEMON && !e->pool ?
			": start kvmd, name its --socket, or use --private" : "");
		status = status ? status : EXIT_REFUSED;
	} else if (status == EXIT_UNEQUAL) {
		fputs("kvinfer: --check: logits differ, and nothing that was asked for explains "
		      "that\n", stderr);
	}
	ki_engine_close(e);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "kvinfer: standard output: %s\n", strerror(errno ? errno : EIO));
		status = status ? status : EXIT_REFUSED;
	}
	return status;
}
