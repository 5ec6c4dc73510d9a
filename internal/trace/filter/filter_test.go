package filter_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"kedr/internal/trace"
	"kedr/internal/trace/filter"
	"kedr/test/trace/oracle"
)

var seed = flag.Uint64("seed", 1, "for random filters")

// kmalloc is void *__kmalloc(size_t size, gfp_t flags), with more to try things with.
func kmalloc() *trace.Function {
	return &trace.Function{
		Name: "__kmalloc", Known: true,
		Params: []trace.Param{
			{Name: "size", Type: trace.Type{Class: trace.Int, Name: "size_t", Size: 8}, Slot: 0},
			{Name: "flags", Type: trace.Type{Class: trace.Flags, Name: "gfp_t", Size: 4, Names: []trace.Name{
				{Value: 0xcc0, Name: "GFP_KERNEL"}, {Value: 0x100, Name: "__GFP_ZERO"}}}, Slot: 1},
			{Name: "node", Type: trace.Type{Class: trace.Int, Name: "int", Size: 4, Signed: true}, Slot: 2},
			{Name: "type", Type: trace.Type{Class: trace.Enum, Name: "enum kind", Size: 4, Names: []trace.Name{{Value: 2, Name: "KIND_TWO"}}}, Slot: 3},
			{Name: "name", Type: trace.Type{Class: trace.String, Name: "const char *", Size: 8}, Slot: 4},
			{Name: "s", Type: trace.Type{Class: trace.Bool, Name: "bool", Size: 1}, Slot: 5},
			{Name: "late", Type: trace.Type{Class: trace.Int, Name: "int", Size: 4, Signed: true}, Slot: trace.MaxArgs},
			{Name: "pair", Type: trace.Type{Class: trace.Struct, Name: "struct pair", Size: 8}, Slot: trace.MaxArgs - 1},
		},
		Result: trace.Type{Class: trace.Pointer, Name: "void *", Size: 8},
	}
}

func request() *trace.Function {
	return &trace.Function{
		Name: "request_irq", Known: true,
		Params: []trace.Param{{Name: "irq", Type: trace.Type{Class: trace.Int, Name: "unsigned int", Size: 4}, Slot: 0}},
		Result: trace.Type{Class: trace.Int, Name: "int", Size: 4, Signed: true},
	}
}

func comm(name string) (c [16]byte) {
	copy(c[:], name)
	return c
}

func judge(t *testing.T, text string, f *trace.Function, in *filter.Input) bool {
	t.Helper()
	e, err := filter.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Compile(f, map[string]uint64{"LIMIT": 5000})
	if err != nil {
		t.Fatal(err)
	}
	if list := unreachable(p.Instructions); len(list) > 0 {
		t.Errorf("%s: instructions %v are never reached:\n%v", text, list, p.Instructions)
	}
	got, err := run(p.Instructions, in, 0)
	if err != nil || got > 1 {
		t.Fatalf("%s: %d, %v:\n%v", text, got, err, p.Instructions)
	}
	return got == 1
}

const garbage = 0xdeadbeef << 32

func TestFilter(t *testing.T) {
	minus := func(n int64) uint64 { return uint64(-n) }
	call := &filter.Input{
		Args:   [6]uint64{8192, garbage | 0xdc0, garbage | 0xffffffff, garbage | 2, 0xffff888000000000, garbage | 0xffffff01},
		Result: minus(12), Duration: 20_000_000, PID: 77, TID: 78, CPU: 3, Context: trace.InHardirq, Comm: comm("insmod"),
	}
	for text, want := range map[string]bool{
		"size > 4096":                              true,
		"size > 4096 && flags & __GFP_ZERO":        true,
		"size > 8192":                              false,
		"size >= 8192 && size <= 8192":             true,
		"flags & __GFP_ZERO == 0":                  false,
		"flags&__GFP_ZERO!=0":                      true,
		"flags == GFP_KERNEL|__GFP_ZERO":           true,
		"flags &^ __GFP_ZERO == GFP_KERNEL":        true,
		"flags & ~__GFP_ZERO == GFP_KERNEL":        true,
		"flags&~__GFP_ZERO==GFP_KERNEL":            true,
		"node == -1":                               true,
		"node<-1":                                  false,
		"node<=-1":                                 true,
		"node < 0":                                 true,
		"node == 0xffffffff":                       true,
		"flags == -1":                              false,
		"flags > -1":                               false,
		"size > -1":                                false,
		"-1 < node":                                false,
		"type == KIND_TWO":                         true,
		"arg.type == 2 && type!=3":                 true,
		"name":                                     true,
		"name == NULL":                             false,
		"!name":                                    false,
		"s":                                        true,
		"s == true":                                true,
		"ret == -ENOMEM":                           true,
		"ret == ENOMEM":                            true,
		"ENOMEM == ret":                            true,
		"ret != ENOMEM":                            false,
		"ret == EPROBE_DEFER":                      false,
		"call.ret == -12":                          true,
		"ret":                                      true,
		"failed":                                   true,
		"!failed":                                  false,
		"failed && size > 100":                     true,
		"duration > 10*ms":                         true,
		"duration > ms*10":                         true,
		"duration > 10ms && duration < 1s":         true,
		"duration == 20000us":                      true,
		"duration >= 30ms":                         false,
		"pid == 77 && tid == 78 && cpu == 3":       true,
		`comm == "insmod"`:                         true,
		`comm != "insmod"`:                         false,
		`"insmo" == comm`:                          false,
		`comm == "insmod2"`:                        false,
		`comm == ""`:                               false,
		`!(comm == "sh") && comm != ""`:            true,
		"context == hardirq":                       true,
		"context == task":                          false,
		"context == 2":                             true,
		"size == 8192UL && size == 0x2000u":        true,
		"size / 1000 == 8 && size % 1000 == 192":   true,
		"node / 2 == 0 && -7 / 2 == -3":            true,
		"-7 % 3 == -1 && node * 7 % 3 == -1":       true,
		"size / (size - 8192) == 0":                false,
		"!(size / (size - 8192) == 0)":             false,
		"size == 8192 || size / (size - 8192) > 0": true,
		"size / (size - 8192) > 0 || size == 8192": false,
		"size > LIMIT":                             true,
		"1 << 13 == size":                          true,
		"size >> 1 == 4096":                        true,
		"node >> 31 == -1":                         true,
		"(size > 1) + (size > 2) == 2":             true,
		"(size > 1) == (node > 1)":                 false,
		"(size && node) + 1 == 2":                  true,
		"'a' == 97":                                true,
		"size ==\n8192":                            true,
		"true":                                     true,
		"1 > 2":                                    false,
		"size && false":                            false,
		"size/0x0fff == 2":                         true,
	} {
		if got := judge(t, text, kmalloc(), call); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	call = &filter.Input{Result: garbage | 0xfffffff4, Args: [6]uint64{garbage | 9}}
	for text, want := range map[string]bool{
		"ret == -ENOMEM": true, "ret == ENOMEM": true, "ret < 0": true, "failed": true, "ret": true,
		"irq == 9": true, "irq - 10 > 100": true, "ret == 0xfffffff4": true, "ret < 0xffffffff": true,
	} {
		if got := judge(t, text, request(), call); got != want {
			t.Errorf("request_irq: %s: %v", text, got)
		}
	}
}

// TestFailed: what a failure is depends on what is returned.
func TestFailed(t *testing.T) {
	for _, test := range []struct {
		typ  trace.Type
		ret  int64
		want bool
	}{
		{trace.Type{Class: trace.Pointer, Size: 8}, 0, true},
		{trace.Type{Class: trace.Pointer, Size: 8}, -4095, true},
		{trace.Type{Class: trace.Pointer, Size: 8}, -4096, false},
		{trace.Type{Class: trace.Pointer, Size: 8}, 1 << 40, false},
		{trace.Type{Class: trace.String, Size: 8}, -1, true},
		{trace.Type{Class: trace.Int, Size: 4, Signed: true}, 5<<32 | 0xffffffff, true},
		{trace.Type{Class: trace.Int, Size: 4, Signed: true}, 0, false},
		{trace.Type{Class: trace.Int, Size: 4, Signed: true}, 0x80000000, false},
		{trace.Type{Class: trace.Int, Size: 8, Signed: true}, -14, true},
		{trace.Type{Class: trace.Int, Size: 8, Signed: true}, 14, false},
		{trace.Type{Class: trace.Int, Size: 8}, -14, true},
		{trace.Type{Class: trace.Int, Size: 8}, 14, false},
		{trace.Type{Class: trace.Int, Size: 4}, -1, false},
		{trace.Type{Class: trace.Bool, Size: 1}, 0, false},
		{trace.Type{Class: trace.Enum, Size: 4, Signed: true}, -1, false},
		{trace.Type{Class: trace.Struct, Size: 16}, -1, false},
		{trace.Type{}, -1, false},
	} {
		f := &trace.Function{Name: "f", Known: true, Result: test.typ}
		if got := judge(t, "failed", f, &filter.Input{Result: uint64(test.ret)}); got != test.want {
			t.Errorf("%+v, %#x: %v", test.typ, test.ret, got)
		}
		f.Known = false
		if judge(t, "failed", f, &filter.Input{Result: uint64(test.ret)}) {
			t.Errorf("a function that is not known failed")
		}
	}
}

func TestErrors(t *testing.T) {
	ambiguous := kmalloc()
	ambiguous.Params[0].Name = "pid"
	void := kmalloc()
	void.Result = trace.Type{}
	unknown := &trace.Function{Name: "memcpy"}
	for _, test := range []struct {
		text   string
		f      *trace.Function
		column int
		want   string
	}{
		{"", nil, 0, "empty"},
		{"  \n", nil, 0, "empty"},
		{strings.Repeat("(", 5000), nil, 0, "5000 bytes"},
		{"size >", nil, 7, "an operand is missing"},
		{"size > > 1", nil, 8, "an operand is missing"},
		{"(size > 1", nil, 10, "a parenthesis is not closed"},
		{"size > 1)", nil, 9, "an operator is missing"},
		{"size 1", nil, 6, "an operator is missing"},
		{"size = 1", nil, 6, "== compares"},
		{"size ? 1", nil, 6, "illegal character"},
		{"size > 1 // all", nil, 10, "no comments"},
		{"file->f_flags", nil, 5, "what a pointer points to"},
		{"file.f_flags", nil, 1, "what a pointer points to"},
		{"*size", nil, 1, "what a pointer points to"},
		{"&size", nil, 1, "& can't be used"},
		{"f(size)", nil, 1, "call functions"},
		{"size[1]", nil, 1, "no expression of numbers"},
		{"func() {}", nil, 0, ""},
		{"[]int{1}", nil, 0, ""},
		{"size > 1.5", nil, 8, "no integer"},
		{"size > 18446744073709551616", nil, 8, "64 bits"},
		{"duration > 99999999999999999s", nil, 12, "64 bits"},
		{"duration > 10min", nil, 14, "min is no unit"},
		{`"text"`, nil, 1, "comm =="},
		{`size == "text"`, nil, 9, "only be compared with the name"},
		{`arg.comm == "text"`, nil, 13, "only be compared with the name"},
		{`comm < "text"`, nil, 8, "comm =="},
		{`comm == "more than fifteen"`, nil, 9, "15 bytes"},
		{`comm == "a\x00b"`, nil, 9, "NUL"},
		{"comm", nil, 1, "only be compared with a text"},
		{"comm == 1", nil, 1, "only be compared with a text"},
		{"'ä' == 1", nil, 1, "ASCII"},
		{"1 < size < 10", nil, 10, "write a < b && b < c"},
		{"size == 1 == 2", nil, 11, "two comparisons"},
		{"1 << size + 1", nil, 11, "write parentheses"},
		{"size & 1 << 2", nil, 10, "write parentheses"},
		{"size | 1 ^ 2", nil, 10, "write parentheses"},
		{"size + 1 & 2", nil, 6, "write parentheses"},
		{"size / 0", nil, 8, "division by zero"},
		{"size % (4 - 2*2)", nil, 11, "division by zero"},
		{"1/0 == 1", nil, 3, "division by zero"},
		{"size << 64", nil, 9, "can't be shifted by 64"},
		{"1 << -1", nil, 6, "can't be shifted by -1"},
		{"szie > 1", nil, 1, "__kmalloc has no operand szie; did you mean size?"},
		{"size > 1 && flags & GFP_KERNAL", nil, 21, "no operand GFP_KERNAL; did you mean GFP_KERNEL?"},
		{"arg.pid == 1", nil, 1, "no operand pid"},
		{"call.size == 1", nil, 1, "a call has no size: it has comm, context, cpu"},
		{"late == 1", nil, 1, "parameter late of __kmalloc is not in a register"},
		{"pair == 1", nil, 1, "is struct pair, which is no number"},
		{"hardirq == 1", nil, 1, "no operand hardirq"},
		{"pid == 1", ambiguous, 1, "write arg.pid, or call.pid"},
		{"ret == 0", void, 1, "__kmalloc returns nothing"},
		{"ret == 0", unknown, 1, "the types of memcpy are not known"},
	} {
		f := test.f
		if f == nil {
			f = kmalloc()
		}
		e, err := filter.Parse(test.text)
		if err == nil {
			_, err = e.Compile(f, nil)
		}
		var fe *filter.Error
		if !errors.As(err, &fe) {
			t.Errorf("%.40s: error %v", test.text, err)
			continue
		}
		if test.want != "" && (fe.Column != test.column || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%.40s: column %d: %v; want column %d, %q", test.text, fe.Column, err, test.column, test.want)
		}
	}
}

// TestCompileAll: a filter need not fit all functions, but one.
func TestCompileAll(t *testing.T) {
	vfree := trace.Function{Name: "vfree", Known: true, Params: []trace.Param{{Name: "addr", Type: trace.Type{Class: trace.Pointer, Size: 8}}}}
	functions := []trace.Function{*kmalloc(), vfree, *kmalloc()}
	compile := func(text string) (*filter.Set, error) {
		e, err := filter.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return e.CompileAll(functions, nil)
	}
	s, err := compile("size > 10")
	if err != nil || len(s.Programs) != 2 || s.Programs[0] == nil || s.Programs[2] == nil || s.AtReturn ||
		len(s.Never) != 1 || s.Never[0].Function != "vfree" || !strings.Contains(s.Never[0].Reason, "no operand size") {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = compile("pid == 1 && duration > 1ms")
	if err != nil || len(s.Programs) != 3 || !s.AtReturn || len(s.Never) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = compile("nothing == 1")
	var unknown *filter.UnknownError
	if !errors.As(err, &unknown) || unknown.Name != "nothing" ||
		!strings.Contains(err.Error(), "__kmalloc has size, flags, node, type, name, s, late, pair; vfree has addr; __kmalloc has") ||
		!strings.Contains(err.Error(), "every call has comm, context") {
		t.Errorf("%v", err)
	}
	var fe *filter.Error
	if _, err = compile("addr / 0 == 1"); err == nil || errors.As(err, &unknown) || !errors.As(err, &fe) {
		t.Errorf("%v", err)
	}
}

// TestRandom holds what filters are compiled to against what they mean.
func TestRandom(t *testing.T) {
	t.Logf("seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 0))
	functions := oracle.Functions()
	refused, matched, inputs, longest, stack := 0, 0, 0, 0, 0
	const filters = 5000
	for range filters {
		text, f := oracle.Filter(r, 1+r.IntN(6)), functions[r.IntN(len(functions))]
		p, err := compile(text, f)
		var fe *filter.Error
		if errors.As(err, &fe) {
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if list := unreachable(p.Instructions); len(list) > 0 {
			t.Fatalf("%s: instructions %v are never reached:\n%v", text, list, p.Instructions)
		}
		longest = max(longest, len(p.Instructions))
		for _, i := range p.Instructions {
			if i.OpCode.Class().IsStore() {
				stack = max(stack, -int(i.Offset))
			}
		}
		for range 20 {
			in := oracle.Input(r)
			want, err := oracle.Match(text, f, nil, in)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			got, err := run(p.Instructions, in, 0)
			if err != nil || got != map[bool]uint64{true: 1}[want] {
				t.Fatalf("%s, result %+v, input %+v: %d, %v; want %v\n%v", text, f.Result, in, got, err, want, p.Instructions)
			}
			inputs++
			matched += int(got)
		}
	}
	if refused > filters*2/3 || matched < inputs/20 || matched > inputs*19/20 {
		t.Errorf("of %d filters %d are refused; %d of %d calls match", filters, refused, matched, inputs)
	}
	t.Logf("of %d filters %d are refused; %d of %d calls match; %d instructions and %d bytes of stack at most", filters, refused, matched, inputs, longest, stack)
}

func compile(text string, f *trace.Function) (*filter.Program, error) {
	e, err := filter.Parse(text)
	if err != nil {
		return nil, err
	}
	return e.Compile(f, nil)
}

// TestLarge: what 4096 bytes can be becomes a program, or an error.
func TestLarge(t *testing.T) {
	f := oracle.Function()
	in := &filter.Input{Args: [6]uint64{1, 1, 1, 1, 1, 1}}
	repeat := func(s, between string, n int) string {
		return strings.TrimSuffix(strings.Repeat(s+between, n), between)
	}
	for name, text := range map[string]string{
		"deep":          strings.Repeat("(", 2000) + "u64" + strings.Repeat(")", 2000),
		"not":           strings.Repeat("!", 4000) + "u64",
		"minus":         strings.Repeat("- ", 2000) + "u64 == 1",
		"or":            repeat("u64==9", "||", 500),
		"right":         strings.Repeat("1+(", 1000) + "u64" + strings.Repeat(")", 1000),
		"wide":          repeat("(u64>1)", "+", 500),
		"logical":       repeat("(u64&&i32)", "+", 300),
		"divisions":     repeat("i32", "/", 1000),
		"remainders":    repeat("(i32%i8)", "+", 400),
		"nested logic":  strings.Repeat("1+(u64&&", 400) + "u64" + strings.Repeat(")", 400),
		"large numbers": repeat("u64==0x123456789abcdef", "||", 170),
		"names":         repeat(`comm=="fifteen-letters"`, "||", 160),
	} {
		p, err := compile(text, f)
		if err != nil {
			var fe *filter.Error
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), "4096 are the most") {
				t.Errorf("%s: %v", name, err)
			}
			t.Logf("%s: %v", name, err)
			continue
		}
		stack := 0
		for _, i := range p.Instructions {
			if i.OpCode.Class().IsStore() {
				stack = max(stack, -int(i.Offset))
			}
		}
		if stack > 256 || len(p.Instructions) > 4096 {
			t.Errorf("%s: %d instructions, %d bytes of stack", name, len(p.Instructions), stack)
		}
		if _, err := run(p.Instructions, in, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %d instructions, %d bytes of stack", name, len(p.Instructions), stack)
	}
	// A tree in which both sides of everything have to be held.
	tree := "u64"
	for len(tree) < 1500 {
		tree = "(" + tree + "^" + tree + ")"
	}
	p, err := compile(tree, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(p.Instructions, in, 0); err != nil {
		t.Error(err)
	}
}

func TestDispatch(t *testing.T) {
	f := oracle.Function()
	programs := make(map[uint32]*filter.Program)
	want := make(map[uint32]bool)
	for i, text := range map[uint32]string{0: "u64 == 1", 1: "u64 == 1", 2: "u64 == 1", 3: "u64 == 2", 5: "u64 == 1", 9: "true", 10: "false", 400: "u64 > 0", 1000: "u64 == 7"} {
		p, err := compile(text, f)
		if err != nil {
			t.Fatal(err)
		}
		programs[i] = p
		want[i] = text == "u64 == 1" || text == "true" || text == "u64 > 0"
	}
	body, err := filter.Dispatch(programs)
	if err != nil {
		t.Fatal(err)
	}
	if list := unreachable(body); len(list) > 0 {
		t.Errorf("%v are never reached", list)
	}
	in := &filter.Input{Args: [6]uint64{1}}
	for i := range uint32(1100) {
		got, err := run(body, in, i)
		if err != nil || (got == 1) != want[i] {
			t.Errorf("function %d: %d, %v", i, got, err)
		}
	}
	if got, err := run(body, in, 1<<31+1); err != nil || got != 0 {
		t.Errorf("%d, %v", got, err)
	}
	body, err = filter.Dispatch(nil)
	if err != nil || len(unreachable(body)) > 0 {
		t.Errorf("%v, %v", body, err)
	}
	if got, err := run(body, in, 0); err != nil || got != 0 {
		t.Errorf("%d, %v", got, err)
	}

	// The same body is there once, however many functions have it.
	same, different := make(map[uint32]*filter.Program), make(map[uint32]*filter.Program)
	for i := range uint32(600) {
		same[i] = programs[0]
		text := fmt.Sprintf("u64 == %d", i)
		for range 5 {
			text += " || " + text
		}
		if different[i], err = compile(text, f); err != nil {
			t.Fatal(err)
		}
	}
	if body, err = filter.Dispatch(same); err != nil || len(body) > 20 {
		t.Errorf("%d instructions, %v", len(body), err)
	}
	if body, err = filter.Dispatch(different); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%d instructions, %v", len(body), err)
	}
}

func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		f.Add(oracle.Filter(r, 4))
	}
	for _, text := range []string{"size > 4096 && flags & __GFP_ZERO", "type == 10ms*2", "ret<-10", "arg.u64 &^ 3 != ~1", `comm == "x"`, "a->b", "'\\n' == i8", "0x10UL", "((((", "context == hardirq", "!!!!u64"} {
		f.Add(text)
	}
	functions := append(oracle.Functions(), kmalloc(), request(), &trace.Function{Name: "unknown"})
	f.Fuzz(func(t *testing.T, text string) {
		e, err := filter.Parse(text)
		if err != nil {
			var fe *filter.Error
			if !errors.As(err, &fe) || fe.Column < 0 || fe.Column > len(text)+1 {
				t.Errorf("%v", err)
			}
			return
		}
		in := oracle.Input(r)
		for _, fn := range functions {
			p, err := e.Compile(fn, nil)
			if err != nil {
				continue
			}
			if list := unreachable(p.Instructions); len(list) > 0 {
				t.Errorf("%v are never reached:\n%v", list, p.Instructions)
			}
			if got, err := run(p.Instructions, in, 0); err != nil || got > 1 {
				t.Errorf("%d, %v:\n%v", got, err, p.Instructions)
			}
		}
	})
}
