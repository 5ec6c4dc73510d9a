package describe

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"kedr/internal/trace"
)

// Types of C, as the kernel's BTF has them.
var (
	void  = (*btf.Void)(nil)
	char  = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	u8    = typedef("u8", &btf.Int{Name: "unsigned char", Size: 1})
	cint  = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	uint_ = &btf.Int{Name: "unsigned int", Size: 4}
	ulong = &btf.Int{Name: "long unsigned int", Size: 8}
	long  = &btf.Int{Name: "long int", Size: 8, Encoding: btf.Signed}
	bool_ = &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	wide  = &btf.Int{Name: "__int128", Size: 16, Encoding: btf.Signed}
	sizeT = typedef("size_t", typedef("__kernel_size_t", ulong))
	gfpT  = typedef("gfp_t", uint_)
	umode = typedef("umode_t", &btf.Int{Name: "short unsigned int", Size: 2})
	slabT = typedef("slab_flags_t", uint_)

	state = &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "OFF", Value: 0}, {Name: "ON", Value: 1}}}
	// As BTF before 6.2 has it, without a sign.
	unsign = &btf.Enum{Name: "old", Size: 4, Values: []btf.EnumValue{{Name: "BAD", Value: 0xffffffff}, {Name: "GOOD", Value: 0}}}
	large  = &btf.Enum{Name: "large", Size: 8, Values: []btf.EnumValue{{Name: "HIGH", Value: 1 << 40}}}
	signed = &btf.Enum{Name: "signed", Size: 4, Signed: true, Values: []btf.EnumValue{{Name: "MINUS", Value: 0xffffffffffffffff}}}

	path_  = &btf.Struct{Name: "path", Size: 16, Members: []btf.Member{{Name: "mnt", Type: ptr(void)}, {Name: "dentry", Type: ptr(void), Offset: 64}}}
	file   = fileType()
	pair   = &btf.Struct{Name: "pair", Size: 16, Members: []btf.Member{{Name: "a", Type: ulong}, {Name: "b", Type: ulong, Offset: 64}}}
	triple = &btf.Struct{Name: "triple", Size: 24, Members: []btf.Member{{Name: "a", Type: &btf.Array{Index: uint_, Type: ulong, Nelems: 3}}}}
	packed = &btf.Struct{Name: "packed", Size: 9, Members: []btf.Member{{Name: "c", Type: char}, {Name: "n", Type: ulong, Offset: 8}}}
	kuid   = typedef("kuid_t", &btf.Struct{Size: 4, Members: []btf.Member{{Name: "val", Type: typedef("uid_t", uint_)}}})
	pgprot = typedef("pgprot_t", &btf.Struct{Name: "pgprot", Size: 8, Members: []btf.Member{{Name: "pgprot", Type: ulong}}})
)

func fileType() *btf.Struct {
	s := &btf.Struct{Name: "file", Size: 128}
	s.Members = []btf.Member{
		{Name: "", Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "f_ref", Type: cint}, {Name: "f_llist", Type: ptr(s)}}}},
		{Name: "f_flags", Type: uint_, Offset: 64},
		{Name: "f_mode", Type: typedef("fmode_t", uint_), Offset: 96},
		{Name: "f_path", Type: path_, Offset: 128},
		{Name: "f_name", Type: &btf.Array{Index: uint_, Type: char, Nelems: 16}, Offset: 256},
		{Name: "f_large", Type: &btf.Array{Index: uint_, Type: char, Nelems: 100}, Offset: 384},
		{Name: "f_uid", Type: kuid, Offset: 1216},
		{Name: "f_bits", Type: uint_, Offset: 1248, BitfieldSize: 3},
		{Name: "f_op", Type: ptr(cnst(&btf.Fwd{Name: "file_operations"})), Offset: 1280},
		{Name: "f_text", Type: ptr(cnst(char)), Offset: 1344},
		{Name: "f_bytes", Type: &btf.Array{Index: uint_, Type: u8, Nelems: 4}, Offset: 1408},
	}
	return s
}

func ptr(t btf.Type) *btf.Pointer                   { return &btf.Pointer{Target: t} }
func cnst(t btf.Type) *btf.Const                    { return &btf.Const{Type: t} }
func typedef(name string, t btf.Type) *btf.Typedef  { return &btf.Typedef{Name: name, Type: t} }
func param(name string, t btf.Type) btf.FuncParam   { return btf.FuncParam{Name: name, Type: t} }
func proto(r btf.Type, p ...btf.FuncParam) btf.Type { return &btf.FuncProto{Return: r, Params: p} }
func fn(name string, r btf.Type, p ...btf.FuncParam) *btf.Func {
	return &btf.Func{Name: name, Type: proto(r, p...), Linkage: btf.StaticFunc}
}

// load is what is left of types that were written down and read again.
func load(t *testing.T, types ...btf.Type) *btf.Spec {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func kernelTypes(t *testing.T, more ...btf.Type) *btf.Spec {
	return load(t, append([]btf.Type{
		fn("__kmalloc", ptr(void), param("size", sizeT), param("flags", gfpT)),
		fn("kfree", void, param("objp", ptr(cnst(void)))),
		fn("_printk", cint, param("fmt", ptr(cnst(char))), param("", void)),
		fn("kasprintf", ptr(char), param("gfp", gfpT), param("fmt", ptr(cnst(char))), param("", void)),
		fn("filp_open", ptr(file), param("filename", ptr(cnst(char))), param("flags", cint), param("mode", umode)),
		fn("filp_close", cint, param("filp", ptr(file)), param("id", ptr(void))),
		fn("d_path", ptr(char), param("path", ptr(cnst(path_))), param("buf", ptr(char)), param("buflen", cint)),
		fn("kernel_restart", void, param("cmd", ptr(char))),
		fn("bin2hex", ptr(char), param("dst", ptr(char)), param("src", ptr(cnst(u8)))),
		fn("seven", void, param("a", cint), param("b", long), param("c", bool_), param("d", char), param("e", state),
			param("f", large), param("g", ptr(file)), param("h", cint)),
		fn("structs", void, param("a", cint), param("p", pair), param("t", triple), param("q", pair), param("w", wide), param("z", cint)),
		fn("returns", triple, param("a", cint)),
		fn("packs", void, param("a", packed), param("b", cint)),
		fn("wraps", kuid, param("u", kuid), param("prot", pgprot)),
		fn("enums", unsign, param("s", signed), param("o", unsign)),
		fn("kmem_cache_create", ptr(&btf.Fwd{Name: "kmem_cache"}), param("name", ptr(cnst(char))), param("flags", slabT),
			param("ctor", ptr(proto(void, param("", ptr(void)))))),
		fn("request_threaded_irq", cint, param("irq", uint_), param("handler", typedef("irq_handler_t", ptr(proto(state, param("", cint))))),
			param("thread_fn", ptr(proto(cint, param("", cint), param("", void)))), param("irqflags", ulong), param("devname", ptr(cnst(char)))),
		fn("two", cint, param("a", cint)),
		&btf.Func{Name: "two", Type: proto(long, param("a", cint)), Linkage: btf.GlobalFunc},
		fn("same", cint, param("a", ptr(file))),
		&btf.Func{Name: "same", Type: proto(cint, param("a", ptr(file))), Linkage: btf.GlobalFunc},
	}, more...)...)
}

func describer(t *testing.T, release string, types *btf.Spec) *Describer {
	t.Helper()
	format, err := os.ReadFile("testdata/kmalloc-6.1.format")
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(types, release, fstest.MapFS{"events/kmem/kmalloc/format": {Data: format}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// brief shows a function in a line: what is not the default of each type.
func brief(f trace.Function) string {
	typ := func(t trace.Type) string {
		class := [...]string{"void", "int", "bool", "char", "enum", "flags", "string", "pointer", "struct"}[t.Class]
		if t.Signed {
			class = "signed " + class
		}
		s := strings.TrimSpace(t.Name + " = " + class)
		if t.Base != 0 {
			s += map[int]string{8: " octal", 16: " hex"}[t.Base]
		}
		return s
	}
	if !f.Known {
		return f.Name + ": unknown"
	}
	var params []string
	for _, p := range f.Params {
		s := p.Name + ": " + typ(p.Type)
		if p.Slot < trace.MaxArgs {
			s = strconv.Itoa(p.Slot) + " " + s
		} else {
			s = "- " + s
		}
		params = append(params, s)
	}
	if f.Variadic {
		params = append(params, "...")
	}
	s := f.Name + "(" + strings.Join(params, ", ") + ")"
	if f.Result.Class != trace.Void {
		s += " " + typ(f.Result)
	}
	for _, c := range f.Captures {
		of := "ret"
		if c.Param >= 0 {
			of = f.Params[c.Param].Name
		}
		s += " [" + of
		if c.Field != "" {
			s += "." + c.Field
		}
		s += " at " + strconv.Itoa(int(c.Offset)) + ", " + strconv.Itoa(c.Type.Size) + ": " + typ(c.Type) + "]"
	}
	return s
}

func TestFunction(t *testing.T) {
	d := describer(t, "6.1.0-56-amd64", kernelTypes(t))
	for _, want := range []string{
		`__kmalloc(0 size: size_t = int, 1 flags: gfp_t = flags hex) void * = pointer`,
		`kfree(0 objp: const void * = pointer)`,
		`_printk(0 fmt: const char * = string, ...) int = signed int [fmt at 0, 64: const char * = string]`,
		`kasprintf(0 gfp: gfp_t = flags hex, 1 fmt: const char * = string, ...) char * = string [fmt at 0, 64: const char * = string] [ret at 0, 64: char * = string]`,
		`filp_open(0 filename: const char * = string, 1 flags: int = signed flags hex, 2 mode: umode_t = int octal) struct file * = pointer [filename at 0, 64: const char * = string]`,
		`d_path(0 path: const struct path * = pointer, 1 buf: char * = string, 2 buflen: int = signed int) char * = string [ret at 0, 64: char * = string]`,
		`kernel_restart(0 cmd: char * = string) [cmd at 0, 64: char * = string]`,
		`bin2hex(0 dst: char * = string, 1 src: const u8 * = pointer) char * = string [ret at 0, 64: char * = string]`,
		`seven(0 a: int = signed int, 1 b: long = signed int, 2 c: bool = bool, 3 d: char = signed char, 4 e: enum state = enum, 5 f: enum large = enum, - g: struct file * = pointer, - h: int = signed int)`,
		// The second pair fits, the third value of two words does not, and leaves its register to the last.
		`structs(0 a: int = signed int, 1 p: struct pair = struct, - t: struct triple = struct, 3 q: struct pair = struct, - w: __int128 = struct, 5 z: int = signed int)`,
		`returns(1 a: int = signed int) struct triple = struct`,
		`packs(- a: struct packed = struct, 0 b: int = signed int)`,
		`wraps(0 u: kuid_t = int, 1 prot: pgprot_t = int hex) kuid_t = int`,
		`enums(0 s: enum signed = signed enum, 1 o: enum old = signed enum) enum old = signed enum`,
		`kmem_cache_create(0 name: const char * = string, 1 flags: slab_flags_t = flags hex, 2 ctor: void (*)(void *) = pointer) struct kmem_cache * = pointer [name at 0, 64: const char * = string]`,
		`request_threaded_irq(0 irq: unsigned int = int, 1 handler: irq_handler_t = pointer, 2 thread_fn: int (*)(int, ...) = pointer, 3 irqflags: unsigned long = flags hex, 4 devname: const char * = string) int = signed int [devname at 0, 64: const char * = string]`,
		`two: unknown`,
		`same(0 a: struct file * = pointer) int = signed int`,
		`nowhere: unknown`,
	} {
		name, _, _ := strings.Cut(want, "(")
		name, _, _ = strings.Cut(name, ":")
		f, err := d.Function(nil, name, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := brief(f); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func valueOf(t *testing.T, typ trace.Type, name string) uint64 {
	t.Helper()
	i := slices.IndexFunc(typ.Names, func(n trace.Name) bool { return n.Name == name })
	if i < 0 {
		t.Errorf("%s has no %s", typ.Name, name)
		return 0
	}
	return typ.Names[i].Value
}

func TestNames(t *testing.T) {
	d := describer(t, "6.1.0-56-amd64", kernelTypes(t))
	enums, _ := d.Function(nil, "enums", nil)
	for _, test := range []struct {
		typ  trace.Type
		name string
		want uint64
	}{
		{enums.Params[0].Type, "MINUS", ^uint64(0)},
		{enums.Params[1].Type, "BAD", ^uint64(0)},
		{enums.Params[1].Type, "GOOD", 0},
	} {
		if got := valueOf(t, test.typ, test.name); got != test.want {
			t.Errorf("%s is %#x, want %#x", test.name, got, test.want)
		}
	}
	open, _ := d.Function(nil, "filp_open", nil)
	flags := open.Params[1].Type
	if got := valueOf(t, flags, "O_RDONLY"); got != 0 {
		t.Errorf("O_RDONLY is %#x", got)
	}
	// O_TMPFILE has O_DIRECTORY in it.
	at := func(name string) int {
		return slices.IndexFunc(flags.Names, func(n trace.Name) bool { return n.Name == name })
	}
	if at("O_TMPFILE") > at("O_DIRECTORY") || at("O_SYNC") > at("O_DSYNC") {
		t.Errorf("a group of bits stands behind its parts: %v", flags.Names)
	}
}

// TestSlab: from 6.9 on the kernel numbers the bits itself.
func TestSlab(t *testing.T) {
	bits := &btf.Enum{Name: "_slab_flag_bits", Size: 4, Values: []btf.EnumValue{
		{Name: "_SLAB_CONSISTENCY_CHECKS", Value: 0}, {Name: "_SLAB_HWCACHE_ALIGN", Value: 4}, {Name: "_SLAB_FLAGS_LAST_BIT", Value: 5}}}
	d := describer(t, "6.12.1", kernelTypes(t, bits))
	f, _ := d.Function(nil, "kmem_cache_create", nil)
	want := []trace.Name{{Value: 1, Name: "SLAB_CONSISTENCY_CHECKS"}, {Value: 16, Name: "SLAB_HWCACHE_ALIGN"}}
	if diff := cmp.Diff(want, f.Params[1].Type.Names); diff != "" {
		t.Error(diff)
	}
}

// TestVersions: what holds for some kernels is not used with others.
func TestVersions(t *testing.T) {
	types := kernelTypes(t, fn("open_by_mode", void, param("mode", typedef("fmode_t", uint_))))
	for release, want := range map[string]bool{"5.10.0-46-amd64": true, "6.4.9": true, "6.5.0": false, "7.3.4+deb13-amd64": false, "5.4.0": false, "what": false} {
		f, err := describer(t, release, types).Function(nil, "open_by_mode", nil)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.ContainsFunc(f.Params[0].Type.Names, func(n trace.Name) bool { return n.Name == "FMODE_EXCL" })
		if got != want {
			t.Errorf("%s: FMODE_EXCL known: %v", release, got)
		}
	}
}

// TestWithoutTracing: the names of single bits are in BTF from 6.10 on, and nowhere before.
func TestWithoutTracing(t *testing.T) {
	types := kernelTypes(t, &btf.Enum{Size: 4, Values: []btf.EnumValue{
		{Name: "___GFP_DMA_BIT", Value: 0}, {Name: "___GFP_ZERO_BIT", Value: 8}, {Name: "___GFP_UNUSED_BIT", Value: 9}, {Name: "___GFP_LAST_BIT", Value: 26}}})
	for release, want := range map[string][]trace.Name{
		"6.1.0":  nil,
		"6.12.0": {{Value: 1, Name: "__GFP_DMA"}, {Value: 0x100, Name: "__GFP_ZERO"}},
	} {
		d, err := New(types, release, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Function(nil, "__kmalloc", nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, f.Params[1].Type.Names); diff != "" {
			t.Errorf("%s: %s", release, diff)
		}
		if f.Params[1].Type.Base != 16 {
			t.Errorf("%s: %+v", release, f.Params[1].Type)
		}
	}
}

func TestExpand(t *testing.T) {
	d := describer(t, "6.1.0-56-amd64", kernelTypes(t))
	for _, test := range []struct{ function, expand, want string }{
		{"filp_close", "file.f_flags", "[filp.f_flags at 8, 4: unsigned int = flags hex]"},
		{"filp_close", "struct file.f_flags", "[filp.f_flags at 8, 4: unsigned int = flags hex]"},
		{"filp_close", "filp.f_mode", "[filp.f_mode at 12, 4: fmode_t = flags hex]"},
		{"filp_close", "filp->f_path.dentry", "[filp.f_path.dentry at 24, 8: void * = pointer]"},
		{"filp_close", "filp_close:filp.f_name", "[filp.f_name at 32, 16: char[16] = string]"},
		{"filp_close", "file.f_large", "[filp.f_large at 48, 64: char[100] = string]"},
		{"filp_close", "file.f_uid", "[filp.f_uid at 152, 4: kuid_t = int]"},
		{"filp_close", "file.f_ref", "[filp.f_ref at 0, 4: int = signed int]"},
		{"filp_close", "file.f_op", "[filp.f_op at 160, 8: const struct file_operations * = pointer]"},
		{"filp_close", "file.f_text", "[filp.f_text at 168, 8: const char * = pointer]"},
		{"filp_open", "file.f_flags", "[filename at 0, 64: const char * = string] [ret.f_flags at 8, 4: unsigned int = flags hex]"},
		{"filp_open", "ret.f_flags", "[filename at 0, 64: const char * = string] [ret.f_flags at 8, 4: unsigned int = flags hex]"},
		{"d_path", "path.mnt", "[ret at 0, 64: char * = string] [path.mnt at 0, 8: void * = pointer]"},
	} {
		x, err := ParseExpansions([]string{test.expand})
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Function(nil, test.function, x)
		if err != nil {
			t.Errorf("%s of %s: %v", test.expand, test.function, err)
			continue
		}
		if got := brief(f); !strings.HasSuffix(got, " "+test.want) {
			t.Errorf("%s: got %s\nwant %s", test.expand, got, test.want)
		}
		if err := x.Unused(); err != nil {
			t.Errorf("%s: %v", test.expand, err)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	d := describer(t, "6.1.0-56-amd64", kernelTypes(t))
	for _, test := range []struct{ function, expand, want string }{
		{"", "file", `"structure.field"`},
		{"", "file.", "a name is missing"},
		{"", "file.f_flags[0]", `"f_flags[0]" is no name`},
		{"", "a b:file.f_flags", `"a b" is no name`},
		{"filp_close", "file.f_flag", "struct file has no field f_flag; did you mean f_flags"},
		{"filp_close", "file.f_path", "f_path is struct path: name one of its fields: mnt, dentry"},
		{"filp_close", "file.f_path.nt", "f_path has no field nt"},
		{"filp_close", "file.f_bits", "bit field, of 3 bits"},
		{"filp_close", "file.f_op.open", "not what it points to"},
		{"filp_close", "file.f_bytes", "only integers"},
		{"filp_close", "flie.f_flags", "no function that is traced has a parameter flie or a pointer to a structure flie; did you mean file or filp?"},
		{"filp_close", "id.x", "id of filp_close does not point to a structure"},
		{"__kmalloc", "size.x", "size of __kmalloc is no pointer to a structure: it is size_t"},
		{"filp_close", "filp_close:flip.f_flags", "filp_close has no parameter flip"},
		{"filp_close", "filp_open:ret.f_flags", "no function filp_open is traced"},
		{"nowhere", "nowhere:a.b", "the types of nowhere are not known"},
		{"seven", "file.f_flags", "parameter g of seven is not in a register"},
		{"seven", "seven:g.f_flags", "parameter g of seven is not in a register"},
	} {
		x, err := ParseExpansions([]string{test.expand})
		if err == nil {
			_, err = d.Function(nil, test.function, x)
		}
		if err == nil {
			err = x.Unused()
		}
		var e *ExpandError
		if !errors.As(err, &e) || e.Expansion != test.expand || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s of %s: error %v; want one with %q", test.expand, test.function, err, test.want)
		}
	}
}

// TestExpandMany: fields that were asked for come before texts that were not.
func TestExpandMany(t *testing.T) {
	d := describer(t, "6.1.0-56-amd64", kernelTypes(t))
	all := []string{"file.f_ref", "file.f_flags", "file.f_mode", "file.f_name", "file.f_large", "file.f_uid", "file.f_op", "file.f_text"}
	x, err := ParseExpansions(all)
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Function(nil, "filp_open", x)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Captures) != trace.MaxCaptures || f.Captures[0].Field != "f_ref" {
		t.Errorf("%s", brief(f))
	}
	x, err = ParseExpansions(append(all, "ret.f_path.mnt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = d.Function(nil, "filp_open", x); err == nil || !strings.Contains(err.Error(), "8 fields can be recorded") {
		t.Errorf("error %v", err)
	}
}

// image is an ELF file of these sections.
func image(sections map[string][]byte) []byte {
	names := []byte("\x00.shstrtab\x00")
	data := make([]byte, 64)
	headers := []elf.Section64{{}}
	for _, name := range []string{".BTF", ".BTF.base"} {
		content, ok := sections[name]
		if !ok {
			continue
		}
		headers = append(headers, elf.Section64{Name: uint32(len(names)), Type: uint32(elf.SHT_PROGBITS), Off: uint64(len(data)), Size: uint64(len(content)), Addralign: 1})
		names = append(append(names, name...), 0)
		data = append(data, content...)
	}
	headers = append(headers, elf.Section64{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: uint64(len(data)), Size: uint64(len(names)), Addralign: 1})
	data = append(data, names...)
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: uint64(len(data)), Ehsize: 64, Shentsize: 64, Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1)}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var head, tail bytes.Buffer
	binary.Write(&head, binary.LittleEndian, h)
	binary.Write(&tail, binary.LittleEndian, headers)
	copy(data, head.Bytes())
	return append(data, tail.Bytes()...)
}

// split is BTF that continues another one, with a function my_open(struct file *f)
// that returns an int.
func split(t *testing.T, base *btf.Spec, strings uint32) []byte {
	t.Helper()
	id := func(name string, typ btf.Type) uint32 {
		found, err := base.AnyTypeByName(name)
		if err != nil {
			t.Fatal(err)
		}
		n, err := base.TypeID(found)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	last := uint32(0)
	for typ, err := range base.All() {
		if err != nil {
			t.Fatal(err)
		}
		n, _ := base.TypeID(typ)
		last = max(last, uint32(n))
	}
	text := "my_open\x00f\x00"
	types := []uint32{
		0, 2 << 24, id("file", file), // pointer
		0, 13<<24 | 1, id("int", cint), // prototype
		strings + 8, last + 1,
		strings, 12 << 24, last + 2, // function
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, struct {
		Magic            uint16
		Version, Flags   uint8
		Length           uint32
		TypeOff, TypeLen uint32
		StrOff, StrLen   uint32
	}{0xeb9f, 1, 0, 24, 0, uint32(4 * len(types)), uint32(4 * len(types)), uint32(len(text))})
	binary.Write(&b, binary.LittleEndian, types)
	b.WriteString(text)
	return b.Bytes()
}

// stringsOf is the length of the names of BTF, behind which those of a module begin.
func stringsOf(raw []byte) uint32 { return binary.LittleEndian.Uint32(raw[20:]) }

func marshal(t *testing.T, types ...btf.Type) ([]byte, *btf.Spec) {
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return raw, spec
}

func TestCallback(t *testing.T) {
	raw, kernel := marshal(t, file, cint)
	d := describer(t, "6.12.0", kernel)
	x, err := ParseExpansions([]string{"file.f_flags"})
	if err != nil {
		t.Fatal(err)
	}
	const want = "my_open(0 f: struct file * = pointer) int = signed int [f.f_flags at 8, 4: unsigned int = flags hex]"
	check := func(image []byte) {
		t.Helper()
		types, err := d.ModuleTypes(image)
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Callback(types, "my_open", 2, x)
		if err != nil {
			t.Fatal(err)
		}
		if !f.Callback || f.Target != 2 || brief(f) != want {
			t.Errorf("%+v: got %s\nwant %s", f, brief(f), want)
		}
	}
	check(image(map[string][]byte{".BTF": split(t, kernel, stringsOf(raw))}))

	// What a module of 6.11 brings along of the kernel's types has no members.
	rawBase, base := marshal(t, &btf.Struct{Name: "file", Size: 128}, cint)
	check(image(map[string][]byte{".BTF": split(t, base, stringsOf(rawBase)), ".BTF.base": rawBase}))

	if _, err := d.ModuleTypes(image(nil)); !errors.Is(err, ErrNoTypes) {
		t.Errorf("error %v", err)
	}
	for _, b := range [][]byte{nil, []byte("text"), image(map[string][]byte{".BTF": []byte("no types")}),
		image(map[string][]byte{".BTF": split(t, base, stringsOf(rawBase)), ".BTF.base": {1}})} {
		if _, err := d.ModuleTypes(b); err == nil {
			t.Errorf("%.40q: no error", b)
		}
	}
	f, err := d.Callback(nil, "my_open", 0, x)
	if err != nil || f.Known || !f.Callback {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestDeclaration(t *testing.T) {
	for want, typ := range map[string]btf.Type{
		"const struct file *":             ptr(cnst(file)),
		"char *const *":                   ptr(cnst(ptr(char))),
		"const char **":                   ptr(ptr(cnst(char))),
		"void (*)(void)":                  ptr(proto(void)),
		"int (*const)(const void *, ...)": cnst(ptr(proto(cint, param("", ptr(cnst(void))), param("", void)))),
		"void (*(*)(int))(unsigned long)": ptr(proto(ptr(proto(void, param("", ulong))), param("", cint))),
		"unsigned long (*)[4]":            ptr(&btf.Array{Index: uint_, Type: ulong, Nelems: 4}),
		"volatile unsigned long *":        ptr(&btf.Volatile{Type: ulong}),
		"const volatile u8 *":             ptr(cnst(&btf.Volatile{Type: u8})),
		"struct *":                        ptr(&btf.Struct{}),
		"union u *":                       ptr(&btf.Union{Name: "u"}),
		"int (*)(struct pair, enum state, union *, bool, _Float)": ptr(proto(cint, param("", pair), param("", state), param("", ptr(&btf.Union{})), param("", bool_), param("", &btf.Float{Name: "_Float", Size: 8}))),
	} {
		if got := declaration(typ, ""); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// A pointer to itself is malformed, and no reason to hang.
	loop := ptr(nil)
	loop.Target = loop
	if got := declaration(loop, ""); !strings.Contains(got, "...") {
		t.Errorf("%q", got)
	}
}

// TestUser: text of a process is not the kernel's to read.
func TestUser(t *testing.T) {
	tagged := ptr(&btf.TypeTag{Type: cnst(char), Value: "user"})
	d := describer(t, "6.1.0", kernelTypes(t, fn("write", long, param("buf", tagged))))
	f, err := d.Function(nil, "write", nil)
	if err != nil || len(f.Captures) != 0 || f.Params[0].Type.Class != trace.Pointer {
		t.Errorf("%s, %v", brief(f), err)
	}
}
