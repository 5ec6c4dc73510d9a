//go:build guest

package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kedr/internal/kernel"
	"kedr/internal/leak"
)

var (
	program = os.Getenv("KEDR")
	modules = os.Getenv("KEDR_MODULES")
	flags   = strings.Fields(os.Getenv("KEDR_FLAGS")) // by which another back end is tested
)

const (
	sessionFiles = "/sys/fs/bpf/kedr"
	sessionPins  = "/sys/fs/bpf/kedr-session"
)

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(workloadVariable)); len(words) > 0 {
		os.Exit(runWorkload(words[0], words[1:]))
	}
	if program == "" || modules == "" {
		fmt.Fprintln(os.Stderr, "KEDR and KEDR_MODULES must be set: run make test")
		os.Exit(1)
	}
	for _, name := range []string{"helper", "loop"} {
		if out, err := exec.Command("modprobe", name).CombinedOutput(); err != nil && name == "loop" {
			fmt.Fprintf(os.Stderr, "modprobe %s: %v: %s\n", name, err, out)
			os.Exit(1)
		}
	}
	if out, err := exec.Command("insmod", ko("helper")).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "insmod helper: %v: %s\n", err, out)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func ko(name string) string { return filepath.Join(modules, name+".ko") }

func source(name string) string { return filepath.Join(modules, name+".c") }

type outcome struct {
	status         int
	stdout, stderr string
}

func command(t *testing.T, env []string, name string, args ...string) outcome {
	t.Helper()
	if name == program && len(args) > 0 && slices.Contains([]string{"run", "start"}, args[0]) {
		args = slices.Insert(slices.Clone(args), 1, flags...)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func kedr(t *testing.T, args ...string) outcome {
	t.Helper()
	o := command(t, nil, program, args...)
	// On a busy host under emulation, doubly nested interrupts do happen; kedr says
	// so, and what a user then does is to run again.
	for try := 1; try < 3 && args[0] == "run" && o.status == 4 && strings.Contains(o.stdout, selfInterrupted); try++ {
		t.Logf("incomplete, running again: %v", args)
		o = command(t, nil, program, args...)
	}
	return o
}

const selfInterrupted = "the kernel does not let a probe interrupt itself"

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	o := command(t, nil, name, args...)
	if o.status != 0 {
		t.Fatalf("%s %s: exit status %d\n%s%s", name, strings.Join(args, " "), o.status, o.stdout, o.stderr)
	}
	return o.stdout
}

// nothingLeft checks that no session, no file and no module is left behind.
func nothingLeft(t *testing.T, module string) {
	t.Helper()
	for _, p := range []string{sessionFiles, sessionPins, "/sys/module/" + module} {
		if _, err := os.Stat(p); err == nil {
			t.Errorf("%s is left behind", p)
		}
	}
}

func parse(t *testing.T, o outcome) *leak.Report {
	t.Helper()
	var r leak.Report
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v\nexit status %d\n%s%s", err, o.status, o.stdout, o.stderr)
	}
	if r.Schema != 1 {
		t.Errorf("schema %d", r.Schema)
	}
	return &r
}

// TestRun runs every module whose source says how, and compares what kedr finds
// with what is written there.
func TestRun(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join(modules, "*.c"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		name := strings.TrimSuffix(filepath.Base(path), ".c")
		if strings.HasSuffix(name, ".mod") {
			continue
		}
		f := expected(t, name)
		for _, run := range f.Runs {
			t.Run(name, func(t *testing.T) {
				for _, n := range f.Needs {
					must(t, "insmod", ko(n))
					defer must(t, "rmmod", n)
				}
				args := append([]string{"run", "--vm=never", "--format", "json", ko(name)}, run.Params...)
				if run.Workload != nil {
					args = append(append(args, "--", "env", workloadVariable+"="+strings.Join(run.Workload, " ")), os.Args[0])
				}
				o := kedr(t, args...)
				status := 0
				switch {
				case len(f.Unwatched) > 0:
					status = 4
				case f.Total.Leaks+f.Total.WrongFrees > 0:
					status = 1
				}
				if o.status != status || strings.Contains(o.stderr, "the workload ended with") {
					t.Errorf("exit status %d, want %d\n%s", o.status, status, o.stderr)
				}
				check(t, parse(t, o), f, 1)
				nothingLeft(t, name)
			})
		}
	}
}

// TestWalkthrough is the published one, word for word but for the paths.
func TestWalkthrough(t *testing.T) {
	hello := ko("hello-kernel")
	o := kedr(t, "start", hello)
	if o.status != 0 || !strings.HasPrefix(o.stdout, "Starting KEDR...\n") || !strings.HasSuffix(o.stdout, "\nKEDR started.\n") {
		t.Fatalf("start: %+v", o)
	}
	defer kedr(t, "stop", "--force")
	if o := kedr(t, "start", hello); o.status != 3 || !strings.Contains(o.stderr, "already running") {
		t.Errorf("a second start: %+v", o)
	}
	must(t, "insmod", hello)
	if o := kedr(t, "stop"); o.status != 3 || !strings.Contains(o.stderr, "still loaded") {
		t.Errorf("stop while the target is loaded: %+v", o)
	}
	must(t, "rmmod", "hello-kernel")

	if hasFiles() {
		walkthroughFiles(t)
	}
	walkthroughReport(t)
	if o := kedr(t, "status"); o.status != 0 || !strings.Contains(o.stdout, "KEDR status: loaded\nTarget: hello_kernel\nTarget status: not loaded\n") {
		t.Errorf("status: %+v", o)
	}
	if o := kedr(t, "stop"); o.status != 0 || o.stdout != "Stopping KEDR...\nKEDR stopped.\n" {
		t.Errorf("stop: %+v", o)
	}
	if o := kedr(t, "status"); o.stdout != "KEDR status: not loaded\n" {
		t.Errorf("status after stop: %+v", o)
	}
	nothingLeft(t, "hello_kernel")
}

// walkthroughFiles reads the session's files, as the published walkthrough does.
func walkthroughFiles(t *testing.T) {
	info := sessionFile(t, "hello_kernel", "info")
	if !regexp.MustCompile(`^Target module: "hello_kernel", init area at [0-9a-f]+, core area at [0-9a-f]{16}
Allocations: 6
Possible leaks: 4
Unallocated frees: 0
$`).MatchString(info) {
		t.Errorf("info:\n%s", info)
	}
	leaks := sessionFile(t, "hello_kernel", "possible_leaks")
	record := regexp.MustCompile(`Process: insmod \(PID: \d+\)
Address: 0x[0-9a-f]{16}, size: (\d+); stack trace of the allocation:
((?:\[<[0-9a-f]{16}>\] \S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?\n)+)----------------------------------------\n`)
	sizes := make(map[string]bool)
	for _, m := range record.FindAllStringSubmatch(leaks, -1) {
		sizes[m[1]] = true
		if !strings.Contains(m[2], " hello_init+0x") || !strings.Contains(m[2], "/0x") || !strings.Contains(m[2], " [hello_kernel]\n") {
			t.Errorf("stack of %s:\n%s", m[1], m[2])
		}
	}
	if rest := record.ReplaceAllString(leaks, ""); rest != "" || len(sizes) != 4 || !sizes["10"] || !sizes["20"] || !sizes["30"] || !sizes["50"] {
		t.Errorf("possible_leaks: sizes %v, not understood: %q, in:\n%s", sizes, rest, leaks)
	}
	if s := sessionFile(t, "hello_kernel", "unallocated_frees"); s != "" {
		t.Errorf("unallocated_frees: %q", s)
	}
}

func walkthroughReport(t *testing.T) {
	o := kedr(t, "report", "hello_kernel")
	if o.status != 1 {
		t.Errorf("report: exit status %d\n%s", o.status, o.stderr)
	}
	// Addresses are as wide as the kernel's: eight digits on 32 bits.
	head := regexp.MustCompile(`^Target module: "hello_kernel", init area at ([0-9a-f]+), core area at ([0-9a-f]+)\n`).FindStringSubmatch(o.stdout)
	if digits := 2 * word(t); head == nil || head[1] != "0" && len(head[1]) != digits || len(head[2]) != digits {
		t.Errorf("report: addresses are not of %d digits:\n%s", digits, o.stdout)
	}
	at := 0
	for _, want := range []string{
		"Allocations: 6\nPossible leaks: 4\nUnallocated frees: 0\n",
		// Whether a function was inlined, or made a tail call, is the compiler's choice.
		"size: 50;", " myfunc4", "hello.c:45\n", "] hello_init+",
		"size: 30;", " myfunc2", "hello.c:28\n", "] hello_init+",
		"size: 20;", " myfunc2", "hello.c:27\n", "] hello_init+",
		"size: 10;", " myfunc1", "hello.c:19\n", "] hello_init+",
	} {
		i := strings.Index(o.stdout[at:], want)
		if i < 0 {
			t.Fatalf("report: no %q from here on:\n%s", want, o.stdout[at:])
		}
		at += i + len(want)
	}
}

// word is the size of an address here, in bytes.
func word(t *testing.T) int {
	t.Helper()
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	return k.Word()
}

// TestTwoTargets: one gives back what the other has obtained.
func TestTwoTargets(t *testing.T) {
	start(t, "producer", "consumer")
	must(t, "insmod", ko("producer"))
	must(t, "insmod", ko("consumer"))
	must(t, "rmmod", "consumer")
	must(t, "rmmod", "producer")
	for name, allocations := range map[string]uint64{"producer": 3, "consumer": 0} {
		o := kedr(t, "report", "--format", "json", name)
		if o.status != 0 {
			t.Errorf("%s: exit status %d\n%s", name, o.status, o.stderr)
		}
		check(t, parse(t, o), none(name, allocations), 1)
	}
}

// TestEitherTarget: watched alone, each shows its half.
func TestEitherTarget(t *testing.T) {
	for _, name := range []string{"producer", "consumer"} {
		t.Run(name, func(t *testing.T) {
			start(t, name)
			must(t, "insmod", ko("producer"))
			must(t, "insmod", ko("consumer"))
			must(t, "rmmod", "consumer")
			must(t, "rmmod", "producer")
			check(t, parse(t, kedr(t, "report", "--format", "json", name)), expected(t, name), 1)
		})
	}
}

// TestReload loads a module twenty times in one session.
func TestReload(t *testing.T) {
	const times = 20
	start(t, "reload")
	for range times {
		must(t, "insmod", ko("reload"))
		must(t, "rmmod", "reload")
	}
	r := parse(t, kedr(t, "report", "--format", "json", "reload"))
	check(t, r, expected(t, "reload"), times)
	if len(r.Loads) != times {
		t.Fatalf("%d loads, want %d", len(r.Loads), times)
	}
	for i, l := range r.Loads {
		if l.ID != uint32(i+1) || l.Allocations != 2 || l.PossibleLeaks != 1 || l.UnallocatedFrees != 0 || l.Loaded {
			t.Errorf("load %d: %+v", i+1, l)
		}
	}
	if !hasFiles() {
		return
	}
	info := sessionFile(t, "reload", "info")
	if n := strings.Count(info, "Allocations: 2\nPossible leaks: 1\nUnallocated frees: 0\n"); n != times {
		t.Errorf("info has %d loads:\n%s", n, info)
	}
}

// TestFilesystem runs modules of the kernel's own, which leak nothing.
// installed says whether the kernel has this module.
func installed(t *testing.T, module string) bool {
	t.Helper()
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	_, err = kernel.FindModule("/lib/modules/"+k.Release, module)
	return err == nil
}

// builtIn says whether the kernel has this module in itself.
func builtIn(t *testing.T, module string) bool {
	t.Helper()
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/lib/modules/" + k.Release + "/modules.builtin")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), "/"+module+".ko\n")
}

func TestFilesystem(t *testing.T) {
	for _, fs := range []struct{ module, mkfs, size string }{
		{"ext4", "mkfs.ext4 -q -F", "48M"},
		{"xfs", "mkfs.xfs -q", "320M"},
	} {
		// Either is there as a module, if not both.
		if builtIn(t, fs.module) {
			t.Logf("%s is built in", fs.module)
			continue
		}
		t.Run(fs.module, func(t *testing.T) {
			dir := t.TempDir()
			script := fmt.Sprintf(`set -e
cd %s
truncate -s %s image
%s image
mkdir -p mnt
mount -t %s -o loop image mnt
mkdir mnt/dir
for i in 1 2 3 4 5 6 7 8; do head -c 200000 /dev/zero > mnt/dir/$i; ln -s $i mnt/dir/link$i; done
ls -l mnt/dir > mnt/list
rm mnt/dir/3 mnt/dir/5
sync
umount mnt
`, dir, fs.size, fs.mkfs, fs.module)
			o := kedr(t, "run", "--vm=never", "--settle", "5s", "--format", "json", fs.module, "--", "sh", "-c", script)
			r := parse(t, o)
			if o.status != 0 || !r.Clean() || strings.Contains(o.stderr, "the workload ended with") {
				t.Errorf("exit status %d\n%s\n%s", o.status, o.stderr, o.stdout)
			}
			if r.Allocations < 100 {
				t.Errorf("only %d allocations were seen", r.Allocations)
			}
			t.Logf("%d allocations", r.Allocations)
		})
		return
	}
	t.Error("no file system to test with")
}

// TestKilled: a run that is killed leaves no probe behind.
func TestKilled(t *testing.T) {
	cmd := exec.Command(program, "run", "--vm=never", ko("clean"), "--", "sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if b, _ := os.ReadFile("/sys/module/clean/initstate"); string(b) == "live\n" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the module was not loaded in 30 s")
		}
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	if o := kedr(t, "run", "--vm=never", ko("clean")); o.status != 3 || !strings.Contains(o.stderr, "already loaded") {
		t.Errorf("with the module loaded: %+v", o)
	}
	must(t, "rmmod", "clean")
	nothingLeft(t, "clean")
	if o := kedr(t, "run", "--vm=never", ko("clean")); o.status != 0 {
		t.Errorf("after a kill: %+v", o)
	}
}

// TestInterrupted: Ctrl-C unloads the module.
func TestInterrupted(t *testing.T) {
	cmd := exec.Command(program, "run", "--vm=never", ko("clean"), "--", "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if b, _ := os.ReadFile("/sys/module/clean/initstate"); string(b) == "live\n" {
			break
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if s := cmd.ProcessState.ExitCode(); s != 3 {
		t.Errorf("exit status %d, want 3", s)
	}
	nothingLeft(t, "clean")
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, err := os.ReadFile(ko("clean"))
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(good)
	other[18] = 183 // e_machine: AArch64
	foreign := regexp.MustCompile(`vermagic=\d`).ReplaceAll(good, []byte("vermagic=9"))
	for _, test := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"no ELF", []string{write("text.ko", []byte("hello\n"))}, 2, "not an ELF file"},
		{"empty", []string{write("empty.ko", nil)}, 2, "not an ELF file"},
		{"truncated", []string{write("short.ko", good[:len(good)/2])}, 2, "truncated"},
		{"a program", []string{program}, 2, "not a kernel module"},
		{"other architecture", []string{write("arm.ko", other)}, 2, "unsupported machine"},
		{"other kernel", []string{write("foreign.ko", foreign)}, 3, "built for kernel"},
		{"no such file", []string{dir + "/none.ko"}, 3, "no such file"},
		{"no such module", []string{"none_such"}, 3, "no such module"},
		{"no workload", []string{ko("clean"), "--"}, 2, "no WORKLOAD"},
		{"no parameter", []string{ko("clean"), "early"}, 2, "is no parameter"},
		{"no module", nil, 2, "no MODULE"},
		{"loaded", []string{ko("helper")}, 3, "already loaded"},
		{"too much room", []string{"--max-stacks", "4000000000", ko("clean")}, 3, "room for 4000000000 call stacks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := kedr(t, append([]string{"run", "--vm=never"}, test.args...)...)
			if o.status != test.status || !strings.Contains(o.stderr, test.want) {
				t.Errorf("exit status %d, want %d; want %q in:\n%s", o.status, test.status, test.want, o.stderr)
			}
			if o.stdout != "" || strings.Count(o.stderr, "\n") != 1 {
				t.Errorf("more than a line: %q, %q", o.stdout, o.stderr)
			}
			nothingLeft(t, "clean")
		})
	}
	t.Run("no root", func(t *testing.T) {
		o := command(t, nil, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "run", "--vm=never", ko("clean"))
		if o.status != 3 || !strings.Contains(o.stderr, "only root") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%+v", o)
		}
	})
	t.Run("a parameter that fails", func(t *testing.T) {
		o := kedr(t, "run", "--vm=never", ko("clean"), "count=many")
		if o.status != 3 || !strings.Contains(o.stderr, "loading clean") {
			t.Errorf("%+v", o)
		}
		nothingLeft(t, "clean")
	})
	t.Run("full disk", func(t *testing.T) {
		o := kedr(t, "run", "--vm=never", "-o", "/dev/full", ko("clean"))
		if o.status != 3 || !strings.Contains(o.stderr, "writing the report") {
			t.Errorf("%+v", o)
		}
	})
}

// TestMount: a bpffs that was not there before the session is not there after it.
func TestMount(t *testing.T) {
	must(t, "umount", "/sys/fs/bpf")
	defer must(t, "mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
	mounted := func() bool { return strings.Contains(must(t, "cat", "/proc/mounts"), " /sys/fs/bpf bpf ") }
	if o := kedr(t, "start", ko("clean")); o.status != 0 || !mounted() {
		t.Fatalf("start: %+v", o)
	}
	if o := kedr(t, "stop"); o.status != 0 || mounted() {
		t.Errorf("stop: %+v, mounted: %v", o, mounted())
	}
}

// TestIncomplete: more objects than there is room for are neither clean nor a find.
func TestIncomplete(t *testing.T) {
	o := kedr(t, "run", "--vm=never", "--max-objects", "4", ko("slab"))
	if o.status != 4 || !strings.Contains(o.stdout, "incomplete: ") || !strings.Contains(o.stdout, "(see --max-objects)") ||
		!strings.HasSuffix(o.stdout, "but the result is incomplete\n") {
		t.Errorf("%+v", o)
	}
}

func TestDoctor(t *testing.T) {
	o := kedr(t, "doctor")
	if o.status != 0 || !strings.Contains(o.stdout, "works here, on this very kernel") {
		t.Errorf("%+v", o)
	}
}
