package symbolize

import (
	"kedr/internal/target"
)

// Resolver names the addresses of one module.
type Resolver struct {
	module *target.Module
	lines  func() *lines
}

// New returns a resolver; it costs nothing until it is asked.
func New(m *target.Module) *Resolver {
	return &Resolver{module: m, lines: lazyLines(m)}
}

// Location is a return address of a call stack.
type Location struct {
	Section int    // index in target.Module.Sections; -1: not in the module
	Offset  uint64 // in the section
	Address uint64
	Other   *Frame // what an address outside of the module is
}

// Frames returns the frames of one return address in the module, the innermost
// inlined function first, the function itself last.
func (r *Resolver) Frames(section int, offset, address uint64) []Frame {
	// A return address belongs to the call before it.
	return r.frames(section, offset, address, offset-1)
}

func (r *Resolver) frames(section int, offset, address, pc uint64) []Frame {
	var frames []Frame
	if l := r.lines(); l != nil {
		frames = l.at(section, pc)
	}
	if len(frames) == 0 {
		frames = []Frame{{}}
	}
	for i := range frames {
		frames[i].Address, frames[i].Module = address, r.module.Name
	}
	last := &frames[len(frames)-1]
	if fn, ok := r.module.FuncAt(section, pc); ok {
		last.Function, last.Offset, last.Size = fn.Name, offset-fn.Offset, fn.Size
	}
	return frames
}

// Stack returns the frames of a whole stack, innermost first, with inlined
// functions and with those that gave up their frame by a tail call, where the
// module's code leaves but one way. callee is the function that was intercepted,
// or "" where a tracepoint has seen it; reached is the import that the innermost
// call leads to, "" where that can't be told.
func (r *Resolver) Stack(stack []Location, callee string) (frames []Frame, reached string) {
	reached = callee
	entered := "" // the function that the next call must have led to
	for i, loc := range stack {
		if loc.Section < 0 {
			f := Frame{Address: loc.Address}
			if loc.Other != nil {
				f = *loc.Other
			}
			frames, entered = append(frames, f), ""
			continue
		}
		if call, ok := r.module.CallEndingAt(loc.Section, loc.Offset); ok {
			switch {
			case i == 0 && call.Import:
				if reached == "" {
					reached = call.Symbol
				}
			case i == 0:
				chain, to := r.chain(call.Symbol, callee, callee == "")
				frames = append(frames, r.inferred(chain, loc)...)
				if reached == "" {
					reached = to
				}
			case entered != "" && !call.Import && call.Symbol != entered:
				chain, _ := r.chain(call.Symbol, entered, false)
				frames = append(frames, r.inferred(chain, loc)...)
			}
		}
		here := r.Frames(loc.Section, loc.Offset, loc.Address)
		frames = append(frames, here...)
		entered = here[len(here)-1].Function
	}
	return frames, reached
}

// hop is a tail call on the way, with its place where there is but one.
type hop struct {
	function string
	call     target.Call
	unique   bool
}

// maxChain bounds the length of a chain of tail calls.
const maxChain = 16

// chain finds how from leads to a callee by tail calls alone: breadth first, and
// only if there is one shortest way. With anyImport every import will do.
func (r *Resolver) chain(from, callee string, anyImport bool) ([]hop, string) {
	type state struct {
		function string
		path     []hop
	}
	seen := map[string]bool{from: true}
	level := []state{{function: from}}
	for depth := 0; depth < maxChain && len(level) > 0; depth++ {
		var next []state
		found := make(map[string][]hop)
		entered := make(map[string]bool)
		ambiguous := false
		for _, s := range level {
			calls := make(map[string][]target.Call)
			for _, c := range r.module.TailCalls(s.function) {
				calls[c.Symbol] = append(calls[c.Symbol], c)
			}
			for symbol, sites := range calls {
				path := append(s.path[:len(s.path):len(s.path)], hop{s.function, sites[0], len(sites) == 1})
				switch {
				case symbol == callee && !anyImport, anyImport && sites[0].Import:
					ambiguous = ambiguous || found[symbol] != nil
					found[symbol] = path
				case !sites[0].Import && !seen[symbol]:
					// Two ways to one function leave open which was taken.
					if entered[symbol] {
						ambiguous = true
					}
					entered[symbol] = true
					next = append(next, state{symbol, path})
				}
			}
		}
		if len(found) == 1 && !ambiguous {
			for to, path := range found {
				return path, to
			}
		}
		if len(found) > 0 || ambiguous {
			return nil, ""
		}
		for symbol := range entered {
			seen[symbol] = true
		}
		level = next
	}
	return nil, ""
}

// inferred makes the frames of a chain, innermost first.
func (r *Resolver) inferred(chain []hop, caller Location) []Frame {
	var frames []Frame
	for i := len(chain) - 1; i >= 0; i-- {
		h := chain[i]
		address := uint64(0)
		if h.call.Section == caller.Section {
			address = caller.Address - caller.Offset + h.call.End
		}
		var here []Frame
		if h.unique {
			here = r.Frames(h.call.Section, h.call.End, address)
		} else {
			here = []Frame{{Function: h.function, Module: r.module.Name}}
		}
		for j := range here {
			here[j].Inferred = true
		}
		frames = append(frames, here...)
	}
	return frames
}
