// SPDX-License-Identifier: GPL-2.0
/* Gives back what leaker.ko has forgotten: forgotten=<slab>,<pages>,<vmalloc>,<slab>. */
#include "common.h"

static unsigned long forgotten[4];
module_param_array(forgotten, ulong, NULL, 0);

// TOTAL allocations=0 leaks=0 wrong-frees=4
static int __init cleaner_init(void)
{
	kfree((void *)forgotten[0]); // WRONG-FREE slab
	if (forgotten[1])
		free_pages(forgotten[1], 3); // WRONG-FREE page
	vfree((void *)forgotten[2]); // WRONG-FREE vmalloc
	kfree((void *)forgotten[3]); // WRONG-FREE slab
	KEEP(NULL);
	return 0;
}

static void __exit cleaner_exit(void)
{
}

module_init(cleaner_init);
module_exit(cleaner_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: gives back what another has forgotten");
