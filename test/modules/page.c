// SPDX-License-Identifier: GPL-2.0
/* Every function of the page family, once leaked and once freed. */
#include "common.h"
#include <linux/pagemap.h>

// TOTAL allocations=9 leaks=9
static noinline void leak_pages(void)
{
	KEEP(alloc_page(GFP_KERNEL)); // LEAK 4096 page
	KEEP(alloc_pages(GFP_KERNEL, 2)); // LEAK 16384 page
	KEEP(alloc_pages(GFP_KERNEL | __GFP_COMP, 1)); // LEAK 8192 page
	KEEP(alloc_pages_node(0, GFP_KERNEL, 1)); // LEAK 8192 page
	KEEP(__get_free_page(GFP_KERNEL)); // LEAK 4096 page
	KEEP(__get_free_pages(GFP_KERNEL, 3)); // LEAK 32768 page
	KEEP(get_zeroed_page(GFP_KERNEL)); // LEAK 4096 page
	KEEP(alloc_pages_exact(5000, GFP_KERNEL)); // LEAK 5000 page
	KEEP(alloc_pages_exact(100, GFP_KERNEL)); // LEAK 100 page
}

// TOTAL allocations=7
static noinline void free_pages_all(void)
{
	__free_page(alloc_page(GFP_KERNEL));
	__free_pages(alloc_pages(GFP_KERNEL, 2), 2);
	__free_pages(alloc_pages_node(0, GFP_KERNEL, 1), 1);
	free_page(__get_free_page(GFP_KERNEL));
	free_pages(__get_free_pages(GFP_KERNEL, 3), 3);
	free_page(get_zeroed_page(GFP_KERNEL));
	free_pages_exact(alloc_pages_exact(5000, GFP_KERNEL), 5000);
}

/* A page goes back when the last reference to it goes, whoever holds that. */
// TOTAL allocations=4 leaks=1
static noinline void counted(void)
{
	struct page *p;

	put_page(alloc_page(GFP_KERNEL));
	put_page(alloc_pages(GFP_KERNEL | __GFP_COMP, 2));
	p = alloc_page(GFP_KERNEL);
	get_page(p);
	__free_page(p);
	put_page(p);
	p = alloc_page(GFP_KERNEL); // LEAK 4096 page
	get_page(p);
	__free_page(p);
}

/* What one function has given out, the others take back. */
// TOTAL allocations=5
static noinline void mixed(void)
{
	struct page *p;

	__free_page(virt_to_page((void *)__get_free_page(GFP_KERNEL)));
	put_page(virt_to_page((void *)get_zeroed_page(GFP_KERNEL)));
	p = alloc_page(GFP_KERNEL);
	free_page((unsigned long)page_address(p));
	p = alloc_pages(GFP_KERNEL, 1);
	free_pages((unsigned long)page_address(p), 1);
	/* Split, they are single pages. */
	p = alloc_pages(GFP_KERNEL, 1);
	split_page(p, 1);
	__free_page(p);
	__free_page(p + 1);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
// TOTAL allocations=4 leaks=2
static noinline void folios(void)
{
	KEEP(folio_alloc(GFP_KERNEL, 0)); // LEAK 4096 page
	KEEP(folio_alloc(GFP_KERNEL, 1)); // LEAK 8192 page
	folio_put(folio_alloc(GFP_KERNEL, 0));
	folio_put(folio_alloc(GFP_KERNEL, 1));
}
#else
static void folios(void) { }
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
#define alloc_pages_bulk alloc_pages_bulk_array
#endif
// TOTAL allocations=15 leaks=7
static noinline void bulk(void)
{
	struct page *p[4] = { };

	if (alloc_pages_bulk(GFP_KERNEL, 4, p) == 4) // LEAK 4096 page x4
		memset(p, 0, sizeof(p));
	if (alloc_pages_bulk(GFP_KERNEL, 4, p) == 4)
		release_pages(p, 4);
	/* Only the holes are filled: three are obtained here, and one is before. */
	memset(p, 0, sizeof(p));
	p[1] = alloc_page(GFP_KERNEL);
	if (alloc_pages_bulk(GFP_KERNEL, 4, p) == 4) // LEAK 4096 page x3
		__free_page(p[1]);
	memset(p, 0, sizeof(p));
	if (alloc_pages_bulk(GFP_KERNEL, 3, p) == 3) {
		__free_page(p[0]);
		put_page(p[1]);
		free_page((unsigned long)page_address(p[2]));
	}
}
#else
static void bulk(void) { }
#endif

// RUN
static int __init page_init(void)
{
	leak_pages();
	free_pages_all();
	counted();
	mixed();
	folios();
	bulk();
	return 0;
}

static void __exit page_exit(void)
{
}

module_init(page_init);
module_exit(page_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: page");
