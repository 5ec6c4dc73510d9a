// SPDX-License-Identifier: GPL-2.0
/* Device memory: below the firmware there is a range which no device answers. */
#include "common.h"
#include <linux/io.h>

#define HOLE 0xfed10000UL
#define PAGE(n) (HOLE + (n) * PAGE_SIZE)

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
#define PROTECTION __pgprot(pgprot_val(PAGE_KERNEL_IO_NOCACHE))
#else
#define PROTECTION pgprot_val(PAGE_KERNEL_IO_NOCACHE)
#endif

// TOTAL allocations=7 leaks=7
static noinline void leak_ioremap(void)
{
	KEEP(ioremap(PAGE(0), 101)); // LEAK 101 ioremap
	KEEP(ioremap_uc(PAGE(1), 102)); // LEAK 102 ioremap
	KEEP(ioremap_wc(PAGE(2) + 8, 103)); // LEAK 103 ioremap
	KEEP(ioremap_wt(PAGE(3), 104)); // LEAK 104 ioremap
	KEEP(ioremap_cache(PAGE(4), 105)); // LEAK 105 ioremap
	KEEP(ioremap_prot(PAGE(5), 106, PROTECTION)); // LEAK 106 ioremap
	KEEP(ioremap_encrypted(PAGE(6), 5000)); // LEAK 5000 ioremap
}

// TOTAL allocations=7
static noinline void undo_ioremap(void)
{
	iounmap(ioremap(PAGE(10), 101));
	iounmap(ioremap_uc(PAGE(11), 102));
	iounmap(ioremap_wc(PAGE(12) + 8, 103));
	iounmap(ioremap_wt(PAGE(13), 104));
	iounmap(ioremap_cache(PAGE(14), 105));
	iounmap(ioremap_prot(PAGE(15), 106, PROTECTION));
	iounmap(ioremap_encrypted(PAGE(16), 5000));
}

// TOTAL allocations=3 leaks=3
static noinline void leak_memremap(void)
{
	KEEP(memremap(PAGE(20), 201, MEMREMAP_WC)); // LEAK 201 memremap
	KEEP(memremap(PAGE(21), 202, MEMREMAP_WT)); // LEAK 202 memremap
	KEEP(memremap(PAGE(22), 203, MEMREMAP_WB)); // LEAK 203 memremap
}

// TOTAL allocations=3
static noinline void undo_memremap(void)
{
	memunmap(memremap(PAGE(23), 201, MEMREMAP_WC));
	memunmap(memremap(PAGE(24), 202, MEMREMAP_WT));
	memunmap(memremap(PAGE(25), 203, MEMREMAP_WB));
}

/* Of memory, the linear address is returned: a page and its mapping are two things. */
// TOTAL allocations=4 leaks=2
static noinline void map_memory(void)
{
	struct page *p = alloc_page(GFP_KERNEL); // LEAK 4096 page
	struct page *q = alloc_page(GFP_KERNEL);

	if (!p || !q)
		return;
	memunmap(memremap(page_to_phys(p), 204, MEMREMAP_WB));
	KEEP(memremap(page_to_phys(q), 205, MEMREMAP_WB)); // LEAK 205 memremap
	__free_page(q);
}

// RUN
static int __init ioremap_init(void)
{
	leak_ioremap();
	undo_ioremap();
	leak_memremap();
	undo_memremap();
	map_memory();
	return 0;
}

static void __exit ioremap_exit(void)
{
}

module_init(ioremap_init);
module_exit(ioremap_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: ioremap and memremap");
