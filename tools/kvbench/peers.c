/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.c - part "peers": the same 64 bytes there and 32 back through a Unix
 * socket and through ZeroMQ, beside our NOP. Their servers block in a receive.
 */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/kvbench/kvbench.h"
#include "tools/kvbench/zmq_peer.h"

#define ASK	64
#define ANSWER	32

static pid_t unix_server, zmq_server;
static int sock = -1;
static char url[96];
static void *zmq_context, *zmq_socket_;

/* ------------------------------------------------------------- Unix socket */

static void __attribute__((noreturn)) serve_unix(int fd)
{
	char buf[ASK];

	while (recv(fd, buf, sizeof(buf), 0) == ASK)
		if (send(fd, buf, ANSWER, 0) != ANSWER)
			break;
	_exit(0);
}

static double slice_unix(void *ctx)
{
	uint64_t start = time_ns(), end = start + bench.slice_ns;
	char buf[ASK] = "";
	uint32_t n = 0;

	(void)ctx;
	for (; time_ns() < end; n++)
		if (send(sock, buf, ASK, 0) != ASK || recv(sock, buf, ASK, 0) != ANSWER)
			kvb_die("the Unix socket's server is gone");
	return (double)(time_ns() - start) / n;
}

/* ------------------------------------------------------------------ ZeroMQ */

static void __attribute__((noreturn)) serve_zmq(void)
{
	void *s = zmq_socket(zmq_ctx_new(), ZMQ_REP);
	char buf[ASK];

	if (!s || zmq_bind(s, url))
		_exit(1);
	while (zmq_recv(s, buf, sizeof(buf), 0) >= 0)
		zmq_send(s, buf, ANSWER, 0);
	_exit(0);
}

static double slice_zmq(void *ctx)
{
	uint64_t start = time_ns(), end = start + bench.slice_ns;
	char buf[ASK] = "";
	uint32_t n = 0;

	(void)ctx;
	for (; time_ns() < end; n++)
		if (zmq_send(zmq_socket_, buf, ASK, 0) < 0 ||
		    zmq_recv(zmq_socket_, buf, ASK, 0) < 0)
			kvb_die("the ZeroMQ server is gone");
	return (double)(time_ns() - start) / n;
}

/* It starts threads in this process: only when all servers were forked. */
static void zmq_begin(void)
{
	const int linger = 0;

	zmq_context = zmq_ctx_new();
	zmq_socket_ = zmq_socket(zmq_context, ZMQ_REQ);
	if (!zmq_socket_ || zmq_connect(zmq_socket_, url))
		kvb_die("ZeroMQ does not connect to %s", url);
	zmq_setsockopt(zmq_socket_, ZMQ_LINGER, &linger, sizeof(linger));
	for (int i = 0; i < 3; i++)
		slice_zmq(NULL);
}

/* ---------------------------------------------------------------- the part */

void kvb_peers_setup(void)
{
	int fd[2];

	busy_start();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd))
		kvb_die("socketpair: %s", strerror(errno));
	unix_server = kvb_spawn();
	if (!unix_server) {
		cpu_server();
		close(fd[0]);
		serve_unix(fd[1]);
	}
	close(fd[1]);
	sock = fd[0];
	if (!HAS_ZMQ) {
		rows_skip(ROW_ZMQ, "built without libzmq");
		return;
	}
	snprintf(url, sizeof(url), "ipc://%s/zmq", bench.dir);
	zmq_server = kvb_spawn();
	if (!zmq_server) {
		cpu_server();
		serve_zmq();
	}
}

void kvb_peers_round(void)
{
	struct turn t[] = { { slice_unix, NULL, 0 }, { nop_rtt, NULL, 0 },
			    { slice_zmq, NULL, 0 } };

	if (HAS_ZMQ && !zmq_context)
		zmq_begin();
	take_turns(t, HAS_ZMQ ? 3 : 2);
	row_add(ROW_UNIX, t[0].ret, t[1].ret);
	if (HAS_ZMQ)
		row_add(ROW_ZMQ, t[2].ret, t[1].ret);
}

void kvb_peers_end(void)
{
	close(sock);
	kvb_reap(unix_server, SIGKILL);
	if (!HAS_ZMQ)
		return;
	zmq_close(zmq_socket_);
	zmq_ctx_term(zmq_context);
	kvb_reap(zmq_server, SIGKILL);
}
