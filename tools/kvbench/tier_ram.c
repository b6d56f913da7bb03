// SPDX-License-Identifier: Apache-2.0
/*
 * tier_ram.c - the RAM tier on the host device, beside bare copies.
 *
 * Blocks go down and come back all the time, over more memory than any cache
 * holds, by one worker on the server's processor while this thread, the core
 * thread's stand-in, spins on the client's. The floor copies between the very
 * same blocks by one thread on the server's processor.
 *
 * Without sums: the device is asked not to add the bytes up, so all sums are
 * those of nothing, and equal.
 */
#include "kvmd/lib/mem.h"
#include "tools/kvbench/tier.h"

#define BLOCK	(512ull << 10)
#define DEPTH	4u

static struct rig rig;
static struct tier_req req[DEPTH];
static bool is_busy[DEPTH];
static uint32_t nr;			/* places, and slots */
static uint32_t *place;			/* [nr] */
static uint8_t **slot_mem, **ram;	/* [nr] */

static void done(struct tier_req *r)
{
	if (r->err)
		kvb_die("RAM tier: %s", strerror(-r->err));
	is_busy[r - req] = false;
}

static void copy_no_sum(struct dev *d, struct dev_batch *b)
{
	b->sum = NULL;
	dev_host_ops.copy(d, b);
}

static void start(unsigned i, uint32_t slot, uint32_t at, bool write)
{
	req[i] = (struct tier_req) {
		.block = at + 1, .place = place[at], .gp = rig.gp, .slot = slot + 1,
		.bytes = BLOCK, .buf = -1, .done = done,
	};
	is_busy[i] = true;
	if (write)
		tier_write(rig.ram, &req[i]);
	else
		tier_read(rig.ram, &req[i]);
}

static bool idle(void)
{
	for (unsigned i = 0; i < DEPTH; i++)
		if (is_busy[i])
			return false;
	return true;
}

/* All places anew: what they have was summed in the other way, or never. */
static void write_all(void)
{
	uint32_t k = 0;

	while (k < nr || !idle()) {
		for (unsigned i = 0; i < DEPTH && k < nr; i++)
			if (!is_busy[i]) {
				start(i, k, k, true);
				k++;
			}
		rig_turn(&rig);
	}
}

/* Bytes a second, both directions. */
static double measure(bool sums)
{
	uint64_t start_ns, now, k = 0;

	rig.ops.copy = sums ? dev_host_ops.copy : copy_no_sum;
	write_all();
	start_ns = now = time_ns();
	while (now - start_ns < tier_amounts.slice_ns || !idle()) {
		for (unsigned i = 0; i < DEPTH && now - start_ns < tier_amounts.slice_ns; i++) {
			if (is_busy[i])
				continue;
			if (k % 2)
				start(i, copy_pick(k / 2 + nr / 3, nr),
				      copy_pick(k / 2 + nr / 2, nr), false);
			else
				start(i, copy_pick(k / 2, nr), copy_pick(k / 2, nr), true);
			k++;
		}
		if (!rig_turn(&rig))
			cpu_relax();
		now = time_ns();
	}
	return (double)(k * BLOCK) * 1e9 / (double)(now - start_ns);
}

void tier_ram_setup(void)
{
	const struct rig_opts o = {
		.block = BLOCK, .nr_blocks = (uint32_t)(tier_amounts.mem_bytes / BLOCK),
		.hbm_bytes = tier_amounts.mem_bytes, .ram_bytes = tier_amounts.mem_bytes,
		.pinned = true,
	};

	rig_init(&rig, &o);
	slot_mem = (uint8_t **)mem_calloc(o.nr_blocks, sizeof(*slot_mem));
	ram = (uint8_t **)mem_calloc(o.nr_blocks, sizeof(*ram));
	place = (uint32_t *)mem_calloc(o.nr_blocks, sizeof(*place));
	if (!slot_mem || !ram || !place)
		kvb_die("no memory");
	for (nr = 0; nr < o.nr_blocks; nr++) {
		const struct slab *s = gpool_slab(rig.gp, nr + 1);

		place[nr] = rig.ram->ops->alloc(rig.ram, rig.gp, nr + 1, BLOCK);
		if (!place[nr])
			break;
		ram[nr] = (uint8_t *)ram_mem(rig.ram, place[nr]);
		slot_mem[nr] = (uint8_t *)s->ext[0].map + (nr + 1 - s->first) * BLOCK;
	}
	if (nr < 64)
		kvb_die("the RAM tier has room for %u blocks only", nr);
}

void tier_ram_round(void)
{
	struct bare_copy c = { .a = slot_mem, .b = ram, .nr = nr, .block = BLOCK,
			       .streaming = true };
	double nt, plain, none, sums;

	cpu_client();
	nt = bare_copy(&c, tier_amounts.slice_ns);
	none = measure(false);
	sums = measure(true);
	c.streaming = false;
	plain = bare_copy(&c, tier_amounts.slice_ns);
	row_add(ROW_RAM_COPY, nt / 1e9, none / 1e9);
	row_add(ROW_RAM_MEMCPY, plain / 1e9, sums / 1e9);
	row_add(ROW_RAM_SUM, (double)BLOCK * 1e9 / none, (double)BLOCK * 1e9 / sums);
}

void tier_ram_end(void)
{
	rig_exit(&rig);
	mem_free(slot_mem);
	mem_free(ram);
	mem_free(place);
}
