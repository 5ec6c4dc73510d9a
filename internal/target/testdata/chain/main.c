// SPDX-License-Identifier: GPL-2.0
/* Calls of every shape that the tests of target and symbolize ask about. */
#include "chain.h"

void *kept[16];
static int mode;
module_param(mode, int, 0644);

/* Two inlined functions, one in the other. */
static __always_inline void *grab_twice(int i)
{
	grab(i, 111);
	return grab(i + 1, 222);
}

static __noclone noinline void *direct(int i)
{
	void *p = grab_twice(i);

	return p ? p + 1 : p;
}

/* first -> second -> third -> vmalloc, by jumps alone. */
static __noclone noinline void *third(unsigned long n)
{
	return vmalloc(n * 3);
}

static __noclone noinline void *second(unsigned long n)
{
	return third(n + 2);
}

static __noclone noinline void *first(unsigned long n)
{
	return second(n * 5);
}

/* middle gives up its frame to leaf, which keeps its own. */
static __noclone noinline void *leaf(unsigned long n)
{
	void *p = vmalloc(n);

	kept[4] = p;
	return p;
}

static __noclone noinline void *middle(unsigned long n)
{
	return leaf(n + 7);
}

/* Two ways of one length to vfree: left or right. */
static __noclone noinline void left(void *p)
{
	kept[5] = NULL;
	vfree(p);
}

static __noclone noinline void right(void *p)
{
	kept[6] = NULL;
	vfree(p);
}

static __noclone noinline void either(void *p)
{
	if (mode)
		left(p);
	else
		right(p);
}

/* Two jumps to the same import. */
static __noclone noinline void *twosites(unsigned long n)
{
	if (mode == 3) {
		kept[7] = NULL;
		return vmalloc(n * 9);
	}
	kept[8] = &mode;
	return vmalloc(n + 33);
}

/* The unlikely half goes to a part of its own, chilly.cold. */
static __noclone noinline __cold void complain(int n)
{
	printk(KERN_ERR "chain: %d\n", n);
}

__noclone noinline int chilly(int n)
{
	if (unlikely(n > 100)) {
		complain(n);
		kept[9] = vmalloc(n);
		complain(n + 1);
		return -1;
	}
	return n + mode;
}

/* Same name in other.c, and neither leads to the same import. */
static __noclone noinline void *namesake(unsigned long n)
{
	return vmalloc(n + 1);
}

/* Through a pointer: nothing is known of where it goes. */
void *(*pointer)(unsigned long) = first;

static int __init chain_init(void)
{
	kept[0] = direct(1);
	kept[3] = first(10);
	kept[10] = middle(20);
	kept[11] = twosites(30);
	kept[12] = namesake(40);
	kept[13] = other_file(50);
	kept[14] = pointer(60);
	grab(15, 333);
	either(kept[3]);
	return chilly(mode) < 0 ? -EINVAL : 0;
}

static void __exit chain_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(kept); i++)
		vfree(kept[i]);
}

module_init(chain_init);
module_exit(chain_exit);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("call shapes");
