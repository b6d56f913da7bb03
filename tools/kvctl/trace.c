/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.c - kvctl trace: record real traffic in Mooncake's form.
 *
 * The daemon streams a line per opened sequence, hash_ids being the first 8
 * bytes of the keys; here each distinct one gets the next small number, which
 * is what the public form has. One trace has one block size, in its header: the
 * first line's. Lines with another one are left out and counted.
 */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvmd/lib/conf.h"
#include "tools/kvctl/kvctl.h"

static volatile sig_atomic_t stopped;
static int daemon_fd;

/* A read that is just about to begin finds the end, too. */
static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
	shutdown(daemon_fd, SHUT_RD);
}

/* Numbers for keys: open addressing, a power of two of slots, load below 1/2. */
struct ids {
	struct {
		uint64_t key;
		uint64_t id;		/* number + 1, 0: empty */
	} *slot;
	uint64_t mask, nr;
};

struct recording {
	FILE *out;
	struct ids ids;
	uint64_t block_tokens;		/* 0: no line yet */
	uint64_t nr_lines, nr_lost, nr_other, max_lines;
};

/* ---------------------------------------------------------------------- ids */

static void ids_put(struct ids *t, uint64_t key, uint64_t id)
{
	uint64_t i = key * 0x9e3779b97f4a7c15ull >> 20 & t->mask;

	while (t->slot[i].id)
		i = (i + 1) & t->mask;
	t->slot[i].key = key;
	t->slot[i].id = id;
}

static bool ids_grow(struct ids *t)
{
	struct ids bigger = { .mask = t->slot ? t->mask * 2 + 1 : 65535 };

	bigger.slot = calloc(bigger.mask + 1, sizeof(*bigger.slot));
	if (!bigger.slot)
		return false;
	for (uint64_t i = 0; t->slot && i <= t->mask; i++)
		if (t->slot[i].id)
			ids_put(&bigger, t->slot[i].key, t->slot[i].id);
	bigger.nr = t->nr;
	free(t->slot);
	*t = bigger;
	return true;
}

static bool ids_number(struct ids *t, uint64_t key, uint64_t *ret_id)
{
	uint64_t i;

	if ((!t->slot || t->nr * 2 > t->mask) && !ids_grow(t))
		return false;
	i = key * 0x9e3779b97f4a7c15ull >> 20 & t->mask;
	while (t->slot[i].id) {
		if (t->slot[i].key == key) {
			*ret_id = t->slot[i].id - 1;
			return true;
		}
		i = (i + 1) & t->mask;
	}
	t->slot[i].key = key;
	t->slot[i].id = ++t->nr;
	*ret_id = t->nr - 1;
	return true;
}

/* -------------------------------------------------------------------- lines */

static int write_request(struct recording *r, json_object *doc)
{
	json_object *keys = ctl_get(doc, "hash_ids");
	uint64_t bt = ctl_u64(doc, "block_tokens"), id;

	if (!r->block_tokens) {
		r->block_tokens = bt;
		fprintf(r->out, "{\"block_tokens\":%llu}\n", (unsigned long long)bt);
	}
	if (bt != r->block_tokens) {
		r->nr_other++;
		return CTL_OK;
	}
	fprintf(r->out, "{\"timestamp\":%s,\"input_length\":%s,\"output_length\":%s,"
		"\"session\":%s,\"hash_ids\":[", ctl_str(doc, "timestamp"),
		ctl_str(doc, "input_length"), ctl_str(doc, "output_length"),
		ctl_str(doc, "session"));
	for (size_t i = 0; i < json_object_array_length(keys); i++) {
		const char *hex = json_object_get_string(json_object_array_get_idx(keys, i));

		if (!ids_number(&r->ids, strtoull(hex, NULL, 16), &id))
			return ctl_fail(CTL_REFUSED, "out of memory");
		fprintf(r->out, "%s%llu", i ? "," : "", (unsigned long long)id);
	}
	fputs("]}\n", r->out);
	r->nr_lines++;
	return CTL_OK;
}

static int take_line(struct ctl *k, struct recording *r, const char *line)
{
	json_object *doc = json_tokener_parse(line);
	int ret = CTL_OK;

	if (!json_object_is_type(doc, json_type_object))
		ret = ctl_fail(CTL_REFUSED, "a line from the daemon is no JSON object");
	else if (ctl_has(doc, "error"))
		ret = ctl_doc_error(k, doc);
	else if (ctl_has(doc, "lost"))
		r->nr_lost += ctl_u64(doc, "lost");
	else if (ctl_has(doc, "hash_ids"))
		ret = write_request(r, doc);
	else if (ctl_has(doc, "recording"))
		fprintf(stderr, "%s: recording; interrupt to stop\n", KVMD_KVCTL_NAME);
	json_object_put(doc);
	if (!ret && (fflush(r->out) || ferror(r->out)))
		ret = ctl_fail(CTL_REFUSED, "writing the trace: %s", strerror(errno));
	return ret;
}

/* Read lines until told to stop, or the daemon ends. */
static int record(struct ctl *k, struct recording *r, FILE *in)
{
	char *line = NULL;
	size_t cap = 0;
	int ret = CTL_OK;

	while (!ret && !stopped && r->nr_lines < r->max_lines) {
		errno = 0;
		if (getline(&line, &cap, in) <= 0) {
			if (!stopped)
				ret = ctl_fail(CTL_NO_DAEMON, "the daemon ended the recording");
			break;
		}
		ret = take_line(k, r, line);
	}
	free(line);
	return ret;
}

static int start(struct ctl *k, struct recording *r)
{
	const char *kv[] = { "space", k->space, "buffer_bytes", NULL, NULL };
	struct sigaction sa = { .sa_handler = on_signal };
	const struct timeval forever = { 0 };
	uint64_t bytes;
	char number[24];
	FILE *in;
	int fd, ret;

	if (k->buffer) {
		if (conf_parse_bytes(k->buffer, &bytes))
			return ctl_usage("--buffer: '%s' is not a size", k->buffer);
		snprintf(number, sizeof(number), "%llu", (unsigned long long)bytes);
		kv[3] = number;
	}
	ret = ctl_send(k, "trace", "start", kv, &fd);
	if (ret)
		return ret;
	/* Requests come when they come. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
	daemon_fd = fd;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	in = fdopen(fd, "r");
	if (!in) {
		close(fd);
		return ctl_fail(CTL_REFUSED, "out of memory");
	}
	ret = record(k, r, in);
	fclose(in);
	return ret;
}

static int trace_start(struct ctl *k, int argc, char **argv)
{
	struct recording r = { .out = stdout, .max_lines = UINT64_MAX };
	int ret;

	(void)argc;
	(void)argv;
	if (k->count && (conf_parse_u64(k->count, &r.max_lines) || !r.max_lines))
		return ctl_usage("--count: '%s' is no count", k->count);
	if (k->output) {
		r.out = fopen(k->output, "we");
		if (!r.out)
			return ctl_fail(CTL_REFUSED, "%s: %s", k->output, strerror(errno));
	}
	ret = start(k, &r);
	if (k->output && fclose(r.out) && !ret)
		ret = ctl_fail(CTL_REFUSED, "%s: %s", k->output, strerror(errno));
	if (r.nr_lines || !ret)
		fprintf(stderr, "%s: %llu requests, %llu blocks; %llu lost, %llu of another "
			"block size left out\n", KVMD_KVCTL_NAME, (unsigned long long)r.nr_lines,
			(unsigned long long)r.ids.nr, (unsigned long long)r.nr_lost,
			(unsigned long long)r.nr_other);
	free(r.ids.slot);
	return ret;
}

const struct ctl_verb ctl_trace_verbs[] = {
	{ "start", "", 0, 0, "SOCB", "a line per opened sequence, until interrupted", trace_start },
	{ 0 },
};
