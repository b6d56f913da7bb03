// SPDX-License-Identifier: Apache-2.0
/*
 * load.c - a Llama out of a safetensors file, with the names of Hugging Face's.
 *
 * Sizes come from the tensors, what tensors do not tell from config.json beside the file
 * or, where that says nothing, from the file's __metadata__. Everything that would make
 * other answers than the model's is refused by name: tensors or settings that are
 * not understood, and settings that contradict the tensors.
 */
#include "tools/kvinfer/model_int.h"
#include "tools/kvinfer/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/base.h"

#define CONFIG_BYTES	(1u << 20)	/* of config.json, at most */
#define NAME_BYTES	96

/* Behind "model." or "model.layers.N."; out has a name of its own. */
static const char *const names[NR_KI_WEIGHT] = {
	[KI_EMBED] = "embed_tokens", [KI_NORM] = "norm",
	[KI_NORM1] = "input_layernorm", [KI_NORM2] = "post_attention_layernorm",
	[KI_WQ] = "self_attn.q_proj", [KI_WK] = "self_attn.k_proj", [KI_WV] = "self_attn.v_proj",
	[KI_WO] = "self_attn.o_proj",
	[KI_GATE] = "mlp.gate_proj", [KI_UP] = "mlp.up_proj", [KI_DOWN] = "mlp.down_proj",
};

struct loader {
	struct ki_source src;
	struct ki_st *f;
	const char *path;
	json_object *config;		/* NULL: no config.json */
	struct ki_shape s;
	char *msg;
};

static void name_of(enum ki_weight w, uint32_t layer, char *name)
{
	if (w == KI_OUT)
		snprintf(name, NAME_BYTES, "lm_head.weight");
	else if (ki_weight_in_layer(w))
		snprintf(name, NAME_BYTES, "model.layers.%u.%s.weight", layer, names[w]);
	else
		snprintf(name, NAME_BYTES, "model.%s.weight", names[w]);
}

/* The tensor, of @dims dimensions and a dtype that can be read. */
static int find(struct loader *l, enum ki_weight w, uint32_t layer, uint32_t dims,
		struct ki_tensor **ret_t)
{
	char name[NAME_BYTES];
	struct ki_tensor *t;

	name_of(w, layer, name);
	t = ki_st_find(l->f, name);
	if (!t)
		return ki_refuse(l->msg, -EINVAL, "%.100s: tensor %s is missing: all of a model "
				 "must be in one file", l->path, name);
	if (t->dtype != KI_ST_F32 && t->dtype != KI_ST_F16 && t->dtype != KI_ST_BF16)
		return ki_refuse(l->msg, -EINVAL, "%.100s: tensor %s: dtype is %s: F32, F16 or "
				 "BF16 is wanted", l->path, name, ki_st_dtype_name(t->dtype));
	if (t->nr_dims != dims)
		return ki_refuse(l->msg, -EINVAL, "%.100s: tensor %s: shape has %u dimensions, "
				 "not %u", l->path, name, t->nr_dims, dims);
	*ret_t = t;
	return 0;
}

/* ------------------------------------------------------------------ config */

static int read_config(struct loader *l, int fd, const char *path)
{
	struct stat st;
	char *text;
	ssize_t n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > CONFIG_BYTES)
		return ki_refuse(l->msg, -EINVAL, "%.120s: not a file of at most 1 MiB", path);
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return ki_refuse(l->msg, -ENOMEM, "no memory");
	n = pread(fd, text, (size_t)st.st_size, 0);
	if (n == st.st_size)
		l->config = json_tokener_parse(text);
	free(text);
	if (!json_object_is_type(l->config, json_type_object))
		return ki_refuse(l->msg, -EINVAL, "%.120s: is no JSON object", path);
	return 0;
}

static int open_config(struct loader *l)
{
	const char *slash = strrchr(l->path, '/');
	char *path;
	int fd, err = 0;

	if (asprintf(&path, "%.*sconfig.json", slash ? (int)(slash + 1 - l->path) : 0,
		     l->path) < 0)
		return ki_refuse(l->msg, -ENOMEM, "no memory");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		err = read_config(l, fd, path);
		close(fd);
	} else if (errno != ENOENT) {
		err = ki_refuse(l->msg, -errno, "%.120s: %s", path, strerror(errno));
	}
	free(path);
	return err;
}

/* A setting as text, of a number or a word; NULL: it is not there, or null. */
static const char *setting(const struct loader *l, const char *key)
{
	json_object *o = NULL, *rope;

	if (l->config && !json_object_object_get_ex(l->config, key, &o) &&
	    json_object_object_get_ex(l->config, "rope_parameters", &rope) &&
	    json_object_is_type(rope, json_type_object))
		o = json_object_object_get(rope, key);
	return o ? json_object_get_string(o) : ki_st_meta(l->f, key);
}

static int bad_setting(const struct loader *l, const char *key, const char *value,
		       const char *wanted)
{
	return ki_refuse(l->msg, -EINVAL, "%.80s: setting %s is %.40s: %.90s", l->path, key, value,
			 wanted);
}

/* *@v stays as it is where the setting is not there. */
static int count_setting(const struct loader *l, const char *key, uint32_t *v)
{
	const char *text = setting(l, key);
	unsigned long long n;
	char *end;

	if (!text)
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n > UINT32_MAX)
		return bad_setting(l, key, text, "a number is wanted");
	*v = (uint32_t)n;
	return 0;
}

static int real_setting(const struct loader *l, const char *key, float *v)
{
	const char *text = setting(l, key);
	char *end;
	float n;

	if (!text)
		return 0;
	n = strtof(text, &end);
	if (end == text || *end)
		return bad_setting(l, key, text, "a number is wanted");
	*v = n;
	return 0;
}

/* What is set must be what the tensors say. */
static int agrees(const struct loader *l, const char *key, uint32_t tensors_say)
{
	uint32_t v = tensors_say;
	char wanted[64];
	int err;

	err = count_setting(l, key, &v);
	if (err || v == tensors_say)
		return err;
	snprintf(wanted, sizeof(wanted), "the tensors say %u", tensors_say);
	return bad_setting(l, key, setting(l, key), wanted);
}

/* Settings of models that have the same tensors and are computed in another way. */
static int refuse_others(const struct loader *l)
{
	static const struct {
		const char *key, *only;
	} fixed[] = {
		{ "hidden_act", "silu" }, { "attention_bias", "false" }, { "mlp_bias", "false" },
		{ "rope_scaling", "null" }, { "rope_type", "default" },
	};
	const char *v;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fixed); i++) {
		v = setting(l, fixed[i].key);
		if (v && strcmp(v, fixed[i].only))
			return bad_setting(l, fixed[i].key, v, "this is not computed here");
	}
	return 0;
}

/* ------------------------------------------------------------------- shape */

/* The number of layers that tensors are named for. */
static int count_layers(struct loader *l)
{
	unsigned long n, most = 0;
	const char *name;
	uint32_t i;
	char *end;

	for (i = 0; i < ki_st_nr(l->f); i++) {
		name = ki_st_tensor(l->f, i)->name;
		if (strncmp(name, "model.layers.", 13) || name[13] < '0' || name[13] > '9')
			continue;
		n = strtoul(name + 13, &end, 10);
		if (*end != '.' || n >= KI_MAX_LAYERS)
			return ki_refuse(l->msg, -EINVAL, "%.100s: tensor %.80s: layers are 0 to "
					 "%u", l->path, name, KI_MAX_LAYERS - 1);
		most = max(most, n + 1);
	}
	l->s.layers = (uint32_t)max(most, 1ul);	/* none: its first tensor is missing */
	return 0;
}

static uint32_t clamp(uint64_t v)
{
	return (uint32_t)min(v, (uint64_t)UINT32_MAX);
}

static int shape_of_heads(struct loader *l)
{
	struct ki_tensor *q, *k;
	int err;

	err = find(l, KI_WQ, 0, 2, &q);
	if (!err)
		err = find(l, KI_WK, 0, 2, &k);
	if (!err)
		err = count_setting(l, "num_attention_heads", &l->s.heads);
	if (err)
		return err;
	if (!l->s.heads)
		return ki_refuse(l->msg, -EINVAL, "%.100s: num_attention_heads is neither in a "
				 "config.json beside it nor in its __metadata__", l->path);
	l->s.kv_heads = l->s.heads;
	l->s.head_dim = clamp(q->dim[0] / l->s.heads);
	err = count_setting(l, "num_key_value_heads", &l->s.kv_heads);
	if (!err)
		err = count_setting(l, "head_dim", &l->s.head_dim);
	if (err)
		return err;
	if ((uint64_t)l->s.heads * l->s.head_dim != q->dim[0])
		return ki_refuse(l->msg, -EINVAL, "%.80s: tensor %s: %llu rows are not "
				 "num_attention_heads=%u of %u", l->path, q->name,
				 (unsigned long long)q->dim[0], l->s.heads, l->s.head_dim);
	if ((uint64_t)l->s.kv_heads * l->s.head_dim != k->dim[0])
		return ki_refuse(l->msg, -EINVAL, "%.80s: tensor %s: %llu rows are not "
				 "num_key_value_heads=%u of %u", l->path, k->name,
				 (unsigned long long)k->dim[0], l->s.kv_heads, l->s.head_dim);
	return 0;
}

static int shape_of(struct loader *l)
{
	struct ki_tensor *embed, *gate;
	int err;

	l->s = (struct ki_shape){ .max_tokens = 2048, .theta = 10000, .eps = 1e-6f };
	err = find(l, KI_EMBED, 0, 2, &embed);
	if (!err)
		err = find(l, KI_GATE, 0, 2, &gate);
	if (!err)
		err = count_layers(l);
	if (err)
		return err;
	l->s.vocab = clamp(embed->dim[0]);
	l->s.dim = clamp(embed->dim[1]);
	l->s.ffn = clamp(gate->dim[0]);
	err = shape_of_heads(l);
	if (!err)
		err = real_setting(l, "rope_theta", &l->s.theta);
	if (!err)
		err = real_setting(l, "rms_norm_eps", &l->s.eps);
	if (!err)
		err = count_setting(l, "max_position_embeddings", &l->s.max_tokens);
	if (!err)
		err = agrees(l, "vocab_size", l->s.vocab);
	if (!err)
		err = agrees(l, "hidden_size", l->s.dim);
	if (!err)
		err = agrees(l, "intermediate_size", l->s.ffn);
	return err ? err : agrees(l, "num_hidden_layers", l->s.layers);
}

/* ----------------------------------------------------------------- tensors */

static int check_tensor(struct loader *l, enum ki_weight w, uint32_t layer)
{
	bool is_norm = w == KI_NORM || w == KI_NORM1 || w == KI_NORM2;
	uint64_t rows, cols, has;
	struct ki_tensor *t;
	int err;

	ki_weight_dims(&l->s, w, &rows, &cols);
	err = find(l, w, layer, is_norm ? 1 : 2, &t);
	if (err)
		return err;
	t->known = true;
	has = is_norm ? 1 : t->dim[0];
	if (has != rows || t->dim[t->nr_dims - 1] != cols)
		return ki_refuse(l->msg, -EINVAL, "%.80s: tensor %s: shape is %llu * %llu: "
				 "%llu * %llu is wanted", l->path, t->name,
				 (unsigned long long)has,
				 (unsigned long long)t->dim[t->nr_dims - 1],
				 (unsigned long long)rows, (unsigned long long)cols);
	return 0;
}

/* Nothing that there is was left out, but what can be computed. */
static int check_known(struct loader *l)
{
	uint32_t i;

	for (i = 0; i < ki_st_nr(l->f); i++) {
		const struct ki_tensor *t = ki_st_tensor(l->f, i);

		if (!t->known && !strstr(t->name, ".rotary_emb.inv_freq"))
			return ki_refuse(l->msg, -EINVAL, "%.80s: tensor %.80s: no part of a "
					 "Llama that is computed here", l->path, t->name);
	}
	return 0;
}

static int check_tensors(struct loader *l)
{
	const char *tied = setting(l, "tie_word_embeddings");
	uint32_t layer, w;
	int err;

	err = check_tensor(l, KI_EMBED, 0);
	for (layer = 0; layer < l->s.layers && !err; layer++)
		for (w = KI_NORM1; w <= KI_DOWN && !err; w++)
			err = check_tensor(l, w, layer);
	if (!err)
		err = check_tensor(l, KI_NORM, 0);
	/* Not there: tied, unless that is denied. */
	l->src.tied = !ki_st_find(l->f, "lm_head.weight") && (!tied || strcmp(tied, "false"));
	if (!err && !l->src.tied)
		err = check_tensor(l, KI_OUT, 0);
	return err ? err : check_known(l);
}

static int file_rows(struct ki_source *src, enum ki_weight w, uint32_t layer, uint64_t first,
		     uint64_t nr, float *out, char *msg)
{
	struct loader *l = container_of(src, struct loader, src);
	char name[NAME_BYTES];
	uint64_t rows, cols;

	name_of(w == KI_OUT && src->tied ? KI_EMBED : w, layer, name);
	ki_weight_dims(&l->s, w, &rows, &cols);
	/* It was found, and of this shape, by check_tensor(). */
	return ki_st_read(l->f, ki_st_find(l->f, name), first * cols, nr * cols, out, msg);
}

static int load(struct loader *l, struct kn_dev *dev, uint32_t rank, uint32_t nr_ranks,
		struct ki_model **ret_m)
{
	char why[KI_TEXT];
	int err;

	err = open_config(l);
	if (!err)
		err = refuse_others(l);
	if (!err)
		err = shape_of(l);
	if (err)
		return err;
	if (ki_shape_check(&l->s, nr_ranks, why))
		return ki_refuse(l->msg, -EINVAL, "%.80s: %.160s", l->path, why);
	err = check_tensors(l);
	return err ? err : ki_model_fill(dev, &l->s, rank, nr_ranks, &l->src, ret_m, l->msg);
}

int ki_model_load(struct kn_dev *dev, const char *path, uint32_t rank, uint32_t nr_ranks,
		  struct ki_model **ret_m, char *msg)
{
	struct loader l = { .src.rows = file_rows, .path = path, .msg = msg };
	int err;

	if (rank >= nr_ranks)
		return ki_refuse(msg, -EINVAL, "there is no rank %u of %u", rank, nr_ranks);
	err = ki_st_open(path, &l.f, msg);
	if (err)
		return err;
	err = load(&l, dev, rank, nr_ranks, ret_m);
	json_object_put(l.config);
	ki_st_close(l.f);
	return err;
}
