package pages

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const document = `# A document

Text of ` + "`kedr run`" + `.

    $ kedr run a.ko
    Allocations: 6

    ...
    # cat b
    $ cat b \
      c
    $ cd d

    key = "value"

<!-- not run: it would -->

    kedr vm fetch 6.1    # as it is
    A=1 B=2 \
      go test
    make it

- a list

      kedr stop

` + "```sh" + `
# a comment
kedr stop
` + "```" + `

` + "```yaml" + `
# kedr stop
run: kedr stop
` + "```" + `

<!-- output not compared: it varies -->
` + "```console" + `
# kedr status
KEDR status: loaded
` + "```" + `
`

func TestParse(t *testing.T) {
	got, err := Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	want := []Command{
		{Line: 5, Text: "kedr run a.ko", Output: []string{"Allocations: 6", "", "...", "# cat b"}},
		{Line: 10, Text: "cat b \\\n  c"},
		{Line: 12, Text: "cd d", Output: []string{"", `key = "value"`}[1:]},
		{Line: 18, Text: "kedr vm fetch 6.1    # as it is", NotRun: "it would"},
		{Line: 19, Text: "A=1 B=2 \\\n  go test", NotRun: "it would"},
		{Line: 21, Text: "make it", NotRun: "it would"},
		{Line: 29, Text: "kedr stop"},
		{Line: 39, Text: "kedr status", Root: true, Output: []string{"KEDR status: loaded"}, NotCompared: "it varies"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, bad := range []string{
		"<!-- not run: there is nothing -->\ntext\n",
		"<!-- not run: there is nothing -->\n\n    key = 1\n",
		"<!-- not run: there is nothing -->\n",
		"```sh\nkedr stop\n",
		"```sh extra\n```\n",
	} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestCompare(t *testing.T) {
	const printed = `
Process: insmod (PID: 103)
kedr: something by the way
Address: 0xff74bd7e400ad000, size: 10; stack trace of the allocation:
[<ffffffffc05990b7>] hello_init+0x16/0x2c [hello_kernel]
[<ffffffffb18024b9>] do_one_initcall+0x59/0x220
----------------------------------------
hello_kernel on 6.1.0-56-amd64: 4 possible leaks
          0.296097   1h kedr-142              168.6 µs  } = 0  calls_init
`
	for _, test := range []struct {
		shown string
		ok    bool
	}{
		{"Process: insmod (PID: 7)\nAddress: 0xffffc90000111000, size: 10; stack ...\n...\nhello_kernel on 6.1.0-9-amd64: 4 possible leaks\n...", true},
		{"...\n[<ffffffffc02a308f>] hello_init+0x1/0x2 [hello_kernel]\n...\n0.1 ...", false},
		{"...\n          0.000001   0h kedr-3        2.0 ms  } = 0  calls_init", true},
		{"...\n          0.000001   0 kedr-3        2.0 ms  } = 0  calls_init", false},
		{"...\nhello_kernel on 6.1.0-9-amd64: 4 possible leaks", false},
		{"...\nhello_kernel on 6.1.0-9-amd64: 3 possible leaks\n...", false},
		{"Process: insmod (PID: 7)\nkedr: something by the way\n...", true},
		{"Process: insmod (PID: 7)\n[<ffffffffc05990b7>] hello_init+0x16/0x2c [hello_kernel]\n...", false},
		{"...", true},
		{"Process: rmmod (PID: 7)\n...", false},
		{"", true},
	} {
		c := Command{Text: "kedr report", Output: trim(strings.Split(test.shown, "\n"))}
		if err := c.Compare(printed); (err == nil) != test.ok {
			t.Errorf("%q: %v", test.shown, err)
		}
	}
}

func TestScript(t *testing.T) {
	for _, test := range []struct {
		page, dir, err string
	}{
		{"    $ cd /usr\n    $ false\n    $ echo $?\n    1\n", "", "exit status 1"},
		{"<!-- exit status 5: it is said to -->\n    $ sh -c 'exit 5'\n    $ cd /\n", "/", ""},
		{"<!-- exit status 5: it is said to -->\n    $ sh -c 'exit 4'\n", "", "exit status 4"},
		{"    $ cd /usr\n    $ x=3\n    $ echo $x\n    3\n", "/usr", ""},
		{"    $ echo a; echo b >&2\n    a\n", "", "more was printed"},
		{"    $ echo a; echo b >&2\n    a\n    c\n", "", "was not printed"},
		{"    $ exit 0\n    $ echo a\n", "", "did not end"},
		{"    $ printf 'no newline'\n    no newline\n    $ cd /tmp\n", "/tmp", ""},
		{"    $ sh -c ': kedr ; exit 1'\n    $ echo $?\n    1\n    $ cd /\n", "/", ""},
	} {
		commands, err := Parse(test.page)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", Script(commands)).Output()
		if err != nil {
			t.Fatalf("%q: %v", test.page, err)
		}
		dir, err := Check(commands, string(out))
		switch {
		case test.err == "" && (err != nil || dir != test.dir):
			t.Errorf("%q: %v, in %s", test.page, err, dir)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%q: %v, want %s", test.page, err, test.err)
		}
	}
}
