/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_rig.c - see admin_rig.h.
 */
#include "admin_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/reclaim/policy.h"
#include "kvmd/svc/admin.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define BLOCK_BYTES	4096

struct arig arig;

struct space *arig_add_space(const char *name)
{
	struct daemon *d = arig.d;
	struct kvmd_space m = { .nr_groups = 1, .nr_shards = 1 };
	struct space *sp;
	char msg[256];

	snprintf(m.name, sizeof(m.name), "%s", name);
	m.group[0] = (struct kvmd_group) {
		.plane_bytes = BLOCK_BYTES, .planes = 1, .block_tokens = 16,
	};
	ck_assert_int_eq(space_create(d->pool, &m, tenant_find(d->pool, "default"),
				      policy_find("lru"), &sp, msg, sizeof(msg)), 0);
	return sp;
}

static void setup(void)
{
	struct pool_opts o = { .nr_blocks = 20000, .nr_nodes = 64, .slab_bytes = 16 << 20 };
	const char *tmp = getenv("TMPDIR");
	struct daemon *d = calloc(1, sizeof(*d));
	char msg[256];

	ck_assert_ptr_nonnull(d);
	arig.d = d;
	snprintf(arig.dir, sizeof(arig.dir), "%s/adm.XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(arig.dir));
	log_set_level(LOG_LVL_ERR);
	ck_assert_int_eq(config_init(&d->conf), 0);
	snprintf(arig.path, sizeof(arig.path), "daemon.socket=%s/sock", arig.dir);
	ck_assert_int_eq(config_set(&d->conf, arig.path, msg, sizeof(msg)), 0);
	ck_assert_int_eq(config_finish(&d->conf, msg, sizeof(msg)), 0);
	snprintf(arig.path, sizeof(arig.path), "%s/sock.admin", arig.dir);
	d->start_ns = clock_ns();
	ck_assert_int_eq(stats_init(), 0);
	ck_assert_int_eq(workers_create(1, &d->workers), 0);
	ck_assert_int_eq(uring_create(64, &d->u), 0);
	ck_assert_int_eq(pool_create(&o, d->workers, &d->pool), 0);
	ck_assert_int_eq(index_create(d->pool, 1024, &d->ix), 0);
	dev_init(&d->pool->dev[0], dev_ops_find("null"), "null-0", 1ull << 30, d->workers);
	d->pool->nr_devs = 1;
	ck_assert_int_eq(tenant_add(d->pool, "default", &(struct tenant *) { NULL }), 0);
	ck_assert_int_eq(admin_start(d), 0);
}

static void teardown(void)
{
	struct daemon *d = arig.d;

	admin_stop(d);
	while (workers_nr_pending(d->workers))
		workers_reap(d->workers);
	uring_destroy(d->u);
	index_destroy(d->ix);
	pool_destroy(d->pool);
	workers_destroy(d->workers);
	config_exit(&d->conf);
	stats_exit();
	free(d);
	ck_assert_int_eq(rmdir(arig.dir), 0);	/* the socket is gone */
}

int arig_dial_to(const char *where)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_uint_lt(strlen(where), sizeof(un.sun_path));
	memcpy(un.sun_path, where, strlen(where));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

int arig_dial(void)
{
	return arig_dial_to(arig.path);
}

void arig_say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Turn the daemon until @fd ends; what it said. */
char *arig_listen_to(int fd)
{
	struct daemon *d = arig.d;
	size_t len = 0, cap = 1 << 16;
	char *buf = malloc(cap);

	for (;;) {
		ssize_t n;

		uring_poll(d->u);
		if (cap - len < 65536)
			buf = realloc(buf, cap *= 2);
		n = recv(fd, buf + len, cap - len - 1, 0);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			break;
		quiet_assert(n > 0 || errno == EAGAIN);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	buf[len] = '\0';
	return buf;
}

char *arig_ask(const char *line)
{
	int fd = arig_dial();

	arig_say(fd, line);
	return arig_listen_to(fd);
}

void arig_expect(const char *line, const char *part)
{
	char *answer = arig_ask(line);

	ck_assert_msg(strstr(answer, part) != NULL, "%s%.300s", line, answer);
	ck_assert_msg(!strncmp(answer, "{\"schema\":1,", 12), "%.300s", answer);
	ck_assert_str_eq(answer + strlen(answer) - 2, "}\n");
	free(answer);
}

/* Blocks of one chain in @sp, all idle. */
void arig_add_blocks(struct space *sp, uint32_t nr)
{
	struct daemon *d = arig.d;
	struct gpool *gp = &sp->gp[0];
	uint32_t parent = 0;

	while (gp->nr_free < nr) {
		ck_assert_int_eq(slab_grow(d->pool, gp), 0);
		while (workers_nr_pending(d->workers))
			workers_reap(d->workers);
	}
	for (uint32_t i = 0; i < nr; i++) {
		struct block *b;
		uint32_t id;

		quiet_assert_int_eq(pool_alloc(d->pool, gp, 1, 0, 0, &id), 0);
		b = pool_block(d->pool, id);
		memset(b->key, 0, sizeof(b->key));
		memcpy(b->key, &i, sizeof(i));
		block_set_state(b, BLK_SEALING);
		quiet_assert_ptr_null(index_seal(d->ix, pool_gpool(d->pool, b), b,
						 index_hash(d->ix, b->sid, b->group, b->key),
						 parent, i, 0, 0));
		parent = id;
	}
	while (parent) {
		struct block *b = pool_block(d->pool, parent);

		parent = b->parent;
		index_put(d->ix, b);
	}
}

TCase *arig_group(Suite *s, const char *name)
{
	return suite_group(s, name, setup, teardown);
}
