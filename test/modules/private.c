// SPDX-License-Identifier: GPL-2.0
/* What a catalog of the user's own says: directories of /proc, made and removed. */
#include "common.h"
#include <linux/proc_fs.h>

static struct proc_dir_entry *left;

// TOTAL allocations=2 leaks=1
static int __init private_init(void)
{
	proc_remove(proc_mkdir("kedr-removed", NULL));
	left = proc_mkdir("kedr-left", NULL); // LEAK ? directory
	return 0;
}

static void __exit private_exit(void)
{
}

module_init(private_init);
module_exit(private_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: a catalog of the user's own");
