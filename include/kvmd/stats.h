/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - every counter of the daemon, once.
 *
 * One row per counter: X(ID, name, unit, kind, help). The name is the JSON key,
 * the Prometheus name (prefixed "kvmd_") and the entry in kvctl(8); ids are the
 * index in the shared stats page and are never reused. kind c: counter, only
 * grows, never reset; g: gauge.
 */
#ifndef KVMD_STATS_H
#define KVMD_STATS_H

#include <stdint.h>

#define KVMD_STATS(X) \
	X(ENTRIES, "entries", "entries", c, "submission entries taken from rings") \
	X(COMPLETIONS, "completions", "entries", c, "completions posted") \
	X(REFUSED_ENTRIES, "refused_entries", "entries", c, \
	  "entries refused by the check (bad opcode, flag, field, index)") \
	X(BROKEN_RINGS, "broken_rings", "sessions", c, "sessions ended for an impossible ring index") \
	X(WAKEUPS, "wakeups", "times", c, "times the core thread woke from its wait") \
	X(CLIENT_WAKES, "client_wakes", "times", c, "sleeping clients woken") \
	X(SESSIONS, "sessions", "sessions", g, "connected sessions") \
	X(SESSIONS_OPENED, "sessions_opened", "sessions", c, "sessions that said hello") \
	X(SESSIONS_REFUSED, "sessions_refused", "sessions", c, "hellos, joins and spaces refused") \
	X(SESSIONS_DIED, "sessions_died", "sessions", c, \
	  "sessions that ended holding sequences (process died or ring broke)") \
	X(SEQ_OPENS, "seq_opens", "sequences", c, "sequences opened") \
	X(SEQ_CLOSES, "seq_closes", "sequences", c, "sequences closed") \
	X(SEQ_FORKS, "seq_forks", "sequences", c, "sequences forked") \
	X(SEQ_SENDS, "seq_sends", "sequences", c, "sequences turned into tickets") \
	X(SEQ_RECVS, "seq_recvs", "sequences", c, "tickets received") \
	X(TICKETS_EXPIRED, "tickets_expired", "tickets", c, "tickets that nobody took in time") \
	X(TOKENS_ASKED, "tokens_asked", "tokens", c, "prompt tokens of opened sequences") \
	X(TOKENS_HBM, "tokens_hbm", "tokens", c, "of those: served from HBM") \
	X(TOKENS_RAM, "tokens_ram", "tokens", c, "of those: loaded from RAM") \
	X(TOKENS_DISK, "tokens_disk", "tokens", c, "of those: loaded from disk") \
	X(TOKENS_MERGED, "tokens_merged", "tokens", c, \
	  "of those: computed, then merged into a block another sequence had published") \
	X(TOKENS_RECOMPUTED, "tokens_recomputed", "tokens", c, "of those: computed by the client") \
	X(RECOMPUTED_NEVER, "recomputed_never", "tokens", c, "recomputed: key never seen") \
	X(RECOMPUTED_EVICTED, "recomputed_evicted", "tokens", c, "recomputed: prefix was reclaimed") \
	X(RECOMPUTED_DROPPED, "recomputed_dropped", "tokens", c, "recomputed: dropped or expired") \
	X(RECOMPUTED_EPOCH, "recomputed_epoch", "tokens", c, "recomputed: epoch was raised") \
	X(RECOMPUTED_PENDING, "recomputed_pending", "tokens", c, \
	  "recomputed: being published at that moment") \
	X(RECOMPUTED_REFUSED, "recomputed_refused", "tokens", c, "recomputed: cheaper than loading") \
	X(RECOMPUTED_UNASKED, "recomputed_unasked", "tokens", c, "recomputed: client wanted no hit") \
	X(RECOMPUTED_GROUP, "recomputed_group", "tokens", c, "recomputed: another group ended earlier") \
	X(RECOMPUTED_TAIL, "recomputed_tail", "tokens", c, \
	  "recomputed: behind the last full block of the prompt") \
	X(TOKENS_PENDING, "tokens_pending", "tokens", g, \
	  "asked by sequences still open and not yet attributed") \
	X(BLOCKS_HIT, "blocks_hit", "blocks", c, "blocks leased by opens") \
	X(BLOCKS_ALLOCATED, "blocks_allocated", "blocks", c, "private blocks handed out") \
	X(BLOCKS_PUBLISHED, "blocks_published", "blocks", c, "blocks sealed under a new key") \
	X(BLOCKS_MERGED, "blocks_merged", "blocks", c, "published blocks merged into existing ones") \
	X(BLOCKS_PRIVATE, "blocks_private", "blocks", c, \
	  "blocks kept private at publish (after a hole, no-store)") \
	X(BLOCKS_COPIED, "blocks_copied", "blocks", c, "blocks copied for fork and unshare") \
	X(BYTES_COPIED, "bytes_copied", "bytes", c, "bytes copied inside the device") \
	X(COPIES_FAILED, "copies_failed", "copies", c, "device copies that failed") \
	X(BLOCKS_EVICTED, "blocks_evicted", "blocks", c, "blocks reclaimed from HBM") \
	X(BLOCKS_DROPPED, "blocks_dropped", "blocks", c, "blocks dropped by advice, ttl or operator") \
	X(BLOCKS_STALE, "blocks_stale", "blocks", c, "blocks dropped since their epoch is over") \
	X(BLOCKS_BAD, "blocks_bad", "blocks", c, "blocks of broken device memory, never used again") \
	X(BLOCKS_DISCARDED, "blocks_discarded", "blocks", c, "unpublished blocks of dead clients freed") \
	X(RECLAIM_BACKGROUND, "reclaim_background", "blocks", c, "evicted by background reclaim") \
	X(RECLAIM_DIRECT, "reclaim_direct", "blocks", c, "evicted by an allocation that needed them") \
	X(ALLOC_WAITS, "alloc_waits", "entries", c, "allocations that had to wait") \
	X(ALLOC_REFUSED_AGAIN, "alloc_refused_again", "entries", c, "allocations refused: -EAGAIN") \
	X(ALLOC_REFUSED_NOMEM, "alloc_refused_nomem", "entries", c, "allocations refused: -ENOMEM") \
	X(ALLOC_REFUSED_QUOTA, "alloc_refused_quota", "entries", c, "allocations refused: -EDQUOT") \
	X(ALLOC_DEADLOCKS, "alloc_deadlocks", "entries", c, "allocations ended with -EDEADLK") \
	X(ALLOC_STALLED, "alloc_stalled", "entries", c, \
	  "entries refused since the session's step stands still") \
	X(CANCELS, "cancels", "entries", c, "entries ended by CANCEL") \
	X(TENANT_LOW_EVENTS, "tenant_low_events", "times", c, "reclaim went below a tenant's low") \
	X(TENANT_HIGH_EVENTS, "tenant_high_events", "times", c, "allocations above a tenant's high") \
	X(TENANT_MAX_EVENTS, "tenant_max_events", "times", c, "allocations refused at a tenant's max") \
	X(PINS_REFUSED, "pins_refused", "blocks", c, "pins over the budget") \
	X(SLABS_CREATED, "slabs_created", "slabs", c, "slabs created on a device") \
	X(SLABS_DESTROYED, "slabs_destroyed", "slabs", c, "slabs given back to a device") \
	X(SLABS_MOVED, "slabs_moved", "slabs", c, "slabs moved to another space") \
	X(SLABS_SCRUBBED, "slabs_scrubbed", "slabs", c, "slabs scrubbed") \
	X(SLAB_LAGGARDS, "slab_laggards", "sessions", c, \
	  "sessions held back since they had not mapped a slab in time") \
	X(STEP_STALLS, "step_stalls", "sessions", c, "sessions whose step stood still past the limit") \
	X(BLOCKS_CLEANED, "blocks_cleaned", "blocks", c, "blocks copied from HBM to RAM") \
	X(BYTES_CLEANED, "bytes_cleaned", "bytes", c, "bytes copied from HBM to RAM") \
	X(BLOCKS_STORED, "blocks_stored", "blocks", c, "blocks written to disk") \
	X(BYTES_STORED, "bytes_stored", "bytes", c, "bytes of blocks written to disk") \
	X(BLOCKS_FETCHED, "blocks_fetched", "blocks", c, "blocks read from disk to RAM") \
	X(BYTES_FETCHED, "bytes_fetched", "bytes", c, "bytes of blocks read from disk") \
	X(BLOCKS_LOADED, "blocks_loaded", "blocks", c, "blocks brought back to HBM") \
	X(BYTES_LOADED, "bytes_loaded", "bytes", c, "bytes copied from RAM to HBM") \
	X(BLOCKS_SUNK_RAM, "blocks_sunk_ram", "blocks", c, "blocks that left HBM and stayed in RAM or on disk") \
	X(BLOCKS_SUNK_DISK, "blocks_sunk_disk", "blocks", c, "blocks that left RAM and stayed on disk") \
	X(BLOCKS_DROPPED_RAM, "blocks_dropped_ram", "blocks", c, "blocks that left RAM and were kept nowhere") \
	X(BLOCKS_DROPPED_DISK, "blocks_dropped_disk", "blocks", c, \
	  "blocks let go since their segment was needed") \
	X(BLOCKS_REVIVED, "blocks_revived", "blocks", c, "blocks hit while they were leaving their tier") \
	X(BLOCKS_PREFETCHED, "blocks_prefetched", "blocks", c, "blocks that advice asked for in time") \
	X(BLOCKS_ADOPTED, "blocks_adopted", "blocks", c, "blocks found on disk by recovery") \
	X(BLOCKS_ORPHANED, "blocks_orphaned", "blocks", c, \
	  "blocks in lower tiers dropped since their parent was lost") \
	X(BLOCKS_SWAPPED_OUT, "blocks_swapped_out", "blocks", c, "blocks of swapped sequences that left HBM") \
	X(BLOCKS_SWAPPED_IN, "blocks_swapped_in", "blocks", c, "blocks of swapped sequences that came back") \
	X(CLEAN_REFUSED_ADVICE, "clean_refused_advice", "blocks", c, \
	  "not copied to RAM: no-store, time to live or epoch") \
	X(CLEAN_REFUSED_FULL, "clean_refused_full", "blocks", c, "not copied to RAM: it was full") \
	X(CLEAN_REFUSED_TENANT, "clean_refused_tenant", "blocks", c, \
	  "not copied to RAM: over the tenant's ram_max") \
	X(STORE_REFUSED_ADMISSION, "store_refused_admission", "blocks", c, \
	  "not written to disk: used too seldom") \
	X(STORE_REFUSED_FULL, "store_refused_full", "blocks", c, \
	  "not written to disk: no room, or the write rate's cap") \
	X(STORE_REFUSED_TENANT, "store_refused_tenant", "blocks", c, \
	  "not written to disk: over the tenant's disk_max") \
	X(LOAD_REFUSED_SLOW, "load_refused_slow", "blocks", c, "not loaded: recomputing is faster") \
	X(LOAD_REFUSED_NOMEM, "load_refused_nomem", "blocks", c, "not loaded: no slot in HBM") \
	X(LOADS_FAILED, "loads_failed", "blocks", c, "loads that failed") \
	X(MOVES_FAILED, "moves_failed", "blocks", c, "copies, reads and writes between tiers that failed") \
	X(CHECKSUM_ERRORS, "checksum_errors", "blocks", c, "bytes of a lower tier that did not verify") \
	X(LOAD_STALL_NS, "load_stall_ns", "ns", c, \
	  "time between an open and the arrival of the last block it waited for, summed") \
	X(DEV_COPIED_OUT_BYTES, "dev_copied_out_bytes", "bytes", c, "bytes copied from GPUs to RAM") \
	X(DEV_COPIED_IN_BYTES, "dev_copied_in_bytes", "bytes", c, "bytes copied from RAM to GPUs") \
	X(DEV_COPIED_WITHIN_BYTES, "dev_copied_within_bytes", "bytes", c, \
	  "bytes copied within and between GPUs") \
	X(DEV_COPY_GROUPS, "dev_copy_groups", "groups", c, "groups of copies given to a GPU") \
	X(DEV_COPIES_MERGED, "dev_copies_merged", "copies", c, \
	  "copies that went as one with the copy before them") \
	X(DEV_COPY_TIMEOUTS, "dev_copy_timeouts", "groups", c, "groups of copies that took too long") \
	X(DEV_RESETS, "dev_resets", "times", c, "contexts of GPUs made anew after an error") \
	X(BLOCKS_ENCODED, "blocks_encoded", "blocks", c, "blocks coded on their way to RAM") \
	X(BYTES_ENCODED_IN, "bytes_encoded_in", "bytes", c, "bytes of those blocks") \
	X(BYTES_ENCODED_OUT, "bytes_encoded_out", "bytes", c, "bytes they take when coded") \
	X(BLOCKS_DECODED, "blocks_decoded", "blocks", c, "blocks decoded on their way to HBM") \
	X(CODEC_OVERFLOWS, "codec_overflows", "blocks", c, \
	  "blocks kept plain since their codec does not take their values") \
	X(CODEC_FAILED, "codec_failed", "blocks", c, \
	  "coded blocks that decoding does not give back as they were, stored bytes being right") \
	X(CODEC_ENCODE_NS, "codec_encode_ns", "ns", c, "time of workers that coded blocks") \
	X(CODEC_DECODE_NS, "codec_decode_ns", "ns", c, "time of workers that decoded blocks")

enum kvmd_stat {
#define KVMD_STAT_ID(id, name, unit, kind, help) KVMD_STAT_##id,
	KVMD_STATS(KVMD_STAT_ID)
#undef KVMD_STAT_ID
	KVMD_NR_STAT
};

/* The shared stats page (read-only memfd, from the admin socket). */
struct kvmd_stats_page {
	uint32_t version;	/* 1 */
	uint32_t nr;		/* KVMD_NR_STAT of the daemon */
	uint64_t boot_ns;	/* CLOCK_MONOTONIC at start */
	uint64_t val[];		/* by enum kvmd_stat */
};

#endif
