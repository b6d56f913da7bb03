// SPDX-License-Identifier: Apache-2.0
/*
 * tier_bare.c - floors without kvmd: a fixed-buffer loop, streaming copies.
 */
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tools/kvbench/tier.h"

#define MAX_DEPTH	32u
#define MAX_LAT		65536u

/* ------------------------------------------------------------------ io_uring */

struct loop {
	struct io_uring ring;
	int fd;
	uint8_t *buf;
	uint64_t block, nr_places, next;
	uint64_t start[MAX_DEPTH];
	bool write;
};

static double lat[MAX_LAT];

static void put(struct loop *l, unsigned i)
{
	struct io_uring_sqe *s = io_uring_get_sqe(&l->ring);
	uint64_t off = l->next++ % l->nr_places * l->block;
	void *p = l->buf + i * l->block;

	if (l->write)
		io_uring_prep_write_fixed(s, 0, p, (unsigned)l->block, off, 0);
	else
		io_uring_prep_read_fixed(s, 0, p, (unsigned)l->block, off, 0);
	s->flags |= IOSQE_FIXED_FILE;
	s->user_data = i;
	l->start[i] = time_ns();
}

static void loop_init(struct loop *l, const char *path, uint64_t block, unsigned depth)
{
	struct iovec iov;
	struct stat st;

	l->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (l->fd < 0 || fstat(l->fd, &st))
		kvb_die("%s: %s", path, strerror(errno));
	l->block = block;
	l->nr_places = (uint64_t)st.st_size / block;
	l->buf = (uint8_t *)mmap(NULL, block * depth, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (l->buf == MAP_FAILED || !l->nr_places)
		kvb_die("no memory, or an empty file");
	memset(l->buf, 0x5a, block * depth);
	iov = (struct iovec) { l->buf, block * depth };
	if (io_uring_queue_init(MAX_DEPTH, &l->ring,
				IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN) &&
	    io_uring_queue_init(MAX_DEPTH, &l->ring, 0))
		kvb_die("io_uring: %s", strerror(errno));
	if (io_uring_register_buffers(&l->ring, &iov, 1) ||
	    io_uring_register_files(&l->ring, &l->fd, 1))
		kvb_die("io_uring: buffers of %llu bytes cannot be registered (ulimit -l?)",
			(unsigned long long)iov.iov_len);
}

void bare_io(const char *path, bool write, bool look, uint64_t block, unsigned depth,
	     uint64_t for_ns, struct bare_io *ret_r)
{
	struct loop l = { .write = write };
	uint64_t start, cpu, now, nr = 0;
	volatile uint64_t sink = 0;
	unsigned inflight = depth;
	struct io_uring_cqe *c;

	loop_init(&l, path, block, depth);
	start = time_ns();
	cpu = cpu_ns();
	for (unsigned i = 0; i < depth; i++)
		put(&l, i);
	for (now = start; inflight;) {
		if (io_uring_submit_and_wait(&l.ring, 1) < 0)
			kvb_die("io_uring: %s", strerror(errno));
		now = time_ns();
		while (!io_uring_peek_cqe(&l.ring, &c)) {
			unsigned i = (unsigned)c->user_data;

			if (c->res != (int)block)
				kvb_die("%s: a bare %s ended with %d", path,
					write ? "write" : "read", c->res);
			io_uring_cqe_seen(&l.ring, c);
			if (look)
				sink = sink + sum_of(l.buf + i * block, block);
			lat[nr % MAX_LAT] = (double)(now - l.start[i]);
			nr++;
			if (now - start < for_ns)
				put(&l, i);
			else
				inflight--;
		}
	}
	ret_r->bps = (double)(nr * block) * 1e9 / (double)(now - start);
	ret_r->cpu_ns = (double)(cpu_ns() - cpu) / (double)nr;
	ret_r->p50_ns = kvb_median(lat, (unsigned)min(nr, (uint64_t)MAX_LAT));
	io_uring_queue_exit(&l.ring);
	munmap(l.buf, block * depth);
	close(l.fd);
}

/* ------------------------------------------------------------------- copies */

static void copy_plain(uint8_t *d, const uint8_t *s, uint64_t n)
{
	memcpy(d, s, n);
}

#if defined(__x86_64__)
__attribute__((target("avx512f")))
static void copy_avx512(uint8_t *d, const uint8_t *s, uint64_t n)
{
	for (uint64_t i = 0; i < n; i += 256) {
		__m512i a, b, e, f;

		_mm_prefetch((const char *)s + i + 1024, _MM_HINT_T0);
		_mm_prefetch((const char *)s + i + 1152, _MM_HINT_T0);
		a = _mm512_loadu_si512(s + i);
		b = _mm512_loadu_si512(s + i + 64);
		e = _mm512_loadu_si512(s + i + 128);
		f = _mm512_loadu_si512(s + i + 192);
		_mm512_stream_si512((__m512i *)(void *)(d + i), a);
		_mm512_stream_si512((__m512i *)(void *)(d + i + 64), b);
		_mm512_stream_si512((__m512i *)(void *)(d + i + 128), e);
		_mm512_stream_si512((__m512i *)(void *)(d + i + 192), f);
	}
	_mm_sfence();
}

__attribute__((target("avx2")))
static void copy_avx2(uint8_t *d, const uint8_t *s, uint64_t n)
{
	for (uint64_t i = 0; i < n; i += 128) {
		const __m256i *from = (const __m256i *)(const void *)(s + i);
		__m256i *to = (__m256i *)(void *)(d + i), v[4];

		_mm_prefetch((const char *)s + i + 1024, _MM_HINT_T0);
		for (int k = 0; k < 4; k++)
			v[k] = _mm256_loadu_si256(from + k);
		for (int k = 0; k < 4; k++)
			_mm256_stream_si256(to + k, v[k]);
	}
	_mm_sfence();
}
#endif

typedef void copy_fn(uint8_t *d, const uint8_t *s, uint64_t n);

static copy_fn *best_copy(const char **ret_name)
{
	copy_fn *fn = copy_plain;

	*ret_name = "memcpy";
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2")) {
		fn = copy_avx2;
		*ret_name = "avx2";
	}
	if (__builtin_cpu_supports("avx512f")) {
		fn = copy_avx512;
		*ret_name = "avx512";
	}
#endif
	return fn;
}

const char *bare_copy_name(void)
{
	const char *name;

	best_copy(&name);
	return name;
}

struct copy_job {
	const struct bare_copy *c;
	uint64_t for_ns;
	double bps;
};

static void *copy_thread(void *p)
{
	struct copy_job *j = (struct copy_job *)p;
	const struct bare_copy *c = j->c;
	uint64_t start, k = 0, now;
	const char *name;
	copy_fn *fn = c->streaming ? best_copy(&name) : copy_plain;

	cpu_server();
	start = time_ns();
	do {
		/* There and back, as a block that is demoted and one that comes back. */
		fn(c->b[copy_pick(k, c->nr)], c->a[copy_pick(k, c->nr)], c->block);
		fn(c->a[copy_pick(k + c->nr / 3, c->nr)], c->b[copy_pick(k + c->nr / 2, c->nr)],
		   c->block);
		k++;
		now = time_ns();
	} while (now - start < j->for_ns);
	j->bps = (double)(2 * k * c->block) * 1e9 / (double)(now - start);
	return NULL;
}

double bare_copy(const struct bare_copy *c, uint64_t for_ns)
{
	struct copy_job j = { .c = c, .for_ns = for_ns };
	pthread_t t;

	if (pthread_create(&t, NULL, copy_thread, &j))
		kvb_die("no thread");
	pthread_join(t, NULL);
	return j.bps;
}
