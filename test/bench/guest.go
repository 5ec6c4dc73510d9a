package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// job is what the host gives to the guest.
type job struct {
	Experiments []string
	Kernel      string // as the host names it
	Kedr        string // the program
	Dir         string // of the modules
	Calls       string // of the test modules, for throughput
	Programs    string // of memleak and its libraries
}

// guest is the machine, seen from inside.
type guest struct {
	job
	bare       map[Point]float64 // what operations take by themselves
	experiment string            // that is going on, where that is one
}

func runGuest(spec string) error {
	g := &guest{bare: make(map[Point]float64)}
	if err := json.Unmarshal([]byte(spec), &g.job); err != nil {
		return err
	}
	if err := g.pairs(); err != nil {
		return err
	}
	for _, e := range experiments {
		if e.run == nil || !g.wants(e) {
			continue
		}
		g.experiment = e.name
		if err := e.run(g); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func (g *guest) wants(e experiment) bool { return slices.Contains(g.Experiments, e.name) }

func (g *guest) is64() bool { return strconv.IntSize == 64 }

// atLeast says whether the kernel is of a version, or newer.
func (g *guest) atLeast(major, minor int) bool {
	var a, b int
	fmt.Sscanf(g.Kernel, "%d.%d", &a, &b)
	return a > major || a == major && b >= minor
}

// with measures points while a tool is at work.
func (g *guest) with(t tool, points ...Point) error {
	stop, err := t.start(g)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	err = g.inModule(func() error {
		for _, p := range points {
			row, err := g.measure(p)
			if err != nil {
				return err
			}
			row.Tool = t.name
			if t.name == nothing.name {
				g.bare[p] = row.Figure
			} else {
				row.Bare = g.bare[p]
			}
			g.show(row)
		}
		return nil
	})
	if err := errors.Join(err, stop()); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}

// show tells the host a figure.
func (g *guest) show(r Row) {
	r.Kernel, r.Experiment = g.Kernel, g.experiment
	if r.Experiment == "" {
		r.Experiment = r.Operation
	}
	b, err := json.Marshal(r)
	check(err)
	os.Stdout.Write(append(b, '\n'))
}

func (g *guest) module(name string) string { return filepath.Join(g.Dir, name+".ko") }

func (g *guest) load(name string) error {
	f, err := os.Open(g.module(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("loading %s: %w", name, err)
	}
	return nil
}

func unload(name string) error {
	if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("unloading %s: %w", name, err)
	}
	return nil
}

// inModule does something while the module that measures is there.
func (g *guest) inModule(do func() error) error {
	if err := g.load("bench"); err != nil {
		return err
	}
	return errors.Join(do(), unload("bench"))
}

func (g *guest) measure(p Point) (Row, error) { return g.measureWith(p, nil) }

// measureWith has the module measure, and takes the median of its runs.
func (g *guest) measureWith(p Point, more map[string]string) (Row, error) {
	const parameters = "/sys/module/bench/parameters/"
	set := map[string]string{"frames": strconv.Itoa(p.Depth), "stacks": strconv.Itoa(p.Stacks), "live": strconv.Itoa(p.Live)}
	for name, v := range more {
		set[name] = v
	}
	for name, v := range set {
		if err := os.WriteFile(parameters+name, []byte(v), 0); err != nil {
			return Row{}, err
		}
	}
	if err := os.WriteFile(parameters+"measure", []byte(p.Operation), 0); err != nil {
		return Row{}, fmt.Errorf("measuring %v: %w", p, err)
	}
	b, err := os.ReadFile(parameters + "measure")
	if err != nil {
		return Row{}, err
	}
	head, list, _ := strings.Cut(string(b), ":")
	var frames, rounds int
	if _, err := fmt.Sscanf(head, "frames=%d rounds=%d", &frames, &rounds); err != nil {
		return Row{}, fmt.Errorf("the module says %q: %w", b, err)
	}
	var all []float64
	for _, f := range strings.Fields(list) {
		ns, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return Row{}, fmt.Errorf("the module says %q: %w", b, err)
		}
		all = append(all, ns/float64(rounds))
	}
	if len(all) == 0 {
		return Row{}, fmt.Errorf("the module says %q", b)
	}
	slices.Sort(all)
	return Row{Point: p, Frames: frames, Figure: all[len(all)/2], Unit: perOperation}, nil
}

// free is how much memory is not in use, in bytes: caches are given back when it is needed.
func free() (int64, error) {
	time.Sleep(10 * time.Second) // the last session's memory is given back in the background
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return 0, err
	}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var sum int64
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		switch w[0] {
		case "MemFree:", "Buffers:", "Cached:", "SReclaimable:":
			kb, err := strconv.ParseInt(w[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			sum += kb << 10
		}
	}
	return sum, nil
}

// peak is the most memory that a process has had, in KB.
func peak(p *os.ProcessState) int {
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		return int(u.Maxrss)
	}
	return 0
}
