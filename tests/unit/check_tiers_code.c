/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tiers_code.c - coded blocks on their way between HBM, RAM and disk, in the
 * whole daemon turned by hand.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/core_rig.h"
#include "tests/quiet.h"
#include "tests/unit/codec_rig.h"

#include "kvmd/codec.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/ram_int.h"

#define PARTS	8u
#define TOKENS	16u
#define CHANNELS 128u
#define BLOCK	(PARTS * TOKENS * CHANNELS * 2)
#define NR_VALUES	(BLOCK / 2)
#define MAX_CHAINS 64u
#define CHAIN	8u			/* blocks */

static struct core c;
static struct core_client cl;
static char dir[64], disk_opt[128];

/* What was published: [chain][block][value]. */
static uint16_t (*truth)[CHAIN][NR_VALUES];
static bool wild[MAX_CHAINS];		/* values that no codec but none takes */

static struct gpool *gpool(void)
{
	return &cl.s->sp->gp[0];
}

static struct kvmd_codec codec(unsigned id)
{
	return (struct kvmd_codec) {
		.id = (uint8_t)id, .dtype = KVMD_DTYPE_BF16, .parts = PARTS, .channels = CHANNELS,
		.kv_run = 1,
	};
}

static void start(const char *const *opts, uint32_t slots, const struct kvmd_codec *k)
{
	struct kvmd_space m;

	core_init(&c, opts);
	core_geometry(&m, "s", BLOCK, slots + 1);
	m.group[0].codec = *k;
	core_client(&c, &cl, "default", &m, 64, 4096);
	core_quiet(&c);
	core_recovered(&c);
	core_settle(&c);
}

/* Charges are what the places have. */
static void walk(void)
{
	const struct pool *p = c.d->pool;
	uint64_t ram = 0, disk = 0;

	core_walk(&c);
	for (uint32_t id = 1; id < p->next_fresh; id++) {
		const struct block *b = pool_block(p, id);

		if (b->state == BLK_FREE)
			continue;
		ram += b->ram ? tier_ram_bytes(pool_gpool(p, b), b) : 0;
		disk += b->disk ? tier_disk_bytes(pool_gpool(p, b), b) : 0;
	}
	core_ok_msg(p->tenant[0].ram_bytes == ram, "RAM: charged %llu, has %llu",
		    (unsigned long long)p->tenant[0].ram_bytes, (unsigned long long)ram);
	core_ok_msg(p->tenant[0].disk_bytes == disk, "disk: charged %llu, has %llu",
		    (unsigned long long)p->tenant[0].disk_bytes, (unsigned long long)disk);
}

static void stop(void)
{
	fault_disarm();
	core_settle(&c);
	walk();
	core_exit(&c);
}

static void start_ram(uint32_t slots, unsigned id)
{
	static const char *const opts[] = {
		"pool.blocks=4096", "pool.policy=lru", "ram.bytes=16M", "ram.lock=no", "ram.hugetlb=no",
		"pool.wmark_low=0", "pool.wmark_high=0", "pool.clean_ahead=0", NULL,
	};
	struct kvmd_codec k = codec(id);

	start(opts, slots, &k);
}

static void start_disk_with(uint32_t slots, const struct kvmd_codec *k, const char *ram)
{
	const char *const opts[] = {
		"pool.blocks=4096", "pool.policy=lru", ram, "ram.lock=no", "ram.hugetlb=no",
		"ram.chunk=2M", disk_opt, "disk.bytes=64M", "disk.segment=1M",
		"disk.block_bytes_hint=4096", "disk.admission=1", "pool.wmark_low=0",
		"pool.wmark_high=0", "pool.clean_ahead=0", NULL,
	};

	start(opts, slots, k);
}

static void setup(void)
{
	memset(wild, 0, sizeof(wild));
	truth = calloc(MAX_CHAINS, sizeof(*truth));
	snprintf(dir, sizeof(dir), "/tmp/kvmd-code.XXXXXX");
	ck_assert(truth && mkdtemp(dir));
	snprintf(disk_opt, sizeof(disk_opt), "disk.path=%s/kv.img", dir);
}

static void teardown(void)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/kv.img", dir);
	unlink(path);
	rmdir(dir);
	free(truth);
}

static uint16_t *slot_mem(uint32_t seq, uint32_t pos)
{
	return core_mem(gpool(), (uint32_t)seq_row(&cl.s->st, seq, 0)[pos], 0, 0);
}

static void paint(uint32_t seq, uint32_t chain)
{
	for (uint32_t i = 0; i < CHAIN; i++) {
		uint16_t *v = truth[chain][i];

		for (uint32_t k = 0; k < NR_VALUES; k++)
			v[k] = wild[chain] ? (uint16_t)ct_rnd(65536) : ct_rnd_value(2);
		/* NaN, infinities, denormals, both zeros: few enough for window. */
		for (uint32_t k = 0; k < 16 && gpool()->geo.codec.id == KVMD_CODEC_WINDOW; k++) {
			static const uint16_t odd[] = { 0x7fc1, 0xff81, 0x7f80, 0xff80, 1, 0x8001,
							0, 0x8000 };

			v[k * 61] = odd[k % ARRAY_SIZE(odd)];
		}
		memcpy(slot_mem(seq, i), v, BLOCK);
	}
}

/* Most |value| of a block. */
static double most_of(const uint16_t *v, uint32_t nr)
{
	double most = 0;

	for (uint32_t k = 0; k < nr; k++)
		most = fmax(most, fabs((double)bf16_to_float(v[k])));
	return most;
}

/* One part of a block that was published: the same, or within the bound of its codec. */
static void check_part(const uint16_t *got, const uint16_t *want, uint32_t part, bool exact)
{
	const struct kvmd_group *g = &gpool()->geo;
	const struct codec_ops *ops = codec_get(kvmd_codec_of_part(g, part));
	uint32_t nr = TOKENS * CHANNELS;
	double most = exact ? 0 : most_of(want, nr);

	if (exact || ops->lossless) {
		quiet_assert_mem_eq(got, want, 2 * nr);
		return;
	}
	for (uint32_t k = 0; k < nr; k++) {
		double v = (double)bf16_to_float(want[k]);

		quiet_assert(fabs((double)bf16_to_float(got[k]) - v) <= ops->bound(v, -most, most));
	}
}

static void check_block(uint32_t seq, uint32_t pos, const uint16_t *want, bool exact)
{
	const uint16_t *got = slot_mem(seq, pos);

	quiet_assert_int_gt(seq_row(&cl.s->st, seq, 0)[pos], 0);
	for (uint32_t p = 0; p < PARTS; p++)
		check_part(got + p * TOKENS * CHANNELS, want + p * TOKENS * CHANNELS, p, exact);
}

static int32_t close_seq(uint32_t seq)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_CLOSE, seq);

	return core_do(&cl, &e).res;
}

static struct kvmd_cqe open_chain(uint32_t seq, uint32_t chain, uint16_t flags)
{
	uint8_t keys[KVMD_KEY_BYTES * CHAIN];
	struct kvmd_sqe e;

	core_keys(chain, 0, CHAIN, keys);
	e = core_open(&cl, seq, keys, CHAIN);
	e.flags |= flags;
	return core_do(&cl, &e);
}

static void make_chain(uint32_t chain)
{
	uint8_t keys[KVMD_KEY_BYTES * CHAIN];
	struct kvmd_sqe e;

	core_keys(chain, 0, CHAIN, keys);
	e = core_open(&cl, 0, keys, CHAIN);
	ck_assert_int_ge(core_do(&cl, &e).res, 0);
	e = core_extend(0, CHAIN - cl.s->st.seq[0].len[0]);
	ck_assert_int_ge(core_do(&cl, &e).res, 0);
	paint(0, chain);
	e = core_publish(&cl, 0, 0, keys, CHAIN);
	ck_assert_int_eq(core_do(&cl, &e).res, (int)CHAIN);
	ck_assert_int_eq(close_seq(0), 0);
	walk();
}

/* How many blocks of it were there. */
static uint32_t read_chain(uint32_t chain)
{
	struct kvmd_cqe q = open_chain(1, chain, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);

	ck_assert_int_ge(q.res, 0);
	for (uint32_t i = 0; i < (uint32_t)q.res; i++)
		check_block(1, i, truth[chain][i], wild[chain]);
	walk();
	ck_assert_int_eq(close_seq(1), 0);
	return (uint32_t)q.res;
}

/* ------------------------------------------------------------------------ RAM */

START_TEST(through_ram_and_back)
{
	unsigned id = (unsigned)_i;
	uint64_t coded;

	start_ram(16, id);
	coded = gpool()->coded_bytes;
	ck_assert_uint_gt(coded, 0);
	for (uint32_t i = 1; i <= 6; i++)
		make_chain(i);
	ck_assert_uint_eq(stat_get(BLOCKS_ENCODED), 32);
	ck_assert_uint_eq(stat_get(CODEC_OVERFLOWS), 0);
	ck_assert_uint_eq(c.d->pool->tenant[0].ram_bytes, 32 * coded);
	for (int n = 0; n < 3; n++)
		for (uint32_t i = 1; i <= 6; i++)
			ck_assert_uint_eq(read_chain(i), CHAIN);
	ck_assert_uint_ge(stat_get(BLOCKS_DECODED), 6 * CHAIN);
	ck_assert_uint_eq(stat_get(CODEC_FAILED), 0);
	ck_assert((gpool()->codec_error > 0) == (id != KVMD_CODEC_WINDOW));
	stop();
}
END_TEST

/* Some blocks have values that the codec does not take: these are plain, and exact. */
START_TEST(what_does_not_fit_is_plain)
{
	start_ram(16, (unsigned)_i);
	for (uint32_t i = 1; i <= 8; i++) {
		wild[i] = i % 2;
		make_chain(i);
	}
	core_settle(&c);
	ck_assert_uint_ge(stat_get(CODEC_OVERFLOWS), 3 * CHAIN);
	for (int n = 0; n < 2; n++)
		for (uint32_t i = 1; i <= 8; i++)
			ck_assert_uint_eq(read_chain(i), CHAIN);
	/* It is known by now: not tried again. */
	ck_assert_uint_le(stat_get(CODEC_OVERFLOWS), 4 * CHAIN);
	ck_assert_uint_eq(stat_get(LOADS_FAILED), 0);
	stop();
}
END_TEST

/* There was no memory to code blocks in: they are kept as they are. */
START_TEST(without_memory_to_code_in)
{
	start_ram(16, KVMD_CODEC_INT4);
	ram_of(c.d->tiers->ram)->stages->scratch_bytes = 0;
	for (uint32_t i = 1; i <= 6; i++)
		make_chain(i);
	ck_assert_uint_eq(stat_get(BLOCKS_ENCODED), 0);
	ck_assert_uint_ge(c.d->pool->tenant[0].ram_bytes, 32 * BLOCK);
	for (uint32_t i = 1; i <= 6; i++) {
		ck_assert_int_eq(open_chain(1, i, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT).res, CHAIN);
		for (uint32_t k = 0; k < CHAIN; k++)
			check_block(1, k, truth[i][k], true);
		close_seq(1);
	}
	stop();
}
END_TEST

/* The RAM copy goes again and again: the loss is that of one coding all the same. */
START_TEST(loss_does_not_grow)
{
	struct pool *p;

	start_ram(16, (unsigned)_i);
	p = c.d->pool;
	for (uint32_t i = 1; i <= 4; i++)
		make_chain(i);
	for (int n = 0; n < 6; n++) {
		for (uint32_t i = 1; i <= 4; i++)
			ck_assert_uint_eq(read_chain(i), CHAIN);
		for (uint32_t id = 1; id < p->next_fresh; id++) {
			struct block *b = pool_block(p, id);

			if (b->state == BLK_SEALED && b->slot && b->ram &&
			    !pool_is_moving(p, b))
				tiers_drop_ram(c.d->tiers, b);
		}
	}
	stop();
}
END_TEST

static uint32_t some_place(uint32_t pos)
{
	for (uint32_t id = 1; id < c.d->pool->next_fresh; id++) {
		const struct block *b = pool_block(c.d->pool, id);

		if (b->state == BLK_SEALED && !b->slot && b->pos == pos && b->ram)
			return b->ram;
	}
	ck_abort_msg("no block of position %u is in RAM", pos);
}

START_TEST(damage_in_ram_is_a_miss)
{
	uint32_t place, nr = 0;
	uint8_t *mem;

	start_ram(16, KVMD_CODEC_WINDOW);
	for (uint32_t i = 1; i <= 4; i++)
		make_chain(i);
	place = some_place(3);
	mem = ram_mem(c.d->tiers->ram, place);
	mem[200] ^= 1;
	if (_i)				/* as if it had been stored like that */
		ram_set_sum(c.d->tiers->ram, place, sum_of(mem, gpool()->coded_bytes));
	for (uint32_t i = 1; i <= 4; i++)
		nr += read_chain(i);
	ck_assert_uint_eq(nr, 3 * CHAIN + 3);
	ck_assert_uint_eq(stat_get(CHECKSUM_ERRORS), 1);
	ck_assert_uint_eq(stat_get(CODEC_FAILED), (unsigned)_i);
	stop();
}
END_TEST

/* Private blocks, and sealed ones that have no copy yet, come back to the bit. */
START_TEST(swaps_are_exact)
{
	uint16_t *tail = malloc(3 * BLOCK);
	struct kvmd_sqe e;

	start_ram(24, KVMD_CODEC_INT4);
	make_chain(1);
	ck_assert_int_eq(open_chain(1, 1, 0).res, CHAIN);
	e = core_extend(1, 3);
	ck_assert_int_eq(core_do(&cl, &e).res, 3);
	for (uint32_t i = 0; i < 3; i++)
		for (uint32_t k = 0; k < NR_VALUES; k++)
			slot_mem(1, CHAIN + i)[k] = tail[i * NR_VALUES + k] = (uint16_t)ct_rnd(65536);
	for (uint32_t n = 0; n < 3; n++) {
		e = core_op(KVMD_OP_SEQ_SWAP_OUT, 1);
		ck_assert_int_eq(core_do(&cl, &e).res, CHAIN + 3);
		walk();
		make_chain(2 + 2 * n);
		make_chain(3 + 2 * n);
		e = core_op(KVMD_OP_SEQ_SWAP_IN, 1);
		ck_assert_int_eq(core_do(&cl, &e).res, CHAIN + 3);
		for (uint32_t i = 0; i < CHAIN; i++)
			check_block(1, i, truth[1][i], true);
		for (uint32_t i = 0; i < 3; i++)
			ck_assert(!memcmp(slot_mem(1, CHAIN + i), tail + i * NR_VALUES, BLOCK));
		walk();
	}
	close_seq(1);
	stop();
	free(tail);
}
END_TEST

/* Every copy on its way out fails once: nothing wrong comes back. */
START_TEST(copies_that_fail)
{
	char text[128];

	start_ram(16, KVMD_CODEC_WINDOW);
	ck_assert(!fault_arm("copy:every=5", text, sizeof(text)));
	for (uint32_t i = 1; i <= 10; i++) {
		wild[i] = i % 3 == 0;
		make_chain(i);
	}
	for (uint32_t i = 1; i <= 10; i++)
		read_chain(i);
	fault_disarm();
	for (uint32_t i = 1; i <= 10; i++)
		read_chain(i);
	stop();
}
END_TEST

/* ----------------------------------------------------------------------- disk */

START_TEST(through_disk_and_back)
{
	struct kvmd_codec k = codec((unsigned)_i);

	k.exact_first = k.exact_last = 1;
	start_disk_with(16, &k, "ram.bytes=16M");
	ram_resize(c.d->tiers->ram, 6 << 20);
	core_quiet(&c);
	for (uint32_t i = 0; i < MAX_CHAINS; i++) {
		wild[i] = i % 8 == 5;
		make_chain(i);
	}
	core_quiet(&c);
	ck_assert_uint_gt(stat_get(BLOCKS_STORED), 200);
	ck_assert_uint_gt(stat_get(BLOCKS_SUNK_DISK), 50);
	for (uint32_t i = 0; i < MAX_CHAINS; i++)
		ck_assert_uint_eq(read_chain(i), CHAIN);
	ck_assert_uint_gt(stat_get(TOKENS_DISK), 0);
	stop();
}
END_TEST

static uint32_t read_all(uint32_t nr)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < nr; i++)
		found += read_chain(i);
	return found;
}

START_TEST(a_restart_finds_both_forms)
{
	struct kvmd_codec k = codec((unsigned)_i), other;
	uint32_t nr;

	start_disk_with(16, &k, "ram.bytes=16M");
	for (uint32_t i = 0; i < 20; i++) {
		wild[i] = i % 4 == 1;
		make_chain(i);
	}
	core_quiet(&c);
	ck_assert_uint_gt(stat_get(BLOCKS_STORED), 100);
	stop();
	/* With another codec, or none, what is there is another space's; and was it then. */
	start_disk_with(16, &k, "ram.bytes=16M");
	nr = read_all(20);
	ck_assert_uint_gt(nr, 100);
	stop();
	other = _i == KVMD_CODEC_INT8 ? codec(KVMD_CODEC_FP8_E4M3) : (struct kvmd_codec) { 0 };
	start_disk_with(16, &other, "ram.bytes=16M");
	ck_assert_uint_eq(read_all(20), 0);
	stop();
}
END_TEST

/* Headers of the file are changed, with a right CRC: what they name is not there, or not wrong. */
static unsigned change_headers(void (*change)(struct disk_header *h))
{
	char path[96];
	struct disk_super s;
	unsigned nr = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/kv.img", dir);
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert(pread(fd, &s, sizeof(s), 0) == sizeof(s));
	ck_assert_int_eq(disk_super_check(&s), DISK_FINE);
	for (uint32_t seg = 0; seg < s.nr_segments; seg++)
		for (uint32_t i = 0; i < s.nr_headers; i++) {
			off_t at = (off_t)(disk_summary_at(&s, seg) + DISK_ALIGN +
					   i * sizeof(struct disk_header));
			struct disk_header h;

			quiet_assert(pread(fd, &h, sizeof(h), at) == sizeof(h));
			if (disk_header_check(&s, &h, seg, h.generation))
				continue;
			change(&h);
			disk_header_finish(&h);
			quiet_assert(pwrite(fd, &h, sizeof(h), at) == sizeof(h));
			nr++;
		}
	close(fd);
	return nr;
}

static void no_codec(struct disk_header *h)
{
	h->codec = KVMD_CODEC_NONE;
}

static void other_codec(struct disk_header *h)
{
	h->codec = KVMD_CODEC_INT8;
}

static void beyond_codec(struct disk_header *h)
{
	h->codec = KVMD_NR_CODEC;
}

static void plain_length(struct disk_header *h)
{
	h->bytes = BLOCK;
}

static void plain_form(struct disk_header *h)
{
	h->bytes = BLOCK;
	h->codec = KVMD_CODEC_NONE;
}

static void page_less(struct disk_header *h)
{
	h->bytes -= 4096;
}

START_TEST(wrong_headers_are_not_there)
{
	static const struct { void (*change)(struct disk_header *h); bool adopted; } how[] = {
		{ no_codec, false }, { other_codec, false }, { beyond_codec, false },
		{ plain_length, false }, { page_less, false },
		/* It looks like a plain block: but its bytes do not have that sum. */
		{ plain_form, true },
	};
	struct kvmd_codec k = codec(KVMD_CODEC_WINDOW);

	start_disk_with(16, &k, "ram.bytes=16M");
	for (uint32_t i = 0; i < 8; i++)
		make_chain(i);
	core_quiet(&c);
	ck_assert_uint_gt(stat_get(BLOCKS_STORED), 40);
	stop();
	ck_assert_uint_gt(change_headers(how[_i].change), 40);
	start_disk_with(16, &k, "ram.bytes=16M");
	ck_assert_int_eq(stat_get(BLOCKS_ADOPTED) > 0, how[_i].adopted);
	ck_assert_uint_eq(read_all(8), 0);
	stop();
}
END_TEST

/* What was stored wrong, with a sum that is right: found by what decoding gives. */
START_TEST(damage_on_disk_is_a_miss)
{
	struct kvmd_codec k = codec(KVMD_CODEC_WINDOW);
	uint32_t place;
	uint8_t *mem;

	start_disk_with(16, &k, "ram.bytes=16M");
	for (uint32_t i = 0; i < 4; i++)
		make_chain(i);
	place = some_place(3);
	mem = ram_mem(c.d->tiers->ram, place);
	mem[5000] ^= 1;
	ram_set_sum(c.d->tiers->ram, place, sum_of(mem, gpool()->coded_bytes));
	/* Perhaps it was stored before that; then it is right there. */
	core_quiet(&c);
	ck_assert_uint_ge(read_all(4), 3 * CHAIN + 3);
	ck_assert_uint_ge(stat_get(CODEC_FAILED), 1);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tiers_code");
	TCase *tc = tcase_create("tiers_code");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, through_ram_and_back, KVMD_CODEC_WINDOW, KVMD_NR_CODEC);
	tcase_add_loop_test(tc, what_does_not_fit_is_plain, KVMD_CODEC_WINDOW,
			    KVMD_CODEC_WINDOW + 1);
	tcase_add_loop_test(tc, what_does_not_fit_is_plain, KVMD_CODEC_INT8, KVMD_NR_CODEC);
	tcase_add_test(tc, without_memory_to_code_in);
	tcase_add_loop_test(tc, loss_does_not_grow, KVMD_CODEC_WINDOW, KVMD_NR_CODEC);
	tcase_add_loop_test(tc, damage_in_ram_is_a_miss, 0, 2);
	tcase_add_test(tc, swaps_are_exact);
	tcase_add_test(tc, copies_that_fail);
	tcase_add_loop_test(tc, through_disk_and_back, KVMD_CODEC_WINDOW, KVMD_CODEC_WINDOW + 1);
	tcase_add_loop_test(tc, through_disk_and_back, KVMD_CODEC_INT8, KVMD_CODEC_INT8 + 1);
	tcase_add_loop_test(tc, a_restart_finds_both_forms, KVMD_CODEC_WINDOW,
			    KVMD_CODEC_WINDOW + 1);
	tcase_add_loop_test(tc, a_restart_finds_both_forms, KVMD_CODEC_INT8, KVMD_CODEC_INT8 + 1);
	tcase_add_loop_test(tc, wrong_headers_are_not_there, 0, 6);
	tcase_add_test(tc, damage_on_disk_is_a_miss);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
