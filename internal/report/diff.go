package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"kedr/internal/compare"
	"kedr/internal/report/wording"
)

// DiffFormat is a way to write a comparison.
type DiffFormat struct {
	Name  string
	Write func(w io.Writer, d *compare.Diff) error
}

// Diffs lists all formats of comparisons, the default first.
var Diffs = []DiffFormat{{"text", writeDiff}, {"json", writeDiffJSON}}

// writeDiff writes a comparison of reports: of what is new the call stacks, of the rest
// a line each, and the figures last.
func writeDiff(out io.Writer, d *compare.Diff) error {
	w := bufio.NewWriter(out)
	for _, n := range d.Notes {
		fmt.Fprintf(w, "note: %s\n", wording.Printable(n))
	}
	for i := range d.Targets {
		t := &d.Targets[i]
		state := ""
		for j := range t.Findings {
			f := &t.Findings[j]
			if f.State != state {
				state = f.State
				fmt.Fprintf(w, "%s in %s:\n", strings.ToUpper(state[:1])+state[1:], wording.Printable(t.Name))
			}
			writeChange(w, t, f)
		}
		for _, u := range t.Uncertain {
			fmt.Fprintf(w, "incomplete: %s\n", wording.Printable(u))
		}
		if t.Suppressed > 0 {
			fmt.Fprintf(w, "note: %s of %s suppressed, and left out\n", wording.Count(t.Suppressed, "finding"), wording.Printable(d.New))
		}
		kernels := wording.Printable(t.NewKernel)
		if t.OldKernel != t.NewKernel && t.OldKernel != "" {
			kernels = fmt.Sprintf("%s (was: %s)", kernels, wording.Printable(t.OldKernel))
		}
		var figures []string
		for _, s := range compare.States {
			if n := t.Count(s); n > 0 || s == compare.New || s == compare.Fixed {
				figures = append(figures, fmt.Sprintf("%d %s", n, s))
			}
		}
		doubt := ""
		if len(t.Uncertain) > 0 {
			doubt = ", but the result is incomplete"
		}
		fmt.Fprintf(w, "%s on %s: %s%s\n", wording.Printable(t.Name), kernels, strings.Join(figures, ", "), doubt)
	}
	return w.Flush()
}

func writeChange(w *bufio.Writer, t *compare.Target, f *compare.Finding) {
	what := "object"
	if f.What != "leak" {
		what = f.What + " release"
	}
	n, bytes := f.NewCount, f.NewBytes
	if f.State == compare.Fixed {
		n, bytes = f.OldCount, f.OldBytes
	}
	fmt.Fprintf(w, "  %s  %s", wording.Printable(f.Fingerprint), wording.Count(n, wording.Printable(what)))
	if f.State == compare.Grown || f.State == compare.Shrunk {
		fmt.Fprintf(w, " (was: %d)", f.OldCount)
	}
	if bytes > 0 {
		fmt.Fprintf(w, " of %s", wording.Count(bytes, "byte"))
	}
	fmt.Fprintf(w, ", %s", wording.Printable(f.Kind))
	long := f.State == compare.New || f.State == compare.Grown
	sep := " in "
	for _, fr := range f.Stack {
		if fr.Module != t.Name || fr.Function == "" {
			continue
		}
		place := wording.Printable(fr.Function)
		if fr.File != "" && long {
			place = fmt.Sprintf("%s at %s:%d", place, wording.Printable(fr.File), fr.Line)
		} else if fr.File != "" {
			place = fmt.Sprintf("%s, %s", place, wording.Printable(path.Base(fr.File)))
		}
		fmt.Fprintf(w, "%s%s", sep, place)
		sep = "\n" + strings.Repeat(" ", 20) + "called by "
		if !long {
			break
		}
	}
	fmt.Fprintln(w)
}

// writeDiffJSON writes a comparison as one document.
func writeDiffJSON(out io.Writer, d *compare.Diff) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}
