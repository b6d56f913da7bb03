// SPDX-License-Identifier: Apache-2.0
/*
 * infer.c - part "infer": real kvinfer processes on a daemon's pool. The first computes
 * a prompt and publishes its blocks, the second finds them.
 *
 * Each answers a short prompt before the long one, so that libraries are loaded and
 * memory is touched in both; the model is loaded before either.
 */
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/kvbench/infer.h"

#define LIMIT_MS	300000
#define MAX_ANSWER	(1u << 20)

struct answer {
	uint64_t prompt, cached;	/* tokens */
	uint64_t first_ns;
	char sum[24];			/* of the logits */
};

static char *kvinfer;			/* the program */

/* ------------------------------------------------------------ one process */

static void __attribute__((noreturn)) run_engine(const struct infer_opts *o,
						 const struct kvmd_proc *daemon,
						 const char *prompts, int out)
{
	char chunk[16], log[128];
	const char *const argv[] = {
		"kvinfer", "--json", "--socket", daemon->socket, "--device", o->device, "--model",
		o->model, "--prompt-file", prompts, "--tokens", "1", "--batch", "1", "--chunk",
		chunk, NULL,
	};
	int fd;

	cpu_any();
	snprintf(chunk, sizeof(chunk), "%u", o->chunk);
	snprintf(log, sizeof(log), "%s/kvinfer.log", bench.dir);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(127);
	signal(SIGPIPE, SIG_DFL);
	execvp(kvinfer, (char *const *)(uintptr_t)argv);
	fprintf(stderr, "%s: %s\n", kvinfer, strerror(errno));
	_exit(127);
}

/* The last line that it said on standard error. */
static void last_words(char *why, size_t n)
{
	char path[128], line[256];
	FILE *f;

	snprintf(why, n, "kvinfer did not answer");
	snprintf(path, sizeof(path), "%s/kvinfer.log", bench.dir);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		snprintf(why, n, "%s", line);
	}
	if (f)
		fclose(f);
}

static uint64_t number_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) ? (uint64_t)json_object_get_int64(v) : 0;
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) && v ? json_object_get_string(v) : "";
}

/* The answer to the longest prompt, out of lines of JSON. */
static void read_answers(char *text, struct answer *a)
{
	char *save = NULL;

	for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
		struct json_object *o = json_tokener_parse(s);

		if (!o)
			continue;
		if (!strcmp(text_of(o, "type"), "answer") &&
		    number_of(o, "prompt_tokens") > a->prompt) {
			a->prompt = number_of(o, "prompt_tokens");
			a->cached = number_of(o, "cached_tokens");
			a->first_ns = number_of(o, "first_token_ns");
			snprintf(a->sum, sizeof(a->sum), "%s", text_of(o, "logits_sum"));
		}
		json_object_put(o);
	}
}

/* All that @fd says until its end; false: it took too long. */
static bool hear(int fd, char *text)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	const uint64_t until = time_ns() + LIMIT_MS * 1000000ull;
	size_t at = 0;
	ssize_t got = 1;

	while (got > 0 && time_ns() < until && !interrupted) {
		if (poll(&p, 1, 100) <= 0)
			continue;
		got = read(fd, text + at, MAX_ANSWER - 1 - at);
		at += got > 0 ? (size_t)got : 0;
	}
	text[at] = 0;
	return got <= 0;
}

static int engine(const struct infer_opts *o, const struct kvmd_proc *daemon, const char *prompts,
		  struct answer *a, char *why, size_t n)
{
	char *text = (char *)malloc(MAX_ANSWER);
	bool ended;
	pid_t pid;
	int p[2];

	if (!text || pipe2(p, O_CLOEXEC))
		kvb_die("kvinfer: %s", strerror(errno));
	pid = kvb_spawn();
	if (!pid)
		run_engine(o, daemon, prompts, p[1]);
	close(p[1]);
	ended = hear(p[0], text);
	close(p[0]);
	kvb_reap(pid, ended ? 0 : SIGKILL);
	*a = (struct answer) { 0 };
	read_answers(text, a);
	free(text);
	if (a->prompt == o->prefix + o->question && a->first_ns)
		return 0;
	last_words(why, n);
	return -EIO;
}

/* ------------------------------------------------------------ a pair */

static void write_ids(FILE *f, const struct infer_opts *o, uint64_t rng, uint32_t nr)
{
	fputs("{\"ids\": [", f);
	for (uint32_t i = 0; i < nr; i++) {
		rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
		rng ^= rng >> 7;
		rng ^= rng << 17;
		fprintf(f, "%s%u", i ? "," : "", (unsigned)(rng >> 33) % o->vocab);
	}
	fputs("]}\n", f);
}

/* Nobody had them before: tokens that follow from the clock. */
static void write_prompts(const struct infer_opts *o, const char *path)
{
	FILE *f = fopen(path, "w");
	uint64_t seed = time_ns() | 1;

	if (!f)
		kvb_die("%s: %s", path, strerror(errno));
	write_ids(f, o, seed * 3, o->chunk + 1);
	write_ids(f, o, seed, o->prefix + o->question);
	if (fclose(f))
		kvb_die("%s: %s", path, strerror(errno));
}

int infer_pair(const struct infer_opts *o, const struct kvmd_proc *daemon, double *ret_cold,
	       double *ret_warm, char *why, size_t n)
{
	struct answer cold, warm;
	char path[128];
	int err;

	snprintf(path, sizeof(path), "%s/prompts", bench.dir);
	write_prompts(o, path);
	err = engine(o, daemon, path, &cold, why, n);
	if (!err)
		err = engine(o, daemon, path, &warm, why, n);
	unlink(path);
	if (err)
		return err;
	if (cold.cached || warm.cached < o->prefix) {
		snprintf(why, n, "%llu and %llu tokens were in the pool, not 0 and %u",
			 (unsigned long long)cold.cached, (unsigned long long)warm.cached,
			 o->prefix);
		return -EIO;
	}
	if (strcmp(cold.sum, warm.sum)) {
		snprintf(why, n, "the second engine's logits are not those of the first");
		return -EIO;
	}
	*ret_cold = (double)cold.first_ns / 1e6;
	*ret_warm = (double)warm.first_ns / 1e6;
	return 0;
}

int infer_open(const struct infer_opts *o, struct kvmd_proc *daemon, char *text, size_t text_n,
	       char *why, size_t n)
{
	char conf[200];
	const struct kvmd_opts opts = {
		.name = o->name, .blocks = 16, .conf = conf, .anywhere = true,
	};

	if (!kvinfer)
		kvinfer = kvb_beside("kvinfer");
	snprintf(conf, sizeof(conf), "[pool]\nblocks = 65536\nslab_bytes = 8M\n"
		 "[device d]\nkind = %s\nbytes = %llu\n", o->kind,
		 (unsigned long long)o->pool_bytes);
	kvb_append(text, text_n, "kvinfer: %u tokens of prefix, %u of question, chunks of %u, "
		   "model %s", o->prefix, o->question, o->chunk, o->model);
	kvmd_prepare(daemon, &opts);
	return kvmd_try_start(daemon, &opts, why, n);
}

/* ------------------------------------------------------------ part "infer" */

#define MAX_PAIRS	5u		/* they are long */

static const struct infer_opts on_cpu = {
	.name = "infer", .kind = "host", .device = "cpu",
	.model = "dim=256,layers=4,heads=8,kv_heads=2,ffn=688,vocab=256,max_tokens=4096",
	.vocab = 256, .prefix = 2048, .question = 32, .chunk = 64, .pool_bytes = 256ull << 20,
};
static const struct infer_opts on_cpu_quick = {
	.name = "infer", .kind = "host", .device = "cpu",
	.model = "dim=64,layers=2,heads=4,kv_heads=2,ffn=128,vocab=256,max_tokens=1024",
	.vocab = 256, .prefix = 256, .question = 16, .chunk = 32, .pool_bytes = 64ull << 20,
};
static struct kvmd_proc daemon_proc;
static unsigned nr_pairs;
static char cpu_why[300];

static const struct infer_opts *cpu_opts(void)
{
	return bench.quick ? &on_cpu_quick : &on_cpu;
}

void kvb_infer_setup(void)
{
	if (infer_open(cpu_opts(), &daemon_proc, bench.infer, sizeof(bench.infer), cpu_why,
		       sizeof(cpu_why)))
		kvb_die("%s", cpu_why);
	kvmd_pause(&daemon_proc);
}

void kvb_infer_round(void)
{
	double cold, warm;

	if (nr_pairs == MAX_PAIRS)
		return;
	kvmd_go(&daemon_proc);
	if (!infer_pair(cpu_opts(), &daemon_proc, &cold, &warm, cpu_why, sizeof(cpu_why))) {
		row_add(ROW_TTFT, cold, warm);
		nr_pairs++;
	} else {
		rows_skip(ROW_TTFT, cpu_why);
	}
	kvmd_pause(&daemon_proc);
}

void kvb_infer_end(void)
{
	kvmd_end(&daemon_proc);
}
