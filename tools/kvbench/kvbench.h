/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvbench.h - what kvbench's files share: the run, the clock, the rows.
 *
 * Method. One session of R rounds; every measurement is taken once in each
 * round, its floor and ours in turn, NR_SLICES short slices each. Of a slice the
 * median of its samples counts (a sample is one operation, or 64 round trips), of
 * the slices the median slice: stalls are left out on both sides. A machine that
 * drifts drifts under both. Ratios are formed per round; what is printed is the
 * median of the rounds, with the smallest and the largest. Before a round both
 * processors run a fixed calculation in slices: when the slowest slice took more
 * than 1.5 times the median one, somebody else is using the machine and the round
 * is put off (altogether as often as there are rounds; then it is run all the
 * same, and counted as noisy).
 *
 * The client (this process) stays on one processor, whatever serves it (kvmd,
 * floor servers, peers) on another. A server that spins is stopped or parked
 * while another one is measured, so that one thing runs per processor.
 */
#ifndef KVBENCH_H
#define KVBENCH_H

#include <stdio.h>
#include <sys/types.h>

#include "kvclient.h"
#include "kvmd/lib/base.h"

#define KVB_USAGE	2
#define NR_SLICES	15
#define NR_WAKE_SLICES	5
#define BENCH_TOKENS	16u		/* tokens of a block */

/* --------------------------------------------------------------- timing.c */

extern double tick_ns;			/* length of one tick */
extern uint64_t tick_cost;		/* of a pair of ticks() calls, in ticks */
extern bool one_cpu;			/* a spinning wait has to yield */

static inline uint64_t now_ns(void);

/* Ticks of the fastest clock; waits for loads before it. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	unsigned int aux;

	return __builtin_ia32_rdtscp(&aux);
#else
	return now_ns();
#endif
}

uint64_t time_ns(void);			/* CLOCK_MONOTONIC */
static inline uint64_t now_ns(void)
{
	return time_ns();
}

void timing_init(void);			/* calibrates, ~20 ms */
void cpus_init(const char *arg);	/* "C,S" or NULL; prints what it chose */
void cpu_client(void);			/* pin the caller */
void cpu_server(void);
void cpu_any(void);			/* as before cpus_init() */
const char *cpus_text(void);
/* Is somebody else using the machine? Ratio of the slowest slice to the median. */
double calib_worst(bool quick);
uint64_t cpu_of_process(pid_t pid);	/* CPU time so far, ns */

static inline double ticks_to_ns(uint64_t t)
{
	return (double)t * tick_ns;
}

/*
 * Samples of one slice: what counts is their median, so that the few in which
 * the processor was taken away do not.
 */
struct samples {
	unsigned nr;
	double v[8192];			/* what comes behind is left out */
};

static inline void sample_add(struct samples *s, double v)
{
	if (s->nr < ARRAY_SIZE(s->v))
		s->v[s->nr++] = v;
}

double sample_median(struct samples *s);	/* and starts anew; 0: there is none */

/* One look of a spinning wait. */
void spin_slow(uint32_t n);
static inline void spin(uint32_t *n)
{
	if (unlikely(++*n % (1u << 20) == 0 || one_cpu))
		spin_slow(*n);
}

/* Busy waiting of @t ticks: the client's think time. */
static inline void think(uint64_t t)
{
	uint64_t start = ticks();

	while (ticks() - start < t)
		cpu_relax();
}

/* --------------------------------------------------------------- session.c */

struct bench {
	unsigned parts;			/* enum part */
	unsigned rounds;
	bool quick, json, verbose;
	uint64_t slice_ns;		/* of one slice of a spinning measurement */
	uint64_t wake_ns;		/* of one measurement of waking */
	uint64_t idle_ns;
	uint64_t big_blocks;
	const char *kvmd;		/* path */
	char dir[64];			/* everything that is created lies here, */
	const char *tier_at;		/* but for part tier: in a directory made there */
	char tier_dir[4096];		/* "": not made */
	/* What was measured, for readers of the results; of gpu, or why there is none. */
	char gpu[800], kernels[200], infer[300];
};
extern struct bench bench;
extern volatile bool interrupted;	/* SIGINT or SIGTERM came */

void session_init(void);		/* first of all: signals, the directory */
/* Prints, ends what was started, exits with 1. */
void kvb_die(const char *fmt, ...) __printf(1, 2) __attribute__((noreturn));
void kvb_note(const char *fmt, ...) __printf(1, 2);	/* to stderr */
/* A forked child that dies with its parent: 0 in the child. */
pid_t kvb_spawn(void);
/* A program beside this one, else its name alone: execvp() looks in PATH. To be freed. */
char *kvb_beside(const char *name);
/* printf() behind what @text[n] has. */
void kvb_append(char *text, size_t n, const char *fmt, ...) __printf(3, 4);
void kvb_reap(pid_t pid, int sig);		/* send @sig, wait for its end */

/* ------------------------------------------------------------------ rows.c */

#include "tools/kvbench/rows.h"

double kvb_median(double *v, unsigned n);	/* sorts */

/* One after the other, NR_SLICES times each: medians of what they return. */
typedef double slice_fn(void *ctx);
struct turn {
	slice_fn *fn;
	void *ctx;
	double ret;			/* median */
};
void take_turns(struct turn *t, unsigned nr);

/* ---------------------------------------------------------------- daemon.c */

struct kvmd_proc {
	pid_t pid;			/* 0: not running */
	uint64_t plane_bytes;		/* of its space */
	bool client_sleeps;		/* clients opened from now on sleep in waits */
	bool stopped;
	char name[16];
	char socket[96];
	char conf[96];
	double start_ns;		/* from exec to an answered open of a space */
};

struct kvmd_opts {
	const char *name;
	uint64_t blocks;
	const char *spin;		/* longest gap that is spun over; NULL: the default */
	uint64_t plane_bytes;		/* 0: 4096 */
	const char *conf;		/* sections other than [daemon]; NULL: a null device */
	bool anywhere;			/* not on the server's processor only */
};

/* Start a daemon, on a null device if nothing else is said; exits when that fails. */
void kvmd_start(struct kvmd_proc *p, const struct kvmd_opts *o);
/*
 * The same in two steps: name, socket and configuration, so that clients can be
 * forked before there is a daemon; then -errno with @msg when it cannot be used.
 */
void kvmd_prepare(struct kvmd_proc *p, const struct kvmd_opts *o);
int kvmd_try_start(struct kvmd_proc *p, const struct kvmd_opts *o, char *msg, size_t n);
void kvmd_end(struct kvmd_proc *p);
void kvmd_end_all(void);
void kvmd_pause(struct kvmd_proc *p);	/* SIGSTOP: a spinning daemon, not now */
void kvmd_go(struct kvmd_proc *p);
void kvmd_show_log(const struct kvmd_proc *p);	/* to stderr: before giving up */
uint64_t kvmd_cpu_ticks(const struct kvmd_proc *p);	/* utime + stime of /proc/PID/stat */
uint64_t kvmd_wakeups(const struct kvmd_proc *p);	/* context switches of all threads */
uint64_t kvmd_rss(const struct kvmd_proc *p);		/* bytes */
/* A number of the daemon's status document, wherever in it: 0, or -ENOENT. */
int kvmd_status(const struct kvmd_proc *p, const char *key, double *ret_v);
/* Several of one answer. */
int kvmd_statuses(const struct kvmd_proc *p, const char *const *keys, double *ret_v, unsigned nr);

/*
 * A client of @p with its space opened; it never sleeps while it waits.
 * @max_blocks 0: the space is there already.
 */
struct kvc *client_open(struct kvmd_proc *p, uint64_t max_blocks, uint32_t max_seqs);
/* The same, but NULL with @msg. */
struct kvc *client_try(struct kvmd_proc *p, uint64_t max_blocks, uint32_t max_seqs, char *msg,
		       size_t n);
/* Submit what was prepared, wait for the one completion; exits on errors. */
int client_wait(struct kvc *k, struct kvmd_cqe *ret_cqe);
void client_warm(struct kvc *k);	/* some round trips, so that all is awake */

/* ------------------------------------------------- what is measured, by part */

void kvb_ring_setup(void);
void kvb_ring_round(void);
void kvb_ring_end(void);
void kvb_ops_setup(void);
void kvb_ops_round(void);
void kvb_ops_end(void);
void kvb_wake_setup(void);
void kvb_wake_round(void);
void kvb_wake_end(void);
void kvb_idle_setup(void);
void kvb_idle_end(void);
void kvb_syscalls_round(struct kvmd_proc *p);
void kvb_hash_round(void);
void kvb_peers_setup(void);
void kvb_peers_round(void);
void kvb_peers_end(void);
void kvb_big_setup(void);
void kvb_big_round(void);
void kvb_big_end(void);
void kvb_tier_setup(void);
void kvb_tier_round(void);
void kvb_tier_end(void);
void kvb_gpu_setup(void);
void kvb_gpu_round(void);
void kvb_gpu_end(void);
void kvb_codec_setup(void);
void kvb_codec_round(void);
void kvb_codec_end(void);
void kvb_kernels_setup(void);
void kvb_kernels_round(void);
void kvb_kernels_end(void);
void kvb_infer_setup(void);
void kvb_infer_round(void);
void kvb_infer_end(void);

/* The daemon that always spins, shared by the parts that want one. */
extern struct kvmd_proc busy;
extern struct kvc *busy_client;
void busy_start(void);
double nop_rtt(void *ctx);		/* slice: mean round trip to busy, ns */
extern double echo_rtt_ns;		/* this round's; 0: not measured yet */
double echo_measure(void);		/* measure it alone */

/* The key number @i, 32 random-looking bytes. */
void bench_key(uint64_t i, uint8_t *ret_key);

#endif
