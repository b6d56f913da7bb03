// SPDX-License-Identifier: Apache-2.0
/*
 * sum_avx512.c - copy and sum by 512-bit vectors (sum_body.h).
 */
#define SUM_VECTOR 512
#include "kvmd/lib/sum_body.h"
