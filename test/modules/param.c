// SPDX-License-Identifier: GPL-2.0
/* Parameters: one whose setter allocates, which is before init, and a count. */
#include "common.h"

static int set_early(const char *val, const struct kernel_param *kp)
{
	KEEP(kmalloc(70, GFP_KERNEL)); // LEAK 70 slab
	return 0;
}

static const struct kernel_param_ops early_ops = { .set = set_early };
module_param_cb(early, &early_ops, NULL, 0);

static int count;
module_param(count, int, 0);

// RUN early=1 count=3
// TOTAL allocations=4 leaks=4 wrong-frees=0
static int __init param_init(void)
{
	int i;

	for (i = 0; i < count; i++)
		KEEP(kmalloc(71, GFP_KERNEL)); // LEAK 71 slab x3
	return 0;
}

static void __exit param_exit(void)
{
}

module_init(param_init);
module_exit(param_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: parameters");
