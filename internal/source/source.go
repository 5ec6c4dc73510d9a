// Package source reads the lines around a place in the source of a module,
// where that can be read.
//
// The names of files come from the module's debug information, and kedr is
// often root: only regular files that are called like source are read, and no
// more than a source file has.
package source

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	maxFile  = 8 << 20 // the kernel's longest .c file has a tenth of that
	maxLine  = 200     // characters
	maxCache = 64 << 20
	tab      = 8 // the kernel's
	around   = 3 // lines before and after the one that is meant
)

// extensions are those of the languages that modules are written in.
var extensions = []string{".c", ".h", ".S", ".s", ".rs", ".cc", ".cpp", ".cxx", ".hpp", ".inc"}

// Root says that what was recorded below From is to be found below To.
type Root struct{ From, To string }

// ParseRoot reads FROM=TO.
func ParseRoot(s string) (Root, error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok || from == "" || to == "" {
		return Root{}, fmt.Errorf("%q is not FROM=TO: the directory that the module's debug information names, and where it is now", s)
	}
	return Root{filepath.Clean(from), filepath.Clean(to)}, nil
}

// rest is what a name has below the root, if it is there.
func (r Root) rest(name string) (string, bool) {
	switch {
	case name == r.From:
		return "", false
	case r.From == "." && !filepath.IsAbs(name):
		return name, true
	case r.From == "/" && filepath.IsAbs(name):
		return name[1:], true
	}
	return strings.CutPrefix(name, r.From+"/")
}

// Tree finds and reads source files. Its zero value looks where the names say.
// It is not for several goroutines at a time.
type Tree struct {
	roots []Root
	dir   string // the working directory

	files   map[string]*file // nil: can't be read
	cached  int
	modules map[string]time.Time
}

type file struct {
	name  string
	text  string
	lines []int // offsets of the beginnings
	time  time.Time
}

// New makes a tree. Of the roots that a name is below, the one with the longest
// From counts; relative names that no root has are looked for below dir, and
// beside the module.
func New(dir string, roots ...Root) *Tree {
	roots = slices.Clone(roots)
	slices.SortStableFunc(roots, func(a, b Root) int { return cmp.Compare(len(b.From), len(a.From)) })
	return &Tree{roots: roots, dir: dir}
}

// Excerpt is what the source has around a line.
type Excerpt struct {
	File  string // that was read
	Lines []Line
	Newer bool // the file has changed since the module was built: lines may have moved
}

// Line is one line of source: without control characters, with spaces in the
// place of tabs, and without the indentation that all lines of the excerpt have.
type Line struct {
	Number int
	Text   string
	Here   bool // the one that was asked for
}

// Excerpt reads around a line of the file that the debug information of a module
// calls name. It returns nil where the source is not at hand; so does a nil tree.
func (t *Tree) Excerpt(module, name string, line int) *Excerpt {
	if t == nil || line < 1 || name == "" {
		return nil
	}
	f := t.find(module, filepath.Clean(name))
	if f == nil || line > len(f.lines) {
		return nil
	}
	e := &Excerpt{File: f.name}
	if built := t.built(module); !built.IsZero() {
		e.Newer = f.time.After(built)
	}
	for n := max(1, line-around); n <= min(line+around, len(f.lines)); n++ {
		e.Lines = append(e.Lines, Line{Number: n, Text: clean(f.line(n)), Here: n == line})
	}
	dedent(e.Lines)
	return e
}

// find opens the file that a name stands for.
func (t *Tree) find(module, name string) *file {
	if !slices.Contains(extensions, filepath.Ext(name)) {
		return nil
	}
	for _, path := range t.places(module, name) {
		if f := t.open(path); f != nil {
			return f
		}
	}
	return nil
}

// places lists where a file may be, in the order in which they are tried.
func (t *Tree) places(module, name string) []string {
	abs := filepath.IsAbs(name)
	if !abs && !filepath.IsLocal(name) {
		return nil // out of every directory that it could be meant to be below
	}
	var places []string
	for _, r := range t.roots {
		if rest, ok := r.rest(name); ok {
			places = append(places, filepath.Join(r.To, rest))
			break
		}
	}
	if abs {
		return append(places, name)
	}
	places = append(places, filepath.Join(t.dir, name))
	if module != "" {
		places = append(places, filepath.Join(filepath.Dir(module), name))
	}
	return places
}

func (t *Tree) open(path string) *file {
	if f, ok := t.files[path]; ok {
		return f
	}
	f, err := read(path)
	if err != nil {
		f = nil
	}
	if f != nil {
		if t.cached += len(f.text); t.cached > maxCache {
			t.files, t.cached = nil, len(f.text)
		}
	}
	if t.files == nil {
		t.files = make(map[string]*file)
	}
	t.files[path] = f
	return f
}

// read reads a regular file whole.
func read(path string) (*file, error) {
	// A FIFO must not keep us waiting, nor a terminal become ours.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, and no more than %d are read", path, info.Size(), maxFile)
	}
	// Source may be a link, but to source.
	if to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && !slices.Contains(extensions, filepath.Ext(to)) {
		return nil, fmt.Errorf("%s leads to %s, which is not called like source", path, to)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	return newFile(path, string(b), info.ModTime()), nil
}

func newFile(name, text string, when time.Time) *file {
	f := &file{name: name, text: text, time: when}
	for at := 0; at < len(text); {
		f.lines = append(f.lines, at)
		n := strings.IndexByte(text[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	return f
}

// line returns a line by its number, which must be there.
func (f *file) line(n int) string {
	end := len(f.text)
	if n < len(f.lines) {
		end = f.lines[n]
	}
	return strings.TrimRight(f.text[f.lines[n-1]:end], "\r\n")
}

// built is when a module's file was written.
func (t *Tree) built(module string) time.Time {
	when, ok := t.modules[module]
	if !ok {
		if info, err := os.Stat(module); err == nil {
			when = info.ModTime()
		}
		if t.modules == nil {
			t.modules = make(map[string]time.Time)
		}
		t.modules[module] = when
	}
	return when
}

// clean expands tabs, quotes what would drive a terminal or turn the reading
// direction, and ends a line that nobody could read.
func clean(s string) string {
	var b strings.Builder
	width := 0
	for _, r := range s {
		switch {
		case width >= maxLine:
			return b.String() + "..."
		case r == '\t':
			n := tab - width%tab
			b.WriteString(strings.Repeat(" ", n))
			width += n
			continue
		case r == utf8.RuneError || !strconv.IsPrint(r):
			r = '?'
		}
		b.WriteRune(r)
		width++
	}
	return strings.TrimRight(b.String(), " ")
}

// dedent takes away the indentation that all lines have.
func dedent(lines []Line) {
	common := maxLine
	for _, l := range lines {
		if l.Text != "" {
			common = min(common, len(l.Text)-len(strings.TrimLeft(l.Text, " ")))
		}
	}
	for i, l := range lines {
		if l.Text != "" {
			lines[i].Text = l.Text[common:]
		}
	}
}
