//go:build machine

package describe

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlagValues holds the tables against the headers of kernels: a module that asserts
// every value has to compile.
func TestFlagValues(t *testing.T) {
	program, kernels := os.Getenv("KEDR"), strings.Fields(os.Getenv("KEDR_KERNELS"))
	if program == "" || len(kernels) == 0 {
		t.Fatal("KEDR and KEDR_KERNELS are to name the program and the kernels: make machine does")
	}
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			tables, err := readTables(flagsFile)
			if err != nil {
				t.Fatal(err)
			}
			tables.choose(version)
			var c strings.Builder
			for _, name := range []string{"module", "blkdev", "dma-mapping", "fcntl", "fs", "interrupt", "ioport", "mm", "pci", "slab", "vmalloc", "workqueue"} {
				fmt.Fprintf(&c, "#include <linux/%s.h>\n", name)
			}
			n := 0
			for _, table := range tables.Flags {
				for name, value := range table.Values {
					fmt.Fprintf(&c, "_Static_assert((unsigned long)(%s) == %#xUL, \"%s\");\n", name, value, name)
					n++
				}
			}
			c.WriteString("MODULE_LICENSE(\"GPL\");\n")
			dir := t.TempDir()
			for name, text := range map[string]string{
				"flags.c":  c.String(),
				"Makefile": "obj-m := flags.o\nKDIR ?= /lib/modules/$(KVER)/build\nall:\n\t$(MAKE) -C $(KDIR) M=$(CURDIR) modules\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command(program, "vm", "build", "--kernel", version, dir).CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			t.Logf("%d values", n)
		})
	}
}
