// SPDX-License-Identifier: GPL-2.0
/* Pages, which are somebody else's, mapped side by side. */
#include "common.h"

static struct page *pages[3];

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
/* Where no memory is: the only place that vmap_pfn() maps. */
static unsigned long frames[] = { 0xfed00, 0xfed01 };

// TOTAL allocations=4 leaks=4
static noinline void leak_maps(void)
{
	KEEP(vmap_pfn(frames, 2, PAGE_KERNEL_NOCACHE)); // LEAK 8192 vmap
	KEEP(vmap(pages, 2, VM_MAP, PAGE_KERNEL)); // LEAK 8192 vmap
	KEEP(vm_map_ram(pages, 3, NUMA_NO_NODE)); // LEAK 12288 vmap
	KEEP(vmap(pages, 1, VM_MAP, PAGE_KERNEL_RO)); // LEAK 4096 vmap
}
#else
/* No probe can be put on a function with a structure for a parameter. */
// UNWATCHED vmap
// TOTAL allocations=1 leaks=1
static noinline void leak_maps(void)
{
	KEEP(vmap(pages, 2, VM_MAP, PAGE_KERNEL));
	KEEP(vm_map_ram(pages, 3, NUMA_NO_NODE)); // LEAK 12288 vmap
}
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
// TOTAL allocations=5
#else
// TOTAL allocations=2
#endif
static noinline void undo_maps(void)
{
	struct page **given;
	void *p;
	int i;

	vunmap(vmap(pages, 2, VM_MAP, PAGE_KERNEL));
	p = vm_map_ram(pages, 3, NUMA_NO_NODE);
	if (p)
		vm_unmap_ram(p, 3);
	vunmap(NULL);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
	vunmap(vmap_pfn(frames, 2, PAGE_KERNEL_NOCACHE));
#endif

	/* Given away: vfree() of the mapping releases the pages and the array, too. */
	given = kmalloc_array(2, sizeof(*given), GFP_KERNEL);
	if (!given)
		return;
	for (i = 0; i < 2; i++)
		given[i] = kedr_helper_page();
	vfree(vmap(given, 2, VM_MAP | VM_MAP_PUT_PAGES, PAGE_KERNEL));
}

// RUN
static int __init vmap_init(void)
{
	int i;

	for (i = 0; i < 3; i++) {
		pages[i] = kedr_helper_page();
		if (!pages[i])
			return -ENOMEM;
	}
	leak_maps();
	undo_maps();
	return 0;
}

static void __exit vmap_exit(void)
{
}

module_init(vmap_init);
module_exit(vmap_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: vmap");
