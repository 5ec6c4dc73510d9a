// SPDX-License-Identifier: GPL-2.0
/*
 * Obtains and releases when it is told to, through its parameters: hold (that many
 * objects more), drop (all are given back), churn (that many are obtained, each in the
 * place of an older one, so that 2000 are out).
 */
#include "common.h"
#include <linux/delay.h>
#include <linux/list.h>

struct held {
	struct list_head link;
	char rest[48];
};

static LIST_HEAD(all);

static int set_hold(const char *val, const struct kernel_param *kp)
{
	unsigned int n;
	int err = kstrtouint(val, 0, &n);

	while (!err && n--) {
		struct held *h = kmalloc(sizeof(*h), GFP_KERNEL);

		if (!h)
			return -ENOMEM;
		list_add(&h->link, &all);
	}
	return err;
}

static void *ring[2000];
static unsigned int next;

static int set_churn(const char *val, const struct kernel_param *kp)
{
	unsigned int n;
	int err = kstrtouint(val, 0, &n);

	for (; !err && n; n--, next++) {
		void **p = &ring[next % ARRAY_SIZE(ring)];

		kfree(*p);
		*p = kmalloc(200, GFP_KERNEL);
		if (n % 20 == 0)
			usleep_range(50, 100); /* or RCU, and a clear, waits for the end */
	}
	return err;
}

static void drop(void)
{
	struct held *h, *next;
	int i;

	list_for_each_entry_safe(h, next, &all, link)
		kfree(h);
	INIT_LIST_HEAD(&all);
	for (i = 0; i < ARRAY_SIZE(ring); i++) {
		kfree(ring[i]);
		ring[i] = NULL;
	}
}

static int set_drop(const char *val, const struct kernel_param *kp)
{
	drop();
	return 0;
}

static const struct kernel_param_ops hold_ops = { .set = set_hold };
static const struct kernel_param_ops drop_ops = { .set = set_drop };
static const struct kernel_param_ops churn_ops = { .set = set_churn };
module_param_cb(hold, &hold_ops, NULL, 0200);
module_param_cb(drop, &drop_ops, NULL, 0200);
module_param_cb(churn, &churn_ops, NULL, 0200);

// TOTAL allocations=0 leaks=0 wrong-frees=0
static int __init lifecycle_init(void)
{
	return 0;
}

static void __exit lifecycle_exit(void)
{
}

module_init(lifecycle_init);
module_exit(lifecycle_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: does what it is told to");
