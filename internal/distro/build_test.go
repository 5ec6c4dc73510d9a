package distro

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewestLibrary(t *testing.T) {
	for _, test := range []struct {
		want     string
		versions []string
	}{
		{"", nil},
		{"", []string{"GLIBC_PRIVATE", "GLIBC_ABI_DT_RELR", "ELFUTILS_1.5", "GLIBC_"}},
		{"2.38", []string{"GLIBC_2.2.5", "GLIBC_2.38", "GLIBC_2.4", "OPENSSL_3.0.0"}},
		{"2.3.4", []string{"GLIBC_2.3.4", "GLIBC_2.3"}},
	} {
		if got := newestLibrary(test.versions); got != test.want {
			t.Errorf("%v: %q, want %q", test.versions, got, test.want)
		}
	}
}

// The newest is that of the program that needs most, wherever it is; scripts,
// data and programs without libraries are no obstacle.
func TestLibraryNeed(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"mkmakefile": 0o755, "Kbuild.include": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable() // static
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "static"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := libraryNeed(dir); err != nil || got != "" {
		t.Errorf("nothing that is linked: %q, %v", got, err)
	}
	b, err = os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "mod"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mod", "sh"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := libraryNeed(dir); err != nil || got == "" {
		t.Errorf("the shell: %q, %v", got, err)
	}
}

func TestParseDepends(t *testing.T) {
	got := parseDepends(`linux-headers-7.3.4+deb13-amd64
  Depends: <gcc-14-for-host>
    gcc-14-x86-64-linux-gnu
 |Depends: dracut
  Depends: linux-kbuild-7.3.4+deb13
  PreDepends: dpkg
  Recommends: apparmor
`)
	if d := cmp.Diff([]string{"gcc-14-for-host", "linux-kbuild-7.3.4+deb13", "dpkg"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRecipe(t *testing.T) {
	r := newRecipe("trixie-backports", []string{"linux-base", "gcc-14-for-host", "linux-kbuild-7.3.4+deb13", "libc6", "make", "libc6"})
	if d := cmp.Diff("trixie\nbinutils\ngcc-14-for-host\nlibc6\nmake\n", r.text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	kept, ok := parseRecipe(r.text())
	if !ok || kept.name() != r.name() {
		t.Errorf("%v, kept as %v", r, kept)
	}
	if _, ok := parseRecipe(""); ok {
		t.Error("an empty recipe")
	}
	if other := newRecipe("trixie", []string{"gcc-15"}); other.name() == r.name() {
		t.Errorf("two recipes make %s", r.name())
	}
}

func TestAcquireSettings(t *testing.T) {
	got := acquireSettings(`APT::Architecture "amd64";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::Packages::Optional "0";
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::AllowInsecureRepositories "1";
`)
	if d := cmp.Diff("Acquire::Check-Valid-Until \"false\";\nAcquire::http::Proxy \"http://proxy.example:3142\";\n", got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestBuildEnv(t *testing.T) {
	got := buildEnv([]string{"PATH=/bin", "MAKEFLAGS=-j4 --jobserver-auth=3,4", "MAKELEVEL=1", "MAKER=me"})
	if d := cmp.Diff([]string{"PATH=/bin", "MAKER=me"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParseURIs(t *testing.T) {
	got := parseURIs(`'http://mirror.example/pool/l/libcap2_2.66-4_i386.deb' libcap2_1%3a2.66-4_i386.deb 100 SHA256:00
'http://mirror.example/pool/d/dash_0.5_i386.deb' dash_0.5_i386.deb 23 SHA256:00
W: something else
`)
	if d := cmp.Diff([]offer{{"libcap2", 100}, {"dash", 23}}, got, cmp.AllowUnexported(offer{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestLastWords(t *testing.T) {
	for stderr, want := range map[string]string{
		"E: one\nE: two\n": "E: two",
		"chroot: Exec format error\nI: main() received signal\nE: mmdebstrap failed to run\n": "chroot: Exec format error",
		"": "",
		"E: Failed to fetch it  File has unexpected size\n   Hashes of expected file:\nE: Some index files failed to download. They have been ignored.\n": "E: Failed to fetch it  File has unexpected size",
		strings.Repeat("x", 301): strings.Repeat("x", 300) + "...",
	} {
		if got := lastWords(stderr); got != want {
			t.Errorf("%q: %q, want %q", stderr, got, want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	_, err := outputOf(t.Context(), exec.Command("sh", "-c", "kill -INT $$"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_, err = outputOf(t.Context(), exec.Command("sh", "-c", "echo no room >&2; exit 3"))
	if err == nil || errors.Is(err, context.Canceled) || !strings.HasSuffix(err.Error(), ": no room") {
		t.Errorf("%v", err)
	}
}

func TestUnpackInto(t *testing.T) {
	dir := t.TempDir()
	root, pkg := filepath.Join(dir, "root"), filepath.Join(dir, "package")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755),
		os.Symlink("usr/bin", filepath.Join(root, "bin")),
		os.MkdirAll(filepath.Join(pkg, "bin"), 0o755),
		os.WriteFile(filepath.Join(pkg, "bin/tool"), []byte("tool"), 0o755),
		os.MkdirAll(filepath.Join(pkg, "DEBIAN"), 0o755),
		os.WriteFile(filepath.Join(pkg, "DEBIAN/control"), []byte("Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: us <us@example.org>\nDescription: a tool\n"), 0o644),
		run(t.Context(), "dpkg-deb", "-b", pkg, filepath.Join(dir, "tool.deb")),
		unpackInto(t.Context(), root, []string{filepath.Join(dir, "tool.deb")}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(root, "usr/bin/tool")); err != nil || string(b) != "tool" {
		t.Errorf("%q, %v: the link to usr/bin was replaced", b, err)
	}
	if err := unpackInto(t.Context(), root, []string{filepath.Join(dir, "none.deb")}); err == nil {
		t.Error("a package that is not there was unpacked")
	}
}
