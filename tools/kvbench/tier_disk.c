// SPDX-License-Identifier: Apache-2.0
/*
 * tier_disk.c - the disk tier through its own interface, fixed buffers.
 *
 * One tier per block size, each in a file that was written once from end to end
 * before anything is measured, as fio's was. Writes go on appending and take the
 * oldest segments back; reads go through what was written, in that order.
 */
#include "tools/kvbench/tier.h"

#define MAX_REQS	64u
#define QUEUED_BYTES	(16ull << 20)	/* handed to the tier at a time */
#define MAX_LAT	16384u

struct req {
	struct tier_req r;
	struct run *run;
	uint64_t start;
	bool busy, write;
};

/* One measurement. */
struct run {
	struct rig *rig;
	uint64_t block;
	bool verify;
	unsigned nr_reqs;		/* of req[] in use */
	unsigned nr_busy, nr_writes;	/* under way; of those writes */
	uint64_t read_bytes, write_bytes;
	unsigned nr_lat;
	struct req req[MAX_REQS];
};

static struct rig rig[NR_SIZES];
static uint32_t next_write[NR_SIZES];	/* records, round and round */
static uint32_t next_read[NR_SIZES];
static uint64_t sum_of_block[NR_SIZES];	/* all blocks have the same bytes */
static double lat[MAX_LAT];		/* of reads, ns */

static void req_done(struct tier_req *r)
{
	struct req *q = container_of(r, struct req, r);
	struct run *x = q->run;

	q->busy = false;
	x->nr_busy--;
	x->nr_writes -= q->write;
	if (r->err) {
		if (q->write && r->place)
			x->rig->disk->ops->free(x->rig->disk, r->place);
		if (r->err != -EAGAIN && r->err != -ENODATA)
			kvb_die("disk tier: a %s failed: %s", q->write ? "write" : "read",
				strerror(-r->err));
		return;
	}
	if (q->write) {
		x->write_bytes += r->bytes;
		x->rig->place[r->block] = r->place;
		return;
	}
	x->read_bytes += r->bytes;
	if (x->nr_lat < MAX_LAT)
		lat[x->nr_lat++] = (double)(time_ns() - q->start);
}

/* The next block of its kind; nothing when there is no place, or no block. */
static void put(struct run *x, unsigned i, unsigned size, bool write)
{
	struct tier *t = x->rig->disk;
	struct req *q = &x->req[i];
	uint32_t *next = write ? &next_write[size] : &next_read[size], place;

	*next = *next % x->rig->nr_blocks + 1;
	if (write) {
		/* What the record had is older than any that is kept. */
		if (x->rig->place[*next])
			t->ops->free(t, x->rig->place[*next]);
		x->rig->place[*next] = 0;
		place = t->ops->alloc(t, x->rig->gp, *next, x->block);
	} else {
		for (uint32_t n = 0; n < x->rig->nr_blocks && !x->rig->place[*next]; n++)
			*next = *next % x->rig->nr_blocks + 1;
		place = x->rig->place[*next];
	}
	if (!place)
		return;
	*q = (struct req) { .run = x, .busy = true, .write = write, .start = time_ns() };
	q->r = (struct tier_req) {
		.block = *next, .place = place, .gp = x->rig->gp, .bytes = x->block,
		.mem = x->rig->mem + i * x->block, .buf = 0, .sum = sum_of_block[size],
		.urgent = !write, .verify = x->verify, .done = req_done,
	};
	x->nr_busy++;
	x->nr_writes += write;
	if (write)
		tier_write(t, &q->r);
	else
		tier_read(t, &q->r);
}

/*
 * @readers requests that read, the rest of what fits writes (or none: @writes
 * false). @for_ns 0: until @bytes were written.
 */
static uint64_t run(struct run *x, unsigned size, unsigned readers, bool writes, uint64_t for_ns,
		    uint64_t bytes)
{
	uint64_t start = time_ns(), now = start;
	bool more = true;

	x->rig = &rig[size];
	x->block = tier_size[size];
	x->nr_reqs = (unsigned)min(QUEUED_BYTES / x->block, (uint64_t)MAX_REQS);
	while (more || x->nr_busy) {
		rig_turn(x->rig);
		now = time_ns();
		if (interrupted)
			kvb_die("interrupted");
		more = for_ns ? now - start < for_ns : x->write_bytes < bytes;
		for (unsigned i = 0; more && i < x->nr_reqs; i++)
			if (!x->req[i].busy && (i < readers || writes))
				put(x, i, size, i >= readers);
		rig_wait(x->rig);	/* submits too: one system call a turn */
	}
	return now - start;
}

static double measure(unsigned size, bool write, bool verify, uint64_t for_ns, double *ret_cpu)
{
	struct run x = { .verify = verify };
	uint64_t cpu = cpu_ns(), ns;
	double bytes;

	ns = run(&x, size, write ? 0 : MAX_REQS, write, for_ns, 0);
	bytes = (double)(x.read_bytes + x.write_bytes);
	if (ret_cpu && bytes > 0)
		*ret_cpu = (double)(cpu_ns() - cpu) / (bytes / (double)x.block);
	return bytes * 1e9 / (double)ns;
}

void tier_disk_setup(void)
{
	static const char *const name[NR_SIZES] = { "256k.img", "512k.img", "2m.img" };

	for (unsigned i = 0; i < NR_SIZES; i++) {
		struct rig_opts o = {
			.block = tier_size[i],
			/* as many as are kept while one segment is being emptied */
			.nr_blocks = (uint32_t)(tier_amounts.file_bytes / tier_size[i]) * 3 / 4,
			.disk = tier_path(name[i]), .disk_bytes = tier_amounts.file_bytes,
			.mem_bytes = QUEUED_BYTES,
		};
		struct run x = { 0 };

		rig_init(&rig[i], &o);
		sum_of_block[i] = sum_of(rig[i].mem, tier_size[i]);
		run(&x, i, 0, true, 0, tier_amounts.file_bytes * 5 / 4);
	}
}

/* One after the other and one at a time, then with writes all the time. */
static void mixed(void)
{
	struct run quiet = { .verify = true }, mix = { .verify = true };
	double alone, idle, ns;

	alone = measure(1, true, false, tier_amounts.slice_ns, NULL);
	run(&quiet, 1, 1, false, tier_amounts.slice_ns, 0);
	idle = quiet.nr_lat ? kvb_median(lat, quiet.nr_lat) : 0;
	ns = (double)run(&mix, 1, 1, true, tier_amounts.slice_ns, 0);
	if (!quiet.nr_lat || !mix.nr_lat)
		kvb_die("no block of the disk tier could be read");
	row_add(ROW_TIER_MIX, idle, kvb_median(lat, mix.nr_lat));
	row_add(ROW_TIER_MIX_WRITE, alone / 1e9, (double)mix.write_bytes / ns);
}

static void cpu_rows(void)
{
	const char *path = tier_path("fio.file");
	const uint64_t ns = tier_amounts.slice_ns;
	struct bare_io b;
	double ours = 0;

	bare_io(path, true, false, tier_size[1], 8, ns, &b);
	measure(1, true, false, ns, &ours);
	row_add(ROW_CPU_WRITE, b.cpu_ns, ours);
	bare_io(path, false, false, tier_size[1], 8, ns, &b);
	measure(1, false, false, ns, &ours);
	row_add(ROW_CPU_READ, b.cpu_ns, ours);
	bare_io(path, false, true, tier_size[1], 8, ns, &b);
	measure(1, false, true, ns, &ours);
	row_add(ROW_CPU_VERIFY, b.cpu_ns, ours);
}

double tier_disk_rate(unsigned size, bool write)
{
	return measure(size, write, !write, tier_amounts.slice_ns, NULL);
}

void tier_disk_round(void)
{
	mixed();
	cpu_rows();
}

void tier_disk_end(void)
{
	for (unsigned i = 0; i < NR_SIZES; i++)
		rig_exit(&rig[i]);
}
