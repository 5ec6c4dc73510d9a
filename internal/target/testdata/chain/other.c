// SPDX-License-Identifier: GPL-2.0
#include "chain.h"

static __noclone noinline void *namesake(unsigned long n)
{
	return vzalloc(n + 2);
}

void *other_file(unsigned long n)
{
	void *p = namesake(n);

	kept[2] = p;
	return p;
}
