// SPDX-License-Identifier: GPL-2.0
/*
 * As much as a session is to bear: threads on as many CPUs at once, each of which
 * allocates and frees a block `pairs` times, and leaves `keep` of them outstanding,
 * one after each so many pairs. Loaded by TestScale with figures of its own.
 */
#include "common.h"
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/sched.h>

static int threads = 4;
module_param(threads, int, 0444);
static int pairs = 900;
module_param(pairs, int, 0444);
static int keep = 100;
module_param(keep, int, 0444);

static atomic_t running;
static DECLARE_COMPLETION(done);

static int work(void *unused)
{
	int i, kept_now = 0, every = keep ? pairs / keep : 0;

	for (i = 0; i < pairs; i++) {
		kfree(kmalloc(24, GFP_KERNEL));
		if (kept_now < keep && i / every == kept_now) {
			KEEP(kmalloc(16, GFP_KERNEL)); // LEAK 16 slab x400
			kept_now++;
		}
		cond_resched();
	}
	if (atomic_dec_and_test(&running))
		complete(&done);
	return 0;
}

// RUN
// TOTAL allocations=4000 leaks=400 wrong-frees=0
static int __init many_init(void)
{
	int i, cpu = -1;

	if (threads < 1 || pairs < 1 || keep < 0 || keep > pairs)
		return -EINVAL;
	atomic_set(&running, threads);
	for (i = 0; i < threads; i++) {
		struct task_struct *t = kthread_create(work, NULL, "kedr_many/%d", i);

		if (IS_ERR(t)) {
			if (atomic_dec_and_test(&running))
				complete(&done);
			continue;
		}
		cpu = cpumask_next(cpu, cpu_online_mask);
		if (cpu >= nr_cpu_ids)
			cpu = cpumask_first(cpu_online_mask);
		kthread_bind(t, cpu);
		wake_up_process(t);
	}
	wait_for_completion(&done);
	return 0;
}

static void __exit many_exit(void)
{
}

module_init(many_init);
module_exit(many_exit);
MODULE_DESCRIPTION("many allocations");
MODULE_LICENSE("GPL");
