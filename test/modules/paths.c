// SPDX-License-Identifier: GPL-2.0
/*
 * One call site by many ways, of which no two may be taken for one: recursion of varying
 * depth, frames of varying size, one function by two paths, and interrupts on top of all
 * that. What is drawn by lot is the same in each run.
 */
#include "common.h"
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/timer.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define timer_delete_sync del_timer_sync
#endif

#define ROUNDS 3000
#define TICKS 200
#define SLOTS 32

static u32 lot = 1;
static void *slots[SLOTS];
static int ticks;
static struct hrtimer hrtimer;

static u32 draw(u32 *state, u32 below)
{
	*state = *state * 1664525 + 1013904223;
	return (*state >> 16) % below;
}

/* Nothing here may end in a jump, whose frame would be gone, or be another function. */
#define stay() asm volatile("# " __stringify(__LINE__) ::: "memory")

/* Obtains a block, which another way will give back. */
static noinline void replace(int slot, gfp_t gfp)
{
	kfree(slots[slot]);
	slots[slot] = kmalloc(32 + slot, gfp);
	stay();
}

static noinline void by_one_way(int slot)
{
	replace(slot, GFP_KERNEL);
	stay();
}

static noinline void by_another_way(int slot)
{
	replace(slot, GFP_KERNEL);
	stay();
}

static noinline void bottom(int slot)
{
	if (slot & 1)
		by_one_way(slot);
	else
		by_another_way(slot);
	stay();
}

static noinline void recursion(int depth, int slot)
{
	if (depth)
		recursion(depth - 1, slot);
	else
		bottom(slot);
	stay();
}

/* Its frame is found by a register, for its size is not known before. */
static noinline void wide(int bytes, int depth, int slot)
{
	char *room = __builtin_alloca(bytes);

	OPTIMIZER_HIDE_VAR(room);
	room[0] = slot;
	if (depth)
		wide(8 + (bytes * 5 & 0xf8), depth - 1, slot);
	else
		recursion(slot & 3, slot);
	OPTIMIZER_HIDE_VAR(room);
}

static noinline void leak_of(int size)
{
	KEEP(kmalloc(size, GFP_KERNEL)); // LEAK 700 slab x12 stack=leak_of*
	stay();
}

static noinline void left(int size)
{
	leak_of(size);
	stay();
}

static noinline void right(int size)
{
	leak_of(size);
	stay();
}

static noinline void on_top(int depth)
{
	if (depth) {
		on_top(depth - 1);
		stay();
		return;
	}
	kfree(kmalloc(48, GFP_ATOMIC));
	stay();
}

static enum hrtimer_restart tick(struct hrtimer *t)
{
	static u32 state = 7;

	on_top(draw(&state, 5));
	if (++ticks >= TICKS)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(t, ns_to_ktime(20000 + draw(&state, 200000)));
	return HRTIMER_RESTART;
}

// RUN
// TOTAL allocations=3212 leaks=12 wrong-frees=0
static int __init paths_init(void)
{
	int i;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&hrtimer, tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
#else
	hrtimer_init(&hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	hrtimer.function = tick;
#endif
	hrtimer_start(&hrtimer, ns_to_ktime(50000), HRTIMER_MODE_REL_HARD);
	for (i = 0; i < ROUNDS; i++) {
		int slot = draw(&lot, SLOTS);

		switch (draw(&lot, 4)) {
		case 0:
			recursion(draw(&lot, 10), slot);
			break;
		case 1:
			wide(8 * (1 + draw(&lot, 40)), draw(&lot, 3), slot);
			break;
		case 2:
			by_one_way(slot);
			break;
		default:
			by_another_way(slot);
		}
		if (i % 430 == 0) /* seven times */
			left(700);
		if (i % 601 == 0) /* five times */
			right(700);
		if (i % 100 == 0)
			usleep_range(100, 200);
	}
	while (READ_ONCE(ticks) < TICKS)
		usleep_range(1000, 2000);
	hrtimer_cancel(&hrtimer);
	for (i = 0; i < SLOTS; i++)
		kfree(slots[i]);
	return 0;
}

static void __exit paths_exit(void)
{
}

module_init(paths_init);
module_exit(paths_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: many ways to one call");
