package format

import (
	"bufio"
	"fmt"
	"sort"
	"strings"

	"kedr/internal/trace"
)

// window is how long a call that has not returned holds back what came after it, ns of
// the trace.
const window = 100e6

// text shows one line a call, in the order in which they began. One in which others
// are made is shown when it begins and when it ends.
type text struct {
	w     *bufio.Writer
	h     *trace.Header
	o     Options
	sites *sites
	stack *trace.Stacks
	queue []item // what has not been shown, in order
	first int    // in queue
	now   uint64
	end   *trace.End
	lost  int // calls whose return was not seen
}

// item is a line to come.
type item struct {
	in    *trace.Invocation
	close bool
	event *trace.Event // a target comes or goes
	time  uint64
}

func newText(w *bufio.Writer, h *trace.Header, o Options) Writer {
	t := &text{w: w, h: h, o: o, sites: newSites(o.Dir), stack: trace.NewStacks(h)}
	fmt.Fprintf(w, "#%13s CPU  %-22s%10s  CALL = RESULT  # CALLED FROM\n", "TIME", "TASK", "DURATION")
	return t
}

func (t *text) Record(r *trace.Record) error {
	switch {
	case r.Site != nil:
		t.sites.add(r.Site)
	case r.End != nil:
		end := *r.End
		t.end = &end
	case r.Event != nil:
		e := r.Event
		t.now = max(t.now, e.Time)
		begun, ended := t.stack.Take(e)
		for _, in := range ended {
			if in.Lost {
				t.lost++
			}
			if in.Returned && in.Shown {
				t.queue = append(t.queue, item{in: in, close: true, time: e.Time})
			}
		}
		if begun != nil {
			t.queue = append(t.queue, item{in: begun, time: e.Time})
		}
		if e.What == trace.Loaded || e.What == trace.Unloaded {
			c := *e
			t.queue = append(t.queue, item{event: &c, time: e.Time})
		}
		return t.advance(false)
	}
	return nil
}

// advance shows what need not wait any longer.
func (t *text) advance(all bool) error {
	for t.first < len(t.queue) {
		it := &t.queue[t.first]
		in := it.in
		switch {
		case it.event != nil:
			t.life(it.event)
		case it.close:
			t.line(in, closing)
		case in.Begin.Jump:
			t.line(in, jump)
		case in.Returned && !in.Inner:
			t.line(in, whole)
		case in.Inner:
			in.Shown = true
			t.line(in, opening)
			if in.Returned {
				t.insertClose(in)
			}
		case in.Lost || all || t.now-it.time > window:
			in.Shown = true
			t.line(in, unfinished)
		default:
			return nil
		}
		t.queue[t.first] = item{}
		t.first++
		if t.first > 4096 && t.first > len(t.queue)/2 {
			t.queue = append(t.queue[:0], t.queue[t.first:]...)
			t.first = 0
		}
	}
	t.queue, t.first = t.queue[:0], 0
	return nil
}

// insertClose puts the end of a call where it belongs among what waits already.
func (t *text) insertClose(in *trace.Invocation) {
	at := in.Begin.Time + in.Duration
	rest := t.queue[t.first+1:]
	i := sort.Search(len(rest), func(i int) bool { return rest[i].time > at })
	i += t.first + 1
	t.queue = append(t.queue, item{})
	copy(t.queue[i+1:], t.queue[i:])
	t.queue[i] = item{in: in, close: true, time: at}
}

type shape int

const (
	whole shape = iota
	opening
	closing
	unfinished
	jump
)

// Escape sequences of terminals (ECMA-48, select graphic rendition).
const (
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	bold  = "\x1b[1m"
	plain = "\x1b[0m"
)

func (t *text) paint(color, s string) string {
	if !t.o.Color || s == "" {
		return s
	}
	return color + s + plain
}

func (t *text) line(in *trace.Invocation, s shape) {
	e := &in.Begin
	f := &t.h.Functions[e.Function]
	at, took := e.Time, ""
	if s == closing {
		at += in.Duration
	}
	if s == whole || s == closing {
		took = duration(in.Duration)
	}
	t.prefix(e, at, took)
	t.w.WriteString(strings.Repeat("  ", in.Depth))
	switch {
	case s == closing && in.Inner:
		t.w.WriteString("}")
	case s == closing:
		t.w.WriteString("... " + trace.Clean(f.Name))
	default:
		text := call(f, e)
		if f.Callback {
			text = t.paint(bold, text)
		}
		t.w.WriteString(text)
	}
	switch s {
	case opening:
		t.w.WriteString(" {")
	case unfinished:
		t.w.WriteString(" ...")
	case jump:
		t.w.WriteString(" (its result is the caller's)")
	case whole, closing:
		if r := f.ResultOf(in.Result, append(in.Captured, whenWhole(e)...)); r != "" && (f.Known || !f.Callback || in.Result != 0) {
			if _, failed := f.Error(in.Result); failed {
				r = t.paint(red, r)
			}
			t.w.WriteString(" = " + r)
		}
		if s == closing && in.Inner {
			t.w.WriteString(t.paint(dim, "  "+trace.Clean(f.Name)))
		}
	}
	if s != closing && e.Site != 0 {
		t.w.WriteString(t.paint(dim, "  # "+t.sites.text[e.Site]))
	}
	t.w.WriteByte('\n')
}

// whenWhole are the captures of a Whole, which has those of its result with it.
func whenWhole(e *trace.Event) []trace.Captured {
	if e.What == trace.Whole {
		return e.Captured
	}
	return nil
}

func (t *text) prefix(e *trace.Event, at uint64, took string) {
	if t.o.Wall {
		fmt.Fprintf(t.w, "%s", wall(t.h, at).Local().Format("15:04:05.000000"))
	} else {
		fmt.Fprintf(t.w, "%14.6f", seconds(t.h, at))
	}
	task := fmt.Sprintf("%s-%d", trace.Clean(e.Comm), e.TID)
	// µ has two bytes: columns are counted in runes.
	fmt.Fprintf(t.w, " %3d%s %-22s%s%s  ", e.CPU, contextMark(e.Context), task, strings.Repeat(" ", max(0, 10-len([]rune(took)))), took)
}

func (t *text) life(e *trace.Event) {
	t.prefix(e, e.Time, "")
	what := "loaded"
	if e.What == trace.Unloaded {
		what = "unloaded"
	}
	fmt.Fprintf(t.w, "%s\n", t.paint(bold, "-- "+t.target(e.Target)+" "+what+" --"))
}

func (t *text) target(i int) string {
	if i >= 0 && i < len(t.h.Targets) {
		return trace.Clean(t.h.Targets[i])
	}
	return "?"
}

func (t *text) Flush() error {
	// What holds the rest back has been waited for long enough by now.
	if err := t.advance(true); err != nil {
		return err
	}
	return t.w.Flush()
}

func (t *text) Close() error {
	if err := t.advance(true); err != nil {
		return err
	}
	if t.lost > 0 && t.end != nil {
		fmt.Fprintf(t.w, "# of %s the return was not seen\n", plural(t.lost, "call", "calls"))
	}
	if open := t.stack.Open(); open > 0 && t.end != nil {
		fmt.Fprintf(t.w, "# %s not returned by the end of the trace\n", plural(open, "call has", "calls have"))
	}
	writeEnd(t.w, t.h, t.end)
	return t.w.Flush()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// writeEnd says what is not in the trace.
func writeEnd(w *bufio.Writer, h *trace.Header, end *trace.End) {
	reasons := make(map[string][]string)
	var order []string
	for _, u := range h.Untraced {
		if reasons[u.Reason] == nil {
			order = append(order, u.Reason)
		}
		reasons[u.Reason] = append(reasons[u.Reason], trace.Clean(u.Function))
	}
	for _, r := range order {
		fmt.Fprintf(w, "# not traced: %s: %s\n", list(reasons[r]), trace.Clean(r))
	}
	if len(h.Off) > 0 {
		fmt.Fprintf(w, "# hot imports, off without --all: %s\n", list(h.Off))
	}
	if end == nil {
		fmt.Fprintln(w, "# the trace is cut off: who wrote it did not end it")
		return
	}
	for _, l := range end.Lost {
		name := ""
		if l.Function != "" {
			name = trace.Clean(l.Function) + ": "
		}
		fmt.Fprintf(w, "# LOST: %s%s: %s\n", name, plural(int(l.Count), "event", "events"), trace.Clean(l.Reason))
	}
}

// list names the first of many.
func list(names []string) string {
	const most = 12
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
