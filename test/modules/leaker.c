// SPDX-License-Identifier: GPL-2.0
/*
 * Forgets four of its objects, and says where they are for cleaner.ko to give back:
 * /sys/module/leaker/parameters/forgotten.
 */
#include "common.h"

static unsigned long forgotten[4];
module_param_array(forgotten, ulong, NULL, 0444);

static noinline void *last_of_13(void)
{
	void *p[13];
	int i;

	for (i = 0; i < ARRAY_SIZE(p); i++)
		p[i] = kmalloc(40, GFP_KERNEL); // LEAK 40 slab
	for (i = 0; i < ARRAY_SIZE(p) - 1; i++)
		kfree(p[i]);
	return p[i];
}

// RUN
// TOTAL allocations=16 leaks=4 wrong-frees=0
static int __init leaker_init(void)
{
	static const char text[40] = "text";

	forgotten[0] = (unsigned long)last_of_13();
	forgotten[1] = __get_free_pages(GFP_KERNEL, 3); // LEAK 32768 page
	forgotten[2] = (unsigned long)vmalloc(40); // LEAK 40 vmalloc
	forgotten[3] = (unsigned long)kmemdup(text, sizeof(text), GFP_KERNEL); // LEAK 40 slab
	return 0;
}

static void __exit leaker_exit(void)
{
}

module_init(leaker_init);
module_exit(leaker_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: forgets four objects");
