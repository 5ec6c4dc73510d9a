// SPDX-License-Identifier: GPL-2.0
/* Whoever releases an object: it is no leak. */
#include "common.h"
#include <linux/mempool.h>
#include <linux/string_helpers.h>
#include <linux/workqueue.h>

// TOTAL allocations=6
static noinline void to_a_module(void)
{
	struct page *p = alloc_page(GFP_KERNEL);

	kedr_helper_kfree(kmalloc(101, GFP_KERNEL));
	kedr_helper_kfree(kstrdup("text", GFP_KERNEL));
	kedr_helper_vfree(vmalloc(102));
	kedr_helper_free_object(kedr_helper_cache, kmem_cache_alloc(kedr_helper_cache, GFP_KERNEL));
	if (p) {
		get_page(p);
		kedr_helper_put_page(p);
		put_page(p);
	}
	p = alloc_page(GFP_KERNEL);
	if (p)
		kedr_helper_put_page(p);
}

/* The strings, and the array that they are in. */
// TOTAL allocations=4
static noinline void to_the_kernel(void)
{
	char **array = kcalloc(2, sizeof(*array), GFP_KERNEL);
	int i;

	if (!array)
		return;
	for (i = 0; i < 2; i++)
		array[i] = kstrdup("text", GFP_KERNEL);
	kfree_strarray(array, 2);
	mempool_kfree(kmalloc(103, GFP_KERNEL), NULL);
}

/* In a work item, which itself is freed. */
static struct workqueue_struct *queue;

struct item {
	struct work_struct work;
	void *vm;
};

static void in_work(struct work_struct *work)
{
	struct item *item = container_of(work, struct item, work);

	vfree(item->vm);
	kfree(item);
}

// TOTAL allocations=2
static noinline void to_a_worker(void)
{
	struct item *item = kmalloc(sizeof(*item), GFP_KERNEL);

	if (!item)
		return;
	INIT_WORK(&item->work, in_work);
	item->vm = vmalloc(104);
	queue_work(queue, &item->work);
}

// TOTAL allocations=7 leaks=1
static noinline void by_the_dozen(void)
{
	void *p[3];
	int i;

	for (i = 0; i < 3; i++)
		p[i] = kmalloc(105 + i, GFP_KERNEL);
	kfree_bulk(3, p);
	if (!kmem_cache_alloc_bulk(kedr_helper_cache, GFP_KERNEL, 3, p))
		return;
	kedr_helper_free_object(kedr_helper_cache, p[1]);
	p[1] = kmem_cache_alloc(kedr_helper_cache, GFP_KERNEL); // LEAK 96 slab
	kmem_cache_free(kedr_helper_cache, p[0]);
	kfree(p[2]);
}

// RUN
static int __init given_init(void)
{
	queue = alloc_workqueue("kedr_given", WQ_UNBOUND, 0);
	if (!queue)
		return -ENOMEM;
	to_a_module();
	to_the_kernel();
	to_a_worker();
	by_the_dozen();
	return 0;
}

static void __exit given_exit(void)
{
	destroy_workqueue(queue);
}

module_init(given_init);
module_exit(given_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: objects that others release");
