/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - the core thread's loop: poll the rings, do the rest, sleep.
 *
 * While requests come the rings are polled and nothing else costs a system
 * call. When the gap to the next request is expected to be longer than
 * daemon.spin, the loop raises NEED_WAKEUP in every ring, looks once more, and
 * sleeps in its one io_uring wait, which also carries sockets, processes,
 * signals and finished work.
 *
 *   daemon                             client
 *   flags = NEED_WAKEUP                sq_tail = n
 *   fence                              fence
 *   reads sq_tail                      reads flags
 * One of the two sees the other's store, so no entry is slept over.
 */
#include "kvmd/svc/keep.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"
#include "kvmd/pool/policy.h"
#include "kvmd/svc/psi.h"

#define EVENT_TURNS	64		/* turns between looks at io_uring while busy */
#define STEP_POLL_NS	200000ull	/* a GPU writes lanes without ringing a bell */
#define SLOW_NS		5000000ull	/* between slow turns while requests come all the time */
#define STEP_POLL_MAX_NS 20000000ull
#define WAKE_MAX_US	50ull		/* a wake-up takes less */
#define PROBE_RARELY	64u		/* short sleeps between two probes, at most */
#define GAP_MAX_US	1000000ull
#define CLOCK_EVERY_US	2		/* resolution of d->now_ns while busy */

struct loop {
	uint64_t last_work;		/* ticks */
	uint64_t ticks_per_us;
	uint64_t spin_ticks;		/* daemon.spin in ticks */
	uint64_t gap_ewma;		/* ticks between requests, smoothed */
	uint64_t gap_max;		/* a longer gap counts as this, ticks */
	uint64_t now_ticks;		/* when d->now_ns was taken */
	uint64_t step_poll_ns;		/* how long the next sleep may be while steps are wanted */
	uint64_t next_ns;		/* earliest deadline of the slow work; 0: none */
	uint64_t slow_ns;		/* when it was last done */
	uint32_t turn;
	uint32_t nr_dying;		/* sessions dying when the slow work was last done */
	bool slept;			/* since the last work */
	bool probing;			/* spin over this wait to learn how long it is */
	uint32_t nr_short;		/* short sleeps since the last probe */
	uint32_t probe_every;		/* of those */
};

static void look_at_clock(struct daemon *d, struct loop *l, uint64_t ticks)
{
	if (ticks - l->now_ticks < CLOCK_EVERY_US * l->ticks_per_us)
		return;
	l->now_ticks = ticks;
	d->now_ns = clock_ns();
	d->pool->now = (uint32_t)(clock_policy_ns() / (1000000000 / POLICY_TICKS_PER_S));
}

void daemon_set_pressure(struct daemon *d)
{
	uint32_t worst = KVMD_PRESSURE_NONE;

	for (uint32_t i = 0; i < d->nr_live; i++) {
		struct session *s = d->live[i];
		uint32_t level = reclaim_pressure(s->sp);

		worst = max(worst, level);
		if (level == s->news_pressure)
			continue;
		s->news_pressure = level;
		st_rlx(&s->ring.sh->pressure, level);
		st_rel(&s->ring.sh->news_seq, s->ring.sh->news_seq + 1);
	}
	psi_look(d, worst, d->now_ns);
}

/* -------------------------------------------------------------- slow work */

/* Deadlines, deaths, tickets, slabs: not every turn. */
static void slow_turn(struct daemon *d, struct loop *l)
{
	l->next_ns = 0;
	l->slow_ns = d->now_ns;
	l->nr_dying = d->nr_dying;
	conn_close_doomed(d);
	l->spin_ticks = d->conf.daemon.spin_ns * l->ticks_per_us / 1000;
	l->next_ns = clock_earlier(l->next_ns, announce_turn(d));
	l->next_ns = clock_earlier(l->next_ns, death_turn(d));
	l->next_ns = clock_earlier(l->next_ns, ticket_turn(d));
	l->next_ns = clock_earlier(l->next_ns, resume_turn(d));
	daemon_set_pressure(d);
	l->next_ns = clock_earlier(l->next_ns, admin_turn(d));
}

/* Sockets, processes, signals, workers. True: something happened. */
static bool events_turn(struct daemon *d)
{
	unsigned nr = workers_reap(d->workers);

	if (d->slow)
		nr += workers_reap(d->slow);
	return nr + uring_poll(d->u) > 0;
}

/* Work or I/O under way: look at every turn. */
static bool events_pending(const struct daemon *d)
{
	return workers_nr_pending(d->workers) || (d->tiers && tiers_is_busy(d->tiers));
}

static bool sessions_turn(struct daemon *d)
{
	bool did = false;

	for (uint32_t i = 0; i < d->nr_live; i++)
		did |= session_turn(d->live[i]);
	return did;
}

/* ---------------------------------------------------------------- sleeping */

/* Steps that advance, or slots that loads wait for, come without an event. */
static bool wants_steps(const struct daemon *d)
{
	for (uint32_t i = 0; i < d->nr_live; i++)
		if (session_wants_step(d->live[i]) || d->live[i]->st.loading)
			return true;
	return false;
}

static void bell_arm(struct daemon *d, struct session *s)
{
	if (!s->bell_req.armed)
		(void)uring_read(d->u, &s->bell_req, s->bell_fd, &s->bell_val,
				 sizeof(s->bell_val));
}

static void set_flags(struct daemon *d, bool sleeping)
{
	for (uint32_t i = 0; i < d->nr_live; i++) {
		struct session *s = d->live[i];
		uint32_t flags = sleeping ? KVMD_RING_NEED_WAKEUP : 0;

		if (sleeping) {
			bell_arm(d, s);
			if (session_wants_step(s) || s->cq_defer.head)
				flags |= KVMD_RING_WANT_STEP;
		}
		st_rlx(&s->ring.sh->daemon_flags, flags);
	}
}

/* Did anything come between the last turn and the flags? */
static bool anything(struct daemon *d)
{
	for (uint32_t i = 0; i < d->nr_live; i++) {
		struct session *s = d->live[i];

		if (s->held)
			continue;
		if (ring_peek_tail(&s->ring) &&
		    ring_cq_room(&s->ring, s->nr_ops - s->nr_op_free, 1))
			return true;
		if (!list_empty(&s->more) ||
		    (s->st.loading && s->loads_seen != d->tiers->nr_done))
			return true;
	}
	return d->rc.kick || (d->tiers && d->tiers->freed);
}

static uint64_t sleep_time(struct daemon *d, struct loop *l)
{
	uint64_t next = l->next_ns, timeout = UINT64_MAX;

	next = clock_earlier(next, d->rc.retry_ns);
	if (d->tiers)
		next = clock_earlier(next, tiers_next_ns(d->tiers));
	if (next)
		timeout = next > d->now_ns ? next - d->now_ns : 1;
	if (wants_steps(d)) {
		timeout = min(timeout, l->step_poll_ns);
		l->step_poll_ns = min(l->step_poll_ns * 2, STEP_POLL_MAX_NS);
	}
	return timeout;
}

static void go_to_sleep(struct daemon *d, struct loop *l)
{
	slow_turn(d, l);
	set_flags(d, true);
	smp_mb();	/* flags before the last look; pairs with kvc_submit()'s fence */
	if (!anything(d)) {
		uring_wait(d->u, sleep_time(d, l));
		stat_inc(WAKEUPS);
		l->slept = true;
	}
	set_flags(d, false);
	look_at_clock(d, l, clock_ticks());
}

/* ------------------------------------------------------------------ the loop */

/*
 * A gap that was slept over looks longer than it was: it has the wake-up in it.
 * Taken at face value it would keep the daemon asleep for ever at gaps that are
 * worth spinning over. So a short sleep is not counted, and is followed by a
 * probe: one wait is spun over, which shows the true gap. Probes that find
 * nothing become rare.
 */
static void note_gap(struct loop *l, uint64_t ticks)
{
	uint64_t gap = ticks - l->last_work;
	bool slept = l->slept;

	l->slept = false;
	/* Back to back is no gap: only waits count. */
	if (gap * 4 <= l->ticks_per_us)
		return;
	if (slept && gap < l->spin_ticks * 2 + WAKE_MAX_US * l->ticks_per_us) {
		l->probing = ++l->nr_short >= l->probe_every;
		return;
	}
	if (l->probing && !slept && gap <= l->spin_ticks) {
		l->gap_ewma = gap;
		l->probe_every = 1;
	}
	l->probing = false;
	l->nr_short = 0;
	l->gap_ewma = (l->gap_ewma * 7 + min(gap, l->gap_max)) / 8;
}

static bool worth_spinning(struct loop *l, const struct daemon *d, uint64_t ticks)
{
	if (!d->nr_live || (l->gap_ewma > l->spin_ticks && !l->probing))
		return false;
	if (ticks - l->last_work < l->spin_ticks * 2)
		return true;
	if (l->probing) {
		l->probing = false;
		l->nr_short = 0;
		l->probe_every = min(l->probe_every * 2, PROBE_RARELY);
	}
	return false;
}

int daemon_run(struct daemon *d)
{
	struct loop l = { .ticks_per_us = clock_ticks_per_us(), .step_poll_ns = STEP_POLL_NS };

	l.last_work = clock_ticks();
	l.probe_every = 1;
	l.gap_max = l.gap_ewma = GAP_MAX_US * l.ticks_per_us;	/* nothing is known: do not spin */
	while (!d->stop) {
		uint64_t ticks = clock_ticks();
		bool did;

		look_at_clock(d, &l, ticks);
		did = sessions_turn(d);
		if (did) {
			note_gap(&l, ticks);
			l.step_poll_ns = STEP_POLL_NS;
		}
		if (d->tiers && tiering_wants_turn(d))
			did |= tiering_turn(d);
		if (d->rc.kick || d->rc.retry_ns)
			did |= reclaim_turn(&d->rc, d->now_ns);
		if (++l.turn % EVENT_TURNS == 0 || events_pending(d)) {
			if (events_turn(d)) {
				slow_turn(d, &l);
				did = true;
			} else if (d->nr_dying != l.nr_dying || d->nr_doomed ||
				   (l.next_ns && d->now_ns >= l.next_ns) ||
				   d->now_ns - l.slow_ns >= SLOW_NS) {
				slow_turn(d, &l);
			}
		}
		if (did) {
			l.last_work = ticks;
			continue;
		}
		if (worth_spinning(&l, d, ticks))
			continue;
		if (events_turn(d) || d->rc.kick) {
			slow_turn(d, &l);
			continue;
		}
		if (d->tiers && tiering_turn(d))
			continue;
		go_to_sleep(d, &l);
	}
	return 0;
}
