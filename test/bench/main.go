// Bench measures what kedr costs, in machines whose clock goes by the instruction, and
// writes tables of it: go run ./test/bench -o docs/bench KERNEL ...
//
// On the host it builds the module and starts the machines; in them it runs again, as
// "guest", and does the measuring.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Row is one figure.
type Row struct {
	Kernel string  `json:"kernel"`
	What   string  `json:"what"`
	Tool   string  `json:"tool"`
	Figure float64 `json:"figure"`
	Unit   string  `json:"unit"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "guest" {
		check(guest(os.Args[2], os.Args[3], os.Args[4:]))
		return
	}
	out := flag.String("o", "docs/bench", "directory for the tables")
	kedr := flag.String("kedr", "bin/kedr", "the program to measure")
	modules := flag.String("modules", "test/bench/module", "directory of the module that is measured with")
	flag.Parse()
	program, err := filepath.Abs(*kedr)
	check(err)
	self, err := os.Executable()
	check(err)
	var rows []Row
	for _, kernel := range flag.Args() {
		dir, err := filepath.Abs(filepath.Join("build/bench", kernel))
		check(err)
		check(os.MkdirAll(dir, 0o755))
		for _, name := range []string{"bench.c", "Makefile"} {
			b, err := os.ReadFile(filepath.Join(*modules, name))
			check(err)
			check(os.WriteFile(filepath.Join(dir, name), b, 0o644))
		}
		run(nil, program, "vm", "build", "--kernel", kernel, dir, "--", "-s")
		b := run(nil, program, "vm", "exec", "--icount", "--kernel", kernel, "--", self, "guest", program, dir)
		rows = append(rows, read(kernel, b)...)
		// Time of the host: two CPUs, and as fast as it can.
		calls, err := filepath.Abs(filepath.Join("build/modules", kernel, "calls.ko"))
		check(err)
		b = run(nil, program, "vm", "exec", "--kernel", kernel, "--", self, "guest", program, dir, calls)
		rows = append(rows, read(kernel, b)...)
	}
	check(os.MkdirAll(*out, 0o755))
	j, err := json.MarshalIndent(rows, "", "  ")
	check(err)
	check(os.WriteFile(filepath.Join(*out, "trace.json"), append(j, '\n'), 0o644))
	check(os.WriteFile(filepath.Join(*out, "trace.md"), table(rows), 0o644))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(env []string, name string, args ...string) []byte {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	fmt.Fprintln(os.Stderr, "bench:", filepath.Base(name), strings.Join(args[:min(len(args), 6)], " "))
	check(cmd.Run())
	return out.Bytes()
}

// read takes the rows that the guest has printed, one a line.
func read(kernel string, out []byte) []Row {
	var rows []Row
	for line := range strings.Lines(string(out)) {
		var r Row
		if json.Unmarshal([]byte(line), &r) == nil && r.What != "" {
			r.Kernel = kernel
			rows = append(rows, r)
		}
	}
	return rows
}

func table(rows []Row) []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# What a traced call costs

Made by `+"`make bench`"+`. Guest instructions are those of a machine with one CPU and
`+"`-icount shift=0,sleep=off`"+`: they are the same in every run. A call is one of
mktime64(), with six arguments; what it takes by itself is taken off. Figures of time are
under emulation, and say little about real machines.

| kernel | what | tool | figure | unit |
| --- | --- | --- | ---: | --- |
`)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %.0f | %s |\n", r.Kernel, r.What, r.Tool, r.Figure, r.Unit)
	}
	return b.Bytes()
}

// In the machine.

const rounds = 1000

var measured = regexp.MustCompile(`kedr_bench: \w+ rounds=(\d+) ns=(\d+)`)

func guest(kedr, dir string, calls []string) error {
	ko := filepath.Join(dir, "bench.ko")
	if len(calls) > 0 {
		return throughput(kedr, calls[0])
	}
	params := []string{ko, "operation=six", "rounds=" + strconv.Itoa(rounds), "runs=5"}
	load := func() error {
		if out, err := exec.Command("insmod", params...).CombinedOutput(); err != nil {
			return fmt.Errorf("insmod: %w: %s", err, out)
		}
		return exec.Command("rmmod", "bench").Run()
	}
	bare, err := perCall(load)
	if err != nil {
		return err
	}
	show(Row{What: "a call by itself", Tool: "none", Figure: bare, Unit: "instructions"})
	version := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).Output()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line
	}
	tools := []struct {
		what, tool string
		run        func() error
	}{
		{"entry, exit, caller, task, six arguments, result", "kedr trace", func() error {
			return exec.Command(kedr, append([]string{"trace", "--vm=never", "-o", "/tmp/kedr.trace"}, params...)...).Run()
		}},
		{"entry, exit, caller, task, six arguments, result", "kedr trace --probes kprobe", func() error {
			return exec.Command(kedr, append([]string{"trace", "--vm=never", "--probes", "kprobe", "-o", "/tmp/kedr.trace"}, params...)...).Run()
		}},
		{"entry, exit, caller, task, six arguments, result", "kedr trace --probes session", func() error {
			cmd := exec.Command(kedr, append([]string{"trace", "--vm=never", "--probes", "session", "-o", "/tmp/kedr.trace"}, params...)...)
			if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 4 { // others' calls in interrupts
				return err
			}
			return nil
		}},
		{"a filter that keeps no call", "kedr trace --where", func() error {
			return exec.Command(kedr, append([]string{"trace", "--vm=never", "--only", "mktime64", "--where", "mon0 == 77", "-o", "/tmp/kedr.trace"}, params...)...).Run()
		}},
		{"entry and exit of the same function, from anywhere; no arguments", version("trace-cmd", "--version") + " record -p function_graph -l mktime64", func() error {
			return exec.Command("trace-cmd", append([]string{"record", "-q", "-p", "function_graph", "-l", "mktime64", "-o", "/tmp/trace.dat", "insmod"}, params...)...).Run()
		}},
		{"kprobe and kretprobe printing the six arguments and the result, from anywhere", version("bpftrace", "--version"), func() error { return bpftrace(load) }},
	}
	for _, t := range tools {
		with, err := perCall(t.run)
		exec.Command("rmmod", "bench").Run()
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", t.tool, err)
			continue
		}
		show(Row{What: t.what, Tool: t.tool, Figure: with - bare, Unit: "instructions a call"})
	}
	return nil
}

const script = `kprobe:mktime64 { @s[tid] = nsecs; printf("%d %s %d mktime64(%d, %d, %d, %d, %d, %d)\n", nsecs, comm, tid, arg0, arg1, arg2, arg3, arg4, arg5); }
kretprobe:mktime64 /@s[tid]/ { printf("%d = %d\n", nsecs - @s[tid], retval); delete(@s[tid]); }
BEGIN { printf("ready\n"); }`

func bpftrace(load func() error) error {
	cmd := exec.Command("bpftrace", "-e", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	first := make([]byte, 4096)
	for {
		n, err := out.Read(first)
		if err != nil {
			return err
		}
		if bytes.Contains(first[:n], []byte("ready")) {
			break
		}
	}
	go func() {
		for {
			if _, err := out.Read(first); err != nil {
				return
			}
		}
	}()
	err = load()
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	return err
}

// perCall has the module measure, and takes the median of its runs, in instructions a call.
func perCall(do func() error) (float64, error) {
	if err := exec.Command("dmesg", "-C").Run(); err != nil {
		return 0, fmt.Errorf("dmesg: %w", err)
	}
	if err := do(); err != nil {
		return 0, err
	}
	out, err := exec.Command("dmesg").Output()
	if err != nil {
		return 0, fmt.Errorf("dmesg: %w", err)
	}
	var all []float64
	for _, m := range measured.FindAllStringSubmatch(string(out), -1) {
		ns, _ := strconv.ParseFloat(m[2], 64)
		all = append(all, ns/rounds)
	}
	if len(all) < 3 {
		return 0, fmt.Errorf("the module has measured %d times", len(all))
	}
	for i := range all {
		for j := i; j > 0 && all[j] < all[j-1]; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all[len(all)/2], nil
}

var (
	lostLine = regexp.MustCompile(`LOST: [^:]*: (\d+) event`)
	allLine  = regexp.MustCompile(`(?m)^ *(\d+) .* all calls into the kernel$`)
)

// throughput has two threads call as fast as they can.
func throughput(kedr, calls string) error {
	for _, n := range []int{1000, 10000} {
		start := time.Now()
		cmd := exec.Command(kedr, "trace", "--vm=never", "--summary", "--except", "kstrtoint,kasprintf", calls, "threads=2", "ticks=0", "rounds="+strconv.Itoa(n))
		out, err := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); err != nil && code != 4 {
			return fmt.Errorf("kedr trace: %w", err)
		}
		m := allLine.FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("no totals in %q", out)
		}
		total, _ := strconv.ParseFloat(string(m[1]), 64)
		lost := 0.0
		for _, l := range lostLine.FindAllSubmatch(out, -1) {
			v, _ := strconv.ParseFloat(string(l[1]), 64)
			lost += v
		}
		what := fmt.Sprintf("two threads, %.0f calls, 16 MiB buffer", total)
		show(Row{What: what, Tool: "kedr trace --summary", Figure: total / time.Since(start).Seconds(), Unit: "calls a second, start and end included (emulated)"})
		show(Row{What: what, Tool: "kedr trace --summary", Figure: lost, Unit: "events lost"})
	}
	return nil
}

func show(r Row) {
	b, err := json.Marshal(r)
	check(err)
	os.Stdout.Write(append(b, '\n'))
}
