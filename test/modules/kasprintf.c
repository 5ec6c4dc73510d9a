// SPDX-License-Identifier: GPL-2.0
/* Strings by kasprintf() and by a function of the module's own around kvasprintf(). */
#include "common.h"

static __printf(2, 3) noinline char *format(gfp_t flags, const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = kvasprintf(flags, fmt, ap);
	va_end(ap);
	return s;
}

// RUN
// TOTAL allocations=4 leaks=0 wrong-frees=0
static int __init kasprintf_init(void)
{
	char *p = kmalloc(20, GFP_KERNEL), *q = kmalloc(20, GFP_KERNEL);
	char *s = kasprintf(GFP_KERNEL, "%s %d", "number", 1);
	char *t = format(GFP_KERNEL, "%s %d", "number", 2);

	kfree(p);
	kfree(s);
	kfree(q);
	kfree(t);
	return 0;
}

static void __exit kasprintf_exit(void)
{
}

module_init(kasprintf_init);
module_exit(kasprintf_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: formatted strings");
