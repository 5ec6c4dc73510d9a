package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Point is what the module does.
type Point struct {
	Operation string `json:"operation,omitempty"`
	Depth     int    `json:"depth,omitempty"`       // frames of the stack; the fewest, if there are more
	Stacks    int    `json:"stacks,omitempty"`      // different ones, in turn
	Live      int    `json:"outstanding,omitempty"` // objects, beside the one that comes and goes
}

// Row is one figure.
type Row struct {
	Experiment string `json:"experiment"`
	Kernel     string `json:"kernel"`
	Point
	What   string  `json:"what,omitempty"`   // is measured, where it is not an operation
	Frames int     `json:"frames,omitempty"` // that the stack really has
	Tool   string  `json:"tool"`
	Figure float64 `json:"figure"`
	Bare   float64 `json:"bare,omitempty"` // of an operation: what it takes with nothing at work
	Unit   string  `json:"unit"`
	Again  float64 `json:"again,omitempty"` // the figure of a second machine
	Loose  bool    `json:"loose,omitempty"` // of a clock that is not the machine's: it is not the same again
}

// above is what the tool takes, of a figure.
func (r Row) above(figure float64) float64 { return figure - r.Bare }

// differs says whether the second machine has another figure, by more than the tolerance
// and more than an instruction.
func (r Row) differs() bool {
	const tolerance = 0.02
	a, b := r.above(r.Figure), r.above(r.Again)
	return !r.Loose && math.Abs(a-b) > max(tolerance*math.Abs(a), 1)
}

const perOperation = "instructions"

// again joins the figures of two machines.
func again(first, second []Row) ([]Row, error) {
	if len(first) != len(second) {
		return nil, fmt.Errorf("one machine has %d figures, and another one %d", len(first), len(second))
	}
	for i := range first {
		r, s := &first[i], second[i]
		if r.Tool != s.Tool || r.Point != s.Point || r.What != s.What {
			return nil, fmt.Errorf("one machine has measured %v with %s, and another one %v with %s", r.Point, r.Tool, s.Point, s.Tool)
		}
		r.Again = s.Figure
		if r.differs() {
			say("%s, %s, %s %v: %.1f in one machine and %.1f in another", r.Kernel, r.Tool, r.What, r.Point, r.above(r.Figure), r.above(r.Again))
		}
	}
	return first, nil
}

// table is one of the document: an experiment's, or several experiments'.
type table struct {
	title, about string
	experiments  []string
	columns      string
	align        string
	cells        func(Row) string
}

var operationTable = table{
	columns: "kernel | operation | frames | stacks | outstanding | with | in all | above",
	align:   "--- | --- | ---: | ---: | ---: | --- | ---: | ---:",
	cells: func(r Row) string {
		above := "-"
		if r.Tool != nothing.name {
			above = fmt.Sprintf("%.0f", r.above(r.Figure))
		}
		return fmt.Sprintf("%s | %s | %d | %d | %d | %s | %.0f | %s", r.Kernel, names[r.Operation], r.Frames, r.Stacks, r.Live+1, r.Tool, r.Figure, above)
	},
}

var figureTable = table{
	columns: "kernel | what | with | figure | unit",
	align:   "--- | --- | --- | ---: | ---",
	cells: func(r Row) string {
		digits := 0
		if r.Figure < 10 {
			digits = 1
		}
		return fmt.Sprintf("%s | %s | %s | %.*f | %s", r.Kernel, r.What, r.Tool, digits, r.Figure, r.Unit)
	},
}

func (t table) with(title, about string, experiments ...string) table {
	t.title, t.about, t.experiments = title, about, experiments
	return t
}

var tables = []table{
	operationTable.with("An object, and its release",
		"Pairs of calls: one obtains an object, and one gives it back. `frames` is how deep the stack is\n"+
			"that the first is made on, `stacks` how many different ones take turns at one call site, `outstanding`\n"+
			"how many objects the module has obtained there at the time, the pair's among them. What vmalloc takes\n"+
			"depends on the areas there are, tools' as well, by some hundred instructions.",
		"slab", "cache", "vmalloc", "page"),
	operationTable.with("The back ends", "The same by each back end that a kernel has.", "backends"),
	operationTable.with("A traced call",
		"A call of `mktime64()`, which has six arguments: its entry, its return, caller, task,\narguments and result; no call passes the condition of --where; trace-cmd records no arguments,\nand knows no caller.", "trace"),
	figureTable.with("A million objects", "One session with room for 1,500,000 objects, of a module that leaks 1,000,000.", "scale"),
	figureTable.with("Arming", "The walkthrough's module. CPU time is what `kedr --version` takes less, a median.", "arm"),
	figureTable.with("Calls a second", "In a machine with two CPUs, in real time: emulated, and little to do with real machines.", "throughput"),
}

func markdown(v versions, rows []Row) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# What kedr costs

Made by `+"`make bench`"+`. Figures are guest instructions, of machines with one CPU and
`+"`-icount shift=0,sleep=off`"+`, where one is one nanosecond; each is the median of 15 runs of
100 rounds. `+"`above`"+` is what the tool adds to what the operation takes by itself.

%s`, v.markdown())
	checked, differ := 0, 0
	for _, t := range tables {
		var lines []string
		for _, r := range rows {
			if !slices.Contains(t.experiments, r.Experiment) {
				continue
			}
			mark := ""
			if !r.Loose {
				checked++
				if r.differs() {
					differ++
					mark = fmt.Sprintf(" (%.0f)", r.above(r.Again))
				}
			}
			lines = append(lines, "| "+t.cells(r)+mark+" |\n")
		}
		if len(lines) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| %s |\n| %s |\n%s", t.title, t.about, t.columns, t.align, strings.Join(lines, ""))
		}
	}
	fmt.Fprintf(&b, "\nEach was measured in two machines; of %d figures %d differ by more than 2%%", checked, differ)
	if differ > 0 {
		fmt.Fprint(&b, ", where the other one is in parentheses")
	}
	fmt.Fprint(&b, ".\n")
	return b.Bytes()
}

// order puts what is compared side by side.
func order(rows []Row) {
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(experimentIndex(a.Experiment), experimentIndex(b.Experiment)),
			cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.Stacks, b.Stacks), cmp.Compare(a.Live, b.Live))
	})
}

func write(dir string, v versions, rows []Row) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	j, err := json.MarshalIndent(struct {
		Versions versions `json:"versions"`
		Rows     []Row    `json:"rows"`
	}{v, rows}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cost.json"), append(j, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "cost.md"), markdown(v, rows), 0o644))
}
