package leak

import (
	"regexp"
	"slices"
	"testing"
)

func TestFingerprint(t *testing.T) {
	// A function that calls itself, an inlined one, and the kernel's frames around.
	stack := func() []Frame {
		return []Frame{
			{Address: 0xffffffffc0500047, Function: "get", Offset: 7, Size: 9, Module: "m", File: "/src/m/get.c", Line: 3},
			{Address: 0xffffffffc0500060, Function: "walk", Module: "m", File: "/src/m/walk.h", Line: 10, Inlined: true},
			{Address: 0xffffffffc0500060, Function: "walk", Offset: 8, Size: 16, Module: "m", File: "/src/m/walk.h", Line: 12},
			{Address: 0xffffffff81000100, Function: "vfs_read", Offset: 4, Size: 8},
			{Address: 0xffffffffc0500080, Function: "start", Offset: 8, Size: 16, Module: "m", File: "/src/m/m.c", Line: 90},
			{Address: 0xffffffff81000200, Function: "do_one_initcall", Offset: 4, Size: 8},
		}
	}
	of := func(change func(s []Frame) []Frame) string { return fingerprint("leak", "slab", "m", change(stack())) }
	each := func(change func(*Frame)) string {
		return of(func(s []Frame) []Frame {
			for i := range s {
				change(&s[i])
			}
			return s
		})
	}
	want := of(func(s []Frame) []Frame { return s })
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(want) {
		t.Fatalf("fingerprint %q", want)
	}
	// Whoever keeps fingerprints of old reports must not find them all changed.
	if want != "a6f4c6fe87e15341" {
		t.Errorf("the recipe has changed: %s; count its number up", want)
	}
	same := map[string]string{
		"addresses": each(func(f *Frame) { f.Address += 0x1000 }),
		"offsets":   each(func(f *Frame) { f.Offset, f.Size = f.Offset+1, f.Size+1 }),
		"lines":     each(func(f *Frame) { f.Line++ }),
		"directories": each(func(f *Frame) {
			if f.File != "" {
				f.File = "build/" + base(f.File)
			}
		}),
		"inferred":        each(func(f *Frame) { f.Inferred = true }),
		"what is inlined": each(func(f *Frame) { f.Inlined = false }),
		"a variant":       of(func(s []Frame) []Frame { s[0].Function = "get.constprop.0"; return s }),
		"kernel function": of(func(s []Frame) []Frame { s[3].Function = "ksys_read"; return s }),
		"another kernel":  of(func(s []Frame) []Frame { return slices.Delete(s, 3, 4) }),
		"another module":  of(func(s []Frame) []Frame { s[3].Module, s[3].File = "bus", "bus.c"; return s }),
		"cut off":         of(func(s []Frame) []Frame { return s[:5] }),
	}
	for what, got := range same {
		if got != want {
			t.Errorf("other %s: fingerprint %s, want %s", what, got, want)
		}
	}
	differ := map[string]string{
		"":                      want,
		"function":              of(func(s []Frame) []Frame { s[0].Function = "get2"; return s }),
		"file":                  of(func(s []Frame) []Frame { s[0].File = "get2.c"; return s }),
		"depth of recursion":    of(func(s []Frame) []Frame { return slices.Insert(s, 2, s[2]) }),
		"order":                 of(func(s []Frame) []Frame { s[0], s[2] = s[2], s[0]; return s }),
		"caller":                of(func(s []Frame) []Frame { return slices.Delete(s, 4, 5) }),
		"kind":                  fingerprint("leak", "vmalloc", "m", stack()),
		"find":                  fingerprint("double", "slab", "m", stack()),
		"name cut differently":  of(func(s []Frame) []Frame { s[0].Function, s[0].File = "getg", "et.c"; return s }),
		"without names":         each(func(f *Frame) { f.Module, f.File = "", "" }),
		"without names, others": each(func(f *Frame) { f.Module, f.File, f.Function = "", "", f.Function+"2" }),
		"without a stack":       fingerprint("leak", "slab", "m", nil),
	}
	seen := make(map[string]string)
	for what, f := range differ {
		if other, ok := seen[f]; ok {
			t.Errorf("%q and %q have the same fingerprint %s", what, other, f)
		}
		seen[f] = what
	}
}
