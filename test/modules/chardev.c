// SPDX-License-Identifier: GPL-2.0
/*
 * Two devices. Their array lives as long as the module; each one's buffer from the
 * first time that it is opened.
 */
#include "common.h"
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>

#define BUFFER 4000

struct chardev {
	struct miscdevice misc;
	char name[16];
	void *buffer;
	struct mutex lock;
};

static struct chardev *devices;

static int chardev_open(struct inode *inode, struct file *file)
{
	struct chardev *d = container_of(file->private_data, struct chardev, misc);
	int err = 0;

	mutex_lock(&d->lock);
	if (!d->buffer) {
		d->buffer = kzalloc(BUFFER, GFP_KERNEL);
		if (!d->buffer)
			err = -ENOMEM;
	}
	mutex_unlock(&d->lock);
	return err;
}

static ssize_t chardev_write(struct file *file, const char __user *text, size_t count, loff_t *pos)
{
	struct chardev *d = container_of(file->private_data, struct chardev, misc);

	return simple_write_to_buffer(d->buffer, BUFFER, pos, text, count);
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = chardev_open,
	.write = chardev_write,
};

static void undo(int n)
{
	while (n-- > 0) {
		misc_deregister(&devices[n].misc);
		kfree(devices[n].buffer);
	}
	kfree(devices);
	devices = NULL; /* after it, so that the release is a call and no jump */
}

// TOTAL allocations=3 leaks=0 wrong-frees=0
// RUN -- write /dev/kedr_chardev0 /dev/kedr_chardev1 /dev/kedr_chardev0
static int __init chardev_init(void)
{
	int i, err;

	devices = kcalloc(2, sizeof(*devices), GFP_KERNEL);
	if (!devices)
		return -ENOMEM;
	for (i = 0; i < 2; i++) {
		struct chardev *d = &devices[i];

		snprintf(d->name, sizeof(d->name), "kedr_chardev%d", i);
		mutex_init(&d->lock);
		d->misc = (struct miscdevice){
			.minor = MISC_DYNAMIC_MINOR, .name = d->name, .fops = &fops,
		};
		err = misc_register(&d->misc);
		if (err) {
			undo(i);
			return err;
		}
	}
	return 0;
}

static void __exit chardev_exit(void)
{
	undo(2);
}

module_init(chardev_init);
module_exit(chardev_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: two devices");
