/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor.c - the client's side of the floor server.
 */
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <signal.h>
#include <unistd.h>

#include "tools/kvbench/floor.h"

struct floor_shm *floor_shm;
static pid_t server;
static struct samples samples;
static uint32_t tail, head;		/* free-running: entries sent, completions taken */

void floor_start(void)
{
	if (server)
		return;
	floor_shm = (struct floor_shm *)mmap(NULL, sizeof(*floor_shm), PROT_READ | PROT_WRITE,
					     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (floor_shm == MAP_FAILED)
		kvb_die("mmap: %s", strerror(errno));
	server = kvb_spawn();
	if (!server) {
		cpu_server();
		floor_serve(floor_shm);
	}
}

void floor_end(void)
{
	if (!server)
		return;
	kvb_reap(server, SIGKILL);
	server = 0;
	munmap(floor_shm, sizeof(*floor_shm));
}

static void set_mode(enum floor_mode m)
{
	uint32_t word = ((floor_shm->mode >> 8) + 1) << 8 | m, n = 0;

	st_rel(&floor_shm->mode, word);
	syscall(SYS_futex, &floor_shm->mode, FUTEX_WAKE, 1, NULL, NULL, 0);
	/* acquire: the server has left the rings of the mode before */
	while (ld_acq(&floor_shm->ack) != word)
		spin(&n);
}

void floor_mode(enum floor_mode m, uint32_t batch)
{
	set_mode(FLOOR_PARK);
	if (m == FLOOR_PARK)
		return;
	floor_shm->sq_head = floor_shm->sq_tail = 0;
	floor_shm->cq_head = floor_shm->cq_tail = 0;
	floor_shm->batch = batch;
	memset(floor_shm->sq, 0, sizeof(floor_shm->sq));
	memset(floor_shm->cq, 0, sizeof(floor_shm->cq));
	tail = head = 0;
	set_mode(m);
}

static inline void put(uint32_t at, uint64_t v, unsigned words)
{
	uint64_t *e = floor_shm->sq[at & (FLOOR_SQ - 1)];

	for (unsigned w = 0; w < words; w++)
		e[w] = v;
}

/* One more sample: the messages answered since the last look. The time now. */
static uint64_t look(uint64_t last, uint32_t *from, uint32_t to)
{
	uint64_t now = time_ns();

	if (to != *from)
		sample_add(&samples, (double)(now - last) / (to - *from));
	*from = to;
	return now;
}

double floor_echo(uint32_t batch, uint32_t depth)
{
	struct floor_shm *s = floor_shm;
	uint64_t sum = 0, start = time_ns(), end = start + bench.slice_ns, now = start;
	uint32_t seen, from = head;
	volatile uint64_t sink;

	for (uint32_t i = 1; now < end; i++) {
		uint32_t n = min(depth - (tail - head), batch), w = 0;

		for (uint32_t k = 0; k < n; k++)
			put(tail + k, tail + k, 8);
		if (n) {
			tail += n;
			st_rel(&s->sq_tail, tail);
		}
		/* take what is there; wait only when the window is full */
		while ((seen = ld_acq(&s->cq_tail)) == head && tail - head >= depth)
			spin(&w);
		for (; head != seen; head++) {
			const uint64_t *c = s->cq[head & (FLOOR_CQ - 1)];

			sum += c[0] + c[1] + c[2] + c[3];
		}
		st_rel(&s->cq_head, head);
		if (floor_look(i))
			now = look(now, &from, head);
	}
	for (uint32_t w = 0; ld_acq(&s->cq_tail) != tail;)
		spin(&w);
	sink = sum;
	(void)sink;
	head = tail;
	st_rel(&s->cq_head, head);
	return sample_median(&samples);
}

double floor_phase(uint32_t batch, uint32_t depth)
{
	struct floor_shm *s = floor_shm;
	uint64_t sum = 0, start = time_ns(), end = start + bench.slice_ns, now = start;
	uint32_t from = head;
	volatile uint64_t sink;

	for (uint32_t i = 1; now < end || head != tail; i++) {
		uint32_t n = now < end ? min(depth - (tail - head), batch) : 0, w = 0;

		for (uint32_t k = 0; k < n; k++, tail++) {
			put(tail, tail, 7);
			st_rel(&s->sq[tail & (FLOOR_SQ - 1)][7], (uint64_t)tail + 1);
		}
		for (;;) {
			const uint64_t *c = s->cq[head & (FLOOR_CQ - 1)];

			if (ld_acq(&c[3]) == (uint64_t)head + 1) {
				sum += c[0] + c[1] + c[2];
				head++;
			} else if (tail - head < depth) {
				break;
			} else {
				spin(&w);
			}
		}
		if (floor_look(i))
			now = look(now, &from, head);
	}
	sink = sum;
	(void)sink;
	return sample_median(&samples);
}

uint64_t floor_call(const struct floor_req *r, uint64_t *ret_work, uint64_t *ret_rtt)
{
	struct floor_shm *s = floor_shm;
	const uint64_t *c;
	uint64_t t0, ret;
	uint32_t w = 0;

	smp_mb();	/* the keys are written */
	t0 = ticks();
	memcpy(s->sq[tail & (FLOOR_SQ - 1)], r, sizeof(*r));
	st_rel(&s->sq_tail, ++tail);
	while (ld_acq(&s->cq_tail) != tail)
		spin(&w);
	c = s->cq[head & (FLOOR_CQ - 1)];
	ret = c[1];
	if (ret_rtt)
		*ret_rtt = ticks() - t0 - tick_cost;
	if (ret_work)
		*ret_work = c[2];
	st_rel(&s->cq_head, ++head);
	return ret;
}
