/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coded.h - what the codecs' kernels share: the head, and pieces of neighbouring values.
 *
 * A block of threads does one part. A head's CRC is linear: a thread per word, and the
 * exclusive or of what they find. Who takes KN_CTX has phases, which all threads enter.
 */
#ifndef KVMD_KERNELS_CODED_H
#define KVMD_KERNELS_CODED_H

#include "kernels/bytes.h"
#include "kernels/kernels.h"
#include "kvmd/tier/codec_form.h"

#define CODED_WORDS	16u		/* of the head; the last one is the CRC */
#define CODED_PIECE	16u		/* values that a thread does at once */

/* Word @i of a head that has the CRC-32C of words 0..14 as its last. */
enum { HEAD_MAGIC, HEAD_KIND, HEAD_TOKENS, HEAD_CHANNELS, HEAD_GROUP, HEAD_AXIS, HEAD_BYTES,
       HEAD_ESCAPES, HEAD_ZERO, HEAD_CRC = 15 };

struct coded_part {
	const uint8_t *src;
	uint8_t *dst;
	uint32_t bytes;
	struct codec_shape shape;
};

KN_FN struct coded_part coded_part_of(const struct kn_codec_args &a, unsigned i)
{
	const struct kn_part p = a.part[i];

	return { (const uint8_t *)p.src, (uint8_t *)p.dst, p.bytes,
		 { a.tokens, a.channels, a.group, a.axis } };
}

/* --------------------------------------------------------------------- head */

/* x^(32 * (15 - i)) modulo the polynomial 0x82f63b78, reflected: bit 31 is x^0. */
KN_CONST uint32_t crc_power[15] = {
	0x4f256efc, 0x52377a55, 0x0e148e82, 0xb2dea967, 0xec1631ed,
	0x19e65dde, 0x9c25531d, 0x510ac59a, 0x5d27e147, 0x9957c0a6,
	0x790606ff, 0x18b8ea18, 0xa66805eb, 0x6ea2d55c, 0x82f63b78,
};

/* What word @i adds to the CRC: the word times crc_power[i]. */
KN_FN uint32_t crc_of_word(unsigned i, uint32_t w)
{
	uint32_t b, sum = 0;

	/* The CRC starts with all ones, and is kept inverted. */
	if (i == HEAD_CRC)
		return ~w;
	if (i == 0)
		w = ~w;
	for (b = crc_power[i]; w; w <<= 1) {
		sum ^= b & (0u - (w >> 31));
		b = b >> 1 ^ (0x82f63b78u & (0u - (b & 1)));
	}
	return sum;
}

KN_FN uint32_t crc_of_words(const uint32_t *of_word)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < CODED_WORDS; i++)
		sum ^= of_word[i];
	return sum;
}

KN_FN uint32_t head_word(unsigned i, const struct codec_shape &s, uint32_t kind, uint32_t bytes,
			 uint32_t escapes)
{
	switch (i) {
	case HEAD_MAGIC:
		return CODEC_MAGIC;
	case HEAD_KIND:
		return kind;
	case HEAD_TOKENS:
		return s.tokens;
	case HEAD_CHANNELS:
		return s.channels;
	case HEAD_GROUP:
		return s.group;
	case HEAD_AXIS:
		return s.axis;
	case HEAD_BYTES:
		return bytes;
	case HEAD_ESCAPES:
		return escapes;
	default:
		return 0;
	}
}

/* Codec, form and base in the head's second word. */
KN_FN uint32_t head_kind(uint32_t codec, uint32_t form, uint32_t base)
{
	return codec | form << 8 | base << 16;
}

/*
 * Is what @p.src has a head of this shape and size, as codec_open() would say? @head: the
 * words; codec, form and base are not looked at, nor the escapes.
 */
KN_FN bool coded_open(KN_CTX, const struct coded_part &p, uint32_t *head)
{
	KN_SHARED(uint32_t, crc, CODED_WORDS);
	bool good = true;

	if (p.bytes < CODEC_HEAD_BYTES)
		return false;
	KN_THREADS(t)
		KN_EACH(i, t, CODED_WORDS) {
			uint32_t w;

			kn_read<4, 1>(&w, p.src + 4 * i);
			head[i] = w;
			crc[i] = crc_of_word(i, w);
		}
	if (crc_of_words(crc))
		return false;
	for (unsigned i = 0; i < HEAD_CRC; i++)
		if (i != HEAD_KIND && i != HEAD_ESCAPES)
			good &= head[i] == head_word(i, p.shape, 0, p.bytes, 0);
	return good;
}

/* Part @i is done: the head, and what the caller hears. */
KN_FN void coded_seal(KN_CTX, const struct kn_codec_args &a, const struct coded_part &p,
		      uint32_t kind, uint32_t bytes, uint32_t escapes)
{
	KN_SHARED(uint32_t, crc, CODED_WORDS);

	KN_THREADS(t)
		KN_EACH(i, t, CODED_WORDS) {
			uint32_t w = head_word(i, p.shape, kind, bytes, escapes);

			crc[i] = i == HEAD_CRC ? UINT32_MAX : crc_of_word(i, w);
			if (i != HEAD_CRC)
				kn_write<4, 1>(p.dst + 4 * i, &w);
		}
	KN_THREADS(t)
		if (t == 0) {
			uint32_t w = crc_of_words(crc);

			kn_write<4, 1>(p.dst + 4 * HEAD_CRC, &w);
			a.status[kn_block.x] = 0;
			if (a.coded_bytes)
				a.coded_bytes[kn_block.x] = bytes;
		}
}

/* Nothing was encoded, or: this is what became of decoding. */
KN_FN void coded_end(KN_CTX, const struct kn_codec_args &a, int status, uint32_t bytes)
{
	KN_THREADS(t)
		if (t == 0) {
			a.status[kn_block.x] = status;
			if (a.coded_bytes)
				a.coded_bytes[kn_block.x] = status ? 0 : bytes;
		}
}

/* ------------------------------------------------------------------- pieces */

/* @nr values, CODED_PIECE or fewer; the others are 0. No index is known at run time only. */
KN_FN void get_values(uint16_t *v, const uint16_t *p, uint32_t nr)
{
	if (nr == CODED_PIECE) {
		kn_read<16, 2>(v, p);
		kn_read<16, 2>(v + 8, p + 8);
		return;
	}
	for (uint32_t k = 0; k < CODED_PIECE; k++)
		v[k] = k < nr ? p[k] : 0;
}

KN_FN void put_values(uint16_t *p, const uint16_t *v, uint32_t nr)
{
	if (nr == CODED_PIECE) {
		kn_write<16, 2>(p, v);
		kn_write<16, 2>(p + 8, v + 8);
		return;
	}
	for (uint32_t k = 0; k < CODED_PIECE; k++)
		if (k < nr)
			p[k] = v[k];
}

/* The same of bytes. */
KN_FN void get_codes(uint8_t *v, const uint8_t *p, uint32_t nr)
{
	if (nr == CODED_PIECE) {
		kn_read<CODED_PIECE, 1>(v, p);
		return;
	}
	for (uint32_t k = 0; k < CODED_PIECE; k++)
		v[k] = k < nr ? p[k] : 0;
}

KN_FN void put_codes(uint8_t *p, const uint8_t *v, uint32_t nr)
{
	if (nr == CODED_PIECE) {
		kn_write<CODED_PIECE, 1>(p, v);
		return;
	}
	for (uint32_t k = 0; k < CODED_PIECE; k++)
		if (k < nr)
			p[k] = v[k];
}

KN_FN uint32_t least_of(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

#endif
