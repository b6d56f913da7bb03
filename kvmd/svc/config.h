/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - kvmd.conf(5): every option once, in one table.
 */
#ifndef KVMD_SVC_CONFIG_H
#define KVMD_SVC_CONFIG_H

#include "kvmd/lib/conf.h"
#include "kvmd/pool/pool.h"

struct config_daemon {
	char *socket;			/* path of the clients' socket */
	char *admin_socket;		/* path of kvctl's; NULL: socket + ".admin" */
	uint32_t socket_mode;		/* octal, of both */
	uint32_t log_level;
	uint32_t clock;			/* 0 real, 1 driven */
	uint64_t spin_ns;		/* longest expected gap that is spun over */
	uint32_t workers;		/* threads */
};

struct config_pool {
	uint64_t blocks;		/* records; 0: from the devices' budget */
	uint64_t block_bytes_hint;	/* smallest block expected, for blocks = 0 */
	uint64_t ghosts;		/* entries; 0: 16 per record, at most 64 M */
	uint64_t nodes;			/* deferred releases and tickets, 64 bytes each */
	uint64_t slab_bytes;
	uint32_t wmark_min, wmark_low, wmark_high;	/* permille */
	bool populate;			/* touch metadata after start, by a worker */
	bool hugetlb;
	char *policy;
	uint64_t alloc_timeout_ns;	/* of an EXTEND without a deadline */
	uint64_t deadlock_ns;		/* quiet time before the youngest gives way */
	uint64_t step_stall_ns;
	uint64_t slab_deadline_ns;	/* for mapping an announced slab */
	uint64_t ticket_timeout_ns;
	uint32_t clean_ahead;		/* permille of slots kept clean and ready to go */
	uint64_t copy_bytes;		/* most bytes of copies in flight, each direction */
	bool recompute;			/* refuse loads that are slower than recomputing */
	uint64_t resume_ns;		/* how long a restarted daemon waits for its clients */
	char *fault;			/* fault injection spec, tests only */
	bool auto_blocks, auto_ghosts;	/* not given: config_size() sets them */
};

struct config_device {
	char name[40];			/* its UUID on host and null devices */
	char *kind;			/* "host", "null", "cuda" */
	char *uuid;			/* of the GPU; NULL: the first free one */
	uint64_t bytes;			/* budget */
	uint32_t share;			/* percent of free memory in place of bytes; 0: none */
	uint32_t legacy;		/* 0 vmm, 1 legacy IPC handles */
	uint32_t copy_threads;
	uint64_t copy_timeout_ns;
	uint64_t grace_ns;		/* after a client's death; UINT64_MAX: the kind's own */
	bool hugetlb;
};

struct config_ram {			/* [ram] */
	uint64_t bytes;			/* 0: no RAM tier */
	uint64_t chunk_bytes;		/* 0: bytes / 64 */
	bool hugetlb, lock;
	char *test;			/* test tiers on top; NULL: none */
};

struct config_disk {			/* [disk] */
	char *path;			/* files or block devices, comma separated; NULL: no disk tier */
	uint64_t bytes;			/* of each file that is made */
	uint64_t segment_bytes, block_bytes_hint;
	uint32_t admission;		/* uses before a block is written: 1 all, 2 second use */
	uint64_t inflight_bytes, inflight_read_bytes;
	uint64_t write_rate, write_day, scrub_rate;
	bool discard;
	char *test;
};

struct config_tenant {
	char name[KVMD_NAME_BYTES];
	char *uids;			/* comma separated; NULL: the daemon's own and root */
	uint64_t hbm_min, hbm_low, hbm_high, hbm_max;
	uint64_t ram_max, disk_max;	/* bytes; 0: no limit */
	uint64_t max_sessions, max_seqs;
	uint64_t ring_bytes;		/* of all its sessions */
	uint64_t pin_bytes;
};

struct config {
	struct config_daemon daemon;
	struct config_pool pool;
	struct config_ram ram;
	struct config_disk disk;
	struct config_device dev[POOL_MAX_DEVS];
	uint32_t nr_devs;
	struct config_tenant tenant[POOL_MAX_TENANTS];
	uint32_t nr_tenants;
};

extern const struct conf_table config_table;

/* Defaults; no device, no tenant. 0 or -errno. */
int config_init(struct config *c);
void config_exit(struct config *c);
/* File (NULL: none) and -o assignments are done: fill in and check what hangs together. */
int config_finish(struct config *c, char *msg, size_t msg_bytes);
/* Records and ghosts that were not given, from the bytes there are. */
void config_size(struct config *c);
int config_load(struct config *c, const char *path, char *msg, size_t msg_bytes);
int config_set(struct config *c, const char *assign, char *msg, size_t msg_bytes);
/* Give @t the limits of @ct. */
int config_apply_tenant(const struct config_tenant *ct, struct tenant *t,
			char *msg, size_t msg_bytes);

#endif
