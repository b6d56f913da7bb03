// SPDX-License-Identifier: Apache-2.0
/*
 * replay_opts.c - the options of `kvtrace replay`.
 */
#include <getopt.h>
#include <stdio.h>

#include "kvmd/lib/conf.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay_daemon.h"

#define MAX_BLOCK_BYTES	(1ULL << 30)
#define MAX_TIMES	1e6

static const char help[] =
"usage: kvtrace replay [OPTION]... FILE\n"
"Play a trace through real client processes. Each opens, writes, publishes,\n"
"verifies and closes blocks as an engine would, and checks every byte it is given.\n"
"FILE is plain or gzip; '-' is standard input.\n\n"
"Clients:\n"
"  -c, --clients N          processes (4)\n"
"  -r, --route HOW          requests to clients by 'session' (default) or in turn: 'rr'\n"
"      --serial             one request at a time over all clients, in the trace's order\n"
"  -L, --late N             finish a step's reads and writes N steps later, on\n"
"                           another thread (0)\n"
"      --chunk N            blocks of one extend and publish (256)\n"
"      --hints PERCENT      say whether a prompt will be continued, right so often\n"
"      --kill N             kill -9 a client N times on the way and start it again\n"
"Pool:\n"
"  -p, --percent P          blocks, in percent of the trace's distinct ones (10)\n"
"      --blocks N           blocks\n"
"      --bytes B            the same in bytes\n"
"      --block-bytes B      bytes of a block over all planes and shards (4096)\n"
"      --planes N           planes of a block (1)\n"
"      --shards N           shards of a block (1)\n"
"      --codec NAME         how blocks are kept below HBM: 'none' (default) or 'window',\n"
"                           which is lossless; blocks hold bf16 values then\n"
"  -C, --compare private    again, with an own pool of 1/N of the size for each client\n"
"Tiers of the own daemon:\n"
"      --ram SIZE           RAM below the pool: bytes, or '4x': so many times its blocks\n"
"      --disk SIZE          disk below that, likewise\n"
"      --disk-path PATH     its file or block device, kept (a file that is removed)\n"
"      --recompute-tps N    tokens/s a client says it recomputes; slower loads are refused\n"
"      --beside, --no-beside\n"
"                           again, without tiers (--beside when there are some)\n"
"Daemon:\n"
"  -o, --option S.KEY=VALUE configuration of the own daemon, see kvmd.conf(5)\n"
"      --restart N          kill -9 the daemon N times on the way, under kvkeeper\n"
"      --no-keeper          start it again ourselves: it keeps what is on disk only\n"
"      --socket PATH        use the daemon there; without, an own one is started\n"
"      --admin-socket PATH  its admin socket (PATH.admin)\n"
"      --device KIND        what the own daemon's pool lies on: 'host' (default), 'cuda',\n"
"                           or 'null', which has no bytes: only with --verify none\n"
"      --policy NAME        replacement policy of the own daemon\n"
"      --watermarks M,L,H   its min, low and high watermarks, as in the configuration\n"
"Requests:\n"
"  -t, --time HOW           'fast' (default): as fast as it goes, the trace drives the\n"
"                           daemon's clock; 'real'; 'scale=X': X times as fast as real\n"
"  -n, --requests N         only the first N\n"
"  -b, --block-tokens N     tokens per block (header line of the file, else 512)\n"
"      --full-blocks        leave out a partly filled last block of a prompt\n"
"      --no-decode          no blocks for the output\n"
"      --publish-decode     publish the blocks of the output\n"
"  -k, --skip-bad           skip malformed lines and count them\n"
"  -s, --seed N             of keys and bytes (1)\n"
"Checks and output:\n"
"  -v, --verify HOW         bytes of blocks: 'full' (default), 'sample' or 'none'\n"
"  -j, --json               the report as JSON\n"
"  -q, --quiet              neither progress bar nor warnings\n"
"  -h, --help               show this text\n\n"
"Exit status: 0 no wrong byte and every token accounted for, 1 not so, or bad data, or\n"
"a client or the daemon failed; 2 usage.\n";

enum {
	OPT_SERIAL = 256, OPT_CHUNK, OPT_HINTS, OPT_KILL, OPT_BLOCKS, OPT_BYTES, OPT_BLOCK_BYTES,
	OPT_PLANES, OPT_SHARDS, OPT_SOCKET, OPT_ADMIN, OPT_POLICY, OPT_WATERMARKS, OPT_FULL,
	OPT_NO_DECODE, OPT_PUBLISH_DECODE, OPT_CORRUPT, OPT_RAM, OPT_DISK, OPT_DISK_PATH, OPT_TPS,
	OPT_BESIDE, OPT_NO_BESIDE, OPT_RESTART, OPT_NO_KEEPER, OPT_DEVICE, OPT_CODEC,
};

static const struct option options[] = {
	{ "clients", required_argument, NULL, 'c' },
	{ "route", required_argument, NULL, 'r' },
	{ "serial", no_argument, NULL, OPT_SERIAL },
	{ "late", required_argument, NULL, 'L' },
	{ "chunk", required_argument, NULL, OPT_CHUNK },
	{ "hints", required_argument, NULL, OPT_HINTS },
	{ "kill", required_argument, NULL, OPT_KILL },
	{ "percent", required_argument, NULL, 'p' },
	{ "blocks", required_argument, NULL, OPT_BLOCKS },
	{ "bytes", required_argument, NULL, OPT_BYTES },
	{ "block-bytes", required_argument, NULL, OPT_BLOCK_BYTES },
	{ "planes", required_argument, NULL, OPT_PLANES },
	{ "shards", required_argument, NULL, OPT_SHARDS },
	{ "codec", required_argument, NULL, OPT_CODEC },
	{ "compare", required_argument, NULL, 'C' },
	{ "ram", required_argument, NULL, OPT_RAM },
	{ "disk", required_argument, NULL, OPT_DISK },
	{ "disk-path", required_argument, NULL, OPT_DISK_PATH },
	{ "recompute-tps", required_argument, NULL, OPT_TPS },
	{ "beside", no_argument, NULL, OPT_BESIDE },
	{ "no-beside", no_argument, NULL, OPT_NO_BESIDE },
	{ "option", required_argument, NULL, 'o' },
	{ "restart", required_argument, NULL, OPT_RESTART },
	{ "no-keeper", no_argument, NULL, OPT_NO_KEEPER },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "admin-socket", required_argument, NULL, OPT_ADMIN },
	{ "device", required_argument, NULL, OPT_DEVICE },
	{ "policy", required_argument, NULL, OPT_POLICY },
	{ "watermarks", required_argument, NULL, OPT_WATERMARKS },
	{ "time", required_argument, NULL, 't' },
	{ "requests", required_argument, NULL, 'n' },
	{ "block-tokens", required_argument, NULL, 'b' },
	{ "full-blocks", no_argument, NULL, OPT_FULL },
	{ "no-decode", no_argument, NULL, OPT_NO_DECODE },
	{ "publish-decode", no_argument, NULL, OPT_PUBLISH_DECODE },
	{ "skip-bad", no_argument, NULL, 'k' },
	{ "seed", required_argument, NULL, 's' },
	{ "verify", required_argument, NULL, 'v' },
	{ "corrupt", required_argument, NULL, OPT_CORRUPT },	/* tests: not in the help */
	{ "json", no_argument, NULL, 'j' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* ------------------------------------------------------------ options */

static int take_u32(const char *name, uint64_t lo, uint64_t hi, uint32_t *ret_v)
{
	uint64_t v = 0;
	int err = kvt_opt_u64("replay", name, optarg, lo, hi, &v);

	if (!err)
		*ret_v = (uint32_t)v;
	return err;
}

static int take_bytes(const char *name, uint64_t hi, uint64_t *ret_v)
{
	if (conf_parse_bytes(optarg, ret_v) || !*ret_v || *ret_v > hi)
		return kvt_usage("replay", "--%s: '%s' is not a size like 4096, 64K or 2G", name,
				 optarg);
	return 0;
}

/* A number in (@lo, @hi]. */
static int take_double(const char *name, const char *arg, double lo, double hi, double *ret_v)
{
	char *end;
	double v = strtod(arg, &end);

	if (end == arg || *end || !(v > lo) || !(v <= hi))
		return kvt_usage("replay", "--%s: '%s' is not a number over %g, at most %g", name,
				 arg, lo, hi);
	*ret_v = v;
	return 0;
}

/* "min,low,high", each in percent (2%) or permille (20). */
static int take_watermarks(struct replay_opts *o)
{
	const char *s = optarg;
	double v[3];
	char *end;
	int i;

	for (i = 0; i < 3; i++) {
		v[i] = strtod(s, &end) / 1000;
		if (end == s || v[i] < 0)
			break;
		if (*end == '%') {
			v[i] *= 10;
			end++;
		}
		if (v[i] > 0.9 || *end != (i < 2 ? ',' : '\0'))
			break;
		s = end + 1;
	}
	if (i < 3 || v[0] > v[1] || v[1] > v[2])
		return kvt_usage("replay", "--watermarks: '%s' is not MIN,LOW,HIGH like 0,2%%,4%%",
				 optarg);
	o->watermarks = optarg;
	o->wmark_min = v[0];
	return 0;
}

/* "4x", or bytes; 0: none. */
static int take_size(const char *name, struct replay_size *ret_s)
{
	struct replay_size s = { 0 };
	char *end;

	s.times = strtod(optarg, &end);
	if (end == optarg || strcmp(end, "x")) {
		s.times = 0;
		if (conf_parse_bytes(optarg, &s.bytes))
			s.times = -1;
	}
	if (!(s.times >= 0 && s.times <= MAX_TIMES))
		return kvt_usage("replay", "--%s: '%s' is neither a size like 2G nor one like 4x",
				 name, optarg);
	*ret_s = s;
	return 0;
}

/* SECTION.KEY=VALUE; the daemon says what is wrong with it. */
static int take_conf(struct replay_opts *o)
{
	const char *eq = strchr(optarg, '=');

	if (!eq || !memchr(optarg, '.', (size_t)(eq - optarg)))
		return kvt_usage("replay", "--option: '%s' is not SECTION.KEY=VALUE", optarg);
	if (o->nr_conf == REPLAY_MAX_CONF)
		return kvt_usage("replay", "--option: more than %u", REPLAY_MAX_CONF);
	o->conf[o->nr_conf++] = optarg;
	return 0;
}

static int take_word(const char *name, const char *const words[], uint32_t nr, uint32_t *ret_i)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		if (!strcmp(words[i], optarg)) {
			*ret_i = i;
			return 0;
		}
	}
	return kvt_usage("replay", "--%s: '%s' is not one of its words", name, optarg);
}

static int take_time(struct replay_opts *o)
{
	o->scale = 1;
	if (!strcmp(optarg, "fast"))
		o->time = TIME_FAST;
	else if (!strcmp(optarg, "real"))
		o->time = TIME_REAL;
	else if (!strncmp(optarg, "scale=", 6)) {
		o->time = TIME_SCALED;
		return take_double("time", optarg + 6, 0, 1e9, &o->scale);
	} else {
		return kvt_usage("replay", "--time: '%s' is not fast, real or scale=X", optarg);
	}
	return 0;
}

static int take_codec(struct replay_opts *o)
{
	uint32_t i = 0;

	while (i < KVMD_NR_CODEC && strcmp(kvmd_codec_name(i), optarg))
		i++;
	if (i == KVMD_NR_CODEC)
		return kvt_usage("replay", "--codec: '%s' is no codec: none or window", optarg);
	if (i > KVMD_CODEC_WINDOW)
		return kvt_usage("replay", "--codec: %s is lossy, what it gives back cannot be "
				 "compared: none or window", optarg);
	o->codec = i;
	return 0;
}

static int take_pool(struct replay_opts *o, int opt)
{
	switch (opt) {
	case 'p':
		o->cap_kind = CAP_PERCENT;
		return take_double("percent", optarg, 0, 1000000, &o->cap_percent);
	case OPT_BLOCKS:
		o->cap_kind = CAP_BLOCKS;
		return kvt_opt_u64("replay", "blocks", optarg, 1, 1u << 29, &o->cap_value);
	case OPT_BYTES:
		o->cap_kind = CAP_BYTES;
		return take_bytes("bytes", UINT64_MAX, &o->cap_value);
	case OPT_BLOCK_BYTES:
		return take_bytes("block-bytes", MAX_BLOCK_BYTES, &o->block_bytes);
	case OPT_PLANES:
		return take_u32("planes", 1, KVMD_MAX_PLANES, &o->planes);
	case OPT_SHARDS:
		return take_u32("shards", 1, KVMD_MAX_SHARDS, &o->shards);
	case OPT_CODEC:
		return take_codec(o);
	default:
		return kvt_try_help("replay");
	}
}

static int take_tier(struct replay_opts *o, int opt)
{
	switch (opt) {
	case OPT_RAM:
		return take_size("ram", &o->ram);
	case OPT_DISK:
		return take_size("disk", &o->disk);
	case OPT_DISK_PATH:
		o->disk_path = optarg;
		return 0;
	case OPT_TPS:
		return kvt_opt_u64("replay", "recompute-tps", optarg, 0, UINT64_MAX,
				   &o->recompute_tps);
	case OPT_BESIDE:
		o->beside = BESIDE_YES;
		return 0;
	case OPT_NO_BESIDE:
		o->beside = BESIDE_NO;
		return 0;
	case 'o':
		return take_conf(o);
	case OPT_RESTART:
		return take_u32("restart", 0, 1000, &o->restarts);
	case OPT_NO_KEEPER:
		o->keeper = false;
		return 0;
	default:
		return take_pool(o, opt);
	}
}

static int take_word_option(struct replay_opts *o, int opt)
{
	static const char *const routes[NR_REPLAY_ROUTE] = { "session", "rr" };
	static const char *const verifies[NR_REPLAY_VERIFY] = { "full", "sample", "none" };
	static const char *const compares[] = { "private" };
	static const char *const devices[] = { "host", "cuda", "null" };
	uint32_t i = 0;
	int err;

	switch (opt) {
	case 'r':
		err = take_word("route", routes, NR_REPLAY_ROUTE, &i);
		o->route = (enum replay_route)i;
		return err;
	case 'v':
		err = take_word("verify", verifies, NR_REPLAY_VERIFY, &i);
		o->verify = (enum replay_verify)i;
		return err;
	case 'C':
		o->compare = true;
		return take_word("compare", compares, 1, &i);
	case OPT_DEVICE:
		o->device = optarg;
		return take_word("device", devices, ARRAY_SIZE(devices), &i);
	case OPT_POLICY:
		o->policy = optarg;
		return 0;
	case OPT_WATERMARKS:
		return take_watermarks(o);
	case OPT_SOCKET:
		o->socket = optarg;
		return 0;
	case OPT_ADMIN:
		o->admin = optarg;
		return 0;
	default:
		return take_tier(o, opt);
	}
}

static int take_number_option(struct replay_opts *o, int opt)
{
	uint32_t v = 0;
	int err;

	switch (opt) {
	case 'c':
		return take_u32("clients", 1, REPLAY_MAX_CLIENTS, &o->clients);
	case 'L':
		return take_u32("late", 0, REPLAY_MAX_LATE, &o->late);
	case OPT_CHUNK:
		return take_u32("chunk", 1, 65536, &o->chunk);
	case OPT_HINTS:
		err = take_u32("hints", 0, 100, &v);
		o->hints = (int32_t)v;
		return err;
	case OPT_KILL:
		return take_u32("kill", 0, 1000, &o->kills);
	case OPT_CORRUPT:
		return take_u32("corrupt", 1, UINT32_MAX, &o->corrupt);
	case 'n':
		return kvt_opt_u64("replay", "requests", optarg, 1, UINT32_MAX, &o->load.max_reqs);
	case 'b':
		return take_u32("block-tokens", 1, TRACE_MAX_BLOCK_TOKENS, &o->load.block_tokens);
	case 's':
		return kvt_opt_u64("replay", "seed", optarg, 0, UINT64_MAX, &o->seed);
	default:
		return take_word_option(o, opt);
	}
}

static int take_option(struct replay_opts *o, int opt)
{
	switch (opt) {
	case OPT_SERIAL:
		o->serial = true;
		return 0;
	case OPT_FULL:
		o->full_blocks = true;
		return 0;
	case OPT_NO_DECODE:
		o->decode = false;
		return 0;
	case OPT_PUBLISH_DECODE:
		o->publish_decode = true;
		return 0;
	case 'k':
		o->load.skip_bad = true;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	case 't':
		return take_time(o);
	default:
		return take_number_option(o, opt);
	}
}

static bool has_tiers(const struct replay_opts *o)
{
	return o->ram.times > 0 || o->ram.bytes;
}

static int check_tiers(const struct replay_opts *o)
{
	bool disk = o->disk.times > 0 || o->disk.bytes;

	if (disk && !has_tiers(o))
		return kvt_usage("replay", "--disk needs --ram: blocks go to disk through RAM");
	if (o->disk_path && !disk)
		return kvt_usage("replay", "--disk-path needs --disk");
	if (o->socket && (has_tiers(o) || o->nr_conf || o->device))
		return kvt_usage("replay", "--ram, --disk, --device and --option are for an own "
				 "daemon, without --socket");
	if (o->device && !strcmp(o->device, "null") && (o->verify != VERIFY_NONE || has_tiers(o)))
		return kvt_usage("replay", "--device null has no bytes: it needs --verify none, and "
				 "no --ram");
	return 0;
}

/* What hangs together. */
static int check_opts(struct replay_opts *o)
{
	uint64_t part = (uint64_t)o->planes * o->shards;

	if (o->beside == BESIDE_AUTO)
		o->beside = has_tiers(o) ? BESIDE_YES : BESIDE_NO;
	if (o->block_bytes % part || o->block_bytes / part % 64)
		return kvt_usage("replay", "--block-bytes: %llu bytes are not a multiple of 64 for "
				 "each of %u planes on %u shards",
				 (unsigned long long)o->block_bytes, o->planes, o->shards);
	if (o->socket && (o->policy || o->watermarks))
		return kvt_usage("replay", "--policy and --watermarks are for an own daemon, "
				 "without --socket");
	if (o->socket && strlen(o->socket) >= sizeof(((struct replay_daemon *)0)->socket))
		return kvt_usage("replay", "--socket: %s is too long for a socket", o->socket);
	if (o->admin && strlen(o->admin) >= sizeof(((struct replay_daemon *)0)->admin))
		return kvt_usage("replay", "--admin-socket: %s is too long for a socket", o->admin);
	return check_tiers(o);
}

int replay_options(int argc, char **argv, struct replay_opts *o, bool *ret_go)
{
	int opt, err;

	*o = (struct replay_opts){
		.clients = 4, .cap_percent = 10, .block_bytes = 4096, .planes = 1, .shards = 1,
		.scale = 1, .chunk = 256, .hints = -1, .seed = 1, .decode = true, .keeper = true,
	};
	*ret_go = false;
	while ((opt = getopt_long(argc, argv, "c:r:L:p:C:o:t:n:b:ks:v:jqh", options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(help, stdout);
			return kvt_flush();
		}
		err = take_option(o, opt);
		if (err)
			return err;
	}
	if (optind + 1 != argc)
		return kvt_usage("replay", optind < argc ? "one FILE at a time" : "which FILE?");
	o->path = argv[optind];
	err = check_opts(o);
	*ret_go = !err;
	return err;
}
