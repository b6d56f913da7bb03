/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prog_engine.c - a small engine that a script leads by lines on standard input.
 *
 *   prog_engine SOCKET SPACE LABEL
 *
 *   open SEQ NR SEED   open with NR keys of chain SEED, extend, publish the rest
 *   load SEQ NR SEED   open with blocks of all tiers, wait for them; no more
 *   close SEQ
 *   cold SEED NR       advise its first NR keys cold
 *   willneed SEED NR   advise that they will be needed
 *   quit
 *
 * Answers each with "ok NUMBER" (blocks that hit) or "error NUMBER". Key i of
 * chain s is 8 bytes of hex digits of s, 8 of i, and 48 of zeros.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvclient.h>

#define BLOCK_TOKENS	16
#define MAX_KEYS	4096

static uint8_t keys[MAX_KEYS][KVMD_KEY_BYTES];
static uint64_t step;

static void make_keys(uint32_t seed, uint32_t nr)
{
	memset(keys, 0, sizeof(keys));
	for (uint32_t i = 0; i < nr; i++) {
		for (int b = 0; b < 4; b++) {
			keys[i][b] = (uint8_t)(seed >> (24 - 8 * b));
			keys[i][4 + b] = (uint8_t)(i >> (24 - 8 * b));
		}
	}
}

static int do_open(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t seed)
{
	int hit, err;

	if (nr > MAX_KEYS)
		return -1;
	make_keys(seed, nr);
	hit = kvc_seq_open(k, seq, seq + 1, keys, nr, nr * BLOCK_TOKENS, 0, 0, NULL);
	if (hit < 0 || (uint32_t)hit == nr)
		return hit;
	err = kvc_seq_extend(k, seq, seq + 1, 0, nr - (uint32_t)hit, 0, 0, NULL);
	if (err < 0)
		return err;
	kvc_step_submit(k, ++step);
	kvc_step_complete(k, 0, step);
	err = kvc_seq_publish(k, seq, seq + 1, 0, (uint32_t)hit, keys[hit], nr - (uint32_t)hit,
			      step, NULL);
	return err < 0 ? err : hit;
}

static int do_load(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t seed)
{
	if (nr > MAX_KEYS)
		return -1;
	make_keys(seed, nr);
	return kvc_seq_open(k, seq, seq + 1, keys, nr, nr * BLOCK_TOKENS, 0,
			    KVMD_OPEN_LOAD | KVMD_OPEN_WAIT, NULL);
}

static int do_line(struct kvc *k, const char *line)
{
	unsigned seq, nr, seed;

	if (sscanf(line, "open %u %u %u", &seq, &nr, &seed) == 3)
		return do_open(k, seq, nr, seed);
	if (sscanf(line, "load %u %u %u", &seq, &nr, &seed) == 3)
		return do_load(k, seq, nr, seed);
	if (sscanf(line, "close %u", &seq) == 1)
		return kvc_seq_close(k, seq, seq + 1, step, 0);
	if (sscanf(line, "cold %u %u", &seed, &nr) == 2 && nr <= MAX_KEYS) {
		make_keys(seed, nr);
		return kvc_advise_keys(k, KVMD_ADV_COLD, 0, keys, nr, 0);
	}
	if (sscanf(line, "willneed %u %u", &seed, &nr) == 2 && nr <= MAX_KEYS) {
		make_keys(seed, nr);
		return kvc_advise_keys(k, KVMD_ADV_WILLNEED, 0, keys, nr, 0);
	}
	return -22;
}

int main(int argc, char **argv)
{
	struct kvc_opts o;
	struct kvc_space s;
	struct kvc *k;
	char line[256];
	int err;

	if (argc != 4)
		return 2;
	kvc_opts_init(&o);
	o.socket = argv[1];
	o.label = argv[3];
	kvc_space_init(&s, argv[2]);
	s.nr_groups = s.nr_shards = 1;
	s.group[0] = (struct kvmd_group) {
		.plane_bytes = 4096, .planes = 1, .block_tokens = BLOCK_TOKENS,
	};
	err = kvc_create(&o, &s, &k);
	if (err) {
		fprintf(stderr, "prog_engine: %s: %s\n", kvc_strerror(err), kvc_refusal());
		return 1;
	}
	printf("ready %u\n", kvc_view(k)->session);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && strncmp(line, "quit", 4)) {
		int ret = do_line(k, line);

		printf("%s %d\n", ret < 0 ? "error" : "ok", ret);
		fflush(stdout);
	}
	kvc_destroy(k);
	return 0;
}
