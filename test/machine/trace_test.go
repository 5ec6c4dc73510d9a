//go:build machine

package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTrace traces four CPUs at once in a machine: each call is there once, with its line of
// the source, which only the host knows.
func TestTrace(t *testing.T) {
	const threads, rounds = 4, 50
	type call struct {
		Type, Function string
		CPU            int
		Site           *struct {
			Frames []struct {
				Function, File string
				Line           int
			}
		}
		Lost []struct {
			Function, Reason string
			Count            int
		}
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) {
			var o outcome
			for range 8 { // an interrupt while a probe runs may cost an event, and the trace says so
				o = run(t, nil, "trace", "--vm=always", "--cpus", "4", "--format", "json", "--only", "kfree,kstrtoint,work",
					ko(kernel, "calls"), fmt.Sprintf("threads=%d", threads), fmt.Sprintf("rounds=%d", rounds), "ticks=0")
				if o.Status != 4 {
					break
				}
			}
			if o.Status != 0 {
				t.Fatalf("%+v", o)
			}
			calls, cpus, lines := make(map[string]int), make(map[int]int), make(map[int]int)
			for line := range strings.Lines(o.Stdout) {
				var c call
				if err := json.Unmarshal([]byte(line), &c); err != nil {
					t.Fatal(err)
				}
				if c.Type != "call" {
					continue
				}
				calls[c.Function]++
				if c.Function == "work" {
					cpus[c.CPU]++
				}
				if c.Function == "kfree" && c.Site != nil && len(c.Site.Frames) > 0 && filepath.Base(c.Site.Frames[0].File) == "calls.c" {
					lines[c.Site.Frames[0].Line]++
				}
			}
			if calls["kfree"] != 2*threads*rounds || calls["kstrtoint"] != threads*rounds || calls["work"] != threads {
				t.Errorf("%v", calls)
			}
			if len(cpus) != 4 {
				t.Errorf("the threads ran on CPUs %v", cpus)
			}
			if len(lines) != 2 {
				t.Errorf("lines that call kfree: %v", lines)
			}
			for line, n := range lines {
				if n != threads*rounds {
					t.Errorf("line %d: %d calls, want %d", line, n, threads*rounds)
				}
			}
		})
	}
	nothingLeft(t)
}

// TestTraceKept keeps the trace of the walkthrough's module from a machine, and shows it
// without either.
func TestTraceKept(t *testing.T) {
	kernel := kernels[0]
	file := filepath.Join(t.TempDir(), "hello.trace")
	if o := run(t, nil, "trace", "--vm=always", "-o", file, ko(kernel, "hello-kernel")); o.Status != 0 || o.Stdout != "" {
		t.Fatalf("%+v", o)
	}
	o := run(t, nil, "trace", "--from", file)
	for _, want := range []string{
		`(?m)^# +TIME CPU  TASK +DURATION  CALL = RESULT`,
		`-- hello_kernel loaded --`,
		`hello_init\(\) \{`,
		`  _printk\(fmt="\\x011Hello World\\n", ...\) = 11  # `,
		`  vmalloc(_noprof)?\(size=30\) = 0xff[0-9a-f]+  # .*hello\.c:\d+\)`,
		`  vfree\(addr=0xff[0-9a-f]+\)  # `,
		`\}.*  hello_init`,
		`-- hello_kernel unloaded --`,
	} {
		if !regexp.MustCompile(want).MatchString(o.Stdout) {
			t.Errorf("no %q in:\n%s", want, o.Stdout)
		}
	}
	if n := strings.Count(o.Stdout, "vmalloc"); o.Status != 0 || n != 6 {
		t.Errorf("status %d, vmalloc %d times", o.Status, n)
	}
	// A full disk.
	if o := run(t, nil, "trace", "--vm=always", "-o", "/dev/full", ko(kernel, "hello-kernel")); o.Status != 3 || !strings.Contains(o.Stderr, "no space left on device") {
		t.Errorf("%+v", o)
	}
	// What was traced of a module that crashes is shown, as far as it came.
	o = run(t, nil, "trace", "--vm=always", ko(kernel, "crash"))
	if o.Status != 5 || !strings.Contains(o.Stderr, "the kernel crashed in the machine") || !strings.Contains(o.Stdout, "the trace is cut off") {
		t.Errorf("%+v", o)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	nothingLeft(t)
}
