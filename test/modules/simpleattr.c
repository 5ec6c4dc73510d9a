// SPDX-License-Identifier: GPL-2.0
/* Files with one number in them, of which one forgets what it has when it is closed. */
#include "common.h"
#include <linux/fs.h>
#include <linux/miscdevice.h>

static int get(void *data, u64 *value)
{
	*value = 42;
	return 0;
}

static int set(void *data, u64 value)
{
	return 0;
}

static int open_forgotten(struct inode *inode, struct file *file)
{
	return simple_attr_open(inode, file, get, set, "%llu\n"); // LEAK ? simple_attr x2
}

static const struct file_operations forgotten_ops = {
	.owner = THIS_MODULE,
	.open = open_forgotten,
	.read = simple_attr_read,
};

DEFINE_SIMPLE_ATTRIBUTE(kept_ops, get, set, "%llu\n");

static struct miscdevice forgotten = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kedr_forgotten",
	.fops = &forgotten_ops,
}, kept_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kedr_kept",
	.fops = &kept_ops,
};

// TOTAL allocations=4 leaks=2 wrong-frees=0
// RUN -- read /dev/kedr_forgotten /dev/kedr_kept /dev/kedr_kept /dev/kedr_forgotten
static int __init simpleattr_init(void)
{
	int err = misc_register(&forgotten);

	if (err)
		return err;
	err = misc_register(&kept_device);
	if (err)
		misc_deregister(&forgotten);
	return err;
}

static void __exit simpleattr_exit(void)
{
	misc_deregister(&kept_device);
	misc_deregister(&forgotten);
}

module_init(simpleattr_init);
module_exit(simpleattr_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: simple attributes");
