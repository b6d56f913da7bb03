// SPDX-License-Identifier: Apache-2.0
/*
 * replay_cmd.c - `kvtrace replay`: its passes, one daemon each.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay_daemon.h"

#define HOUR_NS		3600000000000ULL
#define WINDOW		8	/* requests a client, see replay_page.c */

static const char *const pass_names[NR_REPLAY_PASS] = {
	[PASS_SHARED] = "", [PASS_PRIVATE] = "-private", [PASS_BESIDE] = "-beside",
};

static void pass_init(struct replay_run *r, const struct replay_plan *p,
		      struct replay_daemon *d, enum replay_pass pass)
{
	const struct replay_opts *o = p->o;
	const struct trace_req *reqs = p->t.reqs;

	memset(r, 0, sizeof(*r));
	r->plan = p;
	r->d = d;
	r->lives.sums = true;
	r->socket = d->socket;
	r->pass = pass;
	r->is_private = pass == PASS_PRIVATE;
	r->slots = r->is_private ? p->capacity / o->clients : p->capacity;
	/* What the lowest watermark keeps back is not for us. */
	r->fit = max(r->slots - (uint64_t)((double)r->slots * o->wmark_min), (uint64_t)1);
	r->window = o->serial ? 1 : o->time == TIME_FAST ? (uint64_t)WINDOW * o->clients : UINT64_MAX;
	/* The same daemon's clock goes on behind the first pass. */
	if (r->is_private && o->socket)
		r->clock_base = reqs[p->t.nr_reqs - 1].ts_ns - reqs[0].ts_ns + HOUR_NS;
	snprintf(r->space, sizeof(r->space), "kvtrace-%ld%s", (long)getpid(), pass_names[pass]);
}

/* One pass on a daemon of its own, or on the one that runs. */
static int do_pass(const struct replay_plan *p, enum replay_pass pass, struct replay_result *res)
{
	struct replay_stats after;
	struct replay_daemon d;
	struct replay_run r;
	int err, stopped;

	err = daemon_start(&d, p, pass != PASS_BESIDE);
	if (err)
		return err;
	pass_init(&r, p, &d, pass);
	if (run_page_make(&r, p->o->clients)) {
		kvt_warn("no memory for the clients' counters");
		(void)daemon_stop(&d);
		return KVT_REFUSED;
	}
	err = daemon_stats(&d, UINT64_MAX, &r.lives.base);
	if (!err)
		err = run_pass(&r);
	if (!err)
		err = daemon_stats(&d, r.lives.base.val[KVMD_STAT_TOKENS_PENDING], &after);
	if (!err)
		result_make(res, &r, &after);
	run_page_free(&r);
	stopped = daemon_stop(&d);
	return err ? err : stopped;
}

static int do_passes(const struct replay_plan *p, struct replay_result *res)
{
	int err = do_pass(p, PASS_SHARED, &res[PASS_SHARED]);

	if (!err && p->o->compare)
		err = do_pass(p, PASS_PRIVATE, &res[PASS_PRIVATE]);
	if (!err && p->o->beside == BESIDE_YES)
		err = do_pass(p, PASS_BESIDE, &res[PASS_BESIDE]);
	if (!err && report_print(p, res)) {
		kvt_warn("no memory for the report");
		err = KVT_REFUSED;
	}
	return err;
}

/* Tokens of a block are known by now. */
static int check_codec(const struct replay_plan *p)
{
	const struct replay_opts *o = p->o;
	const char *wrong;
	struct kvmd_group g;

	if (!o->codec)
		return KVT_OK;
	plan_group(o, p->t.block_tokens, &g);
	wrong = kvmd_codec_wrong(&g);
	if (wrong) {
		kvt_warn("--codec: blocks of %" PRIu64 " bytes in %u planes on %u shards are no "
			 "rows of %u tokens of bf16: %s", o->block_bytes, o->planes, o->shards,
			 p->t.block_tokens, wrong);
		return KVT_REFUSED;
	}
	if (kvmd_codec_bytes(&g, o->shards))
		return KVT_OK;
	kvt_warn("--codec: it makes no block of %" PRIu64 " bytes smaller, in whole pages: give "
		 "--block-bytes 32K or more", o->block_bytes);
	return KVT_REFUSED;
}

static int replay(const struct replay_opts *o)
{
	struct replay_result *res = calloc(NR_REPLAY_PASS, sizeof(*res));
	struct replay_plan p;
	enum replay_pass i;
	int err;

	if (!res) {
		kvt_warn("no memory");
		return KVT_REFUSED;
	}
	err = plan_make(&p, o);
	if (err)
		goto out_free;
	err = check_codec(&p);
	if (!err)
		err = do_passes(&p, res);
	for (i = 0; !err && i < NR_REPLAY_PASS; i++)
		err = result_ok(&res[i]) ? KVT_OK : KVT_REFUSED;
	plan_free(&p);
out_free:
	free(res);
	return err ? err : kvt_flush();
}

int cmd_replay(int argc, char **argv)
{
	struct replay_opts o;
	bool go;
	int err = replay_options(argc, argv, &o, &go);

	return go ? replay(&o) : err;
}
