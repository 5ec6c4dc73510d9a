// SPDX-License-Identifier: GPL-2.0
/* Takes its machine's kernel down. */
#include "common.h"

static int __init crash_init(void)
{
	int *volatile nowhere = NULL;

	return *nowhere;
}

module_init(crash_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: crash");
