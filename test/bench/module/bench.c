// SPDX-License-Identifier: GPL-2.0
/*
 * How long calls into the kernel take, in nanoseconds of the machine's time: with
 * -icount shift=0 one is one instruction.
 *
 * Writing the name of an operation to the parameter "measure" has a kernel thread do it
 * runs times rounds times, and reading it tells
 *
 *	frames=N rounds=N: NS NS ...
 *
 * a figure a run. A kernel thread's stack has nothing of the caller on it: so many frames
 * as "frames" says, from the one that makes the call on, and one of "stacks" in turn.
 */
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>
#include <linux/string.h>
#include <linux/time64.h>
#include <linux/timekeeping.h>
#include <linux/vmalloc.h>

#define MAX_RUNS 64
#define MAX_FRAMES 64

static int rounds = 100;
module_param(rounds, int, 0644);
static int runs = 15;
module_param(runs, int, 0644);
static int frames = 4;
module_param(frames, int, 0644);
static int stacks = 1; /* 1 to 8 */
module_param(stacks, int, 0644);
/* So many objects are obtained first, at the same place, and given back at the end. */
static int live;
module_param(live, int, 0644);
/* Or never. */
static bool leave;
module_param(leave, bool, 0644);

static struct kmem_cache *cache;

static enum { COUNT, SLAB, CACHE, VMALLOC, PAGE, SIX, OPERATIONS } operation;
static const char *const names[] = {
	[SLAB] = "slab", [CACHE] = "cache", [VMALLOC] = "vmalloc", [PAGE] = "page", [SIX] = "six",
};

static void **kept; /* where to keep an object in place of giving it back */
static time64_t sum;
static int counted;
static u64 took[MAX_RUNS];
static DECLARE_COMPLETION(done);

/* Nothing here may end in a jump: the frame would be gone. */
#define stay() asm volatile("" ::: "memory")

static noinline void count(void)
{
	unsigned long entries[MAX_FRAMES];

	counted = stack_trace_save(entries, MAX_FRAMES, 1);
}

static noinline int once(int deeper, int i)
{
	void *p = NULL;

	if (deeper) {
		int r = once(deeper - 1, i);

		stay();
		return r;
	}
	switch (operation) {
	case SLAB:
		p = kmalloc(64, GFP_KERNEL);
		if (!kept)
			kfree(p);
		break;
	case CACHE:
		p = kmem_cache_alloc(cache, GFP_KERNEL);
		if (!kept)
			kmem_cache_free(cache, p);
		break;
	case VMALLOC:
		p = vmalloc(100);
		if (!kept)
			vfree(p);
		break;
	case PAGE:
		p = alloc_page(GFP_KERNEL);
		if (!kept)
			__free_page(p);
		break;
	case SIX: /* Six arguments, and little to do. */
		sum += mktime64(1970 + (i & 31), 2, 3, 4, 5, 6);
		break;
	default:
		count();
	}
	if (kept)
		kept[i] = p;
	stay();
	return p != NULL;
}

static void give_back(void *p)
{
	if (!p)
		return;
	switch (operation) {
	case SLAB:
		kfree(p);
		break;
	case CACHE:
		kmem_cache_free(cache, p);
		break;
	case VMALLOC:
		vfree(p);
		break;
	case PAGE:
		__free_page(p);
		break;
	default:
		break;
	}
	stay();
}

/* The same call by up to eight ways. */
static __always_inline void step(int deeper, int i)
{
#define WAY(n)                                                   \
	case n:                                                  \
		once(deeper, i);                                 \
		asm volatile("# way " #n ::: "memory"); \
		break;
	switch (i % stacks) {
		WAY(0) WAY(1) WAY(2) WAY(3) WAY(4) WAY(5) WAY(6) WAY(7)
	}
}

static int measure(void *objects)
{
	int deeper, i, r, what = operation;
	u64 start;

	operation = COUNT;
	step(0, 0);
	operation = what;
	deeper = max(0, frames - counted);
	counted += deeper;
	kept = objects;
	for (i = 0; i < live; i++)
		step(deeper, i);
	kept = NULL;
	for (r = 0; r < runs; r++) {
		if (operation == VMALLOC)
			vm_unmap_aliases(); /* what was freed is kept, and looked through */
		start = ktime_get_ns();
		for (i = 0; i < rounds; i++)
			step(deeper, i);
		took[r] = ktime_get_ns() - start;
	}
	for (i = 0; i < live && !leave; i++)
		give_back(((void **)objects)[i]);
	complete(&done);
	return 0;
}

static int set_measure(const char *text, const struct kernel_param *kp)
{
	void **objects = NULL;
	struct task_struct *t;
	int what;

	for (what = COUNT + 1; what < OPERATIONS; what++)
		if (sysfs_streq(text, names[what]))
			break;
	if (what == OPERATIONS || runs < 1 || runs > MAX_RUNS || rounds < 1 || stacks < 1 || stacks > 8 ||
	    frames > MAX_FRAMES || live < 0)
		return -EINVAL;
	if (live) {
		objects = vzalloc(live * sizeof(*objects));
		if (!objects)
			return -ENOMEM;
	}
	operation = what;
	reinit_completion(&done);
	t = kthread_create(measure, objects, "bench");
	if (IS_ERR(t)) {
		vfree(objects);
		return PTR_ERR(t);
	}
	get_task_struct(t);
	wake_up_process(t);
	wait_for_completion(&done);
	kthread_stop(t); /* its last instruction is ours, too */
	put_task_struct(t);
	vfree(objects);
	return 0;
}

static int get_measure(char *text, const struct kernel_param *kp)
{
	int i, n = scnprintf(text, PAGE_SIZE, "frames=%d rounds=%d:", counted, rounds);

	for (i = 0; i < runs; i++)
		n += scnprintf(text + n, PAGE_SIZE - n, " %llu", took[i]);
	return n + scnprintf(text + n, PAGE_SIZE - n, "\n");
}

static const struct kernel_param_ops measure_ops = {
	.set = set_measure,
	.get = get_measure,
};
module_param_cb(measure, &measure_ops, NULL, 0644);

static int __init bench_init(void)
{
	cache = kmem_cache_create("kedr_bench", 64, 0, 0, NULL);
	return cache ? 0 : -ENOMEM;
}

static void __exit bench_exit(void)
{
	kmem_cache_destroy(cache);
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("measures what calls into the kernel take");
MODULE_LICENSE("GPL");
