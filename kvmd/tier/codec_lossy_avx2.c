// SPDX-License-Identifier: Apache-2.0
/*
 * codec_lossy_avx2.c - lossy codecs by 256-bit vectors (codec_lossy_body.h).
 */
#define LOSSY_VECTOR 256
#include "kvmd/tier/codec_lossy_body.h"
