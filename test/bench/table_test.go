package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden file anew")

func rows() []Row {
	deep := Point{"slab", 20, 8, 9_999}
	return []Row{
		{Experiment: "slab", Kernel: "6.1", Point: Point{"slab", 4, 1, 0}, Frames: 4, Tool: nothing.name, Figure: 363.5, Again: 363.5, Unit: perOperation},
		{Experiment: "slab", Kernel: "6.1", Point: Point{"slab", 4, 1, 0}, Frames: 4, Tool: kedrUnrelated.name, Figure: 363.5, Bare: 363.5, Again: 363.5, Unit: perOperation},
		{Experiment: "slab", Kernel: "6.1", Point: deep, Frames: 20, Tool: kedrTarget.name, Figure: 1563.5, Bare: 363.5, Again: 1590.5, Unit: perOperation},
		{Experiment: "arm", Kernel: "6.1", What: "memory of the kernel for an object", Tool: "kedr start", Figure: 104, Again: 104, Unit: "bytes"},
		{Experiment: "throughput", Kernel: "6.1", What: "two threads", Tool: "kedr trace", Figure: 7396, Unit: "calls a second", Loose: true},
	}
}

func TestMarkdown(t *testing.T) {
	const golden = "testdata/cost.md"
	got := markdown(versions{Kedr: "a1fadec", Kernels: []string{"6.1.0-56-amd64"}, QEMU: "QEMU emulator version 7.2.22"}, rows())
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", golden, d)
	}
}

func TestAgain(t *testing.T) {
	first := rows()[:2]
	second := rows()[:2]
	second[1].Figure = 365.5
	got, err := again(first, second)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].differs() || !got[1].differs() {
		t.Errorf("the figures are said to differ: %v, %v; want false, true", got[0].differs(), got[1].differs())
	}
	if _, err := again(rows()[:2], rows()[:1]); err == nil {
		t.Error("machines that have measured different things are taken")
	}
	if _, err := again(rows()[:1], rows()[1:2]); err == nil {
		t.Error("machines that have measured with different tools are taken")
	}
}

func TestReadRows(t *testing.T) {
	got := readRows([]byte("a word\n{\"tool\":\"kedr\",\"figure\":7}\n{}\n"))
	if len(got) != 1 || got[0].Tool != "kedr" || got[0].Figure != 7 {
		t.Errorf("got %v", got)
	}
}

// Each experiment is in a table, and each table's experiments are there.
func TestTables(t *testing.T) {
	var shown []string
	for _, table := range tables {
		for _, name := range table.experiments {
			if experimentIndex(name) < 0 {
				t.Errorf("%s shows %s, which is not measured", table.title, name)
			}
		}
		shown = append(shown, table.experiments...)
	}
	for _, e := range experiments {
		if !strings.Contains(" "+strings.Join(shown, " ")+" ", " "+e.name+" ") {
			t.Errorf("%s is not shown", e.name)
		}
	}
}
