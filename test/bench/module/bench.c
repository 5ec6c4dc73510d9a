// SPDX-License-Identifier: GPL-2.0
/*
 * How long a call takes, in nanoseconds of the machine's time: with -icount shift=0 one
 * is one instruction. Prints one line a run:
 *
 *	kedr_bench: OPERATION rounds=N ns=TOTAL
 */
#include <linux/init.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/time64.h>
#include <linux/timekeeping.h>
#include <linux/vmalloc.h>

static char *operation = "";
module_param(operation, charp, 0444);
static int rounds = 1000;
module_param(rounds, int, 0444);
static int runs = 5;
module_param(runs, int, 0444);

static time64_t sum;

/* Each loop is in init itself: nothing else is called, by the kernel or by pointers. */
#define MEASURE(name, what)                                                              \
	if (!strcmp(operation, name)) {                                                  \
		for (r = 0; r < runs; r++) {                                             \
			start = ktime_get_ns();                                          \
			for (i = 0; i < rounds; i++)                                     \
				what;                                                    \
			took = ktime_get_ns() - start;                                   \
			pr_info("kedr_bench: %s rounds=%d ns=%llu\n", name, rounds, took); \
		}                                                                        \
		return 0;                                                                \
	}

static int __init bench_init(void)
{
	u64 start, took;
	int i, r;

	/* Six arguments, and little to do. */
	MEASURE("six", sum += mktime64(1970 + (i & 31), 2, 3, 4, 5, 6));
	MEASURE("vmalloc", vfree(vmalloc(100)));
	MEASURE("slab", kfree(kmalloc(64 + (i & 1), GFP_KERNEL)));
	return -EINVAL;
}

static void bench_exit(void)
{
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_LICENSE("GPL");
