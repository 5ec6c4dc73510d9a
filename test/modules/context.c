// SPDX-License-Identifier: GPL-2.0
/* Leaks one object and frees another in each context that code can run in. */
#include "common.h"
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define timer_delete_sync del_timer_sync
#endif

static void in_work(struct work_struct *work)
{
	KEEP(kmalloc(201, GFP_KERNEL)); // LEAK 201 slab
	kfree(kmalloc(211, GFP_KERNEL));
}

static void in_timer(struct timer_list *timer)
{
	KEEP(kmalloc(202, GFP_ATOMIC)); // LEAK 202 slab irq
	kfree(kmalloc(212, GFP_ATOMIC));
}

static DECLARE_COMPLETION(thread_done);

static int in_thread(void *data)
{
	KEEP(vmalloc(203)); // LEAK 203 vmalloc
	vfree(vmalloc(213));
	complete(&thread_done);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

static long in_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void *p = memdup_user((void __user *)arg, 215);

	if (!IS_ERR(p))
		kfree(p);
	KEEP(memdup_user((void __user *)arg, 205)); // LEAK 205 slab
	KEEP(kmalloc(204, GFP_KERNEL)); // LEAK 204 slab
	kfree(kmalloc(214, GFP_KERNEL));
	return 0;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = in_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kedr_context",
	.fops = &fops,
};

static DECLARE_WORK(work, in_work);
static DEFINE_TIMER(timer, in_timer);
static struct task_struct *thread;

// RUN -- ioctl /dev/kedr_context
// TOTAL allocations=10 leaks=5 wrong-frees=0
static int __init context_init(void)
{
	thread = kthread_run(in_thread, NULL, "kedr_context");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	schedule_work(&work);
	mod_timer(&timer, jiffies + 1);
	wait_for_completion(&thread_done);
	flush_work(&work);
	while (timer_pending(&timer))
		schedule_timeout_uninterruptible(1);
	return misc_register(&device);
}

static void __exit context_exit(void)
{
	misc_deregister(&device);
	timer_delete_sync(&timer);
	kthread_stop(thread);
}

module_init(context_init);
module_exit(context_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: contexts");
