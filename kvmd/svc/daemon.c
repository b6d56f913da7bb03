/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.c - ordered start and stop, signals, reload; waiters' events.
 */
#include "kvmd/svc/daemon.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/reclaim/policy.h"
#include "kvmd/svc/keep.h"

/* ------------------------------------------------------ what reclaim asks */

static void serve(struct waiter *w, int err)
{
	op_resume(container_of(w, struct op, w), err);
}

static bool holds_blocks(const struct session *s)
{
	return s->st.nr_live != 0 || s->pins.head != 0;
}

/* Is memory on its way to @sp: a slab that empties for it, or whose place will be free again? */
static bool slab_under_way(const struct pool *p, const struct space *sp)
{
	for (uint32_t i = 0; i < p->slab_end; i++) {
		const struct slab *s = &p->slab[i];

		if (s->state < SLAB_DRAINING)
			continue;
		if (s->taker ? s->taker->sp == sp : s->gp->sp == sp && s->state > SLAB_DRAINING)
			return true;
	}
	return false;
}

/*
 * All who hold blocks of @sp wait for more, or for slots to load into, and have
 * been quiet, and nothing is under way that frees any: no step, no copy, no death,
 * no ticket, no move between tiers.
 */
static bool deadlocked(struct reclaim *rc, struct space *sp, uint64_t now_ns)
{
	struct daemon *d = container_of(rc, struct daemon, rc);
	uint64_t quiet = d->conf.pool.deadlock_ns;

	if (sp->hold || (d->keep && d->keep->held[sp->id].nr))
		return false;		/* memory of a former daemon's clients comes back */
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct session *s = &d->session[i];

		if (s->state == SESSION_FREE || s->sp != sp || !holds_blocks(s))
			continue;
		if (s->state != SESSION_LIVE || (!s->nr_waiting && !s->st.loading) ||
		    s->nr_copying || s->held || session_wants_step(s) || s->cq_defer.head ||
		    !list_empty(&s->more) || now_ns - s->last_entry_ns < quiet)
			return false;
	}
	for (uint32_t i = 0; d->nr_tickets && i < MAX_TICKETS; i++)
		if (d->ticket[i].id && d->ticket[i].sp == sp)
			return false;
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		if (sp->gp[g].nr_coming || sp->gp[g].out.nr)
			return false;
	if (d->tiers && tiers_is_busy(d->tiers))
		return false;
	return !slab_under_way(d->pool, sp);
}

static const struct reclaim_events reclaim_events = {
	.serve = serve,
	.deadlocked = deadlocked,
};

/* ------------------------------------------------------------------ signals */

int daemon_reload(struct daemon *d, char *msg, size_t msg_bytes)
{
	struct config c;
	int err = config_init(&c);

	if (!err && d->conf_path)
		err = config_load(&c, d->conf_path, msg, msg_bytes);
	if (!err)
		err = config_finish(&c, msg, msg_bytes);
	if (!err) {
		reload_shares(d, &c);
		err = reload_apply(d, &c, msg, msg_bytes);
	}
	config_exit(&c);
	return err;
}

static void on_signal(struct uring_req *r, int res)
{
	struct daemon *d = container_of(r, struct daemon, sig_req);
	struct signalfd_siginfo si;
	char msg[512];

	if (res < 0)
		return;
	while (read(d->sig_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo != SIGHUP) {
			d->stop = true;
			continue;
		}
		if (daemon_reload(d, msg, sizeof(msg)))
			log_err("reload: %s; the configuration in force stays", msg);
		else
			log_info("configuration reloaded");
	}
	(void)uring_poll_fd(d->u, &d->sig_req, d->sig_fd, POLLIN);
}

static int signals_init(struct daemon *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	signal(SIGPIPE, SIG_IGN);
	d->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->sig_fd < 0)
		return -errno;
	d->sig_req.done = on_signal;
	return uring_poll_fd(d->u, &d->sig_req, d->sig_fd, POLLIN);
}

/* -------------------------------------------------------------------- set-up */

static void device_troubled(struct dev *dev)
{
	log_warn("device %s: %s", dev->name, dev->text);
}

/* A device that is not there is said and done without, as long as there is another. */
static int open_devices(struct daemon *d)
{
	uint32_t nr_up = 0;
	int err = 0;

	for (uint32_t i = 0; i < d->conf.nr_devs; i++) {
		struct config_device *c = &d->conf.dev[i];
		struct dev *dev = &d->dev[i];
		struct dev_opts o = {
			.uuid = c->uuid, .bytes = c->share ? 0 : c->bytes, .share = c->share,
			.legacy = c->legacy, .copy_threads = c->copy_threads,
			.copy_timeout_ns = c->copy_timeout_ns,
			.kept_bytes = keep_is_warm(d) ? keep_device_bytes : NULL, .ctx = d->keep,
		};
		char msg[256] = "";
		int e;

		dev_init(dev, dev_ops_find(c->kind), c->name, c->bytes, d->workers);
		dev->hugetlb = c->hugetlb;
		dev->troubled = device_troubled;
		if (c->grace_ns != UINT64_MAX)
			dev->grace_ns = c->grace_ns;
		e = dev_open(dev, &o, msg, sizeof(msg));
		if (e) {
			log_err("device %s is not used: %s", c->name, msg);
			err = err ? err : e;
			continue;
		}
		nr_up++;
		if (dev->model[0])
			log_info("device %s: %s, UUID %s, %llu MiB", c->name, dev->model, dev->uuid,
				 (unsigned long long)dev->budget_bytes >> 20);
		if (c->share)
			c->bytes = dev->budget_bytes;
	}
	config_size(&d->conf);
	return nr_up ? 0 : err;
}

static int make_tenants(struct daemon *d)
{
	char msg[256];

	for (uint32_t i = 0; i < d->conf.nr_tenants; i++) {
		struct tenant *t;
		int err = tenant_add(d->pool, d->conf.tenant[i].name, &t);

		if (!err)
			err = config_apply_tenant(&d->conf.tenant[i], t, msg, sizeof(msg));
		if (err)
			return err;
	}
	return 0;
}

static int make_pool(struct daemon *d)
{
	const struct config_pool *c = &d->conf.pool;
	struct pool_opts o = {
		.nr_blocks = (uint32_t)c->blocks, .nr_nodes = (uint32_t)c->nodes,
		.slab_bytes = c->slab_bytes, .wmark_min = c->wmark_min, .wmark_low = c->wmark_low,
		.wmark_high = c->wmark_high, .hugetlb = c->hugetlb,
		.dev = d->dev, .nr_devs = d->conf.nr_devs,
	};
	int err;

	if (keep_is_warm(d))
		keep_blocks(d, &o);
	err = pool_create(&o, d->workers, &d->pool);
	if (err)
		return err;
	d->pool->events = &announce_events;
	d->pool->events_ctx = d;
	err = index_create(d->pool, (uint32_t)min(c->ghosts, (uint64_t)UINT32_MAX), &d->ix);
	if (err)
		return err;
	d->ix->kept = d->keep != NULL;
	reclaim_init(&d->rc, d->pool, d->ix, &reclaim_events);
	return make_tenants(d);
}

/*
 * Touch the block array and the index from a worker, so that start-up does not
 * wait for gigabytes of page faults and the request path seldom meets one.
 */
static void populate_fn(struct work *w)
{
	struct daemon *d = container_of(w, struct daemon, populate);

	pool_populate(d->pool);
	mem_populate(d->ix->tab, index_bytes(d->ix), 1);
}

static void populate_done(struct work *w)
{
	(void)w;
}

/* Descriptors keep memory alive; legacy handles name that of a process. */
static int memory_lives(const struct daemon *d, char *msg, size_t n)
{
	for (uint32_t i = 0; i < d->conf.nr_devs; i++) {
		if (d->dev[i].handle_kind != KVMD_HANDLE_CUDA_LEGACY)
			continue;
		snprintf(msg, n, "device %s: memory shared by legacy handles (ipc = legacy) died with it",
			 d->dev[i].name);
		return -ESTALE;
	}
	return 0;
}

/*
 * Tiers, and with a warm start what was in the pool. When that cannot be used all
 * of it is let go of, and the next start, which the supervisor sees to, is cold.
 */
static int start_from_kept(struct daemon *d)
{
	char msg[256] = "";
	int err = keep_is_warm(d) ? memory_lives(d, msg, sizeof(msg)) : 0;

	if (!err && keep_is_warm(d))
		err = restore_memory(d, msg, sizeof(msg));

	if (!err) {
		err = tiering_start(d, keep_ram(d), d->conf.ram.bytes ? keep_ram_kept(d) : NULL);
		if (err)
			return err;
		err = keep_is_warm(d) ? restore_blocks(d, msg, sizeof(msg)) : 0;
	}
	if (!err) {
		keep_begin(d);
		return 0;
	}
	keep_freeze(d);
	keep_cold(d, msg);
	log_err("cannot go on with the former daemon's pool: %s: started again it begins with an "
		"empty one", msg);
	return err;
}

int daemon_init(struct daemon *d)
{
	const char *what = "boot id";
	int err = 0;

	d->listen_fd = d->sig_fd = -1;
	conn_init(d);
	d->start_ns = d->now_ns = clock_ns();
	log_set_level(d->conf.daemon.log_level);
	if (getrandom(d->boot_id, sizeof(d->boot_id), 0) != sizeof(d->boot_id))
		err = -errno;
	if (!policy_find(d->conf.pool.policy)) {
		log_err("pool.policy %s: there is %s", d->conf.pool.policy, policy_names());
		return -EINVAL;
	}
	if (!err && d->conf.pool.fault)
		err = fault_arm(d->conf.pool.fault, NULL, 0);
	what = err ? what : "counters";
	err = err ? err : stats_init();
	what = err ? what : "workers";
	err = err ? err : workers_create(d->conf.daemon.workers, &d->workers);
	what = err ? what : "io_uring (kernel.io_uring_disabled, or a container's seccomp filter)";
	err = err ? err : uring_create(1024, &d->u);
	err = err ? err : uring_files_init(d->u, DISK_MAX_FILES + 1);
	what = err ? what : "what a former daemon left (its process, or the supervisor's descriptors)";
	err = err ? err : keep_start(d);
	if (!err)
		keep_lock_ring(d, DISK_MAX_FILES);
	what = err ? what : "no device can be used (see above)";
	err = err ? err : open_devices(d);
	what = err ? what : "memory for the block array, its index and ghosts (pool.blocks)";
	err = err ? err : make_pool(d);
	d->keys = err ? NULL : mem_zalloc((size_t)FETCH_KEYS * KVMD_KEY_BYTES);
	d->ids = err ? NULL : mem_calloc(WORK_BLOCKS, sizeof(*d->ids));
	if (!err && (!d->keys || !d->ids))
		err = -ENOMEM;
	what = err ? what : "signals";
	err = err ? err : signals_init(d);
	what = err ? what : "the workers' bell (io_uring)";
	err = err ? err : worker_bell_start(&d->work_bell, d->u, d->workers);
	if (err) {
		log_err("cannot start: %s: %s", what, strerror(-err));
		return err;
	}
	err = start_from_kept(d);
	if (err)
		return err;
	if (d->conf.pool.populate) {
		d->populate.fn = populate_fn;
		d->populate.done = populate_done;
		workers_submit(d->slow ? d->slow : d->workers, &d->populate);
	}
	err = conn_listen(d);
	err = err ? err : admin_start(d);
	if (err)
		log_err("cannot start: sockets: %s", strerror(-err));
	return err;
}

/* With a supervisor sessions do not end: they wait for the next daemon. */
static void leave_clients(struct daemon *d)
{
	bool kept = d->keep != NULL;

	keep_freeze(d);
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct conn *c = &d->conn[i];

		if (c->state == CONN_FREE || c->sock < 0)
			continue;
		if (!kept) {
			conn_close(c);
			continue;
		}
		close(c->sock);
		c->sock = -1;
	}
}

void daemon_exit(struct daemon *d)
{
	conn_unlisten(d);
	if (d->admin)
		admin_stop(d);
	leave_clients(d);
	tiering_stop(d);
	/* Copies and slab work that are under way end before their memory goes. */
	if (d->workers)
		while (workers_nr_pending(d->workers))
			if (!workers_reap(d->workers))
				usleep(200);
	for (uint32_t i = 0; d->pool && i < POOL_MAX_CONNS; i++) {
		struct session *s = &d->session[i];

		if (s->state != SESSION_FREE)
			session_free(s);
		if (d->conn[i].pidfd > 0)
			close(d->conn[i].pidfd);
	}
	tiering_exit(d);
	uring_destroy(d->u);
	if (d->sig_fd >= 0)
		close(d->sig_fd);
	index_destroy(d->ix);
	pool_destroy(d->pool);
	for (uint32_t i = 0; i < d->conf.nr_devs; i++)
		dev_close(&d->dev[i]);
	workers_destroy(d->workers);
	mem_free(d->keys);
	mem_free(d->ids);
	keep_exit(d);
	stats_exit();
}
