package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// scriptsIn finds the shell commands of a CI system's file: what stands below certain keys.
func scriptsIn(node *yaml.Node, keys ...string) []string {
	var out []string
	var text func(n *yaml.Node) string
	text = func(n *yaml.Node) string {
		if n.Kind == yaml.ScalarNode {
			return n.Value + "\n"
		}
		var b strings.Builder
		for _, c := range n.Content {
			b.WriteString(text(c))
		}
		return b.String()
	}
	if node.Kind == yaml.MappingNode {
		for i := 0; i < len(node.Content); i += 2 {
			for _, k := range keys {
				if node.Content[i].Value == k {
					out = append(out, text(node.Content[i+1]))
				}
			}
		}
	}
	for _, c := range node.Content {
		out = append(out, scriptsIn(c, keys...)...)
	}
	return out
}

// TestCI: the examples for CI systems are YAML, their commands are shell, and what they
// call kedr with it knows.
func TestCI(t *testing.T) {
	const dir = "../../examples/ci"
	keys := map[string][]string{"github.yml": {"run"}, "gitlab-ci.yml": {"script", "before_script"}, "ci.sh": nil}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(keys) {
		t.Errorf("%d files, want %d", len(files), len(keys))
	}
	calls := map[string]int{}
	call := regexp.MustCompile(`(?m)(?:^|\s)(?:"\$kedr"|kedr/bin/kedr) (.*)$`)
	for name, keys := range keys {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		scripts := []string{string(b)}
		if keys != nil {
			var doc yaml.Node
			if err := yaml.Unmarshal(b, &doc); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			scripts = scriptsIn(&doc, keys...)
		}
		for _, s := range scripts {
			sh := exec.Command("sh", "-n")
			sh.Stdin = strings.NewReader(s)
			if out, err := sh.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s\n%s", name, err, out, s)
			}
			if strings.Contains(s, "examples/ci/ci.sh") {
				calls[name]++
			}
			for _, m := range call.FindAllStringSubmatch(strings.ReplaceAll(s, "\\\n", " "), -1) {
				calls[name]++
				cmd, rest, err := newRoot().Find(strings.Fields(strings.ReplaceAll(m[1], `"`, "")))
				if err == nil && !cmd.HasParent() {
					t.Errorf("%s: kedr %s: no such verb", name, m[1])
				}
				if err == nil {
					err = cmd.ParseFlags(rest)
				}
				if err != nil {
					t.Errorf("%s: kedr %s: %v", name, m[1], err)
				}
			}
		}
	}
	for name := range keys {
		if calls[name] != 2 {
			t.Errorf("%s: %d calls of kedr, want 2", name, calls[name])
		}
	}
}
