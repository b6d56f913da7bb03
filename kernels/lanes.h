/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lanes.h - sums and maxima over what the threads of a block have seen. With shim.h.
 *
 * KN_LANES values in shared memory become one, in the first of them, by halves: value
 * i takes value i + KN_LANES / 2, and so on. The order does not depend on the number
 * of threads. Outside of phases.
 */
#ifndef KVMD_KERNELS_LANES_H
#define KVMD_KERNELS_LANES_H

#define KN_LANES	256u

#define KN_LANES_SUM(part) \
	for (unsigned half_ = KN_LANES / 2; half_; half_ /= 2) \
		KN_THREADS(t) \
			for (unsigned l_ = t; l_ < half_; l_ += kn_threads) \
				(part)[l_] += (part)[l_ + half_]

#define KN_LANES_MAX(part) \
	for (unsigned half_ = KN_LANES / 2; half_; half_ /= 2) \
		KN_THREADS(t) \
			for (unsigned l_ = t; l_ < half_; l_ += kn_threads) \
				if ((part)[l_] < (part)[l_ + half_]) \
					(part)[l_] = (part)[l_ + half_]

#endif
