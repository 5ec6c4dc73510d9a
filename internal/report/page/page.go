// Package page writes a report as one self-contained page for browsers, with a flame graph,
// the source, and a timeline.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"time"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
	"kedr/internal/session"
	"kedr/internal/source"
)

//go:embed report.css report.js report.html
var htmlFiles embed.FS

var (
	htmlStyle    = mustRead("report.css")
	htmlProgram  = mustRead("report.js")
	htmlTemplate = template.Must(template.New("report.html").Funcs(template.FuncMap{
		"plain": wording.Printable, "grouped": grouped, "number": number, "who": wording.Who, "hex": func(a leak.Address) string { return fmt.Sprintf("%#x", uint64(a)) },
		"moved": func() string { return wording.Moved }, "many": func(s []leak.Suppression) string { return grouped(uint64(len(s)), "suppression") },
	}).ParseFS(htmlFiles, "report.html"))
)

func mustRead(name string) string {
	b, err := htmlFiles.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return string(b)
}

// What of a report is in the page; programs read the rest in other formats.
const (
	maxSites    = 1000 // call stacks, the largest first
	maxObjects  = 5    // of each
	maxExcerpts = 500  // of callers' source; that of the leaks themselves is always there
)

// Options of the writer.
type Options struct {
	Dir     string       // source files below this directory are named relative to it
	Sources *source.Tree // where source is read, to show lines of it; nil: nowhere
}

// page is what the template is about.
type page struct {
	Title   string
	Policy  string
	Style   template.CSS
	Program template.JS
	Reports []htmlReport
}

type htmlReport struct {
	*leak.Report
	N        int    // in the page, from 1
	State    string // as the style sheet calls it
	Word     string // that says the state
	Verdict  string
	Wait     string // for deferred frees
	Listed   []htmlSite
	More     htmlMore
	Flames   []flame
	Flame    flameData
	Timeline *timeline
	Wrongs   []htmlWrong
	Hidden   uint64 // unallocated frees of which only the number is known
	// What does not count, in words; "": nothing.
	Suppressed, Known string

	WrongTitle string
}

// htmlMore is what there is besides the sites that are listed.
type htmlMore struct{ Sites, Objects, Bytes uint64 }

type htmlSite struct {
	leak.Leak
	N           int
	Own         *htmlFrame // nil: no frame is the target's
	Way         string     // the functions of the stack
	Trace       htmlStack
	Shown       []leak.Object
	ObjectsLeft uint64
}

// htmlStack is a call stack with what of its source can be read.
type htmlStack struct {
	Frames []htmlFrame
	Cut    bool
}

type htmlFrame struct {
	leak.Frame
	Name   string
	Class  string
	Place  string // file:line
	Source *source.Excerpt
	Open   bool
}

type htmlWrong struct {
	leak.Wrong
	N     int
	What  string
	Trace htmlStack
	// Of the object, where it is known.
	By              *leak.Party
	Obtained, First *htmlStack
}

// Process is who obtained the oldest object.
func (s htmlSite) Process() string {
	return wording.Who(&leak.Party{PID: s.PID, Comm: s.Comm, IRQ: s.IRQ})
}

// Process is who released.
func (w htmlWrong) Process() string {
	return wording.Who(&leak.Party{PID: w.PID, Comm: w.Comm, IRQ: w.IRQ})
}

// Write writes one page that needs nothing but itself.
func Write(w io.Writer, reports []*leak.Report, o Options) error {
	p := page{
		Policy: fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'",
			digest(htmlStyle), digest(htmlProgram)),
		Style: template.CSS(htmlStyle), Program: template.JS(htmlProgram),
	}
	for i, r := range reports {
		if i > 0 {
			p.Title += ", "
		}
		p.Title += wording.Printable(r.Target.Name)
		b := htmlBuilder{r: r, o: o, excerpts: maxExcerpts}
		p.Reports = append(p.Reports, b.report(i+1))
	}
	return htmlTemplate.Execute(w, p)
}

// digest is how a policy names the one style sheet and the one program that may be.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

type htmlBuilder struct {
	r        *leak.Report
	o        Options
	excerpts int // of callers, that may yet be shown
}

func (b *htmlBuilder) report(n int) htmlReport {
	r, short, account := b.r, wording.Listed(b.r), b.r.Account()
	h := htmlReport{
		Report: r, N: n, Verdict: wording.Verdict(r), Timeline: newTimeline(short), WrongTitle: wording.WrongTitle(short.UnallocatedFrees),
		Suppressed: wording.Found(account.Suppressed).String(), Known: wording.Found(account.Known).String(),
	}
	switch {
	case r.Incomplete():
		h.State, h.Word = "incomplete", "Incomplete"
	case len(r.Loads) == 0:
		h.State, h.Word = "incomplete", "Not loaded yet"
	case r.Clean():
		h.State, h.Word = "clean", "Clean"
	default:
		h.State, h.Word = "found", "Found"
	}
	if r.Settle > 0 {
		h.Wait = r.Settle.Round(time.Millisecond).String()
	}
	for i, l := range short.PossibleLeaks {
		if i >= maxSites {
			h.More.Sites++
			h.More.Objects += l.Count
			h.More.Bytes += l.Bytes
			continue
		}
		h.Listed = append(h.Listed, b.site(i+1, l))
	}
	if len(short.PossibleLeaks) > 0 {
		nodes := newFlame(short)
		for _, m := range measures {
			if f := draw(nodes, m); len(f.Frames) > 0 {
				h.Flames = append(h.Flames, f)
			}
		}
		h.Flame = newFlameData(nodes)
	}
	h.Hidden = short.UnallocatedFreesTotal
	for i, u := range short.UnallocatedFrees {
		if u.Wrong != session.Mismatched {
			h.Hidden -= min(u.Count, h.Hidden)
		}
		h.Wrongs = append(h.Wrongs, b.wrong(i+1, u))
	}
	return h
}

func (b *htmlBuilder) site(n int, l leak.Leak) htmlSite {
	s := htmlSite{Leak: l, N: n, Trace: b.stack(l.Stack, l.Cut, true), Shown: l.Objects[:min(len(l.Objects), maxObjects)]}
	s.ObjectsLeft = l.Count - min(uint64(len(s.Shown)), l.Count)
	for i := range s.Trace.Frames {
		f := &s.Trace.Frames[i]
		if f.Open {
			s.Own = f
		}
		if i > 0 {
			s.Way += " ← "
		}
		s.Way += f.Name
	}
	return s
}

func (b *htmlBuilder) wrong(n int, u leak.Wrong) htmlWrong {
	w := htmlWrong{Wrong: u, N: n, Trace: b.stack(u.Stack, u.Cut, true)}
	switch u.Wrong {
	case session.Double:
		w.What = "Double free"
	case session.Mismatched:
		w.What = "Mismatched release"
	default:
		w.What = "Unallocated free"
	}
	if u.Object != nil {
		s := b.stack(u.Object.Obtained.Stack, u.Object.Obtained.Cut, false)
		w.Obtained, w.By = &s, &u.Object.Obtained
		if u.Object.First != nil {
			s := b.stack(u.Object.First.Stack, u.Object.First.Cut, false)
			w.First = &s
		}
	}
	return w
}

// stack names frames and finds their source. That of the frame that a find is shown at is
// open where it is the find's own stack.
func (b *htmlBuilder) stack(frames []leak.Frame, cut, open bool) htmlStack {
	s := htmlStack{Cut: cut, Frames: make([]htmlFrame, len(frames))}
	own := wording.Innermost(frames, b.r.Target.Name)
	for i, f := range frames {
		h := htmlFrame{Frame: f, Name: wording.Printable(f.Function), Class: frameClass(b.r, f)}
		if h.Name == "" {
			h.Name = fmt.Sprintf("%#x", uint64(f.Address))
		}
		if f.File != "" && f.Line > 0 {
			h.Place = fmt.Sprintf("%s:%d", wording.Printable(wording.Relative(b.o.Dir, f.File)), f.Line)
		}
		h.Open = open && &frames[i] == own
		if h.Open || b.excerpts > 0 {
			h.Source = wording.Around(b.o.Sources, b.r.Target, &f)
		}
		if h.Source != nil && !h.Open {
			b.excerpts--
		}
		s.Frames[i] = h
	}
	return s
}

// number groups the digits of a number.
func number(n uint64) string {
	s := []byte(strconv.FormatUint(n, 10))
	for i := len(s) - 3; i > 0; i -= 3 {
		s = slices.Insert(s, i, ',')
	}
	return string(s)
}

// grouped is count with the digits grouped.
func grouped(n uint64, what string) string {
	if n != 1 {
		what += "s"
	}
	return number(n) + " " + what
}
