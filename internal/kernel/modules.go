package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ModuleName is the kernel's name for a module of this file name: cut at the
// first '.', with '-' turned into '_'.
func ModuleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// ModuleLoaded says whether a module is loaded, or on its way in or out.
func ModuleLoaded(name string) bool {
	// Built-in code with parameters has a directory there too, but no initstate.
	_, err := os.Stat("/sys/module/" + name + "/initstate")
	return err == nil
}

// HasModules says whether this kernel can load modules at all.
func HasModules() bool {
	_, err := os.Stat("/proc/modules")
	return err == nil
}

// ErrNoModule says that no installed module has that name.
var ErrNoModule = errors.New("no such module")

// FindModule returns the file of an installed module, from modules.dep where
// depmod has made one, else by a look at the whole tree. dir is
// /lib/modules/<release>.
func FindModule(dir, name string) (string, error) {
	want := ModuleName(name)
	if b, err := os.ReadFile(filepath.Join(dir, "modules.dep")); err == nil {
		for line := range strings.Lines(string(b)) {
			file, _, ok := strings.Cut(line, ":")
			if ok && ModuleName(file) == want {
				return filepath.Join(dir, file), nil
			}
		}
		return "", fmt.Errorf("%s: %w in %s", name, ErrNoModule, dir)
	}
	var found string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && strings.Contains(d.Name(), ".ko") && ModuleName(p) == want {
			found = p
			return fs.SkipAll
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("looking for module %s: %w", name, err)
	case found == "":
		return "", fmt.Errorf("%s: %w in %s", name, ErrNoModule, dir)
	}
	return found, nil
}

// Installed lists the names of installed modules, as far as depmod has made a list of
// them. dir is /lib/modules/<release>.
func Installed(dir string) []string {
	b, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		if file, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, ModuleName(file))
		}
	}
	return names
}

// ModuleBeside returns the file of a module in a directory itself.
func ModuleBeside(dir, name string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	want := ModuleName(name)
	for _, e := range entries {
		if !e.IsDir() && strings.Contains(e.Name(), ".ko") && ModuleName(e.Name()) == want {
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", fmt.Errorf("%s: %w in %s", name, ErrNoModule, dir)
}
