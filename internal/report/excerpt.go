package report

import (
	"fmt"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
)

// excerpt writes, below a stack, the source around the frame that it is shown at.
func (t text) excerpt(stack []leak.Frame) {
	f := wording.Innermost(stack, t.target.Name)
	e := wording.Around(t.Sources, t.target, f)
	if e == nil {
		return
	}
	fmt.Fprintf(t.w, "%*s%s, line %d:\n", indent, "", wording.Printable(f.Function), f.Line)
	for _, l := range e.Lines {
		mark, look := " ", ""
		if l.Here {
			mark, look = ">", bold
		}
		s := fmt.Sprintf("%s%6d  %s", mark, l.Number, l.Text)
		if r := []rune(s); t.Width > indent && len(r) > t.Width-indent {
			s = string(r[:t.Width-indent-1]) + "…"
		}
		fmt.Fprintf(t.w, "%*s%s\n", indent, "", t.paint(look, strings.TrimRight(s, " ")))
	}
	if e.Newer {
		fmt.Fprintf(t.w, "%*s(%s)\n", indent, "", wording.Moved)
	}
}
