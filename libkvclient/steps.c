/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steps.c - the session's GPU steps.
 *
 * submitted_step has one writer, the thread of the struct kvc. A lane may have
 * several (threads that query events, a GPU), so it is raised by an atomic
 * maximum and never goes back.
 */
#include "libkvclient/internal.h"

void kvc_step_submit(struct kvc *k, uint64_t step)
{
	struct kvmd_ring *r = k->ring;

	/* release: pairs with the daemon's acquire when it checks an entry's step */
	if (r && step > ld_rlx(&r->submitted_step))
		st_rel(&r->submitted_step, step);
}

void kvc_step_complete(struct kvc *k, uint32_t lane, uint64_t step)
{
	const uint32_t want = KVMD_RING_NEED_WAKEUP | KVMD_RING_WANT_STEP;
	uint64_t *word, old;

	if (!k->steps || lane >= KVMD_MAX_LANES)
		return;
	word = &k->steps->lane[lane].completed_step;
	old = ld_rlx(word);
	do {
		if (old >= step)
			return;
		/* release: all reads and writes of the step's blocks come before it */
	} while (!__atomic_compare_exchange_n(word, &old, step, true, __ATOMIC_RELEASE,
					      __ATOMIC_RELAXED));
	/*
	 * Against the daemon's: set flags, fence, read lanes, sleep. One of the two
	 * sees the other's store, so either the lane is seen or the bell rings.
	 */
	smp_mb();
	if (k->ring && (ld_rlx(&k->ring->daemon_flags) & want) == want)
		kvci_bell(k);
}

uint64_t *kvc_step_word(struct kvc *k, uint32_t lane)
{
	if (!k->steps || lane >= KVMD_MAX_LANES)
		return NULL;
	return &k->steps->lane[lane].completed_step;
}
