/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - what the library's own files share; never installed.
 *
 * One struct kvc belongs to one thread. The exception is kvc_step_complete(),
 * which reads only @steps, @ring and @bell; these change in kvc_create(),
 * kvc_reconnect() and kvc_destroy() alone.
 *
 * What the daemon writes is trusted, but every word is read once into a local,
 * so that one decision never stands on two readings.
 */
#ifndef KVC_INTERNAL_H
#define KVC_INTERNAL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <kvclient.h>

/* The build sets these; the values here are those of a plain installation. */
#ifndef KVMD_RUNSTATEDIR
#define KVMD_RUNSTATEDIR	"/run"
#endif
#ifndef KVMD_DAEMON_NAME
#define KVMD_DAEMON_NAME	"kvmd"
#endif
#ifndef KVMD_VERSION
#define KVMD_VERSION		"0.1.0"
#endif

/* Where the daemon listens unless told otherwise. */
#define KVCI_SOCKET		KVMD_RUNSTATEDIR "/" KVMD_DAEMON_NAME "/kvmd.sock"

#define KVCI_HANDSHAKE_NS	5000000000ull	/* for each reply of the set-up */
#define KVCI_EPOCH_NS		30000000000ull	/* the daemon makes it durable first */
#define KVCI_SLICE_NS		100000000ull	/* sleep at most this long, then look around */
#define KVCI_NO_DEADLINE	UINT64_MAX
#define KVCI_HUGE_PAGE		(2ull << 20)	/* reservations start on such a border */
/*
 * Up to this many unanswered entries a completion is looked for in its own pos
 * word (one cache line less), above in cq_tail (one look for a whole batch).
 */
#define KVCI_POS_DEPTH		4u
#define KVCI_IDLE_PEEKS		4096u		/* empty peeks between looks at the socket */
#define KVCI_TAG		0xffffull	/* top 16 bits of the library's own user_data */

#define ld_rlx(p)		__atomic_load_n((p), __ATOMIC_RELAXED)
#define ld_acq(p)		__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define st_rlx(p, v)		__atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define st_rel(p, v)		__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)

#if defined(__x86_64__)
#define cpu_relax()		__builtin_ia32_pause()
#else
#define cpu_relax()		__asm__ __volatile__("" ::: "memory")
#endif

#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)

/* One message as received; fds are the receiver's until it takes or closes them. */
struct kvci_rx {
	union {
		struct kvmd_msg h;
		struct kvmd_hello_reply hello;
		struct kvmd_space_reply space;
		struct kvmd_slab slab;
		struct kvmd_epoch epoch;
		struct kvmd_resume_reply resume;
		unsigned char bytes[KVMD_MSG_MAX_BYTES];
	} u;
	size_t bytes;
	uint32_t nr_fds;
	int fd[KVMD_MAX_FDS];
};

/* Allocator of the args area; its metadata never lies in shared memory. */
struct kvci_args {
	uint32_t *tag;		/* per 64-byte unit, see args.c */
	uint32_t nr_units;
	uint32_t low;		/* no free unit below this one */
};

/* Completions taken from the ring while a synchronous call looked for its own. */
struct kvci_stash {
	struct kvmd_cqe *cqe;
	uint32_t size;		/* power of two, or 0 */
	uint32_t head;		/* free-running */
	uint32_t tail;
};

/* Entries that were submitted and not completed; see sent.c. */
struct kvci_sent {
	uint64_t *data;		/* user_data */
	uint8_t *hole;		/* 1: completed; only between head and tail, never at head */
	uint32_t size;		/* power of two; 0: nothing is remembered */
	uint32_t head;		/* free-running */
	uint32_t tail;
	uint32_t hint;		/* behind the last hole that was made */
};

/*
 * One group's address range: all planes of all shards, rw first, then ro. They are
 * addresses of the device that the pool lies on.
 */
struct kvci_window {
	char *base;		/* NULL: not reserved */
	size_t bytes;
	size_t stride;		/* from one plane to the next */
	struct kvc_plane *plane; /* what kvc_view() shows */
	uint32_t nr_planes;	/* planes * shards */
	uint8_t *has_null;	/* cuda: of each plane rw, then ro: 1: zeroes are at slot 0 */
};

/* One announced slab. */
struct kvci_slab {
	uint32_t id;
	uint32_t gen;
	uint32_t group;
	uint32_t first_slot;
	uint32_t nr_slots;
	uint32_t nr_got;	/* handles that came so far */
	uint32_t nr_total;
	uint32_t nr_mapped;	/* planes 0 .. nr_mapped-1 are mapped whole */
	uint64_t extent_bytes;	/* of one handle, as announced */
	bool mapped;		/* some memory is mapped */
	bool kept;		/* all of it, since before the daemon's restart */
	bool stale;		/* kept, and not announced again so far */
};

struct kvci_slabs {
	struct kvci_slab *slab;
	uint32_t nr;
	uint32_t size;		/* allocated */
	uint32_t nr_whole;	/* slabs with all handles, ever */
};

/*
 * How the pool's memory comes into this process, one implementation per kind of
 * handle. Errors are -errno with a refusal's text.
 */
struct kvci_mem_ops {
	/* Get ready for the space's devices. Sets unit and align. Fails: as before. */
	int (*open)(struct kvc *k, const struct kvmd_space_reply *r);
	void (*close)(struct kvc *k);	/* nothing is mapped or reserved any more */
	/*
	 * The range of w->bytes, on a border of align: sets base and the planes'
	 * addresses, and makes slot 0 readable. NULL: addresses come with the slab.
	 */
	int (*reserve)(struct kvc *k, uint32_t group);
	void (*unreserve)(struct kvc *k, uint32_t group);
	/* One handle into both windows; @fd stays the caller's. */
	int (*map)(struct kvc *k, const struct kvci_slab *s, uint32_t plane, int fd);
	int (*unmap)(struct kvc *k, const struct kvci_slab *s);
	/* All slabs of all groups go; ranges stay, with slot 0 readable. */
	int (*reset)(struct kvc *k);
	/* Between host memory and @plane's addresses, either way; waits. */
	int (*copy)(struct kvc *k, uint32_t shard, void *dst, const void *src, size_t bytes);
	bool exact;		/* a handle is mapped whole: its extent_bytes count */
};

/* What kvc_reconnect() needs again. Strings lie in @socket. */
struct kvci_conf {
	struct kvc_opts opts;
	struct kvmd_space space;	/* ready to be sent */
	char socket[108];		/* a Unix address holds no more */
	char tenant[KVMD_NAME_BYTES];
	char label[KVMD_NAME_BYTES];
};

struct kvc {
	struct kvc_view view;
	int sock;			/* -1: none */
	int bell;			/* eventfd that wakes the daemon; -1: none */
	int dead;			/* 0, or -ECONNRESET */
	int pid;			/* of the process that mapped it all */
	uint32_t rank;			/* > 0: made by kvc_join(), no ring of its own */
	bool use_pos;			/* pos words were negotiated */
	bool has_loads;			/* status lines, SEQ_OPEN with KVMD_OPEN_LOAD */
	bool has_resume;		/* RESUME may be asked for */
	bool control_dirty;		/* the socket may hold a message */
	bool has_peeked;		/* kvc_cqe_seen() has something to consume */
	bool has_ack;			/* @ack could not be sent yet */

	/* ring; NULL when there is none */
	struct kvmd_ring *ring;
	struct kvmd_sqe *sq;
	struct kvmd_cqe *cq;
	uint32_t sq_entries;
	uint32_t sq_mask;
	uint32_t cq_mask;
	uint32_t sq_taken;		/* entries handed out by kvc_get_sqe() */
	uint32_t sq_tail;		/* published */
	uint32_t sq_head;		/* the daemon's, as last seen */
	uint32_t cq_head;		/* consumed */
	uint32_t cq_tail;		/* the daemon's, as last seen; may be behind cq_head */
	uint32_t news_seq;		/* as last seen */
	uint32_t control_seq;
	uint32_t idle_peeks;
	uint64_t spin_ns;
	uint64_t next_tag;		/* of synchronous entries */
	struct kvmd_cqe peeked;
	struct kvci_stash stash;
	struct kvci_sent sent;

	struct kvmd_steps *steps;	/* keeps its address until kvc_destroy() */
	char *args_mem;
	struct kvci_args args;

	size_t ring_bytes;
	size_t args_bytes;
	char *tables;
	size_t tables_bytes;
	size_t seq_stride;		/* of the tables */
	/* memory of the pool; see map.c */
	const struct kvci_mem_ops *mem;	/* NULL: a pool without memory, or no space yet */
	struct kvci_cuda *cuda;		/* NULL: not on GPUs */
	uint32_t handle_kind;		/* enum kvmd_handle of its slabs */
	uint8_t device[KVMD_MAX_SHARDS][16];	/* as the space's reply says */
	size_t unit;			/* mappings begin and end on multiples of it, bytes */
	size_t align;			/* windows begin on multiples of it, bytes */
	struct kvci_window window[KVMD_MAX_GROUPS];
	struct kvci_slabs slabs;
	struct kvmd_slab_ack ack;
	uint64_t group_token;
	uint8_t boot_id[16];		/* of the daemon that has the session */
	uint64_t next_cookie;
	struct kvci_conf conf;
};

static inline uint64_t kvci_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* @ns from now as an absolute time; saturates. */
static inline uint64_t kvci_deadline(uint64_t ns)
{
	uint64_t now = kvci_now();

	return ns > UINT64_MAX - now ? KVCI_NO_DEADLINE : now + ns;
}

/* conf.c: -EINVAL with a refusal's text */
int kvci_conf_opts(struct kvci_conf *c, const struct kvc_opts *o);
int kvci_conf_space(struct kvci_conf *c, const struct kvc_space *s);

/* proto.c: messages on the socket */
int kvci_connect(const char *path, uint64_t wait_ns, int *ret_fd);
int kvci_send(int fd, const void *msg, size_t bytes);	/* never waits: -EAGAIN */
int kvci_recv(int fd, uint64_t deadline_ns, struct kvci_rx *rx); /* deadline 0: do not wait */
void kvci_rx_close(struct kvci_rx *rx);		/* closes the fds that were not taken */
bool kvci_hung_up(int fd);
void kvci_msg_init(void *msg, uint32_t type, uint32_t bytes, uint64_t cookie);

/* setup.c */
int kvci_ask(struct kvc *k, void *msg, uint32_t type, size_t text_off, uint64_t wait_ns,
	     struct kvci_rx *rx);
int kvci_shape(const struct kvci_rx *rx, size_t bytes, uint32_t nr_fds);
int kvci_first_slabs(struct kvc *k, uint32_t nr);

/* resume.c: 1 the session goes on, -ESTALE it is gone; other errors: try again */
int kvci_resume(struct kvc *k);

/* map.c: address ranges and slabs */
int kvci_groups_set(struct kvc *k, const struct kvmd_space_reply *r);
int kvci_slab_add(struct kvc *k, struct kvci_rx *rx);	/* 1: whole, 0: more to come */
int kvci_slab_del(struct kvc *k, uint32_t id, uint32_t gen);
/* The bytes of @s in one window; false: they do not lie on whole units. */
bool kvci_slab_extent(const struct kvc *k, const struct kvci_slab *s, size_t *ret_off,
		      size_t *ret_len);
size_t kvci_null_bytes(const struct kvc *k, uint32_t group);	/* of slot 0, in whole units */
/* Unmap all slabs, keep the ranges; not 0: some memory may still be mapped. */
int kvci_slabs_reset(struct kvc *k);
int kvci_slabs_keep(struct kvc *k);	/* all are stale until they are announced again */
int kvci_slabs_sweep(struct kvc *k);	/* unmap those that were not */
void kvci_mem_free(struct kvc *k);	/* the ranges too; all was unmapped */
void kvci_mem_forget(struct kvc *k);	/* in a forked child: it has none of it */

/* map_host.c */
extern const struct kvci_mem_ops kvci_mem_host;
void *kvci_map_fd(int fd, size_t bytes, int prot, void *fixed);	/* NULL: failed, errno */

/* map_cuda.c, map_legacy.c */
extern const struct kvci_mem_ops kvci_mem_vmm, kvci_mem_legacy;

/* cuda_steps.c: before and after the mappings that were registered are replaced */
void kvci_cuda_unpin_tables(struct kvc *k);
bool kvci_cuda_unpin_steps(struct kvc *k);	/* true: pin them again */
int kvci_cuda_pin_steps(struct kvc *k);
/* Queries and completes what can be; drops what is recorded, destroys all events. */
void kvci_cuda_steps_exit(struct kvc *k);

/* control.c */
void kvci_die(struct kvc *k, const char *why);
int kvci_news(struct kvc *k);
int kvci_control_msg(struct kvc *k, struct kvci_rx *rx);
int kvci_ack_flush(struct kvc *k, uint64_t deadline_ns);
int kvci_control_drain(struct kvc *k);

/* ring.c */
int kvci_ring_init(struct kvc *k, const struct kvmd_hello_reply *r);
bool kvci_cq_ready(struct kvc *k);
int kvci_cq_wait(struct kvc *k, uint64_t deadline_ns);
void kvci_bell(const struct kvc *k);
int kvci_stash_reserve(struct kvci_stash *s, uint32_t nr);
void kvci_stash_put(struct kvci_stash *s, const struct kvmd_cqe *c);

/* sent.c */
int kvci_sent_init(struct kvci_sent *s, uint32_t most);	/* 0: remember nothing */
void kvci_sent_exit(struct kvci_sent *s);
bool kvci_sent_room(struct kvci_sent *s);	/* close the holes; false: full all the same */
void kvci_sent_find(struct kvci_sent *s, uint64_t user_data);	/* and make it a hole */
bool kvci_sent_take(struct kvci_sent *s, uint64_t *ret_user_data);	/* the oldest */

static inline void kvci_sent_put(struct kvci_sent *s, uint64_t user_data)
{
	if (unlikely(s->tail - s->head == s->size) && !kvci_sent_room(s))
		return;
	s->data[s->tail++ & (s->size - 1)] = user_data;
}

/* The oldest one is gone: the next that is no hole. */
static inline void kvci_sent_next(struct kvci_sent *s)
{
	const uint32_t mask = s->size - 1;

	s->head++;
	while (unlikely(s->head != s->tail && s->hole[s->head & mask]))
		s->hole[s->head++ & mask] = 0;
}

static inline void kvci_sent_done(struct kvci_sent *s, uint64_t user_data)
{
	if (likely(s->head != s->tail && s->data[s->head & (s->size - 1)] == user_data))
		kvci_sent_next(s);
	else
		kvci_sent_find(s, user_data);
}

/* args.c */
int kvci_args_init(struct kvci_args *a, uint64_t bytes);
void kvci_args_exit(struct kvci_args *a);
int64_t kvci_args_get(struct kvci_args *a, size_t bytes);	/* offset, or -ENOSPC */
int kvci_args_put(struct kvci_args *a, uint64_t off);		/* -EINVAL: not allocated */

/* keys.c */
void kvci_salt_digest(const void *salt, size_t bytes, uint8_t ret_digest[16]);

/* error.c */
void kvci_refuse(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void kvci_refuse_clear(void);
unsigned kvci_nr_refusals(void);	/* of this thread so far */
#endif
