// SPDX-License-Identifier: Apache-2.0
/*
 * prog_owed.c - asks a GPU what kvmd takes for granted (owed.h), one question after the
 * other.
 *
 *   prog_owed [NAME...]	these questions, else all
 *   prog_owed list		their names and what they ask
 *   prog_owed probe		what GPU and driver are here; 77: none, and why
 *   prog_owed hold		keeps the GPU open until its parent ends: without anybody
 *				a driver may take seconds to come up each time
 *
 * Questions are asked whatever became of those before. Exit status: 0, 1 when kvmd
 * cannot stand on an answer, 2 usage, 77 no GPU.
 */
#include "tests/gpu/owed.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOT_OK	4		/* exit status of a question's process */

const struct owed owed_list[] = {
	{ "driver", owed_driver, "what the driver and the GPU can do", 30 },
	{ "granularity", owed_granularity, "cuMemGetAllocationGranularity", 30 },
	{ "no_context", owed_no_context, "cuMemCreate and export without any context", 40 },
	{ "cross_uid_fd", owed_cross_uid, "import of an fd by another uid", 60 },
	{ "cross_uid_legacy", owed_cross_uid_legacy, "cuIpcOpenMemHandle by another uid", 60 },
	{ "exporter_killed", owed_exporter_killed, "an importer after the exporter's SIGKILL", 40 },
	{ "kept_fd", owed_kept_fd, "import from an fd that a third process kept", 40 },
	{ "keeper", owed_keeper, "the same through kvkeeper", 60 },
	{ "read_only", owed_read_only, "who feels a write through a PROT_READ mapping", 90 },
	{ "slab_times", owed_slab_times, "create, map, export, import of slabs", 90 },
	{ "death", owed_death, "when the memory of the dead comes back", 60 },
	{ "fd", owed_fd, "what an exported fd is", 30 },
	{ "close_frees", owed_close_frees, "closing the last fd frees the memory", 30 },
	{ "ro_register", owed_ro_register, "a GPU reads a table its process may only read", 40 },
	{ "uring", owed_uring, "one chunk pinned by io_uring and by the GPU", 60 },
	{ "stream_write64", owed_write64, "a step written by the GPU into a shared page", 60 },
	{ "register_stall", owed_register_stall, "copies while another thread pins memory", 60 },
	{ "mps", owed_mps, "an MPS client imports from a process that is none", 120 },
	{ NULL, NULL, NULL, 0 },
};

/* ------------------------------------------------------------ one question */

/* The question's process and all it started. A driver that hangs is left behind. */
static void end_group(pid_t pid)
{
	kill(-pid, SIGKILL);
	for (int i = 0; i < 100; i++) {
		if (waitpid(pid, NULL, WNOHANG))
			return;
		usleep(50000);
	}
}

static bool ask(const struct owed *o)
{
	uint64_t t0 = owed_ns();
	int status = 0;
	pid_t pid, got;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		o->ask(o);
		_exit(owed_failed ? NOT_OK : 0);
	}
	if (pid < 0)
		return false;
	setpgid(pid, pid);
	while (!(got = waitpid(pid, &status, WNOHANG)) && owed_ms_since(t0) < o->limit_s * 1000.0)
		usleep(2000);
	if (!got) {
		end_group(pid);
		owed_not_ok(o, "no answer within %u s", o->limit_s);
		return false;
	}
	kill(-pid, SIGKILL);		/* whom it left */
	if (got == pid && WIFEXITED(status) && WEXITSTATUS(status) == NOT_OK)
		return false;		/* it said so itself */
	if (got != pid || !WIFEXITED(status) || WEXITSTATUS(status)) {
		owed_not_ok(o, "the question ended with status %#x", (unsigned)status);
		return false;
	}
	return true;
}

static const struct owed *find(const char *name)
{
	for (const struct owed *o = owed_list; o->name; o++)
		if (!strcmp(o->name, name))
			return o;
	return NULL;
}

/* ------------------------------------------------------------ what is here */

static void print_file(const char *key, const char *path)
{
	char line[256];
	FILE *f = fopen(path, "r");

	if (!f)
		return;
	if (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		printf("%s: %s\n", key, line);
	}
	fclose(f);
}

static void print_device(const struct cu *cu, int ordinal)
{
	char name[128] = "?", uuid[CU_UUID_TEXT] = "?", pci[32] = "?";
	int dev, major = 0, minor = 0, sms = 0;
	struct cu_uuid u;
	size_t bytes = 0;

	if (cu->device_get(&dev, ordinal))
		return;
	cu->device_name(name, sizeof(name), dev);
	if (!cu->device_uuid(&u, dev))
		cu_uuid_text(&u, uuid);
	cu->device_mem(&bytes, dev);
	cu->device_pci(pci, sizeof(pci), dev);
	cu->device_attr(&major, CU_ATTR_CC_MAJOR, dev);
	cu->device_attr(&minor, CU_ATTR_CC_MINOR, dev);
	cu->device_attr(&sms, CU_ATTR_SMS, dev);
	printf("gpu %d: %s, %zu MiB, compute %d.%d, %d SMs, %s, %s\n", ordinal, name, bytes >> 20,
	       major, minor, sms, pci, uuid);
}

static int probe(void)
{
	int nr = 0, v;
	char msg[400];
	struct cu cu;
	Dl_info lib;
	void *sym;

	if (cu_load(&cu, msg, sizeof(msg)) || cu.device_count(&nr) || !nr) {
		printf("none: %s\n", cu.so ? "no GPU is visible to this process" : msg);
		return 77;
	}
	v = cu.version;
	printf("fake: %s\n", dlsym(cu.so, "fakecuda_calls") ? "yes" : "no");
	memcpy(&sym, &cu.init, sizeof(sym));
	printf("cuda: %d.%d, %s\n", v / 1000, v % 1000 / 10,
	       dladdr(sym, &lib) && lib.dli_fname ? lib.dli_fname : "?");
	print_file("driver", "/proc/driver/nvidia/version");
	print_file("kernel", "/proc/version");
	for (int i = 0; i < nr; i++)
		print_device(&cu, i);
	fflush(stdout);
	_exit(0);		/* a driver's own exit handlers are not worth waiting for */
}

static int hold(void)
{
	pid_t parent = getppid();
	char msg[400];
	struct cu cu;
	cu_ctx ctx;
	int dev;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (cu_load(&cu, msg, sizeof(msg)) || cu.device_get(&dev, 0) || cu.ctx_retain(&ctx, dev))
		return 77;
	while (getppid() == parent)
		sleep(1);
	_exit(0);
}

/* ------------------------------------------------------------ which */

static int in_child(int (*fn)(void))
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		int r = fn();

		fflush(stdout);
		_exit(r);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	bool good = true;
	int r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	owed_read_kernels();
	if (argc == 2 && !strcmp(argv[1], "--keeper-child"))
		return owed_keeper_child();
	if (argc == 2 && !strcmp(argv[1], "hold"))
		return hold();
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (const struct owed *o = owed_list; o->name; o++)
			printf("%-18s %s\n", o->name, o->what);
		return 0;
	}
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "probe") && !find(argv[i])) {
			fprintf(stderr, "prog_owed: no question '%s'\n", argv[i]);
			return 2;
		}
	r = in_child(probe);
	if (r || (argc == 2 && !strcmp(argv[1], "probe"))) {
		if (r == 77)
			printf("SKIP: no GPU\n");
		return r;
	}
	for (const struct owed *o = owed_list; o->name; o++) {
		bool wanted = argc == 1;

		for (int i = 1; i < argc; i++)
			wanted |= !strcmp(argv[i], o->name);
		if (wanted)
			good &= ask(o);
	}
	return good ? 0 : 1;
}
