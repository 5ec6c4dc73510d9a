package session

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cilium/ebpf"
)

// maxNamed bounds the kernel addresses that are named for call stacks of which nothing
// is outstanding: each is a question to the kernel.
const maxNamed = 8192

// captureSites reads what was obtained, by call stack. The stacks of objects are there
// already, and named.
func (s *Session) captureSites(c *Capture) error {
	obtained, err := s.set.Obtained()
	if err != nil {
		return err
	}
	known := make(map[uint32]bool, len(c.Loads))
	for _, l := range c.Loads {
		known[l.ID] = true
	}
	stacks := make(map[uint64]bool, len(c.Stacks))
	for _, st := range c.Stacks {
		stacks[st.ID] = true
	}
	if c.Symbols == nil {
		c.Symbols = make(map[uint64]Symbol)
	}
	asked := make(map[uint64]bool)
	for _, o := range obtained {
		if !known[o.Load] {
			continue
		}
		if !stacks[o.Stack] {
			st, err := s.set.Stack(o.Stack)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				continue // a clear was faster
			}
			if err != nil {
				return err
			}
			stacks[o.Stack] = true
			c.Stacks = append(c.Stacks, Stack{ID: o.Stack, Frames: st.Frames, Cut: st.Cut, Site: st.Site})
			for _, a := range st.Frames {
				if _, ok := c.Symbols[a]; ok || asked[a] || len(asked) >= maxNamed {
					continue
				}
				asked[a] = true
				if sym, ok := s.set.Name(a); ok {
					c.Symbols[a] = Symbol{Function: sym.Name, Offset: sym.Offset, Size: sym.Size, Module: sym.Module}
				}
			}
		}
		c.Sites = append(c.Sites, Site{Load: o.Load, Stack: o.Stack, Objects: o.Objects, Bytes: o.Bytes})
	}
	// Largest first: a map has no order, a report should have.
	slices.SortFunc(c.Sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Objects, a.Objects), cmp.Compare(a.Load, b.Load), cmp.Compare(a.Stack, b.Stack))
	})
	c.Kinds = make(map[string]string)
	for _, p := range s.meta.Probes {
		for _, name := range p.Imports {
			c.Kinds[name] = p.Kind
		}
	}
	return nil
}
