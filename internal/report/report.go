// Package report writes a leak.Report in the formats that users and programs
// read: one file a format, all from the same value.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"kedr/internal/leak"
)

// Options of the writers.
type Options struct {
	Dir string // source files below this directory are named relative to it
}

// Format is a way to write a report.
type Format struct {
	Name  string
	About string
	Write func(w io.Writer, r *leak.Report, o Options) error
}

// Formats lists all formats, the default first.
var Formats = []Format{
	{"text", "for people: the ancestor's sections and lines, with source lines", writeText},
	{"json", "for programs: one document, with a schema version", writeJSON},
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
