// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_visible.c - from one client's publish to another one's hit, on the host device and
 * on the GPU.
 *
 * Two processes, each with its session of a real daemon. The one fills a block and
 * publishes it; the other asks for its key again and again and opens it as soon as
 * it is there. The clock runs from the call that publishes to the end of the call
 * that opened; then the bytes are looked at.
 */
#include "tools/kvbench/gpu.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK		(2ull << 20)
#define LIMIT_MS	30000

/* Shared by the two clients and this process. */
struct stage {
	uint64_t go;			/* slices asked for */
	uint64_t t0;			/* ns, of the publish under way */
	uint64_t sent, seen;		/* keys published, opened */
	double us;			/* result */
	char why[160];
};

struct pair {
	struct kvmd_proc daemon;
	struct stage *st;
	pid_t pid[2];
	int from[2];			/* a byte per slice, and the end */
	bool works;
	char why[240];
};

static struct pair pairs[2];

/* ------------------------------------------------------------ the clients */

/* Until *@p is at least @v: partner of the other process's release. */
static void until(struct stage *st, const uint64_t *p, uint64_t v, const char *what)
{
	uint64_t t0 = time_ns();

	while (ld_acq(p) < v) {
		sched_yield();
		if (time_ns() - t0 > LIMIT_MS * 1000000ull)
			break;
	}
	if (ld_acq(p) >= v)
		return;
	snprintf(st->why, sizeof(st->why), "a client waited too long for %s", what);
	_exit(1);
}

static void __attribute__((noreturn)) give_up(struct stage *st, const char *what, int err)
{
	snprintf(st->why, sizeof(st->why), "%s: %s (%s)", what, kvc_strerror(err), kvc_refusal());
	_exit(1);
}

static void publish_one(struct kvc *k, struct stage *st, uint64_t i)
{
	const struct kvc_view *v = kvc_view(k);
	uint8_t key[KVMD_KEY_BYTES];
	uint32_t gen = (uint32_t)i;
	int err;

	bench_key(i, key);
	err = kvc_seq_open(k, 0, gen, NULL, 0, BENCH_TOKENS, 0, 0, NULL);
	if (err >= 0)
		err = kvc_seq_extend(k, 0, gen, 0, 1, 0, 0, NULL);
	if (err >= 0)
		err = kvc_mem_put(k, kvc_addr(v, 0, 0, 0, (uint32_t)kvc_row(v, 0, 0)[0]), &i,
				  sizeof(i));
	if (err < 0)
		give_up(st, "filling a block", err);
	st_rlx(&st->t0, time_ns());
	st_rel(&st->sent, i);		/* t0 is there: acquire in look_for() */
	err = kvc_seq_publish(k, 0, gen, 0, 0, key, 1, 0, NULL);
	if (err < 0)
		give_up(st, "publish", err);
	until(st, &st->seen, i, "the other to see its block");
	err = kvc_seq_close(k, 0, gen, 0, 0);
	if (err < 0)
		give_up(st, "close", err);
}

static double look_for(struct kvc *k, struct stage *st, uint64_t i)
{
	const struct kvc_view *v = kvc_view(k);
	uint8_t key[KVMD_KEY_BYTES];
	uint64_t word = 0, t1;
	int err;

	bench_key(i, key);
	until(st, &st->sent, i, "the other's block");
	do
		err = kvc_lookup(k, 0, key, 1, NULL);
	while (!err);
	if (err > 0)
		err = kvc_seq_open(k, 0, (uint32_t)i, key, 1, BENCH_TOKENS, 0, 0, NULL);
	t1 = time_ns();
	if (err != 1)
		give_up(st, "open of a block that was published", err);
	err = kvc_mem_get(k, &word, kvc_addr_ro(v, 0, 0, 0, (uint32_t)kvc_row(v, 0, 0)[0]),
			  sizeof(word));
	if (err < 0 || word != i)
		give_up(st, "the bytes of another client's block", err);
	err = kvc_seq_close(k, 0, (uint32_t)i, 0, 0);
	if (err < 0)
		give_up(st, "close", err);
	st_rel(&st->seen, i);
	return (double)(t1 - ld_rlx(&st->t0)) / 1000;
}

static void __attribute__((noreturn)) run_client(struct pair *p, unsigned who, int to)
{
	const unsigned nr = gpu_amounts.publishes;
	struct stage *st = p->st;
	double us[512];
	struct kvc *k;
	uint64_t i = 0;

	cpu_any();
	/* It ends with its parent. Between slices nobody spins. */
	while (!ld_acq(&st->go))
		usleep(200);
	k = client_try(&p->daemon, 16, 4, st->why, sizeof(st->why));
	if (!k)
		_exit(1);
	for (uint64_t slice = 1;; slice++) {
		while (ld_acq(&st->go) < slice)
			usleep(200);
		for (unsigned n = 0; n < nr; n++) {
			i++;
			if (who)
				us[n] = look_for(k, st, i);
			else
				publish_one(k, st, i);
		}
		if (who)
			st->us = kvb_median(us, nr);
		if (write(to, "x", 1) != 1)
			_exit(0);
	}
}

static void start_clients(struct pair *p)
{
	int fds[2];

	for (unsigned who = 0; who < 2; who++) {
		if (pipe(fds))
			kvb_die("pipe: %s", strerror(errno));
		p->pid[who] = kvb_spawn();
		if (!p->pid[who]) {
			close(fds[0]);
			run_client(p, who, fds[1]);
		}
		close(fds[1]);
		p->from[who] = fds[0];
	}
}

/* ------------------------------------------------------------ this process */

static void set_up(struct pair *p, const char *name, const char *kind)
{
	char conf[300];
	const struct kvmd_opts o = {
		.name = name, .blocks = 16, .plane_bytes = BLOCK, .conf = conf, .anywhere = true,
	};

	snprintf(conf, sizeof(conf), "[pool]\nblocks = 1024\nslab_bytes = 8M\n[device d]\n"
		 "kind = %s\nbytes = 64M\n", kind);
	p->st = (struct stage *)mmap(NULL, sizeof(*p->st), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p->st == MAP_FAILED)
		kvb_die("no memory");
	kvmd_prepare(&p->daemon, &o);
	start_clients(p);
	p->works = !kvmd_try_start(&p->daemon, &o, p->why, sizeof(p->why));
}

void visible_setup(void)
{
	set_up(&pairs[0], "vhost", "host");
	set_up(&pairs[1], "vgpu", "cuda");
}

double visible_slice(unsigned which, const char **ret_why)
{
	struct pair *p = &pairs[which];
	char c;

	*ret_why = p->why;
	if (!p->works)
		return -1;
	st_rel(&p->st->go, p->st->go + 1);
	for (int who = 0; who < 2; who++) {
		struct pollfd f = { .fd = p->from[who], .events = POLLIN };

		if (poll(&f, 1, LIMIT_MS) == 1 && read(p->from[who], &c, 1) == 1)
			continue;
		p->works = false;
		snprintf(p->why, sizeof(p->why), "on the %s: %s", which ? "GPU" : "host device",
			 p->st->why[0] ? p->st->why : who ? "the client that looks ended" :
			 "the client that publishes ended");
		return -1;
	}
	return p->st->us;
}

void visible_end(void)
{
	for (unsigned i = 0; i < 2; i++)
		for (unsigned who = 0; who < 2 && pairs[i].st; who++)
			kvb_reap(pairs[i].pid[who], SIGKILL);
	for (unsigned i = 0; i < 2; i++)
		if (pairs[i].daemon.pid)
			kvmd_end(&pairs[i].daemon);
}
