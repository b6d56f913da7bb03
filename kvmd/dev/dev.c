/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.c - the list of backends, and what they have in common.
 */
#include "kvmd/dev/dev.h"

#include <stdio.h>

static const struct dev_ops *const backends[] = { &dev_host_ops, &dev_null_ops, &dev_cuda_ops };

static unsigned nr_open[ARRAY_SIZE(backends)];	/* devices of each */

static unsigned *open_of(const struct dev_ops *ops)
{
	size_t i = 0;

	while (backends[i] != ops)
		i++;
	return &nr_open[i];
}

const struct dev_ops *dev_ops_find(const char *kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (!strcmp(backends[i]->name, kind))
			return backends[i];
	return NULL;
}

const char *dev_ops_names(void)
{
	return "host null cuda";
}

void dev_init(struct dev *d, const struct dev_ops *ops, const char *uuid,
	      uint64_t budget_bytes, struct workers *w)
{
	*d = (struct dev) {
		.ops = ops,
		.handle_kind = ops->handle_kind,
		.granularity = ops->granularity,
		.budget_bytes = budget_bytes,
		.grace_ns = ops->grace_ns,
		.workers = w,
	};
	snprintf(d->name, sizeof(d->name), "%s", uuid);
	snprintf(d->uuid, sizeof(d->uuid), "%s", uuid);
}

int dev_open(struct dev *d, const struct dev_opts *o, char *msg, size_t n)
{
	int err = d->ops->open ? d->ops->open(d, o, msg, n) : 0;

	if (err) {
		d->down = true;
		d->budget_bytes = 0;
		snprintf(d->text, sizeof(d->text), "%s", msg);
		return err;
	}
	d->is_open = true;
	(*open_of(d->ops))++;
	return 0;
}

void dev_close(struct dev *d)
{
	if (!d->is_open)
		return;
	d->is_open = false;
	(*open_of(d->ops))--;
	if (d->ops->close)
		d->ops->close(d);
}

int dev_host_pin(void *mem, uint64_t bytes, char *msg, size_t n)
{
	int done = 0;

	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		int err = nr_open[i] && backends[i]->host_pin ?
			  backends[i]->host_pin(mem, bytes, msg, n) : 1;

		if (err < 0)
			return err;
		done |= !err;
	}
	return done;
}

void dev_host_unpin(void *mem)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (backends[i]->host_unpin)
			backends[i]->host_unpin(mem);
}

void dev_batch_submit(struct dev *d, struct dev_batch *b)
{
	if (b->urgent)
		workers_submit_urgent(d->workers, &b->work);
	else
		workers_submit(d->workers, &b->work);
}
