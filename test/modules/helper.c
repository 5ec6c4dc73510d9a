// SPDX-License-Identifier: GPL-2.0
/* What other modules borrow: it outlives them, and is never watched. */
#include "common.h"

struct kmem_cache *kedr_helper_cache;
EXPORT_SYMBOL(kedr_helper_cache);

void *kedr_helper_kmalloc(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}
EXPORT_SYMBOL(kedr_helper_kmalloc);

void *kedr_helper_vmalloc(size_t size)
{
	return vmalloc(size);
}
EXPORT_SYMBOL(kedr_helper_vmalloc);

struct page *kedr_helper_page(void)
{
	return alloc_page(GFP_KERNEL);
}
EXPORT_SYMBOL(kedr_helper_page);

static int __init helper_init(void)
{
	kedr_helper_cache = kmem_cache_create("kedr_helper", 96, 0, 0, NULL);
	return kedr_helper_cache ? 0 : -ENOMEM;
}

/* Its users leak objects of the cache: it has to stay. */
module_init(helper_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("helper of kedr's test modules");
