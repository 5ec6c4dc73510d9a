// SPDX-License-Identifier: GPL-2.0
/* Memory of each processor's own: its size is that of one copy. */
#include "common.h"
#include <linux/percpu.h>

struct counters {
	long of[5];
};

// TOTAL allocations=5 leaks=5
static noinline void leak_percpu(void)
{
	KEEP(alloc_percpu(long)); // LEAK 8/4 percpu
	KEEP(__alloc_percpu(24, 8)); // LEAK 24 percpu
	KEEP(alloc_percpu_gfp(struct counters, GFP_KERNEL)); // LEAK 40/20 percpu
	KEEP(__alloc_percpu_gfp(17, 1, GFP_KERNEL)); // LEAK 17 percpu
	local_bh_disable();
	KEEP(__alloc_percpu_gfp(32, 16, GFP_NOWAIT)); // LEAK 32 percpu
	local_bh_enable();
}

// TOTAL allocations=5
static noinline void release_percpu(void)
{
	free_percpu(alloc_percpu(long));
	free_percpu(__alloc_percpu(24, 8));
	free_percpu(alloc_percpu_gfp(struct counters, GFP_KERNEL));
	free_percpu(__alloc_percpu_gfp(17, 1, GFP_KERNEL));
	local_bh_disable();
	free_percpu(__alloc_percpu_gfp(32, 16, GFP_NOWAIT));
	local_bh_enable();
	free_percpu(NULL);
}

/* What can't be had is no object. */
static noinline void fail_percpu(void)
{
	KEEP(__alloc_percpu_gfp(PCPU_MIN_UNIT_SIZE * 64UL, 8, GFP_KERNEL | __GFP_NOWARN));
}

// RUN
static int __init percpu_init(void)
{
	leak_percpu();
	release_percpu();
	fail_percpu();
	return 0;
}

static void __exit percpu_exit(void)
{
}

module_init(percpu_init);
module_exit(percpu_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: percpu");
