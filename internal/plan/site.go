package plan

import (
	"cmp"
	"slices"
	"strings"

	"kedr/internal/target"
)

// Site is a direct call in a target.
type Site struct {
	Section int
	End     uint64 // offset of the return address
	// Probes lists, by index in Plan.Probes, what the call may lead to: the
	// callee's probe, or those that the callee ends up in by tail calls. Empty for
	// a call to what is not probed.
	Probes []int
}

// Sites lists a target's direct calls. An indirect call is not among them: it may
// lead anywhere.
func (p *Plan) Sites(m *target.Module) []Site {
	probes := make(map[string][]int)
	for i, pr := range p.Probes {
		for _, im := range pr.Imports {
			probes[im] = append(probes[im], i)
		}
	}
	w := walker{module: m, probes: probes, done: make(map[string]reach)}
	sites := make([]Site, 0, len(m.Calls))
	for _, c := range m.Calls {
		if c.Tail {
			// Of these a kprobe tells (Jumps), by the address behind a jmp.
			if c.Import && len(probes[c.Symbol]) > 0 {
				sites = append(sites, Site{Section: c.Section, End: jumpEnd(m, c), Probes: probes[c.Symbol]})
			}
			continue
		}
		r := reach{}
		if c.Import {
			r = w.imported(c.Symbol)
		} else {
			r = w.local(c.Symbol)
		}
		if !r.anywhere {
			sites = append(sites, Site{Section: c.Section, End: c.End, Probes: r.probes})
		}
	}
	return sites
}

// reach is what a call can lead to.
type reach struct {
	probes   []int
	anywhere bool // an indirect jump is on the way
}

type walker struct {
	module *target.Module
	probes map[string][]int
	done   map[string]reach
}

func (w *walker) imported(symbol string) reach {
	// How kernels with retpolines make indirect calls (arch/x86/lib/retpoline.S).
	if strings.HasPrefix(symbol, "__x86_indirect_thunk_") {
		return reach{anywhere: true}
	}
	return reach{probes: w.probes[symbol]}
}

// local follows a function's tail calls, each function once.
func (w *walker) local(function string) reach {
	if r, ok := w.done[function]; ok {
		return r
	}
	var r reach
	seen := map[string]bool{function: true}
	for queue := []string{function}; len(queue) > 0; queue = queue[1:] {
		for _, c := range w.module.TailCalls(queue[0]) {
			switch {
			case c.Import:
				to := w.imported(c.Symbol)
				r.anywhere = r.anywhere || to.anywhere
				r.probes = append(r.probes, to.probes...)
			case !seen[c.Symbol]:
				seen[c.Symbol] = true
				queue = append(queue, c.Symbol)
			}
		}
	}
	slices.Sort(r.probes)
	r.probes = slices.Compact(r.probes)
	w.done[function] = r
	return r
}

// Jump is a jump of a target to what is probed, in a function that somebody else may
// call: the probed function returns to him then, and only the jump tells that the
// target got there.
type Jump struct {
	Target   int    // index in Plan.Targets
	Function string // that jumps
	Symbol   string // that it jumps to
	Role     Role
	Section  int
	Start    uint64 // offset of the instruction in the section

	// Anchor is a function of the section whose name is the only one of its kind in
	// the module, and Offset the jump's distance from it: how a kprobe is named.
	Anchor string
	Offset uint64

	// Traceable: the function begins with a call of the tracer's. In others the
	// kernel allows no kprobes of this sort (kernel/trace/trace_kprobe.c,
	// within_notrace_func), and says so only in its log.
	Traceable bool
}

// jumpLen is how long a jmp to an import is, callLen how long a call.
const (
	jumpLen = 5
	callLen = 5
)

// jumpEnd is the address behind a jump as the programs tell it: they know where it
// begins, and take it for a jmp. A jcc is a byte longer.
func jumpEnd(m *target.Module, c target.Call) uint64 {
	return jumpStart(m, c) + jumpLen
}

func jumpStart(m *target.Module, c target.Call) uint64 {
	if c.Conditional {
		return c.End - jumpLen - 1
	}
	return c.End - jumpLen
}

// jumps lists a target's jumps to what is probed.
func (p *Plan) jumps(t int) ([]Jump, error) {
	roles := make(map[string]Role)
	for _, pr := range p.Probes {
		for _, im := range pr.Imports {
			// What is obtained matters more.
			if r, ok := roles[im]; !ok || r == Release {
				roles[im] = pr.Role
			}
		}
	}
	jumps, err := jumpsTo(p.Targets[t], func(symbol string) bool {
		_, ok := roles[symbol]
		return ok
	})
	for i := range jumps {
		jumps[i].Target, jumps[i].Role = t, roles[jumps[i].Symbol]
	}
	return jumps, err
}

// jumpsTo lists a module's jumps to imports, in functions that somebody else may call.
func jumpsTo(m *target.Module, wanted func(symbol string) bool) ([]Jump, error) {
	if !slices.ContainsFunc(m.Calls, func(c target.Call) bool { return c.Import && c.Tail && wanted(c.Symbol) }) {
		return nil, nil
	}
	taken, err := m.AddressTaken()
	if err != nil {
		return nil, err
	}
	names := make(map[string]int)
	parts := make(map[int][]int) // a function and its cold part
	for i, f := range m.Funcs {
		names[f.Name]++
		parts[m.Hot(i)] = append(parts[m.Hot(i)], i)
	}
	var jumps []Jump
	seen := make(map[int]bool)
	var queue []int
	for i := range m.Funcs {
		if taken[i] && !seen[m.Hot(i)] {
			seen[m.Hot(i)] = true
			queue = append(queue, m.Hot(i))
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		var calls []target.Call
		for _, part := range parts[queue[0]] {
			calls = append(calls, m.TailCallsIn(part)...)
		}
		for _, c := range calls {
			if !c.Import {
				if to := m.Hot(c.Callee); !seen[to] {
					seen[to] = true
					queue = append(queue, to)
				}
				continue
			}
			if !wanted(c.Symbol) {
				continue
			}
			j := Jump{
				Function: m.Funcs[queue[0]].Name, Symbol: c.Symbol,
				Section: c.Section, Start: jumpStart(m, c), Traceable: traceable(m, queue[0]),
			}
			j.Anchor, j.Offset = anchor(m, names, c.Section, j.Start)
			jumps = append(jumps, j)
		}
	}
	slices.SortFunc(jumps, func(a, b Jump) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Start, b.Start))
	})
	return slices.Compact(jumps), nil
}

// anchor finds a function at or before a place whose name is the only one of its kind,
// and how far behind it the place is; "": there is none.
func anchor(m *target.Module, names map[string]int, section int, at uint64) (string, uint64) {
	for i := m.FuncIndex(section, at); i >= 0 && m.Funcs[i].Section == section; i-- {
		if f := m.Funcs[i]; names[f.Name] == 1 {
			return f.Name, at - f.Offset
		}
	}
	return "", 0
}

// traceable says whether a function calls the tracer, behind an endbr64 at most.
func traceable(m *target.Module, i int) bool {
	f := &m.Funcs[i]
	for _, end := range []uint64{f.Offset + 5, f.Offset + 9} {
		if c, ok := m.CallEndingAt(f.Section, end); ok && c.Import && c.Symbol == "__fentry__" {
			return true
		}
	}
	return false
}

// Unseen says what it means that a jump can't be watched.
func (j *Jump) Unseen(why string) Unwatched {
	return Unwatched{
		Function: j.Symbol,
		Reason:   "when the kernel calls " + j.Function + ", which ends in a jump to it, it returns to the kernel, and the jump can't be watched: " + why,
	}
}
