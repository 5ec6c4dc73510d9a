package report

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
	"kedr/internal/session"
)

// published is what the first KEDR's walkthrough shows of its three files, with the
// records in our order, the largest first, and "myfunc1 +0x35" without its blank.
const published = `Target module: "hello_kernel", init area at fe01f000, core area at fe01d000
Allocations: 6
Possible leaks: 4
Unallocated frees: 0

Process: insmod (PID: 29082)
Address: 0xfe02f000, size: 50; stack trace of the allocation:
[<fe01d115>] myfunc4+0x35/0x80 [hello_kernel]
----------------------------------------
Process: insmod (PID: 29082)
Address: 0xfe02b000, size: 30; stack trace of the allocation:
[<fe01d07d>] myfunc2+0x4d/0x60 [hello_kernel]
----------------------------------------
Process: insmod (PID: 29082)
Address: 0xfe029000, size: 20; stack trace of the allocation:
[<fe01d065>] myfunc2+0x35/0x60 [hello_kernel]
----------------------------------------
Process: insmod (PID: 29082)
Address: 0xfe027000, size: 10; stack trace of the allocation:
[<fe01d0c5>] myfunc1+0x35/0x50 [hello_kernel]
----------------------------------------
`

// TestClassic: what was published is what we write of the same find, to the letter.
func TestClassic(t *testing.T) {
	record := func(address leak.Address, size uint64, at leak.Address, function string, offset, length uint64) leak.Leak {
		return leak.Leak{
			Address: address, Size: size, Bytes: size, Count: 1, Kind: "vmalloc", Function: "vmalloc", PID: 29082, Comm: "insmod",
			Stack: []leak.Frame{
				{Address: at, Function: "inlined", Module: "hello_kernel", Inlined: true, File: "hello.c", Line: 3},
				{Address: at, Function: function, Offset: offset, Size: length, Module: "hello_kernel", File: "hello.c", Line: 4},
				{Address: at, Function: "inferred", Offset: 1, Size: 2, Module: "hello_kernel", Inferred: true},
			},
		}
	}
	r := &leak.Report{
		Target:             leak.Target{Name: "hello_kernel"},
		Loads:              []leak.Load{{ID: 1, Core: 0xfe01d000, Init: 0xfe01f000, Allocations: 6, PossibleLeaks: 4}},
		PossibleLeaksTotal: 4,
		PossibleLeaks: []leak.Leak{
			record(0xfe02f000, 50, 0xfe01d115, "myfunc4", 0x35, 0x80),
			record(0xfe02b000, 30, 0xfe01d07d, "myfunc2", 0x4d, 0x60),
			record(0xfe029000, 20, 0xfe01d065, "myfunc2", 0x35, 0x60),
			record(0xfe027000, 10, 0xfe01d0c5, "myfunc1", 0x35, 0x50),
		},
		Notes: []string{"a note that it did not know"},
	}
	var b bytes.Buffer
	if err := writeText(&b, []*leak.Report{r}, Options{Classic: true, Color: true, Width: 20}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(published, b.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestColor: colours are all that they change, and they end where they should.
func TestColor(t *testing.T) {
	reports := leak.New(sample.Captures(t)["odd"], nil)
	var plain, colored bytes.Buffer
	if err := writeText(&plain, reports, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := writeText(&colored, reports, Options{Color: true}); err != nil {
		t.Fatal(err)
	}
	rendition := regexp.MustCompile(`\x1b\[([0-9;]+)m([^\x1b\n]*)\x1b\[0m`)
	if n := len(rendition.FindAllString(colored.String(), -1)); n < 10 {
		t.Errorf("%d texts are coloured", n)
	}
	if d := cmp.Diff(plain.String(), rendition.ReplaceAllString(colored.String(), "$2")); d != "" {
		t.Errorf("-plain +coloured:\n%s", d)
	}
	if strings.ContainsRune(plain.String(), '\x1b') {
		t.Errorf("plain text has escapes:\n%q", plain.String())
	}
}

// TestUnknownStack: a page's first release, of which the kernel's event tells no caller.
func TestUnknownStack(t *testing.T) {
	c := sample.Captures(t)["odd"]
	for i := range c.WrongFrees {
		if o := c.WrongFrees[i].Object; o != nil && o.First != nil {
			o.First = &session.Party{PID: 9, Comm: "rmmod"}
		}
	}
	var b bytes.Buffer
	if err := writeText(&b, leak.New(c, nil), Options{}); err != nil {
		t.Fatal(err)
	}
	want := "Double free: rmmod (PID: 9) had released it already; stack trace of that:\n                     (no call stack is known)\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
}
