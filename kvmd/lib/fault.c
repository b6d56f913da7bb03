// SPDX-License-Identifier: Apache-2.0
/*
 * fault.c - which call of which site fails.
 *
 * A spec is parsed whole before anything is armed. The decision depends on
 * the number of the call alone (and the seed), so that a failing run can be
 * repeated. Arming belongs to one thread; hits are counted by any.
 */
#include "kvmd/lib/err.h"
#include "kvmd/lib/fault.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

struct fault_state {
	struct fault_rule rule;	/* written while disarmed only */
	uint64_t nr_calls;
	uint64_t nr_hits;
};

static const char *const site_names[NR_FAULT] = {
	[FAULT_ALLOC]	= "alloc",
	[FAULT_SLAB]	= "slab",
	[FAULT_COPY]	= "copy",
	[FAULT_SCRUB]	= "scrub",
	[FAULT_READ]	= "read",
	[FAULT_WRITE]	= "write",
	[FAULT_SEND]	= "send",
	[FAULT_TIER_ALLOC] = "tier-alloc",
	[FAULT_CHUNK]	= "chunk",
	[FAULT_LOCK]	= "lock",
	[FAULT_REGISTER] = "register",
	[FAULT_SYNC]	= "sync",
	[FAULT_SHORT]	= "short",
	[CRASH_DATA]	= "crash-data",
	[CRASH_HEADER]	= "crash-header",
	[CRASH_SEAL]	= "crash-seal",
	[CRASH_SYNC]	= "crash-sync",
	[CRASH_COMPACT]	= "crash-compact",
	[CRASH_RECOVER]	= "crash-recover",
	[CRASH_RAM]	= "crash-ram",
	[CRASH_KEEP]	= "crash-keep",
};

bool fault_armed[NR_FAULT];
static struct fault_state sites[NR_FAULT];

const char *fault_name(enum fault_site site)
{
	return (unsigned)site < NR_FAULT ? site_names[site] : "?";
}

static int parse_count(const char *val, uint64_t *ret_v)
{
	char *end;

	if (*val < '0' || *val > '9')
		return -EINVAL;
	errno = 0;
	*ret_v = strtoull(val, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

static int parse_prob(const char *val, uint64_t *ret_prob)
{
	double p;
	char *end;

	if (!*val)
		return -EINVAL;
	p = strtod(val, &end);
	if (*end || !(p >= 0.0 && p <= 1.0))
		return -EINVAL;
	*ret_prob = (uint64_t)(p * 4294967296.0);
	return 0;
}

static int parse_pair(struct fault_rule *r, char *pair, char *msg, size_t bytes)
{
	char *val = strchr(pair, '=');
	int err;

	if (!val)
		return err_text(-EINVAL, msg, bytes, "fault: '%s' is not KEY=VALUE", pair);
	*val++ = '\0';

	if (!strcmp(pair, "nth"))
		err = parse_count(val, &r->nth);
	else if (!strcmp(pair, "every"))
		err = parse_count(val, &r->every);
	else if (!strcmp(pair, "times"))
		err = parse_count(val, &r->times);
	else if (!strcmp(pair, "seed"))
		err = parse_count(val, &r->seed);
	else if (!strcmp(pair, "prob"))
		err = parse_prob(val, &r->prob);
	else
		return err_text(-EINVAL, msg, bytes, "fault: unknown key '%s' (nth, every, prob, "
				"seed, times)", pair);
	if (err)
		return err_text(-EINVAL, msg, bytes, "fault: bad value '%s' for %s", val, pair);
	return 0;
}

static int find_site(const char *name, enum fault_site *ret_site)
{
	unsigned i;

	for (i = 0; i < NR_FAULT; i++) {
		if (!strcmp(name, site_names[i])) {
			*ret_site = (enum fault_site)i;
			return 0;
		}
	}
	return -EINVAL;
}

int fault_rule_parse(struct fault_rule *ret_r, const char *what, char *pairs, char *msg,
		     size_t bytes)
{
	struct fault_rule r = { .times = UINT64_MAX };
	char *pair;
	int err;

	while ((pair = strsep(&pairs, ","))) {
		err = parse_pair(&r, pair, msg, bytes);
		if (err)
			return err;
	}
	if ((!r.nth && !r.every && !r.prob) || !r.times)
		return err_text(-EINVAL, msg, bytes, "fault: %s needs nth, every or prob, and "
				"times, above 0", what);
	*ret_r = r;
	return 0;
}

/* "a, b, c" of all sites. */
static const char *all_names(char *buf, size_t bytes)
{
	size_t len = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < NR_FAULT && len < bytes; i++)
		len += (size_t)snprintf(buf + len, bytes - len, "%s%s", i ? ", " : "",
					site_names[i]);
	return buf;
}

static int parse_one(char *part, struct fault_rule rules[], char *msg, size_t bytes)
{
	char *pairs = strchr(part, ':'), names[512];
	enum fault_site site;
	struct fault_rule r;
	int err;

	if (!pairs)
		return err_text(-EINVAL, msg, bytes, "fault: '%s' is not SITE:KEY=VALUE", part);
	*pairs++ = '\0';
	if (find_site(part, &site))
		return err_text(-EINVAL, msg, bytes, "fault: unknown site '%s' (%s)", part,
				all_names(names, sizeof(names)));
	err = fault_rule_parse(&r, part, pairs, msg, bytes);
	if (!err)
		rules[site] = r;
	return err;
}

static void arm_site(enum fault_site site, const struct fault_rule *r)
{
	struct fault_state *s = &sites[site];

	st_rlx(&fault_armed[site], false);
	s->rule = *r;
	st_rlx(&s->nr_calls, 0);
	st_rlx(&s->nr_hits, 0);
	/* Pairs with the acquire in fault_hit_slow(): the rule is whole. */
	st_rel(&fault_armed[site], true);
}

int fault_arm(const char *spec, char *ret_msg, size_t msg_bytes)
{
	struct fault_rule rules[NR_FAULT] = { 0 };
	char buf[512], *rest = buf, *part;
	unsigned i;
	int err;

	if (strlen(spec) >= sizeof(buf))
		return err_text(-EINVAL, ret_msg, msg_bytes, "fault: a spec is at most %zu "
				"characters", sizeof(buf) - 1);
	strcpy(buf, spec);
	while ((part = strsep(&rest, ";"))) {
		if (!*part)
			continue;
		err = parse_one(part, rules, ret_msg, msg_bytes);
		if (err)
			return err;
	}
	for (i = 0; i < NR_FAULT; i++) {
		if (rules[i].times)
			arm_site((enum fault_site)i, &rules[i]);
	}
	return 0;
}

void fault_disarm(void)
{
	unsigned i;

	for (i = 0; i < NR_FAULT; i++)
		st_rlx(&fault_armed[i], false);
}

uint64_t fault_nr_calls(enum fault_site site)
{
	return ld_rlx(&sites[site].nr_calls);
}

uint64_t fault_nr_hits(enum fault_site site)
{
	return ld_rlx(&sites[site].nr_hits);
}

/* splitmix64 (Steele, Lea, Flood 2014): one draw per (seed, call). */
static uint64_t draw(uint64_t seed, uint64_t call)
{
	uint64_t z = seed + call * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

bool fault_rule_fails(const struct fault_rule *r, uint64_t call)
{
	return call == r->nth || (r->every && call % r->every == 0) ||
	       (draw(r->seed, call) >> 32) < r->prob;
}

bool fault_hit_slow(enum fault_site site)
{
	struct fault_state *s = &sites[site];
	const struct fault_rule *r = &s->rule;
	uint64_t call;

	/* Pairs with the release in arm_site(). */
	if (!ld_acq(&fault_armed[site]))
		return false;
	call = __atomic_add_fetch(&s->nr_calls, 1, __ATOMIC_RELAXED);
	if (!fault_rule_fails(r, call))
		return false;
	if (__atomic_add_fetch(&s->nr_hits, 1, __ATOMIC_RELAXED) > r->times) {
		__atomic_sub_fetch(&s->nr_hits, 1, __ATOMIC_RELAXED);
		return false;
	}
	return true;
}

void fault_die(void)
{
	kill(getpid(), SIGKILL);
	_exit(128 + SIGKILL);	/* the init of a pid namespace cannot be killed from within */
}
