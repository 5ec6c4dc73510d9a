// Package report writes leak.Reports in the formats that users and programs read,
// one file a format, all from the same value; and reads the one that is for that.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/report/page"
	"kedr/internal/source"
)

// Options of the writers.
type Options struct {
	Dir     string // source files below this directory are named relative to it
	Color   bool   // with a terminal's colours
	Width   int    // of the terminal, in columns; 0: it is none, and nothing is cut
	All     bool   // every object, not one of each call stack
	Classic bool   // the first KEDR's text, to the letter
	Version string // of kedr

	Sources *source.Tree // where source is read, to show lines of it; nil: nowhere
}

// Format is a way to write reports.
type Format struct {
	Name  string
	About string
	// Write writes the reports of all targets into one file.
	Write func(w io.Writer, reports []*leak.Report, o Options) error

	// Sites: it shows what was given back, too, and wants leak.Report.Sites.
	Sites bool
	// Binary: not for people's eyes, or not for a terminal's: it has to go to a file or
	// into a pipe.
	Binary bool
}

// Formats lists all formats, the default first.
var Formats = []Format{
	{Name: "text", About: "for people: the ancestor's sections and lines, with source lines", Write: writeText},
	{Name: "json", About: "for programs: docs/report-json.md", Write: writeJSON, Sites: true},
	{Name: "pprof", About: "for go tool pprof: a heap profile, with what was given back", Write: writePprof, Sites: true, Binary: true},
	{Name: "sarif", About: "for code hosts and editors: SARIF 2.1.0, a result a call stack", Write: writeSARIF},
	{Name: "junit", About: "for CI systems: JUnit XML, a test case a check", Write: writeJUnit},
	{Name: "html", About: "for people: one page with a flame graph, a table and the source, for any browser: docs/html.md", Write: writePage, Binary: true},
}

func writePage(w io.Writer, reports []*leak.Report, o Options) error {
	return page.Write(w, reports, page.Options{Dir: o.Dir, Sources: o.Sources})
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
	names := make([]string, len(Formats))
	for i, f := range Formats {
		names[i] = f.Name
	}
	return names
}
