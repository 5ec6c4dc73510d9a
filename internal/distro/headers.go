package distro

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// headers is where those of a kernel are unpacked, with build tools for 64 bits.
func (s *Store) headers(k Kernel) string {
	name := k.Release
	if k.Arch() != AMD64 {
		name += "-on-" + string(AMD64)
	}
	return filepath.Join(s.Dir, "headers", name)
}

// Headers returns a directory in which modules for a kernel are built with
// make -C, fetching it where need be. The build tools are for 64 bits, also where the
// kernel is not: they make modules of either kind, and a host may be unable to run programs
// of 32 bits (CONFIG_IA32_EMULATION, or ia32_emulation=off on its command line).
func (s *Store) Headers(ctx context.Context, k Kernel) (string, error) {
	root := s.headers(k)
	dir := filepath.Join(root, "usr/src/linux-headers-"+k.Release)
	if exists(dir) {
		return dir, nil
	}
	a, err := s.apt(k.Arch())
	if err != nil {
		return "", err
	}
	headers := "linux-headers-" + k.Release
	if _, err := a.offers(ctx, headers); err != nil {
		return "", err
	}
	deps, err := a.depends(ctx, headers)
	if err != nil {
		return "", err
	}
	packages := []string{headers}
	var tools []string
	for _, d := range deps {
		switch {
		case strings.HasPrefix(d, "linux-headers-"):
			packages = append(packages, d)
		case strings.HasPrefix(d, "linux-kbuild-"):
			tools = append(tools, d)
		}
	}
	sets := []set{{a, packages}}
	if k.Arch() == AMD64 {
		sets[0].packages = append(packages, tools...)
	} else if len(tools) > 0 {
		own, err := s.apt(AMD64)
		if err != nil {
			return "", err
		}
		if _, err := own.offers(ctx, tools[0]); err != nil {
			return "", err
		}
		sets = append(sets, set{own, tools})
	}
	return dir, s.unpack(ctx, root, sets, func(tmp string) error { return relocate(tmp, root) })
}

// anyCompiler ends .kernelvariables, which names the compiler of the kernel's own
// suite: 5.10's is gcc-10, which no later suite has.
const anyCompiler = `
# Unpacked by kedr, not installed with its compiler: the host's will do.
ifeq ($(shell command -v $(CC) 2>/dev/null),)
CC := $(CROSS_COMPILE)gcc
endif
`

// relocate makes unpacked headers refer to where they are, since their Makefiles
// include each other by absolute names below /usr/src; and to a compiler that is there.
func relocate(tmp, root string) error {
	err := edit(filepath.Join(tmp, "usr/src/*/Makefile"), func(text string) string {
		for _, word := range []string{"include ", "KBUILD_OUTPUT="} {
			text = strings.ReplaceAll(text, word+"/usr/src/", word+root+"/usr/src/")
		}
		return text
	})
	if err != nil {
		return err
	}
	return edit(filepath.Join(tmp, "usr/src/*/.kernelvariables"), func(text string) string { return text + anyCompiler })
}

// edit changes the text of each file of a pattern.
func edit(pattern string, change func(string) string) error {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link that leads nowhere yet
		}
		if err != nil {
			return err
		}
		if text := change(string(b)); text != string(b) {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
