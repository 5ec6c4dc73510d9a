package suppress

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"

	"kedr/internal/leak"
)

// Generate writes blocks that suppress what counts of these reports, and nothing else
// of the same target: where two call stacks differ in the target's functions, the block of
// one does not match the other. Lines and the kernel's own functions are not in them, nor
// those of its headers, so that they hold for the next build and on another kernel.
func Generate(out io.Writer, reports []*leak.Report) error {
	g := generator{w: bufio.NewWriter(out), written: make(map[string]bool)}
	for _, r := range reports {
		for i := range r.PossibleLeaks {
			if l := &r.PossibleLeaks[i]; l.New() > 0 {
				g.block("possible leak of "+l.Kind, l.Cut, &finding{what: "leak", kind: l.Kind, target: r.Target.Name, stack: l.Stack})
			}
		}
		for i := range r.UnallocatedFrees {
			if w := &r.UnallocatedFrees[i]; w.New() > 0 {
				g.block(w.Wrong+" release of "+w.Kind, w.Cut, &finding{what: w.Wrong, kind: w.Kind, target: r.Target.Name, stack: w.Stack})
			}
		}
	}
	return g.w.Flush()
}

type generator struct {
	w       *bufio.Writer
	written map[string]bool // what was suppressed; two lines of one function are one
}

func (g *generator) block(name string, cut bool, f *finding) {
	place, body := describe(f, cut)
	if g.written[body] {
		return
	}
	g.written[body] = true
	if place == "" {
		// A block would match whatever else has no names.
		fmt.Fprintf(g.w, "# no block for a %s in %s: none of its functions is known\n", oneLine(name), oneLine(f.target))
		return
	}
	fmt.Fprintf(g.w, "{\n   %s\n%s}\n", oneLine(name+" in "+place), body)
}

// describe makes the block's lines after its name, and says where it was found. The
// place is empty if no function of the target is known.
func describe(f *finding, cut bool) (place, body string) {
	var b strings.Builder
	for name, what := range findings {
		if what == f.what && what != "" {
			fmt.Fprintf(&b, "   kedr:%s\n", name)
		}
	}
	if b.Len() == 0 {
		return "", "" // a report that was read may have findings of a later kedr
	}
	if f.kind != "" {
		fmt.Fprintf(&b, "   match-kinds: %s\n", quote(f.kind))
	}
	skipped := false
	passing := f.passes()
	if own, ok := leak.Place(f.stack, f.target); ok && own.Header() {
		clear(passing) // nothing else is known of this stack
	}
	for i := range f.stack {
		fr := &f.stack[i]
		if fr.Module != f.target {
			skipped = true
			continue
		}
		if passing[i] {
			continue
		}
		if skipped {
			b.WriteString("   others\n")
			skipped = false
		}
		b.WriteString("  ")
		name := fr.SourceName()
		if name != "" {
			fmt.Fprintf(&b, " fun:%s", quote(name))
		}
		if fr.File != "" {
			fmt.Fprintf(&b, " src:%s", quote(path.Base(fr.File)))
		}
		fmt.Fprintf(&b, " obj:%s\n", quote(fr.Module))
		if place == "" && name != "" {
			place = name
			if fr.File != "" {
				place += ", " + path.Base(fr.File)
				if fr.Line > 0 {
					place += fmt.Sprintf(":%d", fr.Line)
				}
			}
		}
	}
	// Of a stack that was cut nobody knows where it ends.
	if !cut {
		b.WriteString("   others\n   end\n")
	}
	return place, b.String()
}

// oneLine makes of a text what can be the name of a block.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !writable(r) || r == '\t' {
			return '?'
		}
		return r
	}, s)
}
