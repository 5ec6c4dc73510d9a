package report

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
	"kedr/internal/session"
)

// rule ends every record.
const rule = "----------------------------------------\n"

// writeText writes the ancestor's three files one after the other, in its line
// formats, with source lines below the frames, and a verdict last.
func writeText(out io.Writer, reports []*leak.Report, o Options) error {
	w := bufio.NewWriter(out)
	write := writeTarget
	if o.Classic {
		write = writeClassic
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		write(w, r, o)
	}
	return w.Flush()
}

func writeTarget(w *bufio.Writer, all *leak.Report, o Options) {
	r := wording.Listed(all)
	t := text{w: w, Options: o, target: r.Target}
	t.totals(r)
	if len(r.PossibleLeaks) > 0 {
		t.heading("Possible leaks:")
	}
	for i := range r.PossibleLeaks {
		t.leak(&r.PossibleLeaks[i], len(r.Loads))
	}
	if len(r.UnallocatedFrees) > 0 {
		if len(r.PossibleLeaks) > 0 {
			fmt.Fprintln(w)
		}
		t.heading(wording.WrongTitle(r.UnallocatedFrees) + ":")
	}
	var shown uint64
	for i := range r.UnallocatedFrees {
		u := &r.UnallocatedFrees[i]
		t.wrong(u, len(r.Loads))
		if u.Wrong != session.Mismatched {
			shown += u.Count
		}
	}
	if shown < r.UnallocatedFreesTotal {
		fmt.Fprintf(w, "The information about only %d of the \"unallocated free\" events is shown above.\n", shown)
	}
	if len(r.PossibleLeaks)+len(r.UnallocatedFrees) > 0 {
		fmt.Fprintln(w)
	}
	t.remarks(all)
}

// text writes one target's report.
type text struct {
	w *bufio.Writer
	Options
	target leak.Target
}

func (t text) totals(r *leak.Report) {
	w := t.w
	for _, l := range r.Loads {
		if len(r.Loads) > 1 {
			fmt.Fprintf(w, "Load %d\n", l.ID)
		}
		totals(w, r, l)
		if l.Mismatched > 0 {
			fmt.Fprintf(w, "Mismatched releases: %d\n", l.Mismatched)
		}
		if l.Loaded {
			fmt.Fprintf(w, "The module is still loaded: what is listed below may yet be freed.\n")
		}
		fmt.Fprintln(w)
	}
	if len(r.Loads) == 0 {
		fmt.Fprintf(w, "Target module: %q, not loaded yet\n\n", r.Target.Name)
	}
}

// totals are the ancestor's file "info".
func totals(w *bufio.Writer, r *leak.Report, l leak.Load) {
	fmt.Fprintf(w, "Target module: %q, init area at %x, core area at %x\n", r.Target.Name, uint64(l.Init), uint64(l.Core))
	fmt.Fprintf(w, "Allocations: %d\nPossible leaks: %d\nUnallocated frees: %d\n",
		l.Allocations, l.PossibleLeaks, l.UnallocatedFrees)
}

func (t text) leak(l *leak.Leak, loads int) {
	fmt.Fprintln(t.w)
	t.heading(amount(l))
	t.process(l.Comm, l.PID, l.IRQ, l.Load, loads)
	fmt.Fprintf(t.w, "Address: %#x, size: %s; stack trace of the allocation:\n", uint64(l.Address), size(l.Size))
	t.stack(l.Stack, l.Cut)
	t.excerpt(l.Stack)
	switch {
	case t.All:
		t.objects(l)
	case l.Count > 1:
		fmt.Fprintf(t.w, "+%d more allocation(s) with the same call stack.\n", l.Count-1)
	}
	t.known(l.Known, l.Count)
	t.w.WriteString(rule)
}

// amount says what a call stack has leaked, "40 bytes in 2 objects from kmalloc (slab)".
func amount(l *leak.Leak) string {
	what := fmt.Sprintf("%s of unknown size", wording.Count(l.Count, "object"))
	if l.Bytes > 0 {
		what = fmt.Sprintf("%s in %s", wording.Count(l.Bytes, "byte"), wording.Count(l.Count, "object"))
	}
	if l.Function != "" {
		what += " from " + wording.Printable(l.Function)
	}
	if l.Kind != "" && l.Kind != l.Function {
		what += " (" + wording.Printable(l.Kind) + ")"
	}
	return what
}

func (t text) objects(l *leak.Leak) {
	for _, o := range l.Objects {
		fmt.Fprintf(t.w, "  %#x, size: %s, by %s (PID: %d) at %.6f s\n", uint64(o.Address), size(o.Size), wording.Printable(o.Comm), o.PID, o.Time)
	}
}

func size(bytes uint64) string {
	if bytes == 0 {
		return "unknown"
	}
	return strconv.FormatUint(bytes, 10)
}

func (t text) wrong(u *leak.Wrong, loads int) {
	fmt.Fprintln(t.w)
	t.process(u.Comm, u.PID, u.IRQ, u.Load, loads)
	fmt.Fprintf(t.w, "Address: %#x; stack trace of the deallocation:\n", uint64(u.Address))
	t.stack(u.Stack, u.Cut)
	t.object(u)
	if u.Count > 1 {
		fmt.Fprintf(t.w, "+%d more deallocation(s) with the same call stack.\n", u.Count-1)
	}
	t.known(u.Known, u.Count)
	t.w.WriteString(rule)
}

// object tells what a wrong release was about, where that is known.
func (t text) object(u *leak.Wrong) {
	o := u.Object
	if o == nil {
		return
	}
	size := "of unknown size"
	if o.Size > 0 {
		size = fmt.Sprintf("of %s", wording.Count(o.Size, "byte"))
	}
	switch u.Wrong {
	case session.Double:
		if o.First != nil {
			fmt.Fprintf(t.w, "Double free: %s had released it already; stack trace of that:\n", wording.Who(o.First))
			t.stack(o.First.Stack, o.First.Cut)
		}
		fmt.Fprintf(t.w, "The object, %s, came from %s", size, wording.Printable(o.Function))
	case session.Mismatched:
		fmt.Fprintf(t.w, "Mismatched release: %s is no match for this object, %s, from %s", wording.Printable(u.Function), size, wording.Printable(o.Function))
	}
	fmt.Fprintf(t.w, " (%s); stack trace of the allocation by %s:\n", wording.Printable(o.Kind), wording.Who(&o.Obtained))
	t.stack(o.Obtained.Stack, o.Obtained.Cut)
}

func (t text) process(comm string, pid int32, irq bool, load uint32, loads int) {
	if irq {
		fmt.Fprint(t.w, "<IRQ>")
	} else {
		fmt.Fprintf(t.w, "Process: %s (PID: %d)", wording.Printable(comm), pid)
	}
	if loads > 1 {
		fmt.Fprintf(t.w, ", load %d", load)
	}
	fmt.Fprintln(t.w)
}

func (t text) stack(frames []leak.Frame, cut bool) {
	for _, f := range frames {
		addr := strings.Repeat(" ", 20)
		if f.Address != 0 && !f.Inlined {
			addr = fmt.Sprintf("[<%x>]", uint64(f.Address))
		}
		fmt.Fprintf(t.w, "%s ", t.paint(dim, addr))
		name := location(f)
		if f.Module == t.target.Name {
			name = t.paint(bold, name)
		}
		t.w.WriteString(name)
		if f.Inlined {
			fmt.Fprint(t.w, " (inlined)")
		}
		if f.Inferred {
			fmt.Fprint(t.w, " (inferred: it made a tail call)")
		}
		fmt.Fprintln(t.w)
		if f.File != "" && f.Line > 0 {
			fmt.Fprintf(t.w, "%*s%s\n", indent, "", t.paint(cyan, t.line(f)))
		}
	}
	switch {
	case len(frames) == 0:
		fmt.Fprintf(t.w, "%*s(no call stack is known)\n", indent, "")
	case cut:
		fmt.Fprintf(t.w, "%*s... (the stack was cut here)\n", indent, "")
	}
}

// indent is where functions begin.
const indent = 21

// location is a frame as the kernel's %pS has it: "function+0x1/0x20 [module]".
func location(f leak.Frame) string {
	var s string
	switch {
	case f.Function == "":
		s = fmt.Sprintf("%#x", uint64(f.Address))
	case f.Inlined, f.Size == 0:
		s = wording.Printable(f.Function)
	default:
		s = fmt.Sprintf("%s+%#x/%#x", wording.Printable(f.Function), f.Offset, f.Size)
	}
	if f.Module != "" {
		s += " [" + wording.Printable(f.Module) + "]"
	}
	return s
}

// line is a frame's place in the source. Where the terminal is too narrow the end of the
// path is what is kept: the name of the file, which an editor can be given.
func (t text) line(f leak.Frame) string {
	s := fmt.Sprintf("%s:%d", wording.Printable(wording.Relative(t.Dir, f.File)), f.Line)
	if room := t.Width - indent; t.Width > 0 && room > 0 && utf8.RuneCountInString(s) > room {
		r := []rune(s)
		keep := r[len(r)-room+1:]
		if i := slices.Index(keep, '/'); i >= 0 {
			return "…" + string(keep[i:])
		}
		return filepath.Base(s)
	}
	return s
}

func (t text) remarks(r *leak.Report) {
	for _, n := range r.Notes {
		t.remark("", "note: %s", wording.Printable(n))
	}
	if r.Settle > 0 {
		t.remark("", "note: up to %v were allowed for deferred frees after the unload (--settle)", r.Settle)
	}
	for _, line := range wording.Missing(r) {
		t.remark(yellow, "incomplete: %s", line)
	}
	if r.CutStacks > 0 {
		t.remark("", "note: %d call stack(s) have more frames than are shown", r.CutStacks)
	}
	t.account(r)
	color := red
	switch {
	case r.Incomplete(), len(r.Loads) == 0:
		color = yellow
	case r.Clean():
		color = green
	}
	t.remark(bold+color, "%s", wording.Verdict(r))
}

// remark writes a line; on a terminal it is broken between words.
func (t text) remark(color, format string, args ...any) {
	line := ""
	for word := range strings.SplitSeq(fmt.Sprintf(format, args...), " ") {
		if t.Width > 0 && line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > t.Width {
			fmt.Fprintln(t.w, t.paint(color, line))
			line = " "
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(t.w, t.paint(color, line))
}

func (t text) heading(s string) { fmt.Fprintln(t.w, t.paint(bold, s)) }

// Renditions of ECMA-48, which all terminals that have colours know.
const (
	bold   = "1;"
	dim    = "2;"
	red    = "31;"
	green  = "32;"
	yellow = "33;"
	cyan   = "36;"
)

// paint gives a text that has no rendition of its own one.
func (t text) paint(rendition, s string) string {
	if !t.Color || rendition == "" {
		return s
	}
	return "\x1b[" + strings.TrimSuffix(rendition, ";") + "m" + s + "\x1b[0m"
}
