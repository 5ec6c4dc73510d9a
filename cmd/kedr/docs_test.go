package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocs: the documents name no verb and no flag that kedr has not.
func TestDocs(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`kedr ([a-z][^`|]*)")
	line := regexp.MustCompile(`(?m)^    (?:[#$] )?kedr ([a-z].*)$`)
	flag := regexp.MustCompile(`^--?([a-z][a-z-]*)`)
	n := 0
	for _, name := range append(files, "../../README.md", "../../CONTRIBUTING.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(quoted.FindAllSubmatch(text, -1), line.FindAllSubmatch(text, -1)...) {
			words := strings.Fields(string(m[1]))
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
