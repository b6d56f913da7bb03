// SPDX-License-Identifier: Apache-2.0
/*
 * codec_window.cu - window's exponent coding, as kvmd/tier/codec_window*.c do it.
 *
 * A block of threads does one part, by tiles of TILE times 64 values, whose codes lie
 * together; a thread does 8 values of the first half of 64, and 8 of the second, which
 * have the same 8 bytes of codes. Where the escapes are is noted in a word of 64 bits
 * for each 64 values: with those before it counted, who takes such a word knows which
 * number its first escape has, and handles them one after the other, for they are few.
 */
#include "kernels/coded.h"

#define TILE	64u		/* of 64 values, that are done together */
#define COPIES	8u		/* of the counts of exponents, which are often the same */

/* Of one part. @first: how many escapes there are before this tile, and the next. */
struct escapes {
	uint64_t mask[TILE];
	uint32_t nr[TILE / 4];		/* a byte for each */
	uint32_t first[2];
};

/* ------------------------------------------------------------------- base */

/* Add the exponents of the values looked at to seen[e * COPIES ..]. */
KN_FN void count_exponents(KN_CTX, const uint16_t *v, uint32_t nr, uint32_t *seen)
{
	KN_THREADS(t)
		KN_EACH(i, t, 256 * COPIES)
			seen[i] = 0;
	KN_THREADS(t)
		KN_EACH(i, t, WINDOW_STRETCHES * WINDOW_STRETCH) {
			uint32_t first, end = window_stretch(nr, i / WINDOW_STRETCH, &first);
			uint32_t at = first + i % WINDOW_STRETCH;

			if (at < end)
				kn_atomic_add(&seen[window_exponent(v[at]) * COPIES + i % COPIES], 1u);
		}
}

/* The least base whose window has most of the values looked at. */
KN_FN uint8_t choose_base(KN_CTX, const uint16_t *v, uint32_t nr)
{
	KN_SHARED(uint32_t, seen, 256 * COPIES);
	KN_SHARED(uint32_t, sum, 256);
	uint32_t best = 0;

	count_exponents(KN_CTX_ARGS, v, nr, seen);
	KN_THREADS(t)
		KN_EACH(e, t, 256u) {
			sum[e] = 0;
			for (unsigned k = 0; k < COPIES; k++)
				sum[e] += seen[e * COPIES + k];
		}
	/* What a base has, above the base, such that of two the lesser base is more. */
	KN_THREADS(t)
		KN_EACH(b, t, 256u) {
			uint32_t in = 0;

			for (unsigned k = 0; k < WINDOW_WIDE && b <= WINDOW_MAX_BASE; k++)
				in += sum[b + k];
			seen[b] = in << 8 | (255 - b);
		}
	KN_THREADS(t)
		KN_EACH(i, t, 16u) {
			sum[i] = 0;
			for (unsigned k = 0; k < 16; k++)
				sum[i] = sum[i] > seen[16 * i + k] ? sum[i] : seen[16 * i + k];
		}
	for (unsigned i = 0; i < 16; i++)
		best = best > sum[i] ? best : sum[i];
	return (uint8_t)(255 - (best & 255));
}

/* ---------------------------------------------------------------- escapes */

/* Count those of a tile of @nr words, after the phase in which all wrote their bits. */
KN_FN void count_escapes(KN_CTX, struct escapes *e, uint32_t nr)
{
	KN_THREADS(t)
		KN_EACH(i, t, TILE)
			((uint8_t *)e->nr)[i] = i < nr && e->mask[i] ?
				(uint8_t)__builtin_popcountll(e->mask[i]) : 0;
}

/* How many there are before word @i of the tile; TILE: before the next tile. */
KN_FN uint32_t escapes_before(const struct escapes *e, unsigned i, unsigned tile)
{
	uint32_t sum = e->first[tile % 2], pairs = 0, w;

	/* Bytes 0 and 2, and 1 and 3: at most 64 * 16 * 2 in 16 bits. */
	for (unsigned k = 0; 4 * k < i; k++) {
		w = e->nr[k];
		if (i - 4 * k < 4)
			w &= (1u << 8 * (i % 4)) - 1;
		pairs += (w & 0x00ff00ffu) + (w >> 8 & 0x00ff00ffu);
	}
	return sum + (pairs & 0xffff) + (pairs >> 16);
}

KN_FN unsigned lowest_bit(uint64_t m)
{
	return (unsigned)__builtin_popcountll((m & (0 - m)) - 1);
}

/* ---------------------------------------------------------------- encoding */

/* The two times 8 values at @src and, half of @WINDOW_AT_ONCE further, behind it. */
KN_FN void encode_both(const uint16_t *src, uint8_t base, uint8_t *rest, uint8_t *codes,
		       uint8_t *ret_first, uint8_t *ret_second)
{
	uint8_t ra[8], rb[8], code[8], a, b, first = 0, second = 0;
	uint16_t va[8], vb[8];

	kn_read<16, 2>(va, src);
	kn_read<16, 2>(vb, src + WINDOW_AT_ONCE / 2);
	for (unsigned k = 0; k < 8; k++) {
		ra[k] = window_rest(va[k]);
		rb[k] = window_rest(vb[k]);
		a = window_code(va[k], base);
		b = window_code(vb[k], base);
		code[k] = (uint8_t)(a | b << 4);
		first |= (uint8_t)((a == WINDOW_ESCAPE) << k);
		second |= (uint8_t)((b == WINDOW_ESCAPE) << k);
	}
	kn_write<8, 1>(rest, ra);
	kn_write<8, 1>(rest + WINDOW_AT_ONCE / 2, rb);
	kn_write<8, 1>(codes, code);
	*ret_first = first;
	*ret_second = second;
}

/* The last @nr values, fewer than WINDOW_AT_ONCE; their bits go to the first mask. */
KN_FN void encode_last(KN_CTX, const uint16_t *src, uint32_t nr, uint8_t base, uint8_t *rest,
		       uint8_t *codes, struct escapes *e)
{
	KN_SHARED(uint8_t, code, WINDOW_AT_ONCE);
	const uint32_t half = (nr + 1) / 2;

	KN_THREADS(t)
		KN_EACH(i, t, WINDOW_AT_ONCE) {
			code[i] = i < nr ? window_code(src[i], base) : 0;
			if (i < nr)
				rest[i] = window_rest(src[i]);
		}
	KN_THREADS(t) {
		KN_EACH(i, t, half)
			codes[i] = (uint8_t)(code[i] | (half + i < nr ? code[half + i] << 4 : 0));
		KN_EACH(i, t, 8u) {
			uint8_t m = 0;

			for (unsigned k = 0; k < 8; k++)
				m |= (uint8_t)((code[8 * i + k] == WINDOW_ESCAPE) << k);
			((uint8_t *)e->mask)[i] = m;
		}
	}
}

/* A tile of @nr words of 64 values, or of one of @last values. */
KN_FN void encode_tile(KN_CTX, const uint16_t *src, uint32_t nr, uint32_t last, uint8_t base,
		       uint8_t *rest, uint8_t *codes, struct escapes *e)
{
	if (last) {
		encode_last(KN_CTX_ARGS, src, last, base, rest, codes, e);
		return;
	}
	KN_THREADS(t)
		KN_EACH(i, t, 4 * nr) {
			uint32_t g = i / 4, at = g * WINDOW_AT_ONCE + i % 4 * 8;
			uint8_t *mask = (uint8_t *)&e->mask[g];

			encode_both(src + at, base, rest + at,
				    codes + g * WINDOW_AT_ONCE / 2 + i % 4 * 8, &mask[i % 4],
				    &mask[4 + i % 4]);
		}
}

/*
 * Returns how many escapes there are; above @room, and soon after that is known: they do
 * not fit.
 */
KN_FN uint32_t encode_window(KN_CTX, const uint16_t *src, uint32_t nr, uint8_t base, uint8_t *rest,
			     uint8_t *codes, uint8_t *to, uint32_t room)
{
	KN_SHARED(struct escapes, e, 1);
	const uint32_t words = codec_pieces(nr, WINDOW_AT_ONCE), whole = nr / WINDOW_AT_ONCE;
	unsigned tile = 0;

	KN_THREADS(t)
		if (t == 0)
			e->first[0] = 0;
	for (uint32_t w0 = 0, n; w0 < words && e->first[tile % 2] <= room; w0 += n, tile++) {
		const uint32_t at = w0 * WINDOW_AT_ONCE;

		/* Those that are not whole make a tile of their own. */
		n = w0 < whole ? least_of(whole - w0, TILE) : 1;
		encode_tile(KN_CTX_ARGS, src + at, n, w0 < whole ? 0 : nr - at, base, rest + at,
			    codes + at / 2, e);
		count_escapes(KN_CTX_ARGS, e, n);
		KN_THREADS(t) {
			KN_EACH(i, t, n) {
				uint64_t m = e->mask[i];
				uint32_t k = m ? escapes_before(e, i, tile) : 0;

				for (; m && k < room; m &= m - 1, k++)
					to[k] = window_exponent(
						src[at + i * WINDOW_AT_ONCE + lowest_bit(m)]);
			}
			if (t == 0)
				e->first[(tile + 1) % 2] = escapes_before(e, TILE, tile);
		}
	}
	return e->first[tile % 2];
}

KN_KERNEL(kn_encode_window, struct kn_codec_args)
{
	const struct coded_part p = coded_part_of(a, kn_block.x);
	const uint32_t n = codec_shape_values(&p.shape, false, 1), raw = CODEC_HEAD_BYTES + 2 * n;
	uint8_t *rest = p.dst + CODEC_HEAD_BYTES, *codes = rest + n, *to = codes + (n + 1) / 2;
	const uint16_t *src = (const uint16_t *)p.src;
	uint32_t escapes;
	uint8_t base;

	if (!n || p.bytes < raw) {
		coded_end(KN_CTX_ARGS, a, n ? -ENOSPC : -EINVAL, 0);
		return;
	}
	if (n >= 2) {
		base = choose_base(KN_CTX_ARGS, src, n);
		/* One byte less than raw, at least. */
		escapes = encode_window(KN_CTX_ARGS, src, n, base, rest, codes, to, n / 2 - 1);
		if (escapes <= n / 2 - 1) {
			coded_seal(KN_CTX_ARGS, a, p, head_kind(CODEC_WINDOW, CODEC_CODED, base),
				   CODEC_HEAD_BYTES + n + (n + 1) / 2 + escapes, escapes);
			return;
		}
	}
	KN_THREADS(t)
		kn_copy_bytes(rest, src, 2ull * n, t, kn_threads);
	coded_seal(KN_CTX_ARGS, a, p, head_kind(CODEC_WINDOW, CODEC_RAW, 0), raw, 0);
}

/* ---------------------------------------------------------------- decoding */

KN_FN void decode_both(const uint8_t *rest, const uint8_t *codes, uint8_t base, uint16_t *dst,
		       uint8_t *ret_first, uint8_t *ret_second)
{
	uint8_t ra[8], rb[8], code[8], first = 0, second = 0;
	uint16_t va[8], vb[8];

	kn_read<8, 1>(ra, rest);
	kn_read<8, 1>(rb, rest + WINDOW_AT_ONCE / 2);
	kn_read<8, 1>(code, codes);
	for (unsigned k = 0; k < 8; k++) {
		va[k] = window_value(ra[k], (uint8_t)(base + (code[k] & 15)));
		vb[k] = window_value(rb[k], (uint8_t)(base + (code[k] >> 4)));
		first |= (uint8_t)(((code[k] & 15) == WINDOW_ESCAPE) << k);
		second |= (uint8_t)((code[k] >> 4 == WINDOW_ESCAPE) << k);
	}
	kn_write<16, 2>(dst, va);
	kn_write<16, 2>(dst + WINDOW_AT_ONCE / 2, vb);
	*ret_first = first;
	*ret_second = second;
}

KN_FN void decode_last(KN_CTX, const uint8_t *rest, const uint8_t *codes, uint32_t nr,
		       uint8_t base, uint16_t *dst, struct escapes *e, uint32_t *bad)
{
	KN_SHARED(uint8_t, code, WINDOW_AT_ONCE);
	const uint32_t half = (nr + 1) / 2;

	KN_THREADS(t)
		KN_EACH(i, t, WINDOW_AT_ONCE) {
			code[i] = i < half ? codes[i] & 15 : i < nr ? codes[i - half] >> 4 : 0;
			if (i < nr)
				dst[i] = window_value(rest[i], (uint8_t)(base + code[i]));
			/* The half byte that no value has. */
			if (i == 0 && nr % 2 && codes[half - 1] >> 4)
				bad[0] = 1;
		}
	KN_THREADS(t)
		KN_EACH(i, t, 8u) {
			uint8_t m = 0;

			for (unsigned k = 0; k < 8; k++)
				m |= (uint8_t)((code[8 * i + k] == WINDOW_ESCAPE) << k);
			((uint8_t *)e->mask)[i] = m;
		}
}

KN_FN void decode_tile(KN_CTX, const uint8_t *rest, const uint8_t *codes, uint32_t nr,
		       uint32_t last, uint8_t base, uint16_t *dst, struct escapes *e, uint32_t *bad)
{
	if (last) {
		decode_last(KN_CTX_ARGS, rest, codes, last, base, dst, e, bad);
		return;
	}
	KN_THREADS(t)
		KN_EACH(i, t, 4 * nr) {
			uint32_t g = i / 4, at = g * WINDOW_AT_ONCE + i % 4 * 8;
			uint8_t *mask = (uint8_t *)&e->mask[g];

			decode_both(rest + at, codes + g * WINDOW_AT_ONCE / 2 + i % 4 * 8, base,
				    dst + at, &mask[i % 4], &mask[4 + i % 4]);
		}
}

/* Put the escapes @m of 64 values into @dst; of @nr at @from the first is number @k. */
KN_FN bool put_escapes(uint64_t m, const uint8_t *from, uint32_t k, uint32_t nr, uint8_t base,
		       uint16_t *dst)
{
	bool good = true;

	for (; m; m &= m - 1, k++) {
		uint16_t *v = dst + lowest_bit(m);

		if (k >= nr)
			return false;
		good &= window_is_escape(from[k], base);
		*v = window_value(window_rest(*v), from[k]);
	}
	return good;
}

/* False: this is not what encoding writes. */
KN_FN bool decode_window(KN_CTX, const uint8_t *rest, const uint8_t *codes, const uint8_t *from,
			 uint32_t escapes, uint32_t nr, uint8_t base, uint16_t *dst)
{
	KN_SHARED(struct escapes, e, 1);
	KN_SHARED(uint32_t, bad, 1);
	const uint32_t words = codec_pieces(nr, WINDOW_AT_ONCE), whole = nr / WINDOW_AT_ONCE;
	unsigned tile = 0;

	KN_THREADS(t)
		if (t == 0) {
			e->first[0] = 0;
			bad[0] = 0;
		}
	for (uint32_t w0 = 0, n; w0 < words; w0 += n, tile++) {
		const uint32_t at = w0 * WINDOW_AT_ONCE;

		n = w0 < whole ? least_of(whole - w0, TILE) : 1;
		decode_tile(KN_CTX_ARGS, rest + at, codes + at / 2, n, w0 < whole ? 0 : nr - at,
			    base, dst + at, e, bad);
		count_escapes(KN_CTX_ARGS, e, n);
		KN_THREADS(t) {
			KN_EACH(i, t, n)
				if (e->mask[i] &&
				    !put_escapes(e->mask[i], from, escapes_before(e, i, tile), escapes,
						 base, dst + at + i * WINDOW_AT_ONCE))
					bad[0] = 1;
			if (t == 0)
				e->first[(tile + 1) % 2] = escapes_before(e, TILE, tile);
		}
	}
	return !bad[0] && e->first[tile % 2] == escapes;
}

KN_KERNEL(kn_decode_window, struct kn_codec_args)
{
	KN_SHARED(uint32_t, head, CODED_WORDS);
	const struct coded_part p = coded_part_of(a, kn_block.x);
	const uint32_t n = codec_shape_values(&p.shape, false, 1), raw = CODEC_HEAD_BYTES + 2 * n;
	const uint8_t *rest = p.src + CODEC_HEAD_BYTES, *codes = rest + n;
	uint16_t *dst = (uint16_t *)p.dst;
	uint32_t escapes;
	uint8_t base;
	bool good;

	if (!n || !coded_open(KN_CTX_ARGS, p, head)) {
		coded_end(KN_CTX_ARGS, a, n ? -EBADMSG : -EINVAL, 0);
		return;
	}
	escapes = head[HEAD_ESCAPES];
	base = (uint8_t)(head[HEAD_KIND] >> 16);
	if (head[HEAD_KIND] == head_kind(CODEC_WINDOW, CODEC_RAW, 0)) {
		good = p.bytes == raw && !escapes;
		KN_THREADS(t)
			if (good)
				kn_copy_bytes(dst, rest, 2ull * n, t, kn_threads);
	} else {
		good = head[HEAD_KIND] == head_kind(CODEC_WINDOW, CODEC_CODED, base) &&
		       base <= WINDOW_MAX_BASE && p.bytes < raw &&
		       p.bytes == (uint64_t)CODEC_HEAD_BYTES + n + (n + 1) / 2 + escapes;
		good = good && decode_window(KN_CTX_ARGS, rest, codes, codes + (n + 1) / 2, escapes, n,
					     base, dst);
	}
	coded_end(KN_CTX_ARGS, a, good ? 0 : -EBADMSG, p.bytes);
}
