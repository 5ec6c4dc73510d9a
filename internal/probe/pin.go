package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"kedr/internal/kernel"
)

// iterator attaches one of the programs that print a map.
func (s *Set) iterator(program, mapName string, target uint32) (*link.Iter, error) {
	constants := map[string]any{"layout": s.layout, "file_target": target}
	prog, err := s.load(program, constants, "", nil)
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	return link.AttachIter(link.IterOptions{Program: prog, Map: s.shared[mapName]})
}

// Pinning. Dots are not allowed in names there (kernel/bpf/inode.c, bpf_lookup).
const (
	linksDir = "links"
	mapsDir  = "maps"
)

func pinSafe(s string) string { return strings.ReplaceAll(s, ".", "_") }

func pinName(m string) string { return strings.TrimPrefix(m, ".") }

// Pin makes the session outlive this process: its maps and links under dir, and
// for each target a directory of files under files.
func (s *Set) Pin(dir, files string, targets []string) error {
	for _, d := range []string{dir, dir + "/" + linksDir, dir + "/" + mapsDir, files} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making a directory in bpffs: %w", err)
		}
	}
	for name, m := range s.shared {
		if err := m.Pin(dir + "/" + mapsDir + "/" + pinName(name)); err != nil {
			return fmt.Errorf("pinning map %s: %w", name, err)
		}
	}
	for i, a := range s.attached {
		mark := int(flag(a.twin)) | int(a.kprobe)<<1
		if a.traced > 0 {
			mark = a.traced<<2 | int(a.half)
		}
		name := fmt.Sprintf("%03d-%03d-%d-%s", i, a.id, mark, pinSafe(a.Symbol))
		if err := a.link.Pin(dir + "/" + linksDir + "/" + name); err != nil {
			return fmt.Errorf("pinning the probe of %s: %w", a.Symbol, err)
		}
	}
	if !s.kernel.OwnTypes() {
		return nil // and no iterators
	}
	objects := "objects"
	if s.inCells() {
		objects = "cells"
	}
	for i, t := range targets {
		if err := os.Mkdir(files+"/"+t, 0o700); err != nil {
			return fmt.Errorf("making a directory in bpffs: %w", err)
		}
		for _, f := range []struct{ program, mapName, name string }{
			{"file_info", "loads", "info"},
			{"file_possible_leaks", objects, "possible_leaks"},
			{"file_unallocated_frees", "wrongs", "unallocated_frees"},
		} {
			it, err := s.iterator(f.program, f.mapName, uint32(i))
			if err != nil {
				return fmt.Errorf("making file %s: %w", f.name, err)
			}
			err = it.Pin(files + "/" + t + "/" + f.name)
			it.Close()
			if err != nil {
				return fmt.Errorf("pinning file %s: %w", f.name, err)
			}
		}
	}
	return nil
}

// OpenPinned opens a session that Pin has left.
func OpenPinned(dir string, k *kernel.Kernel) (set *Set, err error) {
	// To read it, maps are made as well.
	if err := rlimit.RemoveMemlock(); err != nil && errors.Is(err, unix.EPERM) {
		return nil, ErrNotPermitted
	}
	spec, err := readCompiled()
	if err != nil {
		return nil, err
	}
	s := &Set{spec: spec, kernel: k, shared: make(map[string]*ebpf.Map), bss: make(map[string]*ebpf.VariableSpec)}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for name, v := range spec.Variables {
		if v.SectionName == ".bss" {
			s.bss[name] = v
		}
	}
	for _, name := range sharedMaps {
		m, err := ebpf.LoadPinnedMap(dir+"/"+mapsDir+"/"+pinName(name), nil)
		if err != nil {
			return nil, permission(fmt.Errorf("opening pinned map %s: %w", name, err))
		}
		s.shared[name] = m
		// Iterators over it are made from the program's own description.
		if ms := spec.Maps[name]; ms != nil {
			ms.MaxEntries = m.MaxEntries()
		}
	}
	if err := s.openSymbols(); err != nil {
		return nil, err
	}
	links, err := os.ReadDir(dir + "/" + linksDir)
	if err != nil {
		return nil, fmt.Errorf("reading pinned probes: %w", err)
	}
	for _, e := range links {
		l, err := link.LoadPinnedLink(dir+"/"+linksDir+"/"+e.Name(), nil)
		if err != nil {
			return nil, fmt.Errorf("opening pinned probe %s: %w", e.Name(), err)
		}
		var index, mark int
		a := Attached{link: l}
		if _, err := fmt.Sscanf(e.Name(), "%d-%d-%d-%s", &index, &a.id, &mark, &a.Symbol); err != nil {
			return nil, fmt.Errorf("pinned probe %q is not ours: %w", e.Name(), err)
		}
		if a.id == traceID {
			a.traced, a.half = mark>>2, half(mark&3)
			if a.half == breakpoint {
				s.jumps = detachedJumps
			}
			s.attached = append(s.attached, a)
			continue
		}
		a.twin, a.kprobe = mark&1 != 0, end(mark>>1&3)
		if a.kprobe != noKprobe {
			s.kprobes, s.jumps = true, detachedJumps
		}
		if a.jump = a.id == maxProbes-1; a.jump {
			s.jumps = detachedJumps
		}
		s.attached = append(s.attached, a)
	}
	return s, nil
}
