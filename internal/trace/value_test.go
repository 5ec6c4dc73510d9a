package trace

import "testing"

func TestFormat(t *testing.T) {
	gfp := Type{Class: Flags, Name: "gfp_t", Size: 4, Names: []Name{{0x400, "__GFP_IO"}, {0x800, "__GFP_FS"}, {0xcc0, "GFP_KERNEL"}, {0x100, "__GFP_ZERO"}, {0xc0, "__GFP_RECLAIM"}}}
	mode := Type{Class: Flags, Size: 4, Names: []Name{{0, "O_RDONLY"}, {1, "O_WRONLY"}}}
	for _, test := range []struct {
		typ  Type
		raw  uint64
		want string
	}{
		{Type{Class: Int, Size: 4}, 0xdeadbeef00000005, "5"}, // what lies above is anything
		{Type{Class: Int, Size: 4, Signed: true}, 0x00000000fffffff4, "-12"},
		{Type{Class: Int, Size: 8, Signed: true}, ^uint64(0), "-1"},
		{Type{Class: Int, Size: 8}, ^uint64(0), "18446744073709551615"},
		{Type{Class: Int, Size: 2, Base: 8}, 0x1a4, "0644"},
		{Type{Class: Int, Size: 4, Base: 16}, 255, "0xff"},
		{Type{Class: Bool, Size: 1}, 0xff00, "false"},
		{Type{Class: Bool, Size: 1}, 1, "true"},
		{Type{Class: Char, Size: 1}, 'x', "'x'"},
		{Type{Class: Char, Size: 1}, 7, "7"},
		{Type{Class: Enum, Size: 4, Names: []Name{{1, "ONE"}}}, 1, "ONE"},
		{Type{Class: Enum, Size: 4, Names: []Name{{1, "ONE"}}}, 2, "2"},
		{Type{Class: Enum, Size: 4, Signed: true, Names: []Name{{^uint64(0), "MINUS"}}}, 0xffffffff, "MINUS"},
		{gfp, 0xdc0, "GFP_KERNEL|__GFP_ZERO"},
		{gfp, 0x10000400, "__GFP_IO|0x10000000"},
		{gfp, 0, "0"},
		{mode, 0, "O_RDONLY"},
		{Type{Class: Pointer, Name: "struct file *", Size: 8}, 0xffff888003a4c000, "(struct file *)0xffff888003a4c000"},
		{Type{Class: Pointer, Name: "void *", Size: 8}, 0xffff888003a4c000, "0xffff888003a4c000"},
		{Type{Class: Pointer, Name: "struct file *", Size: 8}, 0, "NULL"},
		{Type{Class: Pointer, Name: "struct file *", Size: 8}, ^uint64(11), "-ENOMEM"},
		{Type{Class: Pointer, Name: "struct \x1b[31m *", Size: 8}, 0x1000, `(struct \x1b[31m *)0x1000`},
		{Type{Class: Pointer, Size: 8}, ^uint64(4000), "-4001"},
		{Type{Class: Void}, 77, ""},
		{Type{Class: Struct, Size: 16}, 77, "{...}"},
	} {
		if got := test.typ.Format(test.raw); got != test.want {
			t.Errorf("%+v of %#x: %s, want %s", test.typ, test.raw, got, test.want)
		}
	}
}

func TestError(t *testing.T) {
	for _, test := range []struct {
		typ    Type
		raw    uint64
		name   string
		failed bool
	}{
		{Type{Class: Int, Size: 4, Signed: true}, 0xfffffff4, "ENOMEM", true},
		{Type{Class: Int, Size: 4, Signed: true}, 0xfffffdfb, "EPROBE_DEFER", true}, // -517
		{Type{Class: Int, Size: 4}, 0xfffffff4, "", false},
		{Type{Class: Int, Size: 4, Signed: true}, 5, "", false},
		{Type{Class: Int, Size: 8, Signed: true}, ^uint64(4095), "", false}, // -4096
		{Type{Class: Pointer, Size: 8}, 0, "", true},
		{Type{Class: Pointer, Size: 8}, ^uint64(1), "ENOENT", true},
		{Type{Class: Pointer, Size: 8}, 0xffff888000000000, "", false},
		{Type{Class: Bool, Size: 1}, 0, "", false},
		{Type{Class: Void}, ^uint64(1), "", false},
	} {
		if name, failed := test.typ.Error(test.raw); name != test.name || failed != test.failed {
			t.Errorf("%+v of %#x: %q %v, want %q %v", test.typ, test.raw, name, failed, test.name, test.failed)
		}
	}
}

func TestCaptured(t *testing.T) {
	text := Type{Class: String}
	for _, test := range []struct {
		c    Captured
		typ  Type
		want string
	}{
		{Captured{Data: []byte("a\n\x1b\"ü")}, text, `"a\n\x1b\"\u00fc"`},
		{Captured{Data: []byte("abc"), Cut: true}, text, `"abc"...`},
		{Captured{Failed: true}, text, "(unreadable)"},
		{Captured{Data: []byte{1, 2}}, Type{Class: Int, Size: 2, Base: 16}, "0x201"},
	} {
		if got := test.c.Format(&test.typ); got != test.want {
			t.Errorf("%+v: %s, want %s", test.c, got, test.want)
		}
	}
}
