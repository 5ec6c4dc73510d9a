package distro

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// vmlinux is an ELF file of nothing but a note of Xen's.
func vmlinux(t *testing.T, note uint32) []byte {
	t.Helper()
	notes := []any{uint32(4), uint32(8), note, [4]byte{'X', 'e', 'n'}, uint64(0x1000000)}
	const head, progs = 64, 56
	var b bytes.Buffer
	all := append([]any{
		elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64),
			Version: 1, Phoff: head, Ehsize: head, Phentsize: progs, Phnum: 1, Shentsize: 64},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: head + progs, Filesz: 24, Memsz: 24, Align: 4},
	}, notes...)
	for _, v := range all {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// bootFile packs a kernel as Linux does.
func bootFile(t testing.TB, kernel []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := binary.LittleEndian.AppendUint32(z.EncodeAll(kernel, nil), uint32(len(kernel)))
	b := make([]byte, 1024+16, 1024+16+len(packed))
	b[0x1f1] = 1
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x248:], 16)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(packed)))
	return append(b, packed...)
}

// unpacked makes the directory of a kernel with a boot file.
func unpacked(t *testing.T, image []byte) Kernel {
	t.Helper()
	k := Kernel{Release: "6.1.0-56-amd64", Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(k.Dir, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.Image(), image, 0o644); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBoot(t *testing.T) {
	want := vmlinux(t, 18)
	k := unpacked(t, bootFile(t, want))
	for range 2 { // made, and found
		got, err := os.ReadFile(k.Boot())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes that are not the kernel's %d", k.Boot(), len(got), len(want))
		}
	}
	if left, _ := filepath.Glob(filepath.Join(k.Dir, ".vmlinux*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestBootByBootFile(t *testing.T) {
	image := bootFile(t, vmlinux(t, 17))
	k := unpacked(t, image)
	if got, err := os.ReadFile(k.Boot()); err != nil || !bytes.Equal(got, image) {
		t.Errorf("a kernel without an entry for PVH boots from %s (%v), not from the boot file", k.Boot(), err)
	}
	if to, err := os.Readlink(k.Boot()); err != nil || to != "boot/vmlinuz-6.1.0-56-amd64" {
		t.Errorf("it is not remembered: %q, %v", to, err)
	}
	k = unpacked(t, []byte("not a kernel"))
	if k.Boot() != k.Image() {
		t.Errorf("what is no boot file boots from %s", k.Boot())
	}
}

func TestPayload(t *testing.T) {
	good := bootFile(t, []byte("kernel"))
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	for _, test := range []struct {
		name  string
		image []byte
		want  string // of the error
	}{
		{"empty", nil, "not a boot file"},
		{"cut off", good[:0x24f], "not a boot file"},
		{"no magic", change(0x202, 'X'), "not a boot file"},
		{"old", change(0x206, 7, 2), "boot protocol 2.07"},
		{"begins behind the end", change(0x248, 0xff, 0xff, 0xff, 0xff), "outside"},
		{"ends behind the end", change(0x24c, 0xff, 0xff, 0xff, 0xff), "outside"},
		{"no room for its size", change(0x24c, 3, 0, 0, 0), "outside"},
	} {
		if _, err := payload(test.image); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if err := unpackKernel(&bytes.Buffer{}, []byte("\x1f\x8b")); err == nil {
		t.Error("what is packed in an unknown way was unpacked")
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(bootFile(f, []byte("kernel")))
	f.Fuzz(func(t *testing.T, image []byte) {
		b, err := payload(image)
		if err == nil && len(b) > len(image) {
			t.Errorf("%d bytes of %d", len(b), len(image))
		}
		hasEntry(bytes.NewReader(image))
	})
}
