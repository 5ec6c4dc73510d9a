// SPDX-License-Identifier: GPL-2.0
/* Every function of the page family, once leaked and once freed. */
#include "common.h"

static noinline void leak_pages(void)
{
	KEEP(alloc_page(GFP_KERNEL)); // LEAK 4096 page
	KEEP(alloc_pages(GFP_KERNEL, 2)); // LEAK 16384 page
	KEEP(alloc_pages_node(0, GFP_KERNEL, 1)); // LEAK 8192 page
	KEEP(__get_free_page(GFP_KERNEL)); // LEAK 4096 page
	KEEP(__get_free_pages(GFP_KERNEL, 3)); // LEAK 32768 page
	KEEP(get_zeroed_page(GFP_KERNEL)); // LEAK 4096 page
	KEEP(alloc_pages_exact(5000, GFP_KERNEL)); // LEAK 5000 page
	KEEP(folio_alloc(GFP_KERNEL, 1)); // LEAK 8192 page
}

static noinline void free_pages_all(void)
{
	struct page *p;

	__free_page(alloc_page(GFP_KERNEL));
	__free_pages(alloc_pages(GFP_KERNEL, 2), 2);
	__free_pages(alloc_pages_node(0, GFP_KERNEL, 1), 1);
	free_page(__get_free_page(GFP_KERNEL));
	free_pages(__get_free_pages(GFP_KERNEL, 3), 3);
	free_page(get_zeroed_page(GFP_KERNEL));
	free_pages_exact(alloc_pages_exact(5000, GFP_KERNEL), 5000);
	__free_page(virt_to_page((void *)__get_free_page(GFP_KERNEL)));
	put_page(alloc_page(GFP_KERNEL));
	put_page(alloc_pages(GFP_KERNEL | __GFP_COMP, 2));
	folio_put(folio_alloc(GFP_KERNEL, 1));
	/* The last reference counts. */
	p = alloc_page(GFP_KERNEL);
	get_page(p);
	__free_page(p);
	put_page(p);
}

// RUN
// TOTAL allocations=20 leaks=8 wrong-frees=0
static int __init page_init(void)
{
	leak_pages(); /* 8 */
	free_pages_all(); /* 12 */
	return 0;
}

static void __exit page_exit(void)
{
}

module_init(page_init);
module_exit(page_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: page");
