// SPDX-License-Identifier: GPL-2.0
/* Every function of the slab family, once leaked and once freed. */
#include "common.h"
#include <linux/parser.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#include <linux/hex.h>
#endif

static volatile size_t forty = 40, twenty_thousand = 20000;
static char buffer[10000];

struct with_rcu {
	long payload[4];
	struct rcu_head rcu;
};

// TOTAL allocations=14 leaks=14
static noinline void leak_kmalloc(void)
{
	KEEP(kmalloc(24, GFP_KERNEL)); // LEAK 24 slab
	KEEP(kmalloc(forty, GFP_KERNEL)); // LEAK 40 slab
	KEEP(kmalloc(16384, GFP_KERNEL)); // LEAK 16384 slab
	KEEP(kmalloc(twenty_thousand, GFP_KERNEL)); // LEAK 20000 slab
	KEEP(kzalloc(25, GFP_KERNEL)); // LEAK 25 slab
	KEEP(kcalloc(4, 8, GFP_KERNEL)); // LEAK 32 slab
	KEEP(kmalloc_array(forty, 3, GFP_KERNEL)); // LEAK 120 slab
	KEEP(kmalloc_node(56, GFP_KERNEL, 0)); // LEAK 56 slab
	KEEP(kmalloc_node(forty + 1, GFP_KERNEL, 0)); // LEAK 41 slab
	KEEP(kzalloc_node(57, GFP_KERNEL, 0)); // LEAK 57 slab
	KEEP(kcalloc_node(forty, 2, GFP_KERNEL, 0)); // LEAK 80 slab
	KEEP(kmalloc_track_caller(44, GFP_KERNEL)); // LEAK 44 slab
	KEEP(kmalloc_track_caller(twenty_thousand, GFP_KERNEL)); // LEAK 20000 slab
	KEEP(kmalloc_node_track_caller(45, GFP_KERNEL, 0)); // LEAK 45 slab
}

#ifdef kfree_rcu_mightsleep
#define kfree_rcu_wait(p) kfree_rcu_mightsleep(p)
#else
#define kfree_rcu_wait(p) kvfree_rcu(p)
#endif

// TOTAL allocations=15
static noinline void free_kmalloc(void)
{
	struct with_rcu *r;
	void *two[2];

	kfree(kmalloc(24, GFP_KERNEL));
	kfree(kmalloc(forty, GFP_KERNEL));
	kfree(kmalloc(16384, GFP_KERNEL));
	kfree(kmalloc(twenty_thousand, GFP_KERNEL));
	kfree(kmalloc_node(56, GFP_KERNEL, 0));
	kfree(kmalloc_track_caller(44, GFP_KERNEL));
	kfree_sensitive(kmalloc(26, GFP_KERNEL));
	kvfree(kmalloc(27, GFP_KERNEL));
	kfree_const(kmalloc(28, GFP_KERNEL));
	two[0] = kmalloc(29, GFP_KERNEL);
	two[1] = kmalloc(30, GFP_KERNEL);
	kfree_bulk(2, two);
	r = kmalloc(sizeof(*r), GFP_KERNEL);
	kfree_rcu(r, rcu);
	r = kmalloc(sizeof(*r), GFP_KERNEL);
	kfree_rcu_wait(r);
	kfree(kmalloc_node_track_caller(45, GFP_KERNEL, 0));
	kfree(kmalloc_track_caller(twenty_thousand, GFP_KERNEL));
	kfree(NULL);
	kfree(kmalloc(0, GFP_KERNEL)); /* ZERO_SIZE_PTR is no object */
}

// TOTAL allocations=11 leaks=6
static noinline void use_cache(void)
{
	struct kmem_cache *c = kedr_helper_cache;
	void *three[3];

	KEEP(kmem_cache_alloc(c, GFP_KERNEL)); // LEAK 96 slab
	KEEP(kmem_cache_zalloc(c, GFP_KERNEL)); // LEAK 96 slab
	KEEP(kmem_cache_alloc_node(c, GFP_KERNEL, 0)); // LEAK 96 slab
	if (!kmem_cache_alloc_bulk(c, GFP_KERNEL, 3, three)) // LEAK 96 slab x3
		return;
	kmem_cache_free(c, kmem_cache_alloc(c, GFP_KERNEL));
	kmem_cache_free(c, kmem_cache_alloc_node(c, GFP_KERNEL, 0));
	if (kmem_cache_alloc_bulk(c, GFP_KERNEL, 3, three))
		kmem_cache_free_bulk(c, 3, three);
}

// TOTAL allocations=1 leaks=1
static __printf(1, 2) noinline char *format(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = kvasprintf(GFP_KERNEL, fmt, ap); // LEAK 7 slab
	va_end(ap);
	return s;
}

// TOTAL allocations=1 leaks=1
static __printf(1, 2) noinline const char *format_const(const char *fmt, ...)
{
	const char *s;
	va_list ap;

	va_start(ap, fmt);
	s = kvasprintf_const(GFP_KERNEL, fmt, ap); // LEAK 8 slab
	va_end(ap);
	return s;
}

static char word[] = "word";
static substring_t substring = { .from = word, .to = word + 3 };

// TOTAL allocations=7 leaks=7
static noinline void leak_copies(void)
{
	KEEP(match_strdup(&substring)); // LEAK 4 slab
	KEEP(kstrdup("hello", GFP_KERNEL)); // LEAK 6 slab
	KEEP(kstrndup("hello world", 4, GFP_KERNEL)); // LEAK 5 slab
	KEEP(kstrdup_const("constant", GFP_KERNEL)); // LEAK 9 slab
	KEEP(kmemdup(buffer, 77, GFP_KERNEL)); // LEAK 77 slab
	KEEP(kmemdup_nul("abcdef", 3, GFP_KERNEL)); // LEAK 4 slab
	KEEP(kasprintf(GFP_KERNEL, "%d-%s", 42, "xyz")); // LEAK 7 slab
	KEEP(format("%d:%s", 42, "xyz"));
	KEEP(format_const("%d::%s", 42, "xyz"));
}

// TOTAL allocations=7
static noinline void free_copies(void)
{
	kfree(match_strdup(&substring));
	kfree(kstrdup("hello", GFP_KERNEL));
	kfree(kstrndup("hello world", 4, GFP_KERNEL));
	kfree_const(kstrdup_const("constant", GFP_KERNEL));
	/* The kernel's own constants are not copied, and not freed. */
	kfree_const(kstrdup_const(hex_asc, GFP_KERNEL));
	KEEP(kstrdup_const(hex_asc, GFP_KERNEL));
	kfree(kmemdup(buffer, 77, GFP_KERNEL));
	kfree(kmemdup_nul("abcdef", 3, GFP_KERNEL));
	kfree(kasprintf(GFP_KERNEL, "%d-%s", 42, "xyz"));
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
// TOTAL allocations=2 leaks=1
static noinline void use_cache_lru(void)
{
	KEEP(kmem_cache_alloc_lru(kedr_helper_cache, NULL, GFP_KERNEL)); // LEAK 96 slab
	kmem_cache_free(kedr_helper_cache, kmem_cache_alloc_lru(kedr_helper_cache, NULL, GFP_KERNEL));
}
#else
static void use_cache_lru(void) { }
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
// TOTAL allocations=2 leaks=1
static noinline void copy_arrays(void)
{
	KEEP(kmemdup_array(buffer, 3, 71, GFP_KERNEL)); // LEAK 213 slab
	kfree(kmemdup_array(buffer, 3, 71, GFP_KERNEL));
}
#else
static void copy_arrays(void) { }
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
// TOTAL allocations=2 leaks=1
static noinline void without_lock(void)
{
	KEEP(kmalloc_nolock(34, __GFP_ZERO, NUMA_NO_NODE)); // LEAK 34 slab
	kfree_nolock(kmalloc_nolock(35, 0, NUMA_NO_NODE));
}
#else
static void without_lock(void) { }
#endif

// RUN
static int __init slab_init(void)
{
	leak_kmalloc();
	free_kmalloc();
	use_cache();
	use_cache_lru();
	leak_copies();
	free_copies();
	copy_arrays();
	without_lock();
	return 0;
}

static void __exit slab_exit(void)
{
	rcu_barrier();
}

module_init(slab_init);
module_exit(slab_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: slab");
