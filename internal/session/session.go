// Package session runs an analysis from arming the probes to reading what they
// saw: within one process (Arm, Capture, Close), or detached, where everything
// is pinned in bpffs and nothing of ours runs until Open.
package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/plan"
	"kedr/internal/probe"
	"kedr/internal/target"
)

// Options of a session.
type Options struct {
	MaxObjects uint32 // see probe.Options
	MaxStacks  uint32

	Backend Backend // how functions are intercepted
	BTF     string  // file with the kernel's types, where it has none; see kernel.RunningWith

	VerifyStacks bool `json:",omitempty"` // see probe.Options

	// Trace has calls recorded; NoLeaks spares the account of what is obtained.
	Trace   *TraceOptions `json:",omitempty"`
	NoLeaks bool          `json:",omitempty"`

	// Catalogs are the files that the catalog has from the user, for a restart.
	Catalogs []string
}

// Backend is how functions are intercepted.
type Backend string

// The back ends there are (docs/backends.md).
const (
	Auto        Backend = "auto"       // trampolines where the kernel has them
	Trampolines Backend = "trampoline" // Requires Linux 5.5 with BTF
	Kprobes     Backend = "kprobe"     // kprobes and kretprobes
)

// Backends lists them.
var Backends = []Backend{Auto, Trampolines, Kprobes}

// Session is one analysis.
type Session struct {
	kernel *kernel.Kernel
	set    *probe.Set
	meta   meta
}

// meta is what a detached session has to remember of its beginning.
type meta struct {
	Release   string      `json:"release"`
	Started   time.Time   `json:"started"`
	Options   Options     `json:"options"`
	Targets   []Target    `json:"targets"`
	Probes    []metaProbe `json:"probes"`
	Unwatched []Unwatched `json:"unwatched,omitempty"`
	Mounted   bool        `json:"mounted,omitempty"` // bpffs was mounted for this session
	Cleared   time.Time   `json:"cleared,omitzero"`
	Trace     *traceMeta  `json:"trace,omitempty"`
	// What had been lost by then: the kernel's counters can't be reset.
	LostBefore []probe.Lost `json:"lost_before,omitempty"`
}

type metaProbe struct {
	Symbol   string `json:"symbol"`
	Kind     string `json:"kind"`
	Function string `json:"function,omitempty"` // empty: the call site tells
	Check    bool   `json:"check,omitempty"`    // it only tells wrong releases
	// Imports are those of the targets that lead to it, if it hands out objects.
	Imports []string `json:"imports,omitempty"`
}

// ErrLoaded says that targets are in the kernel already.
type ErrLoaded struct{ Names []string }

func (e *ErrLoaded) Error() string {
	return fmt.Sprintf("the target module %s is already loaded, and only a module that is watched from its first instruction can be analysed: unload it first (rmmod %s)",
		strings.Join(e.Names, ", "), strings.Join(e.Names, " "))
}

// NotLoaded returns an ErrLoaded of those targets that are in the kernel.
func NotLoaded(targets ...*target.Module) error {
	var names []string
	for _, t := range targets {
		if kernel.ModuleLoaded(t.Name) {
			names = append(names, t.Name)
		}
	}
	if len(names) > 0 {
		return &ErrLoaded{Names: names}
	}
	return nil
}

// Arm starts a session for modules that are not loaded yet.
func Arm(c *catalog.Catalog, k *kernel.Kernel, opts Options, targets ...*target.Module) (*Session, error) {
	return arm(c, k, opts, false, targets)
}

// Learn tells a kernel without types of its own of those that know some: the targets'
// debug information, and its code, which is read until done is called.
func Learn(k *kernel.Kernel, targets []*target.Module) (done func(), err error) {
	if k.OwnTypes() {
		return func() {}, nil
	}
	for _, t := range targets {
		k.Learn(t.Layouts())
	}
	accessors, err := probe.ReadAccessors(k)
	if err != nil {
		return nil, err
	}
	k.Learn(accessors)
	return func() { accessors.Close() }, nil
}

// armingGC is how much garbage there may be while a session is armed, in percent of what is
// in use (runtime/debug.SetGCPercent).
const armingGC = 400

func arm(c *catalog.Catalog, k *kernel.Kernel, opts Options, files bool, targets []*target.Module) (*Session, error) {
	// Most of it is needed until all programs are there: to look for garbage early finds little.
	defer debug.SetGCPercent(debug.SetGCPercent(armingGC))
	if err := NotLoaded(targets...); err != nil {
		return nil, err
	}
	done, err := Learn(k, targets)
	if err != nil {
		return nil, err
	}
	done = sync.OnceFunc(done)
	defer done()
	p := &plan.Plan{Targets: targets}
	if !opts.NoLeaks {
		if p, err = plan.New(c, k, targets...); err != nil {
			return nil, err
		}
	}
	if opts.Backend == Trampolines && !k.OwnTypes() {
		return nil, kernel.ErrNoBTF
	}
	limits := probe.Options{MaxObjects: opts.MaxObjects, MaxStacks: opts.MaxStacks, Files: files, Kprobes: opts.Backend == Kprobes, VerifyStacks: opts.VerifyStacks}
	if opts.Trace != nil {
		t, how, err := planTrace(k, opts.Trace, p.Apart(), targets)
		if err != nil {
			return nil, err
		}
		p.Trace, limits.Trace = t, *how
		limits.Trace.Accounted = !opts.NoLeaks
	}
	set, err := probe.Attach(p, k, limits)
	if err != nil {
		return nil, err
	}
	s := &Session{kernel: k, set: set, meta: meta{Release: k.Release, Started: time.Now(), Options: opts}}
	if p.Trace != nil {
		if s.meta.Trace, err = newTraceMeta(k, p); err != nil {
			set.Close()
			return nil, err
		}
	}
	// What it gives back is freed by functions that are watched now, which is nobody's loss.
	done()
	if s.meta.LostBefore, err = set.LostSoFar(); err != nil {
		set.Close()
		return nil, err
	}
	for _, t := range targets {
		s.meta.Targets = append(s.meta.Targets, Target{Name: t.Name, Path: t.Path, BuildID: t.BuildID})
	}
	for _, pr := range p.Probes {
		mp := metaProbe{Symbol: pr.Symbol, Kind: pr.Kind, Check: pr.CheckOnly}
		if pr.Role == plan.Obtain {
			mp.Imports = pr.Imports
		}
		if pr.Mechanism != plan.Tracepoint {
			mp.Function = pr.Symbol
		}
		s.meta.Probes = append(s.meta.Probes, mp)
	}
	for _, u := range p.Unwatched {
		s.meta.Unwatched = append(s.meta.Unwatched, Unwatched(u))
	}
	return s, nil
}

// Settle waits until nothing is outstanding, but no longer than d: the kernel
// frees some objects long after it was told to (RCU, work queues).
func (s *Session) Settle(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		n, err := s.set.Live()
		if err != nil || n == 0 {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(pause, left)):
		}
	}
}

// Capture reads what was seen so far. The session goes on. The sites are the call stacks
// of all that was obtained, which takes time to read and to name, and most readers can do
// without.
func (s *Session) Capture(settle time.Duration, sites bool) (*Capture, error) {
	c := &Capture{
		Release: s.kernel.Release, Machine: s.kernel.Machine,
		Targets: s.meta.Targets, Unwatched: s.meta.Unwatched, Settle: settle,
	}
	loads, err := s.set.Loads()
	if err != nil {
		return nil, err
	}
	for _, l := range loads {
		c.Loads = append(c.Loads, Load{
			ID: l.ID, Target: l.Target, Core: l.Core, Init: l.Init, Sections: l.Sections,
			Loaded: l.Loaded, Unloaded: l.Unloaded,
			Allocations: l.Allocations, AllocatedBytes: l.AllocatedBytes,
			Frees: l.Frees, UnallocatedFree: l.WrongFrees, Mismatched: l.Mismatched,
		})
	}
	// Before the objects are read: that alone keeps kprobes from being run. What is lost in
	// between is a release that comes now, of what is shown as a leak then.
	lost, err := s.set.Lost()
	if err != nil {
		return nil, err
	}
	if s.meta.Options.VerifyStacks {
		if c.Verified, err = s.set.Verified(); err != nil {
			return nil, err
		}
	}
	if err := s.captureObjects(c); err != nil {
		return nil, err
	}
	if sites {
		if err := s.captureSites(c); err != nil {
			return nil, err
		}
	}
	for _, l := range since(lost, s.meta.LostBefore) {
		out := Lost{Function: l.Symbol, Reason: l.Reason, Count: l.Count}
		if p, ok := s.probe(l.Probe); ok {
			out.Function, out.Check = p.Symbol, p.Check
		}
		c.Lost = append(c.Lost, out)
	}
	return c, nil
}

func (s *Session) captureObjects(c *Capture) error {
	objects, err := s.set.Objects()
	if err != nil {
		return err
	}
	// Oldest first: a map has no order, a report should have.
	slices.SortFunc(objects, func(a, b probe.Object) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Address, b.Address))
	})
	var sites []uint64                // that stand for a whole stack
	stacks := make(map[uint64]uint64) // id, or call site where there was no room for a stack
	site := func(callSite uint64) uint64 {
		// The page allocator's events tell no call site.
		if callSite == 0 {
			return 0
		}
		if _, ok := stacks[callSite]; !ok {
			stacks[callSite] = callSite
			sites = append(sites, callSite)
			c.Stacks = append(c.Stacks, Stack{ID: callSite, Frames: []uint64{callSite}, Cut: true})
		}
		return callSite
	}
	stack := func(id, callSite uint64) (uint64, error) {
		if out, ok := stacks[id]; ok && id != 0 {
			return out, nil
		}
		if id == 0 {
			return site(callSite), nil
		}
		st, err := s.set.Stack(id)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return site(callSite), nil // a clear was faster
		}
		if err != nil {
			return 0, err
		}
		stacks[id] = id
		c.Stacks = append(c.Stacks, Stack{ID: id, Frames: st.Frames, Cut: st.Cut, Site: st.Site})
		return id, nil
	}
	// What a clear has forgotten may be there still; so may what has just come.
	known := make(map[uint32]bool, len(c.Loads))
	for _, l := range c.Loads {
		known[l.ID] = true
	}
	for _, o := range objects {
		if !known[o.Load] {
			continue
		}
		id, err := stack(o.Stack, o.CallSite)
		if err != nil {
			return err
		}
		out := Object{
			Load: o.Load, Stack: id, Address: o.Address, Size: o.Size, PID: o.PID, Comm: o.Comm, IRQ: o.IRQ, Time: o.Time,
		}
		if p, ok := s.probe(o.Probe); ok {
			out.Kind, out.Function = p.Kind, p.Function
		}
		c.Objects = append(c.Objects, out)
	}
	if err := s.captureWrongs(c, known, stack); err != nil {
		return err
	}
	if len(c.Stacks) == 0 {
		return nil
	}
	symbols, err := s.set.Symbols()
	if err != nil {
		return err
	}
	c.Symbols = make(map[uint64]Symbol, len(symbols))
	for a, sym := range symbols {
		c.Symbols[a] = Symbol{Function: sym.Name, Offset: sym.Offset, Size: sym.Size, Module: sym.Module}
	}
	// Of calls without a stack of their own only the site is known.
	for _, callSite := range sites {
		if sym, ok := s.set.Name(callSite); ok {
			c.Symbols[callSite] = Symbol{Function: sym.Name, Offset: sym.Offset, Size: sym.Size, Module: sym.Module}
		}
	}
	return nil
}

func (s *Session) captureWrongs(c *Capture, known map[uint32]bool, stack func(id, callSite uint64) (uint64, error)) error {
	wrongs, err := s.set.Wrongs()
	if err != nil {
		return err
	}
	party := func(p probe.Party) (Party, error) {
		id, err := stack(p.Stack, p.CallSite)
		return Party{Stack: id, PID: p.PID, Comm: p.Comm, IRQ: p.IRQ}, err
	}
	for _, w := range wrongs {
		if !known[w.Load] {
			continue
		}
		out := WrongFree{
			Load: w.Load, Address: w.Address, Count: w.Count,
			Wrong: [...]string{Unallocated, Double, Mismatched}[w.What%3],
		}
		if out.Party, err = party(w.Party); err != nil {
			return err
		}
		if p, ok := s.probe(w.Probe); ok {
			out.Kind, out.Function = p.Kind, p.Function
		}
		if w.Known {
			out.Object = &Released{Size: w.Size}
			if out.Object.Obtained, err = party(w.Obtained); err != nil {
				return err
			}
			if p, ok := s.probe(w.ObjectProbe); ok {
				out.Object.Kind, out.Object.Function = p.Kind, p.Function
			}
			if w.What == probe.Double {
				first, err := party(w.Released)
				if err != nil {
					return err
				}
				out.Object.First = &first
			}
		}
		c.WrongFrees = append(c.WrongFrees, out)
	}
	return nil
}

func (s *Session) probe(i int) (metaProbe, bool) {
	if i < 0 || i >= len(s.meta.Probes) {
		return metaProbe{}, false
	}
	return s.meta.Probes[i], true
}

// Probes counts the probes at work.
func (s *Session) Probes() int { return len(s.set.Attached()) }

// Targets lists the session's targets.
func (s *Session) Targets() []Target { return s.meta.Targets }

// Unwatched lists what the targets import and cannot be intercepted.
func (s *Session) Unwatched() []Unwatched { return s.meta.Unwatched }

// Loaded lists the targets that are in the kernel now.
func (s *Session) Loaded() []string {
	var names []string
	for _, t := range s.meta.Targets {
		if kernel.ModuleLoaded(t.Name) {
			names = append(names, t.Name)
		}
	}
	return names
}

// Options are those that the session was started with.
func (s *Session) Options() Options { return s.meta.Options }

// Cleared says when all was forgotten last; zero: never.
func (s *Session) Cleared() time.Time { return s.meta.Cleared }

// Started says when the session was armed.
func (s *Session) Started() time.Time { return s.meta.Started }

// Close ends the session, or lets go of it where it is detached.
func (s *Session) Close() error { return s.set.Close() }

// Where a detached session is: its own maps and links, and the files for users.
const (
	bpffs    = "/sys/fs/bpf"
	pinDir   = bpffs + "/kedr-session"
	FilesDir = bpffs + "/kedr"
	metaPin  = pinDir + "/meta"
)

// Errors of detached sessions.
var (
	ErrRunning    = errors.New("service is already running: to stop it, execute 'kedr stop'")
	ErrNotRunning = errors.New("service is not running: to start it, execute 'kedr start MODULE'")
)

// Start arms a detached session.
func Start(c *catalog.Catalog, k *kernel.Kernel, opts Options, targets ...*target.Module) (err error) {
	if Running() {
		return ErrRunning
	}
	mounted, err := mountBPFFS()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && mounted {
			err = errors.Join(err, unmountBPFFS())
		}
	}()
	// Of two starts at one moment the second finds the first one's session.
	unlock, err := lockDir(bpffs)
	if err != nil {
		return err
	}
	defer unlock()
	if Running() {
		return ErrRunning
	}
	// What a start that was killed half-way has left would be in the way.
	if err := remove(); err != nil {
		return err
	}
	s, err := arm(c, k, opts, true, targets)
	if err != nil {
		return err
	}
	defer s.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	s.meta.Mounted = mounted
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Name
	}
	if err := s.set.Pin(pinDir, FilesDir, names); err != nil {
		return err
	}
	return s.pinMeta()
}

// pinMeta keeps the session's beginning where the session is, so that nothing
// is left on disk and nothing can be of another session.
func (s *Session) pinMeta() error {
	b, err := json.Marshal(s.meta)
	if err != nil {
		return err
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "meta", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(b)+7) &^ 7, MaxEntries: 1,
	})
	if err != nil {
		return fmt.Errorf("keeping the session's description: %w", err)
	}
	defer m.Close()
	if err := m.Put(uint32(0), append(b, make([]byte, int(m.ValueSize())-len(b))...)); err != nil {
		return fmt.Errorf("keeping the session's description: %w", err)
	}
	// Under its name it is there as a whole, or as it was.
	const fresh = metaPin + "-new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the session's description: %w", err)
	}
	if err := m.Pin(fresh); err != nil {
		return fmt.Errorf("keeping the session's description: %w", err)
	}
	return os.Rename(fresh, metaPin)
}

// Running says whether there is a detached session.
func Running() bool {
	_, err := os.Stat(metaPin)
	return err == nil
}

// readMeta reads what pinMeta has kept.
func readMeta() (meta, error) {
	var out meta
	m, err := ebpf.LoadPinnedMap(metaPin, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return out, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return out, fmt.Errorf("opening the session: %w: run as root", err)
	case err != nil:
		return out, fmt.Errorf("opening the session: %w", err)
	}
	defer m.Close()
	b := make([]byte, m.ValueSize())
	if err := m.Lookup(uint32(0), &b); err != nil {
		return out, fmt.Errorf("reading the session's description: %w", err)
	}
	if err := json.Unmarshal([]byte(unix.ByteSliceToString(b)), &out); err != nil {
		return out, fmt.Errorf("reading the session's description: %w", err)
	}
	return out, nil
}

// Open opens the detached session.
func Open(k *kernel.Kernel) (*Session, error) {
	m, err := readMeta()
	if err != nil {
		return nil, err
	}
	s := &Session{kernel: k, meta: m}
	if s.set, err = probe.OpenPinned(pinDir, k); err != nil {
		return nil, err
	}
	return s, nil
}

// Clear forgets what a detached session has seen of one target or, without a name,
// of all. The session goes on.
func (s *Session) Clear(name string) error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if name != "" {
		i := slices.IndexFunc(s.meta.Targets, func(t Target) bool { return t.Name == name })
		if i < 0 {
			return fmt.Errorf("module %s is not being watched", name)
		}
		return s.set.Clear(i)
	}
	// Before, not after: what is lost in between is counted rather than not.
	lost, err := s.set.Lost()
	if err != nil {
		return err
	}
	if err := s.set.Clear(); err != nil {
		return err
	}
	s.meta.LostBefore, s.meta.Cleared = lost, time.Now()
	return s.pinMeta()
}

// since takes what had been counted before away from what is counted now.
func since(now, before []probe.Lost) []probe.Lost {
	var out []probe.Lost
	for _, l := range now {
		for _, b := range before {
			if b.Probe == l.Probe && b.Symbol == l.Symbol && b.Reason == l.Reason {
				l.Count -= min(l.Count, b.Count)
			}
		}
		if l.Count > 0 {
			out = append(out, l)
		}
	}
	return out
}

// lock keeps others from changing the session meanwhile.
func lock() (unlock func(), err error) { return lockDir(pinDir) }

func lockDir(name string) (unlock func(), err error) {
	dir, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("locking the session: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("locking the session: %w", err)
	}
	return func() { dir.Close() }, nil
}

// Stop ends the detached session and removes its files. It also clears away what
// a start that was killed half-way has left.
func Stop() error {
	if _, err := os.Stat(pinDir); errors.Is(err, fs.ErrNotExist) {
		return ErrNotRunning
	}
	// What can't be read any more is removed all the same.
	m, _ := readMeta()
	unlock, err := lock()
	if err != nil {
		return err
	}
	err = remove()
	unlock()
	if err != nil || !m.Mounted {
		return err
	}
	return unmountBPFFS()
}

func remove() error {
	return errors.Join(removeAll(pinDir), removeAll(FilesDir), probe.RemoveJumps())
}

func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the session: %w", err)
	}
	return nil
}

// mountBPFFS mounts bpffs where nobody has, and says so; systemd does it everywhere
// it runs.
func mountBPFFS() (mounted bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err != nil {
		return false, fmt.Errorf("%s: %w: this kernel has no BPF file system (CONFIG_BPF_SYSCALL)", bpffs, err)
	}
	if uint32(st.Type) == unix.BPF_FS_MAGIC {
		return false, nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, "mode=0700"); err != nil {
		return false, fmt.Errorf("mounting the BPF file system at %s: %w", bpffs, err)
	}
	return true, nil
}

func unmountBPFFS() error {
	if err := unix.Unmount(bpffs, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", bpffs, err)
	}
	return nil
}
