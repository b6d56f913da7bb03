/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_codec.c - groups with a codec: a real daemon, two engines, tiers that are all
 * too small, and restarts.
 *
 * A block's values follow from its chain and position, so that whoever reads it can
 * prove them: every one of the 65536 patterns for the lossless codec, the bound of the
 * codec for a lossy one.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvmd/codec.h"
#include "kvmd/tier/codec_int.h"

#define POOL	"[pool]\npolicy = lru\nblocks = 4096\nwmark_low = 0\nwmark_high = 0\n" \
		"clean_ahead = 0\nslab_bytes = 16M\n"
#define RAM	"[ram]\nbytes = %s\nchunk = 1M\nlock = no\nhugetlb = no\n"
#define DISK	"[disk]\npath = %s/kv.img\nbytes = 64M\nsegment = 1M\nblock_bytes_hint = 4096\n" \
		"admission = 1\n"

#define PARTS	32u
#define CHANNELS 128u
#define PART	(BT * CHANNELS)			/* values */
#define NR	(PARTS * PART)
#define SLOTS	24u
#define CHAIN	8u				/* blocks */
#define CHAINS	42u
#define STEP	70u				/* one value in so many is any pattern */

static struct hd d;

static void coded_space(struct kvc_space *s, const char *name, unsigned id)
{
	kvc_space_init(s, name);
	s->nr_groups = 1;
	s->nr_shards = 1;
	s->group[0] = (struct kvmd_group) {
		.plane_bytes = 2 * NR, .planes = 1, .block_tokens = BT, .max_slots = SLOTS + 1,
		.codec = { .id = (uint8_t)id, .dtype = KVMD_DTYPE_BF16, .parts = PARTS,
			   .channels = CHANNELS, .kv_run = 1 },
	};
}

static void start(bool keeper, const char *ram, bool disk)
{
	char conf[1024];
	int n = snprintf(conf, sizeof(conf), POOL RAM, ram);

	hd_prepare(&d);
	if (disk)
		snprintf(conf + n, sizeof(conf) - (size_t)n, DISK, d.dir);
	d.keeper = keeper;
	hd_conf(&d, conf);
	hd_run(&d);
}

static void stop(void)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/kv.img", d.dir);
	unlink(path);
	hd_stop(&d);
}

/* --------------------------------------------------------------- what blocks hold */

/* Value @k of block @pos of @chain: around one; of @odd blocks one NaN, every STEPth anything. */
static uint16_t value(uint32_t chain, uint32_t pos, uint32_t k, bool odd)
{
	uint32_t block = chain * CHAIN + pos;
	uint64_t h = ((uint64_t)block << 32 | k) * 0x9e3779b97f4a7c15ull;

	if (odd && k == 1)
		return 0x7fc1;
	if (odd && k % STEP == 0)
		return (uint16_t)(block * (NR / STEP + 1) + k / STEP);
	h ^= h >> 29;
	return (uint16_t)(0x3f80 ^ (h & 0x81ff));
}

static void put(struct kvc *k, uint32_t g, int32_t slot, uint32_t chain, uint32_t pos, bool odd)
{
	uint16_t *buf = malloc(2 * NR);

	T(buf && slot > 0);
	for (uint32_t i = 0; i < NR; i++)
		buf[i] = value(chain, pos, i, odd);
	T_EQ(kvc_mem_put(k, kvc_addr(kvc_view(k), g, 0, 0, (uint32_t)slot), buf, 2 * NR), 0);
	free(buf);
}

/* Is it there, to the bit, or but for the error of @codec? */
static void prove(struct kvc *k, int32_t slot, uint32_t chain, uint32_t pos, bool odd,
		  const struct kvmd_group *g)
{
	uint16_t *buf = malloc(2 * NR);
	bool good = true;

	T(buf && slot > 0);
	T_EQ(kvc_mem_get(k, buf, kvc_addr_ro(kvc_view(k), 0, 0, 0, (uint32_t)slot), 2 * NR), 0);
	for (uint32_t i = 0; i < NR && good; i++) {
		const struct codec_ops *ops = codec_get(kvmd_codec_of_part(g, i / PART));
		uint16_t want = value(chain, pos, i, odd);
		double v = (double)bf16_to_float(want);

		/* All values are below 8. */
		if (!ops || ops->lossless)
			good = buf[i] == want;
		else
			good = fabs((double)bf16_to_float(buf[i]) - v) <= ops->bound(v, -8, 8);
		if (!good)
			fprintf(stderr, "chain %u block %u value %u: %04x, not %04x\n", chain, pos,
				i, buf[i], want);
	}
	T(good);
	free(buf);
}

static void compute(struct kvc *k, uint32_t chain, bool odd)
{
	unsigned char keys[CHAIN][KEY];

	make_keys(keys, chain, 0, CHAIN);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, CHAIN * BT, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, CHAIN, 0, WAIT_NS, NULL), CHAIN);
	for (uint32_t i = 0; i < CHAIN; i++)
		put(k, 0, slot_at(k, 0, 1, i), chain, i, odd);
	T_EQ(kvc_seq_publish(k, 1, 1, 0, 0, keys, CHAIN, 0, NULL), CHAIN);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
}

/* How many of its blocks there were; all of them are right. */
static uint32_t look(struct kvc *k, uint32_t chain, bool odd, const struct kvmd_group *g)
{
	unsigned char keys[CHAIN][KEY];
	int n;

	make_keys(keys, chain, 0, CHAIN);
	n = kvc_seq_open(k, 2, 1, keys, CHAIN, CHAIN * BT, 0, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT, NULL);
	T(n >= 0 && n <= (int)CHAIN);
	for (uint32_t i = 0; i < (uint32_t)n; i++)
		prove(k, slot_at(k, 0, 2, i), chain, i, odd, g);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	return (uint32_t)n;
}

static uint32_t look_at_all(struct kvc *k, bool odd, const struct kvmd_group *g)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < CHAINS; i++)
		n += look(k, i, odd, g);
	return n;
}

/* Space "sp", and what is put there. */
struct job {
	unsigned id;
	bool odd;
	uint16_t exact;			/* parts at each end */
};

static void job_space(const struct job *j, struct kvc_space *s)
{
	coded_space(s, "sp", j->id);
	s->group[0].codec.exact_first = s->group[0].codec.exact_last = j->exact;
}

/* The other engine: computes all chains. */
static void engine(struct peer *me, struct hd *hd, void *arg)
{
	const struct job *j = arg;
	struct kvc_space s;
	struct kvc *k;

	job_space(j, &s);
	k = client(hd, &s);
	for (uint32_t i = 0; i < CHAINS; i++)
		compute(k, i, j->odd);
	say(me, 1);
	hear(me);
	kvc_destroy(k);
}

/* A client of the space, which another one fills. */
static struct kvc *other_computes(const struct job *j, struct kvc_space *ret_s)
{
	struct peer p;
	struct kvc *k;

	job_space(j, ret_s);
	k = client(&d, ret_s);
	whole_pool(k, SLOTS);		/* and has mapped it */
	peer_start(&p, &d, engine, j, sizeof(*j));
	T_EQ(hear(&p), 1);
	say(&p, 0);
	peer_end(&p);
	return k;
}

/* The daemon stores what is in RAM on its own. */
static void wait_stored(struct kvc *k, uint64_t nr)
{
	while (hd_stat(&d, "blocks_stored") < nr)
		T_EQ(kvc_nop(k), 0);
}

static void wait_recovered(void)
{
	const char *said;

	do {
		said = hd_ask(&d, "tier show tier=disk");
		T(strstr(said, "\"recovering\":"));
	} while (strstr(said, "\"recovering\":true"));
}

static void reconnect(struct kvc *k)
{
	struct pollfd pfd = { .fd = kvc_fd(k), .events = POLLRDHUP };

	T(poll(&pfd, 1, WAIT_MS) == 1);
	T_EQ(kvc_reconnect(k), 1);
}

/* ---------------------------------------------------------------------- the tests */

START_TEST(another_engine_gets_it_from_ram)
{
	const struct job j = {
		.id = (unsigned)_i, .odd = _i == KVMD_CODEC_WINDOW, .exact = _i != KVMD_CODEC_WINDOW,
	};
	struct kvc_space s;
	struct kvc *k;

	start(false, "64M", false);
	k = other_computes(&j, &s);
	T(hd_stat(&d, "blocks_encoded") >= CHAIN * CHAINS - SLOTS);
	T_EQ(look_at_all(k, j.odd, &s.group[0]), CHAIN * CHAINS);
	T_EQ(look_at_all(k, j.odd, &s.group[0]), CHAIN * CHAINS);
	T(hd_stat(&d, "blocks_decoded") >= 2 * (CHAIN * CHAINS - SLOTS));
	T_EQ(hd_stat(&d, "codec_overflows"), 0);
	T_EQ(hd_stat(&d, "codec_failed"), 0);
	T_EQ(hd_stat(&d, "checksum_errors"), 0);
	T(hd_stat(&d, "bytes_encoded_out") < hd_stat(&d, "bytes_encoded_in"));
	T(strstr(hd_ask(&d, "space list"), kvmd_codec_name((unsigned)_i)));
	T(strstr(hd_ask(&d, "space show space=sp"), "\"below_bytes\""));
	hd_check(&d);
	kvc_destroy(k);
	stop();
}
END_TEST

START_TEST(a_killed_daemon_s_ram_is_read_by_the_next)
{
	const struct job j = { .id = KVMD_CODEC_WINDOW, .odd = true };
	struct kvc_space s;
	struct kvc *k;

	start(true, "64M", false);
	k = other_computes(&j, &s);
	for (int i = 0; i < 2; i++) {
		T_EQ(kill(hd_daemon_pid(&d), SIGKILL), 0);
		hd_said(&d, " serves ");
		reconnect(k);
		hd_check(&d);
		/* What was on its way between two tiers at that moment may be gone. */
		T(look_at_all(k, true, &s.group[0]) >= CHAIN * CHAINS * 3 / 4);
	}
	T_EQ(hd_stat(&d, "codec_failed"), 0);
	kvc_destroy(k);
	stop();
}
END_TEST

/* RAM holds a third; what is read comes from disk, and after a crash only from there. */
START_TEST(through_disk_and_a_crash)
{
	const struct job j = { .id = (unsigned)_i, .odd = _i == KVMD_CODEC_WINDOW };
	struct kvc_space s;
	struct kvc *k;

	start(false, "16M", true);
	k = other_computes(&j, &s);
	/* What the disk is too slow for is let go of. */
	T(look_at_all(k, j.odd, &s.group[0]) >= CHAIN * CHAINS / 2);
	T(hd_stat(&d, "blocks_fetched") > 0);
	wait_stored(k, CHAIN * CHAINS / 2);
	hd_check(&d);
	hd_kill(&d);
	kvc_destroy(k);
	hd_run(&d);
	k = client(&d, &s);
	wait_recovered();
	T(look_at_all(k, j.odd, &s.group[0]) >= CHAIN * CHAINS / 4);
	T_EQ(hd_stat(&d, "codec_failed"), 0);
	T_EQ(hd_stat(&d, "checksum_errors"), 0);
	hd_check(&d);
	kvc_destroy(k);
	/* The same space with another codec: nothing of it is there. */
	T_EQ(hd_end(&d), 0);
	hd_run(&d);
	coded_space(&s, "sp", KVMD_CODEC_FP8_E5M2);
	k = client(&d, &s);
	wait_recovered();
	T_EQ(look_at_all(k, j.odd, &s.group[0]), 0);
	kvc_destroy(k);
	stop();
}
END_TEST

/* One group with a codec, one without, one with another. */
START_TEST(groups_of_a_space_differ)
{
	static const unsigned id[3] = { KVMD_CODEC_INT8, KVMD_CODEC_NONE, KVMD_CODEC_WINDOW };
	unsigned char keys[3][CHAIN][KEY];
	const void *lists[3] = { keys[0], keys[1], keys[2] };
	const uint32_t nr[3] = { CHAIN, CHAIN, CHAIN };
	struct kvc_space s, o;
	uint16_t *buf = malloc(2 * NR);
	struct kvc *k;

	start(false, "64M", false);
	coded_space(&s, "mixed", KVMD_CODEC_NONE);
	s.nr_groups = 3;
	for (uint32_t g = 0; g < 3; g++) {
		coded_space(&o, "x", id[g]);
		s.group[g] = o.group[0];
		if (id[g] == KVMD_CODEC_NONE)
			memset(&s.group[g].codec, 0, sizeof(s.group[g].codec));
	}
	k = client(&d, &s);
	for (uint32_t c = 0; c < 8; c++) {
		T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, CHAIN * BT, 0, 0, NULL), 0);
		T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, CHAIN * BT, KVMD_EXTEND_TOKENS, WAIT_NS,
				    NULL), 3 * CHAIN);
		for (uint32_t g = 0; g < 3; g++) {
			make_keys(keys[g], 10 * c + g, 0, CHAIN);
			for (uint32_t i = 0; i < CHAIN; i++)
				put(k, g, slot_at(k, g, 1, i), c, i, g == 2);
			T_EQ(kvc_seq_publish(k, 1, 1, (uint8_t)g, 0, keys[g], CHAIN, 0, NULL), CHAIN);
		}
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	for (uint32_t c = 0; c < 8; c++) {
		for (uint32_t g = 0; g < 3; g++)
			make_keys(keys[g], 10 * c + g, 0, CHAIN);
		T_EQ(kvc_seq_open_lists(k, 2, 1, lists, nr, CHAIN * BT, 0,
					KVMD_OPEN_LOAD | KVMD_OPEN_WAIT, NULL), CHAIN);
		for (uint32_t i = 0; i < CHAIN; i++) {
			prove(k, slot_at(k, 0, 2, i), c, i, false, &s.group[0]);
			for (uint32_t g = 1; g < 3; g++) {
				bool same = true;

				T_EQ(kvc_mem_get(k, buf, kvc_addr_ro(kvc_view(k), g, 0, 0,
						 (uint32_t)slot_at(k, g, 2, i)), 2 * NR), 0);
				for (uint32_t n = 0; n < NR; n++)
					same &= buf[n] == value(c, i, n, g == 2);
				T(same);
			}
		}
		T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	}
	T(strstr(hd_ask(&d, "space list"), "\"mixed\""));
	hd_check(&d);
	kvc_destroy(k);
	stop();
	free(buf);
}
END_TEST

/* Values that no codec takes; and a private tail, which a swap gives back to the bit. */
START_TEST(what_is_not_coded_is_exact)
{
	static const struct kvmd_group none = { .codec = { .id = KVMD_CODEC_NONE } };
	uint16_t *buf = malloc(2 * NR);
	struct kvc_space s;
	struct kvc *k;

	start(false, "64M", false);
	coded_space(&s, "sp", KVMD_CODEC_INT4);
	k = client(&d, &s);
	for (uint32_t c = 0; c < 16; c++)
		compute(k, c, c % 2);	/* odd ones have infinities and NaN */
	for (int n = 0; n < 2; n++)
		for (uint32_t c = 0; c < 16; c++)
			T_EQ(look(k, c, c % 2, c % 2 ? &none : &s.group[0]), CHAIN);
	T(hd_stat(&d, "codec_overflows") > 0);
	T_EQ(kvc_seq_open(k, 3, 1, NULL, 0, 2 * BT, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 3, 1, 0, 2, 0, WAIT_NS, NULL), 2);
	for (uint32_t i = 0; i < 2; i++)
		put(k, 0, slot_at(k, 0, 3, i), 90, i, false);
	T_EQ(kvc_seq_swap_out(k, 3, 1, 0), 2);
	for (uint32_t c = 0; c < 16; c++)
		T_EQ(look(k, c, c % 2, c % 2 ? &none : &s.group[0]), CHAIN);
	T_EQ(kvc_seq_swap_in(k, 3, 1, WAIT_NS), 2);
	for (uint32_t i = 0; i < 2; i++)
		prove(k, slot_at(k, 0, 3, i), 90, i, false, &none);
	T_EQ(kvc_seq_close(k, 3, 1, 0, 0), 0);
	hd_check(&d);
	kvc_destroy(k);
	stop();
	free(buf);
}
END_TEST

static void refused(const struct kvc_space *s, const char *field)
{
	struct kvc *k = NULL;
	struct kvc_opts o;

	opts_for(&d, &o);
	T_EQ(kvc_create(&o, s, &k), -EINVAL);
	if (!strstr(kvc_refusal(), field))
		fprintf(stderr, "\"%s\" does not name %s\n", kvc_refusal(), field);
	T(strstr(kvc_refusal(), field));
}

START_TEST(refusals_name_the_field)
{
	struct kvc_space s;
	struct kvc *k;

	start(false, "16M", false);
#define REFUSED(field, value) do { \
	coded_space(&s, "sp", KVMD_CODEC_INT8); \
	s.group[0].codec.field = (value); \
	refused(&s, "codec." #field); \
} while (0)
	REFUSED(id, KVMD_NR_CODEC);
	REFUSED(dtype, 0);
	REFUSED(scale_values, 48);
	REFUSED(parts, 0);
	REFUSED(channels, 100);
	REFUSED(kv_run, 3);
	REFUSED(exact_first, PARTS + 1);
	coded_space(&s, "sp", KVMD_CODEC_INT8);
	k = client(&d, &s);
	REFUSED(scale_values, 32);
	REFUSED(exact_last, 1);
	coded_space(&s, "sp", KVMD_CODEC_WINDOW);
	refused(&s, "codec.id");
	memset(&s.group[0].codec, 0, sizeof(s.group[0].codec));
	refused(&s, "codec.id");
	kvc_destroy(k);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("codec");
	TCase *tc = tcase_create("codec");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, another_engine_gets_it_from_ram, KVMD_CODEC_WINDOW,
			    KVMD_CODEC_WINDOW + 1);
	tcase_add_loop_test(tc, another_engine_gets_it_from_ram, KVMD_CODEC_INT8, KVMD_NR_CODEC);
	tcase_add_test(tc, a_killed_daemon_s_ram_is_read_by_the_next);
	tcase_add_loop_test(tc, through_disk_and_a_crash, KVMD_CODEC_WINDOW, KVMD_CODEC_WINDOW + 1);
	tcase_add_loop_test(tc, through_disk_and_a_crash, KVMD_CODEC_INT8, KVMD_CODEC_INT8 + 1);
	tcase_add_test(tc, groups_of_a_space_differ);
	tcase_add_test(tc, what_is_not_coded_is_exact);
	tcase_add_test(tc, refusals_name_the_field);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
