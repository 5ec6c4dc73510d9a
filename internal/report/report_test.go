package report

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
	"kedr/internal/report/wording"
)

// outputs are the formats, and the text as its options change it.
func outputs() map[string]func(io.Writer, []*leak.Report) error {
	all := map[string]Options{
		"classic": {Classic: true},
		"all":     {All: true},
		"narrow":  {Color: true, Width: 40, Dir: "/src"},
	}
	out := make(map[string]func(io.Writer, []*leak.Report) error)
	for name, o := range all {
		out[name] = func(w io.Writer, r []*leak.Report) error { return writeText(w, r, o) }
	}
	for _, f := range Formats {
		out[f.Name] = func(w io.Writer, r []*leak.Report) error { return f.Write(w, r, Options{}) }
	}
	return out
}

func TestGolden(t *testing.T) {
	for name := range sample.Captures(t) {
		reports := sample.Reports(t, name)
		for format, write := range outputs() {
			t.Run(name+"."+format, func(t *testing.T) {
				var got bytes.Buffer
				if err := write(&got, reports); err != nil {
					t.Fatal(err)
				}
				if format == "pprof" {
					// How it is compressed is the library's business.
					p, err := profile.Parse(&got)
					if err != nil {
						t.Fatal(err)
					}
					got.WriteString(p.String())
				}
				sample.Golden(t, name+"."+format, got.Bytes())
			})
		}
	}
}

// TestExcerpt: the source around the leak's own frame.
func TestExcerpt(t *testing.T) {
	r := sample.Report(t, "odd")
	o := Options{Sources: sample.Examples(t)}
	var got bytes.Buffer
	if err := writeText(&got, []*leak.Report{r}, o); err != nil {
		t.Fatal(err)
	}
	sample.Golden(t, "source.text", got.Bytes())

	got.Reset()
	if err := writeText(&got, []*leak.Report{r}, Options{Sources: sample.Examples(t), Color: true, Width: 60}); err != nil {
		t.Fatal(err)
	}
	sample.Golden(t, "source.narrow", got.Bytes())

	// The module is older than its source by now.
	r.Target.Path = filepath.Join(t.TempDir(), "m.ko")
	if err := os.WriteFile(r.Target.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(r.Target.Path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	got.Reset()
	if err := writeText(&got, []*leak.Report{r}, o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.String(), "     ("+wording.Moved+")\n") {
		t.Errorf("nothing is said of newer source:\n%s", &got)
	}
}

// TestWithoutFile: a module that is gone by the time of the report.
func TestWithoutFile(t *testing.T) {
	r := leak.New(sample.Captures(t)["hello"], nil)[0]
	if r.PossibleLeaksTotal != 4 || len(r.Notes) != 1 || r.PossibleLeaks[0].Stack[0].Address != sample.Base+0x8f {
		t.Errorf("%+v", r)
	}
}

func TestFind(t *testing.T) {
	if _, err := Find("xml"); err == nil || err.Error() != `no format "xml": there is text, json, pprof, sarif, junit, html` {
		t.Errorf("error %v", err)
	}
}
