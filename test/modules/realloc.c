// SPDX-License-Identifier: GPL-2.0
/* The new object takes the place of the old one; where there is no new one, the old stays. */
#include "common.h"

#define ABSURD (1UL << (BITS_PER_LONG == 64 ? 40 : 31))

// TOTAL allocations=13 leaks=5
static noinline void use_krealloc(void)
{
	void *p;

	p = kmalloc(16, GFP_KERNEL);
	KEEP(krealloc(p, 200, GFP_KERNEL)); // LEAK 200 slab
	p = kmalloc(100, GFP_KERNEL);
	KEEP(krealloc(p, 110, GFP_KERNEL)); // LEAK 110 slab
	p = kmalloc(64, GFP_KERNEL);
	KEEP(krealloc(p, 33, GFP_KERNEL)); // LEAK 33 slab
	p = kmalloc(20, GFP_KERNEL);
	KEEP(krealloc(p, 20000, GFP_KERNEL)); // LEAK 20000 slab
	KEEP(krealloc(NULL, 48, GFP_KERNEL)); // LEAK 48 slab
	p = kmalloc(31, GFP_KERNEL);
	KEEP(krealloc(p, 0, GFP_KERNEL)); /* frees */
	p = kmalloc(33, GFP_KERNEL);
	p = krealloc(p, 3000, GFP_KERNEL);
	p = krealloc(p, 10, GFP_KERNEL);
	kfree(p);
	KEEP(krealloc(NULL, 0, GFP_KERNEL));
}

// TOTAL allocations=2 leaks=1
static noinline void fail_krealloc(void)
{
	void *p, *q;

	p = kmalloc(150, GFP_KERNEL); // LEAK 150 slab
	KEEP(krealloc(p, ABSURD, GFP_KERNEL | __GFP_NOWARN));
	p = kmalloc(151, GFP_KERNEL);
	q = krealloc(p, ABSURD, GFP_KERNEL | __GFP_NOWARN);
	if (!q)
		kfree(p);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
// TOTAL allocations=2 leaks=1
static noinline void use_array(void)
{
	void *p = kmalloc_array(2, 8, GFP_KERNEL);

	KEEP(krealloc_array(p, 30, 8, GFP_KERNEL)); // LEAK 240 slab
}
#else
static void use_array(void) { }
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define resize(p, from, to, flags) kvrealloc(p, to, flags)
#else
#define resize(p, from, to, flags) kvrealloc(p, from, to, flags)
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
// TOTAL allocations=10 leaks=4
static noinline void use_kvrealloc(void)
{
	void *p, *q;

	p = kvmalloc(30, GFP_KERNEL);
	KEEP(resize(p, 30, 3001, GFP_KERNEL)); // LEAK 3001 vmalloc
	p = kvmalloc(40, GFP_KERNEL);
	KEEP(resize(p, 40, 6 << 20, GFP_KERNEL)); // LEAK 6291456 vmalloc
	p = vmalloc(50000);
	KEEP(resize(p, 50000, 8 << 20, GFP_KERNEL)); // LEAK 8388608 vmalloc
	p = kvmalloc(50, GFP_KERNEL);
	p = resize(p, 50, 500, GFP_KERNEL);
	kvfree(p);
	p = kvmalloc(60, GFP_KERNEL); // LEAK 60 vmalloc
	KEEP(resize(p, 60, ABSURD, GFP_KERNEL | __GFP_NOWARN));
	p = kvmalloc(61, GFP_KERNEL);
	q = resize(p, 61, ABSURD, GFP_KERNEL | __GFP_NOWARN);
	if (!q)
		kvfree(p);
}
#else
static void use_kvrealloc(void) { }
#endif

// RUN
static int __init realloc_init(void)
{
	use_krealloc();
	fail_krealloc();
	use_array();
	use_kvrealloc();
	return 0;
}

static void __exit realloc_exit(void)
{
}

module_init(realloc_init);
module_exit(realloc_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: objects that change their size");
