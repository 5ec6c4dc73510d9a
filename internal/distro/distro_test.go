package distro

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		release, version string
		want             bool
	}{
		{"6.1.0-56-amd64", "6.1", true},
		{"6.12.117+deb12-amd64", "6.12", true},
		{"6.12.117+deb12-amd64", "6.1", false},
		{"6.1.0-56-amd64", "6.1.0-56-amd64", true},
		{"6.1.0-56-cloud-amd64", "6.1", false},
		{"6.1.0-56-cloud-amd64", "6.1-cloud", true},
		{"6.1.0-56-rt-amd64", "6.1-cloud", false},
		{"7.3.4+deb13-amd64", "7.3", true},
		{"6.1.0-56-686-pae", "6.1", false},
		{"6.1.0-56-686-pae", "6.1/i386", true},
		{"6.1.0-56-686-pae", "6.1-rt/i386", false},
		{"6.1.0-56-rt-686-pae", "6.1/i386", false},
		{"6.1.0-56-amd64", "6.1/i386", false},
		{"6.1.0-56-686-pae", "6.1.0-56-686-pae", true},
	} {
		if got := matches(test.release, test.version); got != test.want {
			t.Errorf("%s is %s: %v", test.release, test.version, got)
		}
	}
}

func TestVersion(t *testing.T) {
	for release, want := range map[string]string{
		"5.10.0-46-amd64": "5.10", "6.1.0-56-cloud-amd64": "6.1-cloud", "6.12.117+deb12-rt-amd64": "6.12-rt",
		"7.3.4+deb13-amd64": "7.3", "6.1.0-56-686-pae": "6.1/i386", "6.1.0-56-rt-686-pae": "6.1-rt/i386",
		"6.1.0-56-686": "6.1.0-56-686",
	} {
		if got := Version(release); got != want || !matches(release, got) {
			t.Errorf("%s is %q, want %q", release, got, want)
		}
	}
}

func TestNewest(t *testing.T) {
	names := strings.Fields(`linux-image-amd64 linux-image-6.1.0-9-amd64 linux-image-6.1.0-56-amd64
		linux-image-6.1.0-56-amd64-dbg linux-image-6.1.0-57-amd64-unsigned linux-image-6.1.0-58-rt-amd64
		linux-image-6.1.0-55-686-pae linux-image-6.1.0-59-686-pae-dbg linux-image-6.1.0-60-rt-686-pae
		linux-image-6.12.117+deb12-amd64 linux-image-6.12.90+deb12-amd64`)
	for version, want := range map[string]string{
		"6.1": "linux-image-6.1.0-56-amd64", "6.12": "linux-image-6.12.117+deb12-amd64",
		"6.1-rt": "linux-image-6.1.0-58-rt-amd64", "5.10": "",
		"6.1/i386": "linux-image-6.1.0-55-686-pae", "6.12/i386": "",
	} {
		if got := newest(names, version); got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}

func TestSources(t *testing.T) {
	ms := parseMirrors(`http://mirror.example/debian bookworm
http://mirror.example/debian bookworm
http://mirror.example/debian bookworm-updates
http://security.example/debian-security bookworm-security
http://other.example/apt stable-tools
`)
	if len(ms) != 4 {
		t.Errorf("mirrors: %v", ms)
	}
	own, err := sources(ms, "")
	if err != nil {
		t.Fatal(err)
	}
	const signed = "deb [signed-by=" + keyring + "] "
	if d := cmp.Diff(signed+"http://mirror.example/debian bookworm main\n"+
		signed+"http://mirror.example/debian bookworm-updates main\n"+
		signed+"http://security.example/debian-security bookworm-security main\n", own); d != "" {
		t.Errorf("the host's suites differ (-want +got):\n%s", d)
	}
	trixie, err := sources(ms, "trixie")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(signed+"http://mirror.example/debian trixie main\n"+
		signed+"http://security.example/debian-security trixie-security main\n", trixie); d != "" {
		t.Errorf("another suite differs (-want +got):\n%s", d)
	}
	if _, err := sources(parseMirrors("http://mirror.example/ubuntu noble\n"), ""); err == nil {
		t.Error("no Debian mirror, and no error")
	}
}

func TestRelocate(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "usr/src/linux-headers-1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Makefile":         "KBUILD_OUTPUT=/usr/src/linux-headers-1\ninclude /usr/src/linux-headers-1-common/Makefile\n",
		".kernelvariables": "CC = gcc-10\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := relocate(tmp, "/cache/headers"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Makefile":         "KBUILD_OUTPUT=/cache/headers/usr/src/linux-headers-1\ninclude /cache/headers/usr/src/linux-headers-1-common/Makefile\n",
		".kernelvariables": "CC = gcc-10\n" + anyCompiler,
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if d := cmp.Diff(want, string(b)); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, d)
		}
	}
}

func TestImageParts(t *testing.T) {
	const release = "7.3.4+deb13-amd64"
	deps := []string{"dracut", "initramfs-tools", "linux-initramfs-tool", "linux-base-" + release,
		"linux-binary-" + release, "linux-modules-" + release}
	if d := cmp.Diff(deps[3:], imageParts(deps, release)); d != "" {
		t.Errorf("Linux 7 (-want +got):\n%s", d)
	}
	if got := imageParts([]string{"kmod", "linux-base", "initramfs-tools"}, "6.1.0-56-amd64"); got != nil {
		t.Errorf("6.1 is in one package, not in %v, too", got)
	}
}

func TestCached(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	if ks, err := s.Cached(); err != nil || len(ks) != 0 {
		t.Errorf("an empty store: %v, %v", ks, err)
	}
	for _, image := range []string{"6.1.0-9-amd64/boot/vmlinuz-6.1.0-9-amd64", "6.12.1-amd64/boot/vmlinuz-6.12.1-amd64",
		"6.1.0-56-amd64/boot/vmlinuz-6.1.0-56-amd64", "7.3.4-amd64/usr/lib/modules/7.3.4-amd64/vmlinuz"} {
		name := filepath.Join(s.kernels(), image)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What a killed fetch has left is no kernel.
	if err := os.MkdirAll(filepath.Join(s.kernels(), ".unpacking-1", "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	ks, err := s.Cached()
	var releases []string
	for _, k := range ks {
		releases = append(releases, k.Release)
	}
	if d := cmp.Diff([]string{"7.3.4-amd64", "6.12.1-amd64", "6.1.0-56-amd64", "6.1.0-9-amd64"}, releases); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if k, ok, err := s.Find("6.1"); err != nil || !ok || k.Release != "6.1.0-56-amd64" {
		t.Errorf("%v, %v, %v", k, ok, err)
	}
	if _, ok, _ := s.Find("5.10"); ok {
		t.Error("found 5.10")
	}
}

func TestIsVersion(t *testing.T) {
	for _, v := range []string{"6.1", "6.1-cloud", "6.1-rt", "6.1/i386", "6.1.0-56-686-pae", "6.12.117+deb12-amd64", "7.3.4+deb13-amd64", "6.12~rc1"} {
		if !IsVersion(v) {
			t.Errorf("%q is none", v)
		}
	}
	for _, v := range []string{"", "v6.1", "6.1/arm64", "../6.1", "6.1/../x", "6.1 ", "6.1-a/b", "6..1", strings.Repeat("6", 101)} {
		if IsVersion(v) {
			t.Errorf("%q is one", v)
		}
	}
}
