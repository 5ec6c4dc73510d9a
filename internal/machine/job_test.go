package machine

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJob(t *testing.T) {
	var wire bytes.Buffer
	want := &job{Argv: []string{"a", "b c"}, Env: []string{"X=1"}, Dir: "/d", RootFS: root9p, Result: true, Lib: "/lib", Time: 12345, Seed: []byte{1, 2}}
	files := []File{{Name: "/target/m.ko", Mode: 0o600, Content: []byte("module")}, {Name: "/empty", Mode: 0o755}}
	if err := want.send(&wire, files); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	got, err := receiveJob(&wire, root)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("job differs (-want +got):\n%s", d)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(root, f.Name))
		if err != nil || !bytes.Equal(b, f.Content) {
			t.Errorf("%s: %q, %v", f.Name, b, err)
		}
		st, err := os.Stat(filepath.Join(root, f.Name))
		if err == nil && st.Mode().Perm() != f.Mode {
			t.Errorf("%s: mode %v, want %v", f.Name, st.Mode(), f.Mode)
		}
	}
}

func TestReceiveJobRefuses(t *testing.T) {
	long := binary.LittleEndian.AppendUint32(nil, maxJob+1)
	for _, test := range []struct{ name, wire, want string }{
		{"nothing", "", "EOF"},
		{"too long", string(long), "at most"},
		{"cut", "\x05\x00\x00\x00{}", "unexpected EOF"},
		{"no JSON", "\x02\x00\x00\x00{]", "invalid character"},
		{"file cut", "\x26\x00\x00\x00" + `{"Files":[{"Name":"/f","Size":  3}  ]}` + "xy", "receiving /f"},
	} {
		if _, err := receiveJob(strings.NewReader(test.wire), t.TempDir()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.name, err, test.want)
		}
	}
}
