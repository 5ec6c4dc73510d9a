package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kedr/internal/manual"
	"kedr/test/pages"
)

const project = "../.."

// documents are all that is written for readers, by their names in the project.
func documents(t *testing.T) []string {
	t.Helper()
	list := []string{"README.md", "CONTRIBUTING.md"}
	err := filepath.WalkDir(project+"/docs", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			name, _ := filepath.Rel(project, path)
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func readDocument(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(project, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// scripts are where command lines of documents are run: each has lines "page DOCUMENT",
// here for those that need no kernel. The examples of the reference are the help's, for TestHelp.
var scripts = []string{"cmd/kedr/testdata/script/*.txtar", "test/machine/testdata/pages/*.txtar"}

// TestCommandsAreRun: some script runs every command line of the documents, but for those
// that say why not.
func TestCommandsAreRun(t *testing.T) {
	run := make(map[string]bool)
	for _, pattern := range scripts {
		files, err := filepath.Glob(filepath.Join(project, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^page (\S+)`).FindAllSubmatch(text, -1) {
				run[string(m[1])] = true
			}
		}
	}
	n := 0
	for _, name := range documents(t) {
		text := readDocument(t, name)
		if strings.HasPrefix(text, manual.Generated) {
			continue
		}
		commands, err := pages.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range commands {
			for line := range strings.Lines(c.Text) {
				for _, words := range commandsIn(line) {
					checkCommand(t, words)
				}
			}
		}
		there := len(commands) > 0
		commands = slices.DeleteFunc(commands, func(c pages.Command) bool { return c.NotRun != "" })
		n += len(commands)
		switch {
		case len(commands) > 0 && !run[name]:
			t.Errorf("%s, line %d: no script runs: %s\nadd \"page %s\" to one in %s, or say why not: <!-- not run: ... -->",
				name, commands[0].Line, commands[0].Text, name, filepath.Dir(scripts[1]))
		case len(commands) == 0 && run[name]:
			t.Errorf("%s has no commands to run (any: %v)", name, there)
		}
		delete(run, name)
	}
	for name := range run {
		t.Errorf("a script runs %s, which is not there", name)
	}
	if n < 20 {
		t.Errorf("only %d commands were found", n)
	}
	t.Logf("%d commands", n)
}

// TestLinks: what documents refer to is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code := regexp.MustCompile("`[^`]*`")
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchors := func(text string) []string {
		var list []string
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			a := strings.ToLower(m[1])
			a = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(a, "")
			list = append(list, strings.ReplaceAll(a, " ", "-"))
		}
		return list
	}
	n := 0
	for _, name := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(readDocument(t, name), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			n++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = filepath.Join(filepath.Dir(name), file)
			}
			info, err := os.Stat(filepath.Join(project, to))
			if err != nil {
				t.Errorf("%s: %s is not there", name, m[1])
			} else if anchor != "" && (info.IsDir() || !slices.Contains(anchors(readDocument(t, to)), anchor)) {
				t.Errorf("%s: %s has no such heading", name, m[1])
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d links were found", n)
	}
}

// TestDocs: the documents name no verb and no flag that kedr has not.
func TestDocs(t *testing.T) {
	quoted := regexp.MustCompile("`kedr ([a-z][^`|]*)")
	line := regexp.MustCompile(`(?m)^    (?:[#$] )?kedr ([a-z].*)$`)
	flag := regexp.MustCompile(`^--?([a-z][a-z-]*)`)
	n := 0
	for _, name := range documents(t) {
		text := []byte(readDocument(t, name))
		for _, m := range append(quoted.FindAllSubmatch(text, -1), line.FindAllSubmatch(text, -1)...) {
			commands := commandsIn("kedr " + string(m[1]))
			if len(commands) == 0 {
				t.Errorf("%s: kedr %s: no command", name, m[1])
				continue
			}
			words := commands[0]
			// The columns of what the first KEDR had.
			if words[0] == "start" && (len(words) > 1 && (words[1] == "-f" || words[1] == "-c")) {
				continue
			}
			cmd, _, err := newRoot().Find(words)
			if err != nil || !cmd.HasParent() {
				t.Errorf("%s: kedr %s: no such verb", name, m[1])
				continue
			}
			n++
			cmd.InitDefaultHelpFlag()
			for _, w := range words[1:] {
				if w == "--" {
					break
				}
				f := flag.FindStringSubmatch(w)
				if f == nil {
					continue
				}
				known := cmd.Flags().Lookup(f[1]) != nil || cmd.InheritedFlags().Lookup(f[1]) != nil
				if len(f[1]) == 1 {
					known = cmd.Flags().ShorthandLookup(f[1]) != nil || cmd.InheritedFlags().ShorthandLookup(f[1]) != nil
				}
				if !known {
					t.Errorf("%s: kedr %s: no flag %s", name, m[1], w)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were found", n)
	}
	t.Logf("%d commands", n)
}

// TestSuppressionsDoc: what docs/suppressions.md shows is what a script runs, and gets.
func TestSuppressionsDoc(t *testing.T) {
	script, err := os.ReadFile("testdata/script/suppress.txtar")
	if err != nil {
		t.Fatal(err)
	}
	verb := regexp.MustCompile(`^(exec|status [0-9]) `)
	ran := make(map[string]bool)
	for l := range strings.Lines(string(script)) {
		l = strings.TrimPrefix(strings.TrimSpace(l), "! ")
		ran[verb.ReplaceAllString(l, "")] = true
	}
	doc, err := os.ReadFile("../../docs/suppressions.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for l := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(l, "    ") {
			continue
		}
		n++
		if l = strings.TrimPrefix(strings.TrimSpace(l), "$ "); !ran[l] {
			t.Errorf("no script has: %s", l)
		}
	}
	if n < 30 {
		t.Errorf("only %d lines were found", n)
	}
}
