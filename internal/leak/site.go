package leak

import (
	"cmp"
	"slices"
)

// sites lists all call stacks that obtained something, the largest first. What was
// obtained without a stack of its own, as there was no room for it, is known as far as it
// is outstanding.
func (b *builder) sites(r *Report, mine map[uint32]bool) {
	if b.capture.Sites == nil {
		return
	}
	type key struct {
		load  uint32
		stack uint64
	}
	at := make(map[key]int)
	for _, s := range b.capture.Sites {
		if !mine[s.Load] {
			continue
		}
		at[key{s.Load, s.Stack}] = len(r.Sites)
		r.Sites = append(r.Sites, Site{Load: s.Load, Allocations: s.Objects, AllocatedBytes: s.Bytes, Cut: b.cut(s.Stack)})
	}
	for _, o := range b.capture.Objects {
		if !mine[o.Load] {
			continue
		}
		k := key{o.Load, o.Stack}
		i, ok := at[k]
		if !ok {
			i = len(r.Sites)
			at[k] = i
			r.Sites = append(r.Sites, Site{Load: o.Load, Cut: true})
		}
		s := &r.Sites[i]
		if s.Outstanding == 0 {
			s.Kind, s.Function = o.Kind, o.Function
		}
		s.Outstanding++
		s.OutstandingBytes += o.Size
	}
	for k, i := range at {
		s := &r.Sites[i]
		res := b.stack(k.stack, k.load, s.Function)
		s.Stack, s.Function = res.frames, res.function
		s.Kind = cmp.Or(s.Kind, b.capture.Kinds[s.Function])
		// An object may have come between the two looks at the kernel's side.
		s.Allocations, s.AllocatedBytes = max(s.Allocations, s.Outstanding), max(s.AllocatedBytes, s.OutstandingBytes)
	}
	slices.SortStableFunc(r.Sites, func(x, y Site) int {
		return cmp.Or(cmp.Compare(y.AllocatedBytes, x.AllocatedBytes), cmp.Compare(y.Allocations, x.Allocations))
	})
}
