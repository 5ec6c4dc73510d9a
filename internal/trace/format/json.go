package format

import (
	"bufio"
	"encoding/json"
	"time"

	"kedr/internal/trace"
)

// jsonLines writes an object a call, as it returns: docs/trace-format.md.
type jsonLines struct {
	enc   *json.Encoder
	w     *bufio.Writer
	h     *trace.Header
	sites *sites
	stack *trace.Stacks
	end   *trace.End
}

func newJSON(w *bufio.Writer, h *trace.Header, o Options) Writer {
	return &jsonLines{enc: json.NewEncoder(w), w: w, h: h, sites: newSites(o.Dir), stack: trace.NewStacks(h)}
}

type jsonCall struct {
	Type     string           `json:"type"` // call, loaded, unloaded, end
	Call     uint64           `json:"call,omitempty"`
	Parent   uint64           `json:"parent,omitempty"`
	Depth    int              `json:"depth"`
	Time     time.Time        `json:"time"`
	Clock    uint64           `json:"clock"`
	Duration *uint64          `json:"duration,omitempty"`
	CPU      uint32           `json:"cpu"`
	PID      uint32           `json:"pid"`
	TID      uint32           `json:"tid"`
	Comm     string           `json:"comm"`
	Context  string           `json:"context"`
	Target   string           `json:"target,omitempty"`
	Function string           `json:"function,omitempty"`
	Callback bool             `json:"callback,omitempty"`
	Jump     bool             `json:"jump,omitempty"`
	Args     []jsonValue      `json:"args,omitempty"`
	Result   *jsonValue       `json:"result,omitempty"`
	Failed   bool             `json:"failed,omitempty"`
	Error    string           `json:"error,omitempty"`
	Site     *jsonSite        `json:"site,omitempty"`
	Live     *int64           `json:"live,omitempty"`
	Lost     []trace.Lost     `json:"lost,omitempty"`
	Untraced []trace.Untraced `json:"untraced,omitempty"`
	Off      []string         `json:"off,omitempty"`
}

type jsonValue struct {
	Name  string  `json:"name,omitempty"`
	Value string  `json:"value"`
	Raw   *uint64 `json:"raw,omitempty"`
}

type jsonSite struct {
	Address uint64       `json:"address"`
	Frames  []trace.Line `json:"frames,omitempty"`
}

var contextNames = [...]string{"task", "softirq", "hardirq", "nmi"}

func (j *jsonLines) Record(r *trace.Record) error {
	switch {
	case r.Site != nil:
		j.sites.add(r.Site)
	case r.End != nil:
		end := *r.End
		j.end = &end
	case r.Event != nil:
		e := r.Event
		_, ended := j.stack.Take(e)
		for _, in := range ended {
			if err := j.call(in); err != nil {
				return err
			}
		}
		if e.What == trace.Loaded || e.What == trace.Unloaded {
			c := j.event("loaded", e)
			if e.What == trace.Unloaded {
				c.Type = "unloaded"
			}
			c.Target = targetName(j.h, e.Target)
			return j.enc.Encode(c)
		}
	}
	return nil
}

func targetName(h *trace.Header, i int) string {
	if i >= 0 && i < len(h.Targets) {
		return h.Targets[i]
	}
	return ""
}

func (j *jsonLines) event(typ string, e *trace.Event) *jsonCall {
	return &jsonCall{
		Type: typ, Time: wall(j.h, e.Time), Clock: e.Time, CPU: e.CPU, PID: e.PID, TID: e.TID, Comm: e.Comm,
		Context: contextNames[int(e.Context)%len(contextNames)], Target: targetName(j.h, e.Target), Live: e.Live,
	}
}

func (j *jsonLines) call(in *trace.Invocation) error {
	e := &in.Begin
	f := &j.h.Functions[e.Function]
	c := j.event("call", e)
	c.Call, c.Parent, c.Depth, c.Function, c.Callback, c.Jump = in.Number, in.Parent, in.Depth, f.Name, f.Callback, e.Jump
	if f.Known {
		for _, a := range f.Args(e) {
			v := jsonValue{Name: a.Name, Value: a.Value}
			if a.Known {
				raw := a.Raw
				v.Raw = &raw
			}
			c.Args = append(c.Args, v)
		}
	}
	if in.Returned {
		c.Duration = &in.Duration
		raw := in.Result
		if r := f.ResultOf(raw, append(in.Captured, whenWhole(e)...)); r != "" {
			c.Result = &jsonValue{Value: r, Raw: &raw}
		}
		c.Error, c.Failed = f.Error(raw)
	}
	if s := j.sites.site[e.Site]; s != nil {
		c.Site = &jsonSite{Address: s.Address, Frames: s.Frames}
	}
	return j.enc.Encode(c)
}

func (j *jsonLines) Flush() error { return j.w.Flush() }

func (j *jsonLines) Close() error {
	for _, in := range j.stack.Sorted() {
		if err := j.call(in); err != nil {
			return err
		}
	}
	if j.end != nil {
		c := &jsonCall{Type: "end", Time: wall(j.h, j.end.Time), Clock: j.end.Time, Lost: j.end.Lost, Untraced: j.h.Untraced, Off: j.h.Off}
		if err := j.enc.Encode(c); err != nil {
			return err
		}
	}
	return j.w.Flush()
}
