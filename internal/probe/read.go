package probe

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// Load is a target's stay in the kernel, as the programs saw it.
type Load struct {
	ID             uint32
	Target         int
	Core, Init     uint64
	Loaded         time.Duration // since boot
	Unloaded       time.Duration // since boot; 0: not yet
	Allocations    uint64
	AllocatedBytes uint64
	Frees          uint64
	WrongFrees     uint64
	Mismatched     uint64
	Live           uint64
	Sections       []uint64 // nil: not the file that is known
}

// Object is an outstanding object.
type Object struct {
	Address  uint64
	Size     uint64
	Stack    uint64
	CallSite uint64
	Time     time.Duration // since boot
	Load     uint32
	PID      int32
	Probe    int
	IRQ      bool
	Comm     string
}

// What is wrong with a release.
type What int

// The values of enum wrong_release (bpf/kedr.h).
const (
	Unallocated What = iota // of what no target had obtained
	Double                  // of what a target had obtained, and was released already
	Mismatched              // by a function, or to an owner, of other objects
)

// Party is who did something, and where.
type Party struct {
	Stack    uint64 // 0: only the call site is known
	CallSite uint64
	PID      int32
	IRQ      bool
	Comm     string
}

// Wrong is a call stack that released what it should not have.
type Wrong struct {
	What    What
	Address uint64 // of the first
	Count   uint64
	Load    uint32
	Probe   int
	Party

	// Of the object, where a target had obtained it.
	Known       bool
	Size        uint64
	ObjectProbe int
	Obtained    Party
	Released    Party // for the first time, if What is Double
}

// Stack is a call stack.
type Stack struct {
	// Site is the address behind a jump of the target, by which it got to the
	// function that was probed without leaving a frame; 0: it called it.
	Site   uint64
	Frames []uint64
	Cut    bool
}

// Loads reads the loads of all targets, oldest first.
func (s *Set) Loads() ([]Load, error) {
	n, err := s.variable32("load_count")
	if err != nil {
		return nil, err
	}
	loads := make([]Load, 0, n)
	for i := range min(n, s.shared["loads"].MaxEntries()) {
		out, err := s.LoadOf(i + 1)
		if err != nil {
			return nil, err
		}
		if out != nil {
			loads = append(loads, *out)
		}
	}
	return loads, nil
}

// LoadOf reads one load; nil: it has been cleared, or is about to come.
func (s *Set) LoadOf(id uint32) (*Load, error) {
	var l kedrLoad
	if err := s.shared["loads"].Lookup(id-1, &l); err != nil {
		return nil, fmt.Errorf("reading load %d: %w", id, err)
	}
	if l.State == loadNone {
		return nil, nil
	}
	var t kedrTarget
	if err := s.shared["targets"].Lookup(l.Target, &t); err != nil {
		return nil, fmt.Errorf("reading target %d: %w", l.Target, err)
	}
	out := &Load{
		ID: id, Target: int(l.Target), Core: l.Core, Init: l.Init,
		Loaded: time.Duration(l.Loaded), Unloaded: time.Duration(l.Unloaded),
		Allocations: l.Allocations, AllocatedBytes: l.AllocatedBytes, Frees: l.Frees,
		WrongFrees: l.WrongFrees, Mismatched: l.Mismatched, Live: l.Live,
	}
	for j := range min(t.Sections, MaxSections) {
		if l.Section[j] == 0 {
			out.Sections = nil
			break
		}
		out.Sections = append(out.Sections, l.Section[j])
	}
	return out, nil
}

// Objects reads all outstanding objects.
func (s *Set) Objects() ([]Object, error) {
	var objects []Object
	var slots []uint32
	err := s.eachObject(func(o *kedrObject) {
		slots = append(slots, o.Slot)
		objects = append(objects, Object{
			Address: o.Address, Size: o.Size, CallSite: o.CallSite, Time: time.Duration(o.Time),
			Load: o.Load, PID: int32(o.Pid), Probe: int(o.Probe), IRQ: o.Irq != 0, Comm: goString(o.Comm[:]),
		})
	})
	if err != nil {
		return nil, err
	}
	// After the objects: an object's slot was given out before it was there.
	tallies, err := s.tallies()
	if err != nil {
		return nil, err
	}
	for i, slot := range slots {
		objects[i].Stack = tallyOf(tallies, slot).Id
	}
	return objects, nil
}

// Wrongs reads all wrong releases.
func (s *Set) Wrongs() ([]Wrong, error) {
	var wrongs []Wrong
	err := each(s.shared["wrongs"], func(_ uint64, w *kedrWrong) {
		wrongs = append(wrongs, Wrong{
			What: What(w.What), Address: w.Address, Count: w.Count, Load: w.Load, Probe: int(w.Probe),
			Party: party(&w.Self), Known: w.Known != 0, Size: w.Size, ObjectProbe: int(w.ObjectProbe),
			Obtained: party(&w.Obtained), Released: party(&w.Released),
		})
	})
	return wrongs, err
}

func party(p *kedrParty) Party {
	return Party{Stack: p.Stack, CallSite: p.CallSite, PID: int32(p.Pid), IRQ: p.Irq != 0, Comm: goString(p.Comm[:])}
}

// Stack reads one call stack.
func (s *Set) Stack(id uint64) (Stack, error) {
	var st kedrStack
	if err := s.shared["stacks"].Lookup(id, &st); err != nil {
		return Stack{}, fmt.Errorf("reading stack %#x: %w", id, err)
	}
	n := min(int(st.Frames), len(st.Frame))
	return Stack{Site: st.Site, Frames: append([]uint64(nil), st.Frame[:n]...), Cut: st.Cut != 0}, nil
}

// Obtained is what has been obtained by one call stack, given back or not.
type Obtained struct {
	Stack   uint64
	Load    uint32
	Objects uint64
	Bytes   uint64
}

// Obtained reads the totals of all call stacks that have obtained something. What
// there was no room for a stack of is not in them.
func (s *Set) Obtained() ([]Obtained, error) {
	const obtained = 0 // STACK_OBTAINED (bpf/kedr.h)
	tallies, err := s.tallies()
	if err != nil {
		return nil, err
	}
	var list []Obtained
	err = each(s.shared["stacks"], func(id uint64, st *kedrStack) {
		if t := tallyOf(tallies, st.Slot); st.Role == obtained && t.Total > 0 {
			list = append(list, Obtained{Stack: id, Load: st.Load, Objects: t.Total, Bytes: t.TotalBytes})
		}
	})
	return list, err
}

// each reads a whole hash map, in batches. Requires Linux 5.6.
func each[V any](m *ebpf.Map, f func(key uint64, v *V)) error {
	const batch = 512
	keys, values := make([]uint64, batch), make([]V, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(keys[i], &values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("reading %v: %w", m, err)
		}
	}
}

// Live counts the outstanding objects that loads of the targets account for.
func (s *Set) Live() (uint64, error) {
	loads, err := s.Loads()
	var n uint64
	for _, l := range loads {
		n += l.Live
	}
	return n, err
}

// bssBytes reads the programs' variables, from memory that is shared with them: while a
// system call copies a map, no kprobe's program runs on that CPU
// (bpf_disable_instrumentation, include/linux/bpf.h), and a preemptible kernel may take
// long over it.
func (s *Set) bssBytes() ([]byte, error) {
	m := s.shared[".bss"]
	b := make([]byte, m.ValueSize())
	memory, err := m.Memory()
	if err == nil {
		_, err = memory.ReadAt(b, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the programs' variables: %w", err)
	}
	return b, nil
}

func (s *Set) variable32(name string) (uint32, error) {
	b, err := s.bssBytes()
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint32(b[s.bss[name].Offset:]), nil
}

// Lost counts events that one probe could not account for.
type Lost struct {
	Probe  int // index in the plan; beyond it: the events of modules
	Symbol string
	Reason string
	Count  uint64
}

// reasons are the values of enum lost_reason (bpf/kedr.h).
var reasons = [...]string{
	"more objects outstanding than there is room for (see --max-objects)",
	"the table of objects was busy",
	"more call stacks than there is room for",
	"the caller could not be read from the trampoline's frame",
	"more objects in one call than are looked at",
	"the probe was interrupted by itself",
	"more loads of targets than there is room for",
	"more wrong releases than there is room for",
	"one address was obtained more often than is followed",
	"more jumps to it under way than there is room for",
	"more calls under way than there is room for",
	"the return of a call was not seen",
	"a call stack was taken for another one",
}

const lostReturn = 11 // LOST_RETURN

// Lost reads what was lost since the session began.
func (s *Set) Lost() ([]Lost, error) {
	// Misses first: what the second programs have made good of them is then there.
	misses := make([]uint64, len(s.attached))
	for i, a := range s.attached {
		if a.twin || a.event != nil || a.traced > 0 || a.kprobe != noKprobe {
			continue // it is there for what the first one misses; the trace counts for itself
		}
		var err error
		if misses[i], err = a.misses(); err != nil {
			return nil, fmt.Errorf("asking about the probe of %s: %w", a.Symbol, err)
		}
	}
	b, err := s.bssBytes()
	if err != nil {
		return nil, err
	}
	var out []Lost
	off := int(s.bss["lost"].Offset)
	for i := range maxProbes {
		for r, reason := range reasons {
			if n := binary.NativeEndian.Uint64(b[off+8*(i*len(reasons)+r):]); n > 0 {
				out = append(out, Lost{Probe: i, Reason: reason, Count: n})
			}
		}
	}
	for i, a := range s.attached {
		if a.traced > 0 || a.kprobe != noKprobe {
			continue
		}
		rescued := binary.NativeEndian.Uint64(b[s.bss["rescued"].Offset+8*(a.id%maxProbes):])
		if n := int64(misses[i] - rescued); n > 0 {
			out = append(out, Lost{
				Probe: int(a.id), Symbol: a.Symbol, Count: uint64(n),
				Reason: "the kernel does not let a probe interrupt itself",
			})
		}
	}
	byKprobes, err := s.lostByKprobes()
	if err != nil {
		return nil, err
	}
	out = append(out, byKprobes...)
	missed, err := s.jumpMisses()
	if err != nil {
		return nil, fmt.Errorf("asking about the kprobes: %w", err)
	}
	if missed > 0 {
		out = append(out, Lost{
			Probe: -1, Symbol: "jumps of the module", Count: missed,
			Reason: "the kernel does not run a kprobe inside of another one",
		})
	}
	return out, nil
}

// misses asks how often the kernel did not run a program because it was running.
// Requires Linux 5.12.
func (a *Attached) misses() (uint64, error) {
	_, n, err := a.programMisses()
	return n, err
}

// programMisses is misses, with the program that they are of.
func (a *Attached) programMisses() (ebpf.ProgramID, uint64, error) {
	info, err := a.link.Info()
	if err != nil {
		return 0, 0, err
	}
	prog, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return 0, 0, err
	}
	defer prog.Close()
	stats, err := prog.Stats()
	if err != nil {
		return 0, 0, err
	}
	return info.Program, stats.RecursionMisses, nil
}

// Symbol is an address by name.
type Symbol struct {
	Name         string
	Offset, Size uint64
	Module       string
}

// ParseSymbol reads the kernel's %pS and %pB: "name+0x1/0x2 [module]", and after
// the module's name a build id in some configurations (lib/vsprintf.c,
// kernel/kallsyms.c, __sprint_symbol).
func ParseSymbol(text string) (Symbol, bool) {
	var sym Symbol
	name, rest, ok := strings.Cut(text, "+0x")
	if !ok || name == "" {
		return sym, false
	}
	rest, module, inModule := strings.Cut(rest, " [")
	if inModule {
		module, _, _ = strings.Cut(strings.TrimSuffix(module, "]"), " ")
		sym.Module = module
	}
	offset, size, ok := strings.Cut(rest, "/0x")
	if !ok {
		return sym, false
	}
	var err1, err2 error
	sym.Offset, err1 = strconv.ParseUint(offset, 16, 64)
	sym.Size, err2 = strconv.ParseUint(size, 16, 64)
	sym.Name = name
	return sym, err1 == nil && err2 == nil
}

// Symbols names the addresses in the stacks of leaks and wrong releases. The
// kernel does it, address by address: reading all its symbols costs far more.
func (s *Set) Symbols() (map[uint64]Symbol, error) {
	if !s.kernel.OwnTypes() {
		return s.symbolsByTable()
	}
	it, err := s.iterator("file_symbols", "stacks", 0)
	if err != nil {
		return nil, fmt.Errorf("naming kernel addresses: %w", err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("naming kernel addresses: %w", err)
	}
	defer r.Close()
	return readSymbols(r)
}

// symbolsByTable is Symbols for kernels that have no iterators.
func (s *Set) symbolsByTable() (map[uint64]Symbol, error) {
	symbols := make(map[uint64]Symbol)
	err := each(s.shared["stacks"], func(_ uint64, st *kedrStack) {
		for _, a := range st.Frame[:min(int(st.Frames), len(st.Frame))] {
			if _, ok := symbols[a]; ok {
				continue
			}
			if sym, ok := s.name(a); ok {
				symbols[a] = sym
			}
		}
	})
	return symbols, err
}

// Name names one address in kernel code that a call returns to.
func (s *Set) Name(address uint64) (Symbol, bool) { return s.name(address) }

func readSymbols(r io.Reader) (map[uint64]Symbol, error) {
	symbols := make(map[uint64]Symbol)
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		addr, text, ok := strings.Cut(sc.Text(), " ")
		if !ok {
			continue
		}
		a, err := strconv.ParseUint(addr, 16, 64)
		if err != nil {
			continue
		}
		if sym, ok := ParseSymbol(text); ok {
			symbols[a] = sym
		}
	}
	return symbols, sc.Err()
}
