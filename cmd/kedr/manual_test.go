package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"kedr/internal/manual"
)

var updateReference = flag.Bool("update", false, "write docs/reference anew")

const referenceDir = "../../docs/reference"

// TestReference: docs/reference is what the commands' help says.
func TestReference(t *testing.T) {
	m := newManual(time.Time{})
	files, err := filepath.Glob(referenceDir + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range manual.Commands(newRoot()) {
		var b bytes.Buffer
		if err := m.Markdown(&b, c); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(referenceDir, manual.Name(c)+".md")
		files = slices.DeleteFunc(files, func(f string) bool { return f == name })
		if *updateReference {
			if err := os.WriteFile(name, b.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		was, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("%v: make docs-reference", err)
		} else if d := cmp.Diff(string(was), b.String()); d != "" {
			t.Errorf("%s is not current (make docs-reference): -was +is:\n%s", name, d)
		}
	}
	for _, f := range files {
		if *updateReference {
			os.Remove(f)
			continue
		}
		t.Errorf("%s: there is no such command (make docs-reference)", f)
	}
}

// TestHelp: each command's help has what who reads it looks for, and a page of the manual.
func TestHelp(t *testing.T) {
	m := newManual(time.Unix(1_700_000_000, 0))
	n := 0
	for _, c := range manual.Commands(newRoot()) {
		n++
		t.Run(manual.Name(c), func(t *testing.T) {
			if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Long == "" {
				t.Errorf("short %q, long %q", c.Short, c.Long)
			}
			if c.Example == "" {
				t.Fatal("no example")
			}
			for line := range strings.Lines(c.Example) {
				for _, words := range commandsIn(line) {
					checkCommand(t, words)
				}
			}
			var page bytes.Buffer
			if err := m.Man(&page, c); err != nil {
				t.Fatal(err)
			}
			at := 0
			for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "EXAMPLES"} {
				i := strings.Index(page.String()[at:], "\n.SH "+section+"\n")
				if i < 0 {
					t.Fatalf("no section %s after the one before it:\n%s", section, page.String())
				}
				at += i
			}
			if !strings.Contains(page.String(), " 1 2023-11-14 ") {
				t.Errorf("no date:\n%s", page.String())
			}
		})
	}
	if n < 20 {
		t.Errorf("only %d commands", n)
	}
}

// commandsIn finds the calls of kedr in a line of shell, as words without quotes.
func commandsIn(line string) [][]string {
	var list [][]string
	var words []string
	var word strings.Builder
	quote, comment, in := rune(0), false, false
	endWord := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	end := func() {
		endWord()
		if len(words) > 1 && (words[0] == "kedr" || words[0] == "bin/kedr") {
			list = append(list, words[1:])
		}
		words = nil
	}
	for _, r := range line {
		switch {
		case comment:
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == '#' && !in:
			comment = true
		case strings.ContainsRune(";&|()<>\n", r):
			end()
		case r == ' ' || r == '\t':
			endWord()
		default:
			word.WriteRune(r)
			in = true
		}
	}
	end()
	return list
}

// checkCommand checks that kedr has a verb and flags, as words of a document call it.
func checkCommand(t *testing.T, words []string) {
	t.Helper()
	line := strings.Join(words, " ")
	root := newRoot()
	cmd, rest, err := root.Find(words)
	if err != nil {
		t.Errorf("kedr %s: %v", line, err)
		return
	}
	if !cmd.HasParent() && len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		t.Errorf("kedr %s: no such verb", line)
		return
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("kedr %s: %v", line, err)
		return
	}
	checkArgs(t, cmd, line)
}

func checkArgs(t *testing.T, cmd *cobra.Command, line string) {
	t.Helper()
	if help, _ := cmd.Flags().GetBool("help"); help {
		return
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("kedr %s: %v", line, err)
	}
}
