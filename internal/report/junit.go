package report

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"io"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
	"kedr/internal/session"
)

// What CI systems understand of JUnit's XML, of which there is no standard; these are the
// elements and attributes that all of them have in common
// (https://github.com/testmoapp/junitxml).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		Out        junitText       `xml:"system-out"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string       `xml:"name,attr"`
		Class   string       `xml:"classname,attr"`
		Failure *junitDefect `xml:"failure"`
		Error   *junitDefect `xml:"error"`
	}
	// Lines are for people, too, and would be one long line if they were escaped.
	junitText struct {
		Text string `xml:",cdata"`
	}
	junitDefect struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",cdata"`
	}
)

// writeJUnit writes a suite a target, and in it a test case a check. What was found is a
// failure; that the result is incomplete is an error.
func writeJUnit(w io.Writer, reports []*leak.Report, o Options) error {
	all := junitSuites{Name: "kedr"}
	for _, r := range reports {
		s := junitTarget(r, o)
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Errors += s.Errors
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junitTarget(all *leak.Report, o Options) junitSuite {
	r := wording.Listed(all)
	name := wording.Printable(r.Target.Name)
	s := junitSuite{Name: name, Out: junitText{wording.Verdict(all)}, Properties: []junitProperty{
		{"kernel", wording.Printable(r.Kernel.Release)}, {"machine", wording.Printable(r.Kernel.Machine)},
	}}
	for _, n := range r.Notes {
		s.Out.Text += "\nnote: " + wording.Printable(n)
	}
	check := func(name string, failure, err *junitDefect) {
		s.Tests++
		if failure != nil {
			s.Failures++
		}
		if err != nil {
			s.Errors++
		}
		s.Cases = append(s.Cases, junitCase{Name: name, Class: "kedr." + s.Name, Failure: failure, Error: err})
	}
	found := wording.Found(all.Account().Counted)
	check("no leaks", failure("possible-leak", found.Leaks, func(t text) {
		for i := range r.PossibleLeaks {
			t.leak(&r.PossibleLeaks[i], len(r.Loads))
		}
	}, o), nil)
	wrongs := func(mismatched bool) func(t text) {
		return func(t text) {
			for i := range r.UnallocatedFrees {
				if u := &r.UnallocatedFrees[i]; (u.Wrong == session.Mismatched) == mismatched {
					t.wrong(u, len(r.Loads))
				}
			}
		}
	}
	check("no unallocated frees", failure("unallocated-free", found.Unallocated, wrongs(false), o), nil)
	check("no mismatched releases", failure("mismatched-release", found.Mismatched, wrongs(true), o), nil)
	var incomplete *junitDefect
	if lines := wording.Unsure(r); len(lines) > 0 {
		incomplete = &junitDefect{"the result is incomplete", "incomplete", strings.Join(lines, "\n")}
	}
	check("complete", nil, incomplete)
	return s
}

// failure has a text that people read as that of the terminal; nil: nothing was found.
func failure(kind, message string, write func(text), o Options) *junitDefect {
	if message == "" {
		return nil
	}
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	write(text{w: w, Options: Options{Dir: o.Dir, All: o.All}})
	w.Flush()
	return &junitDefect{message, kind, b.String()}
}
