package manual

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Generated is the first line of what is made here.
const Generated = "<!-- Made from kedr's help by make docs-reference. -->"

// Markdown writes a command's page of the reference. Its text is the help's.
func (m *Manual) Markdown(w io.Writer, cmd *cobra.Command) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n# %s\n\n%s.\n\n    %s\n", Generated, cmd.CommandPath(), cmd.Short, synopsis(cmd))
	text, exit := description(cmd)
	writeBlocks(&b, text)
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n## Commands\n\n")
		for _, c := range Commands(cmd)[1:] {
			if c.Parent() == cmd {
				fmt.Fprintf(&b, "- [%s](%s.md): %s\n", c.CommandPath(), Name(c), escape(c.Short))
			}
		}
	}
	b.WriteString("\n## Options\n\n| | |\n| --- | --- |\n")
	for _, f := range options(cmd) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.TrimSpace(f.name+" "+f.value), cell(f.text))
	}
	b.WriteString("\n## Exit status\n")
	if len(exit) == 0 {
		writeItems(&b, m.Exit)
	}
	for _, e := range exit {
		if items, ok := statuses(e); ok {
			writeItems(&b, items)
			continue
		}
		writeBlocks(&b, []block{e})
	}
	if cmd.Example != "" {
		b.WriteString("\n## Examples\n")
		writeBlocks(&b, blocks(cmd.Example))
	}
	if !cmd.HasParent() {
		b.WriteString("\n## Environment\n")
		writeItems(&b, m.Environment)
		b.WriteString("\n## Files\n")
		writeItems(&b, m.Files)
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, "\nSee also [%s](%s.md).\n", cmd.Parent().CommandPath(), Name(cmd.Parent()))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func writeItems(b *bytes.Buffer, items []Item) {
	b.WriteString("\n| | |\n| --- | --- |\n")
	for _, i := range items {
		fmt.Fprintf(b, "| `%s` | %s |\n", i.Name, cell(i.Text))
	}
}

func writeBlocks(b *bytes.Buffer, list []block) {
	for _, e := range list {
		b.WriteByte('\n')
		margin := margin(e.lines)
		for _, line := range e.lines {
			if e.indent {
				fmt.Fprintf(b, "    %s\n", line[margin:])
			} else {
				fmt.Fprintln(b, escape(line))
			}
		}
	}
}

// escape keeps Markdown from taking text for more than that.
var escape = strings.NewReplacer(`\`, `\\`, `<`, `\<`, `*`, `\*`, `_`, `\_`, "`", "\\`", `[`, `\[`).Replace

func cell(s string) string { return strings.ReplaceAll(escape(s), "|", `\|`) }
