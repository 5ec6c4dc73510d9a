// SPDX-License-Identifier: GPL-2.0
/* Functions that leave no frame: inlined ones, and those that end in a tail call. */
#include "common.h"

static noinline void *direct(unsigned long n)
{
	return vmalloc(n + 1); // LEAK 301 vmalloc stack=direct,tail_init
}

static noinline void *second(unsigned long n)
{
	return vmalloc(n + 2); // LEAK 302 vmalloc stack=second,first,tail_init
}

static noinline void *first(unsigned long n)
{
	return second(n);
}

static __always_inline void *inlined(unsigned long n)
{
	void *p = vmalloc(n + 3); // LEAK 303 vmalloc stack=inlined,around,tail_init

	KEEP(p);
	return p;
}

static noinline void around(unsigned long n)
{
	inlined(n);
	KEEP(NULL);
}

static noinline void *by_slab(size_t n)
{
	return kmalloc(n + 4, GFP_KERNEL); // LEAK 304 slab stack=by_slab,tail_init
}

static volatile unsigned long n = 300;

// RUN
// TOTAL allocations=4 leaks=4 wrong-frees=0
static int tail_init(void)
{
	KEEP(direct(n));
	KEEP(first(n));
	around(n);
	KEEP(by_slab(n));
	return 0;
}

static void __exit tail_exit(void)
{
}

module_init(tail_init);
module_exit(tail_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: lost frames");
