// Kernels makes docs/kernels.md: which kernel passes which test, and what it has of
// what kedr builds on. Its input is what the conformance tests print:
//
//	go test -json ... >NAME.json for each kernel
//	kernels NAME.json... >docs/kernels.md
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Test, Output string
}

// column is one kernel.
type column struct {
	name, release string
	results       map[string]string // test: pass, fail, skip
	features      map[string]string
	order         []string // of features
}

var feature = regexp.MustCompile(`feature: ([^:]+): (.*)`)

func read(name string, r io.Reader) (*column, error) {
	c := &column{name: name, results: make(map[string]string), features: make(map[string]string)}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			continue // the machine's own words
		}
		switch e.Action {
		case "pass", "fail", "skip":
			if e.Test != "" {
				c.results[e.Test] = e.Action
			}
		case "output":
			if m := feature.FindStringSubmatch(strings.TrimSpace(e.Output)); m != nil {
				if m[1] == "release" {
					c.release = m[2]
				} else if _, ok := c.features[m[1]]; !ok {
					c.features[m[1]] = m[2]
					c.order = append(c.order, m[1])
				}
			}
		}
	}
	if c.release == "" {
		return nil, fmt.Errorf("%s: no release in it: has TestKernel run?", name)
	}
	return c, sc.Err()
}

var description = regexp.MustCompile(`MODULE_DESCRIPTION\("kedr test: ([^"]*)"\)`)

// descriptions tells what each test module is about.
func descriptions(dir string) map[string]string {
	out := make(map[string]string)
	files, _ := filepath.Glob(filepath.Join(dir, "*.c"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if m := description.FindSubmatch(b); m != nil {
			out[strings.TrimSuffix(filepath.Base(f), ".c")] = string(m[1])
		}
	}
	return out
}

func main() {
	var columns []*column
	for _, name := range os.Args[1:] {
		f, err := os.Open(name)
		if err != nil {
			fail(err)
		}
		c, err := read(strings.TrimSuffix(filepath.Base(name), ".json"), f)
		f.Close()
		if err != nil {
			fail(err)
		}
		columns = append(columns, c)
	}
	if len(columns) == 0 {
		fail(errors.New("no files given"))
	}
	write(os.Stdout, columns, descriptions("test/modules"))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "kernels:", err)
	os.Exit(1)
}

func write(w io.Writer, columns []*column, about map[string]string) {
	fmt.Fprintf(w, "# Kernels\n\nMade by the tests (`make kernels`): real modules on Debian's own kernels, in machines.\n\n")
	row(w, columns, "", func(c *column) string { return c.name })
	fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(columns)+1))
	row(w, columns, "release", func(c *column) string { return c.release })

	fmt.Fprintf(w, "\n## What is there\n\nWhat a kernel lacks, a report names: the function, and why it was not watched.\n\n")
	row(w, columns, "", func(c *column) string { return c.name })
	fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(columns)+1))
	for _, name := range columns[0].order {
		row(w, columns, name, func(c *column) string { return cmp.Or(c.features[name], "-") })
	}

	fmt.Fprintf(w, "\n## What is tested\n\nModules of test/modules, by name, with the figures that stand in their sources.\n\n")
	row(w, columns, "", func(c *column) string { return c.name })
	fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(columns)+1))
	tests := make(map[string]bool)
	for _, c := range columns {
		for t := range c.results {
			tests[t] = true
		}
	}
	names := make([]string, 0, len(tests))
	for t := range tests {
		names = append(names, t)
	}
	slices.Sort(names)
	for _, t := range names {
		name, isModule := strings.CutPrefix(t, "TestRun/")
		// A module that is run several times has numbered names.
		base, _, _ := strings.Cut(name, "#")
		switch {
		case isModule && about[base] != "":
			name = fmt.Sprintf("`%s`: %s", name, about[base])
		case strings.Contains(t, "/") || t == "TestRun" || t == "TestKernel":
			continue
		default:
			name = strings.TrimPrefix(t, "Test")
		}
		row(w, columns, name, func(c *column) string { return cmp.Or(c.results[t], "-") })
	}
}

func row(w io.Writer, columns []*column, name string, cell func(*column) string) {
	fmt.Fprintf(w, "| %s |", name)
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", cell(c))
	}
	fmt.Fprintln(w)
}
