// SPDX-License-Identifier: Apache-2.0
/*
 * policy.c - the table of policies, default first.
 */
#include "kvmd/reclaim/policy.h"

static const struct policy_ops *const policies[] = {
	&policy_density,
	&policy_lru,
	&policy_s3fifo,
};

const struct policy_ops *policy_find(const char *name)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(policies); i++) {
		if (!strcmp(policies[i]->name, name))
			return policies[i];
	}
	return NULL;
}

const char *policy_name(unsigned i)
{
	return i < ARRAY_SIZE(policies) ? policies[i]->name : NULL;
}

const char *policy_names(void)
{
	return "density, lru, s3fifo";
}

const char *policy_rank_name(unsigned rank)
{
	static const char *const name[NR_POLICY_RANK] = {
		[RANK_COLD]	= "cold",
		[RANK_LOW]	= "low",
		[RANK_NORMAL]	= "normal",
		[RANK_HIGH]	= "high",
	};

	return rank < NR_POLICY_RANK ? name[rank] : "?";
}
