// SPDX-License-Identifier: GPL-2.0
/* Allocates from the init area, which is gone when the report is made. */
#include "common.h"

static noinline void *__init deep(unsigned long n)
{
	void *p = vmalloc(n); // LEAK 401 vmalloc stack=deep*,inittext_init

	KEEP(p);
	return p;
}

// RUN
// TOTAL allocations=1 leaks=1 wrong-frees=0
static int __init inittext_init(void)
{
	deep(401);
	return 0;
}

static void __exit inittext_exit(void)
{
}

module_init(inittext_init);
module_exit(inittext_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: init text");
