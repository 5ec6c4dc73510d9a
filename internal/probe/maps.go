package probe

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"kedr/internal/plan"
)

// sharedMaps are the maps that all programs of a session have in common.
var sharedMaps = []string{"open_calls", "objects", "cells", "stacks", "tallies", "spare_slots", "wrongs", "freed", "notes", "loads", "targets", "syms", "sites", "elsewhere", "known", ".bss",
	"trace_ring", "trace_events", "trace_counts", "trace_open", "trace_paired", "trace_sites"}

func (s *Set) makeMaps(p *plan.Plan, opts Options) error {
	objects := opts.MaxObjects
	if objects == 0 {
		objects = maxObjects
	}
	if err := s.sizeObjects(objects); err != nil {
		return err
	}
	stacks := opts.MaxStacks
	if stacks == 0 {
		stacks = maxStacks
	}
	if err := s.sizeStacks(stacks); err != nil {
		return err
	}
	if opts.Files {
		n := 0
		for _, t := range p.Targets {
			n += len(t.Funcs)
		}
		s.spec.Maps["syms"].MaxEntries = uint32(max(n, 1))
	}
	s.bss = make(map[string]*ebpf.VariableSpec)
	for name, v := range s.spec.Variables {
		if v.SectionName == ".bss" {
			s.bss[name] = v
		}
	}
	if err := s.sizeTraceMaps(p.Trace, &opts.Trace); err != nil {
		return err
	}
	sites := newSiteMaps(p)
	s.spec.Maps["sites"].MaxEntries = uint32(max(len(sites.keys), 1))
	s.spec.Maps["elsewhere"].MaxEntries = uint32(max(len(sites.words), 1))
	if opts.Trace.Sites != nil {
		s.spec.Maps["trace_sites"].MaxEntries = uint32(max(len(sites.words), 1))
	}
	// As cilium/ebpf makes it; the collections that replace it by ours insist.
	s.spec.Maps[".bss"].Flags |= unix.BPF_F_MMAPABLE
	for _, name := range sharedMaps {
		m, err := ebpf.NewMap(s.spec.Maps[name])
		if err != nil {
			return permission(fmt.Errorf("making map %s: %w", name, err))
		}
		s.shared[name] = m
	}
	if err := sites.write(s.shared["sites"], s.shared["elsewhere"]); err != nil {
		return err
	}
	if err := s.writeRanges(opts.Trace.Sites, sites); err != nil {
		return err
	}
	return s.writeTargets(p, sites, opts.Files)
}

func (s *Set) writeTargets(p *plan.Plan, sites *siteMaps, files bool) error {
	next := uint32(0)
	for i, t := range p.Targets {
		if len(t.Sections) > MaxSections {
			return fmt.Errorf("%s: %d sections of code, and there is room for %d", t.Path, len(t.Sections), MaxSections)
		}
		v := kedrTarget{Sections: uint32(len(t.Sections)), SymbolCount: uint32(t.SymbolCount), FirstSym: next}
		if !setString(v.Name[:], t.Name) {
			return fmt.Errorf("module name %q is too long", t.Name)
		}
		for j, sec := range t.Sections {
			v.Section[j].Symbol = sec.Symbol
			v.Section[j].Size = uint32(sec.Size)
			v.Section[j].Value = sec.SymbolValue
			v.Section[j].Elsewhere = sites.first[i][j]
		}
		if files {
			v.Syms = uint32(len(t.Funcs))
			keys := make([]uint32, len(t.Funcs))
			syms := make([]kedrSym, len(t.Funcs))
			for j, f := range t.Funcs {
				keys[j] = next
				next++
				syms[j] = kedrSym{Section: uint32(f.Section), Offset: uint32(f.Offset), Size: uint32(f.Size)}
				if !setString(syms[j].Name[:], f.Name) {
					// Long names are cut in the files; the report has them whole.
					setString(syms[j].Name[:], f.Name[:len(syms[j].Name)-1])
				}
			}
			if len(keys) > 0 {
				if _, err := s.shared["syms"].BatchUpdate(keys, syms, nil); err != nil {
					return fmt.Errorf("writing the function names: %w", err)
				}
			}
		}
		if err := s.shared["targets"].Put(uint32(i), &v); err != nil {
			return fmt.Errorf("writing target %s: %w", t.Name, err)
		}
	}
	return nil
}

func setString(to []int8, from string) bool {
	if len(from) >= len(to) {
		return false
	}
	for i := range from {
		to[i] = int8(from[i])
	}
	return true
}

func goString(from []int8) string {
	b := make([]byte, 0, len(from))
	for _, c := range from {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}
