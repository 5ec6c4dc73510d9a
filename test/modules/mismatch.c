// SPDX-License-Identifier: GPL-2.0
/*
 * Gives back by a function that is another kind's, or to another owner. A function
 * that can't take the object leaves it, and the kernel grumbles.
 */
#include "common.h"
#include <linux/io.h>
#include <linux/mempool.h>

// TOTAL allocations=2 leaks=0 wrong-frees=2
static noinline void blocks(void)
{
	void *p = kmalloc(100, GFP_KERNEL);

	vfree(p); // MISMATCH vmalloc
	kfree(p);
	p = kmalloc(PAGE_SIZE, GFP_KERNEL);
	vunmap(p); // MISMATCH vmap
	kvfree(p);
}

/* The kernel finds out which cache it is of; 7.x leaves it there. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
// TOTAL allocations=1 leaks=1 wrong-frees=1
static noinline void objects(void)
{
	void *p = kmem_cache_alloc(kedr_helper_private, GFP_KERNEL); // LEAK 112 slab

	kmem_cache_free(kedr_helper_cache, p); // MISMATCH slab
}
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
// TOTAL allocations=1 wrong-frees=1
static noinline void objects(void)
{
	void *p = kmem_cache_alloc(kedr_helper_private, GFP_KERNEL);

	kmem_cache_free(kedr_helper_cache, p); // MISMATCH slab
}
#else
/* Before, nothing tells from which cache an object came. */
static inline void objects(void) { }
#endif

/* The rest is lost, without a trace. */
// TOTAL allocations=3 wrong-frees=3
static noinline void pages(void)
{
	struct page *p = alloc_pages(GFP_KERNEL, 1);
	unsigned long a = __get_free_pages(GFP_KERNEL, 2);
	void *e = alloc_pages_exact(3 * PAGE_SIZE, GFP_KERNEL);

	if (p)
		__free_pages(p, 0); // MISMATCH page
	if (a)
		free_pages(a, 1); // MISMATCH page
	if (e)
		free_pages_exact(e, PAGE_SIZE); // MISMATCH page
}

/* The mapping goes, the pages that vmalloc() has put there stay. */
// TOTAL allocations=2 leaks=1 wrong-frees=2
static noinline void mappings(void)
{
	void *p = vmalloc(6000); // LEAK 6000 vmalloc
	void __iomem *io = ioremap(0xfed10000, 100);

	vunmap(p); // MISMATCH vmap
	memunmap((__force void *)io); // MISMATCH memremap
}

static void *from_nowhere(gfp_t flags, void *data)
{
	unsigned long *next = data;

	return (void *)++*next;
}

static void to_nowhere(void *element, void *data)
{
}

// TOTAL allocations=3 wrong-frees=1
static noinline void elements(void)
{
	unsigned long next = 0x1000, other = 0x2000;
	mempool_t *a = mempool_create(1, from_nowhere, to_nowhere, &next);
	mempool_t *b = mempool_create(1, from_nowhere, to_nowhere, &other);
	void *p;

	if (!a || !b)
		return;
	p = mempool_alloc(a, GFP_KERNEL);
	mempool_free(p, b); // MISMATCH mempool_element
	mempool_free(p, a);
	mempool_destroy(a);
	mempool_destroy(b);
}

/* None of these is wrong. */
// TOTAL allocations=6
static noinline void in_order(void)
{
	kvfree(kmalloc(101, GFP_KERNEL));
	kvfree(vmalloc(102));
	kfree(kvmalloc(103, GFP_KERNEL));
	kfree(kmem_cache_alloc(kedr_helper_private, GFP_KERNEL));
	free_page((unsigned long)page_address(alloc_page(GFP_KERNEL)));
	free_pages_exact(alloc_pages_exact(5000, GFP_KERNEL), 2 * PAGE_SIZE);
}

// RUN
static int __init mismatch_init(void)
{
	blocks();
	objects();
	pages();
	mappings();
	elements();
	in_order();
	return 0;
}

static void __exit mismatch_exit(void)
{
}

module_init(mismatch_init);
module_exit(mismatch_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: mismatched releases");
