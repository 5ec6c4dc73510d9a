package leak

import "testing"

func TestPlace(t *testing.T) {
	const headers = "/root/.cache/kedr/headers/6.1.0-56-amd64/usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h"
	kernel := Frame{Function: "vfs_write"}
	other := Frame{Function: "helper", Module: "other", File: "/src/other.c"}
	header := Frame{Function: "kmalloc", Module: "m", File: headers, Inlined: true}
	own := Frame{Function: "m_write", Module: "m", File: "/src/m/m.c"}
	init := Frame{Function: "m_init", Module: "m", File: "/src/m/m.c"}
	unnamed := Frame{Module: "m"}
	for _, test := range []struct {
		stack []Frame
		want  string
	}{
		{[]Frame{own, init, kernel}, "m_write"},
		{[]Frame{header, own, kernel}, "m_write"},
		{[]Frame{other, header, init}, "m_init"},
		{[]Frame{header, kernel}, "kmalloc"},
		{[]Frame{unnamed, init}, "m_init"},
		{[]Frame{other, kernel}, ""},
		{nil, ""},
	} {
		f, ok := Place(test.stack, "m")
		if f.Function != test.want || ok != (test.want != "") {
			t.Errorf("%v: %q, %v", test.stack, f.Function, ok)
		}
	}
	for file, want := range map[string]bool{
		headers: true, "./include/linux/slab.h": true, "/home/u/linux/arch/x86/include/asm/io.h": true, "include/net/sock.h": true,
		"/src/m/m.c": false, "/src/m/include/m.h": false, "": false, "/src/linux/m.c": false,
	} {
		if got := (Frame{File: file}).Header(); got != want {
			t.Errorf("%s: %v", file, got)
		}
	}
}

// Which functions of the kernel's headers are in the target, and whether the compiler has
// inlined them, goes by the kernel and the build.
func TestFingerprintWithoutHeaders(t *testing.T) {
	own := Frame{Function: "m_write", Module: "m", File: "/src/m/m.c"}
	want := fingerprint("leak", "slab", "m", []Frame{own})
	for _, header := range []Frame{
		{Function: "kmalloc", Module: "m", File: "/usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h", Inlined: true},
		{Function: "kmalloc_noprof", Module: "m", File: "/home/u/linux/include/linux/slab.h", Inlined: true},
		{Function: "kmalloc_array", Module: "m", File: "./include/linux/slab.h"},
	} {
		if got := fingerprint("leak", "slab", "m", []Frame{header, own}); got != want {
			t.Errorf("with %s: %s, want %s", header.Function, got, want)
		}
	}
}
