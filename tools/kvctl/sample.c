/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - the same question again and again: what stat and iostat have in common.
 */
#include <time.h>

#include "kvmd/lib/conf.h"
#include "tools/kvctl/kvctl.h"

int ctl_interval(struct ctl *k, const char *noun, int argc, char **argv, uint64_t *ret_ns,
		 uint64_t *ret_count)
{
	uint64_t count = argc > 0 ? UINT64_MAX : 1;

	if (argc > 0 && (conf_parse_time(argv[0], ret_ns) || !*ret_ns))
		return ctl_usage("'%s' is no interval and no verb of %s", argv[0], noun);
	if (argc > 1 && (conf_parse_u64(argv[1], &count) || !count))
		return ctl_usage("'%s' is no count", argv[1]);
	*ret_count = count + (k->skip_first && count != UINT64_MAX);
	return CTL_OK;
}

static void sleep_until(struct timespec *at, uint64_t interval_ns)
{
	at->tv_sec += (time_t)(interval_ns / 1000000000);
	at->tv_nsec += (long)(interval_ns % 1000000000);
	if (at->tv_nsec >= 1000000000) {
		at->tv_sec++;
		at->tv_nsec -= 1000000000;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL) == EINTR)
		;
}

int ctl_sample(struct ctl *k, const struct ctl_sampler *s, uint64_t interval_ns, uint64_t count)
{
	json_object *doc, *was = NULL;
	struct timespec at;
	int ret;

	clock_gettime(CLOCK_MONOTONIC, &at);
	for (uint64_t i = 0; ; i++) {
		ret = ctl_ask(k, s->noun, s->verb, NULL, &doc);
		if (ret)
			break;
		if (was && ctl_u64(was, "boot_ns") != ctl_u64(doc, "boot_ns")) {
			json_object_put(was);	/* another daemon: from its start on */
			was = NULL;
		}
		if (!i && !k->json)
			ret = s->begin(k, s->ctx, doc);
		if (!ret && (i || !k->skip_first)) {
			if (k->json)
				ctl_print_json(doc);
			else
				s->show(k, s->ctx, doc, was);
		}
		json_object_put(was);
		was = doc;
		fflush(stdout);
		if (ret || i + 1 >= count)
			break;
		sleep_until(&at, interval_ns);
	}
	json_object_put(was);
	return ret;
}

double ctl_seconds(json_object *doc, json_object *was)
{
	uint64_t from = was ? ctl_u64(was, "now_ns") : ctl_u64(doc, "boot_ns");

	return (double)(ctl_u64(doc, "now_ns") - from) / 1e9;
}
