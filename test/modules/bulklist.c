// SPDX-License-Identifier: GPL-2.0
/* Pages put on a list: those of a list that is lost are lost. */
#include "common.h"
#include <linux/pagemap.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
// TOTAL allocations=4 leaks=2 wrong-frees=0
static noinline void lists(void)
{
	LIST_HEAD(kept_list);
	LIST_HEAD(list);

	alloc_pages_bulk_list(GFP_KERNEL, 2, &kept_list); // LEAK 4096 page x2
	alloc_pages_bulk_list(GFP_KERNEL, 2, &list);
	put_pages_list(&list);
}
#else
// TOTAL allocations=0 leaks=0 wrong-frees=0
static void lists(void)
{
}
#endif

// RUN
static int __init bulklist_init(void)
{
	lists();
	return 0;
}

static void __exit bulklist_exit(void)
{
}

module_init(bulklist_init);
module_exit(bulklist_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: a list of pages");
