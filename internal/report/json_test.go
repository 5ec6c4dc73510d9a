package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
)

// TestJSONReadsBack: what is written is what is read, of one target and of several.
func TestJSONReadsBack(t *testing.T) {
	odd := leak.New(sample.Captures(t)["odd"], nil)[0]
	for _, reports := range [][]*leak.Report{{odd}, {odd, leak.New(sample.Captures(t)["never"], nil)[0], odd}} {
		var b bytes.Buffer
		if err := writeJSON(&b, reports, Options{}); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b.Bytes(), []byte("\n")); len(reports) > 1 && n != len(reports) {
			t.Errorf("%d documents on %d lines", len(reports), n)
		}
		back, err := Read(&b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(reports, back); d != "" {
			t.Errorf("differs (-want +got):\n%s", d)
		}
	}
}

// TestJSONIsJSON: what is written piece by piece is what encoding/json makes of it.
func TestJSONIsJSON(t *testing.T) {
	for name, c := range sample.Captures(t) {
		r := leak.New(c, nil)[0]
		r.Notes = append(r.Notes, "<&> \u2028 \x00 \xff")
		for _, indent := range []string{"", "  "} {
			var want, got bytes.Buffer
			e := json.NewEncoder(&want)
			e.SetIndent("", indent)
			e.SetEscapeHTML(false)
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
			reports := []*leak.Report{r}
			if indent == "" {
				reports = append(reports, r)
				want.Write(bytes.Clone(want.Bytes()))
			}
			if err := writeJSON(&got, reports, Options{}); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.String(), got.String()); d != "" {
				t.Errorf("%s differs (-want +got):\n%s", name, d)
			}
		}
	}
}

// TestReadOld: a report from before there were fingerprints has them.
func TestReadOld(t *testing.T) {
	want := leak.New(sample.Captures(t)["odd"], nil)
	var b bytes.Buffer
	if err := writeJSON(&b, want, Options{}); err != nil {
		t.Fatal(err)
	}
	old := strings.ReplaceAll(b.String(), `"fingerprint"`, `"nothing"`)
	got, err := Read(strings.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("differs (-want +got):\n%s", d)
	}
}

func TestReadErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "it is empty: a report in the format json is needed",
		"Target module: \"m\"":                 "it is no report in the format json: invalid character 'T' looking for beginning of value",
		"{}":                                   "it is JSON, but no report of kedr's (kedr run --format json writes one)",
		`{"schema":1}`:                         "it is JSON, but no report of kedr's (kedr run --format json writes one)",
		`{"schema":99,"target":{"name":"m"}}`:  "it is a report of version 99, and this kedr reads version 1: make it again with this kedr, or read it with the one that made it",
		`{"schema":1,"target":{"name":"m"}} x`: "it is no report in the format json: invalid character 'x' looking for beginning of value",
		`{"schema":1,"target":{"name":"m"},"loads":[{"core":1}]}`: "it is no report in the format json: json: cannot unmarshal number into Go struct field Load.loads.core of type leak.Address",
		`{"schema":1,"target":{"name":"m"},"possible_leaks":[`:    "it is no report in the format json: unexpected EOF",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
	if _, err := read(endless{}, 1<<20); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("endless: error %v", err)
	}
}

// endless is a file of blanks.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// FuzzRead: whatever is in a file that is read, it is an error or can be written in
// every format.
func FuzzRead(f *testing.F) {
	for _, c := range sample.Captures(f) {
		var b bytes.Buffer
		if err := writeJSON(&b, leak.New(c, nil), Options{}); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		reports, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		for name, write := range outputs() {
			var b bytes.Buffer
			if err := write(&b, reports); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			switch name {
			case "json":
				back, err := Read(&b)
				if d := cmp.Diff(reports, back); err != nil || d != "" {
					t.Errorf("json: %v, -want +got:\n%s", err, d)
				}
			case "pprof":
				_, err = profile.Parse(&b)
			case "sarif":
				var log sarifLog
				err = json.Unmarshal(b.Bytes(), &log)
			case "junit":
				var suites junitSuites
				err = xml.Unmarshal(b.Bytes(), &suites)
			default:
				if i := bytes.IndexFunc(b.Bytes(), func(r rune) bool { return r < ' ' && r != '\n' && r != '\x1b' }); i >= 0 {
					t.Errorf("%s: a control character at %d", name, i)
				}
			}
			if err != nil {
				t.Errorf("%s can't be read: %v", name, err)
			}
		}
	})
}
