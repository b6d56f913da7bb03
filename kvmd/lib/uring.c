// SPDX-License-Identifier: Apache-2.0
/*
 * uring.c - requests in, done() out, over liburing.
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

struct uring {
	struct io_uring ring;
};

/* Best flags first; each kernel takes the first line that it knows. */
static const unsigned setup_flags[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
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
	for (i = 0; i < ARRAY_SIZE(setup_flags) && err == -EINVAL; i++)
		err = io_uring_queue_init(entries, &u->ring, setup_flags[i]);
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

int uring_poll_fd(struct uring *u, struct uring_req *r, int fd, unsigned events)
{
	struct io_uring_sqe *sqe;
	int err;

	err = get_sqe(u, &sqe);
	if (err)
		return err;
	io_uring_prep_poll_add(sqe, fd, events);
	io_uring_sqe_set_data(sqe, r);
	r->armed = true;
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
	io_uring_sqe_set_data(sqe, r);
	r->armed = true;
	return 0;
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
	unsigned flags;

	if (io_uring_sq_ready(&u->ring))
		(void)io_uring_submit(&u->ring);	/* what stays queued goes next time */
	flags = ld_rlx(u->ring.sq.kflags);
	if (unlikely(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
		(void)io_uring_get_events(&u->ring);
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
