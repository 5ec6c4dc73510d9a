// SPDX-License-Identifier: GPL-2.0
/* Frees twice, where the kernel survives it. */
#include "common.h"
#include <linux/io.h>
#include <linux/mempool.h>
#include <linux/page_ref.h>

/*
 * The list of what is free becomes a circle. That does no harm as long as the cache
 * is not used again; the kernel sees no more than the same object twice in a row.
 */
// TOTAL allocations=4 wrong-frees=2
static noinline void objects(void)
{
	struct kmem_cache *c = kedr_helper_victim(), *d = kedr_helper_victim();
	void *p, *q;

	if (!c || !d)
		return;
	preempt_disable();
	p = kmem_cache_alloc(c, GFP_ATOMIC);
	q = kmem_cache_alloc(c, GFP_ATOMIC);
	if (p && q) {
		kmem_cache_free(c, p);
		kmem_cache_free(c, q);
		kmem_cache_free(c, p); // DOUBLE-FREE slab
	}
	p = kmem_cache_alloc(d, GFP_ATOMIC);
	q = kmem_cache_alloc(d, GFP_ATOMIC);
	if (p && q) {
		kfree(p);
		kfree(q);
		kfree(p); // DOUBLE-FREE slab
	}
	preempt_enable();
}

/* The page's count goes below zero, and nobody may see it there. */
// TOTAL allocations=1 wrong-frees=1
static noinline void pages(void)
{
	unsigned long flags;
	struct page *p;

	local_irq_save(flags);
	p = alloc_page(GFP_ATOMIC);
	if (p) {
		__free_page(p);
		__free_page(p); // DOUBLE-FREE page
		page_ref_inc(p);
	}
	local_irq_restore(flags);
}

/* Up to 5.19 no probe can be put on vmap(). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
// TOTAL allocations=1 wrong-frees=1
static noinline void maps(struct page *page)
{
	void *p = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	vunmap(p);
	vunmap(p); // DOUBLE-FREE vmap
}
#else
static inline void maps(struct page *page) { }
#endif

// TOTAL allocations=2 wrong-frees=2
static noinline void mappings(void)
{
	struct page *page = kedr_helper_page();
	void __iomem *io;
	void *p;

	p = vmalloc(5000);
	vfree(p);
	vfree(p); // DOUBLE-FREE vmalloc
	if (!page)
		return;
	maps(page);
	io = ioremap(0xfed10000, 100);
	iounmap(io);
	iounmap(io); // DOUBLE-FREE ioremap
}

static void *from_nowhere(gfp_t flags, void *data)
{
	unsigned long *left = data;

	return *left ? (void *)(0x1000 + --*left) : NULL;
}

static void to_nowhere(void *element, void *data)
{
}

// TOTAL allocations=2 wrong-frees=1
static noinline void elements(void)
{
	unsigned long left = 2;
	mempool_t *pool = mempool_create(1, from_nowhere, to_nowhere, &left);
	void *p;

	if (!pool)
		return;
	p = mempool_alloc(pool, GFP_KERNEL);
	mempool_free(p, pool);
	mempool_free(p, pool); // DOUBLE-FREE mempool_element
	mempool_destroy(pool);
}

// RUN
static int __init doublefree_init(void)
{
	objects();
	pages();
	mappings();
	elements();
	return 0;
}

static void __exit doublefree_exit(void)
{
}

module_init(doublefree_init);
module_exit(doublefree_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: double frees");
