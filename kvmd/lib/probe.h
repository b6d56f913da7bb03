/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.h - USDT probes of provider "kvmd": one NOP each when nobody listens.
 *
 * KVMD_PROBE2(block_seal, slot, step) is bpftrace's usdt:kvmd:block_seal with
 * arg0 and arg1. Arguments are integers or pointers and have no side effects:
 * without <sys/sdt.h> they are not evaluated.
 */
#ifndef KVMD_LIB_PROBE_H
#define KVMD_LIB_PROBE_H

#ifdef HAVE_SDT
#include <sys/sdt.h>

#define KVMD_PROBE0(name)		DTRACE_PROBE(kvmd, name)
#define KVMD_PROBE1(name, a)		DTRACE_PROBE1(kvmd, name, a)
#define KVMD_PROBE2(name, a, b)		DTRACE_PROBE2(kvmd, name, a, b)
#define KVMD_PROBE3(name, a, b, c)	DTRACE_PROBE3(kvmd, name, a, b, c)
#define KVMD_PROBE4(name, a, b, c, d)	DTRACE_PROBE4(kvmd, name, a, b, c, d)
#else
#define KVMD_PROBE_USE(a)		((void)sizeof(a))
#define KVMD_PROBE0(name)		do { } while (0)
#define KVMD_PROBE1(name, a)		do { KVMD_PROBE_USE(a); } while (0)
#define KVMD_PROBE2(name, a, b)		do { KVMD_PROBE_USE(a); KVMD_PROBE_USE(b); } while (0)
#define KVMD_PROBE3(name, a, b, c) \
	do { KVMD_PROBE2(name, a, b); KVMD_PROBE_USE(c); } while (0)
#define KVMD_PROBE4(name, a, b, c, d) \
	do { KVMD_PROBE3(name, a, b, c); KVMD_PROBE_USE(d); } while (0)
#endif

#endif
