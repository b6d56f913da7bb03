// SPDX-License-Identifier: Apache-2.0
/*
 * opts_check.c - options that make no sense together are refused, with what to do
 * instead. What only the weights' file can tell (heads, layers) is refused where it is read.
 */
#include "tools/kvinfer/opts.h"

/* None of @names (NULL-terminated) with what @why says. */
static void none_of(const char *const *names, const char *why)
{
	for (; *names; names++)
		if (ki_opts_given(*names))
			ki_usage("--%s %s", *names, why);
}

static void check_prompts(const struct ki_opts *o)
{
	static const char *const prompts[] = {
		"prompt", "prompt-file", "trace", "system", "repeat", NULL,
	};
	static const char *const of_trace[] = { "trace-requests", "trace-scale", NULL };

	if (o->role == KI_ROLE_DECODE)
		none_of(prompts, "with --role decode: what to answer comes with the tickets, leave "
			"it out");
	else if (!o->nr_prompts && !o->prompt_file && !o->trace)
		ki_usage("nothing to answer: give --prompt, --prompt-file or --trace");
	if (!o->trace)
		none_of(of_trace, "is about a --trace: give one, or leave it out");
	if (o->top_k && !(o->temperature > 0))
		ki_usage("--top-k without a --temperature above 0 draws nothing: give one");
	if (o->samples > o->batch)
		ki_usage("--samples %u at a time need a --batch of %u or more, not %u", o->samples,
			 o->samples, o->batch);
}

static void check_model(const struct ki_opts *o)
{
	static const char *const of_random[] = { "model", "model-seed", NULL };
	char msg[KI_TEXT];

	if (o->weights) {
		none_of(of_random, "is about random weights: leave it out with --weights");
		return;
	}
	if (ki_shape_check(&o->shape, o->ranks, msg))
		ki_usage("--model: %s", msg);
	if (o->tokens >= o->shape.max_tokens)
		ki_usage("--tokens %u leave no room for a prompt: the model has max_tokens=%u",
			 o->tokens, o->shape.max_tokens);
	if (o->draft_layers >= o->shape.layers)
		ki_usage("--draft-layers %u: the model has %u layers, a draft has to have fewer",
			 o->draft_layers, o->shape.layers);
	if ((uint32_t)o->codec.exact_first + o->codec.exact_last > o->shape.layers)
		ki_usage("--codec: exact=%u:%u are more than the model's %u layers",
			 o->codec.exact_first, o->codec.exact_last, o->shape.layers);
}

static void check_h2o(const struct ki_opts *o)
{
	if (o->h2o % o->block_tokens)
		ki_usage("--h2o %u is not a multiple of --block-tokens %u: give %u", o->h2o,
			 o->block_tokens, (o->h2o / o->block_tokens + 1) * o->block_tokens);
	if (o->window)
		ki_usage("--h2o chooses the tokens that --window would: leave one of them out");
	if (o->draft_tokens)
		ki_usage("--h2o throws out tokens that a draft may have to go back to: leave out "
			 "--draft-tokens");
	if (o->samples > 1)
		ki_usage("--h2o keeps other tokens for each sample: leave out --samples");
	if (o->role != KI_ROLE_RUN)
		ki_usage("--h2o needs the attention of prefill and decode: leave out --role");
}

static void check_engine(const struct ki_opts *o)
{
	if (o->chunk % o->block_tokens)
		ki_usage("--chunk %u is not a multiple of --block-tokens %u: give %u", o->chunk,
			 o->block_tokens, (o->chunk / o->block_tokens + 1) * o->block_tokens);
	if (o->sinks && !o->window)
		ki_usage("--sinks are seen besides a --window: give one, or leave them out");
	if (!o->draft_layers != !o->draft_tokens)
		ki_usage("a draft needs both --draft-layers and --draft-tokens");
	if (o->draft_tokens + 1 > o->batch)
		ki_usage("--draft-tokens %u: with the token before them that is a step of %u rows, "
			 "and --batch is %u: give at most %u", o->draft_tokens,
			 o->draft_tokens + 1, o->batch, o->batch - 1);
	if (o->h2o)
		check_h2o(o);
}

static void check_cache(const struct ki_opts *o)
{
	static const char *const of_pool[] = { "socket", "space", "tenant", "codec", NULL };

	if (!o->private) {
		if (o->private_tokens)
			ki_usage("--private-tokens is of a --private cache: give that too");
		if (o->codec.id && o->dtype != KN_BF16)
			ki_usage("--codec takes bf16: leave out --kv-dtype %s",
				 ki_dtype_words[o->dtype]);
		return;
	}
	none_of(of_pool, "is of a pool: leave it out with --private");
	if (o->role != KI_ROLE_RUN)
		ki_usage("--role hands over blocks of a pool: leave out --private");
}

static void check_role(const struct ki_opts *o)
{
	if (o->role == KI_ROLE_RUN) {
		if (o->handoff)
			ki_usage("--handoff is for tickets: say --role prefill or decode too");
		return;
	}
	if (!o->handoff)
		ki_usage("--role %s needs --handoff, where tickets %s", ki_role_words[o->role],
			 o->role == KI_ROLE_PREFILL ? "go to" : "come from");
	if (o->samples > 1)
		ki_usage("--samples are forks of one sequence, and a ticket hands over one: leave "
			 "out --samples or --role");
	if (o->role == KI_ROLE_PREFILL && (o->check || o->draft_tokens))
		ki_usage("--%s is about tokens that are made: leave it to --role decode",
			 o->check ? "check" : "draft-tokens");
}

void ki_opts_check(const struct ki_opts *o)
{
	check_prompts(o);
	check_engine(o);
	check_cache(o);
	check_role(o);
	check_model(o);
}
