package machine

import (
	"regexp"
	"strings"
)

// Where the kernel's report of its own death begins (arch/x86/kernel/dumpstack.c,
// arch/x86/mm/fault.c, kernel/panic.c, kernel/watchdog.c, kernel/hung_task.c).
var oopsStart = regexp.MustCompile(`BUG: |Oops: |general protection fault|kernel BUG at|invalid opcode:|stack segment:|divide error:|Kernel panic - not syncing|double fault:|watchdog: BUG|INFO: task .* blocked for more than`)

// Where it ends.
var oopsEnd = regexp.MustCompile(`---\[ end Kernel panic|Rebooting (in|immediately)|reboot: `)

// findOops returns the kernel's report of its crash, as the console has it.
func findOops(console string) string {
	lines := strings.Split(strings.ReplaceAll(console, "\r", ""), "\n")
	for i, line := range lines {
		if !oopsStart.MatchString(line) {
			continue
		}
		end := len(lines)
		for j := i; j < len(lines); j++ {
			if oopsEnd.MatchString(lines[j]) {
				end = j + 1
				break
			}
		}
		return strings.TrimRight(strings.Join(lines[i:end], "\n"), "\n ")
	}
	return ""
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

func lastLine(s string) string {
	s = strings.TrimSpace(strings.ReplaceAll(s, "\r", ""))
	return s[strings.LastIndexByte(s, '\n')+1:]
}
