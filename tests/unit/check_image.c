// SPDX-License-Identifier: Apache-2.0
/*
 * check_image.c - whole blocks, coded: every group that may have a codec, what comes
 * back, what does not fit, what is damaged.
 */
#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/image.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/codec_rig.h"

#define MOST	(1u << 20)

static uint8_t *plain, *coded, *back, *scratch;

static void setup(void)
{
	plain = malloc(MOST);
	coded = malloc(MOST);
	back = malloc(MOST);
	scratch = malloc(2 * MOST);
	ck_assert(plain && coded && back && scratch);
}

static void teardown(void)
{
	free(plain);
	free(coded);
	free(back);
	free(scratch);
}

static struct kvmd_group group(unsigned id, uint32_t planes, uint32_t parts, uint32_t tokens,
			       uint32_t channels)
{
	struct kvmd_group g = {
		.plane_bytes = 2ull * parts * tokens * channels, .planes = planes,
		.block_tokens = tokens,
		.codec = { .id = (uint8_t)id, .dtype = KVMD_DTYPE_BF16, .parts = (uint16_t)parts,
			   .channels = (uint16_t)channels, .kv_run = 1 },
	};

	if (planes * parts % 2)
		g.codec.kv_run = 0;
	ck_assert_msg(!kvmd_codec_wrong(&g), "%s", kvmd_codec_wrong(&g));
	return g;
}

static size_t plain_bytes(const struct kvmd_group *g, uint32_t shards)
{
	return g->planes * g->plane_bytes * (g->flags & KVMD_GROUP_REPLICA ? 1 : shards);
}

/* A few exponents, as in KV. */
static void fill(const struct kvmd_group *g, uint32_t shards)
{
	uint16_t *v = (uint16_t *)plain;

	for (size_t i = 0; i < plain_bytes(g, shards) / 2; i++)
		v[i] = ct_rnd_value(3);
}

static int encode(const struct kvmd_group *g, uint32_t shards, double *ret_error)
{
	memset(coded, 0xa5, MOST);
	return image_encode(g, shards, plain, coded, scratch, ret_error);
}

/* Sizes are from the same arithmetic as the codecs' own. */
START_TEST(parts_have_the_size_that_their_codec_says)
{
	static const uint32_t shape[][2] = { { 16, 64 }, { 16, 128 }, { 1, 64 }, { 7, 33 },
					     { 64, 1 }, { 256, 576 }, { 33, 65 } };

	for (unsigned id = KVMD_CODEC_WINDOW; id < KVMD_NR_CODEC; id++)
		for (size_t i = 0; i < ARRAY_SIZE(shape); i++)
			for (unsigned sv = 0; sv <= 128; sv = sv ? 2 * sv : 32) {
				struct kvmd_group g = { .planes = 1, .block_tokens = shape[i][0] };
				const struct codec_ops *ops = codec_get(id);
				struct codec_shape s = { .tokens = shape[i][0],
							 .channels = shape[i][1] };
				uint64_t n = (uint64_t)s.tokens * s.channels;

				g.codec.id = (uint8_t)id;
				g.codec.channels = (uint16_t)s.channels;
				g.codec.scale_values = ops->grouped ? (uint8_t)sv : 0;
				s.group = kvmd_codec_scale_values(&g.codec);
				if (id == KVMD_CODEC_WINDOW) {
					/* As many escapes as one in 64. */
					quiet_assert_uint_eq(kvmd_codec_part_bytes(&g, id, 0),
							     64 + n + (n + 1) / 2 + n / 64);
					continue;
				}
				quiet_assert_uint_eq(kvmd_codec_part_bytes(&g, id, 0),
						     ops->encoded_max(&s));
				s.axis = id == KVMD_CODEC_KIVI2 ? CODEC_PER_CHANNEL : 0;
				quiet_assert_uint_eq(kvmd_codec_part_bytes(&g, id, 1),
						     ops->encoded_max(&s));
			}
	for (unsigned id = 0; id < KVMD_NR_CODEC; id++)
		ck_assert_str_eq(kvmd_codec_name(id), codec_name(id));
}
END_TEST

START_TEST(what_gains_nothing_is_not_coded)
{
	struct kvmd_group g = group(KVMD_CODEC_WINDOW, 1, 2, 16, 64);
	double error;

	ck_assert_uint_eq(kvmd_codec_bytes(&g, 1), 0);	/* 4 KiB: not less than a page */
	ck_assert_int_eq(encode(&g, 1, &error), -EINVAL);
	ck_assert_int_eq(image_decode(&g, 1, coded, back), -EINVAL);
	g = group(KVMD_CODEC_WINDOW, 1, 2, 16, 256);
	ck_assert_uint_eq(kvmd_codec_bytes(&g, 1), 0);	/* nor than four */
	g = group(KVMD_CODEC_WINDOW, 1, 2, 16, 512);
	ck_assert_uint_eq(kvmd_codec_bytes(&g, 1), 28672);
	g.codec = (struct kvmd_codec) { 0 };
	ck_assert_uint_eq(kvmd_codec_bytes(&g, 1), 0);
	/* Headers of small parts cost more than is gained. */
	g = group(KVMD_CODEC_INT8, 64, 16, 16, 2);
	ck_assert_uint_eq(kvmd_codec_bytes(&g, 1), 0);
}
END_TEST

static const struct { uint32_t planes, parts, tokens, channels, shards; bool replica; } shapes[] = {
	{ 1, 2, 16, 512, 1, false }, { 1, 8, 16, 128, 1, false }, { 4, 2, 32, 64, 2, false },
	{ 8, 1, 16, 576, 1, false }, { 2, 3, 7, 289, 3, true }, { 1, 1, 64, 512, 2, true },
	{ 2, 32, 16, 64, 2, false },
};

static struct kvmd_group shaped(unsigned id, size_t i, uint32_t *ret_shards)
{
	struct kvmd_group g = group(id, shapes[i].planes, shapes[i].parts, shapes[i].tokens,
				    shapes[i].channels);

	g.flags = shapes[i].replica ? KVMD_GROUP_REPLICA : 0;
	*ret_shards = shapes[i].shards;
	return g;
}

START_TEST(window_gives_back_what_was_there)
{
	double error = 1;
	uint32_t shards;

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		struct kvmd_group g = shaped(KVMD_CODEC_WINDOW, i, &shards);
		size_t n = plain_bytes(&g, shards), bytes = kvmd_codec_bytes(&g, shards);

		ck_assert_uint_gt(bytes, 0);
		ck_assert_uint_lt(bytes, n);
		fill(&g, shards);
		ck_assert_int_eq(encode(&g, shards, &error), 0);
		ck_assert(error == 0);
		ck_assert_uint_eq(coded[bytes], 0xa5);	/* nothing behind it */
		ck_assert_int_eq(image_decode(&g, shards, coded, back), 0);
		ck_assert(!memcmp(back, plain, n));
	}
}
END_TEST

/* All 65536 patterns, NaN and denormals among them, where there is room for the escapes. */
START_TEST(every_pattern_comes_back)
{
	struct kvmd_group g = group(KVMD_CODEC_WINDOW, 1, 8, 64, 512);
	uint16_t *v = (uint16_t *)plain;
	size_t nr = plain_bytes(&g, 1) / 2;
	uint32_t next = 0;
	double error;

	while (next < 65536) {
		fill(&g, 1);
		for (size_t i = 0; i < nr && next < 65536; i += 70)
			v[i] = (uint16_t)next++;
		ck_assert_int_eq(encode(&g, 1, &error), 0);
		ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
		ck_assert(!memcmp(back, plain, 2 * nr));
	}
}
END_TEST

/* The largest difference is the one that is told, and is within the codec's bound. */
START_TEST(lossy_within_bound)
{
	uint32_t shards;

	for (unsigned id = KVMD_CODEC_FP8_E4M3; id < KVMD_NR_CODEC; id++)
		for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
			struct kvmd_group g = shaped(id, i, &shards);
			const uint16_t *a = (const uint16_t *)plain, *b = (const uint16_t *)back;
			size_t nr = plain_bytes(&g, shards) / 2;
			double worst = 0, d, error = -1, most = 0;

			if (!kvmd_codec_bytes(&g, shards))
				continue;
			fill(&g, shards);
			ck_assert_int_eq(encode(&g, shards, &error), 0);
			ck_assert_int_eq(image_decode(&g, shards, coded, back), 0);
			for (size_t k = 0; k < nr; k++)
				most = fmax(most, fabs((double)bf16_to_float(a[k])));
			for (size_t k = 0; k < nr; k++) {
				double v = (double)bf16_to_float(a[k]);

				d = fabs((double)bf16_to_float(b[k]) - v);
				worst = fmax(worst, d);
				quiet_assert(d <= codec_get(id)->bound(v, -most, most));
			}
			ck_assert(worst > 0 && (float)worst == (float)error);
			/* What came back is kept as it is from then on (fp8), or at least again. */
			memcpy(plain, back, 2 * nr);
			ck_assert_int_eq(encode(&g, shards, &error), 0);
		}
}
END_TEST

START_TEST(exact_parts_are_exact)
{
	struct kvmd_group g = group(KVMD_CODEC_INT4, 2, 4, 16, 128);
	size_t part = 2 * 16 * 128, shard = 8 * part;
	double error;

	g.codec.exact_first = 2;
	g.codec.exact_last = 1;
	fill(&g, 2);
	ck_assert_int_eq(encode(&g, 2, &error), 0);
	ck_assert_int_eq(image_decode(&g, 2, coded, back), 0);
	for (size_t s = 0; s < 2; s++)
		for (size_t p = 0; p < 8; p++)
			ck_assert_int_eq(!memcmp(back + s * shard + p * part,
						 plain + s * shard + p * part, part),
					 p < 2 || p == 7);
}
END_TEST

/* K channels that are large in all tokens: per channel they cost the others nothing. */
START_TEST(keys_are_grouped_per_channel)
{
	struct kvmd_group g = group(KVMD_CODEC_KIVI2, 1, 4, 64, 128);
	uint16_t *v = (uint16_t *)plain, *b = (uint16_t *)back;
	double worst[4] = { 0 }, error;

	for (size_t i = 0; i < 4 * 64 * 128; i++)
		v[i] = bf16_of_float((i % 128 == 5 ? 100.0f : 0.0f) +
				     (float)ct_rnd(1000) / 1000);
	ck_assert_int_eq(encode(&g, 1, &error), 0);
	ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
	for (size_t i = 0; i < 4 * 64 * 128; i++)
		if (i % 128 != 5)
			worst[i / (64 * 128)] = fmax(worst[i / (64 * 128)],
				fabs((double)bf16_to_float(v[i]) - (double)bf16_to_float(b[i])));
	ck_assert(worst[0] < 0.25 && worst[2] < 0.25);	/* K */
	ck_assert(worst[1] > 0.5 && worst[3] > 0.5);	/* V: in one group with the large one */
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
	uint16_t *v = (uint16_t *)plain;
	struct kvmd_group g;
	double error;

	/* Exponents of all sizes. */
	g = group(KVMD_CODEC_WINDOW, 1, 8, 16, 128);
	for (size_t i = 0; i < plain_bytes(&g, 1) / 2; i++)
		v[i] = (uint16_t)ct_rnd(65536);
	ck_assert_int_eq(encode(&g, 1, &error), -E2BIG);
	/* In one part only, the others being as good as can be: it has their room. */
	fill(&g, 1);
	for (size_t i = 0; i < 16 * 128; i += 30)
		v[i] = 0x7f80;
	ck_assert_int_eq(encode(&g, 1, &error), 0);
	/* The last one: there is no room for its most, but for what it has. */
	fill(&g, 1);
	for (size_t i = 0; i < 3 * 16 * 128; i++)
		v[i] = (uint16_t)ct_rnd(65536);
	ck_assert_int_eq(encode(&g, 1, &error), 0);
	ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
	ck_assert(!memcmp(back, plain, plain_bytes(&g, 1)));
	for (size_t i = 0; i < 5 * 16 * 128; i++)
		v[i] = (uint16_t)ct_rnd(65536);
	ck_assert_int_eq(encode(&g, 1, &error), -E2BIG);
	for (unsigned id = KVMD_CODEC_INT8; id < KVMD_NR_CODEC; id++) {
		static const uint16_t odd[] = { 0x7f80, 0xff80, 0x7fc0, 0x7f81 };

		g = group(id, 2, 4, 16, 128);
		for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
			fill(&g, 1);
			v[plain_bytes(&g, 1) / 2 - 1 - ct_rnd(5000)] = odd[i];
			ck_assert_int_eq(encode(&g, 1, &error), -E2BIG);
		}
		/* Exact parts take them. */
		g.codec.exact_last = 1;
		fill(&g, 1);
		v[plain_bytes(&g, 1) / 2 - 1] = 0x7fc0;
		ck_assert_int_eq(encode(&g, 1, &error), 0);
		ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
		ck_assert_uint_eq(((uint16_t *)back)[plain_bytes(&g, 1) / 2 - 1], 0x7fc0);
	}
}
END_TEST

static void seal(size_t nr_parts)
{
	struct image_head h;

	memcpy(&h, coded, sizeof(h));
	h.table_crc = crc32c(coded + sizeof(h), nr_parts * 4);
	h.crc = crc32c(&h, offsetof(struct image_head, crc));
	memcpy(coded, &h, sizeof(h));
}

/* A bit that makes no difference, as in the scale of zeros, is the outer checksum's to find. */
static void gives_wrong_bytes_never(const struct kvmd_group *g, size_t n)
{
	int err = image_decode(g, 1, coded, back);

	quiet_assert(err == -EBADMSG || (!err && !memcmp(back, plain, n)));
}

/* One after the other; a head that is right all the same is what its fields are compared for. */
START_TEST(every_flipped_bit_is_found)
{
	for (unsigned id = KVMD_CODEC_WINDOW; id < KVMD_NR_CODEC; id++) {
		struct kvmd_group g = group(id, 1, 8, 16, 128);
		size_t n = plain_bytes(&g, 1), bytes = kvmd_codec_bytes(&g, 1);
		struct image_head h;
		double error;

		fill(&g, 1);
		g.codec.exact_first = id == KVMD_CODEC_INT8;
		ck_assert_int_eq(encode(&g, 1, &error), 0);
		memcpy(&h, coded, sizeof(h));
		ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
		memcpy(plain, back, n);
		for (size_t i = 0; i < 8 * h.bytes; i += i < 8 * 96 ? 1 : 101) {
			coded[i / 8] ^= (uint8_t)(1u << i % 8);
			gives_wrong_bytes_never(&g, n);
			if (i < 8 * (sizeof(h) + h.nr_parts * 4ul)) {
				quiet_assert_int_eq(image_decode(&g, 1, coded, back), -EBADMSG);
				seal(h.nr_parts);
				gives_wrong_bytes_never(&g, n);
			}
			coded[i / 8] ^= (uint8_t)(1u << i % 8);
			if (i < 8 * (sizeof(h) + h.nr_parts * 4ul))
				memcpy(coded, &h, sizeof(h));
		}
		ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
		ck_assert(!memcmp(back, plain, n));
		/* Padding is not looked at, nor used. */
		if (h.bytes < bytes)
			coded[bytes - 1] ^= 1;
		ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
	}
}
END_TEST

/* Of a group that is described otherwise it is nothing. */
START_TEST(another_description_does_not_decode)
{
	struct kvmd_group g = group(KVMD_CODEC_INT8, 2, 4, 16, 128), o;
	double error;

	fill(&g, 1);
	ck_assert_int_eq(encode(&g, 1, &error), 0);
#define OTHER(set) do { \
	o = g; \
	set; \
	ck_assert_int_eq(image_decode(&o, 1, coded, back), -EBADMSG); \
} while (0)
	OTHER(o.codec.id = KVMD_CODEC_WINDOW);
	OTHER(o.codec.id = KVMD_CODEC_FP8_E4M3);
	OTHER(o.codec.exact_first = 1);
	OTHER(o.codec.exact_last = 1);
	OTHER(o.codec.scale_values = 32);
	OTHER(o.codec.parts = 8; o.block_tokens = 8);
	OTHER(o.codec.channels = 64; o.block_tokens = 32);
	OTHER(o.planes = 1; o.codec.parts = 4);
	o = g;
	ck_assert_int_eq(image_decode(&o, 2, coded, back), -EBADMSG);
	ck_assert_int_eq(image_decode(&g, 1, coded, back), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("image");
	TCase *tc = suite_group(s, "image", setup, teardown);

	tcase_add_test(tc, parts_have_the_size_that_their_codec_says);
	tcase_add_test(tc, what_gains_nothing_is_not_coded);
	tcase_add_test(tc, window_gives_back_what_was_there);
	tcase_add_test(tc, every_pattern_comes_back);
	tcase_add_test(tc, lossy_within_bound);
	tcase_add_test(tc, exact_parts_are_exact);
	tcase_add_test(tc, keys_are_grouped_per_channel);
	tcase_add_test(tc, what_does_not_fit_is_refused);
	tcase_add_test(tc, every_flipped_bit_is_found);
	tcase_add_test(tc, another_description_does_not_decode);
	return suite_run(s);
}
