package format

import (
	"bufio"
	"cmp"
	"fmt"
	"slices"
	"text/tabwriter"

	"kedr/internal/trace"
)

// summary adds up calls, errors and times, by function and by call site.
type summary struct {
	w         *bufio.Writer
	h         *trace.Header
	sites     *sites
	stack     *trace.Stacks
	functions map[int]*sum
	places    map[place]*sum
	end       *trace.End
}

// place is a call site and what it calls: an indirect call may call many.
type place struct {
	function int
	site     uint32
}

type sum struct {
	calls, errors, open uint64
	total, longest      uint64
}

func newSummary(w *bufio.Writer, h *trace.Header, o Options) Writer {
	return &summary{w: w, h: h, sites: newSites(o.Dir), stack: trace.NewStacks(h), functions: make(map[int]*sum), places: make(map[place]*sum)}
}

func (s *summary) Record(r *trace.Record) error {
	switch {
	case r.Site != nil:
		s.sites.add(r.Site)
	case r.End != nil:
		end := *r.End
		s.end = &end
	case r.Event != nil:
		_, ended := s.stack.Take(r.Event)
		for _, in := range ended {
			s.add(in)
		}
	}
	return nil
}

func (s *summary) add(in *trace.Invocation) {
	e := &in.Begin
	f, p := s.functions[e.Function], s.places[place{e.Function, e.Site}]
	if f == nil {
		f = &sum{}
		s.functions[e.Function] = f
	}
	if p == nil {
		p = &sum{}
		s.places[place{e.Function, e.Site}] = p
	}
	_, failed := s.h.Functions[e.Function].Error(in.Result)
	for _, to := range []*sum{f, p} {
		to.calls++
		if !in.Returned {
			to.open++
			continue
		}
		if failed {
			to.errors++
		}
		to.total += in.Duration
		to.longest = max(to.longest, in.Duration)
	}
}

// Flush shows nothing: a sum is known in the end.
func (s *summary) Flush() error { return nil }

func (s *summary) Close() error {
	for _, in := range s.stack.Sorted() {
		s.add(in)
	}
	tw := tabwriter.NewWriter(s.w, 0, 8, 2, ' ', tabwriter.AlignRight)
	row := func(name string, v *sum) {
		mean := uint64(0)
		if n := v.calls - v.open; n > 0 {
			mean = v.total / n
		}
		fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%s\t  %s\n", v.calls, v.errors, duration(v.total), duration(mean), duration(v.longest), name)
	}
	fmt.Fprint(tw, "CALLS\tERRORS\tTOTAL\tMEAN\tLONGEST\t  FUNCTION\n")
	var all sum
	for _, f := range sorted(s.functions, func(a, b int) int { return cmp.Compare(s.h.Functions[a].Name, s.h.Functions[b].Name) }) {
		v := s.functions[f]
		name := trace.Clean(s.h.Functions[f].Name)
		if s.h.Functions[f].Callback {
			name += " (called by the kernel)"
		} else {
			all.calls += v.calls
			all.errors += v.errors
			all.open += v.open
			all.total += v.total
			all.longest = max(all.longest, v.longest)
		}
		row(name, v)
	}
	row("all calls into the kernel", &all)
	tw.Flush()
	s.w.WriteByte('\n')
	fmt.Fprint(tw, "CALLS\tERRORS\tTOTAL\tMEAN\tLONGEST\t  CALL SITE\n")
	for _, p := range sorted(s.places, func(a, b place) int {
		return cmp.Or(cmp.Compare(s.h.Functions[a.function].Name, s.h.Functions[b.function].Name), cmp.Compare(s.sites.text[a.site], s.sites.text[b.site]))
	}) {
		if p.site != 0 {
			row(trace.Clean(s.h.Functions[p.function].Name)+" from "+s.sites.text[p.site], s.places[p])
		}
	}
	tw.Flush()
	if all.open > 0 {
		fmt.Fprintf(s.w, "\n# %s without a result\n", plural(int(all.open), "call", "calls"))
	}
	writeEnd(s.w, s.h, s.end)
	return s.w.Flush()
}

// sorted lists the keys, those with the longest time first.
func sorted[K comparable](m map[K]*sum, less func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b K) int {
		return cmp.Or(-cmp.Compare(m[a].total, m[b].total), -cmp.Compare(m[a].calls, m[b].calls), less(a, b))
	})
	return keys
}
