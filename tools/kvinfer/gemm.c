// SPDX-License-Identifier: Apache-2.0
/*
 * gemm.c - products of matrices, by a library or by the kernel.
 *
 * Invariant: a row of c is a function of that row of a, of b and of m alone, bit for
 * bit, wherever the row is. Libraries do not promise that: they cut m into pieces for
 * which they have different code, which may add in another order. So each (m, n, k) is
 * tried once, with equal rows, and computed in pieces of as many rows as make equal
 * rows equal; where none does, by the kernel.
 *
 * One thread, as the device.
 */
#include "tools/kvinfer/model_int.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/base.h"

/* How an (m, n, k) is computed. */
struct plan {
	uint32_t m, n, k;
	uint32_t rows;			/* of a call to the library; 0: the kernel does it */
};

struct ki_gemm {
	struct kn_dev *dev;
	const struct ki_gemm_lib *lib;	/* NULL: the kernel does all */
	void *handle;			/* the library's */
	struct plan *plan;
	uint32_t nr_plans, cap;
	char msg[KI_TEXT];		/* why the last call failed */
};

/* ---------------------------------------------------------------- OpenBLAS */

#define OPENBLAS	"libopenblas.so.0"
#define ROW_MAJOR	101		/* CBLAS's numbers */
#define NO_TRANS	111
#define TRANS		112

struct openblas {
	void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
		      const float *a, int lda, const float *b, int ldb, float beta, float *c,
		      int ldc);
	void (*set_num_threads)(int n);
};

static int openblas_open(struct kn_dev *dev, int threads, void **ret_lib, char *msg)
{
	struct openblas *o;
	char nr[16];
	void *dl;

	(void)dev;
	/* It starts its threads when it is loaded: not more than are wanted. */
	snprintf(nr, sizeof(nr), "%d", max(threads, 1));
	setenv("OPENBLAS_NUM_THREADS", nr, 0);
	/* It stays loaded: its threads run until the process ends. */
	dl = dlopen(OPENBLAS, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!dl)
		return ki_refuse(msg, -ENOENT, "no OpenBLAS: %.120s (Debian: "
				 "libopenblas0-pthread)", dlerror());
	o = calloc(1, sizeof(*o));
	if (!o) {
		dlclose(dl);
		return ki_refuse(msg, -ENOMEM, "no memory");
	}
	*(void **)&o->sgemm = dlsym(dl, "cblas_sgemm");
	*(void **)&o->set_num_threads = dlsym(dl, "openblas_set_num_threads");
	dlclose(dl);
	if (!o->sgemm || !o->set_num_threads) {
		free(o);
		return ki_refuse(msg, -ENOENT, OPENBLAS " has no cblas_sgemm: another one is "
				 "needed (Debian: libopenblas0-pthread)");
	}
	o->set_num_threads(max(threads, 1));
	*ret_lib = o;
	return 0;
}

static int openblas_gemm(void *lib, uint32_t m, uint32_t n, uint32_t k, const float *a,
			 const float *b, float *c, char *msg)
{
	struct openblas *o = lib;

	(void)msg;
	o->sgemm(ROW_MAJOR, NO_TRANS, TRANS, (int)m, (int)n, (int)k, 1, a, (int)k, b, (int)k, 0,
		 c, (int)n);
	return 0;
}

const struct ki_gemm_lib ki_gemm_openblas = {
	.name = "openblas", .open = openblas_open, .gemm = openblas_gemm, .close = free,
};

/* ------------------------------------------------------------------- plans */

static int plain(struct ki_gemm *g, uint32_t m, uint32_t n, uint32_t k, const float *a,
		 const float *b, float *c)
{
	struct kn_gemm_args args = { .a = a, .b = b, .c = c, .m = m, .n = n, .k = k };
	int err;

	err = kn_launch(g->dev, KN_GEMM, (unsigned)div_round_up(n, 64),
			(unsigned)div_round_up(m, 16), 1, 0, &args);
	return err ? ki_refuse(g->msg, err, "kn_gemm: %s", kn_error(g->dev)) : 0;
}

static int compute(struct ki_gemm *g, const struct plan *p, const float *a, const float *b,
		   float *c)
{
	uint32_t at, rows;
	int err = 0;

	if (!p->rows)
		return plain(g, p->m, p->n, p->k, a, b, c);
	for (at = 0; at < p->m && !err; at += rows) {
		rows = min(p->rows, p->m - at);
		err = g->lib->gemm(g->handle, rows, p->n, p->k, a + (uint64_t)at * p->k, b,
				   c + (uint64_t)at * p->n, g->msg);
	}
	return err;
}

/* @a gets m equal rows, of numbers of both signs that fill a mantissa. */
static int put_equal_rows(struct ki_gemm *g, const struct plan *p, float *a, float *host)
{
	uint64_t bytes = p->k * sizeof(*host);
	uint32_t i, z = 1;
	int err = 0;

	for (i = 0; i < p->k; i++) {
		z ^= z << 13;		/* xorshift32 (Marsaglia 2003) */
		z ^= z >> 17;
		z ^= z << 5;
		host[i] = (float)(int32_t)z * 0x1p-31f;
	}
	for (i = 0; i < p->m && !err; i++)
		err = kn_put(g->dev, a + (uint64_t)i * p->k, host, bytes);
	return err;
}

/* 1: the rows of @c are equal; 0: not; or -errno. */
static int has_equal_rows(struct ki_gemm *g, const struct plan *p, const float *c, float *host)
{
	uint64_t bytes = p->n * sizeof(*host);
	uint32_t i;
	int err;

	err = kn_get(g->dev, host, c, p->m * bytes);
	for (i = 1; i < p->m && !err; i++)
		if (memcmp(host, host + (uint64_t)i * p->n, bytes))
			return 0;
	return err ? err : 1;
}

/* Sets p->rows. @c is scratch. */
static int choose(struct ki_gemm *g, struct plan *p, const float *b, float *c)
{
	static const uint32_t tries[] = { UINT32_MAX, 64, 32, 16, 8, 4, 2, 1, 0 };
	uint64_t most = max((uint64_t)p->m * p->n, (uint64_t)p->k);
	float *a = kn_alloc(g->dev, (uint64_t)p->m * p->k * sizeof(*a));
	float *host = malloc(most * sizeof(*host));
	int err = -ENOMEM, same = 0;
	size_t i;

	if (!a || !host) {
		ki_refuse(g->msg, err, "no memory to try a product of %u * %u * %u", p->m, p->n,
			  p->k);
		goto out;
	}
	err = put_equal_rows(g, p, a, host);
	for (i = 0; i < ARRAY_SIZE(tries) && !err && !same; i++) {
		if (i && tries[i] >= p->m)
			continue;
		p->rows = min(tries[i], p->m);
		if (!p->rows)
			break;
		err = compute(g, p, a, b, c);
		if (err)
			goto out;
		same = has_equal_rows(g, p, c, host);
		if (same < 0)
			err = same;
	}
	if (err)
		ki_refuse(g->msg, err, "%s: %s", kn_dev_name(g->dev), kn_error(g->dev));
out:
	free(host);
	kn_free(g->dev, a);
	return err;
}

static int plan_for(struct ki_gemm *g, uint32_t m, uint32_t n, uint32_t k, const float *b, float *c,
		    const struct plan **ret_p)
{
	struct plan p = { .m = m, .n = n, .k = k }, *more;
	uint32_t i;
	int err;

	for (i = 0; i < g->nr_plans; i++)
		if (g->plan[i].m == m && g->plan[i].n == n && g->plan[i].k == k) {
			*ret_p = &g->plan[i];
			return 0;
		}
	err = choose(g, &p, b, c);
	if (err)
		return err;
	if (g->nr_plans == g->cap) {
		more = realloc(g->plan, (g->cap + 32) * sizeof(*more));
		if (!more)
			return ki_refuse(g->msg, -ENOMEM, "no memory");
		g->plan = more;
		g->cap += 32;
	}
	g->plan[g->nr_plans] = p;
	*ret_p = &g->plan[g->nr_plans++];
	return 0;
}

/* ------------------------------------------------------------------ public */

/* The fake driver runs no kernels of cuBLAS. */
static bool is_fake(const struct kn_dev *dev)
{
	const char *named = getenv("KVMD_KERNELS");

	return kn_is_cuda(dev) && named && !strncmp(named, "fakecuda:", 9);
}

int ki_gemm_open(struct kn_dev *dev, enum ki_gemm_kind kind, int threads, struct ki_gemm **ret_g,
		 char *msg)
{
	const struct ki_gemm_lib *lib = kn_is_cuda(dev) ? &ki_gemm_cublas : &ki_gemm_openblas;
	struct ki_gemm *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return ki_refuse(msg, -ENOMEM, "no memory");
	g->dev = dev;
	if (kind == KI_GEMM_BLAS || (kind == KI_GEMM_AUTO && !is_fake(dev))) {
		err = lib->open(dev, threads, &g->handle, msg);
		if (!err) {
			g->lib = lib;
		} else if (kind == KI_GEMM_BLAS || (err != -ENOENT && err != -ENOTSUP)) {
			free(g);
			return err;
		}
	}
	*ret_g = g;
	return 0;
}

int ki_gemm(struct ki_gemm *g, uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
	    float *c)
{
	const struct plan *p = NULL;
	int err;

	if (!m || !n)
		return 0;
	if (!k)
		return ki_refuse(g->msg, -EINVAL, "a product over nothing");
	if (!g->lib)
		return plain(g, m, n, k, a, b, c);
	err = plan_for(g, m, n, k, b, c, &p);
	return err ? err : compute(g, p, a, b, c);
}

const char *ki_gemm_name(const struct ki_gemm *g)
{
	return g->lib ? g->lib->name : "plain";
}

const char *ki_gemm_error(const struct ki_gemm *g)
{
	return g->msg;
}

void ki_gemm_close(struct ki_gemm *g)
{
	if (!g)
		return;
	if (g->lib)
		g->lib->close(g->handle);
	free(g->plan);
	free(g);
}
