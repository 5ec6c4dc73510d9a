// SPDX-License-Identifier: GPL-2.0
/* Text in sections of its own, as the compiler or the programmer wants it. */
#include "common.h"

static noinline __cold void *cold(size_t n)
{
	void *p = kmalloc(n, GFP_KERNEL); // LEAK 601 slab stack=cold*,sections_init

	KEEP(p);
	return p;
}

static volatile int unlucky = 1;

/* What leads to a message is moved away, into uncommon.cold. */
static noinline int uncommon(size_t n)
{
	if (unlikely(unlucky)) {
		pr_notice("kedr test: uncommon\n");
		KEEP(vmalloc(n)); // LEAK 602 vmalloc stack=uncommon*,sections_init
		kfree(cold(n - 1));
		KEEP(kmalloc(n + 1, GFP_KERNEL)); // LEAK 603 slab stack=uncommon*,sections_init
	}
	return unlucky;
}

static noinline __section(".text.kedr") void *apart(size_t n)
{
	void *p = kmalloc(n, GFP_KERNEL); // LEAK 604 slab stack=apart*,sections_init

	KEEP(p);
	return p;
}

static noinline __section(".text.kedr") void release_apart(void *p)
{
	kfree(p);
}

static noinline __section(".text.kedr") void wrong_apart(void *p)
{
	kfree(p); // WRONG-FREE slab
	KEEP(NULL);
}

static volatile size_t size = 600;

/* What only init calls is put where the uncommon is, as a whole. */
static int (*volatile common)(size_t) = uncommon;

// RUN
// TOTAL allocations=6 leaks=4 wrong-frees=1
static int __init sections_init(void)
{
	cold(size + 1);
	common(size + 2);
	apart(size + 4);
	release_apart(kmalloc(605, GFP_KERNEL));
	wrong_apart(kedr_helper_kmalloc(606));
	return 0;
}

static void __exit sections_exit(void)
{
}

module_init(sections_init);
module_exit(sections_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: sections of text");
