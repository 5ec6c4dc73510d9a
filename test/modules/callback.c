// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel calls a function which ends in a jump to an allocator: that returns to
 * the kernel, and nothing but the jump tells whose allocation it was.
 */
#include "common.h"
#include <linux/workqueue.h>

static void in_work(struct work_struct *work)
{
	vmalloc(501); // LEAK 501 vmalloc
}

/* Called by the module itself, the like is seen. */
static noinline void in_order(void)
{
	vmalloc(502); // LEAK 502 vmalloc
}

static DECLARE_WORK(work, in_work);

// TOTAL allocations=2 leaks=2
static int __init callback_init(void)
{
	schedule_work(&work);
	flush_work(&work);
	in_order();
	KEEP(NULL);
	return 0;
}

static void __exit callback_exit(void)
{
}

module_init(callback_init);
module_exit(callback_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: a callback that ends in an allocation");
