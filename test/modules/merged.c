// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel makes one cache of two that are alike, and hands it out twice: it goes
 * when it is destroyed for the second time.
 */
#include "common.h"
#include <linux/ktime.h>

static noinline struct kmem_cache *create(void)
{
	char name[32];

	snprintf(name, sizeof(name), "kedr-%llx", (u64)ktime_get_ns());
	return kmem_cache_create(name, 1256, 0, 0, NULL); // LEAK ? kmem_cache
}

// RUN
// TOTAL allocations=4 leaks=1 wrong-frees=0
static int __init merged_init(void)
{
	struct kmem_cache *a = create(), *b = create();

	kmem_cache_destroy(a);
	kmem_cache_destroy(b);
	a = create();
	b = create();
	kmem_cache_destroy(a);
	KEEP(b);
	return 0;
}

static void __exit merged_exit(void)
{
}

module_init(merged_init);
module_exit(merged_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: caches that are one");
