// SPDX-License-Identifier: GPL-2.0
/* What kmalloc() is made of depends on the size, and on whether the compiler knows it. */
#include "common.h"

#define ORDERS 11

#define constant(n) do {			\
		KEEP(kmalloc(n, GFP_KERNEL));	\
		kfree(kept);			\
	} while (0)

static int __init sizes_init(void)
{
	return 0;
}

// RUN
// TOTAL allocations=55 leaks=0 wrong-frees=0
static void __exit sizes_exit(void)
{
	gfp_t flags = GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;
	int i;

	for (i = 0; i < 2; i++)
		__free_pages(alloc_pages(GFP_KERNEL, i), i);
	constant(1);
	constant(8);
	constant(16);
	constant(32);
	constant(64);
	constant(96);
	constant(128);
	constant(192);
	constant(256);
	constant(512);
	constant(1 << 10);
	constant(2 << 10);
	constant(4 << 10);
	constant(8 << 10);
	constant(16 << 10);
	constant(32 << 10);
	constant(64 << 10);
	constant(128 << 10);
	for (i = 0; i < 13; i++)
		kfree(kmalloc(1 << i, GFP_KERNEL));
	for (i = 0; i < ORDERS; i++) {
		struct page *p = alloc_pages(flags, i);

		if (p)
			__free_pages(p, i);
		kfree(kmalloc(PAGE_SIZE << i, flags));
	}
}

module_init(sizes_init);
module_exit(sizes_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: all sizes");
