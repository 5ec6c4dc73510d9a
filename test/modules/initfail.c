// SPDX-License-Identifier: GPL-2.0
/* Fails to load, and forgets one of the two things that it had by then. */
#include "common.h"

// RUN
// TOTAL allocations=2 leaks=1 wrong-frees=0
static int __init initfail_init(void)
{
	void *p = kmalloc(64, GFP_KERNEL);

	KEEP(kmalloc(65, GFP_KERNEL)); // LEAK 65 slab
	kfree(p);
	return -EINVAL;
}

module_init(initfail_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: init fails");
