// SPDX-License-Identifier: GPL-2.0
/* Gives back what producer.ko has obtained for it. */
#include "common.h"

void *kedr_produce(void);

// TOTAL allocations=0 leaks=0 wrong-frees=3
static int __init consumer_init(void)
{
	int i;

	for (i = 0; i < 3; i++)
		kfree(kedr_produce()); // WRONG-FREE slab x3
	return 0;
}

static void __exit consumer_exit(void)
{
}

module_init(consumer_init);
module_exit(consumer_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: the other of two");
