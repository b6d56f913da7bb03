/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_start.c - starting, reloading, restarting: sockets, configuration files,
 * and clients that see their daemon go and come.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nslab_deadline = 5ms\n"

static struct hd d;
static char out[8192];

/* kvmd [@opt] -c @conf, until it exits. */
static int run(const char *conf, const char *opt)
{
	char name[] = "kvmd", flag[] = "-c", path[128], first[8];

	snprintf(path, sizeof(path), "%s", conf);
	snprintf(first, sizeof(first), "%s", opt ? opt : flag);
	return kvmd_run(opt ? (char *[]){ name, first, flag, path, NULL } :
			(char *[]){ name, flag, path, NULL }, out, sizeof(out));
}

static void write_conf(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	T(f && fputs(text, f) >= 0 && !fclose(f));
}

/* The kernel closes a killed daemon's socket a moment after its process ended. */
static bool is_gone(int err)
{
	return err == -ECONNREFUSED || err == -ECONNRESET;
}

/* ---------------------------------------------------------------- configuration */

static const struct {
	const char *text, *says;
} bad_conf[] = {
	{ "[pool]\nblocks = many\n", ":2" },
	{ "[pool]\n\n# a remark\nblokcs = 1\n", ":4" },
	{ "[nothing]\nx = 1\n", ":1" },
	{ "[daemon]\nspin = 3 parsecs\n", ":2" },
	{ "[pool]\nblocks 17\n", ":2" },
	{ "[daemon]\nclock = sundial\n", ":2" },
	{ "[daemon]\nworkers = 65\n", ":2" },
	{ "[pool]\nwmark_low = 10%\nwmark_high = 5%\n", "wmark" },
	{ "[daemon]\nsocket_mode = 888\n", "socket_mode" },
	{ "[tenant a]\nhbm_min = 2M\nhbm_max = 1M\n", "tenant a" },
	{ "[tenant a]\nuids = nosuchuser!\n", "nosuchuser!" },
	{ "[device d]\nkind = abacus\n", "abacus" },
};

START_TEST(a_malformed_configuration_names_its_line)
{
	const char *tmp = getenv("TMPDIR");
	char path[128], place[160];

	snprintf(path, sizeof(path), "%s/bad.%d.conf", tmp ? tmp : "/tmp", getpid());
	for (size_t i = 0; i < sizeof(bad_conf) / sizeof(bad_conf[0]); i++) {
		write_conf(path, bad_conf[i].text);
		T(run(path, "-n") != 0);
		snprintf(place, sizeof(place), "%s%s",
			 bad_conf[i].says[0] == ':' ? path : "", bad_conf[i].says);
		if (!strstr(out, place))
			fprintf(stderr, "case %zu: %s\n", i, out);
		T(strstr(out, place));
	}
	write_conf(path, POOL "[tenant a]\nhbm_min = 1M\n");
	T_EQ(run(path, "-n"), 0);
	T_EQ(out[0], 0);
	unlink(path);
	T(run(path, "-n") != 0);
	T(strstr(out, path));
}
END_TEST

START_TEST(an_unknown_option_is_a_usage_error)
{
	T_EQ(kvmd_run((char *[]){ (char *)"kvmd", (char *)"-z", NULL }, out, sizeof(out)), 2);
	T_EQ(kvmd_run((char *[]){ (char *)"kvmd", (char *)"word", NULL }, out, sizeof(out)), 2);
	T_EQ(kvmd_run((char *[]){ (char *)"kvmd", (char *)"-V", NULL }, out, sizeof(out)), 0);
	T(strstr(out, "kvmd "));
}
END_TEST

START_TEST(a_reload_takes_what_is_good_and_refuses_what_is_bad)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k, *more;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	hd_conf(&d, POOL "[tenant default]\nmax_sessions = 1\n[tenant late]\n");
	T(!kill(d.pid, SIGHUP));
	hd_said(&d, "configuration reloaded");
	plain_space(&s, "sp2", 64);
	opts_for(&d, &o);
	T_EQ(kvc_create(&o, &s, &more), -EDQUOT);
	o.tenant = "late";
	more = client_opts(&d, &s, &o);
	hd_conf(&d, POOL "alloc_timeout = soon\n");
	T(!kill(d.pid, SIGHUP));
	hd_said(&d, "the configuration in force stays");
	T(strstr(d.text, "conf:8"));
	hd_conf(&d, POOL "nodes = 1000\n");
	T(!kill(d.pid, SIGHUP));
	hd_said(&d, "pool.nodes stays 65536 until the next start");
	hd_said(&d, "configuration reloaded");
	T_EQ(kvc_nop(k), 0);
	T_EQ(kvc_nop(more), 0);
	kvc_destroy(k);
	kvc_destroy(more);
	hd_stop(&d);
}
END_TEST

/* A reload whose second tenant is impossible changed the first one all the same. */
START_TEST(a_bad_reload_changes_nothing)
{
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	hd_conf(&d, POOL "[tenant default]\nhbm_max = 4K\n[tenant b]\nhbm_min = 2M\nhbm_max = 1M\n");
	T(!kill(d.pid, SIGHUP));
	hd_said(&d, "the configuration in force stays");
	open_extend(k, 1, 8, 0);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------------ sockets */

START_TEST(a_second_daemon_does_not_take_the_socket)
{
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	T(run(d.conf, NULL) != 0);
	T(strstr(out, d.sock) && strstr(out, "another daemon serves it"));
	T_EQ(kvc_nop(k), 0);
	kvc_destroy(k);
	k = plain_client(&d, "sp", 64);		/* nor did it remove it */
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_path_that_is_no_socket_is_left_alone)
{
	struct stat st;
	FILE *f;

	hd_start(&d, POOL);
	T_EQ(hd_end(&d), 0);
	f = fopen(d.sock, "w");
	T(f && !fclose(f));
	T(run(d.conf, NULL) != 0);
	T(strstr(out, d.sock) && strstr(out, "no socket"));
	T(!stat(d.sock, &st) && S_ISREG(st.st_mode));
	hd_remove(&d);
}
END_TEST

START_TEST(a_socket_that_nobody_serves_is_replaced)
{
	struct stat st;
	struct kvc *k;

	hd_start(&d, POOL);
	hd_kill(&d);
	T(!stat(d.sock, &st) && S_ISSOCK(st.st_mode));
	hd_run(&d);
	k = plain_client(&d, "sp", 64);
	T_EQ(kvc_nop(k), 0);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_stopped_daemon_leaves_no_socket)
{
	struct stat st;

	hd_start(&d, POOL);
	T(!stat(d.sock, &st));
	T_EQ(hd_end(&d), 0);
	T(stat(d.sock, &st) && errno == ENOENT);
	hd_remove(&d);
}
END_TEST

START_TEST(without_a_daemon_there_is_an_error_at_once)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	hd_start(&d, POOL);
	T_EQ(hd_end(&d), 0);
	plain_space(&s, "sp", 64);
	opts_for(&d, &o);
	T_EQ(kvc_create(&o, &s, &k), -ENOENT);
	hd_run(&d);
	hd_kill(&d);
	T(is_gone(kvc_create(&o, &s, &k)));
	hd_remove(&d);
}
END_TEST

/* ------------------------------------------------------------------------ restart */

START_TEST(a_client_survives_its_daemon)
{
	unsigned char keys[4][KEY];
	struct kvc *k;
	int32_t slot;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 4, 3);
	slot = slot_at(k, 0, 1, 2);
	hd_kill(&d);
	T_EQ(kvc_nop(k), -ECONNRESET);
	T_EQ(kvc_nop(k), -ECONNRESET);
	T(is_gone(kvc_reconnect(k)));
	/* What it holds can still be read. */
	T_EQ(slot_at(k, 0, 1, 2), slot);
	T(holds(k, 0, (uint32_t)slot, (3 << 8) + 2));
	hd_run(&d);
	T_EQ(kvc_reconnect(k), 0);
	T_EQ(kvc_reconnect(k), -EISCONN);
	make_keys(keys, 3, 0, 4);
	T_EQ(kvc_seq_open(k, 1, 1, keys, 4, 4 * BT, 0, 0, NULL), 0);	/* memory only: cold */
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	open_publish(k, 1, 4, 3);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 2), (3 << 8) + 2));
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_daemon_that_is_stopped_tells_its_clients)
{
	const struct kvmd_cqe *c;
	struct kvmd_sqe *e;
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 8);
	open_extend(k, 1, 8, 0);
	e = kvc_get_sqe(k);
	kvc_prep_extend(e, 1, 1, 0, 8, test_now_ns() + WAIT_NS);
	T_EQ(kvc_submit(k), 1);
	T_EQ(hd_end(&d), 0);
	/* The allocation that waited is unanswered: the end comes instead. */
	T_EQ(kvc_wait_cqe(k, WAIT_NS, &c), -ECONNRESET);
	kvc_destroy(k);
	hd_remove(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("start");
	TCase *t = tcase_create("start");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_malformed_configuration_names_its_line);
	tcase_add_test(t, an_unknown_option_is_a_usage_error);
	tcase_add_test(t, a_reload_takes_what_is_good_and_refuses_what_is_bad);
	tcase_add_test(t, a_bad_reload_changes_nothing);
	tcase_add_test(t, a_second_daemon_does_not_take_the_socket);
	tcase_add_test(t, a_path_that_is_no_socket_is_left_alone);
	tcase_add_test(t, a_socket_that_nobody_serves_is_replaced);
	tcase_add_test(t, a_stopped_daemon_leaves_no_socket);
	tcase_add_test(t, without_a_daemon_there_is_an_error_at_once);
	tcase_add_test(t, a_client_survives_its_daemon);
	tcase_add_test(t, a_daemon_that_is_stopped_tells_its_clients);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
