// SPDX-License-Identifier: Apache-2.0
/*
 * codec_lossy_avx512.c - lossy codecs by 512-bit vectors (codec_lossy_body.h).
 */
#define LOSSY_VECTOR 512
#include "kvmd/tier/codec_lossy_body.h"
