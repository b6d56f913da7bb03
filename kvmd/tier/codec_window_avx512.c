// SPDX-License-Identifier: Apache-2.0
/*
 * codec_window_avx512.c - window's coding by 512-bit vectors (codec_window_body.h).
 */
#define WINDOW_VECTOR 512
#include "kvmd/tier/codec_window_body.h"
