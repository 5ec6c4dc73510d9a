package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"kedr/internal/distro"
	"kedr/internal/kernel"
	"kedr/internal/target"
)

// archive writes an initramfs: cpio in the kernel's "newc" format
// (Documentation/driver-api/early-userspace/buffer-format.rst). Not compressed:
// it is read once, from memory.
type archive struct {
	w    *cpio.Writer
	dirs map[string]bool
}

func (a *archive) mkdir(dir string) error {
	dir = strings.Trim(dir, "/")
	if dir == "" || dir == "." || a.dirs[dir] {
		return nil
	}
	if err := a.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	a.dirs[dir] = true
	return a.w.WriteHeader(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755, Links: 2})
}

func (a *archive) file(name string, mode fs.FileMode, content []byte) error {
	name = strings.TrimPrefix(name, "/")
	if err := a.mkdir(path.Dir(name)); err != nil {
		return err
	}
	h := &cpio.Header{Name: name, Mode: cpio.TypeReg | cpio.FileMode(mode.Perm()), Size: int64(len(content)), Links: 1}
	if err := a.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.w.Write(content)
	return err
}

// writeInitramfs makes the machine's initramfs, in which there is nothing of its job yet.
func writeInitramfs(out io.Writer, c *Config) error {
	buf := bufio.NewWriterSize(out, 1<<20)
	a := &archive{w: cpio.NewWriter(buf), dirs: make(map[string]bool)}
	self, err := c.program()
	if err != nil {
		return err
	}
	exe, err := os.ReadFile(self)
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	if err := a.file(initPath, 0o755, exe); err != nil {
		return err
	}
	if c.HostRoot {
		c.rootFS = root9p
	}
	mods, err := resolve(c.Kernel, c.wanted())
	if c.HostRoot && errors.Is(err, kernel.ErrNoModule) {
		// Kernels for clouds have no 9p.
		c.rootFS = rootVirtioFS
		mods, err = resolve(c.Kernel, c.wanted())
	}
	if err != nil {
		return err
	}
	// resolve keeps their order: the port's come first.
	port, err := resolve(c.Kernel, portModules)
	if err != nil {
		return err
	}
	var s setup
	for i, m := range mods {
		name := "/modules/" + m.Name + ".ko"
		if err := a.file(name, 0o644, m.Image()); err != nil {
			return err
		}
		if i < len(port) {
			s.PortModules = append(s.PortModules, name)
		} else {
			s.Modules = append(s.Modules, name)
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "host", "layer", "root"} {
		if err := a.mkdir(dir); err != nil {
			return err
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := a.file(setupFile, 0o600, b); err != nil {
		return err
	}
	return errors.Join(a.w.Close(), buf.Flush())
}

// portModules drive the ports to the host.
var portModules = []string{"virtio_pci", "virtio_console"}

// wanted names the modules to load first.
func (c *Config) wanted() []string {
	names := slices.Clone(portModules)
	switch c.rootFS {
	case root9p:
		names = append(names, "9pnet_virtio", "9p", "overlay")
	case rootVirtioFS:
		names = append(names, "virtiofs", "overlay")
	}
	return append(names, c.Modules...)
}

// resolve finds modules of a kernel and what they need, each before those that
// need it; modules that are built in are left out.
func resolve(k distro.Kernel, names []string) ([]*target.Module, error) {
	if len(names) == 0 {
		return nil, nil
	}
	dir := k.Modules()
	files := make(map[string]string)
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), ".ko") {
			files[kernel.ModuleName(p)] = p
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the modules of %s: %w", k.Release, err)
	}
	builtin := make(map[string]bool)
	if b, err := os.ReadFile(filepath.Join(dir, "modules.builtin")); err == nil {
		for line := range strings.Lines(string(b)) {
			builtin[kernel.ModuleName(strings.TrimSpace(line))] = true
		}
	}
	var out []*target.Module
	done := make(map[string]bool)
	var add func(name string) error
	add = func(name string) error {
		name = kernel.ModuleName(name)
		if done[name] || builtin[name] {
			return nil
		}
		done[name] = true
		file, ok := files[name]
		if !ok {
			return fmt.Errorf("%s: %w in %s", name, kernel.ErrNoModule, dir)
		}
		m, err := target.Open(file)
		if err != nil {
			return err
		}
		for _, dep := range m.Depends {
			if err := add(dep); err != nil {
				return fmt.Errorf("%s needs %w", name, err)
			}
		}
		out = append(out, m)
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}
