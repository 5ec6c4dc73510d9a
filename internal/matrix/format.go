package matrix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"kedr/internal/leak"
)

// Format is a way to write a table.
type Format struct {
	Name, About string
	Write       func(io.Writer, *Table) error
}

// Formats lists all formats, the default first.
var Formats = []Format{
	{"text", "for people", writeText},
	{"json", "for programs: one document, with a schema version", writeJSON},
	{"markdown", "for the summaries and comments of CI systems", writeMarkdown},
}

// Find returns a format by name.
func Find(name string) (Format, error) {
	i := slices.IndexFunc(Formats, func(f Format) bool { return f.Name == name })
	if i < 0 {
		return Format{}, fmt.Errorf("no format %q: there is %s", name, strings.Join(Names(), ", "))
	}
	return Formats[i], nil
}

// Names lists the names of all formats.
func Names() []string {
	var names []string
	for _, f := range Formats {
		names = append(names, f.Name)
	}
	return names
}

func writeJSON(w io.Writer, t *Table) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(t)
}

// rows are the cells of the table of kernels, its heading first.
func (t *Table) rows() [][]string {
	out := [][]string{{"Kernel", "Release", "Result", "Allocations", "Leaks", "Bytes", "Wrong", "Status", "Time"}}
	for _, r := range t.Kernels {
		cells := []string{r.Kernel, cmp.Or(line(r.Release), "-"), r.Result.String()}
		for _, n := range []uint64{r.Allocations, r.PossibleLeaks, r.LeakedBytes, r.WrongReleases} {
			if r.Measured {
				cells = append(cells, fmt.Sprint(n))
			} else {
				cells = append(cells, "-")
			}
		}
		out = append(out, append(cells, fmt.Sprint(r.Status), fmt.Sprintf("%.1fs", r.Seconds)))
	}
	return out
}

// findings are the cells of the table of findings, its heading first.
func (t *Table) findings() [][]string {
	head := []string{"Finding", "Where", "Kind", "Fingerprint"}
	for _, r := range t.Kernels {
		head = append(head, r.Kernel)
	}
	out := [][]string{head}
	for _, f := range t.Findings {
		cells := []string{f.What(), f.Where(), line(f.Kind), f.Fingerprint}
		for _, r := range t.Kernels {
			c, ok := f.Kernels[r.Kernel]
			switch {
			case ok:
				cells = append(cells, fmt.Sprint(c.Count))
			case r.Measured:
				cells = append(cells, "-")
			default:
				cells = append(cells, "?")
			}
		}
		out = append(out, cells)
	}
	return out
}

// remarks are what there is to say of single kernels.
func (t *Table) remarks() []string {
	var out []string
	for _, r := range t.Kernels {
		if r.Error != "" {
			text := r.Kernel + ": " + r.Error
			if r.Log != "" {
				text += ": see " + line(r.Log)
			}
			out = append(out, text)
		}
		if what := leak.LeftOut(r.Suppressed, r.Known); what != "" {
			out = append(out, r.Kernel+": "+what)
		}
	}
	return out
}

// legend explains the cells that are no numbers.
const legend = "-: none there that counts; ?: not known, there is no report of that kernel"

func (t *Table) needsLegend() bool {
	return slices.ContainsFunc(t.Findings, func(f Finding) bool { return len(f.Kernels) < len(t.Kernels) })
}

func writeText(w io.Writer, t *Table) error {
	var b strings.Builder
	columns(&b, t.rows(), 3)
	if remarks := t.remarks(); len(remarks) > 0 {
		b.WriteString("\n")
		for _, r := range remarks {
			b.WriteString(r + "\n")
		}
	}
	if len(t.Findings) > 0 {
		b.WriteString("\n")
		columns(&b, t.findings(), 4)
		if t.needsLegend() {
			b.WriteString(legend + "\n")
		}
	}
	b.WriteString("\n" + t.Verdict() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// columns writes cells below each other: the first ones of a row to the left, the others,
// which are numbers, to the right.
func columns(b *strings.Builder, rows [][]string, left int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, c := range row {
			// The names of kernels stay as they are.
			if n == 0 && c[0] >= 'A' {
				c = strings.ToUpper(c)
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i > 0 {
				line.WriteString("  ")
			}
			if i < left {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func writeMarkdown(w io.Writer, t *Table) error {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n", escape(t.Verdict()))
	markdown(&b, t.rows(), 3)
	if remarks := t.remarks(); len(remarks) > 0 {
		b.WriteString("\n")
		for _, r := range remarks {
			fmt.Fprintf(&b, "- %s\n", escape(r))
		}
	}
	if len(t.Findings) > 0 {
		b.WriteString("\n")
		markdown(&b, t.findings(), 4)
		if t.needsLegend() {
			fmt.Fprintf(&b, "\n%s\n", escape(legend))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func markdown(b *strings.Builder, rows [][]string, left int) {
	for n, row := range rows {
		for _, c := range row {
			b.WriteString("| " + escape(c) + " ")
		}
		b.WriteString("|\n")
		if n == 0 {
			for i := range row {
				if i < left {
					b.WriteString("| --- ")
				} else {
					b.WriteString("| ---: ")
				}
			}
			b.WriteString("|\n")
		}
	}
}

// escape keeps a text from being markup: names and errors are others' words.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_[]<>|&#~$", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
