// SPDX-License-Identifier: Apache-2.0
/*
 * check_safetensors.c - weights from files: good ones as they are, bad ones refused with
 * the name of what is wrong.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/kernels/ref.h"
#include "tests/quiet.h"
#include "tests/st_file.h"
#include "tests/suite.h"

static char dir[64], path[96], config[96];
static struct ki_shape shape;
static struct ki_model *model;		/* what files are made of */
static struct st_file file;
static char msg[KI_TEXT];

static void setup(void)
{
	char *text;

	strcpy(dir, "/tmp/kvmd-st-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/m.safetensors", dir);
	snprintf(config, sizeof(config), "%s/config.json", dir);
	ki_shape_init(&shape);
	ck_assert_int_eq(ki_shape_parse(&shape, "dim=16,heads=2,kv_heads=2,head_dim=8,ffn=10,"
					"layers=2,vocab=11,max_tokens=77,theta=5e5,eps=1e-4", msg),
			 0);
	ck_assert_int_eq(ki_model_random(ref_cpu(), &shape, 9, 0, 1, &model, msg), 0);
	st_file_of(&file, model, KI_ST_BF16, false);
	text = st_config(&shape);
	st_write(config, text, strlen(text));
	free(text);
}

static void teardown(void)
{
	st_file_free(&file);
	ki_model_free(model);
	unlink(path);
	unlink(config);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* The file at path is refused so, and the text has @what in it. */
static void refused(int err, const char *what)
{
	struct ki_model *m = NULL;
	int got;

	memset(msg, 0, sizeof(msg));
	got = ki_model_load(ref_cpu(), path, 0, 1, &m, msg);
	quiet_assert_msg(got == err, "%d instead of %d for %s: %s", got, err, what, msg);
	quiet_assert_msg(strstr(msg, what), "'%s' is not in: %s", what, msg);
	quiet_assert_ptr_null(m);
}

static struct ki_model *loaded(uint32_t rank, uint32_t nr_ranks)
{
	struct ki_model *m = NULL;
	int err = ki_model_load(ref_cpu(), path, rank, nr_ranks, &m, msg);

	quiet_assert_msg(!err, "%d: %s", err, msg);
	return m;
}

/* -------------------------------------------------------------------- good */

static void assert_rounded(const char *what, const float *got, const float *want, size_t n,
			   uint32_t as)
{
	float *to = ref_alloc(n * sizeof(*to));
	size_t i;

	for (i = 0; i < n; i++)
		to[i] = ref_round(as, want[i]);
	quiet_assert(ref_same(what, got, to, n));
	free(to);
}

/* All of @m is @want's, as it comes back from @as. */
static void assert_weights(const struct ki_model *m, const struct ki_model *want, uint32_t as)
{
	size_t dim = m->shape.dim, hd = m->shape.head_dim, vocab = m->shape.vocab * dim;
	size_t q = m->heads * hd, kv = m->kv_heads * hd, i;

	assert_rounded("embed", m->embed, want->embed, vocab, as);
	assert_rounded("norm", m->norm, want->norm, dim, as);
	assert_rounded("out", m->out, want->out, vocab, as);
	for (i = 0; i < m->shape.layers; i++) {
		const struct ki_layer *a = &m->layer[i], *b = &want->layer[i];

		assert_rounded("norm1", a->norm1, b->norm1, dim, as);
		assert_rounded("wqkv", a->wqkv, b->wqkv, (q + 2 * kv) * dim, as);
		assert_rounded("wo", a->wo, b->wo, dim * q, as);
		assert_rounded("norm2", a->norm2, b->norm2, dim, as);
		assert_rounded("w13", a->w13, b->w13, 2 * m->ffn * dim, as);
		assert_rounded("w2", a->w2, b->w2, dim * m->ffn, as);
	}
}

START_TEST(a_good_file_of_each_type_is_what_it_says)
{
	static const enum ki_st_dtype types[] = { KI_ST_F32, KI_ST_F16, KI_ST_BF16 };
	static const uint32_t as[] = { KN_F32, KN_F16, KN_BF16 };
	struct ki_model *m;

	st_file_free(&file);
	st_file_of(&file, model, types[_i], false);
	st_file_write(&file, path);
	m = loaded(0, 1);
	ck_assert(!memcmp(&m->shape, &shape, sizeof(shape)));
	assert_weights(m, model, as[_i]);
	/* The same values are the same model, wherever they come from. */
	ck_assert((memcmp(m->digest, model->digest, sizeof(m->digest)) == 0) == (_i == 0));
	ck_assert_uint_eq(m->bytes, model->bytes);
	ki_model_free(m);
}
END_TEST

START_TEST(a_rank_gets_its_part)
{
	struct ki_model *m, *want;
	uint32_t rank;

	st_file_free(&file);
	st_file_of(&file, model, KI_ST_F32, false);
	st_file_write(&file, path);
	for (rank = 0; rank < 2; rank++) {
		ck_assert_int_eq(ki_model_random(ref_cpu(), &shape, 9, rank, 2, &want, msg), 0);
		m = loaded(rank, 2);
		ck_assert_uint_eq(m->heads, 1);
		ck_assert_uint_eq(m->ffn, 5);
		assert_weights(m, want, KN_F32);
		ck_assert(!memcmp(m->digest, model->digest, sizeof(m->digest)));
		ki_model_free(want);
		ki_model_free(m);
	}
	ck_assert_int_eq(ki_model_load(ref_cpu(), path, 0, 4, &m, msg), -EINVAL);
	ck_assert_msg(strstr(msg, "4 ranks"), "%s", msg);
	ck_assert_int_eq(ki_model_load(ref_cpu(), path, 2, 2, &m, msg), -EINVAL);
}
END_TEST

START_TEST(tied_output_is_the_embedding)
{
	struct ki_model *m;
	char *text, *denied;

	st_file_free(&file);
	st_file_of(&file, model, KI_ST_F32, true);
	st_file_write(&file, path);
	m = loaded(0, 1);
	ck_assert_ptr_eq(m->out, m->embed);
	ck_assert_uint_eq(m->bytes, model->bytes - 11 * 16 * sizeof(float));
	ki_model_free(m);
	/* Not where that is denied. */
	text = st_config(&shape);
	ck_assert_int_gt(asprintf(&denied, "{\"tie_word_embeddings\": false, %s", text + 1), 0);
	st_write(config, denied, strlen(denied));
	free(denied);
	free(text);
	refused(-EINVAL, "tensor lm_head.weight is missing");
}
END_TEST

START_TEST(settings_may_be_in_the_file)
{
	struct ki_model *m;

	unlink(config);
	st_file_write(&file, path);
	refused(-EINVAL, "num_attention_heads is neither in");
	st_file_insert(&file, "\"__metadata__\":{\"num_attention_heads\":\"2\","
		       "\"rope_theta\":\"500000.0\",\"rms_norm_eps\":\"0.0001\","
		       "\"max_position_embeddings\":\"77\"},");
	st_file_write(&file, path);
	m = loaded(0, 1);
	ck_assert(!memcmp(&m->shape, &shape, sizeof(shape)));
	ki_model_free(m);
}
END_TEST

START_TEST(random_weights_are_the_same_everywhere)
{
	static const uint8_t want[] = { 0xf8, 0xf9, 0x22, 0x6e, 0x29, 0x96, 0xc6, 0xf8 };
	struct ki_shape s;
	struct ki_model *m, *other;

	ki_shape_init(&s);
	ck_assert_int_eq(ki_model_random(ref_cpu(), &s, 1, 0, 1, &m, msg), 0);
	ck_assert(!memcmp(m->digest, want, sizeof(want)));
	/* Positions change nothing; anything else does. */
	s.max_tokens = 100;
	ck_assert_int_eq(ki_model_random(ref_cpu(), &s, 1, 1, 2, &other, msg), 0);
	ck_assert(!memcmp(m->digest, other->digest, sizeof(m->digest)));
	ki_model_free(other);
	s.eps = 1e-6f;
	ck_assert_int_eq(ki_model_random(ref_cpu(), &s, 1, 0, 1, &other, msg), 0);
	ck_assert(memcmp(m->digest, other->digest, sizeof(m->digest)));
	ki_model_free(other);
	ki_model_free(m);
}
END_TEST

/* --------------------------------------------------------------------- bad */

START_TEST(a_file_cut_short_is_refused_at_any_length)
{
	size_t header = 8 + strlen(file.header), whole = header + file.bytes, n;
	struct ki_model *m;

	st_file_write(&file, path);
	m = loaded(0, 1);
	ki_model_free(m);
	for (n = whole; n--;) {
		if (n > header + 64 && n < whole - 64 && n % 61)
			continue;
		quiet_assert_int_eq(truncate(path, (off_t)n), 0);
		refused(-EMSGSIZE, n < header ? "cut short" : "tensor ");
	}
}
END_TEST

#define Q0	"model.layers.0.self_attn.q_proj.weight"
#define Q0_IS	"\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[16,16],"

/* An edit of the header, and what is said of it. */
static const struct {
	const char *from, *to;
	int err;
	const char *what;
} edits[] = {
	/* Types. */
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"I16\",\"shape\":[16,16],", -EINVAL,
	  "tensor " Q0 ": dtype is I16" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF17\",\"shape\":[16,16],", -EINVAL,
	  "tensor " Q0 ": dtype is none" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":3,\"shape\":[16,16],", -EINVAL, Q0 ": dtype" },
	{ Q0_IS, "\"" Q0 "\":{\"shape\":[16,16],", -EINVAL, Q0 ": dtype" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"F32\",\"shape\":[16,16],", -EINVAL,
	  Q0 ": data_offsets are not shape times dtype" },
	/* Shapes. */
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[16,17],", -EINVAL,
	  Q0 ": data_offsets are not shape times dtype" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[8,32],", -EINVAL,
	  "k_proj.weight: 16 rows are not num_key_value_heads=2 of 4" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[256],", -EINVAL,
	  Q0 ": shape has 1 dimensions" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[16,-16],", -EINVAL, Q0 ": shape is no" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[16,16.0],", -EINVAL, Q0 ": shape is no" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[16,\"16\"],", -EINVAL,
	  Q0 ": shape is no" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":256,", -EINVAL, Q0 ": shape is no" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",", -EINVAL, Q0 ": shape is no" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[1,1,1,1,1,1,1,16,16],", -EINVAL,
	  Q0 ": shape has more than 8" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[4294967296,4294967296],", -EINVAL,
	  Q0 ": shape is larger than any file" },
	{ Q0_IS, "\"" Q0 "\":{\"dtype\":\"BF16\",\"shape\":[9223372036854775807,1],", -EINVAL,
	  Q0 ": data_offsets are not shape times dtype" },
	{ "\"shape\":[10,16]", "\"shape\":[16,10]", -EINVAL, "setting intermediate_size is 10" },
	{ "mlp.up_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[10,16]",
	  "mlp.up_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[16,10]", -EINVAL,
	  "tensor model.layers.0.mlp.up_proj.weight: shape is 16 * 10: 10 * 16" },
	{ "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[16]",
	  "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[1,16]", -EINVAL,
	  "tensor model.norm.weight: shape has 2 dimensions" },
	/* Places. Data begin with embed_tokens: 11 * 16 * 2 = 352 bytes, then a norm of 32. */
	{ "[352,384]", "[352,383]", -EINVAL, "data_offsets are not shape times dtype" },
	{ "[352,384]", "[384,352]", -EINVAL, "data_offsets end before they begin" },
	{ "[352,384]", "[352,384,400]", -EINVAL, "data_offsets are not two numbers" },
	{ "[352,384]", "[-32,0]", -EINVAL, "data_offsets are not two numbers" },
	{ "[352,384]", "[352.5,384.5]", -EINVAL, "data_offsets are not two numbers" },
	{ "[352,384]", "{}", -EINVAL, "data_offsets are not two numbers" },
	{ ",\"data_offsets\":[352,384]", "", -EINVAL, "data_offsets are not two numbers" },
	{ "[352,384]", "[320,352]", -EINVAL, "data_offsets overlap" },
	{ "[352,384]", "[384,416]", -EINVAL, "leave bytes before them unused" },
	{ "[352,384]", "[100352,100384]", -EMSGSIZE,
	  "tensor model.layers.0.input_layernorm.weight: ends at byte 100384" },
	{ "[352,384]", "[18446744073709551583,18446744073709551615]", -EMSGSIZE, "ends at byte" },
	{ "[352,384]", "[0,18446744073709551615]", -EMSGSIZE, "ends at byte" },
	/* What is not a header. */
	{ "{\"model", "[\"model", -EINVAL, "the header does not begin with {" },
	{ "}   ", "    ", -EINVAL, "the header ends within its JSON" },
	{ "}   ", "}  x", -EINVAL, "the header has more than JSON" },
	{ "\":{\"dtype", "\"?{\"dtype", -EINVAL, "the header is no JSON" },
	{ "\"shape\":[11,16]", "\"shape\":[[[[[[[[[11]]]]]]]]]", -EINVAL, "the header is no JSON" },
	{ "{\"dtype\":\"BF16\",\"shape\":[11,16],\"data_offsets\":[0,352]}", "[0,352]", -EINVAL,
	  "tensor model.embed_tokens.weight: not an object" },
	{ "{\"model", "{\"__metadata__\":[],\"model", -EINVAL, "__metadata__ is no object" },
	{ "{\"model", "{\"__metadata__\":{\"format\":1},\"model", -EINVAL,
	  "__metadata__: format is no string" },
	/* Tensors that are too many. */
	{ "\"model.norm.weight\"", "\"model.layers.300.x.weight\"", -EINVAL,
	  "tensor model.layers.300.x.weight: layers are 0 to 255" },
	{ "model.layers.1.mlp.up_proj", "model.layers.2.mlp.up_proj", -EINVAL,
	  "num_hidden_layers is 2: the tensors say 3" },
};

START_TEST(a_header_that_is_wrong_is_refused_by_name)
{
	st_file_edit(&file, edits[_i].from, edits[_i].to);
	st_file_write(&file, path);
	refused(edits[_i].err, edits[_i].what);
}
END_TEST

/* Any one of them. */
START_TEST(a_missing_tensor_is_named)
{
	static const char *const names[] = {
		"model.embed_tokens", "model.norm", "model.layers.0.input_layernorm",
		"model.layers.1.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
		"model.layers.1.self_attn.v_proj", "model.layers.1.self_attn.o_proj",
		"model.layers.0.post_attention_layernorm", "model.layers.0.mlp.gate_proj",
		"model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj",
	};
	char is[96], was[96], wanted[128];
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(is, sizeof(is), "\"%s.weight\"", names[i]);
		snprintf(was, sizeof(was), "\"%s.waits\"", names[i]);
		snprintf(wanted, sizeof(wanted), "tensor %s.weight is missing", names[i]);
		st_file_edit(&file, is, was);
		st_file_write(&file, path);
		refused(-EINVAL, wanted);
		st_file_edit(&file, was, is);
	}
}
END_TEST

START_TEST(a_tensor_that_would_change_answers_is_refused)
{
	st_file_insert(&file, "\"model.layers.0.self_attn.q_proj.bias\":{\"dtype\":\"F32\","
		       "\"shape\":[0],\"data_offsets\":[0,0]},");
	st_file_write(&file, path);
	refused(-EINVAL, "tensor model.layers.0.self_attn.q_proj.bias: no part of a Llama");
	/* What old files have besides is computed. */
	st_file_edit(&file, "q_proj.bias", "rotary_emb.inv_freq");
	st_file_write(&file, path);
	ki_model_free(loaded(0, 1));
}
END_TEST

START_TEST(lengths_of_headers_are_not_believed)
{
	static const struct {
		uint64_t bytes;
		int err;
		const char *what;
	} tries[] = {
		{ 0, -EINVAL, "a header of 0 bytes" },
		{ 1, -EINVAL, "a header of 1 bytes" },
		{ 50000000, -EMSGSIZE, "cut short: a header of 50000000 bytes" },
		{ 100000000, -EMSGSIZE, "cut short: a header of 100000000 bytes" },
		{ 100000001, -EINVAL, "a header of 100000001 bytes" },
		{ UINT64_MAX - 7, -EINVAL, "a header of" },
		{ UINT64_MAX, -EINVAL, "a header of" },
	};
	unsigned char le[8];
	size_t i, j;
	FILE *f;

	for (i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		st_file_write(&file, path);
		f = fopen(path, "r+e");
		ck_assert_ptr_nonnull(f);
		for (j = 0; j < 8; j++)
			le[j] = (unsigned char)(tries[i].bytes >> 8 * j);
		ck_assert_uint_eq(fwrite(le, 8, 1, f), 1);
		ck_assert_int_eq(fclose(f), 0);
		refused(tries[i].err, tries[i].what);
	}
}
END_TEST

START_TEST(bytes_behind_the_last_tensor_are_refused)
{
	file.data = realloc(file.data, file.bytes + 1);
	file.data[file.bytes++] = 0;
	st_file_write(&file, path);
	refused(-EINVAL, "1 bytes behind the last tensor");
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
	refused(-ENOENT, path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	refused(-EINVAL, "not a file");
	rmdir(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	refused(-EINVAL, "not a file");
}
END_TEST

START_TEST(a_file_that_becomes_shorter_is_no_crash)
{
	struct ki_st *f;
	float v[16];

	st_file_write(&file, path);
	ck_assert_int_eq(ki_st_open(path, &f, msg), 0);
	ck_assert_int_eq(ki_st_read(f, ki_st_find(f, "model.norm.weight"), 0, 16, v, msg), 0);
	ck_assert(ref_same("norm", v, v, 16));
	ck_assert_int_eq(ki_st_read(f, ki_st_find(f, "model.norm.weight"), 1, 16, v, msg), -EINVAL);
	ck_assert_int_eq(truncate(path, 100), 0);
	ck_assert_int_eq(ki_st_read(f, ki_st_find(f, "model.norm.weight"), 0, 16, v, msg), -EMSGSIZE);
	ck_assert_msg(strstr(msg, "became shorter"), "%s", msg);
	ki_st_close(f);
}
END_TEST

/* ------------------------------------------------------------------ config */

/* Settings beside a good file. */
static const struct {
	const char *text, *what;
} configs[] = {
	{ "", "is no JSON object" },
	{ "[1]", "is no JSON object" },
	{ "{\"num_attention_heads\": 2", "is no JSON object" },
	{ "{}", "num_attention_heads is neither in" },
	{ "{\"num_attention_heads\": \"two\"}", "setting num_attention_heads is two" },
	{ "{\"num_attention_heads\": -2}", "setting num_attention_heads is -2" },
	{ "{\"num_attention_heads\": 4294967297}", "setting num_attention_heads is 4294967297" },
	{ "{\"num_attention_heads\": 0}", "num_attention_heads is neither in" },
	{ "{\"num_attention_heads\": 3}", "16 rows are not num_attention_heads=3 of 5" },
	{ "{\"num_attention_heads\": 4}", "head_dim is 4: it must be from 8" },
	{ "{\"num_attention_heads\": 2, \"num_key_value_heads\": 1}",
	  "16 rows are not num_key_value_heads=1 of 8" },
	{ "{\"num_attention_heads\": 2, \"head_dim\": 16}", "num_attention_heads=2 of 16" },
	{ "{\"num_attention_heads\": 2, \"hidden_size\": 32}",
	  "setting hidden_size is 32: the tensors say 16" },
	{ "{\"num_attention_heads\": 2, \"vocab_size\": 12}",
	  "setting vocab_size is 12: the tensors say 11" },
	{ "{\"num_attention_heads\": 2, \"num_hidden_layers\": 1}",
	  "setting num_hidden_layers is 1: the tensors say 2" },
	{ "{\"num_attention_heads\": 2, \"intermediate_size\": 11}",
	  "setting intermediate_size is 11: the tensors say 10" },
	{ "{\"num_attention_heads\": 2, \"rope_theta\": \"x\"}", "setting rope_theta is x" },
	{ "{\"num_attention_heads\": 2, \"rope_theta\": 0.5}", "theta is 0.5: it must be" },
	{ "{\"num_attention_heads\": 2, \"rms_norm_eps\": -1}", "eps is -1: it must be" },
	{ "{\"num_attention_heads\": 2, \"rms_norm_eps\": NaN}", "eps is" },
	{ "{\"num_attention_heads\": 2, \"max_position_embeddings\": 0}", "max_tokens is 0" },
	{ "{\"num_attention_heads\": 2, \"hidden_act\": \"gelu\"}", "setting hidden_act is gelu" },
	{ "{\"num_attention_heads\": 2, \"attention_bias\": true}", "setting attention_bias is true" },
	{ "{\"num_attention_heads\": 2, \"mlp_bias\": true}", "setting mlp_bias is true" },
	{ "{\"num_attention_heads\": 2, \"rope_scaling\": {\"factor\": 8.0}}",
	  "setting rope_scaling is" },
	{ "{\"num_attention_heads\": 2, \"rope_parameters\": {\"rope_type\": \"yarn\"}}",
	  "setting rope_type is yarn" },
};

START_TEST(settings_that_cannot_be_are_refused)
{
	st_file_write(&file, path);
	st_write(config, configs[_i].text, strlen(configs[_i].text));
	refused(-EINVAL, configs[_i].what);
}
END_TEST

START_TEST(settings_of_newer_files_are_known)
{
	static const char text[] = "{\"num_attention_heads\": 2, \"rope_parameters\": "
				   "{\"rope_type\": \"default\", \"rope_theta\": 250000.0}}";
	struct ki_model *m;

	st_file_write(&file, path);
	st_write(config, text, strlen(text));
	m = loaded(0, 1);
	ck_assert_float_eq(m->shape.theta, 250000);
	ki_model_free(m);
}
END_TEST

START_TEST(a_huge_or_odd_config_is_refused)
{
	st_file_write(&file, path);
	ck_assert_int_eq(truncate(config, (1 << 20) + 1), 0);
	refused(-EINVAL, "config.json: not a file of at most 1 MiB");
	unlink(config);
	ck_assert_int_eq(mkdir(config, 0700), 0);
	refused(-EINVAL, "config.json: not a file of at most 1 MiB");
	rmdir(config);
}
END_TEST

/* -------------------------------------------------------------------- words */

static const struct {
	const char *spec, *what;	/* what NULL: it is good */
} specs[] = {
	{ "", NULL }, { "layers=256", NULL }, { "theta=1e6,eps=1e-6", NULL },
	{ "dim=100,heads=3,head_dim=16,kv_heads=1", NULL },
	{ "layers", "layers: not of the form word=value" },
	{ "depth=3", "depth: no such size" },
	{ "layers=0", "layers=0: a number from 1 to 256" },
	{ "layers=257", "layers=257: a number from 1 to 256" },
	{ "layers=-1", "layers=-1: a number" }, { "layers= 1", "layers= 1: a number" },
	{ "layers=1x", "layers=1x: a number" }, { "layers=", "layers=: a number" },
	{ "vocab=99999999999999999999", "vocab=99999999999999999999: a number" },
	{ "theta=nan", "theta=nan: a number from 1" }, { "eps=2", "eps=2: a number from 0 to 1" },
	{ "dim=100,heads=3", "dim=100 is no multiple of heads=3" },
	{ "head_dim=12", "head_dim is 12: it must be a multiple of 8" },
	{ "heads=8,kv_heads=3", "heads=8 is no multiple of kv_heads=3" },
};

START_TEST(words_of_a_shape)
{
	struct ki_shape s;
	int err;

	ki_shape_init(&s);
	err = ki_shape_parse(&s, specs[_i].spec, msg);
	if (!err)
		err = ki_shape_check(&s, 1, msg);
	ck_assert_msg(err == (specs[_i].what ? -EINVAL : 0), "%d for '%s'", err, specs[_i].spec);
	if (specs[_i].what)
		ck_assert_msg(strstr(msg, specs[_i].what), "%s", msg);
}
END_TEST

#define LOOP(t, test, rows) \
	tcase_add_loop_test(t, test, 0, (int)(sizeof(rows) / sizeof((rows)[0])))

int main(void)
{
	Suite *s = suite_create("safetensors");
	TCase *t = tcase_create("files"), *words = tcase_create("words");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, a_good_file_of_each_type_is_what_it_says, 0, 3);
	tcase_add_test(t, a_rank_gets_its_part);
	tcase_add_test(t, tied_output_is_the_embedding);
	tcase_add_test(t, settings_may_be_in_the_file);
	tcase_add_test(t, a_file_cut_short_is_refused_at_any_length);
	LOOP(t, a_header_that_is_wrong_is_refused_by_name, edits);
	tcase_add_test(t, a_missing_tensor_is_named);
	tcase_add_test(t, a_tensor_that_would_change_answers_is_refused);
	tcase_add_test(t, lengths_of_headers_are_not_believed);
	tcase_add_test(t, bytes_behind_the_last_tensor_are_refused);
	tcase_add_test(t, what_is_no_file_is_refused);
	tcase_add_test(t, a_file_that_becomes_shorter_is_no_crash);
	LOOP(t, settings_that_cannot_be_are_refused, configs);
	tcase_add_test(t, settings_of_newer_files_are_known);
	tcase_add_test(t, a_huge_or_odd_config_is_refused);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	LOOP(words, words_of_a_shape, specs);
	tcase_add_test(words, random_weights_are_the_same_everywhere);
	suite_add_tcase(s, words);
	return suite_run(s);
}
