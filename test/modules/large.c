// SPDX-License-Identifier: GPL-2.0
/* Copies that are larger than the slab allocator's own blocks. */
#include "common.h"
#include <linux/string.h>

static char buffer[20000];

// RUN
// TOTAL allocations=4 leaks=2
static int __init large_init(void)
{
	memset(buffer, 'x', sizeof(buffer) - 1);
	KEEP(kmemdup(buffer, 10000, GFP_KERNEL)); // LEAK 10000 slab
	KEEP(kstrdup(buffer, GFP_KERNEL)); // LEAK 20000 slab
	kfree(kmemdup(buffer, 10001, GFP_KERNEL));
	kfree(kstrdup(buffer, GFP_KERNEL));
	return 0;
}

static void __exit large_exit(void)
{
}

module_init(large_init);
module_exit(large_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: large copies");
