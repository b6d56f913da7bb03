/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c - a list of keys as the admin socket takes it: hex digits, commas.
 */
#include "tools/kvctl/kvctl.h"

#define MAX_KEYS_BYTES	(1000u * 1024)	/* the daemon takes lines of 1 MiB */
#define KEY_DIGITS	64u

int ctl_keys_init(struct ctl_keys *keys)
{
	keys->len = 0;
	keys->buf = malloc(MAX_KEYS_BYTES);
	return keys->buf ? CTL_OK : ctl_fail(CTL_REFUSED, "out of memory");
}

bool ctl_keys_full(const struct ctl_keys *keys)
{
	return keys->len + KEY_DIGITS + 2 > MAX_KEYS_BYTES;
}

int ctl_keys_add(struct ctl_keys *keys, const char *key)
{
	size_t n = strlen(key);

	if (n != KEY_DIGITS || strspn(key, "0123456789abcdefABCDEF") != n)
		return ctl_usage("'%.80s' is no key: 64 hex digits", key);
	if (ctl_keys_full(keys))
		return ctl_usage("more than %u keys", MAX_KEYS_BYTES / (KEY_DIGITS + 1));
	if (keys->len)
		keys->buf[keys->len++] = ',';
	memcpy(keys->buf + keys->len, key, n + 1);
	keys->len += n;
	return CTL_OK;
}
