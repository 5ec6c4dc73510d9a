package session

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/cilium/ebpf/btf"

	"kedr/internal/kernel"
	"kedr/internal/plan"
	"kedr/internal/probe"
	"kedr/internal/target"
	"kedr/internal/trace"
	"kedr/internal/trace/describe"
	"kedr/internal/trace/filter"
)

// Check finds what is wrong with the options without asking a kernel.
func (o *TraceOptions) Check() error {
	for _, g := range o.From {
		if _, err := path.Match(g, ""); err != nil {
			return fmt.Errorf("--site %q: %w", g, plan.ErrGlob)
		}
	}
	if o.Where != "" {
		if _, err := filter.Parse(o.Where); err != nil {
			return err
		}
	}
	_, err := describe.ParseExpansions(o.Expand)
	return err
}

// planTrace decides what to attach to, and says what the probes have to know.
func planTrace(k *kernel.Kernel, o *TraceOptions, apart map[string]bool, targets []*target.Module) (*plan.Trace, *probe.TraceOptions, error) {
	d, err := newDescriber(k, o, targets)
	if err != nil {
		return nil, nil, err
	}
	choice := o.TraceOptions
	choice.Describe, choice.Apart = d.function, apart
	t, err := plan.NewTrace(k, choice, targets...)
	if err = errors.Join(err, d.err); err != nil {
		return nil, nil, err
	}
	if err := d.expansions.Unused(); err != nil {
		return nil, nil, err
	}
	p := &probe.TraceOptions{Buffer: o.Buffer, Errors: o.Errors, How: o.How}
	if p.Filter, err = compile(o, t); err != nil {
		return nil, nil, err
	}
	if len(o.From) > 0 {
		if p.Sites, err = ranges(o.From, targets); err != nil {
			return nil, nil, err
		}
	}
	return t, p, nil
}

// compile makes the filter: the expression, and the processes.
func compile(o *TraceOptions, t *plan.Trace) (*filter.Set, error) {
	var conditions []string
	switch {
	case o.Where != "" && len(o.PIDs) == 0:
		conditions = append(conditions, o.Where) // as it was given, for what is wrong with it
	case o.Where != "":
		conditions = append(conditions, "("+o.Where+")")
	}
	var pids []string
	for _, pid := range o.PIDs {
		pids = append(pids, fmt.Sprintf("call.pid == %d", pid))
	}
	if len(pids) > 0 {
		conditions = append(conditions, "("+strings.Join(pids, " || ")+")")
	}
	if len(conditions) == 0 {
		return nil, nil
	}
	expr, err := filter.Parse(strings.Join(conditions, " && "))
	if err != nil {
		return nil, err
	}
	functions := make([]trace.Function, len(t.Functions))
	for i := range t.Functions {
		functions[i] = t.Functions[i].Function
	}
	set, err := expr.CompileAll(functions, nil)
	if err != nil {
		return nil, err
	}
	for _, n := range set.Never {
		t.Untraced = append(t.Untraced, trace.Untraced{Function: n.Function, Reason: "it has not what --where asks for"})
	}
	return set, nil
}

// ranges finds the functions that match one of the globs.
func ranges(globs []string, targets []*target.Module) ([]probe.TraceRange, error) {
	var out []probe.TraceRange
	for _, g := range globs {
		found := false
		for t, m := range targets {
			for i, f := range m.Funcs {
				// A cold part goes with its function.
				if ok, _ := path.Match(g, m.Funcs[m.Hot(i)].Name); ok {
					out = append(out, probe.TraceRange{Target: t, Section: f.Section, From: f.Offset, To: f.Offset + f.Size})
					found = true
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("--site %q: %w in the targets", g, plan.ErrNothing)
		}
	}
	return out, nil
}

// describer finds out what functions look like: those of the kernel, of modules that a
// target depends on, and the targets' own.
type describer struct {
	*describe.Describer
	expansions *describe.Expansions
	targets    []*target.Module
	own        map[string]*btf.Spec                 // types of modules, by name; nil: they have none
	prototypes map[string]map[string]*btf.FuncProto // from the DWARF of those
	err        error
}

func newDescriber(k *kernel.Kernel, o *TraceOptions, targets []*target.Module) (*describer, error) {
	spec, err := k.Spec()
	if err != nil {
		return nil, err
	}
	d := &describer{targets: targets, own: make(map[string]*btf.Spec), prototypes: make(map[string]map[string]*btf.FuncProto)}
	if d.expansions, err = describe.ParseExpansions(o.Expand); err != nil {
		return nil, err
	}
	err = probe.WithTracefs(func(dir string) (err error) {
		d.Describer, err = describe.New(spec, k.Release, os.DirFS(dir))
		return err
	})
	if err != nil {
		// Names of flags are all that is lost.
		d.Describer, err = describe.New(spec, k.Release, fs.FS(nil))
	}
	return d, err
}

// function is plan.TraceOptions.Describe. What the user has asked for and is not there is
// told in the end.
func (d *describer) function(name, module string) (trace.Function, error) {
	var f trace.Function
	var err error
	if module != "" {
		for i, t := range d.targets {
			if t.Name != module {
				continue
			}
			types := d.types(t)
			if proto := d.prototype(t, types, name); proto != nil {
				f, err = d.Described(proto, name, i, d.expansions)
			} else {
				f, err = d.Callback(types, name, i, d.expansions)
			}
		}
	} else {
		f, err = d.Function(nil, name, d.expansions)
		for _, t := range d.targets {
			for _, dep := range t.Depends {
				if err == nil && !f.Known {
					if types := d.loaded(dep); types != nil {
						f, err = d.Function(types, name, d.expansions)
					}
				}
			}
		}
	}
	// What is wrong with one is most often wrong with all.
	if d.err == nil {
		d.err = err
	}
	return f, err
}

// types are a target's own.
func (d *describer) types(t *target.Module) *btf.Spec {
	types, ok := d.own[t.Name]
	if !ok {
		// A module without is described without.
		types, _ = d.ModuleTypes(t.Image())
		d.own[t.Name] = types
	}
	return types
}

// prototype finds a function of a target that has no types but debug information.
func (d *describer) prototype(t *target.Module, types *btf.Spec, name string) *btf.FuncProto {
	if types != nil {
		return nil
	}
	all, ok := d.prototypes[t.Name]
	if !ok {
		// What can't be read costs the arguments only.
		if info, err := t.DebugInfo(); err == nil {
			names := make(map[string]bool, len(t.Funcs))
			for _, f := range t.Funcs {
				names[f.Name] = true
			}
			all, _ = d.Prototypes(info.Data, names)
		}
		d.prototypes[t.Name] = all
	}
	return all[name]
}

// loaded are the types of a module that is in the kernel.
func (d *describer) loaded(name string) *btf.Spec {
	types, ok := d.own[name]
	if !ok {
		types, _ = btf.LoadKernelModuleSpec(name)
		d.own[name] = types
	}
	return types
}
