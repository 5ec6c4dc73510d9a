package machine

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
)

func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	w := &frameWriter{w: &wire}
	long := bytes.Repeat([]byte("x"), maxFrame+5)
	if err := w.write(frameAlive, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := (stream{w, frameStdout}).Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := w.write(frameResult, long); err != nil {
		t.Fatal(err)
	}
	type frame struct {
		Type byte
		Len  int
	}
	var got []frame
	for {
		typ, b, err := readFrame(&wire)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, frame{byte(typ), len(b)})
	}
	if d := cmp.Diff([]frame{{'h', 0}, {'o', 5}, {'r', maxFrame}, {'r', 5}}, got); d != "" {
		t.Errorf("frames differ (-want +got):\n%s", d)
	}
}

func TestReadFrameRefuses(t *testing.T) {
	if _, _, err := readFrame(strings.NewReader("o\xff\xff\xff\x7f")); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a frame of 2 GiB: %v", err)
	}
	if _, _, err := readFrame(strings.NewReader("o\x05\x00\x00\x00abc")); err != io.ErrUnexpectedEOF {
		t.Errorf("a short frame: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("h\x00\x00\x00\x00o\x05\x00\x00\x00hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			if _, _, err := readFrame(r); err != nil {
				return
			}
		}
	})
}

func TestFindOops(t *testing.T) {
	const oops = `[    4.1] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    4.2] RIP: 0010:crash_init+0x11/0x1000 [crash]
[    4.3] ---[ end trace 0000000000000000 ]---
[    4.4] Kernel panic - not syncing: Fatal exception
[    4.5] ---[ end Kernel panic - not syncing: Fatal exception ]---`
	for _, test := range []struct{ name, console, want string }{
		{"none", "[    1.0] Linux version 6.1\r\n[    1.1] Run /init as init process\r\n", ""},
		{"oops", "[    4.0] crash: loading\r\n" + strings.ReplaceAll(oops, "\n", "\r\n") + "\r\n[    4.6] more\r\n", oops},
		{"cut", "x\n[    4.1] general protection fault, probably\n[    4.2] RIP: 0010:f", "[    4.1] general protection fault, probably\n[    4.2] RIP: 0010:f"},
	} {
		if d := cmp.Diff(test.want, findOops(test.console)); d != "" {
			t.Errorf("%s: oops differs (-want +got):\n%s", test.name, d)
		}
	}
}

func TestArchive(t *testing.T) {
	var buf bytes.Buffer
	a := &archive{w: cpio.NewWriter(&buf), dirs: make(map[string]bool)}
	for _, name := range []string{"/init", "/a/b/one", "/a/b/two"} {
		if err := a.file(name, 0o644, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.w.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := cpio.NewReader(&buf); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	// Each directory once, before what is in it.
	if d := cmp.Diff([]string{"init", "a", "a/b", "a/b/one", "a/b/two"}, names); d != "" {
		t.Errorf("names differ (-want +got):\n%s", d)
	}
}

func TestTail(t *testing.T) {
	var tl tail
	for range 5 {
		tl.Write(bytes.Repeat([]byte("a"), maxConsole))
	}
	tl.Write([]byte("end"))
	if s := tl.String(); len(s) > 2*maxConsole || !strings.HasSuffix(s, "aend") {
		t.Errorf("%d bytes are kept, the last %q", len(s), s[len(s)-4:])
	}
}
