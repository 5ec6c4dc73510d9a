// SPDX-License-Identifier: GPL-2.0
/*
 * What an open file holds, which its release gives back; or forgets. The functions
 * end in the call: it returns to the kernel, which has called them.
 */
#include "common.h"
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static int show(struct seq_file *m, void *v)
{
	seq_puts(m, "text\n");
	return 0;
}

static void *start(struct seq_file *m, loff_t *pos)
{
	return *pos ? NULL : m;
}

static void *next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return NULL;
}

static void stop(struct seq_file *m, void *v)
{
}

static const struct seq_operations ops = {
	.start = start,
	.next = next,
	.stop = stop,
	.show = show,
};

static int open_forgotten(struct inode *inode, struct file *file)
{
	return seq_open(file, &ops); // LEAK ? seq_file
}

static int open_single_forgotten(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL); // LEAK ? seq_file
}

static int open_sized_forgotten(struct inode *inode, struct file *file)
{
	return single_open_size(file, show, NULL, 8192); // LEAK ? seq_file
}

static int open_private_forgotten(struct inode *inode, struct file *file)
{
	return seq_open_private(file, &ops, 48); // LEAK ? seq_file
}

static int open_own_forgotten(struct inode *inode, struct file *file)
{
	return __seq_open_private(file, &ops, 56) ? 0 : -ENOMEM; // LEAK ? seq_file
}

static int open_seq(struct inode *inode, struct file *file)
{
	return seq_open(file, &ops);
}

static int open_single(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static int open_sized(struct inode *inode, struct file *file)
{
	return single_open_size(file, show, NULL, 8192);
}

static int open_private(struct inode *inode, struct file *file)
{
	return seq_open_private(file, &ops, 48);
}

static int open_own(struct inode *inode, struct file *file)
{
	return __seq_open_private(file, &ops, 56) ? 0 : -ENOMEM;
}

/* A release of the module's own, which ends in a jump. */
static int release_own(struct inode *inode, struct file *file)
{
	return seq_release_private(inode, file);
}

#define OPS(name, release)								\
static const struct proc_ops name##_ops = {						\
	.proc_open = open_##name,							\
	.proc_read = seq_read,								\
	.proc_lseek = seq_lseek,							\
	.proc_release = release,							\
}

OPS(forgotten, NULL);
OPS(single_forgotten, NULL);
OPS(sized_forgotten, NULL);
OPS(private_forgotten, NULL);
OPS(own_forgotten, NULL);
OPS(seq, seq_release);
OPS(single, single_release);
OPS(sized, single_release);
OPS(private, seq_release_private);
OPS(own, release_own);

static const struct {
	const char *name;
	const struct proc_ops *ops;
} files[] = {
	{ "0", &forgotten_ops },
	{ "1", &single_forgotten_ops },
	{ "2", &sized_forgotten_ops },
	{ "3", &private_forgotten_ops },
	{ "4", &own_forgotten_ops },
	{ "5", &seq_ops },
	{ "6", &single_ops },
	{ "7", &sized_ops },
	{ "8", &private_ops },
	{ "9", &own_ops },
};

static struct proc_dir_entry *dir;

// TOTAL allocations=10 leaks=5 wrong-frees=0
// RUN -- read /proc/kedr/0 /proc/kedr/1 /proc/kedr/2 /proc/kedr/3 /proc/kedr/4 /proc/kedr/5 /proc/kedr/6 /proc/kedr/7 /proc/kedr/8 /proc/kedr/9
static int __init seqfile_init(void)
{
	int i;

	dir = proc_mkdir("kedr", NULL);
	if (!dir)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(files); i++)
		proc_create(files[i].name, 0400, dir, files[i].ops);
	return 0;
}

static void __exit seqfile_exit(void)
{
	proc_remove(dir);
}

module_init(seqfile_init);
module_exit(seqfile_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: seq_file");
