package suppress

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"kedr/internal/leak"
	"kedr/internal/session"
)

// stack makes frames of words: function, function@file, module:function. The target is "drv".
func stack(words string) []leak.Frame {
	var frames []leak.Frame
	for w := range strings.FieldsSeq(words) {
		f := leak.Frame{Module: "drv"}
		if module, rest, ok := strings.Cut(w, ":"); ok {
			f.Module, w = module, rest
			if module == "vmlinux" {
				f.Module = ""
			}
		}
		f.Function, f.File, _ = strings.Cut(w, "@")
		frames = append(frames, f)
	}
	return frames
}

func parse(t *testing.T, text string) []*Suppression {
	t.Helper()
	list, err := Parse(strings.NewReader(text), "x.supp")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return list
}

func TestMatch(t *testing.T) {
	const probe = "alloc_ring@/src/drv/ring.c probe@/src/drv/main.c vmlinux:really_probe drv:init@/src/drv/main.c vmlinux:do_one_initcall"
	tests := []struct {
		block string // lines after the name
		stack string
		want  bool
	}{
		{"kedr:Leak/...", probe, true},
		{"kedr:Any/...", probe, true},
		{"kedr:Double/...", probe, false},
		{"kedr:Leak/...", "", true},
		{"kedr:Leak/fun:*", "", false},
		{"kedr:Leak/end", "", true},
		{"kedr:Leak/match-kinds: slab/...", probe, true},
		{"kedr:Leak/match-kinds: vmalloc, sl*/...", probe, true},
		{"kedr:Leak/match-kinds: vmalloc,dma/...", probe, false},
		{"kedr:Leak/fun:alloc_ring", probe, true},
		{"kedr:Leak/fun:probe", probe, false},
		{"kedr:Leak/fun:alloc_*/fun:probe", probe, true},
		{"kedr:Leak/fun:alloc_ring/fun:init", probe, false},
		{"kedr:Leak/.../fun:init", probe, true},
		{"kedr:Leak/others/fun:init", probe, false},
		{"kedr:Leak/fun:alloc_ring/fun:probe/others/fun:init/others/end", probe, true},
		{"kedr:Leak/fun:alloc_ring/others/fun:init", probe, false},
		{"kedr:Leak/fun:alloc_ring/.../fun:init/end", probe, false},
		{"kedr:Leak/fun:alloc_ring/.../others/end", probe, true},
		{"kedr:Leak/.../obj:vmlinux/end", probe, true},
		{"kedr:Leak/obj:drv fun:alloc_ring src:ring.c", probe, true},
		{"kedr:Leak/obj:drv fun:alloc_ring src:main.c", probe, false},
		{"kedr:Leak/src:*/drv/*.c", probe, true},
		{"kedr:Leak/src:/src/*.h", probe, false},
		{"kedr:Leak/src:drv/ring.c", probe, false},
		{"kedr:Leak/obj:d?v", probe, true},
		{"kedr:Leak/obj:hello-kernel.ko", "hello_kernel:f", true},
		{"kedr:Leak/obj:vmlinux", "vmlinux:f", true},
		{"kedr:Leak/fun:f", "f.constprop.0", true},
		{"kedr:Leak/fun:f.*", "f.constprop.0", true},
		{"kedr:Leak/fun:f.part.*", "f.constprop.0", false},
		{`kedr:Leak/fun:a\*`, "a*", true},
		{`kedr:Leak/fun:a\*`, "ab", false},
		{`kedr:Leak/src:my\ file.c`, "f@/src/my file.c", false}, // a word of the test has no blank
		// A wildcard may take what the next one would have to take.
		{"kedr:Leak/others/fun:b/.../fun:b/end", "vmlinux:b b vmlinux:c b", true},
		{"kedr:Leak/others/fun:*/others/obj:drv/end", "vmlinux:a vmlinux:b c", true},
		{"kedr:Leak/.../.../.../fun:z", "a b c d", false},
		{"kedr:Leak/.../end", "a b", true},
		{"kedr:Leak/fun:a/.../.../end", "a", true},
		// The kernel's headers may be there or not, in the target.
		{"kedr:Leak/fun:a/end", "kmalloc@include/linux/slab.h a kmalloc_noprof@./include/linux/slab.h", true},
		{"kedr:Leak/fun:kmalloc/fun:a/end", "kmalloc@include/linux/slab.h a", true},
		{"kedr:Leak/fun:kmalloc/fun:a/end", "kmalloc_noprof@include/linux/slab.h a", false},
		{"kedr:Leak/fun:kmalloc/fun:a/end", "a", false},
		{"kedr:Leak/fun:kmalloc", "kmalloc@include/linux/slab.h", true},
		{"kedr:Leak/end", "kmalloc@include/linux/slab.h", true},
		{"kedr:Leak/fun:b", "kmalloc@include/linux/slab.h a b", false},
		{"kedr:Leak/fun:a", "vmlinux:kmalloc@include/linux/slab.h a", false},
	}
	for _, tt := range tests {
		text := "{\nname\n" + strings.ReplaceAll(protect(tt.block), "/", "\n") + "\n}\n"
		set := NewSet(parse(t, strings.ReplaceAll(text, "\x00", "/")))
		got := set.find(&finding{what: "leak", kind: "slab", target: "drv", stack: stack(tt.stack)}) != nil
		if got != tt.want {
			t.Errorf("%s of %s: %v, want %v", tt.block, tt.stack, got, tt.want)
		}
	}
}

// protect keeps the slashes of src: from ending the line in TestMatch's short form.
func protect(block string) string {
	i := strings.Index(block, "src:")
	if i < 0 {
		return block
	}
	return block[:i] + strings.ReplaceAll(block[i:], "/", "\x00")
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"?", "", false}, {"?", "é", true},
		{"a*b*c", "a__b__c", true}, {"a*b*c", "a__b__cd", false}, {"*abc", "ababc", true},
		{"a**b", "ab", true}, {"*a?c*", "xxabcabd", true}, {`\*`, "*", true}, {`\\`, `\`, true}, {`a\`, "", false},
	} {
		g, err := parseGlob(tt.pattern)
		if err != nil {
			if tt.want {
				t.Errorf("%s: %v", tt.pattern, err)
			}
			continue
		}
		if got := g.match(tt.name); got != tt.want {
			t.Errorf("%s of %q: %v", tt.pattern, tt.name, got)
		}
	}
}

// follows is what matches means, written down without a thought for the time it takes.
func follows(lines []frame, end bool, stack []leak.Frame) bool {
	if len(stack) > 0 && stack[0].Module == "drv" && stack[0].Header() && follows(lines, end, stack[1:]) {
		return true
	}
	if len(lines) == 0 {
		return !end || len(stack) == 0
	}
	l := &lines[0]
	if l.any != none && follows(lines[1:], end, stack) {
		return true
	}
	if len(stack) == 0 {
		return false
	}
	switch l.any {
	case all:
		return follows(lines, end, stack[1:])
	case others:
		return stack[0].Module != "drv" && follows(lines, end, stack[1:])
	}
	return l.matches(&stack[0]) && follows(lines[1:], end, stack[1:])
}

// TestMatchesAsDefined holds the walk side by side against the definition, and globs against
// regular expressions.
func TestMatchesAsDefined(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	yes := 0
	for range 20000 {
		block, words := "{\nname\nkedr:Any\n", ""
		for range 1 + r.IntN(6) {
			block += pick("...", "others", "fun:a", "fun:b", "fun:?", "obj:drv", "obj:vmlinux", "fun:a obj:drv") + "\n"
		}
		block += pick("end\n", "") + "}\n"
		for range r.IntN(7) {
			words += pick("a", "b", "vmlinux:a", "vmlinux:b", "a@include/linux/slab.h") + " "
		}
		s := parse(t, block)[0]
		f := finding{what: "leak", kind: "slab", target: "drv", stack: stack(words)}
		want := follows(s.frames, s.end, f.stack)
		if got := NewSet([]*Suppression{s}).find(&f) != nil; got != want {
			t.Fatalf("%s of %s: %v", block, words, got)
		}
		if want {
			yes++
		}
		var pattern, name string
		for range r.IntN(7) {
			pattern += pick("a", "b", "*", "?", "é")
			name += pick("a", "b", "é")
		}
		g, err := parseGlob(cmp.Or(pattern, "*"))
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile("^(?s:" + strings.NewReplacer("*", ".*", "?", ".").Replace(cmp.Or(pattern, "*")) + ")$")
		if got := g.match(name); got != re.MatchString(name) {
			t.Fatalf("%s of %s: %v", pattern, name, got)
		}
	}
	if yes < 2000 || yes > 18000 {
		t.Errorf("%d of 20000 match: what does that say?", yes)
	}
}

// TestTime: no pattern takes longer than its lines times the frames.
func TestTime(t *testing.T) {
	block := "{\nname\nkedr:Leak\n" + strings.Repeat("...\nfun:"+strings.Repeat("*a", 100)+"b\n", 100) + "}\n"
	set := NewSet(parse(t, block))
	long := stack(strings.Repeat(strings.Repeat("a", 200)+" ", 200))
	start := time.Now()
	if set.find(&finding{what: "leak", kind: "slab", target: "drv", stack: long}) != nil {
		t.Error("it matches")
	}
	// A fraction of a second, where backtracking would not end in a life.
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"kmalloc\n", `x.supp:1: "kmalloc": a suppression begins with a { on a line of its own`},
		{"# a\n\n{\n", "x.supp:3: this { has no }"},
		{"{\n}\n", "x.supp:2: the suppression has no name: that is its first line"},
		{"{\nn\n}\n", "x.supp:3: what to suppress? kedr:Leak is wanted after the name, or another of kedr:Any, kedr:Double, kedr:Leak, kedr:Mismatched, kedr:Unallocated"},
		{"{\nn\nkedr:Leak\n}\n", "x.supp:4: the suppression has no frames, and would suppress everything: if that is meant, ... is the line for it"},
		{"{\nn\nkedr:Leak\nend\n}\n", ""},
		{"{\nn\nMemcheck:Leak\n...\n}\n", `x.supp:3: "Memcheck:Leak": what to suppress comes after the name, as in kedr:Leak`},
		{"{\nn\nkedr:Leaks\n...\n}\n", "x.supp:3: kedr:Leaks: there is kedr:Any, kedr:Double, kedr:Leak, kedr:Mismatched, kedr:Unallocated; did you mean Leak?"},
		{"{\nn\nkedr:Leak\nfn:a\n}\n", `x.supp:4: "fn:a": a frame is fun:NAME, src:FILE, obj:MODULE or several of these, or ..., others, end`},
		{"{\nn\nkedr:Leak\nfun:\n}\n", "x.supp:4: fun:: it is empty: * is any"},
		{"{\nn\nkedr:Leak\nfun:a fun:b\n}\n", "x.supp:4: fun: is there twice for one frame"},
		{"{\nn\nkedr:Leak\nfun:a\\\n}\n", `x.supp:4: fun:a\: nothing comes after the \ at its end`},
		{"{\nn\nkedr:Leak\nmatch-kinds: a,,b\n...\n}\n", "x.supp:4: match-kinds: it is empty: * is any"},
		{"{\nn\nkedr:Leak\n...\nmatch-kinds: a\n}\n", "x.supp:5: match-kinds: comes once, before the frames"},
		{"{\nn\nkedr:Leak\nend\n...\n}\n", `x.supp:5: "...": nothing comes after end`},
		{"{\nn\nkedr:Leak\n...\n{\n", "x.supp:5: the suppression of line 1 has no }"},
		{"{\nn\x1b[2J\n", "x.supp:2: there is a character in this line that is no text"},
		{"\xff\n", "x.supp:1: there is a character in this line that is no text"},
		{"{\n" + strings.Repeat("n", maxLine) + "\n", "x.supp:2: the line is longer than 4096 bytes"},
		{"{\nn\nkedr:Leak\n" + strings.Repeat("fun:a\n", maxFrames+1), "x.supp:260: these are more than 256 frames"},
		{strings.Repeat("{\nn\nkedr:Leak\n...\n}\n", maxBlocks+1), "x.supp:50001: these are more than 10000 suppressions"},
		{strings.Repeat("# "+strings.Repeat("x", 1021)+"\n", maxFile/1024+1), "x.supp:4097: the file is larger than 4194304 bytes"},
	} {
		_, err := Parse(strings.NewReader(tt.text), "x.supp")
		if got := fmt.Sprint(err); err != nil && got != tt.want || err == nil && tt.want != "" {
			t.Errorf("%.60q: error %v, want %s", tt.text, err, tt.want)
		}
	}
}

// report has findings that differ in one thing each.
func report() *leak.Report {
	r := &leak.Report{Target: leak.Target{Name: "drv"}}
	for _, l := range []leak.Leak{
		{Kind: "slab", Count: 2, Bytes: 64, Stack: stack("f@a.c g@a.c vmlinux:do_one_initcall")},
		{Kind: "vmalloc", Count: 1, Bytes: 10, Stack: stack("f@a.c g@a.c vmlinux:do_one_initcall")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@b.c g@a.c vmlinux:do_one_initcall")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@a.c g@a.c h@a.c vmlinux:do_one_initcall")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@a.c")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@a.c f@a.c")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@a.c f@a.c f@a.c")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@a.c vmlinux:x k@a.c vmlinux:do_one_initcall")},
		{Kind: "slab", Count: 1, Bytes: 1, Stack: stack("f@a.c h@a.c g@a.c vmlinux:do_one_initcall")},
		{Kind: "a, b*", Count: 1, Bytes: 1, Stack: stack("f?*\\@a.c")},
	} {
		r.PossibleLeaks = append(r.PossibleLeaks, l)
		r.PossibleLeaksTotal += l.Count
		r.LeakedBytes += l.Bytes
	}
	for _, what := range []string{session.Unallocated, session.Double, session.Mismatched} {
		r.UnallocatedFrees = append(r.UnallocatedFrees, leak.Wrong{Wrong: what, Kind: "slab", Count: 3, Stack: stack("f@a.c g@a.c vmlinux:do_one_initcall")})
	}
	r.UnallocatedFreesTotal, r.MismatchedTotal = 6, 3
	return r
}

// TestGenerated: a generated block suppresses the finding that it is for, and no other.
func TestGenerated(t *testing.T) {
	var all bytes.Buffer
	if err := Generate(&all, []*leak.Report{report(), report()}); err != nil {
		t.Fatal(err)
	}
	blocks := parse(t, all.String())
	r := report()
	if len(blocks) != len(r.PossibleLeaks)+len(r.UnallocatedFrees) {
		t.Errorf("%d blocks", len(blocks))
	}
	set := NewSet(blocks)
	set.Apply(r)
	if !r.Clean() || len(set.Unused()) > 0 {
		t.Errorf("left: %+v, unused: %d", r.Account().Counted, len(set.Unused()))
	}
	for i, b := range blocks {
		r := report()
		NewSet([]*Suppression{b}).Apply(r)
		if s := r.Suppressions; len(s) != 1 || s[0].Stacks != 1 || s[0].Name != b.Name || s[0].Line != b.Line {
			t.Errorf("block %d, %s: %+v", i, b.Name, s)
		}
	}
	// Once all is suppressed there is nothing more to write.
	all.Reset()
	if err := Generate(&all, []*leak.Report{r}); err != nil || all.Len() > 0 {
		t.Errorf("%v, %s", err, all.String())
	}
}

// TestGeneratedElsewhere: a block holds on a kernel whose headers have other functions.
func TestGeneratedElsewhere(t *testing.T) {
	on := func(words string) *leak.Report {
		return &leak.Report{Target: leak.Target{Name: "drv"}, PossibleLeaksTotal: 1, PossibleLeaks: []leak.Leak{{Kind: "slab", Count: 1, Stack: stack(words)}}}
	}
	kernels := []string{
		"kmalloc@/usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h f@a.c vmlinux:x init@a.c",
		"kmalloc_noprof@include/linux/slab.h kzalloc_noprof@include/linux/slab.h f@a.c vmlinux:y dev_register@include/linux/device.h init@a.c",
	}
	for i, k := range kernels {
		var b bytes.Buffer
		if err := Generate(&b, []*leak.Report{on(k)}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "slab.h") || strings.Contains(b.String(), "device.h") {
			t.Errorf("headers: %s", b.String())
		}
		for j, other := range kernels {
			r := on(other)
			NewSet(parse(t, b.String())).Apply(r)
			if !r.Clean() {
				t.Errorf("what was generated on %d does not match on %d: %s", i, j, b.String())
			}
		}
		r := on("f@a.c g@a.c init@a.c")
		NewSet(parse(t, b.String())).Apply(r)
		if r.Clean() {
			t.Errorf("it matches another stack: %s", b.String())
		}
	}
	// Where nothing else is known, the headers have to do.
	var b bytes.Buffer
	if err := Generate(&b, []*leak.Report{on("kmalloc@include/linux/slab.h")}); err != nil || !strings.Contains(b.String(), "fun:kmalloc src:slab.h") {
		t.Errorf("%v %s", err, b.String())
	}
}

func TestGenerate(t *testing.T) {
	r := &leak.Report{Target: leak.Target{Name: "drv"}, PossibleLeaks: []leak.Leak{
		{Kind: "slab", Count: 1, Stack: []leak.Frame{
			{Module: "drv", Function: "ring.isra.0", File: "/src/my ring.c", Line: 7},
			{Function: "worker_thread"},
			{Module: "other", Function: "x"},
			{Module: "drv", Function: "init"}}},
		{Kind: "slab", Count: 1, Cut: true, Stack: stack("a\x1bb@a.c")},
		{Kind: "page", Count: 1, Stack: []leak.Frame{{Address: 0xffffffffc0000000}}},
	}, UnallocatedFrees: []leak.Wrong{{Wrong: "# of a later kedr", Count: 1, Stack: stack("f")}}}
	var got bytes.Buffer
	if err := Generate(&got, []*leak.Report{r}); err != nil {
		t.Fatal(err)
	}
	const want = `{
   possible leak of slab in ring, my ring.c:7
   kedr:Leak
   match-kinds: slab
   fun:ring src:my\ ring.c obj:drv
   others
   fun:init obj:drv
   others
   end
}
{
   possible leak of slab in a?b, a.c
   kedr:Leak
   match-kinds: slab
   fun:a?b src:a.c obj:drv
}
# no block for a possible leak of page in drv: none of its functions is known
# no block for a # of a later kedr release of  in drv: none of its functions is known
`
	if got.String() != want {
		t.Errorf("got:\n%s", got.String())
	}
	if n := len(parse(t, got.String())); n != 2 {
		t.Errorf("%d blocks are read again", n)
	}
}

// TestApply: the first block that matches is the one that is used; others stay unused.
func TestApply(t *testing.T) {
	set := NewSet(parse(t, `
{
   slabs of f
   kedr:Leak
   match-kinds: slab
   fun:f
}
# Never asked for what the one above takes.
{
   f in a.c
   kedr:Leak
   fun:f src:a.c
}
{
   nobody
   kedr:Any
   fun:nobody
}
`))
	r := report()
	set.Apply(r)
	set.Apply(r) // twice is once
	if s := r.Suppressions; len(s) != 2 || s[0] != (leak.Suppression{Name: "slabs of f", File: "x.supp", Line: 2, Stacks: 8, Leaks: 9, Bytes: 71}) ||
		s[1] != (leak.Suppression{Name: "f in a.c", File: "x.supp", Line: 9, Stacks: 1, Leaks: 1, Bytes: 10}) {
		t.Errorf("%+v", s)
	}
	if u := set.Unused(); len(u) != 1 || u[0].Name != "nobody" || u[0].Line != 14 {
		t.Errorf("unused: %+v", u)
	}
	a := r.Account()
	if a.Suppressed != (leak.Figures{Leaks: 10, Bytes: 81, Stacks: 9}) || a.Counted != (leak.Figures{Leaks: 1, Bytes: 1, Stacks: 1, Unallocated: 6, Mismatched: 3}) {
		t.Errorf("%+v", a)
	}
	if r.PossibleLeaksTotal != 11 || r.Clean() {
		t.Errorf("the totals are what was seen: %+v", r)
	}
}

// BenchmarkApply is 1000 suppressions, none of which matches, on 10000 call stacks.
func BenchmarkApply(b *testing.B) {
	r := &leak.Report{Target: leak.Target{Name: "drv"}}
	for i := range 10000 {
		r.PossibleLeaks = append(r.PossibleLeaks, leak.Leak{Kind: "slab", Count: 1, Stack: stack(fmt.Sprintf("f%d@a.c g@a.c h@a.c init@a.c vmlinux:do_one_initcall vmlinux:do_init_module", i))})
	}
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "{\nname\nkedr:Leak\nmatch-kinds: slab\nfun:f*x%d src:a.c obj:drv\n...\nend\n}\n", i)
	}
	list, err := Parse(strings.NewReader(text.String()), "x.supp")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		NewSet(list).Apply(r)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("{\nname\nkedr:Leak\nmatch-kinds: slab, a\\,*\nfun:a* src:b.c obj:c\n...\nothers\nend\n}\n", "f@a.c g vmlinux:x")
	f.Add("{\na\nkedr:Any\n...\nfun:?\n}\n# c\n", "other:f f")
	f.Add("{\na\nkedr:Double\nfun:\\ \n}\n", "")
	f.Fuzz(func(t *testing.T, text, words string) {
		list, err := Parse(strings.NewReader(text), "x.supp")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x.supp:") {
				t.Errorf("%v", err)
			}
			return
		}
		frames := stack(words)
		set := NewSet(list)
		set.find(&finding{what: "leak", kind: "slab", target: "drv", stack: frames})
		// What is generated for any stack is read again, and matches it.
		r := &leak.Report{Target: leak.Target{Name: "drv"}, PossibleLeaks: []leak.Leak{{Kind: "slab", Count: 1, Stack: frames}}}
		r.PossibleLeaksTotal = 1
		var b bytes.Buffer
		if err := Generate(&b, []*leak.Report{r}); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(&b, "x.supp")
		if err != nil {
			if len(words) < 1000 {
				t.Fatalf("%v", err)
			}
			return
		}
		NewSet(again).Apply(r)
		if len(again) > 0 && !r.Clean() {
			t.Errorf("%q is not suppressed by what was generated for it: %s", words, b.String())
		}
	})
}
