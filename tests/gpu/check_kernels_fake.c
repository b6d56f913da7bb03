// SPDX-License-Identifier: Apache-2.0
/*
 * check_kernels_fake.c - a GPU for kernels that is not there, fails, or has no kernels.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "tests/gpu/fake_rig.h"

static char msg[256];

/* As run-tests.sh says where, else as make does. */
static void image_is(const char *name)
{
	const char *dir = getenv("KVMD_BUILD_DIR");
	char image[512];

	snprintf(image, sizeof(image), "fakecuda:%s/fakecuda/%s", dir ? dir : "build", name);
	setenv("KVMD_KERNELS", image, 1);
}

static int gpu_open(const char *told, int ordinal, struct kn_dev **ret_d)
{
	fake_told(told);
	msg[0] = 0;
	return kn_cuda_open(ordinal, ret_d, msg, sizeof(msg));
}

static struct kn_dev *opened(const char *told)
{
	struct kn_dev *d = NULL;

	image_is("kernels_host.so");
	ck_assert_msg(!gpu_open(told, 0, &d), "%s", msg);
	return d;
}

#define SAYS(text)	ck_assert_msg(strstr(msg, text), "\"%s\" is not in \"%s\"", text, msg)

/* ------------------------------------------------------------------ opening */

START_TEST(no_such_gpu)
{
	struct kn_dev *d = NULL;

	image_is("kernels_host.so");
	ck_assert_int_eq(gpu_open("cpu=1,gpus=2", 2, &d), -ENODEV);
	SAYS("no GPU 2");
	SAYS("CUDA_VISIBLE_DEVICES");
	ck_assert_int_eq(gpu_open("cpu=1,gpus=2", -1, &d), -ENODEV);
	ck_assert_int_eq(gpu_open("cpu=1,gpus=2", 1, &d), 0);
	ck_assert(kn_is_cuda(d));
	ck_assert_str_ne(kn_dev_name(d), "");
	kn_close(d);
}
END_TEST

START_TEST(no_driver)
{
	struct kn_dev *d = NULL;

	image_is("kernels_host.so");
	ck_assert_int_eq(gpu_open("gpus=0", 0, &d), -ENODEV);
	ck_assert_ptr_null(d);
	ck_assert_str_ne(msg, "");
}
END_TEST

START_TEST(no_kernels)
{
	char path[512];
	struct kn_dev *d = NULL;
	FILE *f;

	/* What is embedded, if anything, is not for this driver. */
	unsetenv("KVMD_KERNELS");
	ck_assert_int_eq(gpu_open("cpu=1", 0, &d), -ENOTSUP);
	ck_assert_msg(strstr(msg, "built without nvcc") || strstr(msg, "cannot be loaded"), "%s",
		      msg);
	setenv("KVMD_KERNELS", "/nonexistent/kernels", 1);
	ck_assert_int_eq(gpu_open("cpu=1", 0, &d), -ENOTSUP);
	SAYS("/nonexistent/kernels");
	setenv("KVMD_KERNELS", "/", 1);
	ck_assert_int_eq(gpu_open("cpu=1", 0, &d), -ENOTSUP);
	SAYS("cannot be read");
	image_is("none.so");
	ck_assert_int_eq(gpu_open("cpu=1", 0, &d), -ENOTSUP);
	SAYS("CUDA_ERROR_INVALID_IMAGE");
	/* Those of the fake driver's own test. */
	image_is("kernels.so");
	ck_assert_int_eq(gpu_open("cpu=1", 0, &d), -ENOTSUP);
	SAYS("kn_embed");
	SAYS("another version");
	/* A file that is an image, or not. */
	snprintf(path, sizeof(path), "%s.image", fake_state());
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs("no image at all", f);
	fclose(f);
	setenv("KVMD_KERNELS", path, 1);
	ck_assert_int_eq(gpu_open("cpu=1", 0, &d), -ENOTSUP);
	SAYS("CUDA_ERROR_INVALID_IMAGE");
	image_is("kernels_host.so");
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(getenv("KVMD_KERNELS"), f);
	fclose(f);
	setenv("KVMD_KERNELS", path, 1);
	ck_assert_msg(!gpu_open("cpu=1", 0, &d), "%s", msg);
	unlink(path);
	kn_close(d);
}
END_TEST

/* Whatever fails first: an error that says so, and nothing is left in use. */
static const struct {
	const char *told;
	int r;
	const char *says;
} open_fails[] = {
	{ "fail=cuDeviceGetName:1", -ENODEV, "CUDA_ERROR_UNKNOWN" },
	{ "fail=cuDevicePrimaryCtxRetain:1:2", -ENOMEM,
	  "CUDA_ERROR_OUT_OF_MEMORY" },
	{ "fail=cuDevicePrimaryCtxRetain:1:46", -ENODEV,
	  "CUDA_ERROR_DEVICE_UNAVAILABLE" },
	{ "fail=cuStreamCreateWithPriority:1", -ENODEV, "nvidia-smi" },
	{ "fail=cuModuleLoadData:1:209", -ENOTSUP, "sm_80" },
	{ "fail=cuModuleGetFunction:5:400", -ENOTSUP,
	  "CUDA_ERROR_INVALID_HANDLE" },
};
#define NR_OPEN_FAILS	((int)(sizeof(open_fails) / sizeof(open_fails[0])))

START_TEST(opening_fails)
{
	struct kn_dev *d = NULL;
	char told[160];

	snprintf(told, sizeof(told), "cpu=1,%s", open_fails[_i].told);
	image_is("kernels_host.so");
	ck_assert_int_eq(gpu_open(told, 0, &d), open_fails[_i].r);
	ck_assert_ptr_null(d);
	SAYS(open_fails[_i].says);
	ck_assert_uint_eq(fake_sum().nr_mem, 0);
	/* It was the first, or the fifth, time only. */
	ck_assert_msg(!gpu_open(told, 0, &d), "%s", msg);
	kn_close(d);
}
END_TEST

/* -------------------------------------------------------------------- using */

START_TEST(what_is_launched_is_refused_as_on_the_cpu)
{
	struct kn_dev *d = opened("cpu=1");
	struct kn_add_args a = { 0 };

	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 65536, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, KN_MAX_THREADS + 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, 0, NULL), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, 0, &a), 0);
	ck_assert_int_eq(kn_sync(d), 0);
	ck_assert_str_eq(kn_error(d), "");
	kn_close(d);
}
END_TEST

START_TEST(arguments_are_taken_at_the_launch)
{
	struct kn_dev *d = opened("cpu=1,delay=2000");
	float x[16], y[16], back[16];
	struct kn_add_args a;

	for (int i = 0; i < 16; i++) {
		x[i] = (float)i;
		y[i] = 100;
	}
	a = (struct kn_add_args){ kn_alloc(d, 64), kn_alloc(d, 64), 16 };
	ck_assert(a.x && a.y);
	ck_assert_int_eq(kn_put(d, a.x, x, 64), 0);
	ck_assert_int_eq(kn_put(d, (void *)(uintptr_t)a.y, y, 64), 0);
	for (int i = 0; i < 20; i++) {
		struct kn_add_args once = a;

		ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, 0, &once), 0);
		memset(&once, 0xff, sizeof(once));
	}
	ck_assert_int_eq(kn_get(d, back, a.x, 64), 0);
	for (int i = 0; i < 16; i++)
		ck_assert(back[i] == (float)(2000 + i));
	kn_free(d, a.x);
	kn_free(d, (void *)(uintptr_t)a.y);
	kn_close(d);
	ck_assert_uint_eq(fake_sum().nr_mem, 0);
	ck_assert_uint_eq(fake_sum().violations, 0);
}
END_TEST

START_TEST(no_memory_is_no_failure)
{
	struct kn_dev *d = opened("cpu=1,mem=64M");
	void *p;

	ck_assert_ptr_null(kn_alloc(d, 1ul << 40));
	ck_assert_str_eq(kn_error(d), "");
	p = kn_alloc(d, 1 << 20);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(kn_zero(d, p, 1 << 20), 0);
	kn_free(d, p);
	kn_close(d);
}
END_TEST

START_TEST(without_pinned_memory)
{
	struct kn_dev *d = opened("cpu=1,fail=cuMemHostRegister:1");
	uint64_t v = 1, back = 0;
	void *p = kn_alloc(d, 8);

	ck_assert_int_eq(kn_put(d, p, &v, 8), 0);
	v = 2;
	ck_assert_int_eq(kn_get(d, &back, p, 8), 0);
	ck_assert_uint_eq(back, 1);
	kn_free(d, p);
	kn_close(d);
}
END_TEST

static const struct {
	const char *told;
	const char *says[2];
} use_fails[] = {
	{ "fail=cuLaunchKernel:2:719",
	  { "kn_add", "CUDA_ERROR_LAUNCH_FAILED" } },
	{ "fail=cuMemcpyAsync:2:700",
	  { "cuMemcpyAsync", "CUDA_ERROR_ILLEGAL_ADDRESS" } },
	{ "fail=cuMemsetD8Async:2", { "cuMemsetD8Async", "CUDA_ERROR_UNKNOWN" } },
	{ "fail=cuStreamSynchronize:2:214",
	  { "cuStreamSynchronize", "CUDA_ERROR_ECC_UNCORRECTABLE" } },
	{ "ecc=2", { "", "CUDA_ERROR_ECC_UNCORRECTABLE" } },
	{ "fail=cuMemAlloc:3:800",
	  { "cuMemAlloc", "CUDA_ERROR_NOT_PERMITTED" } },
};
#define NR_USE_FAILS	((int)(sizeof(use_fails) / sizeof(use_fails[0])))

/* All that can be done, once. */
static int use(struct kn_dev *d, struct kn_add_args *a)
{
	float x[16] = { 0 };
	void *more = kn_alloc(d, 16);
	int r = more ? 0 : -EIO;

	kn_free(d, more);
	r = r ? r : kn_put(d, a->x, x, sizeof(x));
	r = r ? r : kn_launch(d, KN_ADD, 1, 1, 1, 0, a);
	r = r ? r : kn_copy(d, a->x, a->y, sizeof(x));
	r = r ? r : kn_zero(d, a->x, sizeof(x));
	r = r ? r : kn_get(d, x, a->x, sizeof(x));
	return r ? r : kn_sync(d);
}

START_TEST(a_failure_is_for_good)
{
	char told[160], first[200];
	struct kn_add_args a = { .n = 16 };
	struct kn_dev *d;
	float x[16];
	int r = 0;

	snprintf(told, sizeof(told), "cpu=1,%s", use_fails[_i].told);
	d = opened(told);
	a.x = kn_alloc(d, 64);
	a.y = kn_alloc(d, 64);
	ck_assert(a.x && a.y);
	for (int i = 0; !r && i < 3; i++)
		r = use(d, &a);
	ck_assert_int_eq(r, -EIO);
	snprintf(first, sizeof(first), "%s", kn_error(d));
	for (int i = 0; i < 2; i++)
		ck_assert_msg(strstr(first, use_fails[_i].says[i]), "%s", first);
	/* The driver is not asked again, and the first reason stays. */
	ck_assert_int_eq(kn_sync(d), -EIO);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, 0, &a), -EIO);
	ck_assert_int_eq(kn_put(d, a.x, x, 64), -EIO);
	ck_assert_int_eq(kn_get(d, x, a.x, 64), -EIO);
	ck_assert_int_eq(kn_zero(d, a.x, 64), -EIO);
	ck_assert_int_eq(kn_copy(d, a.x, a.y, 64), -EIO);
	ck_assert_ptr_null(kn_alloc(d, 64));
	kn_free(d, a.x);
	ck_assert_str_eq(kn_error(d), first);
	kn_close(d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels on the fake driver");
	TCase *t;

	if (!fake_is_loaded())
		return 77;
	t = fake_case(s, "opening");
	tcase_add_test(t, no_such_gpu);
	tcase_add_test(t, no_driver);
	tcase_add_test(t, no_kernels);
	tcase_add_loop_test(t, opening_fails, 0, NR_OPEN_FAILS);
	t = fake_case(s, "using");
	tcase_add_test(t, what_is_launched_is_refused_as_on_the_cpu);
	tcase_add_test(t, arguments_are_taken_at_the_launch);
	tcase_add_test(t, no_memory_is_no_failure);
	tcase_add_test(t, without_pinned_memory);
	tcase_add_loop_test(t, a_failure_is_for_good, 0, NR_USE_FAILS);
	return cr_main(s);
}
