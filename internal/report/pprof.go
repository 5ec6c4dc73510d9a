package report

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/google/pprof/profile"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
)

// writePprof writes a heap profile, as the Go runtime's and as gperftools' are: what each
// call stack has obtained in all, and what of it was not given back
// (https://github.com/google/pprof/blob/main/proto/profile.proto). It is one profile,
// also of several targets.
func writePprof(w io.Writer, reports []*leak.Report, _ Options) error {
	b := pprof{
		mappings:  make(map[string]*profile.Mapping),
		functions: make(map[[2]string]*profile.Function),
		locations: make(map[string]*profile.Location),
	}
	b.p.SampleType = []*profile.ValueType{
		{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"},
		{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"},
	}
	b.p.DefaultSampleType = "inuse_space"
	b.p.PeriodType, b.p.Period = &profile.ValueType{Type: "space", Unit: "bytes"}, 1
	for _, r := range reports {
		// The first mapping is what pprof takes for the program.
		m := b.mapping(r.Target.Name)
		m.BuildID = wording.Printable(r.Target.BuildID)
		if r.Target.Path != "" {
			m.File = wording.Printable(r.Target.Path)
		}
	}
	for _, r := range reports {
		b.p.Comments = append(b.p.Comments, wording.Verdict(r))
		b.report(r)
	}
	return b.p.Write(w)
}

// pprof is a profile in the making, with what is in it already.
type pprof struct {
	p         profile.Profile
	mappings  map[string]*profile.Mapping // by module
	functions map[[2]string]*profile.Function
	locations map[string]*profile.Location
}

func (b *pprof) report(r *leak.Report) {
	for _, s := range r.Sites {
		b.sample(r, s.Stack, s.Kind, s.Function, s.Allocations, s.AllocatedBytes, s.Outstanding, s.OutstandingBytes)
	}
	if r.Sites != nil {
		return
	}
	if len(r.PossibleLeaks) > 0 {
		b.p.Comments = append(b.p.Comments, "alloc_objects and alloc_space are those of what leaked: the report has nothing about the rest")
	}
	for _, l := range r.PossibleLeaks {
		b.sample(r, l.Stack, l.Kind, l.Function, l.Count, l.Bytes, l.Count, l.Bytes)
	}
}

func (b *pprof) sample(r *leak.Report, stack []leak.Frame, kind, function string, values ...uint64) {
	s := &profile.Sample{Label: map[string][]string{"target": {wording.Printable(r.Target.Name)}}}
	for _, v := range values {
		s.Value = append(s.Value, int64(min(v, math.MaxInt64)))
	}
	if kind != "" {
		s.Label["kind"] = []string{wording.Printable(kind)}
	}
	if function != "" {
		s.Label["allocator"] = []string{wording.Printable(function)}
	}
	for len(stack) > 0 {
		// A function and what was inlined into it are one place in memory.
		n := 1
		for n < len(stack) && stack[n-1].Inlined {
			n++
		}
		s.Location = append(s.Location, b.location(stack[:n]))
		stack = stack[n:]
	}
	b.p.Sample = append(b.p.Sample, s)
}

func (b *pprof) mapping(module string) *profile.Mapping {
	m, ok := b.mappings[module]
	if !ok {
		m = &profile.Mapping{ID: uint64(len(b.p.Mapping) + 1), File: "[kernel]"}
		if module != "" {
			m.File = "[" + wording.Printable(module) + "]"
		}
		// There is nothing that pprof would have to look up, or could.
		m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames = true, true, true, true
		b.mappings[module] = m
		b.p.Mapping = append(b.p.Mapping, m)
	}
	return m
}

func (b *pprof) location(frames []leak.Frame) *profile.Location {
	outer := frames[len(frames)-1]
	var k strings.Builder
	fmt.Fprintf(&k, "%s %x", outer.Module, uint64(outer.Address))
	for _, f := range frames {
		fmt.Fprintf(&k, "\x00%s\x00%s:%d", f.Function, f.File, f.Line)
	}
	l, ok := b.locations[k.String()]
	if ok {
		return l
	}
	l = &profile.Location{ID: uint64(len(b.p.Location) + 1), Mapping: b.mapping(outer.Module), Address: uint64(outer.Address)}
	for _, f := range frames {
		if f.Function != "" {
			l.Line = append(l.Line, profile.Line{Function: b.function(f), Line: int64(f.Line)})
		}
	}
	b.locations[k.String()] = l
	b.p.Location = append(b.p.Location, l)
	return l
}

func (b *pprof) function(f leak.Frame) *profile.Function {
	key := [2]string{f.Function, f.File}
	fn, ok := b.functions[key]
	if !ok {
		name := wording.Printable(f.Function)
		fn = &profile.Function{ID: uint64(len(b.p.Function) + 1), Name: name, SystemName: name, Filename: wording.Printable(f.File)}
		b.functions[key] = fn
		b.p.Function = append(b.p.Function, fn)
	}
	return fn
}
