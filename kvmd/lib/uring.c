// SPDX-License-Identifier: Apache-2.0
/*
 * uring.c - requests in, done() out, over liburing.
 *
 * With DEFER_TASKRUN the kernel finishes nothing behind this thread's back: a
 * completion raises IORING_SQ_TASKRUN in the ring's flags, uring_poll() sees it
 * with a load and only then asks for it. Without, COOP_TASKRUN does the same but
 * for what other system calls of this thread bring in on their way.
 *
 * The completion queue is larger than what callers keep in flight. If it should
 * overflow all the same the kernel keeps what does not fit, raises
 * IORING_SQ_CQ_OVERFLOW, and hands it over when asked: nothing is lost.
 *
 * user_data is the struct uring_req; NULL marks what nobody waits for
 * (cancels). A request is armed from the moment it has an SQE to the moment
 * before its done(). Core thread only.
 */
#include "kvmd/lib/uring.h"
#include "kvmd/lib/mem.h"

#include <liburing.h>

#define NSEC_PER_SEC	1000000000ULL
#define NR_BATCH	64		/* CQEs taken at once */
#define NR_CQ_MIN	4096u		/* places for completions, at least */

struct uring {
	struct io_uring ring;
};

/* Best flags first; each kernel takes the first line that it knows. */
static const unsigned setup_flags[] = {
	IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,				/* 6.1 */
	IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,	/* 5.19 */
	IORING_SETUP_CQSIZE,						/* 5.5 */
	0,
};

int uring_create(unsigned entries, struct uring **ret_u)
{
	struct uring *u;
	unsigned i;
	int err = -EINVAL;

	u = mem_zalloc(sizeof(*u));
	if (!u)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(setup_flags) && err == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = setup_flags[i],
			.cq_entries = setup_flags[i] & IORING_SETUP_CQSIZE ?
				      max(4 * min(entries, NR_CQ_MIN), NR_CQ_MIN) : 0,
		};

		err = io_uring_queue_init_params(entries, &u->ring, &p);
	}
	if (err < 0)
		goto err_free;
	*ret_u = u;
	return 0;

err_free:
	mem_free(u);
	return err;
}

/* What is still armed ends with the ring, without its done(). */
void uring_destroy(struct uring *u)
{
	if (!u)
		return;
	io_uring_queue_exit(&u->ring);
	mem_free(u);
}

static int get_sqe(struct uring *u, struct io_uring_sqe **ret_sqe)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	int err;

	if (!sqe) {
		err = io_uring_submit(&u->ring);
		if (err < 0 && err != -EINTR)
			return err;
		sqe = io_uring_get_sqe(&u->ring);
		if (!sqe)
			return -EBUSY;
	}
	*ret_sqe = sqe;
	return 0;
}

static void arm(struct io_uring_sqe *sqe, struct uring_req *r)
{
	io_uring_sqe_set_data(sqe, r);
	r->armed = true;
}

int uring_poll_fd(struct uring *u, struct uring_req *r, int fd, unsigned events)
{
	struct io_uring_sqe *sqe;
	int err;

	err = get_sqe(u, &sqe);
	if (err)
		return err;
	io_uring_prep_poll_add(sqe, fd, events);
	arm(sqe, r);
	return 0;
}

int uring_read(struct uring *u, struct uring_req *r, int fd, void *buf, unsigned bytes)
{
	struct io_uring_sqe *sqe;
	int err;

	err = get_sqe(u, &sqe);
	if (err)
		return err;
	io_uring_prep_read(sqe, fd, buf, bytes, (uint64_t)-1);	/* no offset: as read(2) */
	arm(sqe, r);
	return 0;
}

int uring_buffers_init(struct uring *u, unsigned nr)
{
	return io_uring_register_buffers_sparse(&u->ring, nr);
}

int uring_buffer_set(struct uring *u, unsigned idx, void *p, size_t bytes)
{
	struct iovec iov = { .iov_base = p, .iov_len = p ? bytes : 0 };
	__u64 tag = 0;
	int n;

	n = io_uring_register_buffers_update_tag(&u->ring, idx, &iov, &tag, 1);
	return n < 0 ? n : n == 1 ? 0 : -EINVAL;
}

/* Before 5.19 a table is empty where it is full of -1. */
static int files_init_old(struct uring *u, unsigned nr)
{
	int *fds = mem_calloc(nr, sizeof(*fds));
	int err;

	if (!fds)
		return -ENOMEM;
	memset(fds, 0xff, nr * sizeof(*fds));
	err = io_uring_register_files(&u->ring, fds, nr);
	mem_free(fds);
	return err;
}

int uring_files_init(struct uring *u, unsigned nr)
{
	int err = io_uring_register_files_sparse(&u->ring, nr);

	return err == -EINVAL && nr ? files_init_old(u, nr) : err;
}

int uring_file_set(struct uring *u, unsigned idx, int fd)
{
	int n = io_uring_register_files_update(&u->ring, idx, &fd, 1);

	return n < 0 ? n : n == 1 ? 0 : -EINVAL;
}

/* @op: IORING_OP_*, for plain memory or for a fixed buffer. */
static int file_io(struct uring *u, struct uring_req *r, int op, unsigned file, int buf,
		   const void *p, unsigned bytes, uint64_t off)
{
	struct io_uring_sqe *sqe;
	int err;

	err = get_sqe(u, &sqe);
	if (err)
		return err;
	io_uring_prep_rw(op, sqe, (int)file, p, bytes, off);
	if (buf >= 0)
		sqe->buf_index = (uint16_t)buf;
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	arm(sqe, r);
	return 0;
}

int uring_pread(struct uring *u, struct uring_req *r, unsigned file, int buf, void *p,
		unsigned bytes, uint64_t off)
{
	return file_io(u, r, buf >= 0 ? IORING_OP_READ_FIXED : IORING_OP_READ, file, buf, p,
		       bytes, off);
}

int uring_pwrite(struct uring *u, struct uring_req *r, unsigned file, int buf, const void *p,
		 unsigned bytes, uint64_t off)
{
	return file_io(u, r, buf >= 0 ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE, file, buf, p,
		       bytes, off);
}

int uring_fdatasync(struct uring *u, struct uring_req *r, unsigned file)
{
	struct io_uring_sqe *sqe;
	int err;

	err = get_sqe(u, &sqe);
	if (err)
		return err;
	io_uring_prep_fsync(sqe, (int)file, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	arm(sqe, r);
	return 0;
}

void uring_flush(struct uring *u)
{
	if (io_uring_sq_ready(&u->ring))
		(void)io_uring_submit(&u->ring);	/* what stays queued goes next time */
}

void uring_cancel(struct uring *u, struct uring_req *r)
{
	struct io_uring_sqe *sqe;

	if (!r->armed || get_sqe(u, &sqe))
		return;
	io_uring_prep_cancel(sqe, r, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

static void run_cqe(uint64_t user_data, int res)
{
	struct uring_req *r;

	/* A kernel before 5.11 shows liburing's own timeouts here. */
	if (!user_data || user_data == LIBURING_UDATA_TIMEOUT)
		return;
	r = (struct uring_req *)(uintptr_t)user_data;
	r->armed = false;
	r->done(r, res);
}

/*
 * Run what is finished. Each batch is copied out and freed first, because a
 * done() may submit, and a submission may need room for its own completion.
 * What completes meanwhile is left for the next call, so that the caller's
 * loop is never held here.
 */
static unsigned reap(struct uring *u)
{
	struct { uint64_t user_data; int res; } batch[NR_BATCH];
	struct io_uring_cqe *cqe;
	unsigned left = io_uring_cq_ready(&u->ring), nr = 0, total = 0;
	unsigned head, i;

	while (left) {
		nr = 0;
		io_uring_for_each_cqe(&u->ring, head, cqe) {
			if (nr == NR_BATCH || nr == left)
				break;
			batch[nr].user_data = cqe->user_data;
			batch[nr].res = cqe->res;
			nr++;
		}
		io_uring_cq_advance(&u->ring, nr);
		for (i = 0; i < nr; i++) {
			run_cqe(batch[i].user_data, batch[i].res);
			total += batch[i].user_data && batch[i].user_data != LIBURING_UDATA_TIMEOUT;
		}
		left -= nr;
	}
	return total;
}

unsigned uring_poll(struct uring *u)
{
	unsigned flags = ld_rlx(u->ring.sq.kflags);

	/* One system call for both; what the submission itself brings in is seen next time. */
	if (unlikely(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
		(void)io_uring_submit_and_get_events(&u->ring);
	else
		uring_flush(u);
	return reap(u);
}

unsigned uring_wait(struct uring *u, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = (long long)(timeout_ns / NSEC_PER_SEC),
		.tv_nsec = (long long)(timeout_ns % NSEC_PER_SEC),
	};
	struct io_uring_cqe *cqe;

	if (!timeout_ns)
		return uring_poll(u);
	/* -ETIME and -EINTR only mean that there may be nothing to reap. */
	if (timeout_ns == UINT64_MAX)
		(void)io_uring_submit_and_wait(&u->ring, 1);
	else
		(void)io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
	return reap(u);
}
