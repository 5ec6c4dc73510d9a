// SPDX-License-Identifier: GPL-2.0
/* Gives everything back, some of it late. */
#include "common.h"
#include <linux/workqueue.h>

static int count = 10;
module_param(count, int, 0);

static struct workqueue_struct *queue;

struct item {
	struct work_struct work;
	struct rcu_head rcu;
	void *vm;
};

static void late(struct work_struct *work)
{
	struct item *item = container_of(work, struct item, work);

	vfree(item->vm);
	kfree(item);
}

// RUN
// TOTAL allocations=50 leaks=0 wrong-frees=0
static int __init clean_init(void)
{
	int i;

	queue = alloc_workqueue("kedr_clean", WQ_UNBOUND, 0);
	if (!queue)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		struct item *item = kzalloc(sizeof(*item), GFP_KERNEL);
		struct item *other = kzalloc(sizeof(*other), GFP_KERNEL);
		char *s = kstrdup("text", GFP_KERNEL);
		unsigned long page = get_zeroed_page(GFP_KERNEL);

		if (item) {
			INIT_WORK(&item->work, late);
			item->vm = vmalloc(100);
			queue_work(queue, &item->work);
		}
		if (other)
			kfree_rcu(other, rcu);
		kfree(s);
		free_page(page);
	}
	return 0;
}

static void __exit clean_exit(void)
{
	destroy_workqueue(queue);
}

module_init(clean_init);
module_exit(clean_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: nothing leaks");
