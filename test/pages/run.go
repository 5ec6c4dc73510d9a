package pages

import (
	"fmt"
	"strconv"
	"strings"
)

// mark begins the line that a script prints after each command.
const mark = "\x1e"

// Script is a shell's script that runs command lines one after the other, in one shell,
// as who reads the document would.
func Script(commands []Command) string {
	var b strings.Builder
	b.WriteString("exec 2>&1\n")
	for _, c := range commands {
		// The next command may ask for $?.
		fmt.Fprintf(&b, "%s\npages_status=$?; printf '\\n\\036%%s %%s\\n' $pages_status \"$PWD\"; (exit $pages_status)\n", c.Text)
	}
	b.WriteString("exit 0\n")
	return b.String()
}

// Check goes through what a script has printed: each command's output and exit status.
// dir is where the last one left off.
func Check(commands []Command, printed string) (dir string, err error) {
	for i := range commands {
		c := &commands[i]
		output, rest, ok := strings.Cut(printed, "\n"+mark)
		if !ok {
			return dir, fmt.Errorf("line %d (%s): it did not end:\n%s", c.Line, c.Text, printed)
		}
		var line string
		line, printed, _ = strings.Cut(rest, "\n")
		number, where, _ := strings.Cut(line, " ")
		status, err := strconv.Atoi(number)
		if err != nil {
			return dir, fmt.Errorf("line %d (%s): no exit status in %q", c.Line, c.Text, line)
		}
		dir = where
		// Leaks are what most documents are about.
		if status != 0 && status != c.Status && !(status == 1 && strings.Contains(c.Text, "kedr ")) {
			return dir, fmt.Errorf("line %d (%s): exit status %d:\n%s", c.Line, c.Text, status, output)
		}
		if err := c.Compare(output); err != nil {
			return dir, err
		}
	}
	return dir, nil
}
