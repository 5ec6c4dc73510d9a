// Package probe is the eBPF side: it loads the programs that a plan asks for,
// attaches them, and reads what they have written down.
//
// The programs are few and generic; what one does is told by constants, so that
// a function of the catalog needs no code. Everything they know is in maps that
// outlive this process when they are pinned.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/plan"
)

// Limits of one session.
const (
	MaxTargets  = 16  // MAX_TARGETS
	MaxSections = 16  // MAX_SECTIONS
	maxProbes   = 256 // MAX_PROBES
	maxCPUs     = 1024

	maxDepth    = 4       // MAX_DEPTH
	maxObjects  = 131072  // unless something else is asked for
	kindOrdered = 1 << 31 // KIND_ORDERED
)

// Options bound what a session may use.
type Options struct {
	MaxObjects uint32 // outstanding at one time; 0: 131072
	MaxStacks  uint32 // different call stacks; 0: 16384
	Files      bool   // make the files of a detached session possible
	Kprobes    bool   // use no trampolines; implied where the kernel has no BTF
	// VerifyStacks has call stacks that are known again by comparing unwound as well.
	VerifyStacks bool
	Trace        TraceOptions
}

// Attached is a probe at work.
type Attached struct {
	Symbol string
	link   link.Link
	id     uint32
	twin   bool // the second of two programs for one event
	jump   bool // a kprobe at a jump of a target
	traced int  // of a trace: the function's number, and one; 0: of the account
	half   half // of a trace
	place  bool // at a call of the target's
	kprobe end  // in place of a trampoline

	event *os.File // instead of a link, which such events have not had before 5.15
}

func (a *Attached) close() error {
	if a.event != nil {
		return a.event.Close()
	}
	return a.link.Close()
}

// Set is the programs and maps of one session.
type Set struct {
	spec   *compiled
	kernel *kernel.Kernel
	layout kedrKernelLayout

	shared map[string]*ebpf.Map
	bss    map[string]*ebpf.VariableSpec

	attached []Attached
	symbols  symbols
	jumps    string // group of kprobes; empty: there are none
	kprobes  bool   // in place of trampolines

	targets  uint32
	life     kedrTraceSpec // what the events of modules record
	ring     kedrRingSpec  // where a trace goes
	knowing  kedrKnownSpec // how call stacks are known again
	compiled []byte        // the programs' constants, as they come
	tails    bool          // targets jump to what is probed, where the kernel may call them
	depths   uint32        // how often a program may interrupt itself, and once more
}

// ErrNotPermitted says that this process may not load programs here.
var ErrNotPermitted = errors.New("loading eBPF programs is not permitted: run as root; where root is refused too, the kernel is locked down (see kedr doctor), or run in a machine with --vm=always")

// Attach makes the maps and attaches everything that the plan asks for. A function
// that refuses its probe is added to the plan's Unwatched. Close undoes it all.
func Attach(p *plan.Plan, k *kernel.Kernel, opts Options) (set *Set, err error) {
	if len(p.Targets) > MaxTargets {
		return nil, fmt.Errorf("%d targets: one session watches at most %d", len(p.Targets), MaxTargets)
	}
	if len(p.Probes) > maxProbes-8 { // five events of modules, the jumps, and the trace
		return nil, fmt.Errorf("%d functions to intercept: one session has room for %d", len(p.Probes), maxProbes-8)
	}
	// Kernels before 5.11 charge maps to the locked memory of the process.
	if err := rlimit.RemoveMemlock(); err != nil && errors.Is(err, unix.EPERM) {
		return nil, ErrNotPermitted
	}
	spec, err := readCompiled()
	if err != nil {
		return nil, err
	}
	placeValues(spec)
	s := &Set{spec: spec, kernel: k, shared: make(map[string]*ebpf.Map), targets: uint32(len(p.Targets)), depths: 1}
	// kernel/trace/bpf_trace.c, __bpf_trace_run: since 6.1 not while it runs already.
	if !k.AtLeast(6, 1) {
		s.depths = maxDepth
		spec.Maps["scratch"].MaxEntries = maxDepth
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.tails = len(p.Jumps) > 0
	s.knowing.Verify = uint32(flag(opts.VerifyStacks))
	if s.kprobes = opts.Kprobes || !k.OwnTypes(); s.kprobes {
		s.jumps = jumpGroup(opts.Files)
	}
	if err := s.findLayout(p.Targets[0]); err != nil {
		return nil, err
	}
	for _, t := range p.Targets {
		s.layout.Sections = max(s.layout.Sections, uint32(len(t.Sections)))
	}
	s.quicken()
	if err := s.makeMaps(p, opts); err != nil {
		return nil, err
	}
	if err := s.prepare(p); err != nil {
		return nil, err
	}
	if err := s.allSpare(); err != nil {
		return nil, err
	}
	// Releases come first and the targets last: no object is seen whose end could be missed.
	for _, role := range []plan.Role{plan.Release, plan.Obtain} {
		for i, pr := range p.Probes {
			if pr.Role != role {
				continue
			}
			err := s.attachProbe(uint32(i), &pr)
			switch {
			case err == nil:
			case errors.Is(err, ErrNotPermitted):
				return nil, err
			default:
				p.Unwatched = append(p.Unwatched, plan.Unwatched{Function: pr.Symbol, Reason: brief(err)})
			}
		}
	}
	// The highest number is the jumps'.
	if err := s.attachJumps(maxProbes-1, p, opts.Files); err != nil {
		return nil, err
	}
	if p.Trace != nil {
		s.life = kedrTraceSpec{Function: uint32(len(p.Trace.Functions)), Life: 1}
		if err := s.attachTrace(p.Trace, &opts.Trace, opts.Files); err != nil {
			return nil, err
		}
	}
	return s, s.attachModuleEvents(uint32(len(p.Probes)), p)
}

// Trace is told what only a developer of kedr wants to read; nil: nobody is.
var Trace func(format string, args ...any)

// brief is an error without the verifier's log.
func brief(err error) string {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		if Trace != nil {
			Trace("%+v", ve)
		}
		return fmt.Sprintf("the kernel's verifier refuses the probe: %v", ve.Cause)
	}
	return err.Error()
}

// prepare writes down where the kernel keeps what the programs look at.
func (s *Set) prepare(p *plan.Plan) error {
	if err := s.openSymbols(); err != nil {
		return err
	}
	if err := s.calibrate(); err != nil {
		return fmt.Errorf("finding out how trampolines are entered: %w", err)
	}
	bss := make([]byte, s.shared[".bss"].ValueSize())
	put := func(variable string, index int, value uint64) {
		v := s.bss[variable]
		binary.NativeEndian.PutUint64(bss[int(v.Offset)+8*index:], value)
	}
	if p.Pages {
		structs, linear, err := s.pageMap()
		if err != nil {
			return fmt.Errorf("pages can't be watched: %w", err)
		}
		put("vmemmap_base", 0, structs)
		put("page_offset_base", 0, linear)
	}
	s.layout.VmallocBase = 1 << 62 // nothing is above it
	if s.kernel.AtLeast(6, 12) && slices.ContainsFunc(p.Probes, func(p plan.Probe) bool { return p.Replaces != plan.NoArg }) {
		at, _, err := s.find("vmalloc_base")
		if err == nil {
			s.layout.VmallocBase, err = s.word(at)
		}
		if err != nil {
			return fmt.Errorf("finding the vmalloc area: %w", err)
		}
	}
	// include/linux/preempt.h: SOFTIRQ_OFFSET, HARDIRQ_MASK, NMI_MASK. In 7.x a count of
	// local_interrupt_disable lies below the hard interrupts.
	s.layout.IrqMask = 0x00ff0100
	if _, err := s.kernel.Params("local_interrupt_disable"); err == nil {
		s.layout.IrqMask = 0x1f000100
	}
	counter, err := s.preemptCounter()
	if err != nil {
		return fmt.Errorf("finding the preemption counter: %w", err)
	}
	offsets, err := s.percpuOffsets()
	if err != nil {
		return fmt.Errorf("finding the variables of each CPU: %w", err)
	}
	if err := s.know(); err != nil {
		return fmt.Errorf("finding where the kernel is entered: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for cpu := range min(cpus, maxCPUs) {
		base, err := s.word(offsets + uint64(cpu)*uint64(s.layout.Word))
		if err != nil {
			return err
		}
		put("preempt_count", cpu, s.address(base+counter))
	}
	return s.shared[".bss"].Put(uint32(0), bss)
}

func (s *Set) attachProbe(id uint32, p *plan.Probe) error {
	spec := kedrProbeSpec{
		Id: id, Args: p.Args, From: uint8(p.From), Address: p.Address, Count: p.Count,
		Space:    map[catalog.Space]uint8{catalog.Memory: 0, catalog.Page: 1, catalog.PageAddress: 2}[p.Space],
		SizeFrom: uint8(p.Size.From), SizeA: p.Size.A, SizeB: p.Size.B, SizeOffset: p.Size.Offset,
		CallSite: p.CallSite, SkipIf: p.NotIf, Replaces: p.Replaces,
		Tracepoint: flag(p.Mechanism == plan.Tracepoint), CheckOnly: flag(p.CheckOnly),
		Narrow: p.Narrow, Tag: p.Tag, Counted: flag(p.Counted), Foreign: flag(p.Foreign), Owner: p.Owner,
		Succeeds: map[string]uint8{"": 0, "zero": 1, "nonzero": 2}[p.Succeeds],
		Last:     p.Last, LastOffset: p.LastOffset, List: p.List, Link: p.Link, Fills: flag(p.Fills),
		Pointer: flag(p.Pointer), PointerOffset: p.PointerOffset,
		CompareSize: flag(p.CompareSize), Kinds: p.Kinds, Inside: p.Inside,
		Tails: flag(s.tails),
	}
	if p.Size.From == plan.SizeOrder {
		spec.Kinds |= kindOrdered
	}
	if len(p.Through) > len(spec.Through) {
		return fmt.Errorf("%d functions to pass through, and there is room for %d", len(p.Through), len(spec.Through))
	}
	spec.Throughs = 0
	for _, name := range p.Through {
		address, size, err := s.find(name)
		if errors.Is(err, errNoSymbol) {
			continue // it has been inlined
		}
		if err != nil {
			return err
		}
		if size == 0 {
			return fmt.Errorf("%s: the kernel does not tell its size", name)
		}
		spec.Through[spec.Throughs].Base, spec.Through[spec.Throughs].Size = address, size
		spec.Throughs++
	}
	through := spec.Through[:spec.Throughs]
	sort.Slice(through, func(i, j int) bool { return through[i].Base < through[j].Base })
	if n := len(through); n > 0 {
		spec.ThroughSpan = through[n-1].Base + through[n-1].Size - through[0].Base
	}
	program := map[plan.Role]map[plan.Mechanism]string{
		plan.Obtain:  {plan.Exit: "obtain_exit", plan.Tracepoint: "obtain_tracepoint"},
		plan.Release: {plan.Entry: "release_entry", plan.Tracepoint: "release_tracepoint"},
	}[p.Role][p.Mechanism]
	if p.From == plan.FromArray {
		program = map[plan.Role]string{plan.Obtain: "obtain_bulk", plan.Release: "release_bulk"}[p.Role]
		if !s.kernel.HasHelper("loop") {
			program += "_short"
		}
	}
	if p.Mechanism != plan.Tracepoint {
		if err := s.placeWords(&spec, p.Params); err != nil {
			return err
		}
	}
	if !s.twins(p) {
		return s.attach(program, spec, p.Symbol, p.Mechanism)
	}
	for spec.Twin = 1; spec.Twin <= 2; spec.Twin++ {
		if err := s.attach(program, spec, p.Symbol, p.Mechanism); err != nil {
			return err
		}
	}
	return nil
}

// twins tells whether an event has two programs, the second for what the first misses, for
// a program can't interrupt itself (on tracepoints since 6.1): tracepoints, and releases,
// which anybody makes at any time, in an interrupt too.
func (s *Set) twins(p *plan.Probe) bool {
	if s.depths != 1 {
		return false
	}
	return p.Mechanism == plan.Tracepoint || p.Role == plan.Release && !s.kprobes
}

// preempted tells whether tasks are preempted in programs.
func (s *Set) preempted() bool {
	return s.kernel.AtLeast(7, 0) || strings.Contains(s.kernel.Release, "-rt-")
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func (s *Set) attach(program string, spec kedrProbeSpec, symbol string, how plan.Mechanism) error {
	if s.kprobes && how != plan.Tracepoint {
		return s.attachByKprobes(program, spec, symbol)
	}
	to := symbol
	if how == plan.Tracepoint {
		to = ""
	} else if !s.kernel.HasHelper("get_func_ip") {
		address, _, err := s.find(symbol)
		if err != nil {
			return err
		}
		spec.Function = address
	}
	prog, err := s.load(program, s.constants(spec), to, nil)
	if err != nil {
		return err
	}
	defer prog.Close()
	var l link.Link
	if how == plan.Tracepoint {
		l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: symbol, Program: prog})
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: prog})
	}
	if err != nil {
		return permission(fmt.Errorf("attaching to %s: %w", symbol, err))
	}
	s.attached = append(s.attached, Attached{Symbol: symbol, link: l, id: spec.Id, twin: spec.Twin == 2})
	return nil
}

// attachModuleEvents watches the targets come and go.
func (s *Set) attachModuleEvents(id uint32, p *plan.Plan) error {
	on := plan.ModuleEvents
	events := []struct {
		program, symbol, param string
		how                    plan.Mechanism
		needed                 bool
	}{
		{"module_live", on[0].Function, on[0].Param, plan.Entry, true},
		{"module_free", "module_free", "", plan.Tracepoint, true},
		{"module_load", "module_load", "", plan.Tracepoint, true},
		{"module_going", on[1].Function, on[1].Param, plan.Entry, false},
		{"module_coming", on[2].Function, on[2].Param, plan.Entry, false},
	}
	for _, e := range events {
		spec := kedrProbeSpec{Id: id, Address: plan.NoArg}
		err := error(nil)
		if e.how != plan.Tracepoint {
			var params []kernel.Param
			params, err = s.kernel.Params(e.symbol)
			i := slices.IndexFunc(params, func(p kernel.Param) bool {
				return slices.Contains(catalog.Alternatives(e.param), p.Name)
			})
			if err == nil && i < 0 {
				err = fmt.Errorf("%s: no parameter %s", e.symbol, e.param)
			}
			if err == nil {
				spec.Args, spec.Address = uint8(len(params)), uint8(i)
				err = s.placeWords(&spec, params)
			}
		}
		if err == nil {
			err = s.attach(e.program, spec, e.symbol, e.how)
		}
		if err != nil {
			if e.needed || errors.Is(err, ErrNotPermitted) {
				return fmt.Errorf("watching modules come and go: %w", err)
			}
			p.Unwatched = append(p.Unwatched, plan.Unwatched{
				Function: e.symbol, Reason: "calls made while module parameters are set are not seen: " + brief(err),
			})
		}
		id++
	}
	return nil
}

// Attached lists the probes at work.
func (s *Set) Attached() []Attached { return s.attached }

// Close detaches everything that is not pinned.
func (s *Set) Close() error {
	// All at once: each waits for the kernel to have left its trampoline.
	errs := make([]error, len(s.attached))
	var wg sync.WaitGroup
	for i, a := range s.attached {
		wg.Go(func() { errs[i] = a.close() })
	}
	wg.Wait()
	if s.jumps != "" && s.jumps != detachedJumps {
		errs = append(errs, WithTracefs(func(dir string) error { return removeJumps(dir, s.jumps) }))
	}
	errs = append(errs, s.symbols.close())
	for _, m := range s.shared {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
