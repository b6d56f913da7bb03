// SPDX-License-Identifier: Apache-2.0
/*
 * replay_plan.c - what is settled before the first request: keys, capacity, who
 * runs what, and what each client will hint.
 *
 * Everything is a function of the trace, the options and the seed, so that two
 * replays differ only by what the processes do at the same time.
 */
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay.h"
#include "tools/kvtrace/replay_bytes.h"

/* Two roots, so that no prompt block has the key of an output block. */
#define ROOT_PROMPT	"kvtrace prompt block"
#define ROOT_OUTPUT	"kvtrace output block"

/* key = keyed SHA-256 over (seed; root, @a, @b): the chain of libkvclient, one block long. */
static void make_key(uint64_t seed, const char *root, uint64_t a, uint64_t b, void *ret_key)
{
	int32_t words[4] = {
		(int32_t)(uint32_t)a, (int32_t)(uint32_t)(a >> 32),
		(int32_t)(uint32_t)b, (int32_t)(uint32_t)(b >> 32),
	};
	struct kvc_chain c;

	BUG_ON(kvc_chain_init(&c, &seed, sizeof(seed), root, strlen(root), ARRAY_SIZE(words)));
	kvc_chain_blocks(&c, words, 1, ret_key);
}

void plan_key(uint64_t seed, uint64_t id, void *ret_key)
{
	make_key(seed, ROOT_PROMPT, id, 0, ret_key);
}

void plan_output_key(uint64_t seed, uint64_t req, uint32_t pos, void *ret_key)
{
	make_key(seed, ROOT_OUTPUT, req, pos, ret_key);
}

uint64_t plan_capacity(const struct replay_opts *o, uint64_t distinct)
{
	uint64_t n = o->cap_value;

	if (o->cap_kind == CAP_PERCENT)
		n = (uint64_t)((double)distinct * o->cap_percent / 100 + 0.5);
	else if (o->cap_kind == CAP_BYTES)
		n = o->cap_value / o->block_bytes;
	return max(n, (uint64_t)1);
}

uint32_t plan_client(const struct replay_plan *p, uint64_t i)
{
	if (p->o->route == ROUTE_RR)
		return (uint32_t)(i % p->o->clients);
	return (uint32_t)(bytes_mix(p->t.reqs[i].session) % p->o->clients);
}

uint64_t plan_next(const struct replay_plan *p, uint32_t client, uint64_t from)
{
	while (from < p->t.nr_reqs && plan_client(p, from) != client)
		from++;
	return from < p->t.nr_reqs ? from : REPLAY_DONE;
}

uint32_t plan_prompt_blocks(const struct replay_plan *p, uint64_t i)
{
	const struct trace_req *r = &p->t.reqs[i];

	return p->o->full_blocks ? trace_req_full_blocks(&p->t, r) : r->nr_blocks;
}

uint32_t plan_output_blocks(const struct replay_plan *p, uint64_t i)
{
	if (!p->o->decode)
		return 0;
	return (uint32_t)div_round_up(p->t.reqs[i].output_tokens, p->t.block_tokens);
}

void plan_fit(uint64_t slots, uint32_t *prompt, uint32_t *output)
{
	*output = (uint32_t)min((uint64_t)*output, slots - 1);
	*prompt = (uint32_t)min((uint64_t)*prompt, slots - *output);
}

uint32_t plan_hint(const struct replay_plan *p, uint64_t i)
{
	uint32_t session = p->t.reqs[i].session;
	bool goes_on = p->last_req[session] != i;

	if (p->o->hints < 0)
		return 0;
	if ((int32_t)(bytes_mix(p->o->seed + i) % 100) >= p->o->hints)
		goes_on = !goes_on;
	return goes_on ? KVMD_HINT_WILL_CONTINUE : KVMD_HINT_LAST;
}

/* As few parts to a plane as their number of channels allows. */
void plan_group(const struct replay_opts *o, uint32_t block_tokens, struct kvmd_group *ret_g)
{
	struct kvmd_group g = {
		.planes = o->planes, .plane_bytes = o->block_bytes / o->planes / o->shards,
		.block_tokens = block_tokens, .rule = KVMD_RULE_FULL,
	};
	uint64_t row = g.plane_bytes / 2 / block_tokens, parts = 1;

	while (row / parts > UINT16_MAX || (row % parts && parts < row))
		parts++;
	if (o->codec)
		g.codec = (struct kvmd_codec) {
			.id = (uint8_t)o->codec, .dtype = KVMD_DTYPE_BF16,
			.parts = (uint16_t)parts, .channels = (uint16_t)(row / parts),
		};
	*ret_g = g;
}

uint64_t plan_place_bytes(const struct replay_opts *o)
{
	return align_up(o->block_bytes, 4096);
}

uint64_t plan_tier_bytes(const struct replay_plan *p, const struct replay_size *s)
{
	if (s->bytes)
		return s->bytes;
	return (uint64_t)((double)p->capacity * s->times + 0.5) * plan_place_bytes(p->o);
}

/* Leading blocks that some request had before, in the trace's order. 0 or -ENOMEM. */
static int plan_bound(struct replay_plan *p)
{
	uint8_t *seen = calloc(max(p->t.nr_blocks, 1U), 1);
	uint64_t i;

	if (!seen)
		return -ENOMEM;
	for (i = 0; i < p->t.nr_reqs; i++) {
		const struct trace_req *r = &p->t.reqs[i];
		struct trace_iter it = trace_iter(&p->t, r);
		uint32_t nr = plan_prompt_blocks(p, i), pos, id, hits = 0;

		for (pos = 0; pos < nr && trace_iter_next(&it, &id); pos++) {
			hits += hits == pos && seen[id];
			seen[id] = 1;
		}
		p->bound_blocks += hits;
		p->bound_tokens += trace_req_tokens(&p->t, r, hits);
	}
	free(seen);
	return 0;
}

static void plan_sizes(struct replay_plan *p)
{
	uint64_t i;

	for (i = 0; i < p->t.nr_reqs; i++) {
		uint32_t prompt = plan_prompt_blocks(p, i), output = plan_output_blocks(p, i);

		p->tokens += p->t.reqs[i].input_tokens;
		p->blocks += prompt;
		p->last_req[p->t.reqs[i].session] = (uint32_t)i;
		plan_fit(p->capacity, &prompt, &output);
		p->max_prompt = max(p->max_prompt, prompt);
		p->max_row = max(p->max_row, prompt + output);
	}
}

int plan_make(struct replay_plan *p, const struct replay_opts *o)
{
	uint32_t id;
	int err;

	memset(p, 0, sizeof(*p));
	p->o = o;
	err = kvt_load(&p->t, o->path, o->load, o->quiet || o->json);
	if (err)
		return err;
	p->keys = malloc(max(p->t.nr_blocks, 1U) * sizeof(*p->keys));
	p->last_req = calloc(max(p->t.nr_sessions, 1U), sizeof(*p->last_req));
	if (!p->keys || !p->last_req || plan_bound(p)) {
		kvt_warn("%s: no memory for the keys of %u blocks", o->path, p->t.nr_blocks);
		plan_free(p);
		return KVT_REFUSED;
	}
	for (id = 0; id < p->t.nr_blocks; id++)
		plan_key(o->seed, p->t.orig[id], p->keys[id]);
	p->capacity = plan_capacity(o, p->t.nr_blocks);
	plan_sizes(p);
	if (p->capacity < UINT32_MAX / 4 && (!o->compare || p->capacity >= o->clients))
		return KVT_OK;
	kvt_warn("a pool of %llu blocks is too %s", (unsigned long long)p->capacity,
		 p->capacity < o->clients ? "small to be parted among the clients" : "large");
	plan_free(p);
	return KVT_REFUSED;
}

void plan_free(struct replay_plan *p)
{
	free(p->keys);
	free(p->last_req);
	trace_free(&p->t);
	p->keys = NULL;
	p->last_req = NULL;
}
