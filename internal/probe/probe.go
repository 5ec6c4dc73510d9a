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
	"maps"
	"math"
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
	"kedr/internal/probe/fold"
	"kedr/internal/target"
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

// sharedMaps are the maps that all programs of a session have in common.
var sharedMaps = []string{"open_calls", "objects", "cells", "stacks", "tallies", "spare_slots", "wrongs", "freed", "notes", "loads", "targets", "syms", "sites", "elsewhere", "known", ".bss",
	"trace_ring", "trace_events", "trace_counts", "trace_open", "trace_paired", "trace_sites"}

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

// findLayout finds out where the kernel keeps what the programs look at. What the types
// say of struct module is held against the modules that are loaded, where they are not
// the kernel's own.
func (s *Set) findLayout(m *target.Module) error {
	s.layout = kedrKernelLayout{Word: 8, StackShift: 14, SymSize: 24, SymValue: 8} // Elf64_Sym
	if s.kernel.Word() == 4 {
		s.layout.Word, s.layout.StackShift, s.layout.SymSize, s.layout.SymValue = 4, 13, 16, 4 // Elf32_Sym
	}
	if s.kernel.OwnTypes() {
		return typesLayout(s.kernel, &s.layout)
	}
	return s.measureLayout(m)
}

func typesLayout(k *kernel.Kernel, l *kedrKernelLayout) error {
	field := func(to *uint32, structure, path string) error {
		off, err := k.Field(structure, path)
		*to = off
		return err
	}
	if err := errors.Join(
		field(&l.ModuleName, "module", "name"),
		field(&l.Kallsyms, "module", "kallsyms"),
		field(&l.Symtab, "mod_kallsyms", "symtab"),
		field(&l.NumSymtab, "mod_kallsyms", "num_symtab"),
	); err != nil {
		return err
	}
	size, err := k.StructSize("page")
	if err != nil {
		return err
	}
	l.StructPage = size
	// include/linux/module.h: one memory area a type since 6.4, two layouts before.
	initText, err := k.Enum("mod_mem_type", "MOD_INIT_TEXT")
	if err != nil {
		return errors.Join(
			field(&l.CoreBase, "module", "core_layout.base"),
			field(&l.CoreSize, "module", "core_layout.text_size"),
			field(&l.InitBase, "module", "init_layout.base"),
			field(&l.InitSize, "module", "init_layout.text_size"),
		)
	}
	return errors.Join(
		field(&l.CoreBase, "module", "mem[0].base"), // MOD_TEXT
		field(&l.CoreSize, "module", "mem[0].size"),
		field(&l.InitBase, "module", fmt.Sprintf("mem[%d].base", initText)),
		field(&l.InitSize, "module", fmt.Sprintf("mem[%d].size", initText)),
	)
}

// quicken finds what spares the programs calls of helpers. What is not there they do
// without.
func (s *Set) quicken() {
	k := s.kernel
	if !k.OwnTypes() {
		s.layout.PercpuCount = math.MaxUint32
		placePercpu(s.spec, 0)
		return
	}
	id, err := k.PerCPU("__preempt_count")
	s.layout.PercpuCount = 0
	if err != nil {
		if id, err = k.PerCPU("pcpu_hot"); err == nil {
			s.layout.PercpuCount, err = k.Field("pcpu_hot", "preempt_count")
		}
	}
	if err != nil {
		id, s.layout.PercpuCount = 0, math.MaxUint32
	}
	placePercpu(s.spec, id)
	placeFunctions(s.spec, k.Function)
	if k.HasHelper("get_current_task_btf") {
		if comm, err := k.Field("task_struct", "comm"); err == nil {
			s.layout.TaskComm = comm
		}
	}
	if _, err := k.Function("bpf_rdonly_cast"); err == nil {
		if id, err := k.Struct("pt_regs"); err == nil {
			s.layout.FrameType = uint32(id)
		}
	}
	s.layout.Loops = uint32(flag(k.HasHelper("loop")))
	s.layout.FuncArgs = uint32(flag(k.HasHelper("get_func_arg")))
}

func (s *Set) makeMaps(p *plan.Plan, opts Options) error {
	objects := opts.MaxObjects
	if objects == 0 {
		objects = maxObjects
	}
	if err := s.sizeObjects(objects); err != nil {
		return err
	}
	stacks := opts.MaxStacks
	if stacks == 0 {
		stacks = maxStacks
	}
	if err := s.sizeStacks(stacks); err != nil {
		return err
	}
	if opts.Files {
		n := 0
		for _, t := range p.Targets {
			n += len(t.Funcs)
		}
		s.spec.Maps["syms"].MaxEntries = uint32(max(n, 1))
	}
	s.bss = make(map[string]*ebpf.VariableSpec)
	for name, v := range s.spec.Variables {
		if v.SectionName == ".bss" {
			s.bss[name] = v
		}
	}
	if err := s.sizeTraceMaps(p.Trace, &opts.Trace); err != nil {
		return err
	}
	sites := newSiteMaps(p)
	s.spec.Maps["sites"].MaxEntries = uint32(max(len(sites.keys), 1))
	s.spec.Maps["elsewhere"].MaxEntries = uint32(max(len(sites.words), 1))
	if opts.Trace.Sites != nil {
		s.spec.Maps["trace_sites"].MaxEntries = uint32(max(len(sites.words), 1))
	}
	// As cilium/ebpf makes it; the collections that replace it by ours insist.
	s.spec.Maps[".bss"].Flags |= unix.BPF_F_MMAPABLE
	for _, name := range sharedMaps {
		m, err := ebpf.NewMap(s.spec.Maps[name])
		if err != nil {
			return permission(fmt.Errorf("making map %s: %w", name, err))
		}
		s.shared[name] = m
	}
	if err := sites.write(s.shared["sites"], s.shared["elsewhere"]); err != nil {
		return err
	}
	if err := s.writeRanges(opts.Trace.Sites, sites); err != nil {
		return err
	}
	return s.writeTargets(p, sites, opts.Files)
}

// ErrLockedDown says that programs may not read kernel memory here.
var ErrLockedDown = errors.New("the kernel is locked down (confidentiality), and lets no program read its memory: boot without lockdown=confidentiality, or run in a machine with --vm=always")

// permission tells what the kernel forbids from what is wrong. In lockdown the
// helpers that read memory are unknown (kernel/trace/bpf_trace.c,
// LOCKDOWN_BPF_READ_KERNEL).
func permission(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) && slices.ContainsFunc(ve.Log, func(l string) bool { return strings.Contains(l, "unknown func bpf_probe_read") }) {
		return ErrLockedDown
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (%w)", ErrNotPermitted, err)
	}
	return err
}

func (s *Set) writeTargets(p *plan.Plan, sites *siteMaps, files bool) error {
	next := uint32(0)
	for i, t := range p.Targets {
		if len(t.Sections) > MaxSections {
			return fmt.Errorf("%s: %d sections of code, and there is room for %d", t.Path, len(t.Sections), MaxSections)
		}
		v := kedrTarget{Sections: uint32(len(t.Sections)), SymbolCount: uint32(t.SymbolCount), FirstSym: next}
		if !setString(v.Name[:], t.Name) {
			return fmt.Errorf("module name %q is too long", t.Name)
		}
		for j, sec := range t.Sections {
			v.Section[j].Symbol = sec.Symbol
			v.Section[j].Size = uint32(sec.Size)
			v.Section[j].Value = sec.SymbolValue
			v.Section[j].Elsewhere = sites.first[i][j]
		}
		if files {
			v.Syms = uint32(len(t.Funcs))
			keys := make([]uint32, len(t.Funcs))
			syms := make([]kedrSym, len(t.Funcs))
			for j, f := range t.Funcs {
				keys[j] = next
				next++
				syms[j] = kedrSym{Section: uint32(f.Section), Offset: uint32(f.Offset), Size: uint32(f.Size)}
				if !setString(syms[j].Name[:], f.Name) {
					// Long names are cut in the files; the report has them whole.
					setString(syms[j].Name[:], f.Name[:len(syms[j].Name)-1])
				}
			}
			if len(keys) > 0 {
				if _, err := s.shared["syms"].BatchUpdate(keys, syms, nil); err != nil {
					return fmt.Errorf("writing the function names: %w", err)
				}
			}
		}
		if err := s.shared["targets"].Put(uint32(i), &v); err != nil {
			return fmt.Errorf("writing target %s: %w", t.Name, err)
		}
	}
	return nil
}

func setString(to []int8, from string) bool {
	if len(from) >= len(to) {
		return false
	}
	for i := range from {
		to[i] = int8(from[i])
	}
	return true
}

func goString(from []int8) string {
	b := make([]byte, 0, len(from))
	for _, c := range from {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// load makes one program out of a generic one.
func (s *Set) load(program string, constants map[string]any, attachTo string, extra map[string]*ebpf.Map) (*ebpf.Program, error) {
	spec, err := s.spec.Program(program)
	if err != nil {
		return nil, err
	}
	return s.loadSpec(spec, program, constants, attachTo, extra)
}

// constantMap holds the programs' constants.
const constantMap = ".rodata"

// constantsOf lays out the programs' constants, those named with other values than they
// were compiled with.
func (s *Set) constantsOf(constants map[string]any) ([]byte, error) {
	if s.compiled == nil {
		// Not by its variables: texts that are printed have no names.
		m := s.spec.Maps[constantMap]
		if len(m.Contents) != 1 {
			return nil, fmt.Errorf("%s: not the compiler's", constantMap)
		}
		compiled, ok := m.Contents[0].Value.([]byte)
		if !ok || len(compiled) != int(m.ValueSize) {
			return nil, fmt.Errorf("%s: not the compiler's", constantMap)
		}
		s.compiled = compiled
	}
	values := slices.Clone(s.compiled)
	for name, value := range constants {
		v := s.spec.Variables[name].Copy()
		if err := v.Set(value); err != nil {
			return nil, fmt.Errorf("constant %s: %w", name, err)
		}
		copy(values[v.Offset:], v.Value)
	}
	return values, nil
}

// loadSpec is load for a program of which more is told than by constants.
func (s *Set) loadSpec(prog *ebpf.ProgramSpec, program string, constants map[string]any, attachTo string, extra map[string]*ebpf.Map) (*ebpf.Program, error) {
	if attachTo != "" {
		prog.AttachTo = attachTo
	}
	values, err := s.constantsOf(constants)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", program, err)
	}
	if prog.Instructions, err = fold.Program(prog.Instructions, constantMap, values); err != nil {
		return nil, fmt.Errorf("program %s: %w", program, err)
	}
	c := &ebpf.CollectionSpec{
		Maps:      make(map[string]*ebpf.MapSpec),
		Programs:  map[string]*ebpf.ProgramSpec{program: prog},
		ByteOrder: prog.ByteOrder,
	}
	replace := make(map[string]*ebpf.Map)
	for _, ins := range prog.Instructions {
		name := ins.Reference()
		if m := s.spec.Maps[name]; m != nil && c.Maps[name] == nil {
			c.Maps[name] = m.Copy()
			if shared := s.shared[name]; shared != nil {
				replace[name] = shared
			}
		}
	}
	maps.Copy(replace, extra)
	if m := c.Maps[constantMap]; m != nil {
		// Some of them are looked up by what is not constant.
		m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: values}}
	}
	coll, err := ebpf.NewCollectionWithOptions(c, ebpf.CollectionOptions{MapReplacements: replace, Cache: s.kernel.Types})
	if err != nil {
		return nil, permission(err)
	}
	defer coll.Close()
	p := coll.DetachProgram(program)
	if Trace != nil {
		if info, err := p.Info(); err == nil {
			n, _ := info.VerifiedInstructions()
			Trace("%s for %s: %d instructions, of which the verifier has looked at %d", program, attachTo, len(prog.Instructions), n)
		}
	}
	return p, nil
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

func (s *Set) constants(spec kedrProbeSpec) map[string]any {
	spec.Targets = s.targets
	knowing := s.knowing
	// Of two programs the one that comes after the other has little to do (bpf/context.h,
	// mine): it unwinds, which takes half of the instructions, and of the verifier's time.
	// Not where tasks are preempted in programs: there the first is often at work.
	if after := byte(1 + spec.Tracepoint); spec.Twin == after && !s.preempted() {
		knowing.On = 0
	}
	return map[string]any{"spec": spec, "layout": s.layout, "depths": s.depths, "tracing": s.life, "ringing": s.ring, "knowing": knowing}
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
