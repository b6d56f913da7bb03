// SPDX-License-Identifier: Apache-2.0
/*
 * tier_fio.c - fio as the floor of disk I/O: one job, io_uring, O_DIRECT.
 *
 * Fixed buffers and a registered file unless a job is plain. Its file is written
 * once, then only overwritten, as a disk tier's is after its first lap.
 */
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/kvbench/tier.h"

#define OUT	"fio.json"
#define MAX_ARGS	24

static double read_rate(const char *path, bool write)
{
	struct json_object *o = json_object_from_file(path), *jobs, *side, *bw;
	double v = 0;

	if (o && json_object_object_get_ex(o, "jobs", &jobs) && json_object_array_length(jobs) &&
	    json_object_object_get_ex(json_object_array_get_idx(jobs, 0), write ? "write" : "read",
				      &side) &&
	    json_object_object_get_ex(side, "bw_bytes", &bw))
		v = json_object_get_double(bw);
	if (o)
		json_object_put(o);
	return v;
}

/* NULL-terminated arguments; its output into @out. False: it failed. */
static bool run(char *const *argv, const char *out)
{
	int status, fd;
	pid_t pid = kvb_spawn();

	if (!pid) {
		cpu_any();
		fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (fd < 0)
			_exit(126);
		dup2(fd, STDOUT_FILENO);
		execvp(argv[0], argv);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR || interrupted)
			kvb_die("waiting for fio: %s", strerror(errno));
	kvb_reap(pid, 0);
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

void fio_check(void)
{
	char fio[] = "fio", version[] = "--version";
	char *argv[] = { fio, version, NULL };

	if (!run(argv, tier_path(OUT)))
		kvb_die("there is no fio; as root run: "
			"apt-get install -y --no-install-recommends fio");
}

double fio_run(const struct fio_job *j, uint64_t for_ns)
{
	static char arg[MAX_ARGS][4200];
	char *argv[MAX_ARGS + 1];
	const char *out = tier_path(OUT);
	unsigned n = 0;
	double rate;

#define ARG(...) snprintf(arg[n++], sizeof(arg[0]), __VA_ARGS__)
	ARG("fio");
	ARG("--name=floor");
	ARG("--filename=%s", tier_path("fio.file"));
	ARG("--size=%llu", (unsigned long long)tier_amounts.file_bytes);
	ARG("--rw=%s", j->write ? "write" : "read");
	ARG("--bs=%llu", (unsigned long long)j->block);
	ARG("--iodepth=%u", j->depth);
	ARG("--ioengine=io_uring");
	ARG("--direct=1");
	ARG("--fallocate=none");
	ARG("--output-format=json");
	if (!j->plain) {
		ARG("--fixedbufs=1");
		ARG("--registerfiles=1");
	}
	if (for_ns) {
		ARG("--time_based");
		ARG("--runtime=%llums", (unsigned long long)for_ns / 1000000);
	}
#undef ARG
	for (unsigned i = 0; i < n; i++)
		argv[i] = arg[i];
	argv[n] = NULL;
	if (!run(argv, out))
		kvb_die("fio failed in %s (is there room, and O_DIRECT, on that file system?)",
			bench.tier_dir);
	rate = read_rate(out, j->write);
	if (rate <= 0)
		kvb_die("fio's output has no bandwidth");
	return rate;
}

void fio_layout(void)
{
	const struct fio_job j = { .write = true, .block = 1 << 20, .depth = 4 };

	fio_run(&j, 0);
}

unsigned fio_best_depth(bool write, uint64_t block)
{
	static const unsigned depths[] = { 2, 4, 8, 16 };
	unsigned best = depths[0];
	double most = 0, v;

	for (size_t i = 0; i < ARRAY_SIZE(depths) && !interrupted; i++) {
		const struct fio_job j = { .write = write, .block = block, .depth = depths[i] };

		v = fio_run(&j, tier_amounts.slice_ns / 2);
		if (v > most) {
			most = v;
			best = depths[i];
		}
	}
	return best;
}
