//go:build guest

package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// traced is a line of kedr trace --format json: docs/trace-format.md.
type traced struct {
	Type     string
	Call     uint64
	Parent   uint64
	Depth    int
	CPU      uint32
	TID      uint32
	Comm     string
	Context  string
	Function string
	Callback bool
	Jump     bool
	Duration *uint64
	Live     *int64
	Args     []struct {
		Name, Value string
		Raw         *uint64
	}
	Result *struct {
		Value string
		Raw   *uint64
	}
	Failed bool
	Error  string
	Site   *struct {
		Frames []struct {
			Function, File string
			Line           int
		}
	}
	Lost []struct {
		Function, Reason string
		Count            uint64
	}
	Untraced []struct{ Function, Reason string }
	Off      []string
}

func (c *traced) arg(name string) string {
	for _, a := range c.Args {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// calls parses a trace in JSON lines, and checks that it has an end.
func calls(t *testing.T, out string) (list []traced, end traced) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var c traced
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		if c.Type == "end" {
			end = c
			continue
		}
		list = append(list, c)
	}
	if end.Type != "end" {
		t.Fatalf("the trace has no end: %.500s", out)
	}
	return list, end
}

// trace runs kedr trace. An interrupt while a probe runs may cost an event, of which the
// trace has to say so; then it is run again.
func traceOf(t *testing.T, args ...string) (list []traced, end traced) {
	t.Helper()
	for try := 1; ; try++ {
		o := kedr(t, append([]string{"trace", "--vm=never", "--format", "json"}, args...)...)
		if o.status != 0 && o.status != 4 {
			t.Fatalf("kedr trace %s: exit status %d: %s", strings.Join(args, " "), o.status, o.stderr)
		}
		list, end = calls(t, o.stdout)
		if (o.status == 4) != (len(end.Lost) > 0) {
			t.Fatalf("exit status %d, and lost: %v", o.status, end.Lost)
		}
		if o.status == 0 || try == 8 {
			return list, end
		}
		t.Logf("events were lost: %+v", end.Lost)
	}
}

// show is a line again.
func show(c *traced) string {
	b, _ := json.Marshal(c)
	return string(b)
}

// tally counts lines by what key makes of them.
func tally(list []traced, key func(c *traced) string) map[string]int {
	n := make(map[string]int)
	for i := range list {
		if k := key(&list[i]); k != "" {
			n[k]++
		}
	}
	return n
}

// names are how a function of the source is called in this kernel.
func named(function string) string {
	switch strings.TrimSuffix(function, "_noprof") {
	case "__kmalloc":
		return "kmalloc"
	case "hrtimer_setup":
		return "hrtimer_init"
	}
	return function
}

// needsTypes skips what a kernel without BTF does not let do: its functions' arguments are
// not known. That kedr says so is tested by TestNoTypes.
func needsTypes(t *testing.T) {
	t.Helper()
	if !hasTypes() {
		t.Skip("no BTF, hence no traces of calls")
	}
}

// TestNoTypes: what takes the kernel's types is refused where there are none, in a line.
func TestNoTypes(t *testing.T) {
	if hasTypes() {
		must(t, "mount", "-t", "tmpfs", "none", "/sys/kernel/btf")
		defer must(t, "umount", "/sys/kernel/btf")
	}
	for _, args := range [][]string{
		{"trace", "--vm=never", ko("clean")},
		{"start", "--trace", ko("clean")},
		{"run", "--vm=never", "--backend=trampoline", ko("clean")},
	} {
		o := command(t, nil, program, args...)
		if o.status != 3 || !strings.Contains(o.stderr, "this kernel has no BTF") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%v: %+v", args, o)
		}
		nothingLeft(t, "clean")
	}
	// Leaks are found all the same.
	o := kedr(t, "run", "--vm=never", ko("hello-kernel"))
	if o.status != 1 || !strings.Contains(o.stdout, "Allocations: 6\nPossible leaks: 4\nUnallocated frees: 0\n") {
		t.Errorf("hello-kernel: %+v", o)
	}
}

// TestTrace has a module make known calls with known arguments, from four threads and a
// timer's interrupt at once.
func TestTrace(t *testing.T) {
	needsTypes(t)
	const threads, rounds, ticks = 4, 100, 10
	list, end := traceOf(t, ko("calls"), fmt.Sprintf("threads=%d", threads), fmt.Sprintf("rounds=%d", rounds), fmt.Sprintf("ticks=%d", ticks))
	got := tally(list, func(c *traced) string {
		if c.Type != "call" {
			return c.Type
		}
		return named(c.Function)
	})
	want := map[string]int{
		"loaded": 1, "unloaded": 1, "calls_init": 1, "work": threads, "tick": ticks,
		"kmalloc": threads*rounds + ticks, "kfree": 2*threads*rounds + ticks,
		"kstrtoint": threads * rounds, "filp_open": threads * rounds, "kasprintf": threads * rounds,
		"kthread_create_on_node": threads, "kthread_bind": threads, "wake_up_process": threads,
		"hrtimer_init": 1, "hrtimer_start_range_ns": 1, "hrtimer_forward": ticks - 1, "complete": 2,
	}
	// A real-time kernel preempts the probes all the time, and a busy host makes interrupts
	// meet: then the trace has to say what it lacks.
	if len(end.Lost) > 0 {
		lost := make(map[string]uint64)
		for _, l := range end.Lost {
			lost[named(l.Function)] += l.Count
		}
		for name, n := range want {
			if short := n - got[name]; short > 0 && lost[name] == 0 {
				t.Errorf("%s: %d, want %d, and lost: %+v", name, got[name], n, end.Lost)
			}
		}
		return
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: %d, want %d", name, got[name], n)
		}
	}

	interrupt := "hardirq"
	if realTime(t) {
		interrupt = "task" // timers have a thread there
	}
	number := make(map[uint64]*traced)
	for i := range list {
		if list[i].Call > 0 {
			number[list[i].Call] = &list[i]
		}
	}
	// The library's functions have no BTF on 5.10: then their arguments are not there.
	known := func(c *traced) bool { return len(c.Args) > 0 }
	sizes, rounded, ended := make(map[string]int), make(map[string]int), make(map[string]int)
	for i := range list {
		c := &list[i]
		if c.Type != "call" {
			continue
		}
		in := ""
		if p := number[c.Parent]; p != nil {
			in = p.Function
			if p.TID != c.TID || p.Context != c.Context || c.Depth != p.Depth+1 {
				t.Errorf("%s in %s", show(c), show(p))
			}
		}
		if c.Duration == nil && !c.Jump {
			t.Errorf("%s has not returned", c.Function)
		}
		site := ""
		if c.Site != nil && len(c.Site.Frames) > 0 {
			f := c.Site.Frames[len(c.Site.Frames)-1]
			site = f.Function
		}
		if c.Callback != (c.Function == "work" || c.Function == "tick" || c.Function == "calls_init") {
			t.Errorf("%s: callback %v", c.Function, c.Callback)
		}
		if !c.Callback && (in == "" || site != in) {
			t.Errorf("%s is called by %q, in %q", c.Function, site, in)
		}
		switch named(c.Function) {
		case "kmalloc":
			sizes[c.arg("size")]++
			flags, context := "GFP_KERNEL|__GFP_ZERO", "task"
			if in == "tick" {
				flags, context = "GFP_ATOMIC", interrupt
			}
			if c.arg("flags") != flags || c.Context != context || !strings.HasPrefix(c.Result.Value, "0xff") {
				t.Errorf("in %s: %s", in, show(c))
			}
		case "kstrtoint":
			if c.Error != "EINVAL" || !c.Failed || known(c) && (c.arg("s") != `"12\tx"` || c.arg("base") != "10" || c.Result.Value != "-EINVAL") {
				t.Error(show(c))
			}
		case "filp_open":
			if c.Error != "ENOENT" || !c.Failed || c.arg("filename") != `"/kedr/no \"such\" file"` || c.arg("flags") != "O_RDONLY" || c.arg("mode") != "0640" {
				t.Error(show(c))
			}
		case "kasprintf":
			if known(c) {
				rounded[c.Result.Value]++
				if c.arg("fmt") != `"round %d"` || c.arg("gfp") != "GFP_KERNEL" {
					t.Error(show(c))
				}
			}
		case "work":
			if !strings.HasPrefix(c.Comm, "kedr_calls/") {
				t.Error(show(c))
			}
		case "tick":
			// Its types are from the module's debug information, where it has no others.
			if c.Context != interrupt || !strings.HasPrefix(c.arg("t"), "(struct hrtimer *)0xff") {
				t.Error(show(c))
			}
			ended[c.Result.Value]++
		}
	}
	if ended["HRTIMER_RESTART"] != ticks-1 || ended["HRTIMER_NORESTART"] != 1 {
		t.Errorf("tick returned %v", ended)
	}
	for i := range rounds {
		if n := sizes[strconv.Itoa(1000+i)]; n != threads {
			t.Errorf("size %d: %d times", 1000+i, n)
		}
		if n := rounded[fmt.Sprintf(`"round %d"`, i)]; n != threads && len(rounded) > 0 {
			t.Errorf("round %d: %d times", i, n)
		}
	}
	for i := range ticks {
		if n := sizes[strconv.Itoa(2000+ticks-i)]; n != 1 {
			t.Errorf("size %d: %d times", 2000+ticks-i, n)
		}
	}
}

// TestTraceChoice keeps some calls only.
func TestTraceChoice(t *testing.T) {
	needsTypes(t)
	small := []string{ko("calls"), "threads=1", "rounds=10", "ticks=2"}
	for _, test := range []struct {
		flags []string
		want  map[string]int
	}{
		{[]string{"--errors"}, map[string]int{"kstrtoint": 10, "filp_open": 10}},
		{[]string{"--only", "filp*", "--only", "k*free"}, map[string]int{"filp_open": 10, "kfree": 22}},
		{[]string{"--except", "*kmalloc*", "--except", "kfree,complete,kasprintf,kstrtoint,filp_open,*thread*,wake*,hrtimer*,wait*,work,calls_init"}, map[string]int{"tick": 2}},
		{[]string{"--where", "size >= 2000"}, map[string]int{"kmalloc": 2}},
		{[]string{"--where", "size > 1005 && flags & __GFP_ZERO != 0"}, map[string]int{"kmalloc": 4}},
		{[]string{"--where", "ret == -ENOENT && mode == 0640"}, map[string]int{"filp_open": 10}},
		{[]string{"--where", `comm == "kedr_calls/0" && size / (size - 1000) > 200`}, map[string]int{"kmalloc": 5}},
		{[]string{"--pid", "1"}, map[string]int{}},
		{[]string{"--site", "tick", "--except", "hrtimer*,complete"}, map[string]int{"kmalloc": 2, "kfree": 2}},
	} {
		t.Run(strings.Join(test.flags, " "), func(t *testing.T) {
			list, end := traceOf(t, append(test.flags, small...)...)
			if len(end.Lost) > 0 {
				t.Logf("incomplete, and says so: %+v", end.Lost)
				return
			}
			got := tally(list, func(c *traced) string {
				if c.Type != "call" {
					return ""
				}
				return named(c.Function)
			})
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// TestTraceFile keeps a trace, and shows it in every format; a part of one is shown and
// said to be cut off.
func TestTraceFile(t *testing.T) {
	needsTypes(t)
	file := filepath.Join(t.TempDir(), "calls.trace")
	var o outcome
	for range 8 { // an interrupt while a probe runs may cost an event
		o = kedr(t, "trace", "--vm=never", "--live", "-o", file, ko("calls"), "threads=1", "rounds=3", "ticks=1")
		if o.status != 4 {
			break
		}
	}
	if o.status != 0 || o.stdout != "" {
		t.Fatalf("%+v", o)
	}
	text := must(t, program, "trace", "--from", file)
	for _, want := range []string{
		`-- calls loaded --`, `calls_init() {|calls_init\(\) \{`, `filp_open\(filename="/kedr/no \\"such\\" file", flags=O_RDONLY, mode=0640\) = -ENOENT  # work\+0x`,
		`\(calls\.c:\d+\)|calls\.c:\d+\)`, `-- calls unloaded --`, `# not traced: calls_exit: `,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	list, _ := calls(t, must(t, program, "trace", "--from", file, "--format", "json"))
	live := int64(0)
	for _, c := range list {
		if c.Live != nil {
			live = max(live, *c.Live)
		}
	}
	if live < 1002 {
		t.Errorf("%d bytes live at most, of 1002", live)
	}
	summary := must(t, program, "trace", "--from", file, "--summary")
	if !regexp.MustCompile(`(?m)^ *3 +3 .* filp_open$`).MatchString(summary) {
		t.Errorf("summary:\n%s", summary)
	}
	var events []map[string]any
	if err := json.Unmarshal([]byte(must(t, program, "trace", "--from", file, "--format", "chrome")), &events); err != nil {
		t.Error(err)
	}

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole[:len(whole)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	if o := kedr(t, "trace", "--from", file); o.status != 4 || !strings.Contains(o.stderr, "the trace is cut off") {
		t.Errorf("cut off: %+v", o)
	}
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, 2, "this is no trace of kedr", "trace", "--from", file)
}

// TestTraceAttached reads the trace of a detached session.
func TestTraceAttached(t *testing.T) {
	needsTypes(t)
	ends(t, "hello_kernel")
	must(t, program, "start", "--trace", ko("hello-kernel"))
	must(t, "insmod", ko("hello-kernel"))
	count := func(out, what string) int { return strings.Count(out, what) }
	first := kedr(t, "trace", "--attach", "hello_kernel", "--drain").stdout
	if n := len(regexp.MustCompile(`vmalloc(_noprof)?\(size=`).FindAllString(first, -1)); n != 6 {
		t.Errorf("%d calls of vmalloc, want 6:\n%s", n, first)
	}
	must(t, "rmmod", "hello_kernel")
	second := kedr(t, "trace", "--attach", "hello-kernel").stdout
	if count(second, "vmalloc") != 0 || count(second, "hello_kernel unloaded") != 1 {
		t.Errorf("after the first reader:\n%s", second)
	}
	must(t, "insmod", ko("hello-kernel"))
	must(t, "rmmod", "hello_kernel")
	third := kedr(t, "trace", "--attach", "hello-kernel", "--summary").stdout
	if !regexp.MustCompile(`(?m)^ *6 +0 .* vmalloc(_noprof)?$`).MatchString(third) {
		t.Errorf("of the second load:\n%s", third)
	}
	if got := strings.Join(totals(t, "hello_kernel"), " "); got != "6/4/0 6/4/0" {
		t.Errorf("at the end: %s", got)
	}
	refused(t, 3, "module minix is not being watched", "trace", "--attach", "minix")
}

// TestTraceRefused is what kedr trace can't do.
func TestTraceRefused(t *testing.T) {
	needsTypes(t)
	refused(t, 2, "no MODULE given", "trace")
	refused(t, 3, "service is not running", "trace", "--attach", "minix")
	refused(t, 2, "--follow and --drain go with --attach", "trace", "--follow", ko("calls"))
	refused(t, 2, "--from and --attach: one of them", "trace", "--attach", "--from", "x")
	refused(t, 2, "no such file", "trace", "--from", "/nonexistent")
	refused(t, 2, "--format: there is no format", "trace", "--format", "xml", ko("calls"))
	refused(t, 2, "--probes=jump: must be one of", "trace", "--probes", "jump", ko("calls"))
	refused(t, 2, "there is no such function", "trace", "--vm=never", "--only", "zebra*", ko("calls"))
	refused(t, 2, "there is no such function in the targets", "trace", "--vm=never", "--site", "zebra*", ko("calls"))
	refused(t, 2, "did you mean size?", "trace", "--vm=never", "--where", "siez > 1", ko("calls"))
	refused(t, 2, "division by zero", "trace", "--vm=never", "--where", "size / 0 == 1", ko("calls"))
	refused(t, 2, "an operand is missing", "trace", "--vm=never", "--where", "size > 1 &&", ko("calls"))
	refused(t, 2, "has no field z_flags", "trace", "--vm=never", "--expand", "file.z_flags", ko("calls"))
	refused(t, 3, "must be a power of two", "trace", "--vm=never", "--buffer", "5000", ko("calls"))
	refused(t, 2, "give --trace, too", "start", "--errors", ko("calls"))
	nothingLeft(t, "calls")
}

// TestTraceFilesystem traces an installed file system: what it is asked for is known.
func TestTraceFilesystem(t *testing.T) {
	needsTypes(t)
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	const files = 5
	fs := "minix"
	if !installed(t, fs) {
		fs = "vfat"
	}
	// It may be run again: made anew each time.
	script := fmt.Sprintf("/sbin/mkfs.%[1]s %[2]s >/dev/null && mount -t %[1]s -o loop %[2]s %[3]s && cd %[3]s && mkdir d && for i in 1 2 3 4 5; do echo hello > d/f$i; done && rm d/f1 && cd / && umount %[3]s", fs, image, mnt)
	list, end := traceOf(t, "--expand", "inode.i_ino", fs, "--", "sh", "-ec", script)
	if len(end.Lost) > 0 {
		t.Logf("incomplete, and says so: %+v", end.Lost)
		return
	}
	got := tally(list, func(c *traced) string { return c.Function })
	for name, n := range map[string]int{
		"register_filesystem": 1, "unregister_filesystem": 1, fs + "_fill_super": 1,
		fs + "_mkdir": 1, fs + "_create": files, fs + "_unlink": 1,
	} {
		// A jump at the end of an exit function can't be seen, and is named.
		named := slices.ContainsFunc(end.Untraced, func(u struct{ Function, Reason string }) bool { return u.Function == name })
		if got[name] != n && !(named && got[name] == 0) {
			t.Errorf("%s: %d, want %d", name, got[name], n)
		}
	}
	// Each file's inode, and the directory's.
	if n := got["new_inode"]; fs == "minix" && n != files+1 {
		t.Errorf("new_inode: %d, want %d", n, files+1)
	}
	for _, c := range list {
		if c.Function == fs+"_create" && c.Comm != "sh" {
			t.Error(show(&c))
		}
		if c.Function == "iget_locked" && c.arg("ino") == "1" && !strings.HasSuffix(c.Result.Value, "{i_ino=1}") {
			t.Error(show(&c))
		}
	}
	t.Logf("%d calls, lost %v", len(list), end.Lost)
}

// TestTraceNetwork traces a network device: what is sent is known.
func TestTraceNetwork(t *testing.T) {
	needsTypes(t)
	const packets = 7
	t.Setenv(workloadVariable, fmt.Sprintf("send dummy0 %d", packets))
	list, end := traceOf(t, "dummy", "numdummies=1", "--", os.Args[0])
	if len(end.Lost) > 0 {
		t.Logf("incomplete, and says so: %+v", end.Lost)
		return
	}
	got := tally(list, func(c *traced) string { return c.Function })
	for name, n := range map[string]int{"dummy_xmit": packets, "dummy_setup": 1, "dummy_dev_init": 1, "dummy_init_module": 1} {
		if got[name] != n {
			t.Errorf("%s: %d, want %d", name, got[name], n)
		}
	}
	t.Logf("%d calls, lost %v", len(list), end.Lost)
}
