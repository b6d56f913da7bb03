/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.c - the list of backends, and what they have in common.
 */
#include "kvmd/dev/dev.h"

#include <stdio.h>

static const struct dev_ops *const backends[] = { &dev_host_ops, &dev_null_ops };

const struct dev_ops *dev_ops_find(const char *kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (!strcmp(backends[i]->name, kind))
			return backends[i];
	return NULL;
}

const char *dev_ops_names(void)
{
	return "host null";
}

void dev_init(struct dev *d, const struct dev_ops *ops, const char *uuid,
	      uint64_t budget_bytes, struct workers *w)
{
	*d = (struct dev) {
		.ops = ops,
		.budget_bytes = budget_bytes,
		.grace_ns = ops->grace_ns,
		.workers = w,
	};
	snprintf(d->uuid, sizeof(d->uuid), "%s", uuid);
}

void dev_batch_submit(struct dev *d, struct dev_batch *b)
{
	if (b->urgent)
		workers_submit_urgent(d->workers, &b->work);
	else
		workers_submit(d->workers, &b->work);
}
