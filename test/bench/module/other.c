// SPDX-License-Identifier: GPL-2.0
/* Another module than the one that is measured, which obtains objects of each kind. */
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

static struct kmem_cache *cache;
static void *slab, *object, *area;
static struct page *page;

static void give_back(void)
{
	if (page)
		__free_page(page);
	vfree(area);
	if (object)
		kmem_cache_free(cache, object);
	kfree(slab);
	kmem_cache_destroy(cache);
}

static int __init other_init(void)
{
	cache = kmem_cache_create("kedr_other", 64, 0, 0, NULL);
	if (!cache)
		return -ENOMEM;
	slab = kmalloc(64, GFP_KERNEL);
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	area = vmalloc(100);
	page = alloc_page(GFP_KERNEL);
	if (slab && object && area && page)
		return 0;
	give_back();
	return -ENOMEM;
}

static void __exit other_exit(void)
{
	give_back();
}

module_init(other_init);
module_exit(other_exit);
MODULE_DESCRIPTION("obtains objects of each kind that is measured");
MODULE_LICENSE("GPL");
