package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kedr/internal/kernel"
	"kedr/internal/plan"
	"kedr/internal/probe"
	"kedr/internal/trace"
)

// TraceOptions say what a session traces.
type TraceOptions struct {
	plan.TraceOptions
	Buffer int      // bytes; see probe.TraceOptions
	Errors bool     // only calls that fail
	Where  string   // an expression that calls have to meet
	PIDs   []uint32 // of processes; none: all
	From   []string // globs over functions of the targets that call; none: all
	Expand []string // fields of structures
	How    probe.TraceAttach
}

// traceMeta is what a trace has to remember of its beginning.
type traceMeta struct {
	Header   trace.Header `json:"header"`
	Sections [][]uint64   `json:"sections"` // sizes, by target
}

func newTraceMeta(k *kernel.Kernel, p *plan.Plan) (*traceMeta, error) {
	now, clock, err := clocks()
	if err != nil {
		return nil, err
	}
	m := &traceMeta{}
	h := &m.Header
	*h = trace.Header{
		Version: trace.Version, Release: k.Release, Machine: k.Machine, Started: now, Boot: clock,
		Untraced: p.Trace.Untraced, Off: p.Trace.Off,
	}
	for _, t := range p.Targets {
		h.Targets = append(h.Targets, t.Name)
		var sizes []uint64
		for _, s := range t.Sections {
			sizes = append(sizes, s.Size)
		}
		m.Sections = append(m.Sections, sizes)
	}
	for _, f := range p.Trace.Functions {
		h.Functions = append(h.Functions, f.Function)
	}
	return m, nil
}

// clocks reads the time and the kernel's clock at one moment.
func clocks() (time.Time, uint64, error) {
	var ts unix.Timespec
	now := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return now, 0, fmt.Errorf("reading the clock: %w", err)
	}
	return now.Round(0), uint64(ts.Nano()), nil
}

// Clock reads the kernel's clock, as a trace has it.
func Clock() uint64 {
	_, clock, _ := clocks()
	return clock
}

// ErrNoTrace says that the session does not trace calls.
var ErrNoTrace = errors.New("the session does not trace calls: start it with kedr start --trace")

// TraceReader turns what the kernel's side has seen into the records of a trace.
type TraceReader struct {
	session  *Session
	reader   *probe.TraceReader
	header   *trace.Header
	loads    map[uint32]probe.Load
	sites    map[siteKey]uint32
	stacks   *trace.Stacks
	headless []uint64 // by function: returns whose beginning was not seen
	endless  []uint64 // calls whose return was not
	event    probe.TraceEvent
}

type siteKey struct {
	load    uint32
	address uint64
}

// Trace returns a reader of the session's trace. There may be one at a time.
func (s *Session) Trace() (*TraceReader, error) {
	if s.meta.Trace == nil {
		return nil, ErrNoTrace
	}
	r, err := s.set.TraceEvents()
	if err != nil {
		return nil, err
	}
	return &TraceReader{
		session: s, reader: r, header: &s.meta.Trace.Header,
		loads: make(map[uint32]probe.Load), sites: make(map[siteKey]uint32),
		stacks: trace.NewStacks(&s.meta.Trace.Header), headless: make([]uint64, len(s.meta.Trace.Header.Functions)), endless: make([]uint64, len(s.meta.Trace.Header.Functions)),
	}, nil
}

// Header describes the trace.
func (r *TraceReader) Header() *trace.Header { return r.header }

// latency is how long an event may wait for company before it is read.
const latency = 50 * time.Millisecond

// Copy gives the records to sink as they come, until ctx ends and all that there is has
// been read. idle is called when there is nothing more for the moment; it may be nil.
func (r *TraceReader) Copy(ctx context.Context, sink func(*trace.Record) error, idle func() error) error {
	for {
		over := ctx.Err() != nil
		until := time.Now()
		if !over {
			until = until.Add(latency)
		}
		err := r.reader.Next(&r.event, until)
		if errors.Is(err, probe.ErrNoEvent) {
			if over {
				return nil
			}
			if idle != nil {
				if err := idle(); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := r.pass(sink); err != nil {
			return err
		}
	}
}

// pass gives the event just read to sink, its site first where that is new.
func (r *TraceReader) pass(sink func(*trace.Record) error) error {
	e := r.event.Event
	if r.session.meta.Options.NoLeaks {
		e.Live = nil
	}
	if e.Function >= len(r.header.Functions) && (e.What == trace.Call || e.What == trace.Return || e.What == trace.Whole) {
		return fmt.Errorf("the trace names function %d, and there are %d", e.Function, len(r.header.Functions))
	}
	if e.What == trace.Loaded || e.What == trace.Unloaded {
		e.Function, e.Args = 0, nil
		r.pair(&e)
		return sink(&trace.Record{Event: &e})
	}
	r.pair(&e)
	f := &r.header.Functions[e.Function]
	slots := 0
	for _, p := range f.Params {
		if p.Slot < trace.MaxArgs {
			slots = max(slots, p.Slot+(p.Type.Size+7)/8)
		}
	}
	e.Args = e.Args[:min(slots, len(e.Args))]
	for i := range e.Captured {
		c := &e.Captured[i]
		if c.Capture >= len(f.Captures) {
			return fmt.Errorf("the trace has capture %d of %s, and there are %d", c.Capture, f.Name, len(f.Captures))
		}
		if f.Captures[c.Capture].Type.Class == trace.String && len(c.Data) > 0 {
			c.Cut = len(c.Data) == trace.MaxCapture
			c.Data = c.Data[:len(c.Data)-1] // its NUL
		}
	}
	if r.event.Site != 0 {
		id, err := r.site(r.event.Load, r.event.Site, e.Target, sink)
		if err != nil {
			return err
		}
		e.Site = id
	}
	return sink(&trace.Record{Event: &e})
}

// pair completes returns by what their calls have said, and counts the halves that are
// missing: an interrupt came while the kernel ran the same probe, and it does not run one
// twice.
func (r *TraceReader) pair(e *trace.Event) {
	_, ended := r.stacks.Take(e)
	for _, in := range ended {
		if in.Lost {
			r.endless[in.Begin.Function]++
		}
	}
	if e.What != trace.Return {
		return
	}
	if n := len(ended); n > 0 {
		c := &ended[n-1].Begin
		e.PID, e.TID, e.CPU, e.Target, e.Context, e.Comm = c.PID, c.TID, c.CPU, c.Target, c.Context, c.Comm
	} else {
		r.headless[e.Function]++
	}
}

func (r *TraceReader) site(load uint32, address uint64, target int, sink func(*trace.Record) error) (uint32, error) {
	key := siteKey{load, address}
	if id, ok := r.sites[key]; ok {
		return id, nil
	}
	if _, ok := r.loads[load]; !ok && load != 0 {
		l, err := r.session.set.LoadOf(load)
		if err != nil {
			return 0, err
		}
		if l != nil {
			r.loads[load] = *l
		}
	}
	site := trace.Site{ID: uint32(len(r.sites) + 1), Address: address, Target: target, Section: -1}
	if sizes := r.session.meta.Trace.Sections; target < len(sizes) {
		for i, base := range r.loads[load].Sections {
			if i < len(sizes[target]) && base != 0 && address-1-base < sizes[target][i] {
				site.Section, site.Offset = i, address-base
			}
		}
	}
	r.sites[key] = site.ID
	return site.ID, sink(&trace.Record{Site: &site})
}

// Lost counts what is not in the trace.
func (r *TraceReader) Lost() ([]trace.Lost, error) {
	names := make([]string, len(r.header.Functions))
	for i, f := range r.header.Functions {
		names[i] = f.Name
	}
	lost, err := r.session.set.TraceLost(names)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		// Where the buffer was full, that is why, and counted.
		if slices.ContainsFunc(lost, func(l trace.Lost) bool { return l.Function == name }) {
			continue
		}
		if n := r.headless[i]; n > 0 {
			lost = append(lost, trace.Lost{Function: name, Reason: "calls that were not seen to begin: an interrupt made them while the probe ran", Count: n})
		}
		if n := r.endless[i]; n > 0 {
			lost = append(lost, trace.Lost{Function: name, Reason: "calls that were not seen to return: an interrupt made them while the probe ran", Count: n})
		}
	}
	return lost, nil
}

// Close ends the reading.
func (r *TraceReader) Close() error { return r.reader.Close() }
