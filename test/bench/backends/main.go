// Backends measures what an allocation and its release cost with each back end, in
// machines whose clock goes by the instruction: go run ./test/bench/backends KERNEL ...
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
	"slices"
	"strconv"
	"strings"
)

// Row is one figure: guest instructions for a pair, what it takes by itself taken off.
type Row struct {
	Kernel   string  `json:"kernel"`
	Pair     string  `json:"pair"`
	Who      string  `json:"who"`
	Backend  string  `json:"backend"`
	Figure   float64 `json:"instructions"`
	Absolute bool    `json:"absolute,omitempty"` // nothing is taken off
}

var pairs = []struct{ operation, name string }{
	{"slab", "kmalloc, kfree"},
	{"vmalloc", "vmalloc, vfree"},
}

const rounds, runs = 500, 5

func main() {
	out := flag.String("o", "docs/bench", "directory for the tables")
	flag.Parse()
	var rows []Row
	for _, kernel := range flag.Args() {
		more, err := measure(kernel)
		if err != nil {
			fmt.Fprintln(os.Stderr, "backends:", err)
			os.Exit(1)
		}
		rows = append(rows, more...)
	}
	if err := write(*out, rows); err != nil {
		fmt.Fprintln(os.Stderr, "backends:", err)
		os.Exit(1)
	}
}

// script measures in the machine. Of $4, another module, kedr watches the same functions.
const script = `
kedr=$1 ko=$2 rounds=$3 other=$4
one() { insmod $ko operation=$op rounds=$rounds runs=5; rmmod bench; }
part() { echo "== $op|$1|$2"; dmesg -C; shift 2; "$@" >/dev/null 2>&1; dmesg | grep kedr_bench; }
watched() { $kedr run --vm=never "$@" $ko operation=$op rounds=$rounds runs=5; }
others() { $kedr start "$@" $other; one; $kedr stop; }
for op in slab vmalloc; do
	part nobody none one
	for backend in $5; do
		part target $backend watched --backend=$backend
		part other $backend others --backend=$backend
	done
done`

func measure(kernel string) ([]Row, error) {
	flat := strings.ReplaceAll(kernel, "/", "-")
	program, err := filepath.Abs("bin/kedr")
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Join("build/bench", flat))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"bench.c", "Makefile"} {
		b, err := os.ReadFile(filepath.Join("test/bench/module", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := run(program, "vm", "build", "--kernel", kernel, dir, "--", "-s"); err != nil {
		return nil, err
	}
	inside, backends := program, "trampoline kprobe"
	if strings.HasSuffix(kernel, "/i386") {
		inside, backends = program+"-386", "kprobe"
	}
	other, err := filepath.Abs(filepath.Join("build/modules", flat, "clean.ko"))
	if err != nil {
		return nil, err
	}
	b, err := run(program, "vm", "exec", "--icount", "--kernel", kernel, "--",
		"sh", "-c", script, "sh", inside, filepath.Join(dir, "bench.ko"), strconv.Itoa(rounds), other, backends)
	if err != nil {
		return nil, err
	}
	return read(kernel, string(b))
}

func run(name string, args ...string) ([]byte, error) {
	fmt.Fprintln(os.Stderr, "backends:", filepath.Base(name), strings.Join(args[:min(len(args), 5)], " "))
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := cmd.Run()
	return out.Bytes(), err
}

var measured = regexp.MustCompile(`kedr_bench: \w+ rounds=\d+ ns=(\d+)`)

func read(kernel, text string) ([]Row, error) {
	var rows []Row
	bare := make(map[string]float64)
	for _, part := range strings.Split(text, "== ")[1:] {
		head, rest, _ := strings.Cut(part, "\n")
		words := strings.Split(head, "|")
		var all []float64
		for _, m := range measured.FindAllStringSubmatch(rest, -1) {
			ns, _ := strconv.ParseFloat(m[1], 64)
			all = append(all, ns/rounds)
		}
		if len(words) != 3 || len(all) != runs {
			return nil, fmt.Errorf("%s, %s: the module has measured %d times", kernel, head, len(all))
		}
		slices.Sort(all)
		r := Row{Kernel: kernel, Pair: words[0], Who: words[1], Backend: words[2], Figure: all[len(all)/2]}
		if r.Who == "nobody" {
			r.Absolute = true
			bare[r.Pair] = r.Figure
		} else {
			r.Figure -= bare[r.Pair]
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func write(dir string, rows []Row) error {
	j, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprint(&b, `# What the back ends cost

Made by `+"`make bench`"+`, in machines with one CPU and `+"`-icount shift=0,sleep=off`"+`:
guest instructions for a pair of calls. Those by kedr come on top of the pair itself.

| kernel | pair | by itself | back end | in the target | in another module |
| --- | --- | ---: | --- | ---: | ---: |
`)
	find := func(kernel, pair, who, backend string) string {
		for _, r := range rows {
			if r.Kernel == kernel && r.Pair == pair && r.Who == who && r.Backend == backend {
				return fmt.Sprintf("%.0f", r.Figure)
			}
		}
		return "-"
	}
	for _, r := range rows {
		if r.Who != "target" {
			continue
		}
		name := r.Pair
		for _, p := range pairs {
			if p.operation == r.Pair {
				name = p.name
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f | %s |\n", r.Kernel, name, find(r.Kernel, r.Pair, "nobody", "none"), r.Backend, r.Figure, find(r.Kernel, r.Pair, "other", r.Backend))
	}
	if err := os.WriteFile(filepath.Join(dir, "backends.json"), append(j, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "backends.md"), b.Bytes(), 0o644)
}
