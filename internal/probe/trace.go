package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"kedr/internal/plan"
	"kedr/internal/target"
	"kedr/internal/trace"
	"kedr/internal/trace/filter"
)

// TraceOptions bound what a trace may use, and say which calls it keeps.
type TraceOptions struct {
	Buffer int  // bytes of the ring buffer, a power of two; 0: 16 MiB
	Errors bool // keep only calls that fail

	// Filter judges calls; nil: all are kept.
	Filter *filter.Set

	// Sites are the code from which calls are kept; nil: all.
	Sites []TraceRange

	How       TraceAttach
	Accounted bool // the session accounts for objects as well
}

// TraceAttach is how functions are attached to. What a way refuses is tried by others.
type TraceAttach string

// The ways there are.
const (
	AttachTrampolines TraceAttach = "trampoline" // each function for itself: what one probe misses, another sees
	AttachSession     TraceAttach = "session"    // all at once, in no time; misses what interrupts call meanwhile. Requires Linux 6.10
	AttachKprobes     TraceAttach = "kprobe"     // kprobes alone
)

// TraceAttaches lists them, the usual one first.
var TraceAttaches = []string{string(AttachTrampolines), string(AttachSession), string(AttachKprobes)}

// TraceRange is a function of a target whose calls are wanted.
type TraceRange struct {
	Target, Section int
	From, To        uint64 // offsets in the section
}

const (
	traceBuffer  = 16 << 20
	traceOpen    = 16384         // calls that have not returned
	traceID      = maxProbes - 2 // in what is counted by probe
	traceResult  = 0xff          // TRACE_RESULT
	traceMaxNRet = 512           // returns of one callback that can be outstanding
)

// sizeTraceMaps sizes the maps of a trace; without one they are as small as maps can be.
func (s *Set) sizeTraceMaps(t *plan.Trace, opts *TraceOptions) error {
	if t == nil {
		// No program of a trace is loaded, and maps are what the loader makes them.
		s.spec.Maps["trace_ring"].ValueSize = 8
		return nil
	}
	size := opts.Buffer
	if size == 0 {
		size = traceBuffer
	}
	if size < 4096 || size&(size-1) != 0 || size > 1<<30 {
		return fmt.Errorf("a trace buffer of %d bytes: it must be a power of two, from 4096 to 1 GiB", size)
	}
	s.sizeRing(uint32(size))
	s.spec.Maps["trace_counts"].MaxEntries = uint32(len(t.Functions) + 1)
	s.spec.Maps["trace_paired"].MaxEntries = traceOpen
	if opts.late() {
		s.spec.Maps["trace_open"].MaxEntries = traceOpen
	}
	return nil
}

// wants says whether calls of a function can pass the filter.
func (o *TraceOptions) wants(function int) bool {
	return o.Filter == nil || o.Filter.Programs[uint32(function)] != nil
}

// writeRanges marks the code from which calls are wanted.
func (s *Set) writeRanges(ranges []TraceRange, sites *siteMaps) error {
	words := make(map[uint32]uint64)
	for _, r := range ranges {
		for at := r.From; at < r.To; at++ {
			words[sites.first[r.Target][r.Section]+uint32(at/64)] |= 1 << (at % 64)
		}
	}
	for word, bits := range words {
		if err := s.shared["trace_sites"].Put(word, bits); err != nil {
			return fmt.Errorf("writing the sites of the trace: %w", err)
		}
	}
	return nil
}

func (o *TraceOptions) late() bool { return o.Errors || o.Filter != nil && o.Filter.AtReturn }

// attachTrace attaches to everything that a trace is about. A function that refuses is
// added to the trace's Untraced.
func (s *Set) attachTrace(t *plan.Trace, opts *TraceOptions, detached bool) error {
	untraced := func(name string, err error) {
		t.Untraced = append(t.Untraced, trace.Untraced{Function: name, Reason: brief(err)})
	}
	s.jumps = jumpGroup(detached)
	return WithTracefs(func(dir string) error {
		if err := removeStale(dir); err != nil {
			return err
		}
		taken, err := s.attachSession(dir, t, opts)
		if err != nil {
			return err
		}
		for i := range t.Functions {
			if taken[i] || !opts.wants(i) {
				continue
			}
			f := &t.Functions[i]
			if opts.How == AttachKprobes && f.How != plan.Calls {
				f.How = plan.Kprobe
			}
			err := s.attachTraced(dir, i, f, t, opts)
			if errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrLockedDown) {
				return err
			}
			if err != nil {
				untraced(f.Name, err)
			}
		}
		places := make(map[int]bool) // functions watched at the calls, their jumps included
		for _, a := range s.attached {
			places[a.traced-1] = places[a.traced-1] || a.place
		}
		for n := range t.Jumps {
			j := &t.Jumps[n]
			if places[j.Called] || !opts.wants(j.Called) {
				continue
			}
			if err := s.attachTracedJump(dir, n, j, &t.Functions[j.Called], t.Targets[j.Target].Name, opts); err != nil {
				untraced(j.Symbol, fmt.Errorf("in %s, which ends in a jump to it: %w", j.Function, err))
			}
		}
		return nil
	})
}

// fails says how a function's result tells that it failed, as enum trace_fails has it;
// the same as trace.Function.Error.
func fails(f *trace.Function) uint8 {
	r := &f.Result
	switch {
	case !f.Known:
		return 1
	case r.Class == trace.Int && r.Signed && r.Size == 4:
		return 1
	case r.Class == trace.Int && r.Signed && r.Size == 8:
		return 2
	case r.Class == trace.Pointer || r.Class == trace.String:
		return 3
	}
	return 0
}

func traceSpec(i int, f *plan.TraceFunction, opts *TraceOptions) kedrTraceSpec {
	spec := kedrTraceSpec{
		Function: uint32(i), Callback: flag(f.Callback), Target: uint8(f.Target),
		Late: flag(opts.late()), Filtered: flag(opts.Filter != nil), Errors: flag(opts.Errors),
		Fails: fails(&f.Function), Sited: flag(opts.Sites != nil), Accounted: flag(opts.Accounted),
	}
	for _, c := range f.Captures[:min(len(f.Captures), trace.MaxCaptures)] {
		to := &spec.Capture[spec.Captures]
		to.From = traceResult
		if c.Param < 0 {
			spec.Results++
		} else {
			to.From = uint8(f.Params[c.Param].Slot)
		}
		to.Text, to.Offset, to.Size = flag(c.Type.Class == trace.String), c.Offset, uint16(c.Type.Size)
		spec.Captures++
	}
	return spec
}

// traceProgram makes one program of a generic one; of a session it is for many functions.
func (s *Set) traceProgram(name string, f *plan.TraceFunction, spec kedrTraceSpec, attachTo string, opts *TraceOptions) (*ebpf.Program, error) {
	probe := kedrProbeSpec{Id: traceID, Args: f.Slots}
	if attachTo != "" && !s.kernel.HasHelper("get_func_ip") {
		address, _, err := s.find(attachTo)
		if err != nil {
			return nil, err
		}
		probe.Function = address
	}
	spec.Kprobe = flag(attachTo == "")
	constants := s.constants(probe)
	constants["tracing"] = spec
	prog, err := s.spec.Program(name)
	if err != nil {
		return nil, err
	}
	if opts.Filter != nil {
		body := asm.Instructions(nil)
		if name == "trace_session" {
			var err error
			if body, err = filter.Dispatch(opts.Filter.Programs); err != nil {
				return nil, err
			}
		} else if p := opts.Filter.Programs[spec.Function]; p != nil {
			body = p.Instructions
		}
		if err := filter.Replace(prog, "trace_filter", body); err != nil {
			return nil, err
		}
	}
	return s.loadSpec(prog, name, constants, attachTo, nil)
}

func (s *Set) attachTraced(dir string, i int, f *plan.TraceFunction, t *plan.Trace, opts *TraceOptions) error {
	spec := traceSpec(i, f, opts)
	var err error
	if f.How == plan.Calls {
		return s.attachPlaces(dir, i, f, spec, t, opts, errors.New("kedr looks for leaks as well, and nothing may come between this function and who calls it"))
	}
	if f.How == plan.Trampoline {
		err = s.attachTrampolines(i, f, spec, opts)
		if err == nil || errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrLockedDown) {
			return err
		}
	}
	// What has no entry for the tracer has none for kprobes of this sort, but others do.
	kerr := s.attachKprobes(dir, i, f, spec, t.Targets, opts)
	if kerr == nil || f.Callback {
		return kerr
	}
	if err == nil {
		err = kerr
	}
	return s.attachPlaces(dir, i, f, spec, t, opts, err)
}

// attachSession attaches to all functions at once, as far as the kernel has what it takes,
// and says which. Programs differ by what they capture, not by function.
func (s *Set) attachSession(dir string, t *plan.Trace, opts *TraceOptions) (taken map[int]bool, err error) {
	if opts.How != AttachSession {
		return nil, nil
	}
	if _, err := s.kernel.Function("bpf_session_cookie"); err != nil {
		return nil, errors.New("this kernel has no sessions of kprobes, which are new in Linux 6.10 and need CONFIG_FPROBE: leave --probes as it is")
	}
	traceable, err := traceableFunctions(dir)
	if err != nil {
		return nil, err
	}
	groups := make(map[kedrTraceSpec][]int)
	for i := range t.Functions {
		f := &t.Functions[i]
		if f.Callback || f.How == plan.Calls || !traceable[f.Name] || !opts.wants(i) {
			continue
		}
		spec := traceSpec(0, f, opts)
		groups[spec] = append(groups[spec], i)
	}
	taken = make(map[int]bool)
	for spec, members := range groups {
		names := make([]string, len(members))
		cookies := make([]uint64, len(members))
		for n, i := range members {
			names[n], cookies[n] = t.Functions[i].Name, uint64(i)
		}
		prog, err := s.traceProgram("trace_session", &t.Functions[members[0]], spec, "", opts)
		if err != nil {
			return nil, err
		}
		l, err := link.KprobeMulti(prog, link.KprobeMultiOptions{Symbols: names, Cookies: cookies, Session: true})
		prog.Close()
		if err != nil {
			// A name that is there twice, or something the kernel does not tell: each for itself.
			if Trace != nil {
				Trace("session of %d functions: %v", len(names), err)
			}
			continue
		}
		s.attached = append(s.attached, Attached{Symbol: names[0], link: l, id: traceID, traced: members[0] + 1, half: session})
		for _, i := range members {
			taken[i], t.Functions[i].How = true, plan.Session
		}
	}
	return taken, nil
}

// traceableFunctions reads what the kernel's tracer can be called from.
func traceableFunctions(dir string) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "available_filter_functions"))
	if err != nil {
		return nil, fmt.Errorf("asking which functions can be traced: %w", err)
	}
	names := make(map[string]bool, 1<<16)
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		names[name] = true
	}
	return names, nil
}

// maxPlaces is how many calls of one function are watched one by one.
const maxPlaces = 256

// attachPlaces watches a function that can't be probed at the target's own calls of it.
// why is what keeps it from being probed.
func (s *Set) attachPlaces(dir string, i int, f *plan.TraceFunction, spec kedrTraceSpec, t *plan.Trace, opts *TraceOptions, why error) (err error) {
	places, refused := t.Places(f.Name)
	if len(places) == 0 || len(places) > maxPlaces {
		return why
	}
	spec.Paired, spec.Unprobed = flag(spec.Late == 0), 1
	var mine []Attached
	defer func() {
		if err != nil {
			for _, a := range mine {
				a.close()
			}
		}
	}()
	for target := range t.Targets {
		spec.Target = uint8(target)
		programs := make(map[string]*ebpf.Program)
		defer func() {
			for _, p := range programs {
				p.Close()
			}
		}()
		at := func(program, event, module, anchor string, offset uint64) error {
			prog := programs[program]
			if prog == nil {
				var err error
				if prog, err = s.traceProgram(program, f, spec, "", opts); err != nil {
					return err
				}
				programs[program] = prog
			}
			a, err := s.attachKprobe(dir, event, "p", fmt.Sprintf("%s:%s+%#x", module, anchor, offset), prog)
			if err != nil {
				return err
			}
			a.Symbol, a.id, a.traced, a.half = f.Name, traceID, i+1, breakpoint
			a.place = true
			mine = append(mine, a)
			return nil
		}
		for n, p := range places {
			if p.Target != target {
				continue
			}
			module := t.Targets[target].Name
			if p.Tail {
				if opts.late() {
					refused++
				} else if err := at("trace_jump", fmt.Sprintf("s%d_%d", i, n), module, p.Anchor, p.Offset); err != nil {
					return err
				}
				continue
			}
			// The return first: a call without one would never end.
			if err := at("trace_site_return", fmt.Sprintf("e%d_%d", i, n), module, p.Anchor, p.Offset+5); err != nil {
				return err
			}
			if err := at("trace_site_call", fmt.Sprintf("s%d_%d", i, n), module, p.Anchor, p.Offset); err != nil {
				return err
			}
		}
	}
	if refused > 0 {
		t.Untraced = append(t.Untraced, trace.Untraced{Function: f.Name, Reason: fmt.Sprintf("%d of the target's calls of it: only their places could be watched, and these can't (%s)", refused, brief(why))})
	}
	s.attached = append(s.attached, mine...)
	return nil
}

// attachTrampolines attaches the return first: a call without a return would never end.
func (s *Set) attachTrampolines(i int, f *plan.TraceFunction, spec kedrTraceSpec, opts *TraceOptions) error {
	var links []link.Link
	for _, name := range []string{"trace_exit", "trace_entry"} {
		spec := spec
		// The context has the arguments by their types, which is good for a copy only, and
		// some types it does not have.
		spec.Direct = flag(name == "trace_entry" && f.Known && spec.Captures == 0 && spec.Filtered == 0 && spec.Late == 0)
		prog, err := s.traceProgram(name, f, spec, f.Name, opts)
		if err != nil && spec.Direct != 0 && !errors.Is(err, ErrNotPermitted) && !errors.Is(err, ErrLockedDown) {
			spec.Direct = 0
			prog, err = s.traceProgram(name, f, spec, f.Name, opts)
		}
		var l link.Link
		if err == nil {
			l, err = link.AttachTracing(link.TracingOptions{Program: prog})
			prog.Close()
		}
		if err != nil {
			for _, l := range links {
				l.Close()
			}
			return permission(fmt.Errorf("attaching to %s: %w", f.Name, err))
		}
		links = append(links, l)
	}
	for n, l := range links {
		s.attached = append(s.attached, Attached{Symbol: f.Name, link: l, id: traceID, traced: i + 1, half: half(n)})
	}
	return nil
}

// attachKprobes attaches the entry last: of two at one place the one that came last is
// the first to run (kernel/kprobes.c, add_new_kprobe), and a kretprobe changes the return
// address that the entry looks at.
func (s *Set) attachKprobes(dir string, i int, f *plan.TraceFunction, spec kedrTraceSpec, targets []*target.Module, opts *TraceOptions) error {
	spec.Paired = flag(spec.Late == 0)
	where := f.Name
	if f.Callback {
		where = targets[f.Target].Name + ":" + f.Anchor
	}
	var mine []Attached
	for _, p := range []struct{ program, event, kind string }{
		{"trace_kretprobe", fmt.Sprintf("r%d", i), "r" + strconv.Itoa(traceMaxNRet)},
		{"trace_kprobe", fmt.Sprintf("c%d", i), "p"},
	} {
		prog, err := s.traceProgram(p.program, f, spec, "", opts)
		if err == nil {
			var a Attached
			a, err = s.attachKprobe(dir, p.event, p.kind, where, prog)
			prog.Close()
			a.Symbol, a.id, a.traced, a.half = f.Name, traceID, i+1, breakpoint
			if err == nil {
				mine = append(mine, a)
				continue
			}
		}
		for _, a := range mine {
			a.close()
		}
		return err
	}
	s.attached = append(s.attached, mine...)
	return nil
}

func (s *Set) attachTracedJump(dir string, n int, j *plan.TraceJump, f *plan.TraceFunction, module string, opts *TraceOptions) error {
	spec := traceSpec(j.Called, f, opts)
	// It has no return of its own.
	spec.Late, spec.Errors = 0, 0
	if opts.late() {
		return errors.New("its result is not seen there, and the trace is about results")
	}
	spec.Target = uint8(j.Target)
	prog, err := s.traceProgram("trace_jump", f, spec, "", opts)
	if err != nil {
		return err
	}
	defer prog.Close()
	a, err := s.attachKprobe(dir, fmt.Sprintf("j%d_%d", j.Called, n), "p", fmt.Sprintf("%s:%s+%#x", module, j.Anchor, j.Offset), prog)
	if err != nil {
		return err
	}
	a.Symbol, a.id, a.traced, a.half = j.Symbol, traceID, j.Called+1, breakpoint
	s.attached = append(s.attached, a)
	return nil
}

// half says what a link of a trace sees.
type half int

const (
	exitHalf half = iota
	entryHalf
	breakpoint // a kprobe or kretprobe
	session    // both halves, of many functions
)

// TraceEvent is an event as the kernel's side has it.
type TraceEvent struct {
	trace.Event
	Load uint32 // 0: unknown
	Site uint64 // return address; 0: none
}

const (
	eventLen   = int(unsafe.Sizeof(kedrTraceEvent{}))
	returnLen  = int(unsafe.Offsetof(kedrTraceEvent{}.Duration))
	whatAt     = int(unsafe.Offsetof(kedrTraceEvent{}.What))
	captureLen = int(unsafe.Sizeof(kedrTraceCapture{}))
)

// decodeEvent reads struct trace_event, or the part of it that a return is, and the
// captures behind it. It says whether there was one.
func decodeEvent(raw []byte, to *TraceEvent) bool {
	if len(raw) < returnLen {
		return false
	}
	var e kedrTraceEvent
	head := returnLen
	if raw[whatAt] != trace.Return {
		head = eventLen
	}
	if len(raw) < head {
		return false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), eventLen), raw[:head])
	*to = TraceEvent{
		Event: trace.Event{
			What: e.What, Time: e.Time, CPU: e.Cpu, PID: e.Tgid, TID: e.Pid, Context: e.Context,
			ID: e.Id, Function: int(e.Function), Target: int(e.Target),
		},
		Load: e.Load, Site: e.Site,
	}
	// The others leave there what had been there.
	if e.What == trace.Return || e.What == trace.Whole {
		to.Result, to.Duration = e.Result, e.Duration
	}
	if head == eventLen {
		to.Comm = goString(e.Comm[:])
		to.Args = e.Args[:]
		live := int64(e.Live)
		to.Live = &live
		to.Event.Jump = e.What == trace.Call && e.Id == 0
	}
	rest := raw[head:]
	for range min(int(e.Captures), trace.MaxCaptures) {
		if len(rest) < captureLen {
			break
		}
		number, failed, length := rest[0], rest[1], binary.NativeEndian.Uint16(rest[2:])
		data := rest[8:captureLen]
		rest = rest[captureLen:]
		if number == traceResult {
			continue // of the result, and there is none yet
		}
		c := trace.Captured{Capture: int(number), Failed: failed != 0}
		if !c.Failed {
			c.Data = append([]byte(nil), data[:min(int(length), len(data))]...)
		}
		to.Captured = append(to.Captured, c)
	}
	return true
}

// TraceLost counts the events of a trace that were not recorded.
func (s *Set) TraceLost(functions []string) ([]trace.Lost, error) {
	var out []trace.Lost
	checked := make([]uint64, len(functions)+1)
	left, err := s.unreturnedCalls(functions)
	if err != nil {
		return nil, err
	}
	for i, name := range append(slices.Clone(functions), "") {
		var c kedrTraceCount
		if err := s.shared["trace_counts"].Lookup(uint32(i), &c); err != nil {
			return nil, fmt.Errorf("reading what the trace has lost: %w", err)
		}
		checked[i] = c.Checked
		for _, l := range []struct {
			count  uint64
			reason string
		}{
			{c.Full, "the trace's buffer was full (--buffer makes it larger)"},
			{c.Crowded, "too many calls were open at one time"},
			{c.Frame, "its caller could not be told"},
			{c.Unreturned + left[i], "calls that were not seen to return: an interrupt made them while the probe ran"},
		} {
			if l.count > 0 {
				out = append(out, trace.Lost{Function: name, Reason: l.reason, Count: l.count})
			}
		}
	}
	// The kernel does not let a program interrupt itself, whoever calls. Of an entry that was
	// missed the return tells (trace_exit), but for those in the first and last few
	// instructions of the program; of a return that was missed, the next call (TraceReader).
	missed := make([][2]uint64, len(functions))
	kprobes := make([]uint64, len(functions))
	var together uint64
	counted := make(map[ebpf.ProgramID]bool) // one may be at many places
	for _, a := range s.attached {
		if a.traced == 0 || a.link == nil || a.traced > len(missed) {
			continue
		}
		id, n, err := a.programMisses()
		if err != nil {
			return nil, fmt.Errorf("asking about the probe of %s: %w", a.Symbol, err)
		}
		if counted[id] {
			continue
		}
		counted[id] = true
		switch a.half {
		case session:
			together += n
		case breakpoint:
			kprobes[a.traced-1] += n
		default:
			missed[a.traced-1][a.half] += n
		}
	}
	if together > 0 {
		out = append(out, trace.Lost{Reason: "calls, by anybody, in interrupts of a probe: of functions that are attached to together the kernel runs one at a time", Count: together})
	}
	if s.jumps != "" {
		if err := s.traceMisses(kprobes); err != nil {
			return nil, fmt.Errorf("asking about the kprobes: %w", err)
		}
	}
	for i, m := range missed {
		n := kprobes[i]
		if m[entryHalf] > checked[i] {
			n += m[entryHalf] - checked[i]
		}
		if n > 0 {
			out = append(out, trace.Lost{Function: functions[i], Reason: "calls, by anybody, that interrupted the probe: the kernel does not run it twice", Count: n})
		}
	}
	return out, nil
}

// unreturnedCalls counts the calls, by function, that are open still though their target is
// gone. Only a trace that keeps calls until their results are known has them here.
func (s *Set) unreturnedCalls(functions []string) ([]uint64, error) {
	counts := make([]uint64, len(functions)+1)
	if m := s.shared["trace_open"]; m == nil || m.MaxEntries() < traceOpen {
		return counts, nil
	}
	loads, err := s.Loads()
	if err != nil {
		return nil, err
	}
	gone := make(map[uint32]bool)
	for _, l := range loads {
		gone[l.ID] = l.Unloaded > 0
	}
	open := make(map[uint32][]uint32) // by thread, functions
	ended := make(map[uint32]bool)    // threads
	err = each(s.shared["trace_open"], func(_ uint64, r *kedrTraceRecord8) {
		e := &r.E
		if !gone[e.Load] || int(e.Function) >= len(functions) {
			return
		}
		open[e.Pid] = append(open[e.Pid], e.Function)
		ended[e.Pid] = ended[e.Pid] || trace.NeverReturns(functions[e.Function])
	})
	if err != nil {
		return nil, fmt.Errorf("reading the open calls: %w", err)
	}
	for thread, fs := range open {
		for _, f := range fs {
			if !ended[thread] {
				counts[f]++
			}
		}
	}
	return counts, nil
}

// traceMisses adds what kprobe_profile says of our events.
func (s *Set) traceMisses(missed []uint64) error {
	return WithTracefs(func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "kprobe_profile"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) != 3 || len(f[0]) < 2 || !strings.ContainsRune("crsej", rune(f[0][0])) {
				continue
			}
			number, _, _ := strings.Cut(f[0][1:], "_")
			i, err := strconv.Atoi(number)
			if err != nil || i < 0 || i >= len(missed) {
				continue
			}
			n, err := strconv.ParseUint(f[2], 10, 64)
			if err != nil {
				return fmt.Errorf("kprobe_profile: %q: %w", line, err)
			}
			missed[i] += n
		}
		return nil
	})
}
