package describe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kedr/internal/trace"
)

func none(string) (uint64, bool) { return 0, false }

// TestFormat reads what the kernels print, as their machines had it in
// /sys/kernel/tracing/events/kmem/kmalloc/format.
func TestFormat(t *testing.T) {
	for kernel, want := range map[string]map[string]uint64{
		// 0x200 was __GFP_ATOMIC, and GFP_NOWAIT does not warn since 6.7.
		"5.10": {"GFP_KERNEL": 0xcc0, "GFP_ATOMIC": 0xa20, "__GFP_ATOMIC": 0x200, "GFP_NOWAIT": 0x800, "__GFP_ZERO": 0x100, "GFP_TRANSHUGE_LIGHT": 0x1c20ca & ^uint64(0xc00), "__GFP_ACCOUNT": 0x400000},
		"6.1":  {"GFP_KERNEL": 0xcc0, "GFP_ATOMIC": 0xa20, "GFP_NOWAIT": 0x800, "__GFP_ZEROTAGS": 0x800000},
		"6.12": {"GFP_KERNEL": 0xcc0, "GFP_ATOMIC": 0x820, "GFP_NOWAIT": 0x2800, "__GFP_ZERO": 0x100, "GFP_KERNEL_ACCOUNT": 0x400cc0},
		"7.3":  {"GFP_KERNEL": 0xcc0, "GFP_ATOMIC": 0x820, "GFP_NOWAIT": 0x2800, "__GFP_DMA": 1, "GFP_DMA": 1},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", "kmalloc-"+kernel+".format"))
		if err != nil {
			t.Fatal(err)
		}
		names, err := parseFormat(string(b), "gfp_flags", none)
		if err != nil {
			t.Fatalf("%s: %v", kernel, err)
		}
		got := make(map[string]uint64)
		for _, n := range names {
			got[n.Name] = n.Value
			if n.Value == 0 || n.Value>>32 != 0 {
				t.Errorf("%s: %s is %#x", kernel, n.Name, n.Value)
			}
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %#x, want %#x", kernel, name, got[name], value)
			}
		}
		entries := strings.Count(string(b), `, "GFP_`) + strings.Count(string(b), `, "__GFP_`)
		if len(names) != entries {
			t.Errorf("%s: %d names, and the file has %d", kernel, len(names), entries)
		}
		if names[0].Name != "GFP_TRANSHUGE" {
			t.Errorf("%s: %s comes first", kernel, names[0].Name)
		}
	}
}

// TestFormatForms: what kernels between those have, and what no kernel has yet.
func TestFormatForms(t *testing.T) {
	bits := func(name string) (uint64, bool) {
		v, ok := map[string]uint64{"___GFP_ZERO_BIT": 8, "___GFP_IO_BIT": 6}[name]
		return v, ok
	}
	for _, test := range []struct {
		value string
		want  uint64 // 0: left out
	}{
		{"0x100u", 0x100},
		{"(( gfp_t)0x100u)", 0x100},
		{"( unsigned long)(( gfp_t)((((1UL))) << (___GFP_ZERO_BIT)))", 0x100},
		{"(unsigned long)((( gfp_t)((((1UL))) << (___GFP_ZERO_BIT)))|(( gfp_t)((((1UL))) << (___GFP_IO_BIT))))", 0x140},
		{"(gfp_t)BIT(___GFP_ZERO_BIT)", 0x100},
		{"((__force gfp_t)0x40u) & ~0x40u", 0},
		{"(0xffu) & ~(u32)0x0fULL", 0xf0},
		{"1 << 4 | 1 << 3", 0x18},
		{"0xf0 & 0xff | 1", 0xf1},
		{"1 | 2 & 2", 3},
		{"010", 8},
		{"(((((1)))))", 1},
		{"-1 + 3", 2},
		{"((void *)0)", 0},
		{"___GFP_WHAT", 0},
		{"1 << ___GFP_WHAT", 0},
		{"1 << 2 + 3", 0}, // 32 in C, and 7 in Go
		{"x(1)", 0},
		{"1.5", 0},
		{"'a'", 0},
		{"0x10000000000000000", 0},
		{"1 << 100", 0},
		{"1 +", 0},
		{"(unsigned long)", 0},
		{"", 0},
	} {
		names, err := parseFormat(`print fmt: "x", __print_flags(REC->gfp_flags, "|", {`+test.value+`, "NAME"}, {1, "LAST"} ) : "none"`, "gfp", bits)
		want := []trace.Name{{Value: test.want, Name: "NAME"}, {Value: 1, Name: "LAST"}}
		if test.want == 0 {
			want = want[1:]
		}
		if err != nil || len(names) != len(want) || names[0] != want[0] {
			t.Errorf("%s: %v, %v; want %v", test.value, names, err, want)
		}
	}
	for _, format := range []string{
		"", "print fmt: %d", `__print_flags(`, `__print_flags(REC->gfp_flags, "|"`, `__print_flags(REC->gfp_flags, "|", {1, "A"}`,
		`__print_flags(REC->other, "|", {1, "A"})`, `__print_flags(REC->gfp_flags, "|")`, `__print_flags(REC->gfp_flags, "|", {1})`,
		`__print_flags(REC->gfp_flags, "|", {1, A})`, `__print_flags(REC->gfp_flags, "|", {1, "A)`,
	} {
		if names, err := parseFormat(format, "gfp", bits); err == nil {
			t.Errorf("%s: %v", format, names)
		}
	}
	// Another word's table may come first.
	names, err := parseFormat(`__print_flags(REC->flags, "|", {1, "A"}), __print_flags(REC->gfp_flags, "|", {2, "a, \"b\")"})`, "gfp", bits)
	if err != nil || len(names) != 1 || names[0] != (trace.Name{Value: 2, Name: `a, "b")`}) {
		t.Errorf("%v, %v", names, err)
	}
}

func FuzzParseFormat(f *testing.F) {
	files, err := filepath.Glob("testdata/*.format")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(`__print_flags(REC->gfp_flags, "|", {(((1UL) << (___GFP_ZERO_BIT))), "A"}, {~(u32)0, "B"})`)
	f.Fuzz(func(t *testing.T, format string) {
		names, err := parseFormat(format, "gfp", func(string) (uint64, bool) { return 7, true })
		if (err == nil) != (len(names) > 0) {
			t.Errorf("%v, %v", names, err)
		}
		for _, n := range names {
			if n.Value == 0 || n.Name == "" {
				t.Errorf("%+v", n)
			}
		}
	})
}
