// Package pages reads the command lines of the documents, and what they are said to
// print, so that tests can run them.
//
// A command line stands in an indented or fenced block. After "$ " it is one of a user on
// any host, after "# " one of root on a host that can load modules; a block's first prompt
// is that of all its command lines. A block without prompts has them where a line begins
// with a program that documents call. What follows up to the next command line is what it
// prints; "..." stands for whatever is left out.
// A comment before the block makes an exception, and says why:
//
//	<!-- not run: it downloads a kernel -->
//	<!-- output not compared: interrupts come when they come -->
//	<!-- exit status 4: the report is incomplete -->
package pages

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A Command is one command line of a document.
type Command struct {
	Line   int    // in the document, from 1
	Text   string // without prompt; several lines where they end in a backslash
	Root   bool   // it takes a host that can load modules, and root's rights
	Output []string
	// Why it is not run, or its output not compared; "": it is.
	NotRun, NotCompared string
	Status              int // that it may end with, besides 0, and 1 for what was found
}

var (
	exception = regexp.MustCompile(`^<!-- (not run|output not compared|exit status [0-9]+): (.+) -->$`)
	fence     = regexp.MustCompile("^```+([a-z]*)$")
	// A comment begins with a capital letter or is indented, a command is not.
	prompted = regexp.MustCompile(`^(\$ |# [a-z./])`)
	// called are the programs that a line without prompt may begin with.
	called = regexp.MustCompile(`^(?:[A-Z_0-9]+=\S+ )*(?:bin/|\./bin/)?(?:kedr|make|go|git|sudo|apt|apt-get|insmod|rmmod|modprobe|cat|man|source|sh)(?: |$)|^[A-Z_0-9]+=\S+ (?:.* )?\\$`)
)

// Read reads a document.
func Read(name string) ([]Command, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	list, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// A block of a document that is shown as it is.
type block struct {
	line   int // the first one's number
	lines  []string
	script bool // of a shell, in which # begins a comment
	except map[string]string
}

// Parse takes the command lines out of a document's text.
func Parse(text string) ([]Command, error) {
	blocks, err := split(text)
	if err != nil {
		return nil, err
	}
	var list []Command
	for _, b := range blocks {
		commands := b.commands()
		for i := range commands {
			commands[i].NotRun = b.except["not run"]
			commands[i].NotCompared = b.except["output not compared"]
			for e := range b.except {
				fmt.Sscanf(e, "exit status %d", &commands[i].Status)
			}
		}
		if len(commands) == 0 && len(b.except) > 0 {
			return nil, fmt.Errorf("line %d: the comment is about commands, and here are none", b.line)
		}
		list = append(list, commands...)
	}
	return list, nil
}

func split(text string) ([]block, error) {
	var list []block
	var current *block
	except := make(map[string]string)
	exceptLine := 0
	fenced, blank := "", true
	begin := func(line int) {
		list = append(list, block{line: line, except: except})
		current = &list[len(list)-1]
		except = make(map[string]string)
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, " \n")
		switch {
		case fenced != "" && line == fenced:
			fenced, current, blank = "", nil, false
		case fenced != "":
			if current != nil {
				current.lines = append(current.lines, line)
			}
		case strings.HasPrefix(line, "```"):
			m := fence.FindStringSubmatch(line)
			if m == nil {
				return nil, fmt.Errorf("line %d: no such fence: %s", number, line)
			}
			fenced, current = strings.TrimSuffix(line, m[1]), nil
			switch m[1] {
			case "", "console", "sh", "shell", "bash":
				begin(number + 1)
				current.script = m[1] != "" && m[1] != "console"
			}
		case line == "":
			if current != nil {
				current.lines = append(current.lines, "")
			}
			blank = true
		case strings.HasPrefix(line, "    ") && (current != nil || blank):
			if current == nil {
				begin(number)
			}
			current.lines = append(current.lines, line[4:])
			blank = false
		default:
			current, blank = nil, false
			if m := exception.FindStringSubmatch(line); m != nil {
				except[m[1]], exceptLine = m[2], number
				blank = true
			} else if len(except) > 0 {
				return nil, fmt.Errorf("line %d: no block of commands follows the comment", exceptLine)
			}
		}
	}
	if fenced != "" {
		return nil, fmt.Errorf("the last fence is not closed")
	}
	if len(except) > 0 {
		return nil, fmt.Errorf("line %d: no block of commands follows the comment", exceptLine)
	}
	return list, nil
}

func (b *block) commands() []Command {
	prompt := ""
	for _, l := range b.lines {
		if m := prompted.FindString(l); m != "" && !(m[0] == '#' && b.script) {
			prompt = m[:2]
			break
		}
	}
	var list []Command
	more := false
	for i, line := range b.lines {
		if more {
			c := &list[len(list)-1]
			c.Text += "\n" + line
			more = strings.HasSuffix(line, `\`)
			continue
		}
		text, ok := strings.CutPrefix(line, prompt)
		if prompt == "" {
			ok = called.MatchString(line)
		}
		switch {
		case ok:
			list = append(list, Command{Line: b.line + i, Text: text, Root: prompt == "# "})
			more = strings.HasSuffix(line, `\`)
		case prompt != "" && len(list) > 0:
			c := &list[len(list)-1]
			c.Output = append(c.Output, line)
		}
	}
	for i := range list {
		list[i].Output = trim(list[i].Output)
	}
	return list
}

// trim takes empty lines away at both ends.
func trim(lines []string) []string {
	for len(lines) > 0 && strings.TrimSpace(lines[0]) == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// varying is what is not the same in any two runs.
var varying = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b`), "DATE"},
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\S*-amd64\b`), "RELEASE"},
	{regexp.MustCompile(`\+0x[0-9a-f]+(/0x[0-9a-f]+)?`), "+OFFSET"},
	{regexp.MustCompile(`\b(0x)?[0-9a-f]{8,}\b`), "ADDRESS"},
	{regexp.MustCompile(`PID: \d+`), "PID: N"},
	{regexp.MustCompile(`\b\d+ probes\b`), "N probes"},
	// A trace's time and CPU, task, and duration.
	{regexp.MustCompile(`^ +\d+\.\d{6} +\d+([shn]?) `), "TIME CPU$1 "},
	{regexp.MustCompile(`([\w/:])-\d+\b`), "$1-PID"},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?(ns|µs|ms|s)\b`), "DURATION"},
	{regexp.MustCompile(`\s+`), " "},
}

func normal(line string) string {
	for _, v := range varying {
		line = v.pattern.ReplaceAllString(line, v.by)
	}
	return strings.TrimSpace(line)
}

const gap = "..."

// Compare holds what a command has printed against what a document shows of it.
func (c *Command) Compare(got string) error {
	if len(c.Output) == 0 || c.NotCompared != "" {
		return nil
	}
	shown, printed := c.Output, trim(strings.Split(got, "\n"))
	// What matches a line, and the furthest that was reached.
	reached := 0
	// after is the set of numbers of lines printed that the lines shown so far may
	// have used up.
	after := map[int]bool{0: true}
	for i, s := range shown {
		next := make(map[int]bool)
		for n := range after {
			if strings.TrimSpace(s) == gap {
				for m := n; m <= len(printed); m++ {
					next[m] = true
				}
				continue
			}
			// kedr's talk need not be shown.
			for m := n; m < len(printed); m++ {
				if lineMatches(s, printed[m]) {
					next[m+1] = true
				}
				if !strings.HasPrefix(printed[m], "kedr: ") {
					break
				}
			}
		}
		if len(next) == 0 {
			return fmt.Errorf("line %d (%s): was not printed where it is shown:\n%s\nin:\n%s", c.Line, c.Text, s, got)
		}
		reached, after = i, next
	}
	for n := range after {
		rest := slices.DeleteFunc(slices.Clone(printed[n:]), func(l string) bool { return strings.HasPrefix(l, "kedr: ") })
		if len(rest) == 0 {
			return nil
		}
	}
	return fmt.Errorf("line %d (%s): more was printed after the last line that is shown:\n%s\nin:\n%s", c.Line, c.Text, shown[reached], got)
}

func lineMatches(shown, printed string) bool {
	if before, ok := strings.CutSuffix(shown, gap); ok {
		return strings.HasPrefix(normal(printed), normal(before))
	}
	return normal(shown) == normal(printed)
}
