package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"hello-kernel.ko": "hello_kernel", "/a/b/x.ko.xz": "x", "ext4": "ext4", "a-b-c.ko": "a_b_c",
	} {
		if got := ModuleName(file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

func TestFindModule(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kernel/fs/my-fs/my-fs.ko.xz")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, index := range []bool{false, true} {
		if index {
			if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte("kernel/fs/my-fs/my-fs.ko.xz: kernel/lib/crc.ko\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"my_fs", "my-fs"} {
			if got, err := FindModule(dir, name); err != nil || got != file {
				t.Errorf("%s: %s, %v", name, got, err)
			}
		}
		if _, err := FindModule(dir, "other"); !errors.Is(err, ErrNoModule) {
			t.Errorf("other: %v", err)
		}
	}
	if got, err := ModuleBeside(filepath.Dir(file), "my_fs"); err != nil || got != file {
		t.Errorf("beside: %s, %v", got, err)
	}
	if _, err := ModuleBeside(dir, "my_fs"); !errors.Is(err, ErrNoModule) {
		t.Errorf("beside, in another directory: %v", err)
	}
}
