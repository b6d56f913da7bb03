/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c - chains of block keys.
 *
 *	S        = SHA-256(salt)
 *	H(m)     = SHA-256(S, 32 zero bytes, m)
 *	key[-1]  = H(le32 0, le32 block_tokens, le64 root bytes, root)
 *	key[i]   = H(le32 1, le32 block_tokens, le64 extra bytes, key[i-1],
 *		     tokens of block i as le32, extra)
 *
 * S with its padding is one block of the compression function, so its state is
 * computed once and copied. The head in front of every message tells its length,
 * which makes the messages prefix-free, and SHA-256 keyed by its first block is
 * a pseudorandom function on such messages (Bellare, Canetti, Krawczyk, FOCS
 * 1996): there is nothing to extend. A block of 16 tokens takes two compressions.
 *
 * OpenSSL's direct calls are used because they run SHA instructions without the
 * set-up cost of EVP, and take half the time of libsodium's BLAKE2b. Pure
 * computation, any thread.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <string.h>

#include "libkvclient/internal.h"

enum { HEAD_ROOT = 0, HEAD_BLOCK = 1 };

struct head {
	uint32_t kind;
	uint32_t block_tokens;
	uint64_t extra_bytes;
};

/* Head and previous key go in one piece. */
struct block_head {
	struct head h;
	unsigned char prev[KVMD_KEY_BYTES];
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tokens are hashed as they lie");
_Static_assert(sizeof(struct head) == 16, "head is what is hashed");
_Static_assert(sizeof(struct block_head) == 48, "head is what is hashed");
_Static_assert(sizeof(SHA256_CTX) <= sizeof(((struct kvc_chain *)0)->state), "state fits");
_Static_assert(SHA256_DIGEST_LENGTH == KVMD_KEY_BYTES, "a digest is a key");

void kvci_salt_digest(const void *salt, size_t bytes, uint8_t ret_digest[16])
{
	static const char domain[] = "kvmd space salt";
	unsigned char full[SHA256_DIGEST_LENGTH];
	SHA256_CTX c;

	/* Over S, under a name of its own: says nothing about the keys. */
	SHA256_Init(&c);
	if (bytes)
		SHA256_Update(&c, salt, bytes);
	SHA256_Final(full, &c);
	SHA256_Init(&c);
	SHA256_Update(&c, domain, sizeof(domain));
	SHA256_Update(&c, full, sizeof(full));
	SHA256_Final(full, &c);
	memcpy(ret_digest, full, 16);
}

int kvc_chain_init(struct kvc_chain *c, const void *salt, size_t salt_bytes, const void *root,
		   size_t root_bytes, uint32_t block_tokens)
{
	struct head h = { HEAD_ROOT, block_tokens, root_bytes };
	unsigned char pad[SHA256_CBLOCK] = { 0 };
	SHA256_CTX ctx;

	if (!block_tokens || (!salt && salt_bytes) || (!root && root_bytes))
		return -EINVAL;
	SHA256_Init(&ctx);
	if (salt_bytes)
		SHA256_Update(&ctx, salt, salt_bytes);
	SHA256_Final(pad, &ctx);
	memset(c, 0, sizeof(*c));
	SHA256_Init(&ctx);
	SHA256_Update(&ctx, pad, sizeof(pad));
	memcpy(c->state, &ctx, sizeof(ctx));
	SHA256_Update(&ctx, &h, sizeof(h));
	if (root_bytes)
		SHA256_Update(&ctx, root, root_bytes);
	SHA256_Final(c->root, &ctx);
	memcpy(c->last, c->root, sizeof(c->last));
	c->block_tokens = block_tokens;
	return 0;
}

void kvc_chain_blocks(struct kvc_chain *c, const int32_t *tokens, uint32_t nr_blocks,
		      void *ret_keys)
{
	struct block_head bh = { .h = { HEAD_BLOCK, c->block_tokens, 0 } };
	size_t bytes = (size_t)c->block_tokens * sizeof(*tokens);
	unsigned char *key = (unsigned char *)ret_keys;
	SHA256_CTX ctx;

	memcpy(bh.prev, c->last, sizeof(bh.prev));
	for (uint32_t i = 0; i < nr_blocks; i++) {
		memcpy(&ctx, c->state, sizeof(ctx));
		SHA256_Update(&ctx, &bh, sizeof(bh));
		SHA256_Update(&ctx, tokens, bytes);
		SHA256_Final(bh.prev, &ctx);
		memcpy(key, bh.prev, sizeof(bh.prev));
		key += sizeof(bh.prev);
		tokens += c->block_tokens;
	}
	memcpy(c->last, bh.prev, sizeof(c->last));
	c->nr_blocks += nr_blocks;
}

void kvc_chain_block_extra(struct kvc_chain *c, const int32_t *tokens, const void *extra,
			   size_t extra_bytes, void *ret_key)
{
	struct block_head bh = { .h = { HEAD_BLOCK, c->block_tokens, extra_bytes } };
	SHA256_CTX ctx;

	memcpy(bh.prev, c->last, sizeof(bh.prev));
	memcpy(&ctx, c->state, sizeof(ctx));
	SHA256_Update(&ctx, &bh, sizeof(bh));
	SHA256_Update(&ctx, tokens, (size_t)c->block_tokens * sizeof(*tokens));
	if (extra_bytes)
		SHA256_Update(&ctx, extra, extra_bytes);
	SHA256_Final(c->last, &ctx);
	memcpy(ret_key, c->last, sizeof(c->last));
	c->nr_blocks++;
}

void kvc_chain_rewind(struct kvc_chain *c, uint32_t nr_blocks, const void *key)
{
	memcpy(c->last, nr_blocks && key ? key : c->root, sizeof(c->last));
	c->nr_blocks = nr_blocks;
}
