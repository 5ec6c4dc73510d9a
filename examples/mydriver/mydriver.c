// SPDX-License-Identifier: GPL-2.0
/*
 * A driver of one device, /dev/mydriver, which keeps the last line that was written to it.
 * docs/howto-driver.md finds what it forgets.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define LONGEST 4096

static bool debug;
module_param(debug, bool, 0644);
MODULE_PARM_DESC(debug, "say what is written");

static DEFINE_MUTEX(lock);
static char *kept;
static size_t kept_size;

static ssize_t mydriver_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char *line;

	if (size == 0 || size > LONGEST)
		return -EINVAL;
	line = kmalloc(size, GFP_KERNEL);
	if (!line)
		return -ENOMEM;
	if (copy_from_user(line, from, size)) {
		kfree(line);
		return -EFAULT;
	}
	if (line[size - 1] != '\n')
		return -EINVAL;
	if (debug)
		pr_info("mydriver: a line of %zu bytes\n", size);
	mutex_lock(&lock);
	kfree(kept);
	kept = line;
	kept_size = size;
	mutex_unlock(&lock);
	return size;
}

static ssize_t mydriver_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	ssize_t done;

	mutex_lock(&lock);
	done = simple_read_from_buffer(to, size, pos, kept, kept_size);
	mutex_unlock(&lock);
	return done;
}

static const struct file_operations mydriver_operations = {
	.owner = THIS_MODULE,
	.read = mydriver_read,
	.write = mydriver_write,
};

static struct miscdevice mydriver = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mydriver",
	.fops = &mydriver_operations,
};

static int __init mydriver_init(void)
{
	return misc_register(&mydriver);
}

static void __exit mydriver_exit(void)
{
	misc_deregister(&mydriver);
	kfree(kept);
}

module_init(mydriver_init);
module_exit(mydriver_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("an example for kedr");
