/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.c - what the pools of a run's daemons lie on.
 *
 * $KVMD_TEST_DEVICE: host (the default) or cuda. With cuda every configuration's
 * devices get kind = cuda unless it names a kind itself, on the fake driver, or on
 * the machine's own with $KVMD_REAL_CUDA=1. $KVMD_TEST_SCALE: blocks and all that is
 * counted in bytes are so many times as large: 512 where memory comes in pieces of
 * 2 MiB, so that slabs have the slots that tests count on.
 */
#include "tests/harness.h"
#include "tests/harness_int.h"
#include "tests/fakecuda/fakecuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define GRANULE		4096u		/* of the fake at scale 1 */

/* The values that are bytes of blocks. */
static const char *const scaled[] = {
	"slab_bytes", "bytes", "chunk", "segment", "block_bytes_hint", "pin_bytes",
	"hbm_min", "hbm_low", "hbm_high", "hbm_max", "ram_min", "ram_low", "ram_high", "ram_max",
	"disk_min", "disk_low", "disk_high", "disk_max",
};

static char state[128];			/* the fake's file */
static const char *user_fake;		/* $KVMD_FAKECUDA as it was */
static char more_fake[128];		/* what the test says beside */
static uint32_t nr_gpus;

bool test_cuda(void)
{
	const char *env = getenv("KVMD_TEST_DEVICE");

	return env && !strcmp(env, "cuda");
}

bool test_fake_cuda(void)
{
	const char *env = getenv("KVMD_REAL_CUDA");

	return test_cuda() && !(env && !strcmp(env, "1"));
}

uint64_t test_bytes(uint64_t bytes)
{
	const char *env = getenv("KVMD_TEST_SCALE");

	return bytes * (env && atoi(env) > 0 ? (uint64_t)atoi(env) : 1);
}

bool test_skip(bool when, const char *why)
{
	if (when)
		printf("SKIP: %s\n", why);
	return when;
}

/* -------------------------------------------------------------- the fake driver */

/* It has @nr GPUs, with memory in pieces as small as the test's blocks. */
static void set_fake(uint32_t nr)
{
	nr_gpus = nr;
	char text[256];

	if (!test_fake_cuda())
		return;
	T((size_t)snprintf(text, sizeof(text), "gpus=%u,mem=64G,granularity=%llu,%s,%s", nr,
			   (unsigned long long)test_bytes(GRANULE), user_fake, more_fake) <
	  sizeof(text));
	setenv("KVMD_FAKECUDA", text, 1);
}

void device_fake(const char *more)
{
	T((size_t)snprintf(more_fake, sizeof(more_fake), "%s", more) < sizeof(more_fake));
	set_fake(nr_gpus);
}

void hd_prepare_fake(struct hd *d, const char *conf, const char *more)
{
	hd_prepare(d);
	hd_conf(d, conf);
	device_fake(more);
}

bool test_only_fake(void)
{
	return !test_skip(!test_fake_cuda(), "only the fake driver can be made to do this");
}

void device_prepare(void)
{
	const char *tmp = getenv("TMPDIR"), *env = getenv("KVMD_FAKECUDA");

	if (!test_cuda() || *state)
		return;
	user_fake = strdup(env ? env : "");
	T(user_fake);
	snprintf(state, sizeof(state), "%s/fakecuda.%d", tmp ? tmp : "/tmp", (int)getpid());
	if (test_fake_cuda())
		setenv("KVMD_FAKECUDA_STATE", state, 1);
	set_fake(1);
	peers_prepare();
}

void device_check(bool gone)
{
	struct fakecuda_sum s = { 0 };

	if (!test_fake_cuda() || access(state, F_OK))
		return;
	T_EQ(fakecuda_state(state, &s), 0);
	if (s.violations || (gone && s.nr_mem))
		fprintf(stderr, "%s: %llu violations, %llu allocations of %llu bytes left\n", state,
			(unsigned long long)s.violations, (unsigned long long)s.nr_mem,
			(unsigned long long)s.mem_bytes);
	T_EQ(s.violations, 0);
	T(!gone || !s.nr_mem);
}

void device_cleanup(void)
{
	if (*state)
		unlink(state);
}

const char *device_state(void)
{
	return state;
}

/* ------------------------------------------------------------- configurations */

struct out {
	char *text;
	size_t len, room;
};

static void put(struct out *o, const char *text, size_t len)
{
	T(o->len + len < o->room);
	memcpy(o->text + o->len, text, len);
	o->len += len;
	o->text[o->len] = '\0';
}

static void put_text(struct out *o, const char *text)
{
	put(o, text, strlen(text));
}

/* Where the line's key and value are; false: it is no assignment. */
static bool is_assignment(const char *line, size_t len, size_t *ret_key, const char **ret_value)
{
	const char *eq = memchr(line, '=', len);

	if (!eq || line[0] == '[' || line[0] == '#')
		return false;
	*ret_key = strcspn(line, " =");
	*ret_value = eq + 1;
	return true;
}

/* Does the section that begins at @at say anything of @key? */
static bool section_has(const char *at, const char *key)
{
	size_t n = strlen(key);

	for (at = strchr(at, '\n'); at && at[1] && at[1] != '['; at = strchr(at + 1, '\n'))
		if (!strncmp(at + 1, key, n) && strspn(at + 1 + n, " ="))
			return true;
	return false;
}

/* What a device of this run has beside what the test says; @at: its section, or "". */
static void put_device(struct out *o, const char *at)
{
	bool other = section_has(at, "kind");

	if (!section_has(at, "bytes") && test_bytes(1) > 1)
		put_text(o, test_cuda() && !test_fake_cuda() ? "share = 90\nbytes = 1T\n" :
			 "bytes = 24G\n");
	if (!test_cuda() || other)
		return;
	put_text(o, "kind = cuda\n");
	/* The fake's mappings end with their process. */
	if (test_fake_cuda() && !section_has(at, "grace"))
		put_text(o, "grace = 0\n");
}

/* "KEY = BYTES", as many bytes as the scale says. */
static void put_scaled(struct out *o, const char *key, size_t key_len, const char *value)
{
	static const char units[] = "KMGT";
	char *end, num[64];
	uint64_t v = strtoull(value, &end, 10);
	const char *u = *end && *end != '\n' ? strchr(units, *end) : NULL;

	for (; u && u >= units; u--)
		v <<= 10;
	v = test_bytes(v);
	/* There are no larger slabs. */
	if (key_len == strlen("slab_bytes") && !strncmp(key, "slab_bytes", key_len) && v > 1u << 30)
		v = 1u << 30;
	put(o, key, key_len);
	snprintf(num, sizeof(num), " = %llu\n", (unsigned long long)v);
	put_text(o, num);
}

static bool is_scaled(const char *line, size_t key)
{
	for (size_t i = 0; i < sizeof(scaled) / sizeof(scaled[0]); i++)
		if (strlen(scaled[i]) == key && !strncmp(line, scaled[i], key))
			return test_bytes(1) > 1;
	return false;
}

void device_conf(const char *conf, char *text, size_t bytes)
{
	struct out o = { .text = text, .room = bytes };
	const char *line = conf, *value;
	uint32_t nr = 0;
	size_t key, len;

	put_text(&o, "");
	for (; *line; line += len) {
		len = strcspn(line, "\n");
		len += line[len] == '\n';
		if (is_assignment(line, len, &key, &value) && is_scaled(line, key))
			put_scaled(&o, line, key, value);
		else
			put(&o, line, len);
		if (strncmp(line, "[device ", 8))
			continue;
		put_device(&o, line);
		nr++;
	}
	if (!nr && (test_cuda() || test_bytes(1) > 1)) {
		put_text(&o, "[device host-0]\n");
		put_device(&o, "");
	}
	set_fake(nr ? nr : 1);
}
