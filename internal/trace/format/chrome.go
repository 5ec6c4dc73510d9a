package format

import (
	"bufio"
	"encoding/json"

	"kedr/internal/trace"
)

// chrome writes the Trace Event Format, as an array: chrome://tracing and
// ui.perfetto.dev show calls as slices on their threads, and live bytes as a counter.
// An array that is not closed is read all the same, so that a trace that was cut off is of use.
type chrome struct {
	w       *bufio.Writer
	h       *trace.Header
	sites   *sites
	stack   *trace.Stacks
	threads map[uint64]bool
	live    map[int]int64
	comma   bool
	err     error
}

func newChrome(w *bufio.Writer, h *trace.Header, o Options) Writer {
	w.WriteString("[")
	return &chrome{w: w, h: h, sites: newSites(o.Dir), stack: trace.NewStacks(h), threads: make(map[uint64]bool), live: make(map[int]int64)}
}

type chromeEvent struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	Time  float64        `json:"ts"` // µs
	Took  *float64       `json:"dur,omitempty"`
	PID   uint32         `json:"pid"`
	TID   uint64         `json:"tid"`
	Scope string         `json:"s,omitempty"`
	Args  map[string]any `json:"args,omitempty"`
	Color string         `json:"cname,omitempty"`
}

func (c *chrome) write(e *chromeEvent) {
	b, err := json.Marshal(e)
	if err != nil && c.err == nil {
		c.err = err
	}
	if c.comma {
		c.w.WriteByte(',')
	}
	c.comma = true
	c.w.WriteByte('\n')
	if _, err := c.w.Write(b); err != nil && c.err == nil {
		c.err = err
	}
}

func (c *chrome) micros(clock uint64) float64 { return float64(int64(clock-c.h.Boot)) / 1e3 }

// lane is the row of a call: its thread, or what interrupts a CPU.
func (c *chrome) lane(e *trace.Event) (uint32, uint64) {
	pid, tid, name := e.PID, uint64(e.TID), e.Comm
	if e.Context != trace.InTask {
		pid, tid, name = 0, 1<<32|uint64(e.Context)<<16|uint64(e.CPU), contextNames[int(e.Context)%len(contextNames)]
	} else if e.TID == 0 {
		tid, name = 1<<32|uint64(e.CPU), "idle"
	}
	if !c.threads[tid] {
		c.threads[tid] = true
		c.write(&chromeEvent{Name: "thread_name", Phase: "M", PID: pid, TID: tid, Args: map[string]any{"name": trace.Clean(name)}})
		if e.Context == trace.InTask && e.PID == e.TID {
			c.write(&chromeEvent{Name: "process_name", Phase: "M", PID: pid, TID: tid, Args: map[string]any{"name": trace.Clean(name)}})
		}
	}
	return pid, tid
}

func (c *chrome) Record(r *trace.Record) error {
	switch {
	case r.Site != nil:
		c.sites.add(r.Site)
	case r.Event != nil:
		e := r.Event
		_, ended := c.stack.Take(e)
		for _, in := range ended {
			c.slice(in)
		}
		switch e.What {
		case trace.Call, trace.Whole:
			if e.Live != nil && c.live[e.Target] != *e.Live {
				c.live[e.Target] = *e.Live
				c.write(&chromeEvent{Name: "live bytes of " + targetName(c.h, e.Target), Phase: "C", Time: c.micros(e.Time), Args: map[string]any{"bytes": *e.Live}})
			}
		case trace.Loaded, trace.Unloaded:
			what := " loaded"
			if e.What == trace.Unloaded {
				what = " unloaded"
			}
			c.write(&chromeEvent{Name: targetName(c.h, e.Target) + what, Phase: "i", Scope: "g", Time: c.micros(e.Time), PID: e.PID, TID: uint64(e.TID)})
		}
	}
	return c.err
}

func (c *chrome) slice(in *trace.Invocation) {
	e := &in.Begin
	f := &c.h.Functions[e.Function]
	pid, tid := c.lane(e)
	ev := &chromeEvent{Name: trace.Clean(f.Name), Phase: "X", Time: c.micros(e.Time), PID: pid, TID: tid, Args: make(map[string]any)}
	if f.Known {
		for _, a := range f.Args(e) {
			ev.Args[a.Name] = a.Value
		}
	}
	took := float64(in.Duration) / 1e3
	ev.Took = &took
	if in.Returned {
		if r := f.ResultOf(in.Result, append(in.Captured, whenWhole(e)...)); r != "" {
			ev.Args["(result)"] = r
		}
		if _, failed := f.Error(in.Result); failed {
			ev.Color = "terrible"
		}
	} else if in.Lost {
		ev.Args["(lost)"] = "its return was not seen"
		ev.Phase, ev.Took, ev.Scope = "i", nil, "t"
	} else if !e.Jump {
		ev.Phase, ev.Took = "B", nil // open to the end
	}
	if e.Site != 0 {
		ev.Args["(called from)"] = c.sites.text[e.Site]
	}
	ev.Args["(cpu)"] = e.CPU
	c.write(ev)
}

func (c *chrome) Flush() error { return c.w.Flush() }

func (c *chrome) Close() error {
	for _, in := range c.stack.Sorted() {
		c.slice(in)
	}
	c.w.WriteString("\n]\n")
	if err := c.w.Flush(); c.err == nil {
		c.err = err
	}
	return c.err
}
