package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"kedr/internal/matrix"
	"kedr/internal/session"
	"kedr/internal/suppress"
	"kedr/internal/target"
)

// TestJudge: what a capture comes to, for kedr run and for a row of kedr matrix. Leaks and
// losses are said first; a workload that failed keeps a module from being clean.
func TestJudge(t *testing.T) {
	leaking := func(c *session.Capture) {
		c.Objects = []session.Object{{Load: 1, Kind: "slab", Size: 8}}
	}
	failing := func(c *session.Capture) { c.WorkloadError = "exit status 7" }
	refused := func(c *session.Capture) { c.LoadError = "no such device" }
	losing := func(c *session.Capture) { c.Lost = []session.Lost{{Reason: "busy", Count: 1}} }
	unseen := func(c *session.Capture) { c.Loads = nil }
	const any = "{\n a name\n kedr:Any\n ...\n}\n"
	for name, test := range map[string]struct {
		of       []func(*session.Capture)
		patterns string
		outcome  matrix.Outcome
		status   int
		says     string // the row's line
	}{
		"clean":               {nil, "", matrix.Clean, exitClean, ""},
		"leaking":             {[]func(*session.Capture){leaking}, "", matrix.Found, exitFound, ""},
		"suppressed":          {[]func(*session.Capture){leaking}, any, matrix.Clean, exitClean, ""},
		"failing":             {[]func(*session.Capture){failing}, "", matrix.Failed, exitFailed, "nothing leaked, but the workload ended with: exit status 7"},
		"failing, leaking":    {[]func(*session.Capture){failing, leaking}, "", matrix.Found, exitFound, "the workload ended with: exit status 7"},
		"failing, known":      {[]func(*session.Capture){failing, leaking}, any, matrix.Failed, exitFailed, "nothing leaked, but the workload ended with: exit status 7"},
		"failing, losing":     {[]func(*session.Capture){failing, losing}, "", matrix.Incomplete, exitIncomplete, "the workload ended with: exit status 7"},
		"not loaded":          {[]func(*session.Capture){refused}, "", matrix.Failed, exitFailed, "loading m: no such device"},
		"not loaded, leaking": {[]func(*session.Capture){refused, leaking}, "", matrix.Found, exitFound, "loading m: no such device"},
		"unseen":              {[]func(*session.Capture){unseen}, "", matrix.Failed, exitFailed, "m was not seen loading"},
	} {
		t.Run(name, func(t *testing.T) {
			capture := func() *session.Capture {
				c := &session.Capture{Targets: []session.Target{{Name: "m"}}, Loads: []session.Load{{ID: 1}}}
				for _, change := range test.of {
					change(c)
				}
				return c
			}
			list, err := suppress.Parse(strings.NewReader(test.patterns), "patterns")
			if err != nil {
				t.Fatal(err)
			}
			f := &matrixFlags{}
			f.analysis.suppress.set = suppress.NewSet(list)
			s := &matrixSteps{flags: f}
			res := s.judge(&matrixCell{module: &target.Module{Name: "m"}}, capture())
			if res.Err != nil && res.Outcome < matrix.Failed {
				res.Outcome = matrix.Failed // as matrix.Run has it
			}
			said := res.Remark
			if res.Err != nil {
				said = res.Err.Error()
			}
			if res.Outcome != test.outcome || matrixStatus(res.Outcome) != test.status || !strings.HasPrefix(said, test.says) || (said == "") != (test.says == "") {
				t.Errorf("matrix: %v, %q", res.Outcome, said)
			}

			cmd := &cobra.Command{}
			cmd.SetOut(&strings.Builder{})
			cmd.SetErr(&strings.Builder{})
			f.analysis.out.register(cmd)
			if err := f.analysis.out.check(cmd); err != nil {
				t.Fatal(err)
			}
			err = f.analysis.report(cmd, capture())
			status := exitClean
			var se *statusError
			if errors.As(err, &se) {
				status = se.status
			} else if err != nil {
				status = exitFailed
			}
			if status != test.status {
				t.Errorf("run: exit status %d (%v), want %d", status, err, test.status)
			}
		})
	}
}
