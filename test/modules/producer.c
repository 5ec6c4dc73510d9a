// SPDX-License-Identifier: GPL-2.0
/* Obtains what consumer.ko gives back: freed by another module, that is no leak. */
#include "common.h"

void *kedr_produce(void);

void *kedr_produce(void)
{
	void *p = kmalloc(80, GFP_KERNEL);

	KEEP(p);
	return p;
}
EXPORT_SYMBOL(kedr_produce);

// TOTAL allocations=3 leaks=0 wrong-frees=0
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
