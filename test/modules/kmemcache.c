// SPDX-License-Identifier: GPL-2.0
/* Caches that are destroyed, and some that are not. */
#include "common.h"
#include <linux/ktime.h>

/* What leaks keeps its name, and the next load must find another. */
static const char *name(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "kedr-%llx", (u64)ktime_get_ns());
	return text;
}

struct kedr_object {
	long of[13];
};

// TOTAL allocations=3 leaks=3
static noinline void leak_caches(void)
{
	/* None that the kernel would merge with another. */
	KEEP(kmem_cache_create_usercopy(name(), 136, 0, 0, 0, 136, NULL)); // LEAK ? kmem_cache
	KEEP(kmem_cache_create(name(), 144, 0, SLAB_TYPESAFE_BY_RCU, NULL)); // LEAK ? kmem_cache
	KEEP(kmem_cache_create(name(), 152, 8, SLAB_TYPESAFE_BY_RCU, NULL)); // LEAK ? kmem_cache
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
// TOTAL allocations=2 leaks=1
static noinline void by_arguments(void)
{
	struct kmem_cache_args args = { .align = 8, .usersize = 8 };

	KEEP(kmem_cache_create(name(), 160, &args, 0)); // LEAK ? kmem_cache
	kmem_cache_destroy(kmem_cache_create(name(), 160, &args, 0));
}
#else
static void by_arguments(void) { }
#endif

// TOTAL allocations=3
static noinline void destroy_caches(void)
{
	kmem_cache_destroy(kmem_cache_create_usercopy(name(), 136, 0, 0, 0, 136, NULL));
	kmem_cache_destroy(kmem_cache_create(name(), 144, 0, SLAB_TYPESAFE_BY_RCU, NULL));
	kmem_cache_destroy(KMEM_CACHE(kedr_object, SLAB_TYPESAFE_BY_RCU));
	kmem_cache_destroy(NULL);
}

/* A cache and what comes from it are different things. */
// TOTAL allocations=3 leaks=1
static noinline void use_cache(void)
{
	struct kmem_cache *c;
	void *p;

	c = kmem_cache_create_usercopy(name(), 168, 0, 0, 0, 168, NULL); // LEAK ? kmem_cache
	if (!c)
		return;
	p = kmem_cache_alloc(c, GFP_KERNEL);
	kmem_cache_free(c, p);
	p = kmem_cache_zalloc(c, GFP_KERNEL);
	kmem_cache_free(c, p);
}

// RUN
static int __init kmemcache_init(void)
{
	leak_caches();
	by_arguments();
	destroy_caches();
	use_cache();
	return 0;
}

static void __exit kmemcache_exit(void)
{
}

module_init(kmemcache_init);
module_exit(kmemcache_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: caches");
