/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - error words, and the text of the last refusal.
 *
 * The refusal is kept per thread: set-up calls write it, nothing else reads it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libkvclient/internal.h"

static __thread char refusal[KVMD_TEXT_BYTES + 128];
static __thread unsigned nr_refusals;

static const struct {
	int err;
	const char *text;
} words[] = {
	{ 0, "no error" },
	{ EACCES, "this tenant or uid may not do that" },
	{ EAGAIN, "nothing there without waiting" },
	{ EALREADY, "the entry can no longer be stopped" },
	{ EBUSY, "the sequence is in use, or the session's step stands still" },
	{ ECANCELED, "the entry was cancelled" },
	{ ECONNREFUSED, "no daemon listens on the socket" },
	{ ECONNRESET, "the daemon is gone or ended the session" },
	{ EDEADLK, "all holders wait for each other: swap out or close a sequence" },
	{ EDQUOT, "over the tenant's limit" },
	{ EINVAL, "malformed request" },
	{ EIO, "a block could not be read back or copied" },
	{ EISCONN, "the session is alive" },
	{ EMFILE, "too many open files for the daemon's handles: raise RLIMIT_NOFILE" },
	{ ENOBUFS, "the args area is in use by other entries" },
	{ ENODEV, "no NVIDIA driver here, or none of the space's GPUs is visible" },
	{ ENOENT, "there is no such thing" },
	{ ENOMEM, "no memory in time, or more than there can be" },
	{ ENOSPC, "the row or the pool has no such position, or RAM has no room" },
	{ EOPNOTSUPP, "not supported by this daemon or library" },
	{ EPERM, "not allowed by the daemon's configuration" },
	{ EPROTO, "client and daemon do not speak the same protocol" },
	{ ESTALE, "the sequence has another generation, or the session was not kept" },
	{ ETIMEDOUT, "not in time" },
	{ E2BIG, "the keys do not fit the args area" },
};

void kvci_refuse_clear(void)
{
	refusal[0] = '\0';
}

void kvci_refuse(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(refusal, sizeof(refusal), fmt, ap);
	va_end(ap);
	nr_refusals++;
}

unsigned kvci_nr_refusals(void)
{
	return nr_refusals;
}

const char *kvc_refusal(void)
{
	return refusal;
}

const char *kvc_strerror(int err)
{
	int e = err < 0 ? -err : err;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (words[i].err == e)
			return words[i].text;
	}
	return "unknown error";
}

const char *kvc_version(void)
{
	return KVMD_VERSION;
}
