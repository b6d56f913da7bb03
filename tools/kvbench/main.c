/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - kvbench: kvmd beside the floors of the machine it runs on.
 *
 * Options, and the order of things. kvbench.h says how is measured.
 */
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "kvmd/lib/conf.h"
#include "tools/kvbench/kvbench.h"

#define CALIB_LIMIT	1.5
#define NAMED_PARTS	(PART_TIER | PART_GPU)	/* not run unless they are named */

static const struct {
	const char *name;
	unsigned parts;
	const char *help;
	void (*setup)(void), (*round)(void), (*end)(void);
} parts[] = {
	{ "ring", PART_RING, "NOP round trips and rates beside a bare ring echo",
	  kvb_ring_setup, kvb_ring_round, kvb_ring_end },
	{ "ops", PART_OPS, "open, close, extend, publish beside the same on bare arrays",
	  kvb_ops_setup, kvb_ops_round, kvb_ops_end },
	{ "wake", PART_WAKE, "waking a sleeping daemon, adaptive spinning, system calls",
	  kvb_wake_setup, kvb_wake_round, kvb_wake_end },
	{ "hash", PART_HASH, "block keys", NULL, kvb_hash_round, NULL },
	{ "peers", PART_PEERS, "Unix socket, ZeroMQ", kvb_peers_setup, kvb_peers_round, kvb_peers_end },
	{ "big", PART_BIG, "a pool of many blocks (16M alone, else 1M): start, memory, lookup",
	  kvb_big_setup, kvb_big_round, kvb_big_end },
	{ "idle", PART_IDLE, "CPU of a daemon with 8 idle clients over 10 s", kvb_idle_setup,
	  NULL, kvb_idle_end },
	{ "tier", PART_TIER, "disk and RAM beside fio, bare copies and page touches (when named)",
	  kvb_tier_setup, kvb_tier_round, kvb_tier_end },
	{ "gpu", PART_GPU, "copies, slabs, kernels and kvinfer on a GPU (when named)",
	  kvb_gpu_setup, kvb_gpu_round, kvb_gpu_end },
	{ "codec", PART_CODEC, "coding of bf16 beside memcpy",
	  kvb_codec_setup, kvb_codec_round, kvb_codec_end },
	{ "kernels", PART_KERNELS, "attention on the pool's blocks beside private memory",
	  kvb_kernels_setup, kvb_kernels_round, kvb_kernels_end },
	{ "infer", PART_INFER, "kvinfer's first token, warm beside cold", kvb_infer_setup,
	  kvb_infer_round, kvb_infer_end },
};

/* ------------------------------------------------------------------ options */

static void usage(FILE *f)
{
	fputs("usage: kvbench [OPTION]... [PART]...\n"
	      "Measure kvmd beside the floors of this machine, as ratios.\n\n"
	      "Parts (all but tier and gpu when none is named):\n", f);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		fprintf(f, "  %-7s %s\n", parts[i].name, parts[i].help);
	fputs("\nOptions:\n"
	      "  -r, --rounds N     rounds of the session [7]\n"
	      "  -b, --blocks N     blocks of part big, like 16M\n"
	      "  -d, --dir DIR      part tier's files are made there, gigabytes [.]\n"
	      "  -j, --json         one JSON document on standard output\n"
	      "  -q, --quick        short slices, one round: does it work at all\n"
	      "      --cpus C,S     processors of client and server [the first two]\n"
	      "      --kvmd PATH    the daemon [beside kvbench, else from PATH]\n"
	      "  -v, --verbose      say on standard error what is being done\n"
	      "  -h, --help         this text\n"
	      "  -V, --version      which kvbench this is\n"
	      "Goals that are missed are shown and do not change the exit status:\n"
	      "0 measured, 1 could not measure, 2 usage.\n", f);
}

static int bad_usage(const char *fmt, ...) __printf(1, 2);
static int bad_usage(const char *fmt, ...)
{
	va_list ap;

	fputs("kvbench: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry 'kvbench --help'.\n", stderr);
	return KVB_USAGE;
}

enum { OPT_CPUS = 256, OPT_KVMD };

static const struct option options[] = {
	{ "rounds", required_argument, NULL, 'r' },
	{ "blocks", required_argument, NULL, 'b' },
	{ "dir", required_argument, NULL, 'd' },
	{ "json", no_argument, NULL, 'j' },
	{ "quick", no_argument, NULL, 'q' },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "kvmd", required_argument, NULL, OPT_KVMD },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static void go_quick(void)
{
	bench.quick = true;
	bench.rounds = 1;
	bench.slice_ns = 300000;
	bench.wake_ns = 5000000;
	bench.idle_ns = 1000000000;
	bench.big_blocks = 1 << 16;
}

static unsigned all_parts(void)
{
	unsigned all = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		all |= parts[i].parts;
	return all & ~(unsigned)NAMED_PARTS;
}

static int parse_part(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (!strcmp(name, parts[i].name)) {
			bench.parts |= parts[i].parts;
			return 0;
		}
	if (!strcmp(name, "all")) {
		bench.parts |= all_parts();
		return 0;
	}
	return bad_usage("no part '%s'", name);
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, const char **ret_cpus)
{
	uint64_t rounds = 0, blocks = 0;
	int c;

	while ((c = getopt_long(argc, argv, "r:b:d:jqvhV", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			if (conf_parse_u64(optarg, &rounds) || !rounds || rounds > 1000)
				return bad_usage("--rounds: '%s' is not a number from 1 to 1000",
						 optarg);
			break;
		case 'b':
			if (conf_parse_bytes(optarg, &blocks) || blocks < 4096 || blocks > 1u << 30)
				return bad_usage("--blocks: '%s' is not a number from 4096 to 1G",
						 optarg);
			break;
		case 'd':
			bench.tier_at = optarg;
			break;
		case 'j':
			bench.json = true;
			break;
		case 'q':
			go_quick();
			break;
		case 'v':
			bench.verbose = true;
			break;
		case OPT_CPUS:
			*ret_cpus = optarg;
			break;
		case OPT_KVMD:
			bench.kvmd = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts("kvbench " KVMD_VERSION);
			return 0;
		default:
			fputs("Try 'kvbench --help'.\n", stderr);
			return KVB_USAGE;
		}
	}
	for (; optind < argc; optind++) {
		c = parse_part(argv[optind]);
		if (c)
			return c;
	}
	if (!bench.parts)
		bench.parts = all_parts();
	if (bench.parts == PART_BIG && !bench.quick)
		bench.big_blocks = 16 << 20;
	if (blocks)
		bench.big_blocks = blocks;
	if ((bench.parts == PART_TIER || bench.parts == PART_GPU) && !bench.quick)
		bench.rounds = 5;	/* they are long */
	if (rounds)
		bench.rounds = (unsigned)rounds;
	return -1;
}

/* -------------------------------------------------------------- the session */

static void each_part(int which)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		void (*fn)(void) = which == 0 ? parts[i].setup : which == 1 ? parts[i].round :
				   parts[i].end;

		/* Part gpu says what it has: those who ask it have a machine for minutes. */
		if (interrupted && !(bench.parts & PART_GPU))
			kvb_die("interrupted");
		if (!fn || !(bench.parts & parts[i].parts))
			continue;
		if (bench.verbose)
			kvb_note("%s %s", parts[i].name, which == 0 ? "set up" : which == 1 ? "round" :
			     "end");
		fn();
	}
}

int main(int argc, char **argv)
{
	unsigned put_off = 0, noisy = 0;
	const char *cpus = NULL;
	double calib, worst = 0;
	bool tty;
	int rc;

	rc = parse_options(argc, argv, &cpus);
	if (rc >= 0)
		return rc;
	tty = isatty(STDERR_FILENO);
	session_init();
	if (!bench.kvmd)
		bench.kvmd = kvb_beside(KVMD_DAEMON_NAME);
	cpus_init(cpus);
	timing_init();
	each_part(0);
	for (unsigned r = 0; r < bench.rounds && !interrupted; r++) {
		calib = calib_worst(bench.quick);
		while (calib > CALIB_LIMIT && put_off < bench.rounds && !interrupted) {
			put_off++;
			usleep(100000);
			calib = calib_worst(bench.quick);
		}
		noisy += calib > CALIB_LIMIT;
		worst = calib > worst ? calib : worst;
		if (tty)
			fprintf(stderr, "\rround %u of %u ", r + 1, bench.rounds);
		echo_rtt_ns = 0;
		each_part(1);
	}
	if (tty)
		fputs("\r\033[K", stderr);
	each_part(2);
	if (bench.json) {
		if (rows_print_json(worst, put_off, noisy))
			kvb_die("no memory");
	} else {
		printf("kvbench %s: %u rounds%s, %s; %u put off, %u noisy all the same "
		       "(slowest slice %.2f of the median)\n", KVMD_VERSION, bench.rounds,
		       interrupted ? ", interrupted" : "", cpus_text(), put_off, noisy, worst);
		rows_print_text();
	}
	if (fflush(stdout) || ferror(stdout))
		kvb_die("standard output: %s", strerror(errno));
	return interrupted;
}
