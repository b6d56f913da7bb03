// SPDX-License-Identifier: Apache-2.0
/*
 * st_file.c - see st_file.h.
 */
#include "tests/st_file.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/quiet.h"

static char *must(char *p)
{
	quiet_assert_ptr_nonnull(p);
	return p;
}

struct writer {
	enum ki_st_dtype dtype;
	FILE *text, *data;
	size_t at;
};

static uint32_t stored_as(enum ki_st_dtype dtype)
{
	return dtype == KI_ST_F32 ? KN_F32 : dtype == KI_ST_F16 ? KN_F16 : KN_BF16;
}

/* rows 0: a norm. */
static void tensor(struct writer *w, const char *name, const float *v, uint64_t rows, uint64_t cols)
{
	uint32_t as = stored_as(w->dtype), size = kn_dtype_bytes(as);
	size_t n = (rows ? rows : 1) * cols, i;
	char shape[48], room[4];

	if (rows)
		snprintf(shape, sizeof(shape), "%llu,%llu", (unsigned long long)rows,
			 (unsigned long long)cols);
	else
		snprintf(shape, sizeof(shape), "%llu", (unsigned long long)cols);
	fprintf(w->text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
		w->at ? "," : "{", name, ki_st_dtype_name(w->dtype), shape, w->at,
		w->at + n * size);
	for (i = 0; i < n; i++) {
		kn_store(room, 0, as, v[i]);
		fwrite(room, size, 1, w->data);
	}
	w->at += n * size;
}

static void layer(struct writer *w, const struct ki_model *m, uint32_t l)
{
	const struct ki_shape *s = &m->shape;
	uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
	const struct ki_layer *y = &m->layer[l];
	char name[96];

#define TENSOR(n, v, rows, cols) do { \
	snprintf(name, sizeof(name), "model.layers.%u." n ".weight", l); \
	tensor(w, name, v, rows, cols); \
} while (0)
	TENSOR("input_layernorm", y->norm1, 0, s->dim);
	TENSOR("self_attn.q_proj", y->wqkv, q, s->dim);
	TENSOR("self_attn.k_proj", y->wqkv + q * s->dim, kv, s->dim);
	TENSOR("self_attn.v_proj", y->wqkv + (q + kv) * s->dim, kv, s->dim);
	TENSOR("self_attn.o_proj", y->wo, s->dim, q);
	TENSOR("post_attention_layernorm", y->norm2, 0, s->dim);
	TENSOR("mlp.gate_proj", y->w13, s->ffn, s->dim);
	TENSOR("mlp.up_proj", y->w13 + (uint64_t)s->ffn * s->dim, s->ffn, s->dim);
	TENSOR("mlp.down_proj", y->w2, s->dim, s->ffn);
#undef TENSOR
}

void st_file_of(struct st_file *f, const struct ki_model *m, enum ki_st_dtype dtype, bool tied)
{
	struct writer w = { .dtype = dtype };
	size_t text_bytes;
	uint32_t i;

	w.text = open_memstream(&f->header, &text_bytes);
	w.data = open_memstream(&f->data, &f->bytes);
	quiet_assert(w.text && w.data);
	tensor(&w, "model.embed_tokens.weight", m->embed, m->shape.vocab, m->shape.dim);
	for (i = 0; i < m->shape.layers; i++)
		layer(&w, m, i);
	tensor(&w, "model.norm.weight", m->norm, 0, m->shape.dim);
	if (!tied)
		tensor(&w, "lm_head.weight", m->out, m->shape.vocab, m->shape.dim);
	fprintf(w.text, "}   ");
	quiet_assert(!fclose(w.text) && !fclose(w.data));
}

void st_file_free(struct st_file *f)
{
	free(f->header);
	free(f->data);
	memset(f, 0, sizeof(*f));
}

void st_file_edit(struct st_file *f, const char *from, const char *to)
{
	char *at = strstr(f->header, from), *text;

	quiet_assert_msg(at, "%s is not in the header", from);
	text = must(malloc(strlen(f->header) + strlen(to) + 1));
	sprintf(text, "%.*s%s%s", (int)(at - f->header), f->header, to, at + strlen(from));
	free(f->header);
	f->header = text;
}

void st_file_insert(struct st_file *f, const char *text)
{
	char *all = must(malloc(strlen(f->header) + strlen(text) + 2));

	sprintf(all, "{%s%s", text, f->header + 1);
	free(f->header);
	f->header = all;
}

void st_write(const char *path, const void *bytes, size_t n)
{
	FILE *to = fopen(path, "we");

	quiet_assert_msg(to, "%s cannot be written", path);
	quiet_assert(fwrite(bytes, 1, n, to) == n);
	quiet_assert(!fclose(to));
}

void st_file_write(const struct st_file *f, const char *path)
{
	size_t text = strlen(f->header), n = 8 + text + f->bytes;
	char *all = must(malloc(n));
	int i;

	for (i = 0; i < 8; i++)
		all[i] = (char)((uint64_t)text >> 8 * i);
	memcpy(all + 8, f->header, text);
	memcpy(all + 8 + text, f->data, f->bytes);
	st_write(path, all, n);
	free(all);
}

char *st_config(const struct ki_shape *s)
{
	char *text;

	quiet_assert(asprintf(&text, "{\"architectures\": [\"LlamaForCausalLM\"], "
			      "\"hidden_act\": \"silu\", \"hidden_size\": %u, "
			      "\"intermediate_size\": %u, \"num_hidden_layers\": %u, "
			      "\"num_attention_heads\": %u, \"num_key_value_heads\": %u, "
			      "\"vocab_size\": %u, \"max_position_embeddings\": %u, "
			      "\"rope_theta\": %.9g, \"rms_norm_eps\": %.9g, "
			      "\"rope_scaling\": null, \"attention_bias\": false}", s->dim, s->ffn,
			      s->layers, s->heads, s->kv_heads, s->vocab, s->max_tokens,
			      (double)s->theta, (double)s->eps) > 0);
	return text;
}
