/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - names and transitions of block states.
 */
#include "kvmd/pool/block.h"

#define TO(s)	(1u << BLK_##s)

const uint8_t blk_next[NR_BLK_STATE] = {
	[BLK_FREE]	 = TO(OPEN) | TO(SEALED),
	[BLK_OPEN]	 = TO(SEALING) | TO(FREE) | TO(QUARANTINE) | TO(BAD),
	[BLK_SEALING]	 = TO(SEALED) | TO(OPEN) | TO(FREE) | TO(QUARANTINE) | TO(BAD),
	[BLK_SEALED]	 = TO(EVICTING) | TO(LOADING) | TO(QUARANTINE) | TO(BAD),
	[BLK_LOADING]	 = TO(SEALED) | TO(QUARANTINE) | TO(BAD),
	[BLK_EVICTING]	 = TO(FREE) | TO(SEALED) | TO(QUARANTINE) | TO(BAD),
	[BLK_QUARANTINE] = TO(FREE) | TO(BAD),
	[BLK_BAD]	 = 0,
};
BUILD_BUG_ON(NR_BLK_STATE > 8);

static const char *const names[NR_BLK_STATE] = {
	[BLK_FREE]	 = "free",
	[BLK_OPEN]	 = "open",
	[BLK_SEALING]	 = "sealing",
	[BLK_SEALED]	 = "sealed",
	[BLK_LOADING]	 = "loading",
	[BLK_EVICTING]	 = "evicting",
	[BLK_QUARANTINE] = "quarantine",
	[BLK_BAD]	 = "bad",
};

const char *blk_state_name(unsigned state)
{
	return state < NR_BLK_STATE ? names[state] : "?";
}

static const char *const level_names[NR_LEVEL] = { "none", "disk", "ram", "hbm" };

const char *blk_level_name(unsigned level)
{
	return level < NR_LEVEL ? level_names[level] : "?";
}
