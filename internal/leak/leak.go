// Package leak makes the report's content out of what a session captured: what
// leaked, grouped by call stack, largest first, with names and source lines. It
// is the one value that every output format is written from.
package leak

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kedr/internal/kernel"
	"kedr/internal/session"
	"kedr/internal/symbolize"
	"kedr/internal/target"
)

// Schema is the version of the JSON document.
const Schema = 1

// Report is the result of an analysis of one target.
type Report struct {
	Schema int    `json:"schema"`
	Target Target `json:"target"`
	Kernel Kernel `json:"kernel"`

	Allocations           uint64 `json:"allocations"`
	AllocatedBytes        uint64 `json:"allocated_bytes"`
	Frees                 uint64 `json:"frees"`
	PossibleLeaksTotal    uint64 `json:"possible_leaks_total"`
	LeakedBytes           uint64 `json:"leaked_bytes"`
	UnallocatedFreesTotal uint64 `json:"unallocated_frees_total"` // with double frees
	MismatchedTotal       uint64 `json:"mismatched_releases_total"`

	Loads            []Load  `json:"loads"`
	PossibleLeaks    []Leak  `json:"possible_leaks"`
	UnallocatedFrees []Wrong `json:"unallocated_frees"` // and all other wrong releases

	// What left findings out of the count; see counted.go. All totals are of what was seen.
	Suppressions []Suppression `json:"suppressions,omitempty"` // those that were used
	Baseline     string        `json:"baseline,omitempty"`     // the file

	// Sites are all call stacks that obtained something, where that was captured.
	Sites []Site `json:"sites,omitempty"`

	LostEvents uint64      `json:"lost_events"`
	Lost       []Lost      `json:"lost"`
	Unwatched  []Unwatched `json:"unwatched"`
	CutStacks  uint64      `json:"cut_stacks"`

	Settle time.Duration `json:"settle_ns"`
	// Notes are remarks on the result, a line each: what is missing and how to get it.
	Notes []string `json:"notes"`
}

// Target is the module that was analysed.
type Target struct {
	Name string `json:"name"`
	Path string `json:"path"`
	// BuildID is the linker's, in hexadecimal; empty where the module has none.
	BuildID string `json:"build_id,omitempty"`
}

// Kernel is where it ran.
type Kernel struct {
	Release string `json:"release"`
	Machine string `json:"machine"`
}

// Load is one stay of the target in the kernel.
type Load struct {
	ID               uint32  `json:"id"`
	Core             Address `json:"core"`
	Init             Address `json:"init"`
	Loaded           bool    `json:"loaded"`                // it still is
	LoadedAt         float64 `json:"loaded_at,omitempty"`   // seconds since boot; 0: not known
	UnloadedAt       float64 `json:"unloaded_at,omitempty"` // likewise; 0: it still is loaded
	Allocations      uint64  `json:"allocations"`
	Frees            uint64  `json:"frees"`
	PossibleLeaks    uint64  `json:"possible_leaks"`
	UnallocatedFrees uint64  `json:"unallocated_frees"`
	Mismatched       uint64  `json:"mismatched_releases"`
}

// Address is a kernel address. JSON has it as "0xffff...": a number of that size
// loses digits in many readers.
type Address uint64

// MarshalText writes the address in hexadecimal.
func (a Address) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(a)), nil }

// UnmarshalText reads what MarshalText has written.
func (a *Address) UnmarshalText(b []byte) error {
	digits, ok := strings.CutPrefix(string(b), "0x")
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil {
		return fmt.Errorf("address %q: want 0x and up to 16 hexadecimal digits", b)
	}
	*a = Address(n)
	return nil
}

// Leak is a call stack whose objects were not given back. The fields of an
// object are those of the oldest.
type Leak struct {
	Fingerprint string `json:"fingerprint"` // see fingerprint.go

	Address  Address  `json:"address"`
	Size     uint64   `json:"size"`  // of one object, in bytes; 0: unknown
	Bytes    uint64   `json:"bytes"` // of all
	Kind     string   `json:"kind"`
	Function string   `json:"function"` // that handed them out
	PID      int32    `json:"pid"`
	Comm     string   `json:"comm"`
	IRQ      bool     `json:"irq"`
	Load     uint32   `json:"load"`
	Count    uint64   `json:"count"`
	Cut      bool     `json:"cut"` // the stack has more frames than are shown
	Objects  []Object `json:"objects"`
	Stack    []Frame  `json:"stack"`

	Suppressed string `json:"suppressed,omitempty"` // the suppression's name
	Known      uint64 `json:"known,omitempty"`      // how many of Count the baseline has, too
	KnownBytes uint64 `json:"known_bytes,omitempty"`
}

// Object is one object of a leak.
type Object struct {
	Address Address `json:"address"`
	Size    uint64  `json:"size"`
	PID     int32   `json:"pid"`
	Comm    string  `json:"comm"`
	Time    float64 `json:"time"` // seconds since boot
}

// Site is a call stack that obtained something, given back or not.
type Site struct {
	Fingerprint      string  `json:"fingerprint"` // as that of what it leaks
	Kind             string  `json:"kind"`        // "": not known
	Function         string  `json:"function"`    // that handed it out; "": not known
	Load             uint32  `json:"load"`
	Allocations      uint64  `json:"allocations"`
	AllocatedBytes   uint64  `json:"allocated_bytes"`
	Outstanding      uint64  `json:"outstanding"` // of the allocations, what was not given back
	OutstandingBytes uint64  `json:"outstanding_bytes"`
	Cut              bool    `json:"cut"` // the stack has more frames than are shown
	Stack            []Frame `json:"stack"`
}

// Wrong is a call stack that released what it should not have.
type Wrong struct {
	Fingerprint string `json:"fingerprint"` // see fingerprint.go

	Wrong    string  `json:"wrong"`   // "unallocated", "double" or "mismatched"
	Address  Address `json:"address"` // of the first
	Kind     string  `json:"kind"`
	Function string  `json:"function"`
	PID      int32   `json:"pid"`
	Comm     string  `json:"comm"`
	IRQ      bool    `json:"irq"`
	Load     uint32  `json:"load"`
	Count    uint64  `json:"count"`
	Cut      bool    `json:"cut"`
	Stack    []Frame `json:"stack"`

	Object *Released `json:"object,omitempty"` // where a target had obtained it

	Suppressed string `json:"suppressed,omitempty"` // the suppression's name
	Known      uint64 `json:"known,omitempty"`      // how many of Count the baseline has, too
}

// Released is an object that was released wrongly.
type Released struct {
	Size     uint64 `json:"size"`
	Kind     string `json:"kind"`
	Function string `json:"function"` // that handed it out
	Obtained Party  `json:"obtained"`
	First    *Party `json:"first_release,omitempty"` // of two
}

// Party is who did something, and where.
type Party struct {
	PID   int32   `json:"pid"`
	Comm  string  `json:"comm"`
	IRQ   bool    `json:"irq"`
	Cut   bool    `json:"cut"`
	Stack []Frame `json:"stack"`
}

// Frame is one function of a call stack, innermost first.
type Frame struct {
	Address  Address `json:"address"`
	Function string  `json:"function"`
	Offset   uint64  `json:"offset"`
	Size     uint64  `json:"size"`
	Module   string  `json:"module"`
	File     string  `json:"file"`
	Line     int     `json:"line"`
	Inlined  bool    `json:"inlined"`
	Inferred bool    `json:"inferred"`
}

// Lost counts events that were not accounted for.
type Lost struct {
	Function string `json:"function"`
	Reason   string `json:"reason"`
	Count    uint64 `json:"count"`
}

// Unwatched is a function that the target imports and that was not intercepted.
type Unwatched struct {
	Function string `json:"function"`
	Reason   string `json:"reason"`
}

// Incomplete says whether events were lost, so that neither a find nor its
// absence is certain.
func (r *Report) Incomplete() bool { return r.LostEvents > 0 || len(r.Unwatched) > 0 }

// Complete fills in what a report that was read may lack: lists are there, also when they
// are empty, and whatever was found has a fingerprint.
func (r *Report) Complete() {
	r.Loads, r.PossibleLeaks, r.UnallocatedFrees = list(r.Loads), list(r.PossibleLeaks), list(r.UnallocatedFrees)
	r.Lost, r.Unwatched, r.Notes = list(r.Lost), list(r.Unwatched), list(r.Notes)
	for i := range r.PossibleLeaks {
		l := &r.PossibleLeaks[i]
		l.Objects, l.Stack = list(l.Objects), list(l.Stack)
		if l.Fingerprint == "" {
			l.Fingerprint = fingerprint("leak", l.Kind, r.Target.Name, l.Stack)
		}
	}
	for i := range r.Sites {
		s := &r.Sites[i]
		s.Stack = list(s.Stack)
		if s.Fingerprint == "" {
			s.Fingerprint = fingerprint("leak", s.Kind, r.Target.Name, s.Stack)
		}
	}
	for i := range r.UnallocatedFrees {
		w := &r.UnallocatedFrees[i]
		w.Stack = list(w.Stack)
		if w.Fingerprint == "" {
			w.Fingerprint = fingerprint(w.Wrong, w.Kind, r.Target.Name, w.Stack)
		}
		if w.Object != nil {
			w.Object.Obtained.Stack = list(w.Object.Obtained.Stack)
			if first := w.Object.First; first != nil {
				first.Stack = list(first.Stack)
			}
		}
	}
}

// list is s, or an empty list where there is none: JSON tells the two apart.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// New makes the reports of the given targets' loads: one report a target, in the
// capture's order. modules are the targets' files by name; one that is missing
// (or no longer the file that was analysed) costs source lines, not the report.
func New(c *session.Capture, modules map[string]*target.Module) []*Report {
	b := newBuilder(c, modules)
	reports := make([]*Report, len(c.Targets))
	for i, t := range c.Targets {
		reports[i] = b.report(i, t)
	}
	return reports
}

type builder struct {
	capture   *session.Capture
	modules   map[string]*target.Module
	resolvers map[string]*symbolize.Resolver
	stacks    map[uint64]*session.Stack
	loads     map[uint32]*session.Load
	frames    map[frameKey]resolved
}

type frameKey struct {
	stack  uint64
	load   uint32
	callee string
}

type resolved struct {
	frames   []Frame
	function string
}

func newBuilder(c *session.Capture, modules map[string]*target.Module) *builder {
	b := &builder{
		capture: c, modules: modules,
		resolvers: make(map[string]*symbolize.Resolver),
		stacks:    make(map[uint64]*session.Stack, len(c.Stacks)),
		loads:     make(map[uint32]*session.Load, len(c.Loads)),
		frames:    make(map[frameKey]resolved),
	}
	for name, m := range modules {
		b.resolvers[name] = symbolize.New(m)
	}
	for i := range c.Stacks {
		b.stacks[c.Stacks[i].ID] = &c.Stacks[i]
	}
	for i := range c.Loads {
		b.loads[c.Loads[i].ID] = &c.Loads[i]
	}
	return b
}

func (b *builder) report(index int, t session.Target) *Report {
	c := b.capture
	r := &Report{
		Schema: Schema,
		Target: Target{Name: t.Name, Path: t.Path, BuildID: t.BuildID},
		Kernel: Kernel{Release: c.Release, Machine: c.Machine},
		Settle: c.Settle,
	}
	defer r.Complete() // of lists that stay empty
	live := make(map[uint32]uint64)
	for _, o := range c.Objects {
		live[o.Load]++
	}
	mine := make(map[uint32]bool)
	for _, l := range c.Loads {
		if l.Target != index {
			continue
		}
		mine[l.ID] = true
		r.Loads = append(r.Loads, Load{
			ID: l.ID, Core: Address(l.Core), Init: Address(l.Init), Loaded: l.Unloaded == 0,
			LoadedAt: l.Loaded.Seconds(), UnloadedAt: l.Unloaded.Seconds(),
			Allocations: l.Allocations, Frees: l.Frees,
			PossibleLeaks: live[l.ID], UnallocatedFrees: l.UnallocatedFree, Mismatched: l.Mismatched,
		})
		r.Allocations += l.Allocations
		r.AllocatedBytes += l.AllocatedBytes
		r.Frees += l.Frees
		r.UnallocatedFreesTotal += l.UnallocatedFree
		r.MismatchedTotal += l.Mismatched
		if len(l.Sections) == 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("load %d: the module that was loaded is not %s: its functions can't be named", l.ID, t.Path))
		}
	}
	if c.LoadError != "" {
		r.Notes = append(r.Notes, "loading failed: "+c.LoadError)
	}
	if c.Verified > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d call stacks were known again by comparing, and unwound as well (--verify-stacks)", c.Verified))
	}
	if c.WorkloadError != "" {
		r.Notes = append(r.Notes, "the workload ended with: "+c.WorkloadError+": it may not have done all that it was to do")
	}
	b.leaks(r, mine)
	b.sites(r, mine)
	b.wrongs(r, mine)
	for _, l := range c.Lost {
		if l.Check {
			r.Notes = append(r.Notes, fmt.Sprintf("%d call(s) of %s, by anybody, were not checked for being the right release: %s", l.Count, l.Function, l.Reason))
			continue
		}
		r.Lost = append(r.Lost, Lost{Function: l.Function, Reason: l.Reason, Count: l.Count})
		r.LostEvents += l.Count
	}
	for _, u := range c.Unwatched {
		r.Unwatched = append(r.Unwatched, Unwatched(u))
	}
	switch m := b.modules[t.Name]; {
	case r.Clean():
	case m == nil:
		r.Notes = append(r.Notes, fmt.Sprintf("%s can't be read any more, or has changed since: no source lines", t.Path))
	case !m.HasLines:
		r.Notes = append(r.Notes, "the module has no debug information: for source lines build it with -g (ccflags-y += -g), and do not strip it")
	}
	return r
}

func (b *builder) leaks(r *Report, mine map[uint32]bool) {
	type group struct {
		load  uint32
		stack uint64
		kind  string
	}
	at := make(map[group]int)
	for _, o := range b.capture.Objects {
		if !mine[o.Load] {
			continue
		}
		g := group{o.Load, o.Stack, o.Kind}
		i, ok := at[g]
		if !ok {
			i = len(r.PossibleLeaks)
			at[g] = i
			res := b.stack(o.Stack, o.Load, o.Function)
			leak := Leak{
				Address: Address(o.Address), Size: o.Size, Kind: o.Kind, Function: res.function,
				PID: o.PID, Comm: o.Comm, IRQ: o.IRQ, Load: o.Load, Stack: res.frames, Cut: b.cut(o.Stack),
			}
			if leak.Cut {
				r.CutStacks++
			}
			r.PossibleLeaks = append(r.PossibleLeaks, leak)
		}
		l := &r.PossibleLeaks[i]
		l.Count++
		l.Bytes += o.Size
		l.Objects = append(l.Objects, Object{
			Address: Address(o.Address), Size: o.Size, PID: o.PID, Comm: o.Comm, Time: o.Time.Seconds(),
		})
		r.PossibleLeaksTotal++
		r.LeakedBytes += o.Size
	}
	slices.SortStableFunc(r.PossibleLeaks, func(x, y Leak) int { return cmp.Compare(y.Bytes, x.Bytes) })
}

func (b *builder) wrongs(r *Report, mine map[uint32]bool) {
	for _, w := range b.capture.WrongFrees {
		if !mine[w.Load] {
			continue
		}
		res := b.stack(w.Stack, w.Load, w.Function)
		wrong := Wrong{
			Wrong: w.Wrong, Address: Address(w.Address), Kind: w.Kind, Function: res.function,
			PID: w.PID, Comm: w.Comm, IRQ: w.IRQ, Load: w.Load, Count: w.Count, Stack: res.frames, Cut: b.cut(w.Stack),
		}
		if wrong.Cut {
			r.CutStacks++
		}
		if o := w.Object; o != nil {
			obtained, function := b.party(o.Obtained, w.Load, o.Function)
			wrong.Object = &Released{Size: o.Size, Kind: o.Kind, Function: function, Obtained: obtained}
			if o.First != nil {
				first, _ := b.party(*o.First, w.Load, "")
				wrong.Object.First = &first
			}
		}
		r.UnallocatedFrees = append(r.UnallocatedFrees, wrong)
	}
	slices.SortStableFunc(r.UnallocatedFrees, func(x, y Wrong) int { return cmp.Compare(y.Count, x.Count) })
}

func (b *builder) party(p session.Party, load uint32, probed string) (Party, string) {
	res := b.stack(p.Stack, load, probed)
	return Party{PID: p.PID, Comm: p.Comm, IRQ: p.IRQ, Cut: b.cut(p.Stack), Stack: res.frames}, res.function
}

func (b *builder) cut(stack uint64) bool {
	st := b.stacks[stack]
	return st == nil || st.Cut
}

// stack resolves a call stack, and the function that it reached: the one that
// was probed or, where that is a tracepoint, the one that the call site names.
func (b *builder) stack(id uint64, load uint32, probed string) resolved {
	key := frameKey{id, load, probed}
	if r, ok := b.frames[key]; ok {
		return r
	}
	r := resolved{function: probed}
	st, ld := b.stacks[id], b.loads[load]
	if st != nil && ld != nil {
		name := b.capture.Targets[ld.Target].Name
		locations := make([]symbolize.Location, 0, len(st.Frames))
		if st.Site != 0 {
			locations = append(locations, b.locate(ld, st.Site))
		}
		for _, addr := range st.Frames {
			if !b.noise(addr) {
				locations = append(locations, b.locate(ld, addr))
			}
		}
		var frames []symbolize.Frame
		if res := b.resolvers[name]; res != nil {
			var reached string
			frames, reached = res.Stack(locations, probed)
			r.function = cmp.Or(r.function, reached)
		} else {
			for _, l := range locations {
				f := symbolize.Frame{Address: l.Address}
				if l.Other != nil {
					f = *l.Other
				}
				frames = append(frames, f)
			}
		}
		for _, f := range frames {
			out := Frame{
				Address: Address(f.Address), Function: f.Function, Offset: f.Offset, Size: f.Size, Module: f.Module,
				File: f.File, Line: f.Line, Inlined: f.Inlined, Inferred: f.Inferred,
			}
			r.frames = append(r.frames, out)
		}
	}
	r.frames = list(r.frames)
	b.frames[key] = r
	return r
}

// noise says whether a frame is our own trampoline's.
func (b *builder) noise(addr uint64) bool {
	sym, ok := b.capture.Symbols[addr]
	return ok && strings.HasPrefix(sym.Function, "bpf_trampoline_")
}

// locate finds the section of the target that made the call returning to addr.
func (b *builder) locate(ld *session.Load, addr uint64) symbolize.Location {
	loc := symbolize.Location{Section: -1, Address: addr}
	if m := b.modules[b.capture.Targets[ld.Target].Name]; m != nil {
		for i, base := range ld.Sections {
			// The call lies before the address that it returns to.
			if i < len(m.Sections) && addr-1-base < m.Sections[i].Size {
				loc.Section, loc.Offset = i, addr-base
				return loc
			}
		}
	}
	f := b.foreign(addr)
	loc.Other = &f
	return loc
}

// foreign names an address outside of the load's own module: in another target,
// or in the kernel by its own word.
func (b *builder) foreign(addr uint64) symbolize.Frame {
	for i := range b.capture.Loads {
		ld := &b.capture.Loads[i]
		name := b.capture.Targets[ld.Target].Name
		m, res := b.modules[name], b.resolvers[name]
		if m == nil {
			continue
		}
		for s, base := range ld.Sections {
			if s < len(m.Sections) && addr-1-base < m.Sections[s].Size {
				if frames := res.Frames(s, addr-base, addr); len(frames) > 0 {
					return frames[len(frames)-1]
				}
			}
		}
	}
	sym := b.capture.Symbols[addr]
	return symbolize.Frame{
		Address: addr, Function: sym.Function, Offset: sym.Offset, Size: sym.Size, Module: sym.Module,
	}
}

// Name is how a module is called on the command line, too.
func Name(s string) string { return kernel.ModuleName(s) }
