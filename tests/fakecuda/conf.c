// SPDX-License-Identifier: Apache-2.0
/*
 * conf.c - $KVMD_FAKECUDA: what the fake is told; the keys are in fakecuda.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/fakecuda/fake.h"

static int number(const char *s, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(s, &end, 0);
	if (end == s || errno)
		return -1;
	if (*end == 'K' || *end == 'M' || *end == 'G') {
		*ret <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
		end++;
	}
	return *end ? -1 : 0;
}

static int read_fail(struct fc_conf *c, char *s)
{
	char *field[4] = { s };
	struct fc_fail f = { .fn = NR_FC_FN, .code = CU_UNKNOWN, .count = 1 };
	uint64_t code = CU_UNKNOWN;

	for (int i = 1; i < 4 && field[i - 1]; i++) {
		field[i] = strchr(field[i - 1], ':');
		if (field[i])
			*field[i]++ = 0;
	}
	for (int i = 0; i < NR_FC_FN; i++)
		if (f.fn == NR_FC_FN && !strcmp(fc_fn_name(i), field[0]))
			f.fn = i;
	if (f.fn == NR_FC_FN || !field[1] || number(field[1], &f.nth) || !f.nth ||
	    (field[2] && number(field[2], &code)) || (field[3] && number(field[3], &f.count)) ||
	    c->nr_fails == FC_MAX_FAILS)
		return -1;
	f.code = (int)code;
	c->fail[c->nr_fails++] = f;
	return 0;
}

static int read_one(struct fc_conf *c, char *key, char *value)
{
	const struct {
		const char *name;
		uint64_t *u64;
		bool *flag;
	} keys[] = {
		{ "mem", &c->mem, NULL }, { "granularity", &c->granularity, NULL },
		{ "seed", &c->seed, NULL }, { "ecc", &c->ecc, NULL }, { "hang", &c->hang, NULL },
		{ "mps", NULL, &c->mps }, { "vmm", NULL, &c->vmm }, { "cpu", NULL, &c->cpu },
		{ "rohost", NULL, &c->rohost },
	};
	uint64_t n;

	if (!strcmp(key, "fail"))
		return read_fail(c, value);
	if (number(value, &n))
		return -1;
	if (!strcmp(key, "gpus") && n <= FC_MAX_GPUS)
		c->gpus = n;
	else if (!strcmp(key, "delay"))
		c->delay_us = n;
	else if (!strcmp(key, "driver"))
		c->driver = n;
	else {
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			if (strcmp(key, keys[i].name))
				continue;
			if (keys[i].u64)
				*keys[i].u64 = n;
			else
				*keys[i].flag = n;
			return 0;
		}
		return -1;
	}
	return 0;
}

int fc_conf_read(struct fc_conf *c, const char *text)
{
	char *copy, *at, *word, *value;
	int r = 0;

	*c = (struct fc_conf){
		.gpus = 1, .mem = 256 << 20, .granularity = 2 << 20, .seed = 1, .delay_us = 50,
		.driver = 13000, .vmm = true, .rohost = true,
	};
	copy = at = strdup(text ? text : "");
	while (!r && at && *at) {
		word = strsep(&at, ",");
		if (!*word)
			continue;
		value = strchr(word, '=');
		if (value)
			*value++ = 0;
		if (!value || read_one(c, word, value)) {
			fprintf(stderr, "fakecuda: $KVMD_FAKECUDA: '%s' is not understood\n", word);
			r = -1;
		}
	}
	if (!r && (!c->granularity || c->granularity & (c->granularity - 1) ||
		   c->granularity % 4096)) {
		fprintf(stderr, "fakecuda: $KVMD_FAKECUDA: granularity is not a power of two\n");
		r = -1;
	}
	free(copy);
	return r;
}
