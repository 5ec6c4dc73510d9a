// SPDX-License-Identifier: GPL-2.0
/* Leaks one object a load. */
#include "common.h"

// TOTAL allocations=2 leaks=1 wrong-frees=0
static int __init reload_init(void)
{
	kfree(kmalloc(32, GFP_KERNEL));
	KEEP(kmalloc(33, GFP_KERNEL)); // LEAK 33 slab
	return 0;
}

static void __exit reload_exit(void)
{
}

module_init(reload_init);
module_exit(reload_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: many loads");
