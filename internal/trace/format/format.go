// Package format shows traces: as text, as JSON lines, as a timeline for Chrome's and
// Perfetto's viewers, as a summary. One file a format.
package format

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"kedr/internal/trace"
)

// Options say how to show.
type Options struct {
	Color bool
	Dir   string // files below it are named relative to it
	Wall  bool   // times of the day instead of seconds since the beginning
}

// Writer takes the records of one trace.
type Writer interface {
	Record(r *trace.Record) error
	// Flush shows what is there, even of calls that have not returned.
	Flush() error
	// Close ends what is shown; the trace may have been cut off.
	Close() error
}

// Format is a way to show a trace.
type Format struct {
	Name string
	Doc  string
	new  func(w *bufio.Writer, h *trace.Header, o Options) Writer
}

// Formats lists them, the usual one first.
var Formats = []Format{
	{"text", "one line a call, in the order in which they began", newText},
	{"json", "JSON lines: an object a call, as it returns", newJSON},
	{"chrome", "a timeline for chrome://tracing and ui.perfetto.dev", newChrome},
	{"summary", "calls, errors and times by function and by call site", newSummary},
}

// Names lists the formats' names.
func Names() []string {
	var names []string
	for _, f := range Formats {
		names = append(names, f.Name)
	}
	return names
}

// Find finds a format by its name.
func Find(name string) (*Format, error) {
	for i := range Formats {
		if Formats[i].Name == name {
			return &Formats[i], nil
		}
	}
	return nil, fmt.Errorf("there is no format %q: it must be one of %s", name, strings.Join(Names(), ", "))
}

// New returns what writes a trace to w in this format.
func (f *Format) New(w io.Writer, h *trace.Header, o Options) Writer {
	return f.new(bufio.NewWriterSize(w, 64<<10), h, o)
}

// sites remembers where calls come from.
type sites struct {
	dir  string
	text map[uint32]string
	site map[uint32]*trace.Site
}

func newSites(dir string) *sites {
	return &sites{dir: dir, text: make(map[uint32]string), site: make(map[uint32]*trace.Site)}
}

func (s *sites) add(site *trace.Site) {
	c := *site
	s.site[site.ID] = &c
	s.text[site.ID] = s.name(&c)
}

// name shows a site as func+off (file:line). A function of the same file that was inlined
// there is named, too; one of a header (kmalloc) tells nobody anything.
func (s *sites) name(site *trace.Site) string {
	if len(site.Frames) == 0 {
		return fmt.Sprintf("%#x", site.Address)
	}
	outer := &site.Frames[len(site.Frames)-1]
	inner := outer
	for i := len(site.Frames) - 1; i >= 0; i-- {
		if site.Frames[i].File == outer.File {
			inner = &site.Frames[i]
		}
	}
	var b strings.Builder
	name := outer.Function
	if name == "" {
		name = fmt.Sprintf("%#x", site.Address)
	} else {
		name = fmt.Sprintf("%s+%#x", trace.Clean(name), outer.Offset)
	}
	if inner != outer && inner.Function != "" {
		b.WriteString(trace.Clean(inner.Function) + " in ")
	}
	b.WriteString(name)
	if inner.File != "" {
		fmt.Fprintf(&b, " (%s:%d)", s.file(inner.File), inner.Line)
	}
	return b.String()
}

func (s *sites) file(name string) string {
	if s.dir != "" {
		if rel, err := filepath.Rel(s.dir, name); err == nil && !strings.HasPrefix(rel, "..") {
			name = rel
		} else {
			name = filepath.Base(name)
		}
	}
	return trace.Clean(name)
}

// contexts are the marks of the kernel's own tracer.
var contexts = [...]string{" ", "s", "h", "n"}

func contextMark(c uint8) string { return contexts[int(c)%len(contexts)] }

// duration shows nanoseconds in nine columns at most.
func duration(ns uint64) string {
	switch {
	case ns < 1000:
		return fmt.Sprintf("%d ns", ns)
	case ns < 1000*1000:
		return fmt.Sprintf("%.1f µs", float64(ns)/1e3)
	case ns < 1000*1000*1000:
		return fmt.Sprintf("%.1f ms", float64(ns)/1e6)
	}
	return fmt.Sprintf("%.2f s", float64(ns)/1e9)
}

// call shows a function with its arguments.
func call(f *trace.Function, e *trace.Event) string {
	var b strings.Builder
	b.WriteString(trace.Clean(f.Name))
	b.WriteByte('(')
	if !f.Known {
		if !f.Callback {
			b.WriteString("...")
		}
		b.WriteByte(')')
		return b.String()
	}
	for i, a := range f.Args(e) {
		if i > 0 {
			b.WriteString(", ")
		}
		if a.Name != "" {
			b.WriteString(a.Name)
			b.WriteByte('=')
		}
		b.WriteString(a.Value)
	}
	if f.Variadic {
		b.WriteString(", ...")
	}
	b.WriteByte(')')
	return b.String()
}

// wall is the time of day of the kernel's clock.
func wall(h *trace.Header, clock uint64) time.Time {
	return h.Started.Add(time.Duration(int64(clock - h.Boot)))
}

// seconds are those since the beginning.
func seconds(h *trace.Header, clock uint64) float64 {
	return float64(int64(clock-h.Boot)) / 1e9
}
