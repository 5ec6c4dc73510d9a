// SPDX-License-Identifier: GPL-2.0
/* Frees what somebody else had obtained, which is in order; and is reported. */
#include "common.h"

static noinline void give_back(void)
{
	void *two[2] = { kedr_helper_kmalloc(40), kedr_helper_kmalloc(50) };

	kfree_bulk(2, two); // WRONG-FREE slab x2
	kfree(kedr_helper_kmalloc(10)); // WRONG-FREE slab
	vfree(kedr_helper_vmalloc(20)); // WRONG-FREE vmalloc
	kvfree(kedr_helper_kmalloc(30)); // WRONG-FREE vmalloc
	__free_pages(kedr_helper_page(), 0); // WRONG-FREE page
	/* What the helper obtains by a jump, so that it is returned here, is not ours. */
	KEEP(kedr_helper_kmalloc(60));
	KEEP(NULL);
}

// RUN
// TOTAL allocations=1 leaks=0 wrong-frees=6
static int __init wrongfree_init(void)
{
	kfree(kmalloc(64, GFP_KERNEL));
	give_back();
	return 0;
}

static void __exit wrongfree_exit(void)
{
}

module_init(wrongfree_init);
module_exit(wrongfree_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: wrong frees");
