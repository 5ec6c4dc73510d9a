package wording

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"kedr/internal/leak"
)

// Printable keeps a name that a process gave itself from driving the terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// Who is a process, or that it was none.
func Who(p *leak.Party) string {
	if p.IRQ {
		return "<IRQ>"
	}
	return fmt.Sprintf("%s (PID: %d)", Printable(p.Comm), p.PID)
}

// Count is a number of what there may be one of.
func Count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Relative names a file below dir as seen from there.
func Relative(dir, name string) string {
	if dir == "" || !filepath.IsAbs(name) {
		return name
	}
	rel, err := filepath.Rel(dir, name)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return name
	}
	return rel
}

// Moved is said of an excerpt that may be of other lines than the module's.
const Moved = "the source is newer than the module: lines may have moved"
