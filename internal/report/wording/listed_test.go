package wording

import (
	"testing"

	"kedr/internal/leak"
)

// An annotation in a header of the kernel's is one in a file that the driver's project has not.
func TestInnermost(t *testing.T) {
	header := leak.Frame{Function: "kmalloc", Module: "m", File: "/usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h", Line: 568, Inlined: true}
	own := leak.Frame{Function: "m_write", Module: "m", File: "/src/m.c", Line: 37}
	other := leak.Frame{Function: "help", Module: "other", File: "/src/o.c", Line: 1}
	for _, test := range []struct {
		stack []leak.Frame
		want  string
	}{
		{[]leak.Frame{header, own}, "m_write"},
		{[]leak.Frame{other, header, own}, "m_write"},
		{[]leak.Frame{header}, "kmalloc"},
		{[]leak.Frame{other}, ""},
	} {
		got := ""
		if f := Innermost(test.stack, "m"); f != nil {
			got = f.Function
		}
		if got != test.want {
			t.Errorf("%v: %q, want %q", test.stack, got, test.want)
		}
	}
}
