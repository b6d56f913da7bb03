// SPDX-License-Identifier: Apache-2.0
/*
 * codec_window_avx2.c - window's coding by 256-bit vectors (codec_window_body.h).
 */
#define WINDOW_VECTOR 256
#include "kvmd/tier/codec_window_body.h"
