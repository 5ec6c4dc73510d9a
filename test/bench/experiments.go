package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// experiment is a part of the benchmark that has a name.
type experiment struct {
	name, about string
	i386        bool // it is one for 32 bits, too
	real        bool // in real time, with two CPUs
	points      func(tool) []Point
	run         func(*guest) error // where it is not points
}

// names of operations, as people know them.
var names = map[string]string{
	"slab": "kmalloc, kfree", "cache": "kmem_cache_alloc, _free", "vmalloc": "vmalloc, vfree", "page": "alloc_page, __free_page",
	"six": "mktime64",
}

var experiments = []experiment{
	{name: "slab", about: "kmalloc and kfree", points: pair("slab")},
	{name: "cache", about: "kmem_cache_alloc and kmem_cache_free", points: pair("cache")},
	{name: "vmalloc", about: "vmalloc and vfree", points: pair("vmalloc")},
	{name: "page", about: "alloc_page and __free_page", points: pair("page")},
	{name: "backends", about: "kmalloc and vmalloc by each back end", i386: true, run: backends},
	{name: "trace", about: "a traced call", run: traced},
	{name: "scale", about: "a million objects", run: scale},
	{name: "arm", about: "time and memory until the probes are armed", run: arm},
	{name: "throughput", about: "traced calls a second", real: true, run: throughput},
}

func experimentIndex(name string) int {
	return slices.IndexFunc(experiments, func(e experiment) bool { return e.name == name })
}

// pair is what is measured of a pair of calls. The stacks vary where kedr looks at them;
// the others are tried at one depth.
func pair(operation string) func(tool) []Point {
	var all, few []Point
	few = append(few, Point{operation, 10, 1, 0}, Point{operation, 10, 8, 0})
	for _, depth := range []int{4, 10, 20} {
		for _, stacks := range []int{1, 8} {
			all = append(all, Point{operation, depth, stacks, 0})
		}
	}
	all = append(all, Point{operation, 10, 1, 9_999})
	few = append(few, Point{operation, 10, 1, 9_999})
	return func(t tool) []Point {
		switch t.name {
		case nothing.name, kedrTarget.name:
			return all
		case kedrTrace.name, kedrOther.name, kedrUnrelated.name:
			return few[:1]
		}
		return few
	}
}

// pairs measures the experiments that are pairs of calls: each tool is started once.
func (g *guest) pairs() error {
	for _, t := range []tool{nothing, kedrOther, kedrUnrelated, kedrTarget, kedrTrace, memleak, bpftraceObjects} {
		var points []Point
		for _, e := range experiments {
			if e.points != nil && g.wants(e) {
				points = append(points, e.points(t)...)
			}
		}
		if len(points) == 0 {
			return nil
		}
		if err := g.with(t, points...); err != nil {
			return err
		}
	}
	return nil
}

func backends(g *guest) error {
	points := []Point{{"slab", 10, 1, 0}, {"vmalloc", 10, 1, 0}}
	tools := []tool{nothing}
	for _, backend := range []string{"trampoline", "kprobe"} {
		if backend == "trampoline" && !g.is64() {
			continue
		}
		tools = append(tools,
			kedr("kedr --backend="+backend+", for this module", "bench", "--backend="+backend),
			kedr("kedr --backend="+backend+", for another module, which obtains such", "other", "--backend="+backend))
	}
	for _, t := range tools {
		if err := g.with(t, points...); err != nil {
			return err
		}
	}
	return nil
}

func traced(g *guest) error {
	only := func(flags ...string) tool {
		flags = append([]string{"--trace"}, flags...)
		return kedr("kedr "+strings.Join(flags, " "), "bench", append(flags, "--only", "mktime64")...)
	}
	tools := []tool{nothing, only(), only("--probes", "kprobe")}
	if g.atLeast(6, 10) {
		tools = append(tools, only("--probes", "session"))
	}
	tools = append(tools, only("--where", "mon0 == 77"), traceCmd, bpftraceCalls)
	for _, t := range tools {
		if err := g.with(t, Point{"six", 10, 1, 0}); err != nil {
			return err
		}
	}
	return nil
}

const million = 1_000_000

// scale has the module leak a million objects, and kedr report them.
func scale(g *guest) error {
	t := kedr("kedr", "bench", "--max-objects", strconv.Itoa(million*3/2))
	if _, err := t.start(g); err != nil {
		return err
	}
	err := g.inModule(func() error {
		for _, p := range []Point{{"slab", 10, 1, 0}, {"slab", 10, 1, million}} {
			row, err := g.measureWith(p, map[string]string{"leave": "1"})
			if err != nil {
				return err
			}
			g.show(Row{What: fmt.Sprintf("kmalloc, kfree beside %d objects", p.Live), Tool: "kedr, for this module", Figure: row.Figure, Unit: perOperation})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, format := range []string{"text", "json"} {
		const file = "/tmp/report"
		u, err := g.kedr("report", "--format", format, "-o", file)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !allLeaks.Match(b) {
			return fmt.Errorf("the report as %s does not have a million leaks: %q", format, b[:min(len(b), 300)])
		}
		row := Row{What: "1,000,000 leaks", Tool: "kedr report --format " + format}
		row.Figure, row.Unit = ms(u.cpu), "ms of CPU"
		g.show(row)
		row.Figure, row.Unit, row.Loose = float64(u.peak)/1024, "MiB of memory", true
		g.show(row)
	}
	_, err = g.kedr("stop")
	return err
}

// allLeaks is in a report of them.
var allLeaks = regexp.MustCompile(`\b1,?000,?000\b`)

// arm measures what it takes to be ready.
func arm(g *guest) error {
	median := func(times int, args ...string) (time.Duration, error) {
		var all []time.Duration
		for i := range times + 1 {
			u, err := g.kedr(args...)
			if err != nil {
				return 0, err
			}
			if i > 0 { // the first reads files
				all = append(all, u.cpu)
			}
			if args[0] == "start" {
				if _, err := g.kedr("stop"); err != nil {
					return 0, err
				}
			}
		}
		slices.Sort(all)
		return all[len(all)/2], nil
	}
	start, err := median(9, "--version")
	if err != nil {
		return err
	}
	armed, err := median(3, "start", g.module("hello-kernel"))
	if err != nil {
		return err
	}
	const tool = "kedr start"
	g.show(Row{What: "a process", Tool: "kedr --version", Figure: ms(start), Unit: "ms of CPU"})
	g.show(Row{What: "arming, beside the process", Tool: tool, Figure: ms(armed - start), Unit: "ms of CPU"})
	taken := func(objects int) (float64, error) {
		before, err := free()
		if err != nil {
			return 0, err
		}
		if _, err := g.kedr("start", "--max-objects", strconv.Itoa(objects), g.module("hello-kernel")); err != nil {
			return 0, err
		}
		after, err := free()
		if err != nil {
			return 0, err
		}
		_, err = g.kedr("stop")
		return float64(before - after), err
	}
	const room = 131072                    // what there is by default
	if _, err := taken(room); err != nil { // the kernel keeps some of what it gets
		return err
	}
	few, err := taken(room)
	if err != nil {
		return err
	}
	many, err := taken(room + million)
	if err != nil {
		return err
	}
	g.show(Row{What: "memory of the kernel", Tool: tool, Figure: few / (1 << 20), Unit: "MiB"})
	g.show(Row{What: "memory of the kernel for an object", Tool: tool, Figure: (many - few) / million, Unit: "bytes"})
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

var (
	lostLine = regexp.MustCompile(`LOST: [^:]*: (\d+) event`)
	allLine  = regexp.MustCompile(`(?m)^ *(\d+) .* all calls into the kernel$`)
)

// throughput has two threads call as fast as they can.
func throughput(g *guest) error {
	for _, n := range []int{1000, 10000} {
		start := time.Now()
		cmd := exec.Command(g.Kedr, "trace", "--vm=never", "--summary", "--except", "kstrtoint,kasprintf",
			filepath.Join(g.Calls, "calls.ko"), "threads=2", "ticks=0", "rounds="+strconv.Itoa(n))
		out, err := cmd.Output()
		if err != nil && (cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 4) {
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
		row := Row{What: fmt.Sprintf("two threads, %.0f calls, 16 MiB buffer", total), Tool: "kedr trace --summary", Loose: true}
		row.Figure, row.Unit = total/time.Since(start).Seconds(), "calls a second, start and end included"
		g.show(row)
		row.Figure, row.Unit = lost, "events lost"
		g.show(row)
	}
	return nil
}
