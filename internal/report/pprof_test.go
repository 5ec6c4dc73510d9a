package report

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/pprof/profile"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
)

// TestPprofTop: Go's own tool reads what is written, and needs nothing else for it.
func TestPprofTop(t *testing.T) {
	var b bytes.Buffer
	if err := writePprof(&b, sample.Reports(t, "hello"), Options{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hello.pb.gz")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for index, want := range map[string]string{
		"":            `(?s)Type: inuse_space.* 110B .*\n +50B 45\.45%[^\n]* myfunc4 /src/hello-kernel/hello.c:45\n +30B [^\n]* myfunc2 \S+hello.c:28\n +20B [^\n]* myfunc2 \S+hello.c:27\n`,
		"alloc_space": `(?s)Type: alloc_space.* 210B .*\n +110B [^\n]* myfunc4 \S+:45\n +40B [^\n]* myfunc3 \S+:36\n`,
	} {
		cmd := exec.Command("go", "tool", "pprof", "-top", "-lines", "-nodefraction=0")
		if index != "" {
			cmd.Args = append(cmd.Args, "-sample_index="+index)
		}
		cmd.Args = append(cmd.Args, file)
		cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("%v: %v\n%s\nwant %s", cmd.Args, err, out, want)
		}
	}
}

// TestPprofInlined: a function and what was inlined into it are lines of one location.
func TestPprofInlined(t *testing.T) {
	r := &leak.Report{
		Target: leak.Target{Name: "m"},
		PossibleLeaks: []leak.Leak{{Count: 2, Bytes: 64, Stack: []leak.Frame{
			{Address: 1, Function: "inner", File: "m.h", Line: 1, Module: "m", Inlined: true},
			{Address: 1, Function: "middle", File: "m.h", Line: 2, Module: "m", Inlined: true},
			{Address: 1, Function: "outer", File: "m.c", Line: 3, Module: "m"},
			{Function: "tail", Module: "m", Inferred: true},
			{Address: 0xffffffff81000000},
		}}},
	}
	var b bytes.Buffer
	if err := writePprof(&b, []*leak.Report{r, r}, Options{}); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != 2 || len(p.Location) != 3 || len(p.Mapping) != 2 || len(p.Function) != 4 {
		t.Fatalf("%d samples, %d locations, %d mappings, %d functions", len(p.Sample), len(p.Location), len(p.Mapping), len(p.Function))
	}
	var names []string
	for _, l := range p.Sample[0].Location[0].Line {
		names = append(names, l.Function.Name)
	}
	if len(names) != 3 || names[0] != "inner" || names[2] != "outer" {
		t.Errorf("the first location has %v", names)
	}
	if l := p.Sample[0].Location[2]; len(l.Line) != 0 || l.Address != 0xffffffff81000000 {
		t.Errorf("the location without a name: %+v", l)
	}
}
