package wording

import (
	"kedr/internal/leak"
	"kedr/internal/session"
	"kedr/internal/source"
)

// Listed is a report without the findings that don't count.
func Listed(r *leak.Report) *leak.Report {
	if len(r.Suppressions) == 0 && r.Baseline == "" {
		return r
	}
	short := *r
	short.PossibleLeaks, short.UnallocatedFrees = nil, nil
	for _, l := range r.PossibleLeaks {
		if l.New() > 0 {
			short.PossibleLeaks = append(short.PossibleLeaks, l)
		}
	}
	for _, w := range r.UnallocatedFrees {
		if w.New() > 0 {
			short.UnallocatedFrees = append(short.UnallocatedFrees, w)
		} else if w.Wrong != session.Mismatched {
			short.UnallocatedFreesTotal -= min(w.Count, short.UnallocatedFreesTotal)
		}
	}
	return &short
}

// Innermost is the target's frame that a find is shown at: the innermost with a line of its
// own source, not of the kernel's headers, else the innermost; nil: there is none.
func Innermost(stack []leak.Frame, module string) *leak.Frame {
	var first *leak.Frame
	for i := range stack {
		f := &stack[i]
		if f.Module != module {
			continue
		}
		if f.File != "" && f.Line > 0 && !f.Header() {
			return f
		}
		if first == nil {
			first = f
		}
	}
	return first
}

// Around is the source around a frame of the target's; nil where it has none, or it can't
// be read.
func Around(sources *source.Tree, t leak.Target, f *leak.Frame) *source.Excerpt {
	if f == nil || f.Module != t.Name {
		return nil
	}
	return sources.Excerpt(t.Path, f.File, f.Line)
}
