// SPDX-License-Identifier: Apache-2.0
/*
 * on_dev.c - launches on a device in turn with others, by the host's clock.
 *
 * A slice is as many launches as take long beside the wait at its end; how many that
 * is, a run before the first slice shows.
 */
#include <math.h>
#include <stdlib.h>

#include "tools/kvbench/on_dev.h"

#define SLICES		15u
#define GPU_SLICES	5u		/* nobody else is on it */
#define MAX_LAUNCHES	100000u
#define MAX_TURNS	32u

/* Seconds of one of @nr launches; < 0: -errno. */
static double one_slice(struct kn_dev *d, const struct launch *l, unsigned nr)
{
	uint64_t t0 = time_ns();
	int err = 0;

	for (unsigned i = 0; i < nr && !err; i++)
		err = l->fn(l->ctx);
	if (!err)
		err = kn_sync(d);
	return err ? err : (double)(time_ns() - t0) / 1e9 / nr;
}

int launch_turns(struct kn_dev *d, struct launch *l, unsigned nr, uint64_t slice_ns)
{
	const unsigned slices = kn_is_cuda(d) ? GPU_SLICES : SLICES;
	double v[MAX_TURNS][SLICES], s;
	unsigned times[MAX_TURNS];

	if (nr > MAX_TURNS)
		return -EINVAL;
	for (unsigned i = 0; i < nr; i++) {
		s = one_slice(d, &l[i], 1);	/* loads, and touches memory */
		s = s < 0 ? s : one_slice(d, &l[i], 1);
		if (s < 0)
			return (int)s;
		s = (double)slice_ns / 1e9 / (s > 1e-9 ? s : 1e-9);
		times[i] = s < 1 ? 1 : s > MAX_LAUNCHES ? MAX_LAUNCHES : (unsigned)s;
	}
	for (unsigned k = 0; k < slices; k++)
		for (unsigned i = 0; i < nr; i++) {
			v[i][k] = interrupted ? -EINTR : one_slice(d, &l[i], times[i]);
			if (v[i][k] < 0)
				return (int)v[i][k];
		}
	for (unsigned i = 0; i < nr; i++)
		l[i].s = kvb_median(v[i], slices);
	return 0;
}

/* ------------------------------------------------------------ values */

#define FRESH	(4u << 20)	/* bytes that are made up; the rest repeats them */

static uint16_t *make_up(size_t bytes)
{
	uint64_t rng = 0x9e3779b97f4a7c15;
	uint16_t *v = (uint16_t *)malloc(bytes);

	for (size_t i = 0; v && i < bytes / 2; i++) {
		double u[2];

		for (int k = 0; k < 2; k++) {
			rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
			rng ^= rng >> 7;
			rng ^= rng << 17;
			u[k] = ((double)(rng >> 11) + 0.5) * 0x1p-53;
		}
		v[i] = kn_to_bf16((float)(sqrt(-2 * log(u[0])) * cos(2 * M_PI * u[1])));
	}
	return v;
}

int fill_normal(struct kn_dev *d, void *mem, size_t bytes)
{
	size_t have = min(bytes, (size_t)FRESH), more;
	uint16_t *v = make_up(have);
	int err = v ? kn_put(d, mem, v, have) : -ENOMEM;

	for (; !err && have < bytes; have += more) {
		more = min(have, bytes - have);
		err = kn_copy(d, (char *)mem + have, mem, more);
	}
	free(v);
	return err ? err : kn_sync(d);
}
