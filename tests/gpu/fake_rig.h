/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_rig.h - the fake driver's own functions, and a state file for each test.
 */
#ifndef KVMD_TESTS_GPU_FAKE_RIG_H
#define KVMD_TESTS_GPU_FAKE_RIG_H

#include "tests/fakecuda/fakecuda.h"
#include "tests/gpu/driver_rig.h"

#define PART	65536u

TCase *fake_case(Suite *s, const char *name);	/* with the fixture: a state file */
bool fake_is_loaded(void);			/* false, and said so: not the fake */
void fake_told(const char *text);		/* before the driver is opened */
const char *fake_state(void);
struct fakecuda_sum fake_sum(void);
int fake_hold(cu_ptr p, size_t n, bool write);
int fake_unhold(cu_ptr p);
uint64_t fake_calls(const char *name);
void fake_unhang(void);
char *fake_peek(cu_ptr p);
cu_stream fake_stream(struct cr *r);		/* one more */

#endif
