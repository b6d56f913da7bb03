/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zmq_peer.h - ZeroMQ when the build found it; else calls that do nothing.
 */
#ifndef KVBENCH_ZMQ_PEER_H
#define KVBENCH_ZMQ_PEER_H

#ifdef HAVE_ZMQ
#include <zmq.h>
enum { HAS_ZMQ = 1 };
#else
#include <stddef.h>
enum { HAS_ZMQ = 0, ZMQ_REQ = 0, ZMQ_REP = 0, ZMQ_LINGER = 0 };

static inline void *zmq_ctx_new(void)
{
	return NULL;
}

static inline int zmq_ctx_term(void *ctx)
{
	return ctx ? -1 : 0;
}

static inline void *zmq_socket(void *ctx, int type)
{
	return type ? ctx : NULL;
}

static inline int zmq_close(void *s)
{
	return s ? -1 : 0;
}

static inline int zmq_bind(void *s, const char *url)
{
	return s && url ? -1 : 0;
}

static inline int zmq_connect(void *s, const char *url)
{
	return s && url ? -1 : 0;
}

static inline int zmq_send(void *s, const void *buf, size_t n, int flags)
{
	return s && buf && n && !flags ? 0 : -1;
}

static inline int zmq_recv(void *s, void *buf, size_t n, int flags)
{
	return s && buf && n && !flags ? 0 : -1;
}

static inline int zmq_setsockopt(void *s, int opt, const void *v, size_t n)
{
	return s && opt && v && n ? 0 : -1;
}
#endif

#endif
