package matrix

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"kedr/internal/kernel"
)

// CopySource copies the directory of a module's source, so that builds for several
// kernels neither mix nor write into it. What a build has left there does not come along,
// for make would take it as its own; nor does what lies in skipped directories below it.
// Links that lead out of the directory are made absolute; what is neither file, directory
// nor link is left out.
func CopySource(to, from string, skip ...string) error {
	from, err := filepath.EvalSymlinks(from)
	if err == nil {
		from, err = filepath.Abs(from)
	}
	if err != nil {
		return fmt.Errorf("the module's source: %w", err)
	}
	skipped := make(map[string]bool)
	for _, name := range skip {
		// One that is not there can't be in the way.
		if real, err := filepath.EvalSymlinks(name); err == nil && name != "" {
			if abs, err := filepath.Abs(real); err == nil {
				skipped[abs] = abs != from
			}
		}
	}
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("the module's source: %w", err)
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir() && (skipped[name] || d.Name() == ".git" || d.Name() == ".tmp_versions"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case built(name):
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			return copyLink(dst, name, from)
		case d.Type().IsRegular():
			return copyFile(dst, name)
		}
		return nil
	})
}

// built says whether a file is one that the kernel's build has made: beside most it
// leaves the command that made it.
func built(name string) bool {
	dir, base := filepath.Split(name)
	switch {
	case base == "Module.symvers", base == "modules.order", strings.HasSuffix(base, ".ko"), strings.HasSuffix(base, ".mod"),
		strings.HasSuffix(base, ".mod.c"), strings.HasPrefix(base, ".") && strings.HasSuffix(base, ".cmd"):
		return true
	}
	_, err := os.Lstat(filepath.Join(dir, "."+base+".cmd"))
	return err == nil
}

func copyLink(dst, name, root string) error {
	link, err := os.Readlink(name)
	if err != nil {
		return fmt.Errorf("the module's source: %w", err)
	}
	if !filepath.IsAbs(link) {
		abs := filepath.Join(filepath.Dir(name), link)
		if rel, err := filepath.Rel(root, abs); err != nil || !filepath.IsLocal(rel) {
			link = abs
		}
	}
	return os.Symlink(link, dst)
}

func copyFile(dst, name string) error {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("the module's source: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("the module's source: %w", err)
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return fmt.Errorf("copying the module's source: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copying the module's source: %w", err)
	}
	return out.Close()
}

// Module is a module that a build has made.
type Module struct {
	Name string // as the kernel has it
	Path string // of its file, below the directory that was built
}

// Modules lists the modules that were built in a directory, by name.
func Modules(dir string) ([]Module, error) {
	var out []Module
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(name) != ".ko" {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		out = append(out, Module{kernel.ModuleName(name), rel})
		return err
	})
	slices.SortFunc(out, func(a, b Module) int { return strings.Compare(a.Name+"\x00"+a.Path, b.Name+"\x00"+b.Path) })
	return out, err
}

// ErrChoose says that it is not clear which module is meant.
var ErrChoose = errors.New("choose one with --module NAME")

// Choose finds the module of that name, or with no name the only one.
func Choose(all []Module, name string) (Module, error) {
	var names []string
	for i, m := range all {
		if i > 0 && all[i-1].Name == m.Name {
			return Module{}, fmt.Errorf("%s and %s are one module to the kernel, %s: build one of them", all[i-1].Path, m.Path, m.Name)
		}
		if m.Name == kernel.ModuleName(name) {
			return m, nil
		}
		names = append(names, m.Name)
	}
	switch {
	case len(all) == 0:
		return Module{}, errors.New("the build made no module: has its Makefile an obj-m?")
	case name != "":
		return Module{}, fmt.Errorf("the build made no module %q, but %s: %w", name, strings.Join(names, ", "), ErrChoose)
	case len(all) > 1:
		return Module{}, fmt.Errorf("the build made %s: %w", strings.Join(names, ", "), ErrChoose)
	}
	return all[0], nil
}

// failureRE is what compilers, linkers, modpost and make say when they fail.
var failureRE = regexp.MustCompile(`(?i)\b(fatal )?error:|undefined!|\*\*\*|: command not found|^ld: `)

// FirstError is the first line of a build's log that says what failed; if none does, the
// last that says anything. Lines are cut at 300 bytes.
func FirstError(log io.Reader) string {
	last := ""
	r := bufio.NewReaderSize(log, 4096)
	for {
		b, err := r.ReadSlice('\n')
		line := string(b)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		line = strings.TrimSpace(line[:min(len(line), 300)])
		if failureRE.MatchString(line) {
			return line
		}
		if line != "" {
			last = line
		}
		if err != nil {
			return last
		}
	}
}
