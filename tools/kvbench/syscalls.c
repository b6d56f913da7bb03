/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscalls.c - system calls of a client's sends, counted by tracing it.
 *
 * A traced child connects to the busy daemon and makes NR_SENDS round trips,
 * each kvc_submit() between two calls that nothing else makes (getpgid of an
 * impossible process). The tracer counts what lies between: calls of the send, and
 * all others between the first and the last mark: calls of the wait.
 */
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/kvbench/kvbench.h"

#define NR_SENDS	1000

enum mark { MARK_SEND = 0x6b76620, MARK_SENT, MARK_END };

static void mark(enum mark m)
{
	/* No process has that group: ESRCH and no effect. */
	syscall(SYS_getpgid, m);
}

static void __attribute__((noreturn)) traced(struct kvmd_proc *p)
{
	struct kvc *k = client_open(p, 0, 16);
	const struct kvmd_cqe *c;

	client_warm(k);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(77);
	raise(SIGSTOP);
	for (int i = 0; i < NR_SENDS; i++) {
		kvc_prep_nop(kvc_get_sqe(k));
		mark(MARK_SEND);
		if (kvc_submit(k) != 1)
			_exit(1);
		mark(MARK_SENT);
		if (kvc_wait_cqe(k, 30000000000ull, &c))
			_exit(1);
		kvc_cqe_seen(k);
	}
	mark(MARK_END);
	kvc_destroy(k);
	_exit(0);
}

/* Next stop at the entry of a system call: true, and which with its first argument. */
static bool next_entry(pid_t pid, uint64_t *ret_nr, uint64_t *ret_arg)
{
	struct __ptrace_syscall_info info;
	int status;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid)
			return false;
		if (!WIFSTOPPED(status))
			return false;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) < 0)
			return false;
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
			break;
	}
	*ret_nr = info.entry.nr;
	*ret_arg = info.entry.args[0];
	return true;
}

void kvb_syscalls_round(struct kvmd_proc *p)
{
	uint64_t nr, arg, sends = 0, waits = 0;
	enum { BEFORE, SENDING, WAITING, DONE } at = BEFORE;
	int status;
	pid_t pid;

	kvmd_go(p);
	pid = kvb_spawn();
	if (!pid)
		traced(p);
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status)) {
		kvmd_pause(p);
		kvb_reap(pid, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 77)
			kvb_die("the client to be traced ended early");
		rows_skip(ROW_SYSCALLS, "tracing is not allowed here");
		rows_skip(ROW_WAIT_SYSCALLS, "tracing is not allowed here");
		return;
	}
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	while (at != DONE && next_entry(pid, &nr, &arg)) {
		if (nr == SYS_getpgid && arg == MARK_SEND)
			at = SENDING;
		else if (nr == SYS_getpgid && arg == MARK_SENT)
			at = WAITING;
		else if (nr == SYS_getpgid && arg == MARK_END)
			at = DONE;
		else if (at == SENDING)
			sends++;
		else if (at == WAITING)
			waits++;
	}
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	kvb_reap(pid, 0);
	kvmd_pause(p);
	if (at != DONE)
		kvb_die("the traced client ended early");
	row_add(ROW_SYSCALLS, 0, (double)sends);
	row_add(ROW_WAIT_SYSCALLS, 0, (double)waits);
}
