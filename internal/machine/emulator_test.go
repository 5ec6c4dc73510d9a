package machine

import (
	"testing"

	"kedr/internal/distro"
)

func TestCPU(t *testing.T) {
	for _, tc := range []struct{ release, version, want string }{
		{"6.12.117-amd64", "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n", "max,-cx16"},
		{"6.12.117-amd64", "QEMU emulator version 6.2.0\n", "max,-cx16"},
		{"6.12.117-amd64", "QEMU emulator version 8.0.0\n", "max"},
		{"6.12.117-amd64", "QEMU emulator version 10.1.2 (qemu-10.1.2)\n", "max"},
		{"6.12.117-amd64", "", "max"},
		{"6.17.9-amd64", "QEMU emulator version 7.2.22\n", "max,-cx16"},
		{"6.18.1-amd64", "QEMU emulator version 7.2.22\n", "max"},
		{"7.3.4+deb13-amd64", "QEMU emulator version 7.2.22\n", "max"},
		{"6.1.0-50-686-pae", "QEMU emulator version 7.2.22\n", "max"},
	} {
		c := Config{Kernel: distro.Kernel{Release: tc.release}, version: []byte(tc.version)}
		if got := c.cpu(); got != tc.want {
			t.Errorf("%s under %q: CPU %q, want %q", tc.release, tc.version, got, tc.want)
		}
	}
}
