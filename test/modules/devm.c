// SPDX-License-Identifier: GPL-2.0
/* What the device core gives back when the device goes, or its driver. */
#include "common.h"
#include <linux/device.h>
#include <linux/io.h>
#include <linux/percpu.h>
#include <linux/platform_device.h>

static void undo(void *data)
{
	kfree(data);
}

static int use(struct device *dev)
{
	void *p;

	/* 10 */
	KEEP(devm_kmalloc(dev, 101, GFP_KERNEL));
	KEEP(devm_kzalloc(dev, 102, GFP_KERNEL));
	KEEP(devm_kcalloc(dev, 3, 34, GFP_KERNEL));
	KEEP(devm_kmalloc_array(dev, 3, 35, GFP_KERNEL));
	KEEP(devm_kstrdup(dev, "text", GFP_KERNEL));
	KEEP(devm_kasprintf(dev, GFP_KERNEL, "%d", 42));
	KEEP(devm_kmemdup(dev, "abc", 4, GFP_KERNEL));
	KEEP(devm_get_free_pages(dev, GFP_KERNEL, 1));
	KEEP(devm_ioremap(dev, 0xfed10000, 100));
	KEEP(devm_memremap(dev, 0xfed11000, 100, MEMREMAP_WT));

	/* 4: one given back by the module */
	p = devm_kmalloc(dev, 103, GFP_KERNEL);
	devm_kfree(dev, p);
	p = (void *)devm_kstrdup_const(dev, "constant", GFP_KERNEL);
	devm_kfree(dev, p);
	p = devm_kmalloc(dev, 16, GFP_KERNEL);
	KEEP(devm_krealloc(dev, p, 4000, GFP_KERNEL));

	/* 1: by an action of the module's own */
	p = kmalloc(104, GFP_KERNEL);
	return devm_add_action_or_reset(dev, undo, p);
}

static int probe(struct platform_device *pdev)
{
	return use(&pdev->dev);
}

static struct platform_driver driver = {
	.driver = { .name = "kedr-devm" },
	.probe = probe,
};

static struct platform_device *device;

/* Once by a driver, once for a device that never had one. */
// RUN
// TOTAL allocations=30 leaks=0 wrong-frees=0
static int __init devm_init(void)
{
	struct platform_device *other;
	int err = platform_driver_register(&driver);

	if (err)
		return err;
	device = platform_device_register_simple("kedr-devm", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device)) {
		platform_driver_unregister(&driver);
		return PTR_ERR(device);
	}
	other = platform_device_register_simple("kedr-other", PLATFORM_DEVID_NONE, NULL, 0);
	if (!IS_ERR(other)) {
		use(&other->dev);
		platform_device_unregister(other);
	}
	return 0;
}

static void __exit devm_exit(void)
{
	platform_device_unregister(device);
	platform_driver_unregister(&driver);
}

module_init(devm_init);
module_exit(devm_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kedr test: devm");
