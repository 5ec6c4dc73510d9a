// SPDX-License-Identifier: GPL-2.0
/* The other of two: what west asks for is obtained here, by a jump. */
#include "common.h"
#include "westeast.h"

static void *obtain(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}

static void release(void *p)
{
	kfree(p);
}

/* 805, 807, 809 and 810. */
// TOTAL allocations=4 leaks=1 wrong-frees=0
static int __init east_init(void)
{
	kfree(kedr_west_obtain(801));
	KEEP(kedr_west_obtain(802));
	vfree(kedr_west_jump(803));
	KEEP(kedr_west_jump(804));
	kedr_west_ask(obtain, release);
	kedr_west_release(kmalloc(809, GFP_KERNEL));
	KEEP(kmalloc(810, GFP_KERNEL)); // LEAK 810 slab
	return 0;
}

static void __exit east_exit(void)
{
}

module_init(east_init);
module_exit(east_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: calls west, and is called");
