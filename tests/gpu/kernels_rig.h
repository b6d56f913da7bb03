/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_rig.h - kernels on the fake driver's GPU, or on a real one. In the header: so
 * that kernels are in those programs only that run some.
 */
#ifndef KVMD_TESTS_GPU_KERNELS_RIG_H
#define KVMD_TESTS_GPU_KERNELS_RIG_H

#include <errno.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "tests/gpu/driver_rig.h"

/*
 * GPU 0 with kernels; on the fake driver with those for the CPU, and *ret_is_fake (may be
 * NULL). false, and said so: the GPU is a real one, and this was built without kernels.
 */
static inline bool kr_open(struct kn_dev **ret_d, bool *ret_is_fake)
{
	const bool is_fake = cr_fake("fakecuda_calls");
	const char *dir = getenv("KVMD_BUILD_DIR");
	char image[512], msg[256] = "";
	int r;

	if (is_fake) {
		snprintf(image, sizeof(image), "fakecuda:%s/fakecuda/kernels_host.so",
			 dir ? dir : "build");
		setenv("KVMD_KERNELS", image, 1);
		setenv("KVMD_FAKECUDA", "cpu=1", 1);
	}
	if (ret_is_fake)
		*ret_is_fake = is_fake;
	r = kn_cuda_open(0, ret_d, msg, sizeof(msg));
	if (r == -ENOTSUP && !is_fake) {
		printf("SKIP: %s\n", msg);
		return false;
	}
	if (r)
		ck_abort_msg("%s", msg);
	return true;
}

#endif
