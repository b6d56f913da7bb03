// SPDX-License-Identifier: Apache-2.0
/*
 * shape.c - the sizes of a model: their words, their limits, what fits what.
 */
#include "tools/kvinfer/model_int.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/base.h"

/* With these limits a product of any two fits in 64 bits, and each in BLAS's int. */
static const struct word {
	const char *name;
	size_t at;
	uint32_t lo, hi;
} words[] = {
	{ "vocab", offsetof(struct ki_shape, vocab), 2, 1u << 20 },
	{ "dim", offsetof(struct ki_shape, dim), 8, 1u << 15 },
	{ "layers", offsetof(struct ki_shape, layers), 1, KI_MAX_LAYERS },
	{ "heads", offsetof(struct ki_shape, heads), 1, 512 },
	{ "kv_heads", offsetof(struct ki_shape, kv_heads), 1, 512 },
	{ "head_dim", offsetof(struct ki_shape, head_dim), 8, 256 },
	{ "ffn", offsetof(struct ki_shape, ffn), 1, 1u << 17 },
	{ "max_tokens", offsetof(struct ki_shape, max_tokens), 1, 1u << 24 },
};

static const struct real {
	const char *name;
	size_t at;
	float lo, hi;
} reals[] = {
	{ "theta", offsetof(struct ki_shape, theta), 1, 1e12f },
	{ "eps", offsetof(struct ki_shape, eps), 0, 1 },
};

int ki_refuse(char *msg, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, KI_TEXT, fmt, ap);
	va_end(ap);
	return err;
}

void ki_shape_init(struct ki_shape *s)
{
	*s = (struct ki_shape){
		.vocab = 256, .dim = 256, .layers = 4, .heads = 8, .kv_heads = 2, .head_dim = 32,
		.ffn = 688, .max_tokens = 8192, .theta = 10000, .eps = 1e-5f,
	};
}

static uint32_t *field(const struct ki_shape *s, size_t at)
{
	return (uint32_t *)((char *)(uintptr_t)s + at);
}

static float *real_field(const struct ki_shape *s, size_t at)
{
	return (float *)((char *)(uintptr_t)s + at);
}

static int set_word(struct ki_shape *s, const struct word *w, const char *value, char *msg)
{
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || v < w->lo || v > w->hi)
		return ki_refuse(msg, -EINVAL, "%s=%.40s: a number from %u to %u is wanted",
				 w->name, value, w->lo, w->hi);
	*field(s, w->at) = (uint32_t)v;
	return 0;
}

static int set_real(struct ki_shape *s, const struct real *w, const char *value, char *msg)
{
	char *end;
	float v = strtof(value, &end);

	/* Not "v < lo": NaN is nowhere. */
	if (end == value || *end || !(v >= w->lo && v <= w->hi))
		return ki_refuse(msg, -EINVAL, "%s=%.40s: a number from %g to %g is wanted",
				 w->name, value, (double)w->lo, (double)w->hi);
	*real_field(s, w->at) = v;
	return 0;
}

/* "word=value". */
static int set(struct ki_shape *s, const char *name, const char *value, char *msg)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(name, words[i].name))
			return set_word(s, &words[i], value, msg);
	for (i = 0; i < ARRAY_SIZE(reals); i++)
		if (!strcmp(name, reals[i].name))
			return set_real(s, &reals[i], value, msg);
	return ki_refuse(msg, -EINVAL, "%.40s: no such size of a model; there are vocab, dim, "
			 "layers, heads, kv_heads, head_dim, ffn, max_tokens, theta, eps", name);
}

int ki_shape_parse(struct ki_shape *s, const char *spec, char *msg)
{
	bool sized = false, head_dim = false;
	struct ki_shape to = *s;
	char *text, *word, *value, *at;
	int err = 0;

	text = strdup(spec);
	if (!text)
		return ki_refuse(msg, -ENOMEM, "no memory");
	for (word = strtok_r(text, ",", &at); word && !err; word = strtok_r(NULL, ",", &at)) {
		value = strchr(word, '=');
		if (!value) {
			err = ki_refuse(msg, -EINVAL, "%.40s: not of the form word=value", word);
			break;
		}
		*value++ = '\0';
		sized |= !strcmp(word, "dim") || !strcmp(word, "heads");
		head_dim |= !strcmp(word, "head_dim");
		err = set(&to, word, value, msg);
	}
	free(text);
	if (err)
		return err;
	/* The usual one, unless it is named. */
	if (sized && !head_dim) {
		if (to.dim % to.heads)
			return ki_refuse(msg, -EINVAL, "dim=%u is no multiple of heads=%u: name a "
					 "head_dim", to.dim, to.heads);
		to.head_dim = to.dim / to.heads;
	}
	*s = to;
	return 0;
}

static int check_ranks(const struct ki_shape *s, uint32_t nr_ranks, char *msg)
{
	if (!nr_ranks || s->heads % nr_ranks || s->kv_heads % nr_ranks || s->ffn % nr_ranks)
		return ki_refuse(msg, -EINVAL, "heads=%u, kv_heads=%u and ffn=%u cannot be shared "
				 "equally by %u ranks: each must be a multiple", s->heads,
				 s->kv_heads, s->ffn, nr_ranks);
	return 0;
}

int ki_shape_check(const struct ki_shape *s, uint32_t nr_ranks, char *msg)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(words); i++) {
		uint32_t v = *field(s, words[i].at);

		if (v < words[i].lo || v > words[i].hi)
			return ki_refuse(msg, -EINVAL, "%s is %u: it must be from %u to %u",
					 words[i].name, v, words[i].lo, words[i].hi);
	}
	for (i = 0; i < ARRAY_SIZE(reals); i++) {
		float v = *real_field(s, reals[i].at);

		if (!(v >= reals[i].lo && v <= reals[i].hi))
			return ki_refuse(msg, -EINVAL, "%s is %g: it must be from %g to %g",
					 reals[i].name, (double)v, (double)reals[i].lo,
					 (double)reals[i].hi);
	}
	if (s->head_dim % 8)
		return ki_refuse(msg, -EINVAL, "head_dim is %u: it must be a multiple of 8",
				 s->head_dim);
	if (s->heads % s->kv_heads)
		return ki_refuse(msg, -EINVAL, "heads=%u is no multiple of kv_heads=%u", s->heads,
				 s->kv_heads);
	return check_ranks(s, nr_ranks, msg);
}
