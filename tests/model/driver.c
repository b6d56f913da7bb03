/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c - the state of the model test; one run at a time.
 */
#include "driver.h"

struct core mc;
struct model mm;
struct client cli[M_SESSIONS];
struct held_ticket tick[M_TICKETS];
struct kvmd_space geo[M_SPACES];
uint64_t rng;
uint64_t nr_done[KVMD_NR_OP], nr_refused[KVMD_NR_OP];

uint32_t rnd(uint32_t below)
{
	rng += 0x9e3779b97f4a7c15ull;
	return (uint32_t)((m_tag((uint32_t)(rng >> 32)) ^ m_tag((uint32_t)rng)) >> 8) % below;
}
