// SPDX-License-Identifier: Apache-2.0
/*
 * hash.c - the secret of the bucket hash.
 */
#include "kvmd/lib/hash.h"

#include <sys/random.h>

int hash_seed_init(struct hash_seed *seed)
{
	ssize_t n;

	do {
		n = getrandom(seed, sizeof(*seed), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* getrandom(2): up to 256 bytes come whole once the source is ready. */
	return n == (ssize_t)sizeof(*seed) ? 0 : -EIO;
}
