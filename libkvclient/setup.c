/* SPDX-License-Identifier: Apache-2.0 */
/*
 * setup.c - from nothing to a session, and back.
 *
 * hello (ring, args, steps, bell), space (tables), then the slabs that are there
 * already. kvc_destroy() and kvc_reconnect() take apart whatever of this was
 * reached. The steps page keeps its address over a reconnect, because a GPU may
 * write to it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libkvclient/internal.h"

/* ------------------------------------------------------------- handshake */

/* Sends @msg and waits for its reply of @type; a refusal's text lies at @text_off. */
int kvci_ask(struct kvc *k, void *msg, uint32_t type, size_t text_off, uint64_t wait_ns,
	     struct kvci_rx *rx)
{
	struct kvmd_msg *h = (struct kvmd_msg *)msg;
	int err;

	h->cookie = ++k->next_cookie;
	err = kvci_send(k->sock, msg, h->bytes);
	if (!err)
		err = kvci_recv(k->sock, kvci_deadline(wait_ns), rx);
	if (err) {
		kvci_refuse("no answer in the handshake: %s", kvc_strerror(err));
		return err;
	}
	if (rx->u.h.type != type || rx->u.h.cookie != h->cookie) {
		kvci_refuse("message of type %u where a reply of type %u was due", rx->u.h.type,
			    type);
		kvci_rx_close(rx);
		return -EPROTO;
	}
	if (!rx->u.h.err)
		return 0;
	err = rx->u.h.err > 0 ? -EPROTO : rx->u.h.err;
	if (rx->bytes >= text_off + KVMD_TEXT_BYTES && rx->u.bytes[text_off])
		kvci_refuse("%.*s", (int)KVMD_TEXT_BYTES, (char *)rx->u.bytes + text_off);
	else
		kvci_refuse("the daemon refused: %s", kvc_strerror(err));
	kvci_rx_close(rx);
	return err;
}

/* The reply has the size and descriptors that this version defines. */
int kvci_shape(const struct kvci_rx *rx, size_t bytes, uint32_t nr_fds)
{
	if (rx->bytes == bytes && rx->nr_fds == nr_fds)
		return 0;
	kvci_refuse("a reply has %zu bytes and %u descriptors, not %zu and %u", rx->bytes,
		    rx->nr_fds, bytes, nr_fds);
	return -EPROTO;
}

static int map_failed(const char *what)
{
	int err = -errno;

	kvci_refuse("cannot map the %s: %s", what, strerror(-err));
	return err;
}

static int map_steps(struct kvc *k, int fd)
{
	bool pinned = kvci_cuda_unpin_steps(k);
	void *p = kvci_map_fd(fd, sizeof(*k->steps), PROT_READ | PROT_WRITE, k->steps);

	if (!p)
		return map_failed("steps");
	k->steps = (struct kvmd_steps *)p;
	return pinned ? kvci_cuda_pin_steps(k) : 0;
}

static int map_tables(struct kvc *k, int fd, const struct kvmd_space_reply *r)
{
	k->tables = (char *)kvci_map_fd(fd, r->tables_bytes, PROT_READ, NULL);
	if (!k->tables)
		return map_failed("tables");
	k->tables_bytes = r->tables_bytes;
	k->seq_stride = r->seq_stride;
	return 0;
}

/* fds: ring, args, steps, bell */
static int hello_map(struct kvc *k, struct kvci_rx *rx)
{
	const struct kvmd_hello_reply *r = &rx->u.hello;
	int err;

	if (r->ring_bytes < sizeof(*k->ring))
		return -EPROTO;
	k->ring = (struct kvmd_ring *)kvci_map_fd(rx->fd[0], r->ring_bytes,
						  PROT_READ | PROT_WRITE, NULL);
	if (!k->ring)
		return map_failed("ring");
	k->ring_bytes = r->ring_bytes;
	if (r->args_bytes) {
		k->args_mem = (char *)kvci_map_fd(rx->fd[1], r->args_bytes,
						  PROT_READ | PROT_WRITE, NULL);
		if (!k->args_mem)
			return map_failed("args area");
		k->args_bytes = r->args_bytes;
	}
	err = kvci_args_init(&k->args, r->args_bytes);
	if (!err)
		err = map_steps(k, rx->fd[2]);
	if (!err)
		err = kvci_ring_init(k, r);
	if (err)
		return err;
	k->bell = rx->fd[3];
	rx->fd[3] = -1;
	return 0;
}

static int hello(struct kvc *k)
{
	const struct kvc_opts *o = &k->conf.opts;
	struct kvmd_hello m;
	struct kvci_rx rx;
	int err;

	kvci_msg_init(&m, KVMD_MSG_HELLO, sizeof(m), 0);
	m.version = KVMD_WIRE_VERSION;
	m.sq_entries = o->sq_entries;
	m.cq_entries = o->cq_entries;
	m.max_seqs = o->max_seqs;
	m.features = KVMD_FEATURES;
	m.args_bytes = o->args_bytes;
	m.max_tokens = o->max_tokens;
	m.nr_lanes = o->nr_lanes;
	m.nr_ranks = o->nr_ranks;
	m.recompute_tps = o->recompute_tps;
	memcpy(m.tenant, k->conf.tenant, sizeof(m.tenant));
	memcpy(m.label, k->conf.label, sizeof(m.label));
	err = kvci_ask(k, &m, KVMD_MSG_HELLO_REPLY, offsetof(struct kvmd_hello_reply, text),
		       KVCI_HANDSHAKE_NS, &rx);
	if (err)
		return err;
	if (rx.bytes >= offsetof(struct kvmd_hello_reply, session) &&
	    rx.u.hello.version != KVMD_WIRE_VERSION) {
		kvci_refuse("the daemon speaks version %u, this library version %u",
			    rx.u.hello.version, KVMD_WIRE_VERSION);
		err = -EPROTO;
	}
	if (!err)
		err = kvci_shape(&rx, sizeof(rx.u.hello), 4);
	if (!err)
		err = hello_map(k, &rx);
	if (!err) {
		k->view.session = rx.u.hello.session;
		k->view.max_seqs = rx.u.hello.max_seqs;
		k->group_token = rx.u.hello.group_token;
		k->has_loads = rx.u.hello.features & KVMD_FEAT_LOADS;
		k->has_resume = rx.u.hello.features & KVMD_FEAT_RESUME;
		memcpy(k->boot_id, rx.u.hello.boot_id, sizeof(k->boot_id));
	}
	kvci_rx_close(&rx);
	return err;
}

/* Maps the slabs that follow the reply at once. */
int kvci_first_slabs(struct kvc *k, uint32_t nr)
{
	struct kvci_rx rx;
	int err = 0;

	while (!err && k->slabs.nr_whole < nr) {
		uint64_t deadline = kvci_deadline(KVCI_HANDSHAKE_NS);

		err = kvci_recv(k->sock, deadline, &rx);
		if (!err)
			err = kvci_control_msg(k, &rx);
		if (!err || err == -EAGAIN)
			err = kvci_ack_flush(k, deadline);
	}
	if (err && !kvc_refusal()[0])
		kvci_refuse("slab %u of %u: %s", k->slabs.nr_whole + 1, nr, kvc_strerror(err));
	return err;
}

static int space(struct kvc *k)
{
	struct kvci_rx rx;
	uint32_t nr_slabs;
	int err;

	err = kvci_ask(k, &k->conf.space, KVMD_MSG_SPACE_REPLY,
		       offsetof(struct kvmd_space_reply, text), KVCI_HANDSHAKE_NS, &rx);
	if (err)
		return err;
	nr_slabs = rx.u.space.nr_slabs;
	err = kvci_shape(&rx, sizeof(rx.u.space), 1);
	if (!err)
		err = map_tables(k, rx.fd[0], &rx.u.space);
	if (!err)
		err = kvci_groups_set(k, &rx.u.space);
	kvci_rx_close(&rx);
	return err ? err : kvci_first_slabs(k, nr_slabs);
}

static int join(struct kvc *k)
{
	uint64_t wait_ns = KVCI_HANDSHAKE_NS;
	struct kvmd_join m;
	struct kvci_rx rx;
	uint32_t nr_slabs;
	int err;

	/* Answered when rank 0 has its space. */
	if (__builtin_add_overflow(wait_ns, k->conf.opts.wait_ns, &wait_ns))
		wait_ns = UINT64_MAX;
	kvci_msg_init(&m, KVMD_MSG_JOIN, sizeof(m), 0);
	m.version = KVMD_WIRE_VERSION;
	m.rank = k->rank;
	m.group_token = k->group_token;
	err = kvci_ask(k, &m, KVMD_MSG_JOIN_REPLY, offsetof(struct kvmd_space_reply, text),
		       wait_ns, &rx);
	if (err)
		return err;
	nr_slabs = rx.u.space.nr_slabs;
	err = kvci_shape(&rx, sizeof(rx.u.space), 2);
	if (!err)
		err = map_steps(k, rx.fd[0]);
	if (!err)
		err = map_tables(k, rx.fd[1], &rx.u.space);
	if (!err)
		err = kvci_groups_set(k, &rx.u.space);
	/* What rank 0 was granted shows in its tables. */
	k->has_loads = !err && rx.u.space.row_off[0] >= sizeof(struct kvmd_seq_status);
	if (!err && rx.u.space.seq_stride)
		k->view.max_seqs = (uint32_t)(rx.u.space.tables_bytes / rx.u.space.seq_stride);
	kvci_rx_close(&rx);
	return err ? err : kvci_first_slabs(k, nr_slabs);
}

/* ------------------------------------------------------------- life cycle */

static struct kvc *kvc_new(void)
{
	struct kvc *k = (struct kvc *)calloc(1, sizeof(*k));

	if (k) {
		k->sock = -1;
		k->bell = -1;
		k->pid = getpid();
	}
	return k;
}

/*
 * In a forked child nothing of it is mapped, and something else may be where it
 * was.
 */
static void forget_maps(struct kvc *k)
{
	k->ring = NULL;
	k->args_mem = NULL;
	k->tables = NULL;
	k->steps = NULL;
	kvci_mem_forget(k);
}

/* All of the session but the steps page and the address ranges. */
static void detach(struct kvc *k)
{
	if (k->sock >= 0)
		close(k->sock);
	if (k->bell >= 0)
		close(k->bell);
	k->sock = -1;
	k->bell = -1;
	kvci_cuda_unpin_tables(k);
	if (k->ring)
		munmap(k->ring, k->ring_bytes);
	if (k->args_mem)
		munmap(k->args_mem, k->args_bytes);
	if (k->tables)
		munmap(k->tables, k->tables_bytes);
	k->ring = NULL;
	k->sq = NULL;
	k->cq = NULL;
	k->args_mem = NULL;
	k->args_bytes = 0;
	k->tables = NULL;
	k->sq_entries = 0;
	k->sq_taken = k->sq_tail = k->sq_head = 0;
	k->cq_head = k->cq_tail = 0;
	k->stash.head = k->stash.tail = 0;
	k->has_peeked = false;
	k->has_ack = false;
	k->has_resume = false;
	k->control_dirty = false;
	kvci_args_exit(&k->args);
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++)
		k->view.group[g].rows = NULL;
	(void)kvci_slabs_reset(k);
	/* The next session counts its steps anew: events of this one are not its. */
	kvci_cuda_steps_exit(k);
}

/* Nothing of the pool is mapped any more: the daemon need not wait for our end. */
static void say_bye(struct kvc *k)
{
	struct kvmd_msg bye = { .type = KVMD_MSG_BYE, .bytes = sizeof(bye) };

	if (k->sock < 0)
		return;
	if (!kvci_slabs_reset(k))
		(void)kvci_send(k->sock, &bye, sizeof(bye));
}

void kvc_destroy(struct kvc *k)
{
	if (!k)
		return;
	if (getpid() != k->pid)
		forget_maps(k);		/* a forked child: the session is its parent's */
	else
		say_bye(k);
	detach(k);
	kvci_mem_free(k);
	if (k->steps)
		munmap(k->steps, sizeof(*k->steps));
	free(k->stash.cqe);
	kvci_sent_exit(&k->sent);
	free(k);
}

/* The handshake over @fd, which is taken in any case. */
static int attach(struct kvc *k, int fd)
{
	int err;

	k->sock = fd;
	k->dead = 0;
	k->spin_ns = k->conf.opts.spin_ns;
	err = hello(k);
	if (!err)
		err = space(k);
	return err;
}

int kvc_create(const struct kvc_opts *o, const struct kvc_space *s, struct kvc **ret_k)
{
	struct kvc *k = kvc_new();
	int err, fd;

	if (!k)
		return -ENOMEM;
	kvci_refuse_clear();
	err = kvci_conf_opts(&k->conf, o);
	if (!err)
		err = kvci_conf_space(&k->conf, s);
	if (!err)
		err = kvci_connect(k->conf.socket, k->conf.opts.wait_ns, &fd);
	if (!err)
		err = attach(k, fd);
	if (err) {
		kvc_destroy(k);
		return err;
	}
	*ret_k = k;
	return 0;
}

int kvc_join(const struct kvc_opts *o, uint64_t group_token, uint32_t rank, struct kvc **ret_k)
{
	struct kvc *k = kvc_new();
	int err;

	if (!k)
		return -ENOMEM;
	k->rank = rank;
	k->group_token = group_token;
	k->has_resume = true;		/* of a daemon that cannot we hear it */
	kvci_refuse_clear();
	err = kvci_conf_opts(&k->conf, o);
	if (!err)
		err = kvci_connect(k->conf.socket, k->conf.opts.wait_ns, &k->sock);
	if (!err)
		err = join(k);
	if (err) {
		kvc_destroy(k);
		return err;
	}
	*ret_k = k;
	return 0;
}

int kvc_reconnect(struct kvc *k)
{
	int err, fd;

	if (!kvc_poll(k))
		return -EISCONN;
	kvci_refuse_clear();
	/* Without a daemon everything stays as it is: blocks can still be read. */
	if (k->has_resume) {
		err = kvci_resume(k);
		if (err != -ESTALE || k->rank)
			return err;
		kvci_refuse_clear();
	}
	err = kvci_connect(k->conf.socket, k->conf.opts.wait_ns, &fd);
	if (err)
		return err;
	say_bye(k);		/* the old session's blocks need not wait for our end */
	detach(k);
	err = attach(k, fd);
	if (err) {
		detach(k);
		k->dead = -ECONNRESET;
	}
	return err;
}

const struct kvc_view *kvc_view(const struct kvc *k)
{
	return &k->view;
}

uint64_t kvc_group_token(const struct kvc *k)
{
	return k->group_token;
}

int kvc_fd(const struct kvc *k)
{
	return k->sock;
}
