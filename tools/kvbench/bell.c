/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bell.c - the futex doorbell.
 */
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/kvbench/bell.h"

struct bell {
	_Alignas(128) uint32_t req;
	_Alignas(128) uint32_t rsp;
	_Alignas(128) uint32_t sleeps;	/* futex: 1, the server sleeps */
	_Alignas(128) uint64_t spin_ticks;
};

double bell_rtt[BELL_SAMPLES], bell_send[BELL_SAMPLES];

static struct bell *bell;
static pid_t server;
static uint32_t sent;

static void __attribute__((noreturn)) serve(struct bell *b)
{
	uint64_t last = ticks();
	uint32_t seen = 0, req;

	for (;;) {
		/* acquire: pairs with the client's release */
		req = ld_acq(&b->req);
		if (req != seen) {
			seen = req;
			st_rel(&b->rsp, req);
			last = ticks();
			continue;
		}
		if (ticks() - last < ld_rlx(&b->spin_ticks)) {
			cpu_relax();
			continue;
		}
		st_rlx(&b->sleeps, 1);
		smp_mb();	/* flag before the look; pairs with ring_bell() */
		if (ld_acq(&b->req) == seen)
			syscall(SYS_futex, &b->sleeps, FUTEX_WAIT, 1, NULL, NULL, 0);
		st_rlx(&b->sleeps, 0);
		last = ticks();
	}
}

static void ring_bell(void)
{
	smp_mb();	/* request before the flag; pairs with serve() */
	if (!ld_rlx(&bell->sleeps))
		return;
	if (__atomic_exchange_n(&bell->sleeps, 0, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &bell->sleeps, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void request(uint64_t *ret_sent_at)
{
	uint32_t w = 0;

	st_rel(&bell->req, ++sent);
	ring_bell();
	*ret_sent_at = ticks();
	while (ld_acq(&bell->rsp) != sent)
		spin(&w);
}

void bell_start(void)
{
	if (server)
		return;
	bell = (struct bell *)mmap(NULL, sizeof(*bell), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (bell == MAP_FAILED)
		kvb_die("mmap: %s", strerror(errno));
	server = kvb_spawn();
	if (!server) {
		cpu_server();
		serve(bell);
	}
}

void bell_end(void)
{
	if (!server)
		return;
	kvb_reap(server, SIGKILL);
	server = 0;
	munmap(bell, sizeof(*bell));
}

void bell_measure(uint64_t spin_ns, uint64_t think_ns, uint64_t for_ns, struct bell_result *ret_r)
{
	uint64_t t0, t1, cpu, end, gap = (uint64_t)((double)think_ns / tick_ns);
	uint32_t n = 0;

	st_rlx(&bell->spin_ticks, spin_ns == BELL_NEVER_SLEEP ? UINT64_MAX :
	       (uint64_t)((double)spin_ns / tick_ns));
	for (int i = 0; i < 8; i++)
		request(&t1);
	cpu = cpu_of_process(server);
	for (end = time_ns() + for_ns; time_ns() < end && n < BELL_SAMPLES; n++) {
		think(gap);
		t0 = ticks();
		request(&t1);
		bell_send[n] = (double)(t1 - t0 - min(t1 - t0, tick_cost));
		bell_rtt[n] = (double)(ticks() - t0 - tick_cost);
	}
	cpu = cpu_of_process(server) - cpu;
	st_rlx(&bell->spin_ticks, 0);
	request(&t1);		/* it sleeps from now on */
	ret_r->rtt_ns = kvb_median(bell_rtt, n) * tick_ns;
	ret_r->send_ns = kvb_median(bell_send, n) * tick_ns;
	ret_r->cpu_ns = (double)cpu / n;
}
