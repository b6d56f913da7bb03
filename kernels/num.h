/* SPDX-License-Identifier: Apache-2.0 */
/*
 * num.h - small floating point formats, bit by bit, the same in C, C++ and CUDA.
 *
 * bf16 (the upper half of an IEEE 754 binary32), fp16 (binary16), e4m3 and e5m2
 * (OCP 8-bit Floating Point Specification 1.0). To a smaller format: round to
 * nearest even; fp16 overflows to infinity, fp8 saturates; NaN stays NaN, in fp8 0x7f
 * or 0xff. A pattern of kvmd/tier's codec is the same pattern here.
 */
#ifndef KVMD_KERNELS_NUM_H
#define KVMD_KERNELS_NUM_H

#include <stdint.h>

#ifdef __CUDACC__
#define KN_NUM		static __host__ __device__ __forceinline__
#else
#define KN_NUM		static inline
#endif

/* How values of K and V are stored. */
enum kn_dtype { KN_BF16, KN_F16, KN_E4M3, KN_E5M2, KN_F32, NR_KN_DTYPE };

KN_NUM uint32_t kn_bits(float f)
{
	union { float f; uint32_t u; } x = { .f = f };

	return x.u;
}

KN_NUM float kn_float(uint32_t u)
{
	union { uint32_t u; float f; } x = { .u = u };

	return x.f;
}

KN_NUM float kn_from_bf16(uint16_t h)
{
	return kn_float((uint32_t)h << 16);
}

KN_NUM uint16_t kn_to_bf16(float f)
{
	uint32_t u = kn_bits(f);

	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40);	/* NaN, quiet */
	return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

KN_NUM float kn_from_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h >> 10 & 0x1f, man = h & 0x3ffu;

	if (exp == 31)
		return kn_float(sign | 0x7f800000u | man << 13);
	if (exp)
		return kn_float(sign | (exp + 112) << 23 | man << 13);
	/* man * 2^-24, exact */
	return kn_float(kn_bits((float)man * 5.9604644775390625e-8f) | sign);
}

KN_NUM uint16_t kn_to_f16(float f)
{
	uint32_t u = kn_bits(f), sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;

	if (mag > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u);
	if (mag >= 0x477ff000u)			/* 65520 and more */
		return (uint16_t)(sign | 0x7c00u);
	if (mag < 0x38800000u)			/* below 2^-14: units of 2^-24 */
		return (uint16_t)(sign | (kn_bits(kn_float(mag) + 0.5f) - 0x3f000000u));
	mag += 0xfffu + (mag >> 13 & 1);
	return (uint16_t)(sign | ((mag - 0x38000000u) >> 13));
}

KN_NUM float kn_from_e5m2(uint8_t b)
{
	return kn_from_f16((uint16_t)(b << 8));
}

KN_NUM float kn_from_e4m3(uint8_t b)
{
	uint32_t sign = (uint32_t)(b & 0x80u) << 24, exp = b >> 3 & 0xf, man = b & 7u;

	if (exp == 15 && man == 7)
		return kn_float(sign | 0x7fc00000u);
	if (exp)
		return kn_float(sign | (exp + 120) << 23 | man << 20);
	return kn_float(kn_bits((float)man * 0.001953125f) | sign);	/* man * 2^-9 */
}

/*
 * To a format of @man mantissa bits whose least normal exponent is 1 - @bias, in
 * units of its last place; what is above @most becomes @most.
 */
KN_NUM uint8_t kn_to_fp8(float f, unsigned man, int bias, uint32_t most, uint8_t nan)
{
	uint32_t u = kn_bits(f), sign = u >> 24 & 0x80u, mag = u & 0x7fffffffu, code;
	uint32_t least = (uint32_t)(128 - bias) << 23;		/* of the normal ones */

	if (mag > 0x7f800000u)
		return (uint8_t)(sign | nan);
	if (mag < least) {
		/* The last place of @half + a value is worth 2^(1 - bias - man). */
		uint32_t half = (uint32_t)(151 - bias - (int)man) << 23;

		code = kn_bits(kn_float(mag) + kn_float(half)) - half;
	} else {
		mag += (1u << (22 - man)) - 1 + (mag >> (23 - man) & 1);
		code = (mag >> (23 - man)) - ((uint32_t)(127 - bias) << man);
	}
	return (uint8_t)(sign | (code < most ? code : most));
}

KN_NUM uint8_t kn_to_e4m3(float f)
{
	return kn_to_fp8(f, 3, 7, 0x7e, 0x7f);
}

KN_NUM uint8_t kn_to_e5m2(float f)
{
	return kn_to_fp8(f, 2, 15, 0x7b, 0x7f);
}

KN_NUM uint32_t kn_dtype_bytes(uint32_t dtype)
{
	return dtype == KN_F32 ? 4 : dtype == KN_BF16 || dtype == KN_F16 ? 2 : 1;
}

/* Value @i of an array of @dtype at @p. */
KN_NUM float kn_load(const void *p, uint64_t i, uint32_t dtype)
{
	switch (dtype) {
	case KN_BF16:
		return kn_from_bf16(((const uint16_t *)p)[i]);
	case KN_F16:
		return kn_from_f16(((const uint16_t *)p)[i]);
	case KN_E4M3:
		return kn_from_e4m3(((const uint8_t *)p)[i]);
	case KN_E5M2:
		return kn_from_e5m2(((const uint8_t *)p)[i]);
	default:
		return ((const float *)p)[i];
	}
}

KN_NUM void kn_store(void *p, uint64_t i, uint32_t dtype, float v)
{
	switch (dtype) {
	case KN_BF16:
		((uint16_t *)p)[i] = kn_to_bf16(v);
		return;
	case KN_F16:
		((uint16_t *)p)[i] = kn_to_f16(v);
		return;
	case KN_E4M3:
		((uint8_t *)p)[i] = kn_to_e4m3(v);
		return;
	case KN_E5M2:
		((uint8_t *)p)[i] = kn_to_e5m2(v);
		return;
	default:
		((float *)p)[i] = v;
	}
}

#endif
