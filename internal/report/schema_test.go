package report

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
)

func compile(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(s *jsonschema.Schema, text []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// goldens are the golden files of a format: of the captures, and of TestLeftOut.
func goldens(t *testing.T, format string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/*." + format)
	if err != nil || len(names) <= len(sample.Captures(t)) {
		t.Fatalf("%d golden files of %s, %v", len(names), format, err)
	}
	files := make(map[string][]byte)
	for _, name := range names {
		if files[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestJSONSchema: the documents are what docs/report.schema.json says, and it says
// everything about them.
func TestJSONSchema(t *testing.T) {
	text, err := os.ReadFile("../../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	s := compile(t, text)
	tried := make(map[string]bool)
	for name, doc := range goldens(t, "json") {
		if err := validate(s, doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, broken := range map[string][2]string{
			"a version to come":         {`"schema": 1,`, `"schema": 2,`},
			"an address as a number":    {`"core": "0xffffffffc0500000"`, `"core": 1844674407041`},
			"an unknown field":          {`"schema": 1,`, `"schema": 1, "extra": 1,`},
			"a negative count":          {`"lost_events": `, `"lost_events": -1`},
			"a short fingerprint":       {`"fingerprint": "`, `"fingerprint": "x`},
			"a field that is not there": {`"cut_stacks"`, `"cut_stacks2"`},
		} {
			changed := strings.Replace(string(doc), broken[0], broken[1], 1)
			if changed == string(doc) {
				continue
			}
			tried[what] = true
			if validate(s, []byte(changed)) == nil {
				t.Errorf("%s: %s is valid", name, what)
			}
		}
	}
	if len(tried) != 6 {
		t.Errorf("only %v was tried", tried)
	}
}

// sarifPublished is the schema that OASIS has published, as a library carries it along.
func sarifPublished(t *testing.T) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].Name == "schema" {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				text, _ = strconv.Unquote(lit.Value)
			}
		}
		return true
	})
	if !strings.Contains(text, sarifSchema) {
		t.Fatalf("the schema is not %s", sarifSchema)
	}
	return []byte(text)
}

func TestSARIFSchema(t *testing.T) {
	s := compile(t, sarifPublished(t))
	for name, doc := range goldens(t, "sarif") {
		if err := validate(s, doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if log, err := sarif.FromBytes(doc); err != nil || len(log.Runs) != 1 || log.Runs[0].Tool.Driver.Name == nil {
			t.Errorf("%s is not read back: %v", name, err)
		}
		if validate(s, bytes.Replace(doc, []byte(`"version"`), []byte(`"wersion"`), 1)) == nil {
			t.Errorf("%s: the schema takes anything", name)
		}
	}
	// With names that are out for trouble.
	r := leak.New(sample.Captures(t)["odd"], nil)[0]
	r.Target.Path = "a dir/%41:\x1b#?.ko"
	r.PossibleLeaks[0].Stack[0] = leak.Frame{Function: "f", File: "/src/../src/a b:c.c", Line: 7, Module: r.Target.Name}
	r.PossibleLeaks[1].Stack = nil
	r.PossibleLeaks[2].Count = 0
	var b bytes.Buffer
	if err := writeSARIF(&b, []*leak.Report{r, r}, Options{Dir: "/src", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := validate(s, b.Bytes()); err != nil {
		t.Errorf("odd names: %v\n%s", err, b.Bytes())
	}
	var log sarifLog
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	if p := log.Runs[1].Results[0].Locations[0].Physical; p.Artifact != (sarifPlace{"a%20b:c.c", sarifBase}) && p.Artifact != (sarifPlace{"./a%20b:c.c", sarifBase}) || p.Region.Line != 7 {
		t.Errorf("the first place is %+v", p)
	}
	if base := log.Runs[0].Bases[sarifBase].URI; base != "file:///src/" {
		t.Errorf("the base is %s", base)
	}
}

func TestSARIFPlace(t *testing.T) {
	s := sarifWriter{Options: Options{Dir: "/home/me/driver"}}
	for name, want := range map[string]sarifPlace{
		"/home/me/driver/src/a.c":    {"src/a.c", sarifBase},
		"/home/me/driver/../other.c": {URI: "file:///home/me/other.c"},
		"/usr/src/a b%.c":            {URI: "file:///usr/src/a%20b%25.c"},
		"a.c":                        {"a.c", sarifBase},
		"./sub/../a:b.c":             {"./a:b.c", sarifBase},
		"../a.c":                     {URI: "../a.c"},
		"/home/me/driver2/a.c":       {URI: "file:///home/me/driver2/a.c"},
	} {
		if got := s.place(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
