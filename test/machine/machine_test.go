//go:build machine

package machine

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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/leak"
)

var (
	program = os.Getenv("KEDR")
	kernels = strings.Fields(os.Getenv("KEDR_KERNELS"))
)

func ko(kernel, name string) string {
	return filepath.Join(os.Getenv("KEDR_MODULES"), kernel, name+".ko")
}

type outcome struct {
	Status         int
	Stdout, Stderr string
}

// TestMain keeps the machines' files apart from those of others.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kedr-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("TMPDIR", dir)
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

func run(t *testing.T, env []string, args ...string) outcome {
	t.Helper()
	cmd := exec.Command(program, args...)
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

// nothingLeft checks that no emulator and no file of a machine is left behind.
func nothingLeft(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		files, _ := os.ReadDir(os.TempDir())
		// The tests' own directories are there, too.
		files = slices.DeleteFunc(files, func(f os.DirEntry) bool { return strings.HasPrefix(f.Name(), "Test") })
		emulators := emulators()
		if len(files) == 0 && len(emulators) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind: files %v, processes %v", files, emulators)
			return
		}
	}
}

// emulators lists the processes that were started for these tests; others of
// their kind may be at work on the same host.
func emulators() []string {
	var pids []string
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range environs {
		b, err := os.ReadFile(e)
		if err != nil || !bytes.Contains(b, []byte("TMPDIR="+os.TempDir()+"\x00")) {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join(filepath.Dir(e), "comm"))
		if strings.HasPrefix(string(comm), "qemu") {
			pids = append(pids, filepath.Base(filepath.Dir(e)))
		}
	}
	return pids
}

type site struct {
	Function string
	Line     int
	Size     uint64
	Caller   string
}

// TestHello is what the README promises, on each kernel.
func TestHello(t *testing.T) {
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			o := run(t, nil, "run", "--vm=always", "--format", "json", ko(k, "hello-kernel"))
			if o.Status != 1 {
				t.Fatalf("%+v", o)
			}
			var r leak.Report
			if err := json.Unmarshal([]byte(o.Stdout), &r); err != nil {
				t.Fatal(err)
			}
			var sites []site
			for _, l := range r.PossibleLeaks {
				if filepath.Base(l.Stack[0].File) != "hello.c" {
					t.Errorf("file %q", l.Stack[0].File)
				}
				sites = append(sites, site{l.Stack[0].Function, l.Stack[0].Line, l.Size, l.Stack[1].Function})
			}
			want := []site{
				{"myfunc4", 45, 50, "hello_init"},
				{"myfunc2", 28, 30, "hello_init"},
				{"myfunc2", 27, 20, "hello_init"},
				{"myfunc1", 19, 10, "hello_init"},
			}
			if d := cmp.Diff(want, sites); d != "" {
				t.Errorf("leaks differ (-want +got):\n%s", d)
			}
			if r.Allocations != 6 || r.PossibleLeaksTotal != 4 || r.UnallocatedFreesTotal != 0 || r.LostEvents != 0 {
				t.Errorf("%d/%d/%d, %d lost", r.Allocations, r.PossibleLeaksTotal, r.UnallocatedFreesTotal, r.LostEvents)
			}
			nothingLeft(t)
		})
	}
}

// TestNarrow: the example on 32-bit x86, by a kedr of 64 bits.
func TestNarrow(t *testing.T) {
	const kernel = "6.1/i386"
	o := run(t, nil, "run", "--kernel", kernel, ko("6.1-i386", "hello-kernel"))
	if o.Status != 1 {
		t.Fatalf("%+v", o)
	}
	report := regexp.MustCompile(`^Target module: "hello_kernel", init area at [0-9a-f]{8}, core area at [0-9a-f]{8}
Allocations: 6
Possible leaks: 4
Unallocated frees: 0
`)
	record := regexp.MustCompile(`Address: 0x[0-9a-f]{8}, size: (\d+); stack trace of the allocation:
(?:\[<[0-9a-f]{8}>\] |                     )(myfunc\d)`)
	var found []string
	for _, m := range record.FindAllStringSubmatch(o.Stdout, -1) {
		found = append(found, m[2]+" "+m[1])
	}
	want := []string{"myfunc4 50", "myfunc2 30", "myfunc2 20", "myfunc1 10"}
	if d := cmp.Diff(want, found); d != "" || !report.MatchString(o.Stdout) {
		t.Errorf("-want +got:\n%s\n%s", d, o.Stdout)
	}
	// A workload's programs are those of the machine's own root; files are the host's.
	o = run(t, nil, "vm", "exec", "--kernel", kernel, "--", "sh", "-c", "uname -m; cd "+filepath.Dir(program)+"; ls kedr-386; kmod --version | head -c 4")
	if o.Stdout != "i686\nkedr-386\nkmod" {
		t.Errorf("%+v", o)
	}
	o = run(t, []string{"KEDR_386=/nowhere/kedr"}, "run", "--kernel", kernel, ko("6.1-i386", "hello-kernel"))
	if o.Status != 3 || !strings.Contains(o.Stderr, "KEDR_386") {
		t.Errorf("without a kedr for 32 bits: %+v", o)
	}
	nothingLeft(t)
}

// TestClean also has a workload, which is a program of the host, and parameters.
func TestClean(t *testing.T) {
	k := kernels[len(kernels)-1]
	file := filepath.Join(t.TempDir(), "report.txt")
	o := run(t, nil, "run", "--vm=always", "-o", file, ko(k, "clean"), "count=3", "--", "sh", "-c", "cat /sys/module/clean/initstate; uname -r")
	if o.Status != 0 || o.Stdout != "" || !strings.Contains(o.Stderr, "live\n"+k) {
		t.Errorf("%+v", o)
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(b), "Allocations: 15\nPossible leaks: 0\n") {
		t.Errorf("%v\n%s", err, b)
	}
	nothingLeft(t)
}

// TestDependency: what the target needs comes along.
func TestDependency(t *testing.T) {
	o := run(t, nil, "run", "--vm=always", ko(kernels[0], "wrongfree"))
	if o.Status != 1 || !strings.Contains(o.Stdout, "Unallocated frees: 6\n") {
		t.Errorf("%+v", o)
	}
}

// TestInstalled runs a module of the kernel's own by its name.
func TestInstalled(t *testing.T) {
	o := run(t, nil, "run", "--vm=always", "--kernel", kernels[0], "minix")
	if o.Status != 0 || !strings.Contains(o.Stdout, "Possible leaks: 0\n") {
		t.Errorf("%+v", o)
	}
}

func TestCrash(t *testing.T) {
	for _, k := range kernels {
		o := run(t, nil, "run", "--vm=always", ko(k, "crash"))
		if o.Status != 5 || !strings.Contains(o.Stderr, "BUG: kernel NULL pointer dereference") || !strings.Contains(o.Stderr, "crash_init+0x") {
			t.Errorf("%s: %+v", k, o)
		}
		nothingLeft(t)
	}
}

func TestTimeout(t *testing.T) {
	o := run(t, nil, "vm", "exec", "--kernel", kernels[0], "--timeout", "8s", "--", "sleep", "600")
	if o.Status != 5 || !strings.Contains(o.Stderr, "--timeout") {
		t.Errorf("%+v", o)
	}
	nothingLeft(t)
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	o := run(t, []string{"KEDR_TEST=passed on"}, "vm", "exec", "--kernel", kernels[0], "--", "sh", "-c",
		"echo $KEDR_TEST; pwd; echo gone > "+dir+"/file; cat "+dir+"/file >&2; exit 42")
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if want := (outcome{42, "passed on\n" + wd + "\n", "gone\n"}); o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	if _, err := os.Stat(dir + "/file"); err == nil {
		t.Error("the machine has written to the host")
	}
}

func TestInterrupt(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		cmd := exec.Command(program, "vm", "exec", "--kernel", kernels[0], "--", "sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		cmd.Process.Signal(sig)
		cmd.Wait()
		if sig == os.Interrupt {
			if s := cmd.ProcessState.ExitCode(); s != 3 {
				t.Errorf("exit status %d", s)
			}
		}
		nothingLeft(t)
	}
}

func TestWhatIsMissing(t *testing.T) {
	hello := ko(kernels[0], "hello-kernel")
	other := "6.1"
	if kernels[0] == other {
		other = "6.12"
	}
	for _, test := range []struct {
		name   string
		env    []string
		args   []string
		status int
		want   string
	}{
		{"no qemu", []string{"PATH=/nowhere"}, []string{"run", "--vm=always", hello}, 3, "apt install qemu-system-x86"},
		{"no such kernel", nil, []string{"run", "--vm=always", "--kernel", "2.6.32", hello}, 3, "no such kernel"},
		{"another kernel's module", nil, []string{"run", "--vm=always", "--kernel", other, hello}, 2, "is built for kernel " + kernels[0]},
		{"no such module", nil, []string{"run", "--vm=always", "--kernel", kernels[0], "nonesuch"}, 3, "no such module"},
		{"no cache", []string{"XDG_CACHE_HOME=/proc/none"}, []string{"vm", "fetch", "6.1"}, 3, "no place for"},
		{"no ELF", nil, []string{"run", "--vm=always", "Makefile.ko"}, 3, "no such file"},
		{"bad format", nil, []string{"run", "--format", "xml", hello}, 2, "no format \"xml\""},
		{"bad vm", nil, []string{"run", "--vm=maybe", hello}, 2, "auto, always or never"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := run(t, test.env, test.args...)
			lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(o.Stderr), "\n"), func(l string) bool {
				return strings.HasPrefix(l, "kedr: fetching the package lists")
			})
			if o.Status != test.status || len(lines) != 1 || !strings.Contains(lines[0], test.want) {
				t.Errorf("%+v", o)
			}
			nothingLeft(t)
		})
	}
}

// TestForbidding: kernels that do not let programs in. Both states last until the
// machine ends.
func TestForbidding(t *testing.T) {
	for _, test := range []struct{ name, prepare, want string }{
		{"locked down", "mount -t securityfs none /sys/kernel/security; echo confidentiality > /sys/kernel/security/lockdown", "kedr: the kernel is locked down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := run(t, nil, "vm", "exec", "--kernel", kernels[0], "--", "sh", "-c",
				test.prepare+"; "+program+" run --vm=never "+ko(kernels[0], "clean")+"; echo $?; ls /sys/fs/bpf /sys/module | grep -E 'kedr|^clean$'")
			if o.Stdout != "3\n" || !strings.HasPrefix(o.Stderr, test.want) || strings.Count(o.Stderr, "\n") != 1 {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestSecondFetch downloads nothing.
func TestSecondFetch(t *testing.T) {
	o := run(t, []string{"PATH=/nowhere"}, "vm", "fetch", kernels[0])
	if o.Status != 0 || o.Stderr != "" || !strings.HasPrefix(o.Stdout, kernels[0]) {
		t.Errorf("%+v", o)
	}
}

// TestScale: ten million objects accounted for in one run, from four CPUs at once, of which
// a million stay outstanding; with nothing lost.
func TestScale(t *testing.T) {
	const threads, pairs, keep = 4, 2_250_000, 250_000
	o := run(t, nil, "run", "--vm=always", "--kernel", kernels[0], "--cpus", strconv.Itoa(threads), "--memory", "4096",
		"--max-objects", strconv.Itoa(threads*(keep+1)), ko(kernels[0], "many"),
		fmt.Sprintf("threads=%d", threads), fmt.Sprintf("pairs=%d", pairs), fmt.Sprintf("keep=%d", keep))
	if o.Status != 1 { // 4, were anything lost
		t.Fatalf("exit status %d: %s", o.Status, o.Stderr)
	}
	for _, want := range []string{
		fmt.Sprintf("Allocations: %d\nPossible leaks: %d\nUnallocated frees: 0\n", threads*(pairs+keep), threads*keep),
		fmt.Sprintf("%d bytes in %d objects", 16*threads*keep, threads*keep),
	} {
		if !strings.Contains(o.Stdout, want) {
			t.Errorf("the report does not have %q:\n%s", want, o.Stdout)
		}
	}
}
