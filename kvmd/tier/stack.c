// SPDX-License-Identifier: Apache-2.0
/*
 * stack.c - test tiers stacked over a real one, from the words of a spec.
 *
 * Words are separated by blanks; the first is on top, so they are built from the
 * last one. A spec is parsed whole before anything is made: a refused one leaves
 * the bottom tier to its owner.
 */
#include "kvmd/lib/conf.h"
#include "kvmd/lib/err.h"
#include "kvmd/tier/test.h"

#define MAX_WORDS	8u
#define SPEC_BYTES	512u

const char *tier_kind_name(unsigned kind)
{
	static const char *const name[NR_TIER] = { "ram", "disk" };

	return kind < NR_TIER ? name[kind] : "?";
}

/* "2ms", or "read=1ms,write=5ms" of which one is enough. */
static int parse_delay(struct test_opts *o, const char *word, char *args, char *msg,
		       size_t msg_bytes)
{
	char *arg;

	while ((arg = strsep(&args, ","))) {
		const char *eq = strchr(arg, '='), *time = eq ? eq + 1 : arg;
		bool read = !eq || !strncmp(arg, "read=", 5);
		bool write = !eq || !strncmp(arg, "write=", 6);
		uint64_t ns;

		if ((!read && !write) || conf_parse_time(time, &ns))
			return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': '%s' is not "
					"TIME, read=TIME or write=TIME, as in delay:2ms", word,
					arg);
		if (read)
			o->delay_ns[TEST_READS] = ns;
		if (write)
			o->delay_ns[TEST_WRITES] = ns;
	}
	return 0;
}

/* "read,nth=3" */
static int parse_error(struct test_opts *o, const char *word, char *args, char *msg,
		       size_t msg_bytes)
{
	const char *what = strsep(&args, ",");
	char text[128] = "";
	unsigned i = 0;

	while (i < NR_TEST_ERR && strcmp(what, test_error_name(i)))
		i++;
	if (i == NR_TEST_ERR)
		return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': '%s' is not read, write, "
				"alloc or flip, as in error:read,nth=3", word, what);
	o->what = (enum test_error)i;
	if (!args)
		return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': when? nth=, every= or "
				"prob=", word);
	if (fault_rule_parse(&o->rule, what, args, text, sizeof(text)))
		return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': %s", word, text);
	return 0;
}

static int parse_word(struct test_opts *o, char *word, char *msg, size_t msg_bytes)
{
	char whole[SPEC_BYTES], *args = strchr(word, ':');
	unsigned kind = 0;

	strcpy(whole, word);	/* of a spec no longer than this */
	memset(o, 0, sizeof(*o));
	if (args)
		*args++ = '\0';
	while (kind < NR_TEST && strcmp(word, test_kind_name(kind)))
		kind++;
	o->kind = (enum test_kind)kind;
	switch (kind) {
	case TEST_NULL:
		if (!args)
			return 0;
		return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': null takes no argument",
				whole);
	case TEST_DELAY:
		if (args)
			return parse_delay(o, whole, args, msg, msg_bytes);
		return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': how long? as in "
				"delay:2ms", whole);
	case TEST_ERROR:
		if (args)
			return parse_error(o, whole, args, msg, msg_bytes);
		return err_text(-EINVAL, msg, msg_bytes, "test tier '%s': of what? as in "
				"error:read,nth=3", whole);
	default:
		return err_text(-EINVAL, msg, msg_bytes, "no test tier '%s': there are null, "
				"delay:TIME, error:WHAT,WHEN", whole);
	}
}

int tier_stack(struct tier *bottom, const char *spec, struct tier **ret_top, char *msg,
	       size_t msg_bytes)
{
	char buf[SPEC_BYTES], *rest = buf, *word;
	struct test_opts o[MAX_WORDS];
	struct tier *top = bottom, *gone;
	unsigned nr = 0;
	int err;

	if (strlen(spec) >= sizeof(buf))
		return err_text(-EINVAL, msg, msg_bytes, "test tiers: more than %zu characters",
				sizeof(buf) - 1);
	strcpy(buf, spec);
	while ((word = strsep(&rest, " \t"))) {
		if (!*word)
			continue;
		if (nr == MAX_WORDS)
			return err_text(-EINVAL, msg, msg_bytes, "test tiers: '%s' is one more "
					"than %u", word, MAX_WORDS);
		err = parse_word(&o[nr++], word, msg, msg_bytes);
		if (err)
			return err;
	}
	while (nr--) {
		err = test_tier_create(&o[nr], top, &top);
		if (err)
			goto err_pop;
	}
	*ret_top = top;
	return 0;

err_pop:
	while (top != bottom) {
		gone = top;
		top = top->below;
		gone->ops->destroy(gone);
	}
	return err;
}

void tier_destroy(struct tier *top)
{
	struct tier *below;

	for (; top; top = below) {
		below = top->below;
		top->ops->destroy(top);
	}
}
