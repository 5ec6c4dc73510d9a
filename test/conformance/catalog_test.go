//go:build guest

package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCatalog: functions that kedr does not know, in three lines.
func TestCatalog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proc.toml")
	err := os.WriteFile(file, []byte(`kind = "directory"
obtain = [{symbols = ["proc_mkdir"]}]
release = [{symbols = ["proc_remove"], address = "de", parameters = "de"}]
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if o := kedr(t, "plan", "--catalog", file, ko("private")); o.status != 0 ||
		!strings.Contains(o.stdout, "directory  obtains   proc_mkdir") || !strings.Contains(o.stdout, "directory  releases  proc_remove") {
		t.Errorf("plan: %+v", o)
	}
	o := kedr(t, "run", "--vm=never", "--catalog", file, "--format", "json", ko("private"))
	if o.status != 1 {
		t.Errorf("exit status %d, want 1\n%s", o.status, o.stderr)
	}
	check(t, parse(t, o), expected(t, "private"), 1)
	nothingLeft(t, "private")
	// Without it, nothing is known of them.
	if o := kedr(t, "run", "--vm=never", ko("clean")); o.status != 0 {
		t.Errorf("clean: %+v", o)
	}
	if o := kedr(t, "catalog", "check", "--catalog", file); o.status != 0 || !strings.Contains(o.stdout, "directory") {
		t.Errorf("check: %+v", o)
	}
}
