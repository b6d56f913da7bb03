/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf.h - typed configuration from an INI file (libinih reads the syntax).
 *
 * A caller declares its options in one table: where the value goes (an offset
 * into the caller's struct), its type, range and default. Sections may be
 * plain ("[pool]") or named ("[tenant alice]"): for a named kind the table's
 * resolve() returns the struct to fill. The same table feeds the file, `kvmd
 * -o section.key=value`, `kvctl conf` and the check of kvmd.conf(5).
 * Errors are "FILE:LINE: message", naming the word and what would be right.
 */
#ifndef KVMD_LIB_CONF_H
#define KVMD_LIB_CONF_H

#include "kvmd/lib/base.h"

enum conf_type {
	CONF_BOOL,		/* yes/no, true/false, on/off, 1/0 -> bool */
	CONF_U32,		/* decimal -> uint32_t */
	CONF_U64,		/* decimal -> uint64_t */
	CONF_BYTES,		/* with K M G T (1024) or KiB.. suffix -> uint64_t */
	CONF_TIME,		/* ns us ms s min h suffix, plain = s -> uint64_t ns */
	CONF_PERMILLE,		/* "2%", "2.5%" or "25" permille -> uint32_t permille */
	CONF_STR,		/* -> char *, owned by the config (mem_free) */
	CONF_ENUM,		/* one of .words (NULL-terminated) -> uint32_t index */
	NR_CONF_TYPE
};

struct conf_opt {
	const char *section;	/* "pool"; for named kinds the kind: "tenant" */
	const char *key;
	enum conf_type type;
	size_t offset;		/* of the value in the section's struct */
	const char *def;	/* default, as text; NULL: leave zero */
	uint64_t lo, hi;	/* inclusive range for numbers; hi 0: no limit */
	const char *const *words; /* CONF_ENUM */
	bool reloadable;	/* SIGHUP may change it */
	const char *help;	/* one line, for `kvctl conf` and the manual's check */
};

struct conf_table {
	const struct conf_opt *opts;
	size_t nr_opts;
	/*
	 * The struct that holds [section name]; @name NULL for plain sections.
	 * NULL return: no such section, or no room (message in @msg).
	 */
	void *(*resolve)(void *ctx, const char *section, const char *name,
			 char *msg, size_t msg_bytes);
};

/* Set one section's defaults into @base. 0 or -errno. */
int conf_defaults(const struct conf_table *t, const char *section, void *base);
/* Parse @path into @ctx. -EINVAL or another -errno with @ret_msg filled. */
int conf_load(const struct conf_table *t, void *ctx, const char *path,
	      char *ret_msg, size_t msg_bytes);
/* One assignment "section.key=value" or "kind.name.key=value". */
int conf_set(const struct conf_table *t, void *ctx, const char *assign,
	     char *ret_msg, size_t msg_bytes);
/* Free CONF_STR values of one section's struct. */
void conf_release(const struct conf_table *t, const char *section, void *base);
/* The value of one option as text, as it would be written in the file. */
void conf_format(const struct conf_opt *o, const void *base, char *buf, size_t bytes);

/* The parsers, for tools' options too: 0 or -EINVAL/-ERANGE. */
int conf_parse_bytes(const char *s, uint64_t *ret_bytes);
int conf_parse_time(const char *s, uint64_t *ret_ns);
int conf_parse_u64(const char *s, uint64_t *ret_v);

#endif
