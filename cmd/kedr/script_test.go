package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"kedr/internal/session"
	"kedr/test/pages"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kedr": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScript(t *testing.T) {
	root, err := filepath.Abs(project)
	if err != nil {
		t.Fatal(err)
	}
	commands := pages.Commands(root, nil)
	commands["status"] = status
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Condition: func(cond string) (bool, error) {
			if cond == "session" {
				return session.Running(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			// The reports that the formats are tested with.
			return os.CopyFS(e.WorkDir, os.DirFS("../../internal/report/testdata"))
		},
		Cmds: commands,
	})
}

// status checks the exit status of a command: status 2 kedr frobnicate.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}
