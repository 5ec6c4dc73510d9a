//go:build guest

package trace

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"kedr/internal/trace"
	"kedr/internal/trace/filter"
	"kedr/test/trace/oracle"
)

var (
	seed    = flag.Uint64("seed", 1, "for random filters")
	filters = flag.Int("filters", 300, "how many random ones")
)

// programs are those that ask a filter, with maps in common.
type programs struct {
	spec  *ebpf.CollectionSpec
	calls *ebpf.Map
}

func newPrograms(t *testing.T) *programs {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := loadJudge()
	if err != nil {
		t.Fatal(err)
	}
	calls, err := ebpf.NewMap(spec.Maps["calls"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { calls.Close() })
	return &programs{spec, calls}
}

// load puts a filter into a program, and that into the kernel.
func (p *programs) load(t *testing.T, name string, body asm.Instructions) *ebpf.Program {
	t.Helper()
	spec := p.spec.Copy()
	for _, other := range []string{"from_map", "from_stack"} {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	if err := filter.Replace(spec.Programs[name], "filter", body); err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{"calls": p.calls}})
	if err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			lines := ve.Log
			t.Log(strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
		t.Fatalf("%s: %v\n%v", name, err, body)
	}
	defer c.Close()
	return c.DetachProgram(name)
}

func (p *programs) run(t *testing.T, prog *ebpf.Program, in *filter.Input, function uint32) uint32 {
	t.Helper()
	call := struct {
		In       filter.Input
		Function uint32
		_        uint32
	}{In: *in, Function: function}
	if err := p.calls.Put(uint32(0), call); err != nil {
		t.Fatal(err)
	}
	got, _, err := prog.Test(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func compile(text string, f *trace.Function) (*filter.Program, error) {
	e, err := filter.Parse(text)
	if err != nil {
		return nil, err
	}
	return e.Compile(f, nil)
}

// texts have each kind of instruction in them.
var texts = []string{
	"u64 > 4096 && u32 & __GFP_ZERO", "u64 > 4096 || u32 & __GFP_ZERO == 0", "!(u64 > 4096 && i32 < 0)",
	"u64 == 1", "u64 != 0xffffffff", "u64 == 0x123456789abcdef", "i32 == -1", "i32 <= 0xffffffff", "i8 > -5", "u16 >= 65535", "p == NULL", "p",
	"i8 == i32", "u16 == u64", "u32 < u64", "i32 < i8", "i32 < u32",
	"u64 + 1 == 0", "u64 - u16 > 5", "i32 * i8 < 0", "u64 * u64 == 9", "-i32 == i8", "^u32 == u64", "u32 &^ u16 != 0", "u32 | u16 == 0xffff", "u32 ^ u64 == 0",
	"u64 / 10 == 1", "u64 / u16 > 2", "u64 % u32 == 1", "i32 / i8 == 1", "i32 % i8 < 0", "i32 / -3 > 1", "i32 % 7 == -3", "ret / i32 == -1",
	"u64 / 0x100000000 > 0", "u64 % 0xffffffffffffffff == 1", "i32 != 0 && 100 / i32 > 3", "!(u64 / u16 == 3)", "u16 == 0 || u64 / u16 == 3",
	"u64 << 3 == 8", "u64 >> 63", "i32 >> 31 == -1", "u64 << u16 == 0", "u64 >> i8 > 1", "i32 >> u16 == 0", "1 << u16 & u64",
	"(u64 > 3) + (i32 < 0) == 2", "(u64 && i32) == (p || u16)", "!u64 + !i32 == 1", "(u64 / u16 > 1 || u16 == 0) + 1 == 2",
	`comm == "insmod"`, `comm != "kworker/u"`, `comm == "fifteen-letters"`, `comm == "" || comm == "kworker"`, `(comm == "sh") + u64 == 1`,
	"pid == 77 || tid > 10 && cpu != 1", "failed", "!failed", "ret == -ENOMEM", "duration > 1000000", "(failed) == (u64 > 1)", "true", "false", "u64 && false",
}

// TestFilters: what a filter means is what it does, on this kernel's verifier and with
// its code for this processor.
func TestFilters(t *testing.T) {
	p := newPrograms(t)
	r := rand.New(rand.NewPCG(*seed, 0))
	t.Logf("seed %d", *seed)
	functions := oracle.Functions()
	judged, matched := 0, 0
	check := func(text string, f *trace.Function, program string) bool {
		body, err := compile(text, f)
		var fe *filter.Error
		if errors.As(err, &fe) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		prog := p.load(t, program, body.Instructions)
		defer prog.Close()
		for range 20 {
			in := oracle.Input(r)
			want, err := oracle.Match(text, f, nil, in)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			got := p.run(t, prog, in, 0)
			if got > 1 || (got == 1) != want {
				t.Fatalf("%s, result %+v, input %+v: %d, want %v\n%v", text, f.Result, in, got, want, body.Instructions)
			}
			judged++
			matched += int(got)
		}
		return true
	}
	for i, text := range texts {
		if !check(text, functions[0], []string{"from_map", "from_stack"}[i%2]) {
			t.Errorf("%s is refused", text)
		}
	}
	for n := 0; n < *filters; {
		if check(oracle.Filter(r, 1+r.IntN(6)), functions[r.IntN(len(functions))], []string{"from_map", "from_stack"}[n%2]) {
			n++
		}
	}
	t.Logf("%d filters, %d of %d calls match", len(texts)+*filters, matched, judged)
}

// TestLargeFilters: what a filter may become, verifiers take.
func TestLargeFilters(t *testing.T) {
	p := newPrograms(t)
	f := oracle.Function()
	repeat := func(s, between string, n int) string {
		return strings.TrimSuffix(strings.Repeat(s+between, n), between)
	}
	random := func(seed uint64) string {
		r := rand.New(rand.NewPCG(seed, 0))
		for {
			text := oracle.Filter(r, 9)
			if len(text) < 1000 || len(text) > 4096 {
				continue
			}
			if b, err := compile(text, f); err == nil && len(b.Instructions) > 500 {
				return text
			}
		}
	}
	for name, text := range map[string]string{
		"or":           repeat("u64==9", "||", 500),
		"and":          repeat("u64!=9", "&&", 500),
		"two":          repeat("u64==9&&i32==3", "||", 200),
		"sum":          strings.Repeat("1+(", 1000) + "u64" + strings.Repeat(")", 1000),
		"truths":       repeat("(u64>1)", "+", 250) + " > 100",
		"different":    repeat("(u64>1)+(i32<2)+(u16==3)+(p!=NULL)", "+", 60) + " > 100",
		"logical":      repeat("(u64&&i32)", "+", 200) + " > 3",
		"divisions":    repeat("(u64/u16)", "+", 400) + " > 3",
		"signed":       repeat("(i32%i8)", "+", 150) + " > 3",
		"guarded":      repeat("(i8&&i32/i8>3)", "+", 100) + " > 3",
		"nested logic": strings.Repeat("1+(u64&&", 250) + "u64" + strings.Repeat(")", 250),
		"names":        repeat(`comm=="fifteen-letters"`, "||", 160),
		"random 1":     random(1), "random 2": random(2), "random 3": random(3),
	} {
		body, err := compile(text, f)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		prog := p.load(t, "from_stack", body.Instructions)
		looked := "?"
		if info, err := prog.Info(); err == nil {
			if n, ok := info.VerifiedInstructions(); ok {
				looked = fmt.Sprint(n)
				// It gives up at a million.
				if n > 50000 {
					t.Errorf("%s: the verifier looked at %d instructions", name, n)
				}
			}
		}
		r := rand.New(rand.NewPCG(1, 0))
		for range 5 {
			in := oracle.Input(r)
			want, err := oracle.Match(text, f, nil, in)
			if got := p.run(t, prog, in, 0); err != nil || (got == 1) != want {
				t.Errorf("%s: %d, %v; want %v", name, got, err, want)
			}
		}
		prog.Close()
		t.Logf("%s: %d instructions, the verifier looked at %s", name, len(body.Instructions), looked)
	}
}

// TestDispatchFilters: one body for many functions.
func TestDispatchFilters(t *testing.T) {
	p := newPrograms(t)
	f := oracle.Function()
	r := rand.New(rand.NewPCG(*seed, 0))
	for _, n := range []int{0, 1, 2, 300} {
		bodies, want := make(map[uint32]*filter.Program), make(map[uint32]string)
		for i := range n {
			index := uint32(3 * i)
			text := texts[r.IntN(len(texts))]
			if i%3 == 0 {
				text = fmt.Sprintf("u64 == %d || %s", i, text)
			}
			body, err := compile(text, f)
			if err != nil {
				t.Fatal(err)
			}
			bodies[index], want[index] = body, text
		}
		all, err := filter.Dispatch(bodies)
		if err != nil {
			t.Fatal(err)
		}
		prog := p.load(t, "from_stack", all)
		for i := range uint32(3*n + 3) {
			in := oracle.Input(r)
			match := false
			if text, ok := want[i]; ok {
				if match, err = oracle.Match(text, f, nil, in); err != nil {
					t.Fatal(err)
				}
			}
			if got := p.run(t, prog, in, i); got > 1 || (got == 1) != match {
				t.Fatalf("%d functions, function %d, %s, %+v: %d, want %v", n, i, want[i], in, got, match)
			}
		}
		prog.Close()
		t.Logf("%d functions: %d instructions", n, len(all))
	}
}

// TestReplace: what a program has not can't be replaced, and one program's filter is not
// another one's.
func TestReplace(t *testing.T) {
	p := newPrograms(t)
	spec := p.spec.Copy()
	if err := filter.Replace(spec.Programs["from_map"], "nothing", asm.Instructions{asm.Return()}); err == nil {
		t.Error("no error for a function that is not there")
	}
	if err := filter.Replace(spec.Programs["from_map"], "filter", nil); err == nil {
		t.Error("no error for an empty body")
	}
	yes, err := compile("true", oracle.Function())
	if err != nil {
		t.Fatal(err)
	}
	before := len(p.spec.Programs["from_map"].Instructions)
	one := p.load(t, "from_map", yes.Instructions)
	defer one.Close()
	no, err := compile("false", oracle.Function())
	if err != nil {
		t.Fatal(err)
	}
	other := p.load(t, "from_map", no.Instructions)
	defer other.Close()
	in := new(filter.Input)
	if p.run(t, one, in, 0) != 1 || p.run(t, other, in, 0) != 0 || len(p.spec.Programs["from_map"].Instructions) != before {
		t.Error("a filter has got into another program")
	}
	// The kernel knows the function by its name still.
	if info, err := one.Info(); err == nil {
		if fns, err := info.FuncInfos(); err == nil && (len(fns) != 2 || fns[1].Func.Name != "filter") {
			t.Errorf("functions %v", fns)
		}
	}
}
