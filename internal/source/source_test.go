package source

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParseRoot(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Root
		ok   bool
	}{
		{"/build/linux=/src/linux", Root{"/build/linux", "/src/linux"}, true},
		{"/build/linux/=../linux/", Root{"/build/linux", "../linux"}, true},
		{".=/src", Root{".", "/src"}, true},
		{"/a=/b=c", Root{"/a", "/b=c"}, true},
		{"/a", Root{}, false},
		{"=/b", Root{}, false},
		{"/a=", Root{}, false},
		{"", Root{}, false},
	} {
		got, err := ParseRoot(c.in)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	tree := New("/home", Root{"/build", "/short"}, Root{"/build/linux", "/long"}, Root{"drivers", "/src/drivers"})
	for _, c := range []struct {
		name string
		want []string
	}{
		{"/build/linux/a.c", []string{"/long/a.c", "/build/linux/a.c"}},
		{"/build/linux-6.1/a.c", []string{"/short/linux-6.1/a.c", "/build/linux-6.1/a.c"}},
		{"/builds/a.c", []string{"/builds/a.c"}},
		{"/build", []string{"/build"}},
		{"drivers/net/a.c", []string{"/src/drivers/net/a.c", "/home/drivers/net/a.c", "/mod/drivers/net/a.c"}},
		{"fs/a.c", []string{"/home/fs/a.c", "/mod/fs/a.c"}},
		{"../a.c", nil},
	} {
		if d := cmp.Diff(c.want, tree.places("/mod/m.ko", c.name)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	if got := New("/home", Root{".", "/all"}, Root{"/", "/sys"}).places("", "fs/a.c"); got[0] != "/all/fs/a.c" {
		t.Errorf("%v", got)
	}
	if got := New("/home", Root{"/", "/sysroot"}).places("", "/fs/a.c"); got[0] != "/sysroot/fs/a.c" {
		t.Errorf("%v", got)
	}
}

func TestExcerpt(t *testing.T) {
	dir := t.TempDir()
	text := "\ttwo\n\t\tthree\x1b[2J\n\tfour\n\n\tsix \u202e\xff\n  \tseven"
	write(t, dir+"/a.c", text)
	write(t, dir+"/b.c", text+"\neight")
	tree := New(dir)
	want := &Excerpt{File: dir + "/a.c", Lines: []Line{
		{1, "two", false}, {2, "        three?[2J", false}, {3, "four", false}, {4, "", true}, {5, "six ??", false}, {6, "seven", false},
	}}
	if d := cmp.Diff(want, tree.Excerpt("", "a.c", 4)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// Where one line has no indentation none is taken away.
	want = &Excerpt{File: dir + "/b.c", Lines: []Line{
		{3, "        four", false}, {4, "", false}, {5, "        six ??", false}, {6, "        seven", true}, {7, "eight", false},
	}}
	if d := cmp.Diff(want, tree.Excerpt("", dir+"/b.c", 6)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, line := range []int{0, -1, 7, math.MaxInt} {
		if got := tree.Excerpt("", "a.c", line); got != nil {
			t.Errorf("line %d: %+v", line, got)
		}
	}
	if got := (*Tree)(nil).Excerpt("", dir+"/a.c", 1); got != nil {
		t.Errorf("no tree: %+v", got)
	}
	if got := new(Tree).Excerpt("", dir+"/a.c", 1); got == nil {
		t.Error("the zero value reads nothing")
	}
}

func TestNewer(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.c", "one\n")
	write(t, dir+"/m.ko", "")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir+"/m.ko", old, old); err != nil {
		t.Fatal(err)
	}
	if e := New(dir).Excerpt(dir+"/m.ko", "a.c", 1); e == nil || !e.Newer {
		t.Errorf("%+v", e)
	}
	if e := New(dir).Excerpt(dir+"/gone.ko", "a.c", 1); e == nil || e.Newer {
		t.Errorf("of a module that is gone: %+v", e)
	}
}

// TestRefused: what a module's debug information could make root read.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/shadow", "secret\n")
	write(t, dir+"/real.c", "int x;\n")
	if err := os.Symlink("shadow", dir+"/link.c"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.c", dir+"/good.c"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/fifo.c", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/dir.c", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/large.c", "x\n")
	if err := os.Truncate(dir+"/large.c", maxFile+1); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Dir(dir)+"/up.c", "up\n")
	tree := New(dir)
	for _, name := range []string{"shadow", dir + "/shadow", "link.c", "fifo.c", "dir.c", "large.c", "../up.c", "none.c", "/dev/zero", "a\x00.c"} {
		if e := tree.Excerpt("", name, 1); e != nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if e := tree.Excerpt("", "good.c", 1); e == nil {
		t.Error("a link to source was not read")
	}
}

// TestCache: a file is read once, and what is kept is bounded.
func TestCache(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.c", "one\n")
	tree := New(dir)
	tree.Excerpt("", "a.c", 1)
	write(t, dir+"/a.c", "two\n")
	if e := tree.Excerpt("", "a.c", 1); e == nil || e.Lines[0].Text != "one" {
		t.Errorf("%+v", e)
	}
	for i := range maxCache/maxFile + 2 {
		name := "b" + strconv.Itoa(i) + ".c"
		write(t, filepath.Join(dir, name), "")
		if err := os.Truncate(filepath.Join(dir, name), maxFile); err != nil {
			t.Fatal(err)
		}
		tree.Excerpt("", name, 1)
		if tree.cached > maxCache {
			t.Fatalf("%d bytes are kept", tree.cached)
		}
	}
}

func TestLongLine(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.c", strings.Repeat("é", 1000))
	e := New(dir).Excerpt("", "a.c", 1)
	if e == nil || e.Lines[0].Text != strings.Repeat("é", maxLine)+"..." {
		t.Errorf("%+v", e)
	}
}

// FuzzExcerpt: no content of a file can break what is printed of it.
func FuzzExcerpt(f *testing.F) {
	f.Add("one\n\ttwo\r\n", 2)
	f.Add("\x1b]0;x\a\u202e\n", 1)
	f.Fuzz(func(t *testing.T, text string, line int) {
		src := newFile("a.c", text, time.Time{})
		tree := &Tree{files: map[string]*file{"/a.c": src}}
		e := tree.Excerpt("", "/a.c", line)
		if (e != nil) != (line >= 1 && line <= len(src.lines)) {
			t.Fatalf("line %d of %d: %+v", line, len(src.lines), e)
		}
		if e == nil {
			return
		}
		here := 0
		for _, l := range e.Lines {
			if l.Here {
				here++
			}
			for _, r := range l.Text {
				if !strconv.IsPrint(r) {
					t.Fatalf("%q", l.Text)
				}
			}
		}
		if here != 1 || len(e.Lines) > 2*around+1 {
			t.Fatalf("%+v", e)
		}
	})
}
