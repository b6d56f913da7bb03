/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_rig.c - see pool_rig.h.
 */
#include "pool_rig.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/reclaim/policy.h"
#include "tests/quiet.h"

void prig_init(struct prig *r, const char *kind, uint32_t nr_blocks, uint64_t slab_bytes,
	       uint64_t dev_bytes, const struct reclaim_events *ev)
{
	const struct pool_opts o = {
		.nr_blocks = nr_blocks, .nr_nodes = 64, .slab_bytes = slab_bytes,
	};
	static const char *const names[] = { "default", "other", "third" };
	char uuid[16];

	*r = (struct prig) { 0 };
	ck_assert_int_eq(workers_create(1, &r->w), 0);
	ck_assert_int_eq(pool_create(&o, r->w, &r->p), 0);
	ck_assert_int_eq(index_create(r->p, 1000, &r->ix), 0);
	reclaim_init(&r->rc, r->p, r->ix, ev);
	for (int i = 0; i < 2; i++) {
		snprintf(uuid, sizeof(uuid), "dev-%d", i);
		dev_init(&r->p->dev[i], dev_ops_find(kind), uuid, dev_bytes, r->w);
		r->p->nr_devs++;
	}
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(tenant_add(r->p, names[i], &r->t[i]), 0);
	r->p->now = 16000;
}

void prig_exit(struct prig *r)
{
	prig_work(r);
	index_destroy(r->ix);
	pool_destroy(r->p);
	workers_destroy(r->w);
}

void prig_geometry(struct kvmd_space *m, uint64_t plane_bytes, uint32_t max_slots)
{
	*m = (struct kvmd_space) { .nr_groups = 1, .nr_shards = 1 };
	m->group[0] = (struct kvmd_group) {
		.plane_bytes = plane_bytes, .planes = 1, .block_tokens = 16,
		.max_slots = max_slots,
	};
}

struct space *prig_space(struct prig *r, const char *name, struct tenant *t,
			 const struct kvmd_space *m, const char *policy)
{
	struct kvmd_space copy = *m;
	struct space *sp = NULL;
	char msg[256] = "";
	int err;

	strcpy(copy.name, name);
	err = space_check_geometry(&copy, msg, sizeof(msg));
	ck_assert_msg(!err, "%s", msg);
	err = space_create(r->p, &copy, t, policy_find(policy), &sp, msg, sizeof(msg));
	ck_assert_msg(!err, "%s", msg);
	return sp;
}

void prig_work(struct prig *r)
{
	struct pollfd p = { .fd = workers_notify_fd(r->w), .events = POLLIN };
	uint64_t n;

	while (workers_nr_pending(r->w))
		if (!workers_reap(r->w) && poll(&p, 1, -1) == 1)
			ck_assert(read(p.fd, &n, sizeof(n)) == sizeof(n));
}

void prig_grow(struct prig *r, struct gpool *gp, unsigned nr_slabs)
{
	while (nr_slabs--)
		ck_assert_int_eq(slab_grow(r->p, gp), 0);
	prig_work(r);
}

struct gpool *prig_gpool(struct prig *r, const char *name, unsigned t, uint64_t plane_bytes,
			 uint32_t max_slots, unsigned nr_slabs)
{
	struct kvmd_space m;
	struct space *sp;

	prig_geometry(&m, plane_bytes, max_slots);
	sp = prig_space(r, name, r->t[t], &m, "lru");
	prig_grow(r, &sp->gp[0], nr_slabs);
	return &sp->gp[0];
}

uint32_t prig_alloc(struct prig *r, struct gpool *gp)
{
	uint32_t id;

	quiet_assert_int_eq(pool_alloc(r->p, gp, 1, 7, 0, &id), 0);
	return id;
}

void prig_key(uint32_t n, uint8_t *ret_key)
{
	uint32_t w[8];

	for (uint32_t i = 0; i < 8; i++)
		w[i] = n * 0x9e3779b1u + i;
	memcpy(ret_key, w, sizeof(w));
}

struct block *prig_seal(struct prig *r, uint32_t id, uint32_t n, uint32_t parent)
{
	struct block *b = pool_block(r->p, id);

	prig_key(n, b->key);
	block_set_state(b, BLK_SEALING);
	return index_seal(r->ix, pool_gpool(r->p, b), b,
			  index_hash(r->ix, b->sid, b->group, b->key), parent,
			  parent ? pool_block(r->p, parent)->pos + 1 : 0, 0, 0);
}

void prig_chain(struct prig *r, struct gpool *gp, uint32_t first, uint32_t nr, uint32_t *ret_ids)
{
	for (uint32_t i = 0; i < nr; i++) {
		ret_ids[i] = prig_alloc(r, gp);
		quiet_assert_ptr_null(prig_seal(r, ret_ids[i], first + i, i ? ret_ids[i - 1] : 0));
	}
	for (uint32_t i = nr; i-- > 0;)
		prig_put(r, ret_ids[i]);
}

void prig_put(struct prig *r, uint32_t id)
{
	index_put(r->ix, pool_block(r->p, id));
}

void prig_get(struct prig *r, uint32_t id)
{
	struct block *b = pool_block(r->p, id);

	index_get(r->ix, pool_gpool(r->p, b), b);
}

struct block *prig_find(struct prig *r, const struct space *sp, uint8_t group, uint32_t n)
{
	uint8_t key[KVMD_KEY_BYTES];

	prig_key(n, key);
	return index_find(r->ix, sp->sid, group, key, index_hash(r->ix, sp->sid, group, key));
}

bool prig_turn(struct prig *r, uint64_t now_ns)
{
	bool more;

	r->rc.kick = true;
	more = reclaim_turn(&r->rc, now_ns);
	prig_work(r);
	return more;
}

void prig_check(struct prig *r)
{
	char msg[256] = "";

	ck_assert_msg(!pool_check(r->p, msg, sizeof(msg)), "%s", msg);
	ck_assert_msg(!index_check(r->ix, msg, sizeof(msg)), "%s", msg);
}
