// Package suppress leaves findings out of the count that somebody has looked at and does
// not mind: files of patterns over call stacks, in the syntax of Valgrind's suppressions.
// docs/suppressions.md is their reference.
package suppress

import (
	"cmp"
	"path"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/session"
)

// Suppression is one block of a file.
type Suppression struct {
	Name string
	File string // as it was given
	Line int    // of the block's brace

	finding string // one of findings' values; empty: any
	kinds   []glob // of the catalog; none: any
	frames  []frame
	end     bool // the stack has no more frames than these

	used bool
}

// findings are the names that a block has for what was found, and those of the report.
var findings = map[string]string{
	"Leak":        "leak",
	"Unallocated": session.Unallocated,
	"Double":      session.Double,
	"Mismatched":  session.Mismatched,
	"Any":         "",
}

// kernelProper is what the kernel itself is called, which is no module.
const kernelProper = "vmlinux"

// moduleName is the kernel's, with _ where files may have a -.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// frame is a line about the call stack.
type frame struct {
	any      wildcard
	fun, src *glob // nil: whatever
	obj      *glob
	plain    bool // fun is a name as in the source
	base     bool // src is a file's name without its directory
}

// wildcard stands for any number of frames.
type wildcard int

const (
	none   wildcard = iota // one frame it is
	all                    // "..."
	others                 // all of them outside of the target
)

func (p *frame) matches(f *leak.Frame) bool {
	if p.fun != nil {
		name := f.Function
		if p.plain {
			name = f.SourceName()
		}
		if !p.fun.match(name) {
			return false
		}
	}
	if p.obj != nil {
		if !p.obj.match(cmp.Or(moduleName(f.Module), kernelProper)) {
			return false
		}
	}
	if p.src != nil {
		file := f.File
		if p.base && file != "" {
			file = path.Base(file)
		}
		return p.src.match(file)
	}
	return true
}

// finding is what suppressions are asked about.
type finding struct {
	what   string // a value of findings
	kind   string
	target string
	stack  []leak.Frame
	// passing are the frames that a pattern may pass over: see passes.
	passing []bool
}

// passes tells of each frame whether it may be there or not. Functions of the kernel's
// headers that the compiler has put into the target have other names on other kernels, or are no
// frames at all. They are in no fingerprint either; see leak.Frame.Header.
func (f *finding) passes() []bool {
	passing := make([]bool, len(f.stack))
	for i := range f.stack {
		passing[i] = f.stack[i].Module == f.target && f.stack[i].Header()
	}
	return passing
}

// matches says whether the block is about this finding. The time is that of frames
// times lines, however many wildcards there are: the lines that may come next are
// walked through the stack side by side. states has room for all lines and the end, twice.
func (s *Suppression) matches(f *finding, states []bool) bool {
	if s.finding != "" && s.finding != f.what {
		return false
	}
	if len(s.kinds) > 0 && !anyMatches(s.kinds, f.kind) {
		return false
	}
	n := len(s.frames)
	// Most blocks are about another place.
	if n > 0 && s.frames[0].any == none && (len(f.stack) == 0 || !f.passing[0] && !s.frames[0].matches(&f.stack[0])) {
		return false
	}
	now, next := states[:n+1], states[n+1:2*n+2]
	clear(now)
	s.reach(now, 0)
	for i := range f.stack {
		if now[n] && !s.end {
			return true
		}
		clear(next)
		alive := f.passing[i]
		if alive {
			copy(next, now)
		}
		for p := range n {
			if !now[p] {
				continue
			}
			switch line := &s.frames[p]; {
			case line.any == all, line.any == others && f.stack[i].Module != f.target:
				s.reach(next, p)
			case line.any == none && line.matches(&f.stack[i]):
				s.reach(next, p+1)
			default:
				continue
			}
			alive = true
		}
		if !alive {
			return false
		}
		now, next = next, now
	}
	return now[n]
}

// reach enters that line p may come next, or those after it where p may stand for no
// frame at all.
func (s *Suppression) reach(states []bool, p int) {
	for ; p < len(states) && !states[p]; p++ {
		states[p] = true
		if p == len(s.frames) || s.frames[p].any == none {
			return
		}
	}
}

// Set is the suppressions of an analysis, and how often each was used.
type Set struct {
	list   []*Suppression
	states []bool
	cache  map[string]*Suppression // nil: none matches
}

// NewSet returns the set of these, of which the first that matches is used.
func NewSet(list []*Suppression) *Set {
	s := &Set{list: list, cache: make(map[string]*Suppression)}
	longest := 0
	for _, sup := range list {
		longest = max(longest, len(sup.frames))
	}
	s.states = make([]bool, 2*longest+2)
	return s
}

// find returns the suppression of a finding, or nil. Loads of one module have the same
// stacks again and again.
func (s *Set) find(f *finding) *Suppression {
	var key strings.Builder
	for _, part := range []string{f.what, f.kind, f.target} {
		key.WriteString(part)
		key.WriteByte(0)
	}
	for _, fr := range f.stack {
		for _, part := range []string{fr.Function, fr.Module, fr.File} {
			key.WriteString(part)
			key.WriteByte(0)
		}
	}
	if sup, ok := s.cache[key.String()]; ok {
		return sup
	}
	f.passing = f.passes()
	var found *Suppression
	for _, sup := range s.list {
		if sup.matches(f, s.states) {
			found = sup
			break
		}
	}
	s.cache[key.String()] = found
	return found
}

// Apply marks the findings of a report that are suppressed, and lists what suppressed
// them. Marks of other suppressions, in a report that was saved, are replaced.
func (s *Set) Apply(r *leak.Report) {
	r.Suppressions = nil
	used := make(map[*Suppression]*leak.Suppression)
	use := func(f finding) *leak.Suppression {
		sup := s.find(&f)
		if sup == nil {
			return nil
		}
		u := used[sup]
		if u == nil {
			u = &leak.Suppression{Name: sup.Name, File: sup.File, Line: sup.Line}
			used[sup] = u
		}
		sup.used = true
		u.Stacks++
		return u
	}
	for i := range r.PossibleLeaks {
		l := &r.PossibleLeaks[i]
		l.Suppressed = ""
		if u := use(finding{what: "leak", kind: l.Kind, target: r.Target.Name, stack: l.Stack}); u != nil {
			l.Suppressed = u.Name
			u.Leaks += l.Count
			u.Bytes += l.Bytes
		}
	}
	for i := range r.UnallocatedFrees {
		w := &r.UnallocatedFrees[i]
		w.Suppressed = ""
		if u := use(finding{what: w.Wrong, kind: w.Kind, target: r.Target.Name, stack: w.Stack}); u != nil {
			w.Suppressed = u.Name
			u.Releases += w.Count
		}
	}
	for _, sup := range s.list {
		if u := used[sup]; u != nil {
			r.Suppressions = append(r.Suppressions, *u)
		}
	}
}

// Unused returns the suppressions that no report had a use for, in their files' order.
func (s *Set) Unused() []*Suppression {
	var unused []*Suppression
	for _, sup := range s.list {
		if !sup.used {
			unused = append(unused, sup)
		}
	}
	return unused
}
