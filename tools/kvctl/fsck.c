// SPDX-License-Identifier: Apache-2.0
/*
 * fsck.c - kvctl fsck: the invariants of a live daemon, or of files without one.
 *
 * What was found becomes one JSON document; text is made from that.
 */
#include "tools/kvctl/fsck.h"

#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "tools/kvctl/kvctl.h"

#define MAX_FILES	64
#define MAX_FAULTS	1000u		/* listed; all are counted */
#define PROGRESS_NS	200000000ull	/* between two lines on a terminal */

struct run {
	json_object *faults;
	const char *path;		/* being walked */
	uint64_t nr_faults;
	uint64_t said_ns;		/* progress; 0: none on the screen */
	bool tty;
};

/* ------------------------------------------------------------------ finding */

static void add_str(json_object *o, const char *key, const char *s)
{
	json_object_object_add(o, key, json_object_new_string(s));
}

static void add_num(json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void add_bool(json_object *o, const char *key, bool v)
{
	json_object_object_add(o, key, json_object_new_boolean(v));
}

static void on_fault(void *ctx, uint64_t off, const char *text)
{
	struct run *r = ctx;
	json_object *row;

	if (r->nr_faults++ >= MAX_FAULTS)
		return;
	row = json_object_new_object();
	add_str(row, "file", r->path);
	add_num(row, "offset_bytes", off);
	add_str(row, "message", text);
	json_object_array_add(r->faults, row);
}

static void on_progress(void *ctx, uint32_t done, uint32_t total)
{
	struct run *r = ctx;
	uint64_t now = clock_ns();

	if (!r->tty || (r->said_ns && now - r->said_ns < PROGRESS_NS))
		return;
	r->said_ns = now;
	fprintf(stderr, "\r%s: segment %u of %u, %llu faults ", r->path, done, total,
		(unsigned long long)r->nr_faults);
}

static void clear_progress(struct run *r)
{
	if (r->said_ns)
		fprintf(stderr, "\r\033[K");
	r->said_ns = 0;
}

/* --------------------------------------------------------------- describing */

static void add_uuid(json_object *o, const uint8_t *u)
{
	char text[33];

	for (unsigned i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", u[i]);
	add_str(o, "set_uuid", text);
}

static json_object *file_row(const struct fsck_file *f, const char *path)
{
	json_object *row = json_object_new_object();

	add_str(row, "file", path);
	add_num(row, "size_bytes", f->bytes);
	add_bool(row, "locked", f->locked);
	add_num(row, "nr_faults", f->nr_faults);
	if (!f->has_super)
		return row;
	add_num(row, "version", f->super.version);
	add_uuid(row, f->super.set_uuid);
	add_num(row, "index", f->super.index);
	add_num(row, "nr_files", f->super.nr_files);
	add_num(row, "segment_bytes", f->super.segment_bytes);
	add_num(row, "segments", f->super.nr_segments);
	add_num(row, "segments_free", f->nr_segs[DISK_SEG_FREE]);
	add_num(row, "segments_open", f->nr_segs[DISK_SEG_OPEN]);
	add_num(row, "segments_sealed", f->nr_segs[DISK_SEG_SEALED]);
	add_num(row, "segments_bad", f->nr_bad_segs);
	add_num(row, "blocks_live", f->nr_live);
	add_num(row, "live_bytes", f->live_bytes);
	add_num(row, "blocks_dropped", f->nr_dead);
	add_num(row, "blocks_old", f->nr_old);
	add_num(row, "holes", f->nr_holes);
	add_num(row, "bad_bytes", f->bad_bytes);
	add_num(row, "blocks_verified", f->nr_verified);
	add_num(row, "verified_bytes", f->verified_bytes);
	return row;
}

static void add_spaces(json_object *rows, const struct fsck_file *f, const char *path)
{
	for (uint32_t i = 0; i < DISK_MAX_SPACES; i++) {
		const struct fsck_space *sp = &f->space[i];
		json_object *row;

		if (!sp->there)
			continue;
		row = json_object_new_object();
		add_str(row, "file", path);
		add_str(row, "space", sp->e.name);
		add_str(row, "tenant", sp->e.tenant);
		add_num(row, "epoch", sp->e.epoch);
		add_num(row, "groups", sp->e.nr_groups);
		add_num(row, "shards", sp->e.nr_shards);
		add_num(row, "blocks", sp->nr_live);
		add_num(row, "live_bytes", sp->live_bytes);
		json_object_array_add(rows, row);
	}
}

/* Files of one set, each once. */
static void check_set(struct run *r, json_object *files, const struct fsck_file *f)
{
	for (size_t i = 0; f->has_super && i < json_object_array_length(files); i++) {
		json_object *o = json_object_array_get_idx(files, i);
		json_object *mine = json_object_new_object();
		bool same;

		add_uuid(mine, f->super.set_uuid);
		same = !strcmp(ctl_str(o, "set_uuid"), ctl_str(mine, "set_uuid"));
		json_object_put(mine);
		if (ctl_has(o, "set_uuid") && same && ctl_u64(o, "index") == f->super.index)
			on_fault(r, 0, "it has the number of another file of its set");
	}
}

/* ------------------------------------------------------------------ showing */

static const struct ctl_col space_cols[] = {
	{ "space",	"space",	CTL_STR,	true,	NULL },
	{ "tenant",	"tenant",	CTL_STR,	true,	NULL },
	{ "epoch",	"epoch",	CTL_NUM,	true,	NULL },
	{ "blocks",	"blocks",	CTL_NUM,	true,	NULL },
	{ "size",	"live_bytes",	CTL_BYTES,	true,	NULL },
	{ "file",	"file",		CTL_STR,	true,	NULL },
	{ 0 },
};

static void print_file(const struct ctl *k, json_object *f)
{
	char size[32], segment[32], live[32];

	ctl_fmt_bytes(k, ctl_u64(f, "size_bytes"), size, sizeof(size));
	ctl_fmt_bytes(k, ctl_u64(f, "segment_bytes"), segment, sizeof(segment));
	ctl_fmt_bytes(k, ctl_u64(f, "live_bytes"), live, sizeof(live));
	if (!ctl_has(f, "version")) {
		printf("%s: %s, no right superblock\n", ctl_str(f, "file"), size);
		return;
	}
	printf("%s: %s, file %llu of %s, segments of %s: %s sealed, %s open, %s free, %s bad\n",
	       ctl_str(f, "file"), size, (unsigned long long)ctl_u64(f, "index") + 1,
	       ctl_str(f, "nr_files"), segment, ctl_str(f, "segments_sealed"),
	       ctl_str(f, "segments_open"), ctl_str(f, "segments_free"),
	       ctl_str(f, "segments_bad"));
	printf("%s: blocks %s live (%s), %s dropped, %s of former epochs, %s payloads read\n",
	       ctl_str(f, "file"), ctl_str(f, "blocks_live"), live, ctl_str(f, "blocks_dropped"),
	       ctl_str(f, "blocks_old"), ctl_str(f, "blocks_verified"));
}

static int print_doc(struct ctl *k, json_object *doc)
{
	json_object *files = ctl_get(doc, "files"), *faults = ctl_get(doc, "faults");
	uint64_t nr = ctl_u64(doc, "nr_faults");
	int ret = CTL_OK;

	for (size_t i = 0; i < json_object_array_length(files); i++)
		print_file(k, json_object_array_get_idx(files, i));
	if (json_object_array_length(ctl_get(doc, "spaces")))
		ret = ctl_table(k, doc, "spaces", space_cols);
	for (size_t i = 0; i < json_object_array_length(faults); i++) {
		json_object *row = json_object_array_get_idx(faults, i);

		printf("fault: %s: offset %s: %s\n", ctl_str(row, "file"),
		       ctl_str(row, "offset_bytes"), ctl_str(row, "message"));
	}
	if (nr)
		printf("%llu faults\n", (unsigned long long)nr);
	else
		printf("clean\n");
	return ret;
}

/* ------------------------------------------------------------------ the verb */

static int walk_one(struct ctl *k, struct run *r, struct fsck_file *f, json_object *doc)
{
	const struct fsck_ops ops = {
		.data = k->data, .fault = on_fault, .progress = on_progress, .ctx = r,
	};
	int err = fsck_walk(r->path, &ops, f);

	clear_progress(r);
	if (err)
		return ctl_fail(CTL_REFUSED, "%s: %s", r->path,
				err == -EINVAL ? "neither a file nor a block device" :
				strerror(-err));
	if (f->locked)
		ctl_fail(0, "%s: a daemon has it: what it is writing may look like a fault",
			 r->path);
	check_set(r, ctl_get(doc, "files"), f);
	json_object_array_add(ctl_get(doc, "files"), file_row(f, r->path));
	add_spaces(ctl_get(doc, "spaces"), f, r->path);
	return CTL_OK;
}

static int fsck_files(struct ctl *k, int nr, char **paths)
{
	json_object *doc = json_object_new_object();
	struct fsck_file *f = malloc(sizeof(*f));
	struct run r = { .tty = isatty(STDERR_FILENO) };
	int ret = f ? CTL_OK : ctl_fail(CTL_REFUSED, "out of memory");

	r.faults = json_object_new_array();
	json_object_object_add(doc, "schema", json_object_new_int(1));
	json_object_object_add(doc, "files", json_object_new_array());
	json_object_object_add(doc, "spaces", json_object_new_array());
	json_object_object_add(doc, "faults", r.faults);
	for (int i = 0; !ret && i < nr; i++) {
		r.path = paths[i];
		ret = walk_one(k, &r, f, doc);
	}
	add_num(doc, "nr_faults", r.nr_faults);
	add_bool(doc, "clean", !r.nr_faults);
	if (!ret && k->json)
		ctl_print_json(doc);
	else if (!ret)
		ret = print_doc(k, doc);
	json_object_put(doc);
	free(f);
	return !ret && r.nr_faults ? CTL_REFUSED : ret;
}

static int fsck_run(struct ctl *k, int argc, char **argv)
{
	if (argc)
		return fsck_files(k, argc, argv);
	if (k->data)
		return ctl_usage("--data is for files: name them");
	return ctl_act(k, "check", "run", NULL, "everything agrees; records: ", "records");
}

const struct ctl_verb ctl_fsck_verbs[] = {
	{ "run", "[FILE...]", 0, MAX_FILES, "onbD",
	  "check files of the disk tier without a daemon; without files: the live daemon",
	  fsck_run },
	{ 0 },
};
