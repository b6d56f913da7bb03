/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake.h - what the rooms of the fake driver share; private to the library.
 *
 * One lock (fc.lock) guards everything of the process; bytes are copied without it,
 * by the thread of a stream, with a reference on the memory. The lock of the state
 * file is taken inside it. References "[H n]", "[S ...]" and "1.2" in the comments are
 * those of the notes that the project's design cites: lines of cuda.h 13.0, files of
 * NVIDIA's open kernel modules, sections.
 */
#ifndef KVMD_FAKECUDA_FAKE_H
#define KVMD_FAKECUDA_FAKE_H

#include "include/kvmd/cuda_abi.h"
#include "tests/fakecuda/fakecuda.h"
#include "tests/fakecuda/state.h"

#define FC_MAX_FAILS	16
#define CU_NAMED_NOT_FOUND	500

/* Every function of cuda_abi.h is fc_<member>() here. */
#define FC_FUNCS(X) CU_FUNCS(X) CU_FUNCS_OPT(X) \
	X(ipc_open, "cuIpcOpenMemHandle", 12000, \
	  (cu_ptr *ret, struct cu_ipc_handle h, unsigned flags))
#define X(member, name, version, args) int fc_##member args;
FC_FUNCS(X)
#undef X
enum fc_fn {
#define X(member, name, version, args) FN_##member,
	FC_FUNCS(X)
#undef X
	NR_FC_FN
};

/* fail=FUNC:NTH[:CODE[:COUNT]] */
struct fc_fail {
	enum fc_fn fn;
	uint64_t nth, count;
	int code;
};

struct fc_conf {
	unsigned gpus;
	uint64_t mem, granularity, seed, ecc, hang;
	unsigned delay_us;
	int driver;
	bool mps, vmm, cpu, rohost;
	struct fc_fail fail[FC_MAX_FAILS];
	unsigned nr_fails;
};

/* Device memory: a memfd and the fake's own mapping of it. */
struct fc_phys {
	struct fc_phys *next;
	cu_mem handle;			/* 0: released, or of cuMemAlloc() */
	int fd;				/* -1: another process' cuMemAlloc() */
	uint64_t ino;
	uint64_t bytes;
	int gpu;			/* physical */
	bool exportable;
	bool legacy;			/* cuMemAlloc() */
	struct cu_ipc_handle ipc;	/* of another process' cuMemAlloc() */
	unsigned nr_opens;		/* of that handle */
	char *alias;
	unsigned refs;			/* the handle, mappings, copies running */
};

/* Reserved addresses. */
struct fc_range {
	struct fc_range *next;
	cu_ptr ptr;
	size_t bytes;
};

struct fc_map {
	struct fc_map *next;
	cu_ptr ptr;
	struct fc_phys *phys;		/* bytes: phys->bytes, but for legacy rounding */
	int access[FC_MAX_GPUS];	/* CU_PROT_*, by physical device */
};

struct fc_reg {
	struct fc_reg *next;
	uintptr_t at;
	size_t bytes;
	unsigned flags;
	struct fc_ctx *ctx;
};

/* A primary context from its first retain to its reset or last release. */
struct fc_ctx {
	struct fc_ctx *next;
	int gpu;			/* physical */
	bool dead;
	int sticky;			/* what everything in it returns; 0: healthy */
	unsigned nr_running;		/* operations */
	struct fc_stream *null;		/* the legacy default stream */
};

struct fc_gpu {
	struct fc_ctx *ctx;		/* NULL: not active */
	unsigned retains;
};

enum fc_op_kind {
	OP_COPY, OP_SET, OP_WRITE64, OP_WAIT64, OP_EVENT, OP_LAUNCH,
};

struct fc_copy {
	cu_ptr dst, src;
	size_t bytes;
	uint64_t hang;			/* its number, when it hangs; 0: it does not */
	bool ecc;
};

struct fc_op {
	struct fc_op *next;
	enum fc_op_kind kind;
	struct fc_copy *copy;		/* COPY, SET (src: the byte) */
	size_t nr;
	cu_ptr addr;			/* WRITE64, WAIT64 */
	uint64_t value;
	unsigned flags;
	struct fc_event *event;
	uint64_t seq;
	struct fc_func *func;
	unsigned grid[3], block[3], shared_bytes;
	void **args;			/* a copy, or the caller's, who waits */
	bool *finished;			/* somebody waits for it; NULL: nobody */
	int *use;			/* entries of the state file */
	unsigned nr_use, cap_use;
};

struct fc_stream {
	struct fc_stream *next;
	struct fc_ctx *ctx;
	pthread_cond_t wake;
	struct fc_op *first, **last;
	bool busy;			/* an operation of it runs */
	bool destroyed;			/* the thread ends when it is empty */
	uint64_t order;			/* for the state file */
	uint64_t rnd;
};

struct fc_event {
	struct fc_event *next;
	struct fc_ctx *ctx;
	unsigned flags;
	uint64_t recorded, done;	/* sequence numbers */
	uint64_t ns;			/* when it was done */
	unsigned refs;			/* itself, operations */
	bool destroyed;
};

struct fc_mod {
	struct fc_mod *next;
	struct fc_ctx *ctx;
	void *so;
	struct fc_func *funcs;
};

struct fc_func {
	struct fc_func *next;
	struct fc_mod *mod;
	void (*run)(void **args, const unsigned grid[3], const unsigned block[3],
		    unsigned shared_bytes);
	const unsigned *arg_bytes;	/* NAME_args, ended by 0; NULL: not said */
};

struct fc {
	pthread_mutex_t lock;
	pthread_cond_t done;		/* something ended */
	bool inited, forked;
	int pid;
	uint64_t start;
	struct fc_conf conf;
	unsigned nr_gpus;		/* visible */
	int visible[FC_MAX_GPUS];	/* ordinal to physical */
	struct fc_gpu gpu[FC_MAX_GPUS];
	struct fc_ctx *ctxs;
	struct fc_phys *physs;
	struct fc_range *ranges;
	struct fc_map *maps;
	struct fc_reg *regs;
	struct fc_stream *streams;
	struct fc_event *events;
	struct fc_mod *mods;
	struct fc_state *state;
	struct fc_proc *proc;
	uint64_t next_handle, next_batch, nr_copies, nr_streams;
	uint64_t unhangs;		/* copies up to this number do not hang any more */
	uint64_t calls[NR_FC_FN];	/* atomic */
};

extern struct fc fc;
/* In the static block: glibc frees others in a way that the thread checker takes for a race. */
extern __thread struct fc_ctx *fc_current __attribute__((tls_model("initial-exec")));

/* entry.c */
int fc_enter(enum fc_fn fn);		/* counts, forks, injected errors; without the lock */
/* Takes the lock; 0: the current context is there and healthy, else unlocked again. */
int fc_enter_ctx(enum fc_fn fn, struct fc_ctx **ret);
int fc_enter_lock(enum fc_fn fn);
/* Unlocks, returns @r. */
int fc_leave(int r);
const char *fc_fn_name(enum fc_fn fn);
int fc_physical(int dev);		/* -1: no such device */

#define ENTER(member) do { int r_ = fc_enter(FN_##member); if (r_) return r_; } while (0)
#define ENTER_LOCK(member) do { int r_ = fc_enter_lock(FN_##member); if (r_) return r_; } while (0)
#define ENTER_CTX(member, ctx) \
	do { int r_ = fc_enter_ctx(FN_##member, ctx); if (r_) return r_; } while (0)

/* conf.c */
int fc_conf_read(struct fc_conf *c, const char *text);	/* 0, or -1 and said on stderr */

/* context.c; under the lock */
void fc_poison(struct fc_ctx *c, int code);

/* vmm.c; under the lock */
struct fc_map *fc_map_at(cu_ptr p);
bool fc_reserved(cu_ptr p);
struct fc_phys *fc_phys_new(int gpu, size_t bytes, bool legacy, int *ret_err);
int fc_phys_alias(struct fc_phys *p);
void fc_phys_put(struct fc_phys *p);
void fc_phys_push(struct fc_phys *p);
int fc_reserve(size_t bytes, size_t align, cu_ptr addr, cu_ptr *ret);
void fc_unreserve(cu_ptr ptr);
int fc_map_new(cu_ptr ptr, struct fc_phys *p, struct fc_map **ret);
void fc_map_del(struct fc_map *m);
int fc_map_access(struct fc_map *m, int gpu, int prot);
void fc_vmm_reset(int gpu);

/* alloc.c; under the lock */
bool fc_ipc_dead(const struct fc_phys *p);
void fc_alloc_reset(struct fc_ctx *c);

/* host.c; under the lock */
int fc_host_check(uintptr_t at, size_t bytes);	/* a copy may touch it: 0, CU_INVALID_VALUE */
struct fc_reg *fc_reg_at(uintptr_t at, size_t bytes);
void fc_host_reset(struct fc_ctx *c);

/* stream.c; under the lock */
struct fc_stream *fc_stream_find(struct fc_ctx *c, cu_stream s);
void fc_submit(struct fc_stream *s, struct fc_op *op);
struct fc_op *fc_op_new(enum fc_op_kind kind, size_t nr);
void fc_op_free(struct fc_op *op);
void fc_stream_reset(struct fc_ctx *c);
struct fc_stream *fc_stream_new(struct fc_ctx *c);
void fc_event_done(struct fc_event *e, uint64_t seq);
void fc_event_put(struct fc_event *e);
void fc_drain(struct fc_ctx *c);	/* until nothing of it is queued or runs */

/* run.c: executes one operation; without the lock. 0 or what poisons the context. */
int fc_run(struct fc_stream *s, struct fc_op *op);

/* uses.c; under the lock */
/* @op writes or reads so many bytes behind an address; says so when that is a violation. */
void fc_use_add(struct fc_stream *s, struct fc_op *op, uint64_t batch, cu_ptr p, size_t bytes,
		bool write);
void fc_use_drop(struct fc_op *op);
bool fc_use_busy(uint64_t ino, uint64_t off, uint64_t bytes);	/* by copies of this process */
void fc_violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool fc_is_bad(uint64_t ino, uint64_t off, uint64_t bytes);
void fc_mark_bad(uint64_t ino, uint64_t off);

/* module.c; under the lock */
void fc_module_reset(struct fc_ctx *c);

#endif
