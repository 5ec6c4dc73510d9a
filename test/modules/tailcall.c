// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that the kernel calls and that end in a call, which the compiler makes
 * a jump: it returns to the kernel, and nothing of the module is on the stack.
 */
#include "common.h"
#include <linux/mempool.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define timer_delete_sync del_timer_sync
#endif

static void *obtain(gfp_t flags, void *data)
{
	return kmalloc((unsigned long)data, flags); // LEAK 88 slab stack=obtain
}

static void release(void *element, void *data)
{
	kfree(element);
}

/* One is obtained for the reserve, and one for the caller: who has it from the pool. */
// TOTAL allocations=4 leaks=2
static noinline void use_pool(void)
{
	mempool_t *pool = mempool_create(1, obtain, release, (void *)88);

	if (!pool)
		return;
	KEEP(mempool_alloc(pool, GFP_KERNEL)); // LEAK ? mempool_element
	mempool_destroy(pool);
}

struct deferred {
	struct rcu_head rcu;
};

static void release_deferred(struct rcu_head *rcu)
{
	kfree(rcu); // WRONG-FREE slab irq stack=release_deferred
}

// TOTAL wrong-frees=1
static noinline void defer(void)
{
	struct deferred *foreign = kedr_helper_kmalloc(sizeof(*foreign));

	if (foreign)
		call_rcu(&foreign->rcu, release_deferred);
}

static void in_work(struct work_struct *work)
{
	vmalloc(701); // LEAK 701 vmalloc stack=in_work
}

static void in_timer(struct timer_list *timer)
{
	__get_free_pages(GFP_ATOMIC, 1); // LEAK 8192 page irq stack=in_timer
}

static int set_text(const char *text, const struct kernel_param *kp)
{
	kfree(*(void **)kp->arg);
	*(void **)kp->arg = kstrdup(text, GFP_KERNEL);
	return 0;
}

/* Two levels of it. */
static noinline void *inner(size_t n)
{
	return kvmalloc(n, GFP_KERNEL); // LEAK 702 vmalloc stack=inner*
}

static void by_two(struct work_struct *work)
{
	inner(702);
}

static char *text;
static const struct kernel_param_ops text_ops = { .set = set_text };
module_param_cb(text, &text_ops, &text, 0);

static DECLARE_WORK(work, in_work);
static DECLARE_WORK(two, by_two);
static DEFINE_TIMER(timer, in_timer);

// RUN text=a text=bc
// TOTAL allocations=5 leaks=3 wrong-frees=0
static int __init tailcall_init(void)
{
	use_pool();
	defer();
	schedule_work(&work);
	schedule_work(&two);
	mod_timer(&timer, jiffies + 1);
	flush_work(&work);
	flush_work(&two);
	while (timer_pending(&timer))
		schedule_timeout_uninterruptible(1);
	return 0;
}

static void __exit tailcall_exit(void)
{
	timer_delete_sync(&timer);
	rcu_barrier();
	kfree(text);
}

module_init(tailcall_init);
module_exit(tailcall_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: callbacks that end in a jump");
