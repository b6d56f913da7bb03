// SPDX-License-Identifier: Apache-2.0
/*
 * dev_cuda.c - kernels on a GPU, by the driver API alone.
 *
 * Everything goes through one stream, which is not ordered with the NULL stream, in the
 * GPU's primary context: memory that another library of the process maps there can be
 * named in arguments. Each call makes that context the thread's current one.
 *
 * What kn_put() is handed may be changed as soon as it returns, while a copy reads its
 * source late: small pieces are taken over into pinned memory, which is used from one
 * end to the other and then, when the stream is through, from the start again. Larger
 * ones are waited for.
 */
#include "kernels/dev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kvmd/cuda_abi.h"

#define STAGE_BYTES	(1u << 20)
#define STAGE_MOST	(1u << 18)	/* of one kn_put() */
#define STAGE_ALIGN	64u
#define MAX_IMAGES	32u
#define MAX_FILE	(1l << 28)
#define FAKE_IMAGE	"fakecuda:"	/* not a file: what the fake driver loads */

struct kn_cuda {
	struct kn_dev d;
	struct cu cu;
	int gpu;
	cu_ctx ctx;				/* NULL: not retained */
	cu_stream stream;			/* NULL: not made */
	char *stage;				/* STAGE_BYTES, pinned; NULL: none to be had */
	size_t stage_used;
	cu_module module[MAX_IMAGES];
	unsigned nr_modules;
	cu_function function[NR_KN_KERNEL];
};

static struct kn_cuda *of(struct kn_dev *d)
{
	return (struct kn_cuda *)d;
}

static int fail(struct kn_cuda *c, const char *what, int r)
{
	return kn_fail(&c->d, what, cu_error(&c->cu, r));
}

static int enter(struct kn_cuda *c)
{
	int r = c->cu.ctx_set(c->ctx);

	return r ? fail(c, "cuCtxSetCurrent", r) : 0;
}

static cu_ptr ptr(const void *p)
{
	return (uintptr_t)p;
}

/* ------------------------------------------------------------------ memory */

static int cuda_sync(struct kn_dev *d)
{
	struct kn_cuda *c = of(d);
	int r;

	if (enter(c))
		return -EIO;
	r = c->cu.stream_sync(c->stream);
	if (r)
		return fail(c, "cuStreamSynchronize", r);
	c->stage_used = 0;
	return 0;
}

static void *cuda_alloc(struct kn_dev *d, size_t bytes)
{
	struct kn_cuda *c = of(d);
	cu_ptr p;
	int r;

	if (enter(c))
		return NULL;
	r = c->cu.mem_alloc(&p, bytes);
	if (!r)
		return (void *)(uintptr_t)p;
	if (r != CU_OUT_OF_MEMORY)
		fail(c, "cuMemAlloc", r);
	return NULL;
}

static int cuda_free(struct kn_dev *d, void *p)
{
	struct kn_cuda *c = of(d);
	int r;

	if (cuda_sync(d))
		return -EIO;
	r = c->cu.mem_free(ptr(p));
	return r ? fail(c, "cuMemFree", r) : 0;
}

static int copy(struct kn_cuda *c, const void *dst, const void *src, size_t bytes)
{
	int r = c->cu.copy(ptr(dst), ptr(src), bytes, c->stream);

	return r ? fail(c, "cuMemcpyAsync", r) : 0;
}

/* A place for @bytes in pinned memory that no copy reads any more; NULL: failed. */
static char *stage(struct kn_cuda *c, size_t bytes)
{
	char *p;

	if (bytes > STAGE_BYTES - c->stage_used && cuda_sync(&c->d))
		return NULL;
	p = c->stage + c->stage_used;
	c->stage_used += (bytes + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
	return p;
}

static int cuda_put(struct kn_dev *d, void *dst, const void *host, size_t bytes)
{
	struct kn_cuda *c = of(d);
	char *p;

	if (enter(c))
		return -EIO;
	if (!c->stage || bytes > STAGE_MOST)
		return copy(c, dst, host, bytes) ? -EIO : cuda_sync(d);
	p = stage(c, bytes);
	return p ? copy(c, dst, memcpy(p, host, bytes), bytes) : -EIO;
}

static int cuda_get(struct kn_dev *d, void *host, const void *src, size_t bytes)
{
	struct kn_cuda *c = of(d);

	if (enter(c) || copy(c, host, src, bytes))
		return -EIO;
	return cuda_sync(d);
}

static int cuda_zero(struct kn_dev *d, void *dst, size_t bytes)
{
	struct kn_cuda *c = of(d);
	int r;

	if (enter(c))
		return -EIO;
	r = c->cu.set8(ptr(dst), 0, bytes, c->stream);
	return r ? fail(c, "cuMemsetD8Async", r) : 0;
}

static int cuda_copy(struct kn_dev *d, void *dst, const void *src, size_t bytes)
{
	return enter(of(d)) ? -EIO : copy(of(d), dst, src, bytes);
}

static int cuda_launch(struct kn_dev *d, enum kn_kernel k, const unsigned grid[3],
		       unsigned threads, const void *args)
{
	struct kn_cuda *c = of(d);
	void *list[] = { (void *)(uintptr_t)args };
	int r;

	if (enter(c))
		return -EIO;
	r = c->cu.launch(c->function[k], grid[0], grid[1], grid[2], threads, 1, 1, 0, c->stream,
			 list, NULL);
	return r ? fail(c, kn_kernel_name(k), r) : 0;
}

/* ------------------------------------------------------------------ images */

static int load_image(struct kn_cuda *c, const void *image, const char *name, char *msg,
		      size_t msg_bytes)
{
	int r;

	if (c->nr_modules == MAX_IMAGES) {
		snprintf(msg, msg_bytes, "more than %u images of kernels", MAX_IMAGES);
		return -ENOTSUP;
	}
	r = c->cu.module_load(&c->module[c->nr_modules], image);
	if (!r) {
		c->nr_modules++;
		return 0;
	}
	snprintf(msg, msg_bytes, "%s cannot be loaded on %s: %s%s", name, c->d.name,
		 cu_error(&c->cu, r),
		 r == CU_NO_BINARY ? ": they are for sm_80 and newer" : "");
	return cu_is_sticky(r) ? -EIO : -ENOTSUP;
}

/* All of a file and a NUL; NULL: errno says why. */
static char *read_file(const char *path)
{
	FILE *f = fopen(path, "re");
	struct stat st;
	char *text = NULL;

	if (!f)
		return NULL;
	if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode) || st.st_size > MAX_FILE) {
		errno = EINVAL;
	} else {
		text = calloc(1, (size_t)st.st_size + 1);
		if (text && fread(text, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
			free(text);
			text = NULL;
			errno = EIO;
		}
	}
	fclose(f);
	return text;
}

static int load_named(struct kn_cuda *c, const char *what, char *msg, size_t msg_bytes)
{
	char *image;
	int r;

	if (!strncmp(what, FAKE_IMAGE, strlen(FAKE_IMAGE)))
		return load_image(c, what, what, msg, msg_bytes);
	image = read_file(what);
	if (!image) {
		snprintf(msg, msg_bytes, "KVMD_KERNELS: %s cannot be read: %s", what,
			 strerror(errno));
		return -ENOTSUP;
	}
	r = load_image(c, image, what, msg, msg_bytes);
	free(image);
	return r;
}

static int load_images(struct kn_cuda *c, char *msg, size_t msg_bytes)
{
	const char *named = getenv("KVMD_KERNELS");
	int r = 0;

	if (named && *named)
		return load_named(c, named, msg, msg_bytes);
	if (!kn_images[0]) {
		snprintf(msg, msg_bytes, "built without nvcc, there are no kernels for %s: build "
			 "with CUDA=1, or name an image in KVMD_KERNELS", c->d.name);
		return -ENOTSUP;
	}
	for (unsigned i = 0; !r && kn_images[i]; i++)
		r = load_image(c, kn_images[i], "an embedded image of kernels", msg, msg_bytes);
	return r;
}

static int find_functions(struct kn_cuda *c, char *msg, size_t msg_bytes)
{
	for (unsigned k = 0; k < NR_KN_KERNEL; k++) {
		int r = CU_NOT_FOUND;

		for (unsigned m = 0; r == CU_NOT_FOUND && m < c->nr_modules; m++)
			r = c->cu.module_function(&c->function[k], c->module[m],
						  kn_kernel_name(k));
		if (!r)
			continue;
		snprintf(msg, msg_bytes, "the images of kernels have no %s (%s): they are of "
			 "another version", kn_kernel_name(k), cu_error(&c->cu, r));
		return -ENOTSUP;
	}
	return 0;
}

/* ------------------------------------------------------------------ life */

static void cuda_close(struct kn_dev *d)
{
	struct kn_cuda *c = of(d);

	/* After a failure most of these fail too; there is nothing left to do about it. */
	if (c->ctx)
		c->cu.ctx_set(c->ctx);
	if (c->stream) {
		c->cu.stream_sync(c->stream);
		c->cu.stream_destroy(c->stream);
	}
	while (c->nr_modules)
		c->cu.module_unload(c->module[--c->nr_modules]);
	if (c->stage) {
		c->cu.host_unregister(c->stage);
		munmap(c->stage, STAGE_BYTES);
	}
	if (c->ctx) {
		c->cu.ctx_set(NULL);
		c->cu.ctx_release(c->gpu);
	}
	/* The driver stays loaded: others of the process may use it, and it has threads. */
	free(c);
}

static const struct kn_dev_ops cuda_ops = {
	.close = cuda_close, .alloc = cuda_alloc, .free = cuda_free, .put = cuda_put,
	.get = cuda_get, .zero = cuda_zero, .copy = cuda_copy, .launch = cuda_launch,
	.sync = cuda_sync,
};

/* Pinned memory that a child does not get; without it kn_put() waits. */
static void open_stage(struct kn_cuda *c)
{
	char *p = mmap(NULL, STAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	if (p == MAP_FAILED)
		return;
	if (madvise(p, STAGE_BYTES, MADV_DONTFORK) ||
	    c->cu.host_register(p, STAGE_BYTES, CU_HOST_PORTABLE)) {
		munmap(p, STAGE_BYTES);
		return;
	}
	c->stage = p;
}

static int open_context(struct kn_cuda *c, int ordinal, char *msg, size_t msg_bytes)
{
	int nr = 0, r;

	r = c->cu.device_count(&nr);
	if (!r && (ordinal < 0 || ordinal >= nr)) {
		snprintf(msg, msg_bytes, "no GPU %d: this process sees %d, from 0 on (see "
			 "CUDA_VISIBLE_DEVICES)", ordinal, nr);
		return -ENODEV;
	}
	if (!r)
		r = c->cu.device_get(&c->gpu, ordinal);
	if (!r)
		r = c->cu.device_name(c->d.name, (int)sizeof(c->d.name), c->gpu);
	if (!r)
		r = c->cu.ctx_retain(&c->ctx, c->gpu);
	if (!r)
		r = c->cu.ctx_set(c->ctx);
	if (!r)
		r = c->cu.stream_create(&c->stream, CU_STREAM_OWN_ORDER, 0);
	if (!r)
		return 0;
	snprintf(msg, msg_bytes, "GPU %d cannot be used: %s (see nvidia-smi)", ordinal,
		 cu_error(&c->cu, r));
	return r == CU_OUT_OF_MEMORY ? -ENOMEM : -ENODEV;
}

int kn_cuda_open(int ordinal, struct kn_dev **ret_d, char *msg, size_t msg_bytes)
{
	struct kn_cuda *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		snprintf(msg, msg_bytes, "no memory");
		return -ENOMEM;
	}
	c->d.ops = &cuda_ops;
	c->d.is_cuda = true;
	if (cu_load(&c->cu, msg, msg_bytes)) {
		free(c);
		return -ENODEV;
	}
	r = open_context(c, ordinal, msg, msg_bytes);
	if (!r)
		r = load_images(c, msg, msg_bytes);
	if (!r)
		r = find_functions(c, msg, msg_bytes);
	if (r) {
		cuda_close(&c->d);
		return r;
	}
	open_stage(c);
	c->d.stream = c->stream;
	*ret_d = &c->d;
	return 0;
}
