// SPDX-License-Identifier: GPL-2.0
/* Objects of different sizes with one call stack, and wrong frees with one. */
#include "common.h"

static noinline void one(int n)
{
	KEEP(kmalloc(100 + n, GFP_KERNEL)); // LEAK 101,102,103,104 slab stack=one*,group*,groups_init
}

/* Known to the compiler, it would be as many calls. */
static volatile int four = 4;

static noinline void group(void)
{
	int i;

	for (i = 1; i <= four; i++)
		one(i);
}

static noinline void wrong(void *p)
{
	kfree(p); // WRONG-FREE slab x3
	KEEP(NULL);
}

static noinline void pairs(void)
{
	kfree(kmalloc(200, GFP_KERNEL));
	KEEP(kmalloc(201, GFP_KERNEL)); // LEAK 201 slab
	KEEP(vmalloc(202)); // LEAK 202 vmalloc
}

// RUN
// TOTAL allocations=7 leaks=6 wrong-frees=3
static int __init groups_init(void)
{
	int i;

	group();
	for (i = 1; i < four; i++)
		wrong(kedr_helper_kmalloc(50));
	pairs();
	return 0;
}

static void __exit groups_exit(void)
{
}

module_init(groups_init);
module_exit(groups_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: many with one call stack");
