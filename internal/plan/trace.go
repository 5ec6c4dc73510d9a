package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"kedr/internal/kernel"
	"kedr/internal/target"
	"kedr/internal/trace"
)

// TraceHow is how a traced function is attached to.
type TraceHow int

// The ways there are.
const (
	Trampoline TraceHow = iota // at entry and return. Requires Linux 5.5
	Kprobe                     // kprobe and kretprobe: functions that trampolines refuse
	Session                    // one program for many functions. Requires Linux 6.10
	Calls                      // the targets' own calls, one by one
)

// TraceFunction is a function to trace.
type TraceFunction struct {
	trace.Function
	How   TraceHow
	Slots uint8 // 64-bit words of arguments that the function has

	// Anchor is, of a callback, the name that no other function of its module has.
	Anchor string
}

// TraceJump is a jump of a target to a traced function, in a function that somebody
// else may call.
type TraceJump struct {
	Jump
	Called int // index in Trace.Functions
}

// Place is an instruction of a target that calls, or jumps to, a function.
type Place struct {
	Target int
	Anchor string // a function, and how far behind it
	Offset uint64
	Tail   bool
}

// Trace is what to attach for a trace.
type Trace struct {
	Targets   []*target.Module
	Functions []TraceFunction
	Jumps     []TraceJump
	Untraced  []trace.Untraced
	Off       []string // hot imports
}

// TraceOptions choose what is traced.
type TraceOptions struct {
	All    bool     // hot imports, too
	Only   []string // globs over function names; none: every function
	Except []string

	// Apart are functions that nothing must come between and their callers: tracepoints in
	// them tell who called, and would tell of a trampoline.
	Apart map[string]bool `json:"-"`

	// Describe says what a function's parameters are; for a callback, module is the
	// target's name. An error leaves them unknown.
	Describe func(name, module string) (trace.Function, error) `json:"-"`
}

// hot are functions that are called so often, and tell so little, that they are traced
// only if that is asked for.
var hot = []string{
	"migrate_disable", "migrate_enable", "rt_mutex_*", "rt_read_*", "rt_write_*", "_raw_spin_*", "_raw_read_*", "_raw_write_*", "rt_spin_*", "__raw_spin_*",
	"mutex_lock", "mutex_unlock", "mutex_trylock", "mutex_is_locked", "ww_mutex_*", "down_read", "up_read", "down_write", "up_write",
	"__rcu_read_lock", "__rcu_read_unlock", "rcu_read_unlock_strict", "__srcu_read_*",
	"memcpy", "memmove", "memset", "memcmp", "memchr*", "memscan", "__memcpy", "__memset", "__memmove",
	"str*", "__check_object_size", "__might_*", "__cond_resched", "_cond_resched", "preempt_schedule*", "__preempt_*",
	"__local_bh_enable_ip", "__list_*_valid*", "_find_*_bit", "find_*_bit", "__bitmap_*", "__sw_hweight*", "ktime_get*", "refcount_warn_saturate",
	"__get_user_*", "__put_user_*", "_copy_*_user", "copy_user_*", "__copy_user*", "clear_user*", "clear_page*", "copy_page*",
}

// compilers are symbols that the compiler calls, or the kernel's patching of code, and
// no programmer.
var compilers = []string{"__fentry__", "__x86_*", "__stack_chk_fail", "__tsan_*", "__asan_*", "__kasan_*", "__ubsan_*", "__sanitizer_*", "__SCT__*", "__static_call_*"}

func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		ok, _ := path.Match(g, name)
		return ok
	})
}

// ErrGlob says that a pattern can't be read.
var ErrGlob = errors.New("patterns are those of the shell: *, ?, [a-z]")

// ErrNothing says that a pattern matches no function.
var ErrNothing = errors.New("there is no such function")

// checkGlobs refuses patterns that can't be read, and those that match nothing.
func checkGlobs(flag string, globs []string, names func(yield func(string) bool)) error {
	for _, g := range globs {
		if _, err := path.Match(g, ""); err != nil {
			return fmt.Errorf("--%s %q: %w", flag, g, ErrGlob)
		}
		found := false
		for n := range names {
			if ok, _ := path.Match(g, n); ok {
				found = true
				break
			}
		}
		if !found {
			return fmt.Errorf("--%s %q: %w that the targets import, or that the kernel can call in them", flag, g, ErrNothing)
		}
	}
	return nil
}

// Apart lists the imports that tracepoints of this plan tell the callers of.
func (p *Plan) Apart() map[string]bool {
	apart := make(map[string]bool)
	for _, pr := range p.Probes {
		if pr.Mechanism == Tracepoint {
			for _, im := range pr.Imports {
				apart[im] = true
			}
		}
	}
	return apart
}

// NewTrace decides what to attach to for a trace of the targets' calls: each of their
// imports, and those of their functions that the kernel can call.
func NewTrace(k Kernel, opts TraceOptions, targets ...*target.Module) (*Trace, error) {
	tr := &Trace{Targets: targets}
	called := make(map[string]bool) // by an instruction: no data
	var imports []string
	callbacks := make([][]int, len(targets))
	for i, t := range targets {
		for _, im := range t.Imports {
			imports = append(imports, im.Name)
		}
		for _, c := range t.Calls {
			if c.Import {
				called[c.Symbol] = true
			}
		}
		var err error
		if callbacks[i], err = entries(t); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Path, err)
		}
	}
	slices.Sort(imports)
	imports = slices.Compact(imports)
	names := func(yield func(string) bool) {
		for _, n := range imports {
			if !yield(n) {
				return
			}
		}
		for i, t := range targets {
			for _, f := range callbacks[i] {
				if !yield(t.Funcs[f].Name) {
					return
				}
			}
		}
	}
	if err := errors.Join(checkGlobs("only", opts.Only, names), checkGlobs("except", opts.Except, names)); err != nil {
		return nil, err
	}
	wanted := func(name string) bool {
		return (len(opts.Only) == 0 || matches(opts.Only, name)) && !matches(opts.Except, name)
	}
	byName := make(map[string]int)
	for _, name := range imports {
		if !wanted(name) {
			continue
		}
		if matches(compilers, name) {
			continue
		}
		// What is asked for by name is wanted, however hot.
		if !opts.All && len(opts.Only) == 0 && matches(hot, name) {
			tr.Off = append(tr.Off, name)
			continue
		}
		f, ok := tr.function(k, opts, name, called[name])
		if !ok {
			continue
		}
		byName[name] = len(tr.Functions)
		tr.Functions = append(tr.Functions, f)
	}
	for i, t := range targets {
		tr.callbacks(opts, i, t, callbacks[i], wanted)
		if err := tr.jumps(t, i, byName); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Path, err)
		}
	}
	return tr, nil
}

func (tr *Trace) function(k Kernel, opts TraceOptions, name string, called bool) (TraceFunction, bool) {
	f := TraceFunction{Function: trace.Function{Name: name}}
	params, err := k.Params(name)
	switch {
	case errors.Is(err, kernel.ErrNoFunction):
		if !called {
			return f, false // a variable, most likely; nothing calls it directly
		}
		f.How = Kprobe
	case err != nil:
		f.How = Kprobe // it takes what trampolines can't pass on
	default:
		for _, p := range params {
			f.Slots += uint8(max(p.Size+7, 8) / 8)
			if p.Structure && !k.AtLeast(6, 1) || p.Size > 16 {
				f.How = Kprobe
			}
		}
		if f.Slots > trace.MaxArgs {
			f.How = Kprobe
		}
	}
	if opts.Apart[name] {
		f.How = Calls
	}
	if d, err := opts.Describe(name, ""); err == nil {
		f.Function = d
	}
	return f, true
}

// entries lists the functions of a target that somebody else may call: its init and
// exit, and those whose address it writes somewhere.
func entries(m *target.Module) ([]int, error) {
	taken, err := m.AddressTaken()
	if err != nil {
		return nil, err
	}
	var out []int
	for i := range m.Funcs {
		if taken[i] && m.Hot(i) == i && m.Funcs[i].Name != "__this_module" {
			out = append(out, i)
		}
	}
	return out, nil
}

func (tr *Trace) callbacks(opts TraceOptions, t int, m *target.Module, entries []int, wanted func(string) bool) {
	names := make(map[string]int)
	for _, f := range m.Funcs {
		names[f.Name]++
	}
	for _, i := range entries {
		f := TraceFunction{How: Kprobe}
		name := m.Funcs[i].Name
		if !wanted(name) {
			continue
		}
		if d, err := opts.Describe(name, m.Name); err == nil {
			f.Function = d
		}
		f.Function.Name, f.Function.Callback, f.Function.Target = name, true, t
		switch {
		case strings.HasPrefix(name, "__pfx_"):
			continue
		case names[name] > 1:
			tr.Untraced = append(tr.Untraced, trace.Untraced{Function: name, Reason: "another function of the module has the same name"})
			continue
		case !traceable(m, i):
			tr.Untraced = append(tr.Untraced, trace.Untraced{Function: name, Reason: "the kernel can't trace this function of the module (notrace, or built without -pg)"})
			continue
		}
		f.Anchor = name
		tr.Functions = append(tr.Functions, f)
	}
}

// jumps finds the target's jumps to what is traced.
func (tr *Trace) jumps(m *target.Module, t int, byName map[string]int) error {
	jumps, err := jumpsTo(m, func(symbol string) bool {
		_, ok := byName[symbol]
		return ok
	})
	if err != nil {
		return err
	}
	for _, j := range jumps {
		j.Target = t
		if j.Anchor == "" || !j.Traceable {
			tr.Untraced = append(tr.Untraced, trace.Untraced{Function: j.Symbol, Reason: "in " + j.Function + ", which ends in a jump to it: the kernel can't trace that function"})
			continue
		}
		tr.Jumps = append(tr.Jumps, TraceJump{Jump: j, Called: byName[j.Symbol]})
	}
	return nil
}

// Places lists the targets' direct calls of a function. Those in functions that the kernel
// can't trace are left out, and counted.
func (tr *Trace) Places(symbol string) (places []Place, refused int) {
	for t, m := range tr.Targets {
		var names map[string]int
		for _, c := range m.Calls {
			if !c.Import || c.Symbol != symbol {
				continue
			}
			if names == nil {
				names = make(map[string]int)
				for _, f := range m.Funcs {
					names[f.Name]++
				}
			}
			p := Place{Target: t, Tail: c.Tail}
			start := c.End - callLen
			if c.Tail {
				start = jumpStart(m, c)
			}
			i := m.FuncIndex(c.Section, start)
			p.Anchor, p.Offset = anchor(m, names, c.Section, start)
			// A cold part is part of a function that can be traced, and has no entry itself.
			if i < 0 || p.Anchor == "" || !traceable(m, m.Hot(i)) {
				refused++
				continue
			}
			places = append(places, p)
		}
	}
	return places, refused
}
