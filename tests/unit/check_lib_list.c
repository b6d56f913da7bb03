// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_list.c - the intrusive list.
 */
#include "kvmd/lib/list.h"

#include <check.h>

#include "tests/suite.h"

struct item {
	int v;
	struct list node;
};

static int sum_in_order(const struct list *head)
{
	const struct list *pos;
	int order = 0;

	list_for_each(pos, head)
		order = order * 10 + container_of(pos, const struct item, node)->v;
	return order;
}

START_TEST(new_list_is_empty)
{
	struct list head;

	list_init(&head);
	ck_assert(list_empty(&head));
	ck_assert_int_eq(sum_in_order(&head), 0);
}
END_TEST

START_TEST(order_of_add_and_add_tail)
{
	struct item a = { .v = 1 }, b = { .v = 2 }, c = { .v = 3 };
	struct list head;

	list_init(&head);
	list_add_tail(&a.node, &head);
	list_add_tail(&b.node, &head);
	list_add(&c.node, &head);
	ck_assert_int_eq(sum_in_order(&head), 312);
	ck_assert_ptr_eq(list_first(&head, struct item, node), &c);
}
END_TEST

START_TEST(delete_leaves_the_node_empty)
{
	struct item a = { .v = 1 }, b = { .v = 2 }, c = { .v = 3 };
	struct list head;

	list_init(&head);
	list_add_tail(&a.node, &head);
	list_add_tail(&b.node, &head);
	list_add_tail(&c.node, &head);
	list_del(&b.node);
	ck_assert(list_empty(&b.node));
	ck_assert_int_eq(sum_in_order(&head), 13);
	list_del(&b.node);
	ck_assert_int_eq(sum_in_order(&head), 13);
	list_del(&a.node);
	list_del(&c.node);
	ck_assert(list_empty(&head));
}
END_TEST

START_TEST(delete_while_walking)
{
	struct item items[9];
	struct list head, *pos, *tmp;
	int i;

	list_init(&head);
	for (i = 0; i < 9; i++) {
		items[i].v = i + 1;
		list_add_tail(&items[i].node, &head);
	}
	list_for_each_safe(pos, tmp, &head) {
		if (list_entry(pos, struct item, node)->v % 2 == 0)
			list_del(pos);
	}
	ck_assert_int_eq(sum_in_order(&head), 13579);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_list");

	add(s, "new list is empty", new_list_is_empty);
	add(s, "order of add and add tail", order_of_add_and_add_tail);
	add(s, "delete leaves the node empty", delete_leaves_the_node_empty);
	add(s, "delete while walking", delete_while_walking);

	return suite_run(s);
}
