// SPDX-License-Identifier: Apache-2.0
/*
 * sum_avx2.c - copy and sum by 256-bit vectors (sum_body.h).
 */
#define SUM_VECTOR 256
#include "kvmd/lib/sum_body.h"
