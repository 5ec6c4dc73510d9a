package matrix

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestCopySource(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "common.h"), "", 0o644)
	from := t.TempDir()
	for _, name := range []string{
		"Makefile", "a.c", "sub/b.c", "include/a.h", "blob.o",
		// What builds leave.
		"a.o", ".a.o.cmd", "a.ko", ".a.ko.cmd", "a.mod", "a.mod.c", "Module.symvers", "modules.order",
		"sub/b.o", "sub/.b.o.cmd", ".tmp_versions/a.mod", ".git/HEAD", "reports/6.1.json", "work/6.1/source/a.c",
	} {
		write(t, filepath.Join(from, name), name, 0o444)
	}
	write(t, filepath.Join(from, "gen.sh"), "#!/bin/sh\n", 0o755)
	for link, to := range map[string]string{
		"local.h": "include/a.h", "sub/up.h": "../include/a.h", "common.h": mustRel(t, from, filepath.Join(outside, "common.h")), "gone.h": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(from, link)); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(from, "work", "6.1", "copy")
	if err := CopySource(to, from, filepath.Join(from, "work"), filepath.Join(from, "reports"), "not/there"); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(to, name)
		if link, e := os.Readlink(name); e == nil {
			rel += " -> " + link
		} else if info, e := d.Info(); e != nil {
			return e
		} else if info.Mode()&0o111 != 0 {
			rel += " x"
		}
		got = append(got, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Makefile", "a.c", "blob.o", "common.h -> " + filepath.Join(outside, "common.h"), "gen.sh x", "gone.h -> nowhere",
		"include/a.h", "local.h -> include/a.h", "sub/b.c", "sub/up.h -> ../include/a.h",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if b, err := os.ReadFile(filepath.Join(to, "sub/b.c")); err != nil || string(b) != "sub/b.c" {
		t.Errorf("sub/b.c: %q, %v", b, err)
	}
	// Neither the directory itself nor none is left out.
	t.Chdir(from)
	to = t.TempDir()
	if err := CopySource(to, ".", "", ".", from); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "a.c")); err != nil {
		t.Error(err)
	}
	if err := CopySource(t.TempDir(), filepath.Join(from, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
}

func mustRel(t *testing.T, dir, name string) string {
	t.Helper()
	// Temporary directories may be behind links.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

func TestModules(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"z.ko", "drivers/my-driver.ko", "a.o", "old.ko.xz"} {
		write(t, filepath.Join(dir, name), "", 0o644)
	}
	got, err := Modules(dir)
	want := []Module{{"my_driver", "drivers/my-driver.ko"}, {"z", "z.ko"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestChoose(t *testing.T) {
	a, b := Module{"a_b", "a-b.ko"}, Module{"c", "c.ko"}
	for _, test := range []struct {
		all   []Module
		name  string
		want  Module
		error string
	}{
		{[]Module{a}, "", a, ""},
		{[]Module{a, b}, "c", b, ""},
		{[]Module{a, b}, "a-b", a, ""},
		{[]Module{a, b}, "a-b.ko", a, ""},
		{[]Module{a, b}, "", Module{}, "the build made a_b, c: choose one with --module NAME"},
		{[]Module{a, b}, "d", Module{}, `the build made no module "d", but a_b, c: choose one with --module NAME`},
		{nil, "", Module{}, "the build made no module: has its Makefile an obj-m?"},
		{nil, "a", Module{}, "the build made no module: has its Makefile an obj-m?"},
		{[]Module{a, {"a_b", "sub/a_b.ko"}}, "", Module{}, "a-b.ko and sub/a_b.ko are one module to the kernel, a_b: build one of them"},
	} {
		got, err := Choose(test.all, test.name)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != test.want || text != test.error {
			t.Errorf("%v, %q: %v, %q", test.all, test.name, got, text)
		}
	}
}

func TestFirstError(t *testing.T) {
	for _, test := range []struct{ log, want string }{
		{"", ""},
		{"\n \n", ""},
		{"  CC [M]  a.o\nall is well", "all is well"},
		{"a.c:1:2: warning: unused\na.c:3:1: error: expected ';'\na.c:9: error: x\nmake[1]: *** [a.o] Error 1\n", "a.c:3:1: error: expected ';'"},
		{"a.c:1:10: fatal error: foo.h: No such file or directory\n", "a.c:1:10: fatal error: foo.h: No such file or directory"},
		{"  MODPOST\nERROR: modpost: \"foo\" [a.ko] undefined!\n", "ERROR: modpost: \"foo\" [a.ko] undefined!"},
		{"make[1]: *** No rule to make target 'a.o'.  Stop.\n", "make[1]: *** No rule to make target 'a.o'.  Stop."},
		{strings.Repeat("x", 10000) + "error:\nlast: error: 2\n", "last: error: 2"},
		{"error: " + strings.Repeat("x", 10000) + "\n", "error: " + strings.Repeat("x", 293)},
	} {
		if got := FirstError(strings.NewReader(test.log)); got != test.want {
			t.Errorf("%.40q: %q, want %q", test.log, got, test.want)
		}
	}
}

func FuzzFirstError(f *testing.F) {
	f.Add("a.c:1: error: x\n")
	f.Add(strings.Repeat("y", 9000))
	f.Fuzz(func(t *testing.T, log string) {
		got := FirstError(strings.NewReader(log))
		if len(got) > 300 || strings.Contains(got, "\n") || !strings.Contains(log, got) {
			t.Errorf("%q", got)
		}
	})
}
