// SPDX-License-Identifier: GPL-2.0
/* Obtains what consumer.ko gives back: a leak, if only one of them is watched. */
#include "common.h"

void *kedr_produce(void);

void *kedr_produce(void)
{
	void *p = kmalloc(80, GFP_KERNEL); // LEAK 80 slab x3

	KEEP(p);
	return p;
}
EXPORT_SYMBOL(kedr_produce);

// TOTAL allocations=3 leaks=3 wrong-frees=0
static int __init producer_init(void)
{
	return 0;
}

static void __exit producer_exit(void)
{
}

module_init(producer_init);
module_exit(producer_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: one of two");
