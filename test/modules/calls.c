// SPDX-License-Identifier: GPL-2.0
/*
 * Calls for a trace: of each function as often as the parameters say, with arguments
 * and results that TestTrace knows; from as many threads, each on a CPU of its own
 * where there are enough; and from a timer's interrupt.
 */
#include "common.h"
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>

static int threads = 4;
module_param(threads, int, 0444);
static int rounds = 100;
module_param(rounds, int, 0444);
static int ticks = 10;
module_param(ticks, int, 0444);

static atomic_t running;
static DECLARE_COMPLETION(done);
static DECLARE_COMPLETION(ticked);
static struct hrtimer timer;
static volatile int left;

static int work(void *unused)
{
	int value, i;

	for (i = 0; i < rounds; i++) {
		size_t size = 1000 + i;
		void *p = kmalloc(size, GFP_KERNEL | __GFP_ZERO);
		struct file *f;

		kfree(p);
		if (kstrtoint("12\tx", 10, &value) != -EINVAL)
			pr_err("kedr_calls: that was no number\n");
		f = filp_open("/kedr/no \"such\" file", O_RDONLY, 0640);
		if (!IS_ERR(f))
			pr_err("kedr_calls: that was no file\n");
		p = kasprintf(GFP_KERNEL, "round %d", i);
		kfree(p);
	}
	if (atomic_dec_and_test(&running))
		complete(&done);
	return 0;
}

static enum hrtimer_restart tick(struct hrtimer *t)
{
	kfree(kmalloc(2000 + left, GFP_ATOMIC));
	if (--left) {
		hrtimer_forward_now(t, ms_to_ktime(1));
		return HRTIMER_RESTART;
	}
	complete(&ticked);
	return HRTIMER_NORESTART;
}

static int __init calls_init(void)
{
	int i;

	atomic_set(&running, threads);
	for (i = 0; i < threads; i++) {
		struct task_struct *task = kthread_create(work, NULL, "kedr_calls/%d", i);

		if (IS_ERR(task))
			return PTR_ERR(task);
		kthread_bind(task, i % num_online_cpus());
		wake_up_process(task);
	}
	left = ticks;
	if (ticks) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
		hrtimer_setup(&timer, tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
#else
		hrtimer_init(&timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
		timer.function = tick;
#endif
		hrtimer_start(&timer, ms_to_ktime(1), HRTIMER_MODE_REL);
		wait_for_completion(&ticked);
	}
	if (threads)
		wait_for_completion(&done);
	return 0;
}

static void __exit calls_exit(void)
{
	/* The last thread may still be on its way out of this module's text. */
	synchronize_rcu();
}

module_init(calls_init);
module_exit(calls_exit);
MODULE_LICENSE("GPL");
