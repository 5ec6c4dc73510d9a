package plan

import (
	"bytes"
	"debug/elf"
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

// Unseen lists what a target obtains where no probe can tell that it was the target:
// in functions that end in a jump to an allocator and that nothing in the target
// calls directly. When the kernel calls one, as a callback, the allocator returns to
// the kernel.
func (p *Plan) Unseen(m *target.Module) []Unwatched {
	obtains := make(map[string]bool)
	for _, pr := range p.Probes {
		if pr.Role == Obtain {
			for _, im := range pr.Imports {
				obtains[im] = true
			}
		}
	}
	called := make(map[string]bool)
	for _, c := range m.Calls {
		if !c.Import {
			called[c.Symbol] = true
		}
	}
	var out []Unwatched
	var static map[string]bool
	for _, f := range m.Funcs {
		if called[f.Name] {
			continue
		}
		symbols := jumpedTo(m, f.Name, obtains)
		if len(symbols) > 0 && static == nil {
			static = staticFuncs(m)
		}
		// A static function that nobody calls is there because its address is
		// taken; another one may be what is left of a function that was inlined.
		if !static[f.Name] {
			continue
		}
		for _, symbol := range symbols {
			out = append(out, Unwatched{
				Function: symbol,
				Reason:   "when the kernel calls " + f.Name + ", which ends in a jump to it, it returns to the kernel: build with -fno-optimize-sibling-calls to see it",
			})
		}
	}
	return out
}

// staticFuncs lists the functions that only the module's own file can name.
func staticFuncs(m *target.Module) map[string]bool {
	static := make(map[string]bool)
	f, err := elf.NewFile(bytes.NewReader(m.Image()))
	if err != nil {
		return static
	}
	symbols, err := f.Symbols()
	if err != nil {
		return static
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && elf.ST_BIND(s.Info) == elf.STB_LOCAL {
			static[s.Name] = true
		}
	}
	return static
}

// jumpedTo lists the wanted imports that a function ends in, by its own jumps and
// those of the functions that it jumps to.
func jumpedTo(m *target.Module, function string, wanted map[string]bool) []string {
	var found []string
	seen := map[string]bool{function: true}
	for queue := []string{function}; len(queue) > 0; queue = queue[1:] {
		for _, c := range m.TailCalls(queue[0]) {
			switch {
			case c.Import && wanted[c.Symbol]:
				found = union(found, []string{c.Symbol})
			case !c.Import && !seen[c.Symbol]:
				seen[c.Symbol] = true
				queue = append(queue, c.Symbol)
			}
		}
	}
	return found
}
