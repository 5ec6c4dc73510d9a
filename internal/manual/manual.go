// Package manual turns the commands' help into manual pages and into the reference in
// docs/, so that neither can say anything else than the help does.
//
// cobra has generators of its own. They take the help for Markdown, in which a table of
// exit statuses becomes one paragraph and <module> vanishes, and print a flag's
// description unfilled and without the name of its value.
package manual

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A Manual is what all pages of one program share.
type Manual struct {
	Version string    // of the program
	Date    time.Time // printed as the day in UTC
	// Exit are the statuses of a command whose help names none, Files and Environment
	// what the program uses.
	Exit, Files, Environment []Item
}

// An Item is a word and what it means.
type Item struct{ Name, Text string }

// Commands lists a program's commands as they are documented: parents first, without
// those that are hidden and help itself.
func Commands(root *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		list = append(list, Commands(c)...)
	}
	return list
}

// Name is the name of a command's page: kedr-vm-fetch.
func Name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// A block is a run of lines of a help text.
type block struct {
	lines  []string
	indent bool // they are to stay as they are
	start  bool // of a paragraph
}

// blocks takes a text apart. What is indented is a table or an example.
func blocks(text string) []block {
	var list []block
	start := true
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if line == "" {
			start = true
			continue
		}
		indent := line[0] == ' ' || line[0] == '\t'
		if n := len(list); !start && list[n-1].indent == indent {
			list[n-1].lines = append(list[n-1].lines, line)
			continue
		}
		list = append(list, block{[]string{line}, indent, start})
		start = false
	}
	return list
}

// exitHeading begins the paragraph of a help that names the exit statuses.
const exitHeading = "Exit status:"

// description is the help of a command in two parts: what it does, and its exit statuses.
func description(cmd *cobra.Command) (text, exit []block) {
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	in := false
	for _, b := range blocks(long) {
		if b.start {
			in = strings.HasPrefix(b.lines[0], exitHeading)
		}
		if !in {
			text = append(text, b)
			continue
		}
		b.lines[0] = strings.TrimPrefix(b.lines[0], exitHeading)
		if b.lines[0] = strings.TrimPrefix(b.lines[0], " "); b.lines[0] == "" && !b.indent {
			b.lines = b.lines[1:]
		}
		if len(b.lines) > 0 {
			exit = append(exit, b)
		}
	}
	return text, exit
}

// statuses are the lines of a table of exit statuses: a number, and what it means.
func statuses(b block) ([]Item, bool) {
	if !b.indent {
		return nil, false
	}
	var list []Item
	for _, line := range b.lines {
		number, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && strings.Trim(number, "0123456789") == "" {
			list = append(list, Item{number, strings.TrimSpace(text)})
		} else if n := len(list); n > 0 {
			list[n-1].Text += " " + strings.TrimSpace(line)
		} else {
			return nil, false
		}
	}
	return list, len(list) > 0
}

// An option is a flag as it is shown.
type option struct{ name, value, text string }

// options are those of a command, its own and those that all commands have.
func options(cmd *cobra.Command) []option {
	var list []option
	add := func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		switch f.DefValue {
		case "", "false", "0", "0s", "[]":
		default:
			text += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		list = append(list, option{name, value, text})
	}
	cmd.NonInheritedFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return list
}

// synopsis is how a command is called.
func synopsis(cmd *cobra.Command) string {
	// cobra adds these when the command runs, and [flags] when there are any.
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	return cmd.UseLine()
}

// related are the commands that a page refers to.
func related(cmd *cobra.Command) []string {
	var list []string
	if cmd.HasParent() {
		list = append(list, Name(cmd.Parent()))
	}
	for _, c := range Commands(cmd)[1:] {
		if c.Parent() == cmd {
			list = append(list, Name(c))
		}
	}
	return list
}
