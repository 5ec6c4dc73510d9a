// SPDX-License-Identifier: GPL-2.0
/*
 * A small driver, /dev/chardev: a queue of messages. Each write puts one in, each read
 * takes one out. Two leaks: a message that is longer than the reader's buffer is
 * forgotten, and so are those that are left when the module goes. With fixed=1 there
 * are none.
 */
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define LONGEST 1024

static bool fixed;
module_param(fixed, bool, 0444);
MODULE_PARM_DESC(fixed, "leak nothing");

struct message {
	struct list_head list;
	size_t length;
	char text[];
};

static LIST_HEAD(queue);
static DEFINE_MUTEX(lock);

static ssize_t chardev_write(struct file *file, const char __user *text, size_t length, loff_t *pos)
{
	struct message *m;

	if (length > LONGEST)
		return -EMSGSIZE;
	m = kmalloc(sizeof(*m) + length, GFP_KERNEL);
	if (!m)
		return -ENOMEM;
	m->length = length;
	if (copy_from_user(m->text, text, length)) {
		kfree(m);
		return -EFAULT;
	}
	mutex_lock(&lock);
	list_add_tail(&m->list, &queue);
	mutex_unlock(&lock);
	return length;
}

static struct message *take(void)
{
	struct message *m;

	mutex_lock(&lock);
	m = list_first_entry_or_null(&queue, struct message, list);
	if (m)
		list_del(&m->list);
	mutex_unlock(&lock);
	return m;
}

static ssize_t chardev_read(struct file *file, char __user *text, size_t length, loff_t *pos)
{
	struct message *m = take();
	ssize_t done;

	if (!m)
		return 0;
	if (m->length > length) {
		if (fixed)
			kfree(m);
		return -EMSGSIZE;
	}
	done = m->length;
	if (copy_to_user(text, m->text, m->length))
		done = -EFAULT;
	kfree(m);
	return done;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.read = chardev_read,
	.write = chardev_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "chardev",
	.fops = &fops,
};

static int __init chardev_init(void)
{
	return misc_register(&device);
}

static void __exit chardev_exit(void)
{
	struct message *m;

	misc_deregister(&device);
	while (fixed && (m = take()))
		kfree(m);
}

module_init(chardev_init);
module_exit(chardev_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("an example for kedr: a device that loses messages");
