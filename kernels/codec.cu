// SPDX-License-Identifier: Apache-2.0
/*
 * codec.cu - fp8, int8, int4 and kivi2, as kvmd/tier/codec_*.c do them.
 *
 * A block of threads does one part. Values go by CODED_PIECE, whose codes begin at a
 * whole byte whatever the groups are, so that no two threads write one byte. Encoding
 * with groups goes over the values twice: first for the groups' scales, then, from what
 * is in a cache by now, for the codes.
 */
#include "kernels/coded.h"

/* ---------------------------------------------------------------------- fp8 */

template <uint32_t codec> KN_FN struct codec_fp8 fp8_of_codec()
{
	if (codec == CODEC_FP8_E4M3)
		return FP8_E4M3;
	return FP8_E5M2;
}

template <uint32_t codec> KN_FN void encode_fp8(KN_CTX, const struct kn_codec_args &a)
{
	const struct coded_part p = coded_part_of(a, kn_block.x);
	const uint32_t n = codec_shape_values(&p.shape, false, 1);
	const uint16_t *src = (const uint16_t *)p.src;
	const struct codec_fp8 f = fp8_of_codec<codec>();

	if (!n || p.bytes < CODEC_HEAD_BYTES + n) {
		coded_end(KN_CTX_ARGS, a, n ? -ENOSPC : -EINVAL, 0);
		return;
	}
	KN_THREADS(t)
		KN_EACH(i, t, codec_pieces(n, CODED_PIECE)) {
			uint32_t at = CODED_PIECE * i, nr = least_of(n - at, CODED_PIECE);
			uint16_t v[CODED_PIECE];
			uint8_t code[CODED_PIECE];

			get_values(v, src + at, nr);
			for (unsigned k = 0; k < CODED_PIECE; k++)
				code[k] = fp8_of(&f, v[k]);
			put_codes(p.dst + CODEC_HEAD_BYTES + at, code, nr);
		}
	coded_seal(KN_CTX_ARGS, a, p, codec, CODEC_HEAD_BYTES + n, 0);
}

template <uint32_t codec> KN_FN void decode_fp8(KN_CTX, const struct kn_codec_args &a)
{
	KN_SHARED(uint32_t, head, CODED_WORDS);
	KN_SHARED(uint16_t, value, 128);
	KN_SHARED(uint32_t, bad, 1);
	const struct coded_part p = coded_part_of(a, kn_block.x);
	const uint32_t n = codec_shape_values(&p.shape, false, 1);
	const struct codec_fp8 f = fp8_of_codec<codec>();
	uint16_t *dst = (uint16_t *)p.dst;

	if (!n) {
		coded_end(KN_CTX_ARGS, a, -EINVAL, 0);
		return;
	}
	KN_THREADS(t) {
		KN_EACH(i, t, 128u)
			value[i] = fp8_to(&f, (uint8_t)i);
		if (t == 0)
			bad[0] = 0;
	}
	if (!coded_open(KN_CTX_ARGS, p, head) || head[HEAD_KIND] != codec || head[HEAD_ESCAPES] ||
	    p.bytes != CODEC_HEAD_BYTES + n) {
		coded_end(KN_CTX_ARGS, a, -EBADMSG, 0);
		return;
	}
	KN_THREADS(t)
		KN_EACH(i, t, codec_pieces(n, CODED_PIECE)) {
			uint32_t at = CODED_PIECE * i, nr = least_of(n - at, CODED_PIECE);
			uint16_t v[CODED_PIECE];
			uint8_t code[CODED_PIECE];
			bool good = true;

			get_codes(code, p.src + CODEC_HEAD_BYTES + at, nr);
			for (unsigned k = 0; k < CODED_PIECE; k++) {
				good &= fp8_is_written(&f, code[k]);
				v[k] = (uint16_t)(value[code[k] & 0x7f] | (code[k] & 0x80) << 8);
			}
			put_values(dst + at, v, nr);
			if (!good)
				bad[0] = 1;
		}
	coded_end(KN_CTX_ARGS, a, bad[0] ? -EBADMSG : 0, p.bytes);
}

/* ------------------------------------------------------------------- groups */

#define TILE	256u		/* pieces of groups that are looked at together */

/* What a codec keeps of a group, as it is stored. */
struct range {
	uint16_t scale;
	uint16_t least;			/* kivi2 */
};

/* The same, to be used. */
struct level {
	float scale, least;
	uint16_t stored_least;
	bool is_good;			/* what encoding writes */
};

template <uint32_t codec> KN_FN constexpr uint32_t code_bits()
{
	return codec == CODEC_INT8 ? 8 : codec == CODEC_INT4 ? 4 : 2;
}

template <uint32_t codec> KN_FN constexpr uint32_t range_bytes()
{
	return codec == CODEC_KIVI2 ? 4 : 2;
}

/* Bytes of what is coded, 0: not a shape for it. *ret_values, *ret_groups: how many. */
template <uint32_t codec>
KN_FN uint32_t coded_bytes(const struct codec_shape &s, uint32_t *ret_values, uint32_t *ret_groups)
{
	uint32_t n = codec_shape_values(&s, true, codec == CODEC_KIVI2 ? NR_CODEC_AXIS : 1);

	*ret_values = n;
	if (!n)
		return 0;
	*ret_groups = codec_nr_groups(&s);
	return CODEC_HEAD_BYTES + range_bytes<codec>() * *ret_groups +
	       codec_pieces(n, 8 / code_bits<codec>());
}

template <uint32_t codec> KN_FN struct level get_level(const uint8_t *ranges, uint32_t g)
{
	struct range r = { 0, 0 };

	kn_read<range_bytes<codec>(), 1>(&r, ranges + range_bytes<codec>() * g);
	return { fp16_to_float(r.scale), bf16_to_float(r.least), r.least,
		 fp16_is_scale(r.scale) && (r.least & BF16_ABS) < BF16_INF };
}

/*
 * What there is to know of @nr values, @step apart: int8 and int4, the largest without its
 * sign; kivi2, the least, and above it the largest. Of equal ones, +0 and -0, it is the
 * first. A least that is no number: one of them is not.
 */
template <uint32_t codec>
KN_FN uint32_t look_at(const uint16_t *v, uint32_t step, uint32_t nr)
{
	uint16_t least = v[0], most = v[0], absmax = 0;
	bool good = true;

	for (uint32_t k = 0; k < nr; k++) {
		uint16_t x = v[k * step], magnitude = x & BF16_ABS;

		if (codec != CODEC_KIVI2) {
			absmax = absmax > magnitude ? absmax : magnitude;
			continue;
		}
		good &= magnitude < BF16_INF;
		if (bf16_to_float(x) < bf16_to_float(least))
			least = x;
		if (bf16_to_float(x) > bf16_to_float(most))
			most = x;
	}
	if (codec != CODEC_KIVI2)
		return absmax;
	return good ? (uint32_t)most << 16 | least : BF16_NAN;
}

/* Two neighbouring pieces of a group as one. */
template <uint32_t codec> KN_FN uint32_t look_at_both(uint32_t a, uint32_t b)
{
	uint16_t least = (uint16_t)a, most = (uint16_t)(a >> 16);

	if (codec != CODEC_KIVI2)
		return a > b ? a : b;
	if ((least & BF16_ABS) >= BF16_INF || ((uint16_t)b & BF16_ABS) >= BF16_INF)
		return BF16_NAN;
	if (bf16_to_float((uint16_t)b) < bf16_to_float(least))
		least = (uint16_t)b;
	if (bf16_to_float((uint16_t)(b >> 16)) > bf16_to_float(most))
		most = (uint16_t)(b >> 16);
	return (uint32_t)most << 16 | least;
}

template <uint32_t codec> KN_FN int range_of(uint32_t seen, struct range *ret)
{
	ret->least = (uint16_t)seen;
	if (codec == CODEC_INT8)
		return whole_scale((uint16_t)seen, INT8_MOST, &ret->scale);
	if (codec == CODEC_INT4)
		return whole_scale((uint16_t)seen, INT4_MOST, &ret->scale);
	if ((ret->least & BF16_ABS) >= BF16_INF)
		return -EDOM;
	return kivi_scale(ret->least, (uint16_t)(seen >> 16), &ret->scale);
}

/*
 * The ranges of all @nr groups to @ranges; -EDOM, -ERANGE: as the first group that has
 * none says. Within a token CODED_PIECE neighbours are a thread's, and then come
 * together; within a channel the whole group is, and its neighbours are the next thread's.
 */
template <uint32_t codec>
KN_FN int put_ranges(KN_CTX, const struct coded_part &p, uint32_t nr, uint8_t *ranges)
{
	KN_SHARED(uint32_t, seen, TILE);
	KN_SHARED(int32_t, error, TILE);
	KN_SHARED(uint32_t, any, 1);
	const uint32_t per = p.shape.axis == CODEC_PER_CHANNEL ? CODEC_MAX_GROUP : CODED_PIECE;
	const uint32_t pieces = codec_pieces(p.shape.group, per), tile = TILE / pieces;
	const uint16_t *src = (const uint16_t *)p.src;

	KN_THREADS(t)
		if (t == 0)
			any[0] = 0;
	for (uint32_t g0 = 0; g0 < nr; g0 += tile) {
		const uint32_t groups = least_of(nr - g0, tile);

		KN_THREADS(t)
			KN_EACH(i, t, groups * pieces) {
				struct codec_group g = codec_nth_group(&p.shape, g0 + i / pieces);
				uint32_t at = i % pieces * per;
				uint16_t v[CODED_PIECE];

				if (at >= g.nr)
					continue;
				if (g.step == 1 && g.nr - at >= CODED_PIECE && per == CODED_PIECE) {
					get_values(v, src + g.first + at, CODED_PIECE);
					seen[i] = look_at<codec>(v, 1, CODED_PIECE);
				} else {
					seen[i] = look_at<codec>(src + g.first + at * g.step, g.step,
								 least_of(g.nr - at, per));
				}
			}
		KN_THREADS(t)
			KN_EACH(i, t, groups) {
				uint32_t all = seen[i * pieces];
				struct codec_group g = codec_nth_group(&p.shape, g0 + i);
				struct range r;

				for (uint32_t k = 1; k * per < g.nr; k++)
					all = look_at_both<codec>(all, seen[i * pieces + k]);
				error[i] = range_of<codec>(all, &r);
				if (error[i])
					any[0] = 1;
				else
					kn_write<range_bytes<codec>(), 1>(
						ranges + range_bytes<codec>() * (g0 + i), &r);
			}
		if (any[0])
			for (uint32_t i = 0;; i++)
				if (error[i])
					return error[i];
	}
	return 0;
}

/* -------------------------------------------------- groups: value by value */

template <uint32_t codec> KN_FN unsigned code_of(uint16_t v, const struct level &l)
{
	if (l.scale == 0)
		return 0;
	if (codec == CODEC_KIVI2)
		return kivi_level(v, (double)l.least, (double)l.scale);
	return (unsigned)whole_of(v, l.scale) & ((1u << code_bits<codec>()) - 1);
}

template <uint32_t codec>
KN_FN uint16_t value_of(unsigned code, const struct level &l, bool *good)
{
	int8_t q;

	*good &= l.is_good;
	if (codec == CODEC_KIVI2)
		return kivi_value(l.stored_least, code, l.scale);
	q = codec == CODEC_INT8 ? (int8_t)code : (int8_t)((int)(code ^ 8) - 8);
	*good &= q >= (codec == CODEC_INT8 ? -INT8_MOST : -INT4_MOST);
	return whole_to(q, l.scale);
}

/* Group of value @at; so many from it on are of that group, or each of the next. */
KN_FN uint32_t group_of(const struct codec_shape &s, uint32_t at, uint32_t *ret_run)
{
	uint32_t row = at / s.channels, col = at % s.channels;

	*ret_run = s.channels - col;
	if (s.axis == CODEC_PER_CHANNEL)
		return row / s.group * s.channels + col;
	*ret_run = least_of(*ret_run, s.group - col % s.group);
	return row * codec_pieces(s.channels, s.group) + col / s.group;
}

/* Codes of @nr values from @at on, byte by byte: where groups or values end within them. */
template <uint32_t codec>
KN_FN void encode_slowly(const struct codec_shape &s, const uint16_t *src, uint32_t at, uint32_t nr,
			 const uint8_t *ranges, uint8_t *to)
{
	const unsigned bits = code_bits<codec>();
	uint32_t run;
	uint8_t byte = 0;

	for (uint32_t k = 0; k < nr; k++) {
		struct level l = get_level<codec>(ranges, group_of(s, at + k, &run));

		byte |= (uint8_t)(code_of<codec>(src[at + k], l) << k * bits % 8);
		if ((k + 1) * bits % 8 == 0 || k + 1 == nr) {
			to[k * bits / 8] = byte;
			byte = 0;
		}
	}
}

template <uint32_t codec>
KN_FN bool decode_slowly(const struct codec_shape &s, const uint8_t *ranges, const uint8_t *from,
			 uint32_t at, uint32_t nr, uint16_t *dst)
{
	const unsigned bits = code_bits<codec>(), mask = (1u << bits) - 1;
	bool good = true;
	uint32_t run;

	for (uint32_t k = 0; k < nr; k++) {
		struct level l = get_level<codec>(ranges, group_of(s, at + k, &run));

		dst[at + k] = value_of<codec>(from[k * bits / 8] >> k * bits % 8 & mask, l, &good);
	}
	/* The bits that no value has. */
	if (nr * bits % 8)
		good &= !(from[nr * bits / 8] >> nr * bits % 8);
	return good;
}

template <uint32_t codec>
KN_FN void encode_piece(const struct codec_shape &s, const uint16_t *src, uint32_t at, uint32_t nr,
			const uint8_t *ranges, uint8_t *codes)
{
	const unsigned bits = code_bits<codec>();
	uint32_t run, group = group_of(s, at, &run), word[CODED_PIECE * code_bits<codec>() / 32];
	uint16_t v[CODED_PIECE];
	struct level l;

	codes += at / 8 * bits;
	if (nr < CODED_PIECE || run < CODED_PIECE) {
		encode_slowly<codec>(s, src, at, nr, ranges, codes);
		return;
	}
	get_values(v, src + at, CODED_PIECE);
	l = get_level<codec>(ranges, group);
	for (unsigned k = 0; k < CODED_PIECE; k++) {
		if (k && s.axis == CODEC_PER_CHANNEL)
			l = get_level<codec>(ranges, group + k);
		if (k * bits % 32 == 0)
			word[k * bits / 32] = 0;
		word[k * bits / 32] |= code_of<codec>(v[k], l) << k * bits % 32;
	}
	kn_write<sizeof(word), 1>(codes, word);
}

/* False: this is nothing that encoding writes. */
template <uint32_t codec>
KN_FN bool decode_piece(const struct codec_shape &s, const uint8_t *ranges, const uint8_t *codes,
			uint32_t at, uint32_t nr, uint16_t *dst)
{
	const unsigned bits = code_bits<codec>(), mask = (1u << bits) - 1;
	uint32_t run, group = group_of(s, at, &run), word[CODED_PIECE * code_bits<codec>() / 32];
	uint16_t v[CODED_PIECE];
	struct level l;
	bool good = true;

	codes += at / 8 * bits;
	if (nr < CODED_PIECE || run < CODED_PIECE)
		return decode_slowly<codec>(s, ranges, codes, at, nr, dst);
	kn_read<sizeof(word), 1>(word, codes);
	l = get_level<codec>(ranges, group);
	for (unsigned k = 0; k < CODED_PIECE; k++) {
		if (k && s.axis == CODEC_PER_CHANNEL)
			l = get_level<codec>(ranges, group + k);
		v[k] = value_of<codec>(word[k * bits / 32] >> k * bits % 32 & mask, l, &good);
	}
	put_values(dst + at, v, CODED_PIECE);
	return good;
}

template <uint32_t codec> KN_FN void encode_groups(KN_CTX, const struct kn_codec_args &a)
{
	const struct coded_part p = coded_part_of(a, kn_block.x);
	uint32_t n, groups = 0, bytes = coded_bytes<codec>(p.shape, &n, &groups);
	uint8_t *ranges = p.dst + CODEC_HEAD_BYTES, *codes = ranges + range_bytes<codec>() * groups;
	int err = bytes ? p.bytes < bytes ? -ENOSPC : 0 : -EINVAL;

	if (!err)
		err = put_ranges<codec>(KN_CTX_ARGS, p, groups, ranges);
	if (err) {
		coded_end(KN_CTX_ARGS, a, err, 0);
		return;
	}
	KN_THREADS(t)
		KN_EACH(i, t, codec_pieces(n, CODED_PIECE)) {
			uint32_t at = CODED_PIECE * i;

			encode_piece<codec>(p.shape, (const uint16_t *)p.src, at,
					    least_of(n - at, CODED_PIECE), ranges, codes);
		}
	coded_seal(KN_CTX_ARGS, a, p, codec, bytes, 0);
}

template <uint32_t codec> KN_FN void decode_groups(KN_CTX, const struct kn_codec_args &a)
{
	KN_SHARED(uint32_t, head, CODED_WORDS);
	KN_SHARED(uint32_t, bad, 1);
	const struct coded_part p = coded_part_of(a, kn_block.x);
	uint32_t n, groups = 0, bytes = coded_bytes<codec>(p.shape, &n, &groups);
	const uint8_t *ranges = p.src + CODEC_HEAD_BYTES;
	const uint8_t *codes = ranges + range_bytes<codec>() * groups;

	if (!bytes) {
		coded_end(KN_CTX_ARGS, a, -EINVAL, 0);
		return;
	}
	KN_THREADS(t)
		if (t == 0)
			bad[0] = 0;
	if (!coded_open(KN_CTX_ARGS, p, head) || head[HEAD_KIND] != codec || head[HEAD_ESCAPES] ||
	    p.bytes != bytes) {
		coded_end(KN_CTX_ARGS, a, -EBADMSG, 0);
		return;
	}
	KN_THREADS(t)
		KN_EACH(i, t, codec_pieces(n, CODED_PIECE)) {
			uint32_t at = CODED_PIECE * i;

			if (!decode_piece<codec>(p.shape, ranges, codes, at,
						 least_of(n - at, CODED_PIECE), (uint16_t *)p.dst))
				bad[0] = 1;
		}
	coded_end(KN_CTX_ARGS, a, bad[0] ? -EBADMSG : 0, bytes);
}

/* ------------------------------------------------------------------ kernels */

#define CODEC_KERNEL(name, way, codec) \
KN_KERNEL(kn_encode_##name, struct kn_codec_args) \
{ \
	encode_##way<codec>(KN_CTX_ARGS, a); \
} \
KN_KERNEL(kn_decode_##name, struct kn_codec_args) \
{ \
	decode_##way<codec>(KN_CTX_ARGS, a); \
}

CODEC_KERNEL(fp8_e4m3, fp8, CODEC_FP8_E4M3)
CODEC_KERNEL(fp8_e5m2, fp8, CODEC_FP8_E5M2)
CODEC_KERNEL(int8, groups, CODEC_INT8)
CODEC_KERNEL(int4, groups, CODEC_INT4)
CODEC_KERNEL(kivi2, groups, CODEC_KIVI2)
