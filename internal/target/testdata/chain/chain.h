/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#define __noclone __attribute__((__noclone__))

extern void *kept[16];

/* Inlined into its callers, in every section that has one. */
static __always_inline void *grab(int i, unsigned long n)
{
	kept[i] = vmalloc(n);
	return kept[i];
}

void *other_file(unsigned long n);
