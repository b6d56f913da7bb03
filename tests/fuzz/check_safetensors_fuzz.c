// SPDX-License-Identifier: Apache-2.0
/*
 * check_safetensors_fuzz.c - broken files of weights: refused with a reason, never worse.
 *
 * A good file is damaged at random: its length field, its header (bytes, numbers, words,
 * pieces of itself), its end. What is still loaded is a model like any other. The seed
 * is printed; KVMD_FUZZ_SEED repeats it, KVMD_FUZZ_RUNS sets how many.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/conf.h"
#include "kvmd/lib/mem.h"
#include "tests/quiet.h"
#include "tests/st_file.h"
#include "tests/suite.h"

#define ROOM	8192u		/* of a header */

static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* At @at, @cut bytes make way for @n bytes of @text. */
static size_t splice(char *header, size_t len, size_t at, size_t cut, const char *text, size_t n)
{
	cut = min(cut, len - at);
	if (len - cut + n > ROOM)
		return len;
	memmove(header + at + n, header + at + cut, len - at - cut);
	memcpy(header + at, text, n);
	return len - cut + n;
}

/* The run of digits behind @at; its length in @ret_n, 0: there is none. */
static size_t number_behind(const char *header, size_t len, size_t at, size_t *ret_n)
{
	size_t end;

	while (at < len && (header[at] < '0' || header[at] > '9'))
		at++;
	for (end = at; end < len && header[end] >= '0' && header[end] <= '9'; end++)
		;
	*ret_n = end - at;
	return at;
}

static size_t damage(char *header, size_t len)
{
	static const char *const words[] = {
		"F32", "F64", "I8", "BOOL", "null", "{}", "[]", "-1", "1e9", "0.5", "\"\"",
		"18446744073709551615", "9223372036854775808", "4294967296", "\\u0000",
		"\"__metadata__\":", "\"shape\":", "\"data_offsets\":", "[[[[[[[[[[", "}}}", ",",
	};
	char piece[64], text[24];
	size_t at = rnd(len), n, from;
	const char *w;

	switch (rnd(6)) {
	case 0:
		header[at] = (char)rnd(256);
		return len;
	case 1:
		return splice(header, len, at, 1 + rnd(rnd(8) ? 4 : 200), "", 0);
	case 2:
		w = words[rnd(ARRAY_SIZE(words))];
		return splice(header, len, at, rnd(2) ? strlen(w) : 0, w, strlen(w));
	case 3:
		from = rnd(len);
		n = min(1 + rnd(sizeof(piece)), len - from);
		memcpy(piece, header + from, n);
		return splice(header, len, at, rnd(2) ? n : 0, piece, n);
	default:
		/* Most of what is to be checked are numbers. */
		at = number_behind(header, len, at, &n);
		snprintf(text, sizeof(text), "%" PRIu64, rnd(4) ? rnd(5000) : rnd(UINT64_MAX));
		return n ? splice(header, len, at, n, text, strlen(text)) : len;
	}
}

static void write_file(int fd, const char *header, size_t len, const char *data, size_t bytes)
{
	uint64_t says = rnd(40) ? len : rnd(2) ? rnd(2 * len) : rnd(UINT64_MAX);
	unsigned char le[8];
	unsigned i;

	if (!rnd(20))
		bytes = rnd(bytes);
	for (i = 0; i < 8; i++)
		le[i] = (unsigned char)(says >> 8 * i);
	quiet_assert_int_eq(ftruncate(fd, 0), 0);
	quiet_assert_int_eq(pwrite(fd, le, 8, 0), 8);
	quiet_assert_int_eq(pwrite(fd, header, len, 8), (ssize_t)len);
	quiet_assert_int_eq(pwrite(fd, data, bytes, 8 + (off_t)len), (ssize_t)bytes);
	if (!rnd(20))
		quiet_assert_int_eq(ftruncate(fd, (off_t)rnd(8 + len + bytes)), 0);
}

static uint64_t from_env(const char *name, uint64_t def)
{
	const char *s = getenv(name);
	uint64_t v;

	return s && !conf_parse_u64(s, &v) && v ? v : def;
}

/* A file of a model with two layers, all settings in it. */
static void good(struct kn_dev *dev, struct st_file *f)
{
	struct ki_shape s;
	struct ki_model *m;
	char msg[KI_TEXT];

	ki_shape_init(&s);
	ck_assert_int_eq(ki_shape_parse(&s, "dim=8,heads=2,kv_heads=1,head_dim=8,ffn=6,layers=2,"
					"vocab=11", msg), 0);
	ck_assert_int_eq(ki_model_random(dev, &s, 9, 0, 1, &m, msg), 0);
	st_file_of(f, m, KI_ST_F16, false);
	st_file_insert(f, "\"__metadata__\":{\"num_attention_heads\":\"2\",\"head_dim\":\"8\","
		       "\"num_key_value_heads\":\"1\",\"rope_theta\":\"500000\","
		       "\"rms_norm_eps\":\"0.0001\",\"max_position_embeddings\":\"77\","
		       "\"hidden_size\":\"8\",\"vocab_size\":\"11\"},");
	ki_model_free(m);
}

START_TEST(damaged_files_are_refused_with_a_reason)
{
	uint64_t seed = from_env("KVMD_FUZZ_SEED", clock_ns() | 1);
	uint64_t runs = from_env("KVMD_FUZZ_RUNS", 200000) / 10 + 1, i, nr;
	char header[ROOM], path[64], msg[KI_TEXT];
	struct kn_dev *dev;
	struct st_file f;
	size_t whole, len;
	int fd, err;

	rng = seed;
	printf("seed %" PRIu64 "\n", seed);
	ck_assert_int_eq(kn_cpu_open(&dev), 0);
	good(dev, &f);
	whole = strlen(f.header);
	ck_assert_uint_lt(whole, ROOM / 2);
	fd = mem_fd_create("weights", 1, false, NULL);
	ck_assert_int_ge(fd, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (i = 0; i < runs; i++) {
		struct ki_model *m = NULL;

		memcpy(header, f.header, whole);
		len = whole;
		for (nr = i ? 1 + rnd(3) : 0; nr && len; nr--)
			len = damage(header, len);
		if (i)
			write_file(fd, header, len, f.data, f.bytes);
		else
			st_file_write(&f, path);
		msg[0] = '\0';
		err = ki_model_load(dev, path, 0, 1, &m, msg);
		quiet_assert_msg(!err || i, "the good file: %s", msg);
		quiet_assert(err <= 0 && !err == !!m);
		quiet_assert(!err || (msg[0] && memchr(msg, '\0', sizeof(msg))));
		ki_model_free(m);
	}
	close(fd);
	st_file_free(&f);
	kn_close(dev);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fuzz_safetensors");
	TCase *tc = tcase_create("files");

	tcase_set_timeout(tc, 0);	/* as long as KVMD_FUZZ_RUNS asks for */
	tcase_add_test(tc, damaged_files_are_refused_with_a_reason);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
