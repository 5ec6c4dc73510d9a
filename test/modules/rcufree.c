// SPDX-License-Identifier: GPL-2.0
/* Given back after a grace period: by a callback that ends in kfree(), and by RCU itself. */
#include "common.h"

struct item {
	int payload;
	struct rcu_head rcu;
};

static void release(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct item, rcu));
}

// RUN
// TOTAL allocations=2 leaks=0 wrong-frees=0
static int __init rcufree_init(void)
{
	struct item *a = kzalloc(sizeof(*a), GFP_KERNEL), *b = kzalloc(sizeof(*b), GFP_KERNEL);

	if (a)
		call_rcu(&a->rcu, release);
	if (b)
		kfree_rcu(b, rcu);
	return 0;
}

static void __exit rcufree_exit(void)
{
	rcu_barrier();
}

module_init(rcufree_init);
module_exit(rcufree_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: RCU");
