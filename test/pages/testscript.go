package pages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// Commands are what scripts about documents of the project in root say:
//
//	project NAME...  copies directories of the project to where the script is
//	page NAME        runs a document's command lines, and checks what they print
//
// rootShell says how to run a script as root where modules can be loaded; nil: nowhere.
func Commands(root string, rootShell func(script string) []string) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"project": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) == 0 {
				ts.Fatalf("usage: project NAME...")
			}
			for _, name := range args {
				ts.Check(os.CopyFS(ts.MkAbs(name), os.DirFS(filepath.Join(root, name))))
			}
		},
		"page": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: page NAME")
			}
			commands, err := Read(filepath.Join(root, args[0]))
			ts.Check(err)
			run(ts, commands, rootShell)
		},
	}
}

func run(ts *testscript.TestScript, commands []Command, rootShell func(string) []string) {
	dir := ts.MkAbs(".")
	script := filepath.Join(dir, ".script")
	for len(commands) > 0 {
		if commands[0].NotRun != "" {
			commands = commands[1:]
			continue
		}
		// Those that follow each other on one host are one shell's.
		n := 1
		for n < len(commands) && commands[n].NotRun == "" && commands[n].Root == commands[0].Root {
			n++
		}
		ts.Check(os.WriteFile(script, []byte("cd '"+dir+"'\n"+Script(commands[:n])), 0o666))
		argv := []string{"sh", script}
		if commands[0].Root {
			if rootShell == nil {
				ts.Fatalf("line %d: no root here who can load modules: %s", commands[0].Line, commands[0].Text)
			}
			argv = rootShell(script)
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = environment(ts)
		printed, err := cmd.Output()
		ts.Logf("%s", printed)
		if err != nil {
			ts.Fatalf("%s: %v", strings.Join(argv, " "), err)
		}
		dir, err = Check(commands[:n], string(printed))
		ts.Check(err)
		commands = commands[n:]
	}
}

// environment is the script's, as far as documents go by it.
func environment(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"PATH", "HOME", "XDG_CACHE_HOME", "KEDR", "KEDR_386"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}
