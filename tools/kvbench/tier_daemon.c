// SPDX-License-Identifier: Apache-2.0
/*
 * tier_daemon.c - the tiers behind a whole daemon: a client, rings, reclaim.
 *
 * Two daemons per block size, with little HBM and RAM: one that only writes, its
 * disk written from end to end before, and one that only reads what it wrote in the
 * beginning, so that neither has to move what the other one needs. What they moved
 * is told by their own counters, over the time of the slice. For NOP round trips
 * another one, whose core thread spins alone on the server's processor while its
 * workers, and all clients, share the other one.
 */
#include <dirent.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "tools/kvbench/tier_traffic.h"

#define NOP_GAP_NS	200000
#define MAX_NOPS	65536u
#define HBM_BYTES	(64ull << 20)	/* all sequences together hold half of it */
#define RAM_BYTES	(HBM_BYTES * 3)
#define DIRTY_BYTES	(HBM_BYTES / 4 + RAM_BYTES / 2)	/* set_pace() */
#define WRITERS		4u		/* sequences that write while NOPs are timed */
#define LOOK_NS		2000000ull	/* between two looks at the daemon's counters */

/* A daemon and its client. */
struct load {
	struct kvmd_proc p;
	struct traffic t;
	uint64_t looked_ns;		/* at its counters */
	double stored;			/* blocks, then */
	uint64_t nr_short;		/* chains read that were not whole, when last chosen */
	double base;			/* under_way() when the disk had everything */
};

static struct load writer[NR_SIZES], reader[NR_SIZES], nop;
static struct kvc *nop_client;
static double rtt[MAX_NOPS];

/* ------------------------------------------------------------------- set-up */

static void daemon_start(struct kvmd_proc *p, const char *name, uint64_t block, const char *spin)
{
	const unsigned long long hbm = HBM_BYTES, ram = RAM_BYTES;
	const unsigned long long disk = tier_amounts.file_bytes;
	struct kvmd_opts o = {
		.name = name, .plane_bytes = block, .spin = spin, .anywhere = true,
		.blocks = hbm / block,
	};
	char conf[6000];

	snprintf(conf, sizeof(conf),
		 "[pool]\nblocks = %llu\nalloc_timeout = 30s\nslab_bytes = 64M\n"
		 "[device host]\nkind = host\nbytes = %llu\n"
		 "[ram]\nbytes = %llu\n"
		 "[disk]\npath = %s\nbytes = %llu\nadmission = 1\nscrub_rate = 0\n",
		 (hbm + ram + disk) * 2 / block, hbm + (64ull << 20), ram,
		 tier_path(name), disk);
	o.conf = conf;
	kvmd_start(p, &o);
	p->client_sleeps = true;
}

static double counter(struct kvmd_proc *p, const char *name)
{
	double v;

	if (kvmd_status(p, name, &v)) {
		kvmd_show_log(p);
		kvb_die("%s: no %s in the daemon's status, or no daemon", p->name, name);
	}
	return v;
}

/* Blocks published, and neither stored nor dropped since; *ret_stored: those on disk. */
static double under_way(struct load *l, double *ret_stored)
{
	static const char *const keys[] = {
		"blocks_published", "blocks_stored", "blocks_dropped_ram", "blocks_evicted",
		"blocks_sunk_ram",
	};
	double v[ARRAY_SIZE(keys)];

	if (kvmd_statuses(&l->p, keys, v, ARRAY_SIZE(keys))) {
		kvmd_show_log(&l->p);
		kvb_die("%s: no counters in the daemon's status, or no daemon", l->p.name);
	}
	*ret_stored = v[1];
	return v[0] - v[1] - v[2] - (v[3] - v[4]);
}

/*
 * How many chains may be written until the next look. Blocks published faster
 * than the disk takes them would be dropped, which costs copies and shows nothing:
 * blocks that the disk does not have yet get more room than HBM has, so that they
 * have to leave, and less than RAM has. One in any case when the disk has stood
 * still since the last look, for blocks leave only when others come.
 */
static void set_pace(struct load *l)
{
	const uint64_t now = time_ns();
	double room, stored;

	if (now - l->looked_ns < LOOK_NS)
		return;
	l->looked_ns = now;
	room = (double)DIRTY_BYTES / TRAFFIC_CHAIN - traffic_writing(&l->t) -
	       (under_way(l, &stored) - l->base) / l->t.chain_blocks;
	if (room >= 1)
		l->t.may_write = (unsigned)room;
	else
		l->t.may_write = stored <= l->stored && !traffic_writing(&l->t);
	l->stored = stored;
}

/* From here on: the disk has what is there, but for what may stay in HBM. */
static void pace_start(struct load *l)
{
	double before;

	traffic_drain(&l->t);
	under_way(l, &l->stored);
	do {
		before = l->stored;
		usleep(10000);
		l->base = under_way(l, &l->stored);
	} while (l->stored > before && !interrupted);
}

/* Writers and readers for @for_ns; bytes a second of counter @name. */
static double drive(struct load *l, unsigned writers, unsigned readers, const char *name,
		    uint64_t for_ns)
{
	double before = counter(&l->p, name), after;
	uint64_t start;

	for (start = time_ns(); time_ns() - start < for_ns;) {
		if (writers)
			set_pace(l);
		if (!traffic_pump(&l->t, writers, readers))
			traffic_wait(&l->t);
	}
	after = counter(&l->p, name);
	return (after - before) * 1e9 / (double)(time_ns() - start);
}

/* Write until the disk got @bytes. */
static void write_some(struct load *l, uint64_t bytes)
{
	const uint64_t until = time_ns() + 60000000000ull;
	const double want = counter(&l->p, "bytes_stored") + (double)bytes;

	pace_start(l);
	while (counter(&l->p, "bytes_stored") < want) {
		drive(l, TRAFFIC_SEQS, 0, "bytes_stored", 50000000);
		if (time_ns() > until) {
			kvmd_show_log(&l->p);
			kvb_die("%s: the daemon writes nothing to its disk", l->p.name);
		}
	}
	traffic_drain(&l->t);
}

/* Chains that are on disk and, read round and round, in nothing above it. */
static void choose_chains(struct load *l)
{
	const uint64_t above = (HBM_BYTES + RAM_BYTES) / TRAFFIC_CHAIN;
	const uint64_t nr = tier_amounts.file_bytes / 2 / TRAFFIC_CHAIN;

	write_some(l, (nr + above / 2) * TRAFFIC_CHAIN);
	l->t.read_end = l->t.nr_chains - above;
	l->t.read_first = l->t.read_end - nr;
}

/* A daemon whose disk was written once from end to end. */
static void load_start(struct load *l, const char *name, uint64_t block, const char *spin)
{
	daemon_start(&l->p, name, block, spin);
	traffic_init(&l->t, &l->p, block, HBM_BYTES / block);
	write_some(l, tier_amounts.file_bytes * 5 / 4);
}

void tier_daemon_setup(void)
{
	static const char *const name[NR_SIZES][2] = {
		{ "w256k", "r256k" }, { "w512k", "r512k" }, { "w2m", "r2m" },
	};

	for (unsigned i = 0; i < NR_SIZES; i++) {
		load_start(&writer[i], name[i][0], tier_size[i], NULL);
		daemon_start(&reader[i].p, name[i][1], tier_size[i], NULL);
		traffic_init(&reader[i].t, &reader[i].p, tier_size[i], HBM_BYTES / tier_size[i]);
		choose_chains(&reader[i]);
	}
}

/* --------------------------------------------------------------- throughput */

double tier_daemon_rate(unsigned size, bool write)
{
	const char *name = write ? "bytes_stored" : "bytes_fetched";
	unsigned writers = write ? TRAFFIC_SEQS : 0, readers = TRAFFIC_SEQS - writers;
	struct load *l = write ? &writer[size] : &reader[size];
	double v;

	if (write)
		pace_start(l);
	if (!write && l->t.nr_short > l->nr_short) {
		/* Something was dropped: what is read has to be there. */
		choose_chains(l);
		l->nr_short = l->t.nr_short;
	}
	drive(l, writers, readers, name, tier_amounts.slice_ns / 4);	/* runs in */
	v = drive(l, writers, readers, name, tier_amounts.slice_ns);
	traffic_drain(&l->t);
	return v;
}

/* -------------------------------------------------------------------- NOPs */

/* The core thread on the server's processor, all others on the client's. */
static void place_threads(pid_t pid)
{
	char path[64];
	struct dirent *e;
	cpu_set_t core, rest;
	DIR *d;

	cpu_server();
	sched_getaffinity(0, sizeof(core), &core);
	cpu_client();
	sched_getaffinity(0, sizeof(rest), &rest);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		pid_t tid = (pid_t)atoi(e->d_name);

		if (tid > 0)
			sched_setaffinity(tid, sizeof(core), tid == pid ? &core : &rest);
	}
	if (d)
		closedir(d);
}

static void nop_start(void)
{
	load_start(&nop, "dnop", tier_size[1], "1s");
	nop.p.client_sleeps = false;
	nop_client = client_open(&nop.p, 0, 4);
	place_threads(nop.p.pid);
}

static double p99(double *v, unsigned n)
{
	kvb_median(v, n);	/* sorts */
	return v[n - 1 - n / 100];
}

/*
 * NOPs at a steady gap; between them the traffic goes on. Readers are not slowed
 * down by writers that take what they read: those chains are the older half.
 */
static double nops(bool traffic)
{
	const struct timespec nap = { .tv_nsec = NOP_GAP_NS };
	const uint64_t start = time_ns();
	unsigned n = 0;

	while (time_ns() - start < tier_amounts.slice_ns * 2 && n < MAX_NOPS) {
		uint64_t t0;

		if (traffic) {
			set_pace(&nop);
			traffic_pump(&nop.t, WRITERS, TRAFFIC_SEQS - WRITERS);
		}
		nanosleep(&nap, NULL);
		t0 = ticks();
		kvc_prep_nop(kvc_get_sqe(nop_client));
		client_wait(nop_client, NULL);
		rtt[n++] = (double)(ticks() - t0 - tick_cost) * tick_ns;
	}
	return p99(rtt, n);
}

void tier_nop_round(void)
{
	double quiet, loaded, moved;
	uint64_t start;

	if (!nop.p.pid)
		nop_start();
	cpu_client();
	kvmd_go(&nop.p);
	choose_chains(&nop);
	quiet = nops(false);
	pace_start(&nop);
	drive(&nop, WRITERS, TRAFFIC_SEQS - WRITERS, "bytes_stored",
	      tier_amounts.slice_ns / 4);
	moved = counter(&nop.p, "bytes_stored") + counter(&nop.p, "bytes_fetched");
	start = time_ns();
	loaded = nops(true);
	moved = counter(&nop.p, "bytes_stored") + counter(&nop.p, "bytes_fetched") - moved;
	row_add(ROW_NOP_TIER, quiet, loaded);
	row_add(ROW_NOP_TRAFFIC, 0, moved / (double)(time_ns() - start));
	traffic_drain(&nop.t);
	kvmd_pause(&nop.p);
}
