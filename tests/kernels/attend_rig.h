/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend_rig.h - random input for attention, what should come of it, and launches of it.
 *
 * What no row of a sequence sees is NaN in the pool, and table entries behind a
 * sequence's end name slots far outside of it: whoever reads them is found out.
 */
#ifndef KVMD_TESTS_KERNELS_ATTEND_RIG_H
#define KVMD_TESTS_KERNELS_ATTEND_RIG_H

#include "tests/kernels/ref.h"

enum arig_layout { ARIG_TOKENS, ARIG_HEADS, ARIG_ODD, NR_ARIG_LAYOUT };

struct arig_shape {
	uint32_t rows, q_heads, kv_heads;
	uint32_t k_dim, v_dim;		/* latent: v is the start of k */
	uint32_t block_tokens, max_len;
	uint32_t dtype, window, sinks;
	enum arig_layout layout;
	float k_scale, v_scale;
	float spread;			/* of q: how large scores are */
	bool is_latent;
	bool is_chunk;			/* rows are neighbours of one sequence */
	bool has_holes;
};

struct arig {
	struct arig_shape s;
	uint64_t seed;
	struct kn_kv kv;
	uint8_t *pool_k, *pool_v;
	int32_t *slot;
	struct kn_table table;
	struct kn_row *row;
	float *q, *out, *mass;
	uint64_t q_stride, mass_stride;
	float scale;
	double *want, *bound;		/* as out */
	double *want_mass, *bound_mass;
};

void arig_init(struct arig *g, const struct arig_shape *s, uint64_t seed);
void arig_exit(struct arig *g);
/* What init does last: want and bound, from what is in the pool, q and row now. */
void arig_reference(struct arig *g);

bool arig_sees(const struct arig *g, uint32_t row, uint32_t token);
uint64_t arig_at(const struct arig *g, uint32_t seq, uint32_t token, uint32_t head);
void arig_set_k(struct arig *g, uint32_t seq, uint32_t token, uint32_t head, const float *k);
void arig_set_v(struct arig *g, uint32_t seq, uint32_t token, uint32_t head, const float *v);
uint32_t arig_pieces(const struct arig *g);
size_t arig_outs(const struct arig *g);		/* floats of out */

/* @check of seeds 1 .. @nr, or as $KVMD_SEED (that one alone) and $KVMD_SEEDS say. */
void arig_each_seed(uint32_t nr, void (*check)(uint32_t seed));

/*
 * Pieces and merge of @nr rows from @first on, to their place in @out (and @mass, may be
 * NULL); @pieces: 0, as many as it takes.
 */
void arig_decode(struct arig *g, uint32_t first, uint32_t nr, uint32_t pieces, unsigned threads,
		 float *out, float *mass);
void arig_prefill(struct arig *g, uint32_t first, uint32_t nr, unsigned threads, float *out);

#endif
