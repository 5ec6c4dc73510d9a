// SPDX-License-Identifier: GPL-2.0
/* Bitmaps. */
#include "common.h"
#include <linux/bitmap.h>

// TOTAL allocations=4 leaks=2
static noinline void bitmaps(void)
{
	KEEP(bitmap_alloc(100, GFP_KERNEL)); // LEAK 16 slab
	KEEP(bitmap_zalloc(1000, GFP_KERNEL)); // LEAK 128 slab
	bitmap_free(bitmap_alloc(100, GFP_KERNEL));
	bitmap_free(bitmap_zalloc(1000, GFP_KERNEL));
	bitmap_free(NULL);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
// TOTAL allocations=4 leaks=2
static noinline void of_a_node(void)
{
	KEEP(bitmap_alloc_node(200, GFP_KERNEL, 0)); // LEAK 32/28 slab
	KEEP(bitmap_zalloc_node(2000, GFP_KERNEL, 0)); // LEAK 256/252 slab
	bitmap_free(bitmap_alloc_node(200, GFP_KERNEL, 0));
	bitmap_free(bitmap_zalloc_node(2000, GFP_KERNEL, 0));
}
#else
static void of_a_node(void) { }
#endif

// RUN
static int __init bitmap_init(void)
{
	bitmaps();
	of_a_node();
	return 0;
}

static void __exit bitmap_exit(void)
{
}

module_init(bitmap_init);
module_exit(bitmap_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: bitmaps");
