/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers_rig.c - see tiers_rig.h.
 */
#include "tests/fault/tiers_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_BYTES	"disk.bytes=24M"
#define SEQS		16u

/* ------------------------------------------------------------------- the daemon */

void trig_init(struct trig *r)
{
	*r = (struct trig) {
		.policy = "pool.policy=lru", .space = "s", .chain = CHAIN, .block = 32768,
		.slots = 24, .ram = 2 << 20, .disk = true,
	};
	snprintf(r->dir, sizeof(r->dir), "/tmp/kvmd-fault.XXXXXX");
	ck_assert(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/kv.img", r->dir);
}

void trig_exit(struct trig *r)
{
	unlink(r->path);
	if (r->log[0])
		unlink(r->log);
	ck_assert_int_eq(rmdir(r->dir), 0);
}

void trig_opt(struct trig *r, const char *opt)
{
	unsigned i = 0;

	while (r->opt[i])
		ck_assert_uint_lt(++i, RIG_OPTS - 1);
	r->opt[i] = opt;
}

int trig_try(struct trig *r)
{
	char disk[96];
	const char *opts[16 + RIG_OPTS] = {
		"pool.blocks=2048", r->policy, "pool.wmark_low=0", "pool.wmark_high=0",
		"pool.clean_ahead=0", "ram.bytes=16M", "ram.chunk=2M", "ram.lock=no",
		"ram.hugetlb=no", FILE_BYTES, "disk.segment=1M", "disk.block_bytes_hint=32K",
		"disk.admission=1",
	};
	unsigned nr = 13;
	int err;

	snprintf(disk, sizeof(disk), "disk.path=%s", r->path);
	if (r->disk)
		opts[nr++] = disk;
	for (unsigned i = 0; r->opt[i]; i++)
		opts[nr++] = r->opt[i];
	err = core_try(&r->c, opts);
	if (!err)
		ck_assert_int_eq(ram_resize(r->c.d->tiers->ram, r->ram), 0);
	return err;
}

void trig_start(struct trig *r)
{
	struct kvmd_space m;

	ck_assert_int_eq(trig_try(r), 0);
	core_geometry(&m, r->space, r->block, r->slots + 1);
	core_client(&r->c, &r->cl, "default", &m, SEQS, SEQS * CHAIN * 32);
	core_quiet(&r->c);
}

void trig_stop(struct trig *r)
{
	core_walk(&r->c);
	core_close(&r->cl);
	core_exit(&r->c);
}

void trig_keep_log(struct trig *r)
{
	int fd;

	snprintf(r->log, sizeof(r->log), "%s/log", r->dir);
	fd = open(r->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
	close(fd);
	trig_opt(r, "daemon.log_level=warn");
}

bool trig_said(struct trig *r, const char *a, const char *b)
{
	char line[1024];
	bool found = false;
	FILE *f;

	fflush(stderr);
	f = fopen(r->log, "r");
	ck_assert_ptr_nonnull(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, a) && strstr(line, b);
	fclose(f);
	return found;
}

/* ------------------------------------------------------------------------ use */

struct kvmd_cqe trig_ask(struct trig *r, const struct kvmd_sqe *e)
{
	struct kvmd_cqe q;

	core_submit(&r->cl, e);
	core_settle(&r->c);
	for (int i = 0; i < 10000; i++) {
		if (core_take(&r->cl, &q))
			return q;
		r->c.skew_ns += 5000000;
		core_settle(&r->c);
	}
	core_ok_msg(false, "entry %u has no completion", e->opcode);
	return q;
}

static uint32_t *bytes_at(struct trig *r, uint32_t seq, uint32_t pos)
{
	int32_t slot = seq_row(&r->cl.s->st, seq, 0)[pos];

	core_ok(slot > 0);
	return core_mem(&r->cl.s->sp->gp[0], (uint32_t)slot, 0, 0);
}

static uint32_t word(uint32_t chain, uint32_t pos, uint32_t k)
{
	return chain * 2654435761u ^ pos * 40503u ^ k * 3u;
}

void trig_paint(struct trig *r, uint32_t seq, uint32_t chain, uint32_t pos)
{
	uint32_t *p = bytes_at(r, seq, pos);

	for (uint32_t k = 0; k < r->block / 4; k++)
		p[k] = word(chain, pos, k);
}

void trig_prove(struct trig *r, uint32_t seq, uint32_t chain, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t *p = bytes_at(r, seq, i);

		for (uint32_t k = 0; k < r->block / 4; k++)
			core_ok_msg(p[k] == word(chain, i, k), "chain %u position %u word %u: "
				    "wrong byte", chain, i, k);
	}
}

uint32_t trig_open(struct trig *r, uint32_t seq, uint32_t chain)
{
	uint8_t keys[KVMD_KEY_BYTES * CHAIN];
	struct kvmd_sqe e;
	struct kvmd_cqe q;

	core_keys(chain, 0, r->chain, keys);
	e = core_open(&r->cl, seq, keys, r->chain);
	e.flags |= KVMD_OPEN_LOAD | KVMD_OPEN_WAIT;
	q = trig_ask(r, &e);
	core_ok_msg(q.res >= 0 && q.res <= (int)r->chain, "open: %d", q.res);
	trig_prove(r, seq, chain, (uint32_t)q.res);
	return (uint32_t)q.res;
}

uint32_t trig_hold(struct trig *r, uint32_t seq, uint32_t chain)
{
	uint32_t have = trig_open(r, seq, chain), more = r->chain - have;
	uint8_t keys[KVMD_KEY_BYTES * CHAIN];
	struct kvmd_sqe e;
	struct kvmd_cqe q;

	if (!more)
		return have;
	e = core_extend(seq, more);
	q = trig_ask(r, &e);
	core_ok_msg(q.res == (int)more, "extend by %u: %d", more, q.res);
	for (uint32_t i = have; i < r->chain; i++)
		trig_paint(r, seq, chain, i);
	core_keys(chain, have, more, keys);
	e = core_publish(&r->cl, seq, have, keys, more);
	q = trig_ask(r, &e);
	core_ok_msg(q.res >= 0, "publish: %d", q.res);
	trig_prove(r, seq, chain, r->chain);
	return have;
}

void trig_close(struct trig *r, uint32_t seq)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_CLOSE, seq);

	core_ok(trig_ask(r, &e).res == 0);
	core_quiet(&r->c);
}

uint32_t trig_serve(struct trig *r, uint32_t first, uint32_t nr)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < nr; i++) {
		r->c.ticks++;
		found += trig_hold(r, 0, first + i);
		trig_close(r, 0);
		core_walk(&r->c);
	}
	return found;
}

uint32_t trig_count(struct trig *r, uint32_t first, uint32_t nr)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < nr; i++) {
		found += trig_open(r, 0, first + i);
		trig_close(r, 0);
		core_walk(&r->c);
	}
	return found;
}

static uint32_t nr_records(const struct pool *p)
{
	uint32_t nr = 0;

	for (uint32_t id = 1; id < p->next_fresh; id++)
		nr += pool_block(p, id)->state != BLK_FREE;
	return nr;
}

void trig_empty(struct trig *r)
{
	const struct pool *p = r->c.d->pool;
	const struct tiers *t = r->c.d->tiers;
	const struct gpool *gp = &r->cl.s->sp->gp[0];
	struct kvmd_epoch m = { .h = { .type = KVMD_MSG_EPOCH, .bytes = sizeof(m) } };
	struct disk_info di;
	struct ram_info ri;

	control_message(r->cl.conn, &m, sizeof(m));
	for (int i = 0; i < 100 && nr_records(p); i++) {
		r->c.skew_ns += 50000000;
		r->c.d->rc.kick = true;
		core_quiet(&r->c);
	}
	core_pump(&r->cl);
	core_ok_msg(!r->cl.last_err, "epoch: %s", r->cl.text);
	core_walk(&r->c);
	for (uint32_t id = 1; id < p->next_fresh; id++)
		core_ok_msg(pool_block(p, id)->state == BLK_FREE, "block %u is %s", id,
			    blk_state_name(pool_block(p, id)->state));
	core_ok(gp->nr_free == r->slots);
	ram_get_info(t->ram, &ri);
	core_ok_msg(!ri.nr_places && !t->ram->used_bytes, "RAM: %llu places, %llu bytes",
		    (unsigned long long)ri.nr_places, (unsigned long long)t->ram->used_bytes);
	core_ok(!r->cl.s->sp->tenant->ram_bytes);
	if (!t->disk)
		return;
	disk_get_info(t->disk, &di);
	core_ok_msg(!di.nr_places && !di.live_bytes, "disk: %llu places, %llu bytes",
		    (unsigned long long)di.nr_places, (unsigned long long)di.live_bytes);
	core_ok(!r->cl.s->sp->tenant->disk_bytes);
}
