package manual

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Section is the section of the manual that commands are in.
const Section = 1

// Man writes a command's manual page, in the man macros of roff (man(7), groff_man(7)).
func (m *Manual) Man(w io.Writer, cmd *cobra.Command) error {
	var r roff
	// The date's hyphens are those of its format, and not escaped.
	fmt.Fprintf(&r, ".TH %s %d %s \"kedr %s\" kedr\n", strings.ToUpper(escaper.Replace(Name(cmd))), Section, m.Date.UTC().Format(time.DateOnly), escaper.Replace(m.Version))
	r.macro("SH", "NAME")
	r.text(Name(cmd) + " \x00 " + cmd.Short)
	r.macro("SH", "SYNOPSIS")
	r.macro("B", synopsis(cmd))
	r.macro("SH", "DESCRIPTION")
	text, exit := description(cmd)
	r.blocks(text)
	if cmd.HasAvailableSubCommands() {
		r.macro("SH", "COMMANDS")
		for _, c := range Commands(cmd)[1:] {
			if c.Parent() == cmd {
				r.item(c.CommandPath(), "", c.Short)
			}
		}
	}
	r.macro("SH", "OPTIONS")
	for _, f := range options(cmd) {
		r.item(f.name, f.value, f.text)
	}
	r.macro("SH", "EXIT STATUS")
	if len(exit) == 0 {
		for _, i := range m.Exit {
			r.item(i.Name, "", i.Text)
		}
	}
	for _, b := range exit {
		if items, ok := statuses(b); ok {
			for _, i := range items {
				r.item(i.Name, "", i.Text)
			}
			continue
		}
		r.blocks([]block{b})
	}
	if cmd.Example != "" {
		r.macro("SH", "EXAMPLES")
		r.blocks(blocks(cmd.Example))
	}
	if !cmd.HasParent() {
		r.macro("SH", "ENVIRONMENT")
		for _, i := range m.Environment {
			r.item(i.Name, "", i.Text)
		}
		r.macro("SH", "FILES")
		for _, i := range m.Files {
			r.item(i.Name, "", i.Text)
		}
	}
	if names := related(cmd); len(names) > 0 {
		r.macro("SH", "SEE ALSO")
		for i, n := range names {
			r.macro("BR", n, fmt.Sprintf("(%d)%s", Section, strings.Repeat(",", min(1, len(names)-1-i))))
		}
	}
	_, err := w.Write(r.Bytes())
	return err
}

// roff is the source of a manual page.
type roff struct{ bytes.Buffer }

// Minus signs, quotes and accents are to stay what they are in a terminal: they are
// typed. NUL stands for the dash between name and description.
var escaper = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, `"`, `\(dq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, "\x00", `\-`)

// macro writes a request with its arguments.
func (r *roff) macro(name string, args ...string) {
	fmt.Fprintf(r, ".%s", name)
	for _, a := range args {
		a = escaper.Replace(a)
		if a == "" || strings.ContainsRune(a, ' ') {
			a = `"` + a + `"`
		}
		fmt.Fprintf(r, " %s", a)
	}
	r.WriteByte('\n')
}

// text writes a line of text, which is no request whatever it begins with.
func (r *roff) text(line string) {
	line = escaper.Replace(strings.TrimSpace(line))
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	fmt.Fprintln(r, line)
}

// item writes a word, the name of its value, and what it means.
func (r *roff) item(name, value, text string) {
	r.macro("TP")
	if value == "" {
		r.macro("B", name)
	} else {
		r.macro("BI", name+" ", value)
	}
	r.text(text)
}

// blocks writes paragraphs; what is indented stays as it is.
func (r *roff) blocks(list []block) {
	for i, b := range list {
		if !b.indent {
			if i > 0 {
				r.macro("PP")
			}
			for _, line := range b.lines {
				r.text(line)
			}
			continue
		}
		if b.start && i > 0 {
			r.macro("PP")
		}
		r.WriteString(".RS 2\n.nf\n")
		margin := margin(b.lines)
		for _, line := range b.lines {
			line = line[margin:]
			indent := len(line) - len(strings.TrimLeft(line, " "))
			// The space that the escaped text would lose.
			fmt.Fprintf(r, "%s%s\n", strings.Repeat(`\ `, indent), protect(escaper.Replace(line[indent:])))
		}
		r.WriteString(".fi\n.RE\n")
	}
}

func protect(line string) string {
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}

// margin is what all lines are indented by.
func margin(lines []string) int {
	m := len(lines[0])
	for _, l := range lines {
		m = min(m, len(l)-len(strings.TrimLeft(l, " ")))
	}
	return m
}
