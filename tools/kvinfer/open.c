// SPDX-License-Identifier: Apache-2.0
/*
 * open.c - what an engine runs on: device, model, GEMM, memory of a step; and all of
 * it closed again. Each rank opens its own.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rank r of "cuda:N" is on GPU N + r. */
static int open_device(struct ki_engine *e, uint32_t rank)
{
	const char *at = e->o.device;
	int gpu, err;

	if (!strcmp(at, "cpu")) {
		err = kn_cpu_open(&e->dev);
		return err ? ki_fail(e, err, "no memory") : 0;
	}
	at = strchr(at, ':');
	gpu = (int)(at ? strtoul(at + 1, NULL, 10) : 0) + (int)rank;
	return kn_cuda_open(gpu, &e->dev, e->msg, sizeof(e->msg));
}

int ki_engine_open_rank(struct ki_engine *e, uint32_t rank)
{
	const struct ki_opts *o = &e->o;
	int err = open_device(e, rank);

	if (!err && o->weights)
		err = ki_model_load(e->dev, o->weights, rank, o->ranks, &e->m, e->msg);
	else if (!err)
		err = ki_model_random(e->dev, &o->shape, o->model_seed, rank, o->ranks, &e->m,
				      e->msg);
	if (!err)
		err = ki_gemm_open(e->dev, o->gemm, o->threads, &e->gemm, e->msg);
	if (!err)
		err = ki_run_create(e->m, e->gemm, o->batch > o->chunk ? o->batch : o->chunk,
				    e->m->shape.max_tokens, e->tp ? ki_tp_reduce(e->tp) : NULL,
				    &e->run, e->msg);
	return err;
}

void ki_engine_close(struct ki_engine *e)
{
	struct ki_request *r;

	while ((r = e->wait.head)) {
		e->wait.head = r->next;
		ki_request_free(r);
	}
	/* The other rank is done with the pool before its session ends. */
	ki_tp_stop(e->tp);
	if (e->pool)
		ki_pool_close(e, e->pool);
	if (e->mem)
		ki_private_free(e, e->mem);
	ki_run_free(e->run);
	ki_gemm_close(e->gemm);
	ki_model_free(e->m);
	if (e->dev) {
		kn_free(e->dev, e->pick.logits);
		kn_free(e->dev, e->pick.seed);
		kn_free(e->dev, e->pick.token);
	}
	kn_close(e->dev);
	free(e->o.prompt);
}
