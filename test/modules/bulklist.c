// SPDX-License-Identifier: GPL-2.0
/*
 * Pages put on a list: nothing tells which these are, and a report that does not
 * know must say so.
 */
#include "common.h"
#include <linux/pagemap.h>

static int __init bulklist_init(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
	LIST_HEAD(kept_list);
	LIST_HEAD(list);

	alloc_pages_bulk_list(GFP_KERNEL, 2, &kept_list);
	alloc_pages_bulk_list(GFP_KERNEL, 2, &list);
	put_pages_list(&list);
#endif
	return 0;
}

static void __exit bulklist_exit(void)
{
}

module_init(bulklist_init);
module_exit(bulklist_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: a list of pages");
