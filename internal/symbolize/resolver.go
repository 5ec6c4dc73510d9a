package symbolize

import (
	"slices"
	"sync"

	"kedr/internal/target"
)

// Resolver names the addresses of one module. It may be used by several
// goroutines.
type Resolver struct {
	module  *target.Module
	imports map[string]bool

	mu     sync.Mutex
	lines  *lines // nil before the first use, and where there are none
	err    error  // why there are none
	opened bool
	frames map[place][]Frame // that have been asked for, without addresses
	tails  graph             // nil before the first use
	ways   map[question]way
}

// place is an offset in one of target.Module.Sections.
type place struct {
	section int
	offset  uint64
}

// question is what graph.search has been asked.
type question struct {
	from int
	goal node
	any  bool
}

// New returns a resolver; it costs nothing until it is asked.
func New(m *target.Module) *Resolver {
	return &Resolver{module: m, frames: make(map[place][]Frame), ways: make(map[question]way)}
}

// Location is a return address of a call stack.
type Location struct {
	Section int    // index in target.Module.Sections; -1: not in the module
	Offset  uint64 // in the section, in bytes
	Address uint64
	Other   *Frame // what an address outside of the module is
}

// Err returns why there are no source lines, nil if there are. It reads the
// debug information if that has not been done yet.
func (r *Resolver) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open()
	return r.err
}

func (r *Resolver) open() {
	if !r.opened {
		r.opened = true
		r.lines, r.err = openLines(r.module)
	}
}

// Frames returns the frames of one return address in the module, the innermost
// inlined function first, the function itself last. There is at least one, of
// which only the address is known where nothing else is. offset is in bytes
// from the start of the section; address is the same place in memory.
func (r *Resolver) Frames(section int, offset, address uint64) []Frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.framesAt(section, offset, address)
}

func (r *Resolver) framesAt(section int, offset, address uint64) []Frame {
	at := place{section, offset}
	known, ok := r.frames[at]
	if !ok {
		known = r.resolve(at)
		r.frames[at] = known
	}
	frames := slices.Clone(known)
	for i := range frames {
		frames[i].Address = address
	}
	return frames
}

func (r *Resolver) resolve(at place) []Frame {
	// A return address belongs to the call before it, which may be the last
	// instruction of its function.
	pc := at.offset - 1
	r.open()
	var frames []Frame
	if r.lines != nil && at.section >= 0 && at.offset > 0 {
		frames = r.lines.at(at.section, pc)
	}
	if len(frames) == 0 {
		frames = []Frame{{}}
	}
	for i := range frames {
		frames[i].Module = r.module.Name
	}
	if f, ok := r.module.FuncAt(at.section, pc); ok {
		last := &frames[len(frames)-1]
		last.Function, last.Offset, last.Size = f.Name, at.offset-f.Offset, f.Size
	}
	return frames
}

// Import returns the import that the call ending at offset end of a section
// reaches directly, or "".
func (r *Resolver) Import(section int, end uint64) string {
	if c, ok := r.module.CallEndingAt(section, end); ok && c.Import {
		return c.Symbol
	}
	return ""
}

// Stack returns the frames of a whole stack, innermost first, with inlined
// functions and with those that gave up their frame by a tail call, where the
// module's code leaves but one shortest way.
//
// callee is the import that was intercepted, "" if unknown. reached is the
// import that the innermost call leads to: callee if that is given, else what
// the module's code tells, "" where that cannot be told.
func (r *Resolver) Stack(stack []Location, callee string) (frames []Frame, reached string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reached = callee
	bases := make(map[int]uint64) // address of each section seen
	for _, loc := range stack {
		if loc.Section >= 0 {
			bases[loc.Section] = loc.Address - loc.Offset
		}
	}
	below := -1 // the function of the frame before, -1 if it is not the module's
	for i, loc := range stack {
		if loc.Section < 0 {
			f := Frame{Address: loc.Address}
			if loc.Other != nil {
				f = *loc.Other
			}
			frames, below = append(frames, f), -1
			continue
		}
		if c, ok := r.module.CallEndingAt(loc.Section, loc.Offset); ok {
			switch {
			case c.Tail:
				// The place of a jump that was seen, not of a return.
				if i == 0 && c.Import && reached == "" {
					reached = c.Symbol
				}
			case c.Import:
				if i == 0 && reached == "" {
					reached = c.Symbol
				}
			case i == 0:
				w := r.toImport(r.module.Hot(c.Callee), callee)
				frames = r.appendInferred(frames, w, bases)
				if reached == "" {
					reached = w.to.symbol
				}
			case below >= 0 && below != r.module.Hot(c.Callee):
				frames = r.appendInferred(frames, r.way(question{from: r.module.Hot(c.Callee), goal: node{fn: below}}), bases)
			}
		}
		frames = append(frames, r.framesAt(loc.Section, loc.Offset, loc.Address)...)
		if below = r.module.FuncIndex(loc.Section, loc.Offset-1); below >= 0 {
			below = r.module.Hot(below)
		}
	}
	return frames, reached
}

// toImport finds the way from a function to an import. A name that the module
// does not import is that of something the kernel did on the import's behalf,
// as a tracepoint has it, and tells no more than none.
func (r *Resolver) toImport(from int, name string) way {
	if r.imports == nil {
		r.imports = make(map[string]bool)
		for _, i := range r.module.Imports {
			r.imports[i.Name] = true
		}
	}
	if !r.imports[name] {
		return r.way(question{from: from, any: true})
	}
	return r.way(question{from: from, goal: node{-1, name}})
}

func (r *Resolver) way(q question) way {
	w, ok := r.ways[q]
	if !ok {
		if r.tails == nil {
			r.tails = newGraph(r.module)
		}
		goal := &q.goal
		if q.any {
			goal = nil
		}
		w = r.tails.search(q.from, goal)
		r.ways[q] = w
	}
	return w
}

// appendInferred appends the frames that a chain of tail calls gave up,
// innermost first.
func (r *Resolver) appendInferred(frames []Frame, w way, bases map[int]uint64) []Frame {
	for _, h := range slices.Backward(w.hops) {
		var here []Frame
		if len(h.sites) == 1 {
			c := h.sites[0]
			var address uint64
			if base, ok := bases[c.Section]; ok {
				address = base + c.End
			}
			here = r.framesAt(c.Section, c.End, address)
		} else {
			// Which of the jumps it was is not known, so neither is the line.
			f := &r.module.Funcs[h.fn]
			here = []Frame{{Function: f.Name, Size: f.Size, Module: r.module.Name}}
		}
		for i := range here {
			here[i].Inferred = true
		}
		frames = append(frames, here...)
	}
	return frames
}
