// SPDX-License-Identifier: GPL-2.0
/* An allocation in a timer, and one at the bottom of a deep recursion. */
#include "common.h"
#include <linux/timer.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define timer_delete_sync del_timer_sync
#endif

static void in_timer(struct timer_list *timer)
{
	KEEP(kmalloc(48, GFP_ATOMIC)); // LEAK 48 slab irq
}

static noinline void dive(int depth)
{
	if (depth > 1)
		dive(depth - 1);
	else
		KEEP(kmalloc(64, GFP_KERNEL)); // LEAK 64 slab stack=dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*,dive*
	KEEP(NULL);
}

static DEFINE_TIMER(timer, in_timer);

// RUN
// TOTAL allocations=2 leaks=2 wrong-frees=0
static int __init deep_init(void)
{
	mod_timer(&timer, jiffies + 1);
	dive(21);
	while (timer_pending(&timer))
		schedule_timeout_uninterruptible(1);
	return 0;
}

static void __exit deep_exit(void)
{
	timer_delete_sync(&timer);
}

module_init(deep_init);
module_exit(deep_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: deep stacks");
