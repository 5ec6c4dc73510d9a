// Bench measures what kedr costs, beside other tools, in machines whose clock goes by the
// instruction, and writes tables of it:
//
//	go run ./test/bench [-o docs/bench] [-only slab] KERNEL ...
//
// On the host it builds the modules and starts the machines, two at a time: each figure is
// measured in both, and is to be the same. In them it runs again, as "guest", and does the
// measuring.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"kedr/internal/distro"
)

// i386 ends the versions of kernels for 32 bits.
const i386 = "/i386"

func main() {
	if len(os.Args) > 2 && os.Args[1] == "guest" {
		check(runGuest(os.Args[2]))
		return
	}
	out := flag.String("o", "", "`DIRECTORY` for the tables; none: to standard output")
	only := flag.String("only", "", "measure only what has a name that this `REGEXP` matches, as in slab|page")
	flag.Usage = func() {
		w := flag.CommandLine.Output()
		fmt.Fprintf(w, "bench [flags] KERNEL ...\n\nWhat there is to measure:\n")
		for _, e := range experiments {
			fmt.Fprintf(w, "  %-10s  %s\n", e.name, e.about)
		}
		fmt.Fprintf(w, "  %-10s  %s\n\n", machineName, "from a command to its report, beside virtme-ng; in real time")
		flag.PrintDefaults()
	}
	flag.Parse()
	wanted, err := regexp.Compile("^(?:" + *only + ")$")
	check(err)
	selected := func(name string) bool { return *only == "" || wanted.MatchString(name) }
	var chosen []experiment
	for _, e := range experiments {
		if selected(e.name) {
			chosen = append(chosen, e)
		}
	}
	if len(chosen) == 0 && !selected(machineName) {
		check(fmt.Errorf("nothing is called %q: see -h", *only))
	}
	ctx := context.Background()
	store, err := distro.NewStore(say)
	check(err)
	v := hostVersions()
	var rows []Row
	for _, kernel := range flag.Args() {
		if len(chosen) == 0 {
			break
		}
		k, err := store.Fetch(ctx, kernel, false)
		check(err)
		more, err := measure(ctx, store, kernel, chosen, &v)
		check(err)
		if len(more) > 0 {
			v.Kernels = append(v.Kernels, k.Release)
		}
		rows = append(rows, more...)
	}
	order(rows)
	if len(rows) > 0 {
		if *out == "" {
			os.Stdout.Write(markdown(v, rows))
		} else {
			check(write(*out, v, rows))
		}
	}
	if selected(machineName) {
		check(runMachines(ctx, store, v, flag.Arg(0), *out))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// versions say what was measured, and by what.
type versions struct {
	Kedr     string   `json:"kedr"`
	Kernels  []string `json:"kernels"`
	QEMU     string   `json:"qemu"`
	Memleak  string   `json:"memleak,omitempty"`
	Bpftrace string   `json:"bpftrace,omitempty"`
	TraceCmd string   `json:"trace_cmd,omitempty"`
}

func hostVersions() versions {
	return versions{
		Kedr:     output("git", "describe", "--always", "--dirty"),
		QEMU:     output("qemu-system-x86_64", "--version"),
		Bpftrace: output("bpftrace", "--version"),
		TraceCmd: output("trace-cmd", "--version"),
	}
}

func (v versions) markdown() string {
	var b strings.Builder
	for _, l := range []struct{ name, value string }{
		{"kedr", v.Kedr}, {"kernels", strings.Join(v.Kernels, ", ")}, {"emulator", v.QEMU},
		{"memleak", v.Memleak}, {"bpftrace", v.Bpftrace}, {"trace-cmd", v.TraceCmd},
	} {
		if l.value != "" {
			fmt.Fprintf(&b, "- %s: %s\n", l.name, l.value)
		}
	}
	return b.String()
}

// packageVersion tells the version of an unpacked package, by its list of changes.
func packageVersion(root, name string) string {
	for _, file := range []string{"changelog.Debian.gz", "changelog.gz"} {
		line := output("zcat", filepath.Join(root, "usr/share/doc", name, file))
		if _, after, ok := strings.Cut(line, "("); ok {
			version, _, _ := strings.Cut(after, ")")
			return name + " " + version
		}
	}
	return name
}

// measure builds the modules for a kernel, and measures in two machines.
func measure(ctx context.Context, store *distro.Store, kernel string, chosen []experiment, v *versions) ([]Row, error) {
	var counted, real []string
	pairs := false
	for _, e := range chosen {
		switch {
		case strings.HasSuffix(kernel, i386) && !e.i386:
		case e.real:
			real = append(real, e.name)
		default:
			counted = append(counted, e.name)
			pairs = pairs || e.points != nil
		}
	}
	if len(counted)+len(real) == 0 {
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program, err := filepath.Abs("bin/kedr")
	if err != nil {
		return nil, err
	}
	j := job{Kernel: kernel, Kedr: program}
	if strings.HasSuffix(kernel, i386) {
		self, j.Kedr = self+"-386", program+"-386"
	}
	if j.Dir, err = buildModules(program, kernel); err != nil {
		return nil, err
	}
	if len(real) > 0 {
		if j.Calls, err = filepath.Abs(filepath.Join("build/modules", flat(kernel))); err != nil {
			return nil, err
		}
		if _, err := run(os.Stderr, "test/modules/build.sh", kernel, j.Calls); err != nil {
			return nil, err
		}
	}
	if pairs {
		if j.Programs, err = store.Programs(ctx, "trixie", "libbpf-tools", "libc6", "libelf1t64", "libzstd1", "zlib1g"); err != nil {
			return nil, err
		}
		v.Memleak = packageVersion(j.Programs, "libbpf-tools")
	}
	start := func(log io.Writer, names []string, flags ...string) ([]Row, error) {
		if len(names) == 0 {
			return nil, nil
		}
		j := j
		j.Experiments = names
		spec, err := json.Marshal(j)
		if err != nil {
			return nil, err
		}
		args := append([]string{"vm", "exec", "--kernel", kernel}, flags...)
		out, err := run(log, program, append(args, "--", self, "guest", string(spec))...)
		return readRows(out), err
	}
	say("%s: %s", kernel, strings.Join(slices.Concat(counted, real), ", "))
	var both [2][]Row
	var errs [2]error
	var wg sync.WaitGroup
	for i := range both {
		wg.Go(func() { both[i], errs[i] = start(os.Stderr, counted, "--icount", "--memory", "3072") })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	rows, err := again(both[0], both[1])
	if err != nil {
		return nil, err
	}
	more, err := start(os.Stderr, real)
	return append(rows, more...), err
}

// flat is a kernel's version as a file name.
func flat(kernel string) string { return strings.ReplaceAll(kernel, "/", "-") }

// buildModules builds the modules to measure with, and the walkthrough's, and returns
// their directory.
func buildModules(kedr, kernel string) (string, error) {
	dir, err := filepath.Abs(filepath.Join("build/bench", flat(kernel)))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	files, err := filepath.Glob("test/bench/module/*")
	if err != nil {
		return "", err
	}
	for _, name := range append(files, "examples/hello-kernel/hello.c") {
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	var talk bytes.Buffer
	if _, err = run(&talk, kedr, "vm", "build", "--kernel", kernel, dir, "--", "-s"); err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(talk.Bytes()))
	}
	return dir, nil
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func run(log io.Writer, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args[:min(len(args), 6)], " "), err)
	}
	return out.Bytes(), nil
}

// readRows takes the rows that the guest has printed, one a line.
func readRows(out []byte) []Row {
	var rows []Row
	for line := range bytes.Lines(out) {
		var r Row
		if json.Unmarshal(line, &r) == nil && r.Tool != "" {
			rows = append(rows, r)
		}
	}
	return rows
}
