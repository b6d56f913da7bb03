/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - the table behind kvmd.conf(5), and what its options mean together.
 */
#include "kvmd/svc/config.h"

#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"

#ifndef KVMD_RUNSTATEDIR
#define KVMD_RUNSTATEDIR "/run"
#endif
#ifndef KVMD_DAEMON_NAME
#define KVMD_DAEMON_NAME "kvmd"
#endif
#define DEFAULT_SOCKET	KVMD_RUNSTATEDIR "/" KVMD_DAEMON_NAME "/kvmd.sock"

static const char *const clock_words[] = { "real", "driven", NULL };
static const char *const ipc_words[] = { "vmm", "legacy", NULL };
static const char *const level_words[] = { "err", "warn", "info", "debug", NULL };

#define D(f)	offsetof(struct config_daemon, f)
#define P(f)	offsetof(struct config_pool, f)
#define V(f)	offsetof(struct config_device, f)
#define R(f)	offsetof(struct config_ram, f)
#define K(f)	offsetof(struct config_disk, f)
#define T(f)	offsetof(struct config_tenant, f)

static const struct conf_opt opts[] = {
	{ "daemon", "socket", CONF_STR, D(socket), DEFAULT_SOCKET, 0, 0, NULL, false,
	  "path of the clients' socket" },
	{ "daemon", "admin_socket", CONF_STR, D(admin_socket), NULL, 0, 0, NULL, false,
	  "path of kvctl's socket; default: socket with .admin behind it" },
	{ "daemon", "socket_mode", CONF_U32, D(socket_mode), "660", 0, 777, NULL, false,
	  "permissions of both sockets, octal" },
	{ "daemon", "log_level", CONF_ENUM, D(log_level), "info", 0, 0, level_words, true,
	  "highest level that is logged" },
	{ "daemon", "clock", CONF_ENUM, D(clock), "real", 0, 0, clock_words, false,
	  "what policies read: real time, or a replay drives it" },
	{ "daemon", "spin", CONF_TIME, D(spin_ns), "20us", 0, 1000000000, NULL, true,
	  "longest expected gap between requests that is spun over" },
	{ "daemon", "workers", CONF_U32, D(workers), "2", 1, 64, NULL, false,
	  "threads for copies, slabs and scrubbing" },

	{ "pool", "blocks", CONF_U64, P(blocks), "0", 0, 1u << 30, NULL, false,
	  "block records; 0: enough for the devices at block_bytes_hint" },
	{ "pool", "block_bytes_hint", CONF_BYTES, P(block_bytes_hint), "64K", 64, 0, NULL, false,
	  "smallest block expected, when blocks is 0" },
	{ "pool", "ghosts", CONF_U64, P(ghosts), "0", 0, 1ull << 31, NULL, false,
	  "evicted blocks remembered, 13 bytes each; 0: 16 per record, at most 64 M" },
	{ "pool", "nodes", CONF_U64, P(nodes), "65536", 64, 1u << 30, NULL, false,
	  "nodes of 64 bytes for deferred releases, pins and tickets" },
	{ "pool", "slab_bytes", CONF_BYTES, P(slab_bytes), "64M", 4096, 1ull << 30, NULL, true,
	  "aimed size of one slab over all planes and shards" },
	{ "pool", "wmark_min", CONF_PERMILLE, P(wmark_min), "0", 0, 500, NULL, true,
	  "free slots kept for tenants below their min" },
	{ "pool", "wmark_low", CONF_PERMILLE, P(wmark_low), "2%", 0, 900, NULL, true,
	  "background reclaim starts below" },
	{ "pool", "wmark_high", CONF_PERMILLE, P(wmark_high), "4%", 0, 900, NULL, true,
	  "background reclaim stops at" },
	{ "pool", "populate", CONF_BOOL, P(populate), "yes", 0, 0, NULL, false,
	  "touch all metadata in the background after start" },
	{ "pool", "hugetlb", CONF_BOOL, P(hugetlb), "no", 0, 0, NULL, false,
	  "try 2 MiB pages for the block array" },
	{ "pool", "policy", CONF_STR, P(policy), "density", 0, 0, NULL, false,
	  "replacement policy of new spaces: density, lru or s3fifo" },
	{ "pool", "alloc_timeout", CONF_TIME, P(alloc_timeout_ns), "30s", 1000000, 0, NULL, true,
	  "longest wait of an allocation that has no deadline of its own" },
	{ "pool", "deadlock_time", CONF_TIME, P(deadlock_ns), "20ms", 100000, 0, NULL, true,
	  "quiet time before the youngest of those that wait for each other gives way" },
	{ "pool", "step_stall", CONF_TIME, P(step_stall_ns), "30s", 1000000, 0, NULL, true,
	  "a session whose step stands still that long gets nothing new" },
	{ "pool", "slab_deadline", CONF_TIME, P(slab_deadline_ns), "2s", 1000000, 0, NULL, true,
	  "a session that has not mapped a slab by then is held back" },
	{ "pool", "ticket_timeout", CONF_TIME, P(ticket_timeout_ns), "60s", 1000000, 0, NULL, true,
	  "a sent sequence that nobody received ends then" },
	{ "pool", "clean_ahead", CONF_PERMILLE, P(clean_ahead), "5%", 0, 900, NULL, true,
	  "slots whose blocks are copied down ahead of need, so that evicting them is free" },
	{ "pool", "copy_bytes", CONF_BYTES, P(copy_bytes), "16M", 4096, 1ull << 30, NULL, true,
	  "most bytes of copies in flight, each direction; at least one block" },
	{ "pool", "recompute", CONF_BOOL, P(recompute), "yes", 0, 0, NULL, true,
	  "refuse to load what the client, by its own word, recomputes faster" },
	{ "pool", "resume_timeout", CONF_TIME, P(resume_ns), "30s", 1000000, 0, NULL, true,
	  "how long a restarted daemon keeps the blocks of a client that has not come back" },
	{ "pool", "fault", CONF_STR, P(fault), NULL, 0, 0, NULL, false,
	  "fault injection, for tests" },

	{ "ram", "bytes", CONF_BYTES, R(bytes), "0", 0, 0, NULL, true,
	  "size of the RAM tier; 0: none" },
	{ "ram", "chunk", CONF_BYTES, R(chunk_bytes), "0", 0, 1ull << 30, NULL, false,
	  "size of its memfds; 0: bytes / 64, at least 2 MiB, at most 1 GiB" },
	{ "ram", "hugetlb", CONF_BOOL, R(hugetlb), "yes", 0, 0, NULL, false,
	  "try 2 MiB hugetlb pages first" },
	{ "ram", "lock", CONF_BOOL, R(lock), "yes", 0, 0, NULL, false,
	  "lock it in memory" },
	{ "ram", "test", CONF_STR, R(test), NULL, 0, 0, NULL, false,
	  "test tiers stacked on it, for tests: null, delay:..., error:..." },

	{ "disk", "path", CONF_STR, K(path), NULL, 0, 0, NULL, false,
	  "files or block devices of the disk tier, comma separated, striped" },
	{ "disk", "bytes", CONF_BYTES, K(bytes), "16G", 1 << 20, 0, NULL, false,
	  "size of each file that does not exist yet" },
	{ "disk", "segment", CONF_BYTES, K(segment_bytes), "64M", 1 << 20, 1ull << 30, NULL,
	  false, "size of a segment in files that are made" },
	{ "disk", "block_bytes_hint", CONF_BYTES, K(block_bytes_hint), "64K", 4096, 0, NULL,
	  false, "smallest block expected on disk, in files that are made" },
	{ "disk", "admission", CONF_U32, K(admission), "2", 1, 255, NULL, true,
	  "uses of a block before it is written: 1 all, 2 second use" },
	{ "disk", "inflight", CONF_BYTES, K(inflight_bytes), "4M", 4096, 1ull << 30, NULL, false,
	  "bytes in flight to one file" },
	{ "disk", "inflight_read", CONF_BYTES, K(inflight_read_bytes), "512K", 4096, 1ull << 30,
	  NULL, false, "bytes of writes in flight while reads come" },
	{ "disk", "write_rate", CONF_BYTES, K(write_rate), "0", 0, 0, NULL, true,
	  "most bytes written in a second; 0: no cap" },
	{ "disk", "write_day", CONF_BYTES, K(write_day), "0", 0, 0, NULL, true,
	  "most bytes written in 24 hours; 0: no cap" },
	{ "disk", "scrub_rate", CONF_BYTES, K(scrub_rate), "1M", 0, 0, NULL, true,
	  "bytes a second read and verified in the background; 0: none" },
	{ "disk", "discard", CONF_BOOL, K(discard), "no", 0, 0, NULL, false,
	  "tell the file system or device which segments are free" },
	{ "disk", "test", CONF_STR, K(test), NULL, 0, 0, NULL, false,
	  "test tiers stacked on it, for tests" },

	{ "device", "kind", CONF_STR, V(kind), "host", 0, 0, NULL, false,
	  "backend: host, null or cuda" },
	{ "device", "uuid", CONF_STR, V(uuid), NULL, 0, 0, NULL, false,
	  "cuda: which GPU, as nvidia-smi -L names it; default: the first one not taken" },
	{ "device", "bytes", CONF_BYTES, V(bytes), "1G", 4096, 0, NULL, true,
	  "memory for slabs on this device" },
	{ "device", "share", CONF_U32, V(share), "0", 0, 100, NULL, false,
	  "cuda: percent of the memory that is free at start, in place of bytes; 0: bytes" },
	{ "device", "ipc", CONF_ENUM, V(legacy), "vmm", 0, 0, ipc_words, false,
	  "cuda: how memory is shared: vmm (file descriptors) or legacy (cuIpcGetMemHandle)" },
	{ "device", "copy_threads", CONF_U32, V(copy_threads), "2", 1, 16, NULL, false,
	  "cuda: threads that move bytes, each direction" },
	{ "device", "copy_timeout", CONF_TIME, V(copy_timeout_ns), "10s", 1, 0, NULL, false,
	  "cuda: a copy that takes longer is reported" },
	{ "device", "grace", CONF_TIME, V(grace_ns), NULL, 0, 0, NULL, true,
	  "wait after a client's death before its blocks are reused" },
	{ "device", "hugetlb", CONF_BOOL, V(hugetlb), "no", 0, 0, NULL, true,
	  "try 2 MiB pages for slabs" },

	{ "tenant", "uids", CONF_STR, T(uids), NULL, 0, 0, NULL, true,
	  "who may name it, comma separated; root and the daemon's own always may" },
	{ "tenant", "hbm_min", CONF_BYTES, T(hbm_min), "0", 0, 0, NULL, true,
	  "memory kept for it" },
	{ "tenant", "hbm_low", CONF_BYTES, T(hbm_low), "0", 0, 0, NULL, true,
	  "memory kept for it while others have slack" },
	{ "tenant", "hbm_high", CONF_BYTES, T(hbm_high), "0", 0, 0, NULL, true,
	  "over it its own blocks are evicted first and it is slowed down; 0: no limit" },
	{ "tenant", "hbm_max", CONF_BYTES, T(hbm_max), "0", 0, 0, NULL, true,
	  "allocations over it are refused; 0: no limit" },
	{ "tenant", "ram_max", CONF_BYTES, T(ram_max), "0", 0, 0, NULL, true,
	  "blocks over it are not copied to RAM; 0: no limit" },
	{ "tenant", "disk_max", CONF_BYTES, T(disk_max), "0", 0, 0, NULL, true,
	  "blocks over it are not written to disk; 0: no limit" },
	{ "tenant", "max_sessions", CONF_U64, T(max_sessions), "64", 1, POOL_MAX_CONNS, NULL, true,
	  "sessions at a time" },
	{ "tenant", "max_seqs", CONF_U64, T(max_seqs), "65536", 1, 1u << 24, NULL, true,
	  "sequences, as asked for at hello, over all its sessions" },
	{ "tenant", "ring_bytes", CONF_BYTES, T(ring_bytes), "1G", 65536, 0, NULL, true,
	  "rings, argument areas and tables in use, over all its sessions" },
	{ "tenant", "pin_bytes", CONF_BYTES, T(pin_bytes), "64M", 0, 0, NULL, true,
	  "blocks it may pin" },
};

#undef D
#undef P
#undef V
#undef R
#undef K
#undef T

/* The named section's struct, made on first mention. */
static void *resolve(void *ctx, const char *section, const char *name, char *msg, size_t n)
{
	struct config *c = ctx;

	if (!strcmp(section, "daemon") && !name)
		return &c->daemon;
	if (!strcmp(section, "pool") && !name)
		return &c->pool;
	if (!strcmp(section, "ram") && !name)
		return &c->ram;
	if (!strcmp(section, "disk") && !name)
		return &c->disk;
	if (!strcmp(section, "device") && name && strlen(name) < sizeof(c->dev[0].name)) {
		for (uint32_t i = 0; i < c->nr_devs; i++)
			if (!strcmp(c->dev[i].name, name))
				return &c->dev[i];
		if (c->nr_devs == POOL_MAX_DEVS) {
			snprintf(msg, n, "more than %u devices", POOL_MAX_DEVS);
			return NULL;
		}
		if (conf_defaults(&config_table, "device", &c->dev[c->nr_devs])) {
			conf_release(&config_table, "device", &c->dev[c->nr_devs]);
			snprintf(msg, n, "out of memory");
			return NULL;
		}
		c->dev[c->nr_devs].grace_ns = UINT64_MAX;
		strcpy(c->dev[c->nr_devs].name, name);
		return &c->dev[c->nr_devs++];
	}
	if (!strcmp(section, "tenant") && name && strlen(name) < sizeof(c->tenant[0].name)) {
		for (uint32_t i = 0; i < c->nr_tenants; i++)
			if (!strcmp(c->tenant[i].name, name))
				return &c->tenant[i];
		if (c->nr_tenants == POOL_MAX_TENANTS) {
			snprintf(msg, n, "more than %u tenants", POOL_MAX_TENANTS);
			return NULL;
		}
		if (conf_defaults(&config_table, "tenant", &c->tenant[c->nr_tenants])) {
			conf_release(&config_table, "tenant", &c->tenant[c->nr_tenants]);
			snprintf(msg, n, "out of memory");
			return NULL;
		}
		strcpy(c->tenant[c->nr_tenants].name, name);
		return &c->tenant[c->nr_tenants++];
	}
	snprintf(msg, n, "no section [%s%s%s]: there are [daemon], [pool], [ram], [disk], "
		 "[device NAME], [tenant NAME]", section, name ? " " : "", name ? name : "");
	return NULL;
}

const struct conf_table config_table = {
	.opts = opts, .nr_opts = ARRAY_SIZE(opts), .resolve = resolve,
};

int config_init(struct config *c)
{
	int err;

	memset(c, 0, sizeof(*c));
	err = conf_defaults(&config_table, "daemon", &c->daemon);
	err = err ? err : conf_defaults(&config_table, "pool", &c->pool);
	err = err ? err : conf_defaults(&config_table, "ram", &c->ram);
	return err ? err : conf_defaults(&config_table, "disk", &c->disk);
}

void config_exit(struct config *c)
{
	conf_release(&config_table, "daemon", &c->daemon);
	conf_release(&config_table, "pool", &c->pool);
	conf_release(&config_table, "ram", &c->ram);
	conf_release(&config_table, "disk", &c->disk);
	for (uint32_t i = 0; i < c->nr_devs; i++)
		conf_release(&config_table, "device", &c->dev[i]);
	for (uint32_t i = 0; i < c->nr_tenants; i++)
		conf_release(&config_table, "tenant", &c->tenant[i]);
	memset(c, 0, sizeof(*c));
}

int config_load(struct config *c, const char *path, char *msg, size_t msg_bytes)
{
	return conf_load(&config_table, c, path, msg, msg_bytes);
}

int config_set(struct config *c, const char *assign, char *msg, size_t msg_bytes)
{
	return conf_set(&config_table, c, assign, msg, msg_bytes);
}

/* ---------------------------------------------------------- the whole of it */

/* "660" was read as decimal: take its digits as octal. */
static int octal(uint32_t v, uint32_t *ret_mode)
{
	uint32_t mode = 0, unit = 1;

	for (; v; v /= 10, unit *= 8) {
		if (v % 10 > 7)
			return -EINVAL;
		mode += v % 10 * unit;
	}
	*ret_mode = mode;
	return 0;
}

void config_size(struct config *c)
{
	struct config_pool *p = &c->pool;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < c->nr_devs; i++)
		bytes += c->dev[i].bytes;
	bytes += c->ram.bytes;
	for (const char *w = c->disk.path; w && *w; w += *w == ',') {
		bytes += c->disk.bytes;
		w += strcspn(w, ",");
	}
	if (p->auto_blocks)
		p->blocks = min(max(bytes / p->block_bytes_hint, (uint64_t)1024),
				(uint64_t)1 << 28);
	if (p->auto_ghosts)
		p->ghosts = min(p->blocks * 16, (uint64_t)1 << 26);
}

static int finish_pool(struct config *c, char *msg, size_t n)
{
	struct config_pool *p = &c->pool;

	if (p->wmark_min > p->wmark_low || p->wmark_low > p->wmark_high) {
		snprintf(msg, n, "wmark_min <= wmark_low <= wmark_high does not hold");
		return -EINVAL;
	}
	if (c->disk.path && c->ram.bytes < (uint64_t)16 << 20) {
		snprintf(msg, n, "disk.path needs ram.bytes of 16M at least: blocks pass through RAM on "
			 "their way to disk and back");
		return -EINVAL;
	}
	p->auto_blocks = !p->blocks;
	p->auto_ghosts = !p->ghosts;
	config_size(c);
	return 0;
}

static int finish_tenants(struct config *c, char *msg, size_t n)
{
	bool have_default = false;

	for (uint32_t i = 0; i < c->nr_tenants; i++) {
		const struct config_tenant *t = &c->tenant[i];
		struct tenant probe = { 0 };

		have_default |= !strcmp(t->name, "default");
		if (config_apply_tenant(t, &probe, msg, n))
			return -EINVAL;
	}
	if (!have_default && !resolve(c, "tenant", "default", msg, n))
		return -EINVAL;
	return 0;
}

int config_finish(struct config *c, char *msg, size_t msg_bytes)
{
	char *admin;
	size_t len;
	int err;

	if (octal(c->daemon.socket_mode, &c->daemon.socket_mode)) {
		snprintf(msg, msg_bytes, "daemon.socket_mode is not octal");
		return -EINVAL;
	}
	if (!c->daemon.admin_socket) {
		len = strlen(c->daemon.socket) + sizeof(".admin");
		admin = mem_zalloc(len);
		if (!admin)
			return -ENOMEM;
		snprintf(admin, len, "%s.admin", c->daemon.socket);
		c->daemon.admin_socket = admin;
	}
	if (!c->nr_devs && !resolve(c, "device", "host-0", msg, msg_bytes))
		return -EINVAL;
	for (uint32_t i = 0; i < c->nr_devs; i++) {
		if (!dev_ops_find(c->dev[i].kind)) {
			snprintf(msg, msg_bytes, "device %s: no kind %s in this build: there is %s",
				 c->dev[i].name, c->dev[i].kind, dev_ops_names());
			return -EINVAL;
		}
	}
	err = finish_pool(c, msg, msg_bytes);
	return err ? err : finish_tenants(c, msg, msg_bytes);
}

static int parse_uids(const char *s, struct tenant *t, char *msg, size_t n)
{
	uint64_t uid;
	char word[32];

	t->nr_uids = 0;
	while (s && *s) {
		size_t len = strcspn(s, ", ");

		if (len >= sizeof(word) || t->nr_uids == POOL_MAX_UIDS) {
			snprintf(msg, n, "tenant %s: uids has a word too long or more than %u",
				 t->name, POOL_MAX_UIDS);
			return -EINVAL;
		}
		memcpy(word, s, len);
		word[len] = 0;
		s += len + strspn(s + len, ", ");
		if (!len)
			continue;
		if (conf_parse_u64(word, &uid) || uid > UINT32_MAX) {
			const struct passwd *pw = getpwnam(word);

			if (!pw) {
				snprintf(msg, n, "tenant %s: no user %s", t->name, word);
				return -EINVAL;
			}
			uid = pw->pw_uid;
		}
		t->uid[t->nr_uids++] = (uint32_t)uid;
	}
	return 0;
}

int config_apply_tenant(const struct config_tenant *ct, struct tenant *t, char *msg, size_t n)
{
	snprintf(t->name, sizeof(t->name), "%s", ct->name);
	/* 0 says nothing: low follows min, high and max are no limit. */
	t->hbm_low = max(ct->hbm_low, ct->hbm_min);
	if ((ct->hbm_low && ct->hbm_low < ct->hbm_min) ||
	    (ct->hbm_high && ct->hbm_high < t->hbm_low) ||
	    (ct->hbm_max && ct->hbm_max < max(t->hbm_low, ct->hbm_high))) {
		snprintf(msg, n, "tenant %s: hbm_min <= hbm_low <= hbm_high <= hbm_max does not hold",
			 ct->name);
		return -EINVAL;
	}
	t->hbm_min = ct->hbm_min;
	t->hbm_high = ct->hbm_high;
	t->ram_max = ct->ram_max;
	t->disk_max = ct->disk_max;
	t->hbm_max = ct->hbm_max;
	t->max_sessions = (uint32_t)ct->max_sessions;
	t->max_seqs = (uint32_t)ct->max_seqs;
	t->max_ring_bytes = ct->ring_bytes;
	t->pin_bytes = ct->pin_bytes;
	return parse_uids(ct->uids, t, msg, n);
}
