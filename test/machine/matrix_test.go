//go:build machine

package machine

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kedr/internal/leak"
	"kedr/internal/matrix"
)

const chardev = "../../examples/chardev"

func readTable(t *testing.T, text []byte) *matrix.Table {
	t.Helper()
	var table matrix.Table
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &table
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestMatrix: the example driver and its test on each kernel; one leak, known again on all.
func TestMatrix(t *testing.T) {
	reports := filepath.Join(t.TempDir(), "reports")
	before := names(t, chardev)
	o := run(t, nil, "matrix", "--kernel", strings.Join(kernels, ","), "--reports", reports, chardev, "--", chardev+"/exercise.sh")
	if o.Status != 1 || !strings.Contains(o.Stdout, "\nchardev: findings on "+strings.Join(kernels, ", ")+"\n") {
		t.Fatalf("%+v", o)
	}
	if after := names(t, chardev); !slices.Equal(before, after) {
		t.Errorf("the source has changed: %v, %v", before, after)
	}
	text, err := os.ReadFile(filepath.Join(reports, "matrix.json"))
	if err != nil {
		t.Fatal(err)
	}
	table := readTable(t, text)
	if len(table.Kernels) != len(kernels) || len(table.Findings) != 1 {
		t.Fatalf("%s", text)
	}
	f := table.Findings[0]
	if f.Found != "leak" || f.Function != "chardev_write" || f.File != "chardev.c" || len(f.Kernels) != len(kernels) {
		t.Errorf("%+v", f)
	}
	for i, k := range kernels {
		row := table.Kernels[i]
		// 12 and 7 bytes of text, each behind a header of 24.
		if row.Kernel != k || !strings.HasPrefix(row.Release, k) || row.Allocations != 3 || row.PossibleLeaks != 2 || row.LeakedBytes != 67 || row.WrongReleases != 0 || row.Status != 1 {
			t.Errorf("%+v", row)
		}
		if c := f.Kernels[k]; c.Count != 2 || c.Bytes != 67 {
			t.Errorf("%s: %+v", k, c)
		}
		if !strings.Contains(o.Stderr, k+"| exercise.sh: passed\n") {
			t.Errorf("%s: no word of the test: %s", k, o.Stderr)
		}
		text, err := os.ReadFile(filepath.Join(reports, k+".json"))
		if err != nil {
			t.Fatal(err)
		}
		// Places are in the source, not in the copy that was built.
		var r leak.Report
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		want, err := filepath.Abs(chardev + "/chardev.c")
		if err != nil {
			t.Fatal(err)
		}
		place, _ := leak.Place(r.PossibleLeaks[0].Stack, "chardev")
		if place.File != want {
			t.Errorf("%s: file %q, want %q", k, place.File, want)
		}
		for _, name := range []string{k + ".txt", k + ".log", k + ".build.log"} {
			if st, err := os.Stat(filepath.Join(reports, name)); err != nil || st.Size() == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	nothingLeft(t)
}

// source makes a directory with modules: two, of which one crashes.
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Makefile":     "obj-m := crash.o sub/\n",
		"sub/Makefile": "obj-m := quiet-one.o\n",
		"crash.c": `#include <linux/module.h>
extern int quiet;
static int __init crash_init(void) { return quiet + *(volatile int *)8; }
module_init(crash_init);
MODULE_LICENSE("GPL");
`,
		"sub/quiet-one.c": `#include <linux/module.h>
int quiet;
EXPORT_SYMBOL_GPL(quiet);
MODULE_LICENSE("GPL");
#ifdef BROKEN
#error not on this kernel
#endif
`,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestMatrixTrouble: what goes wrong on a kernel is in its row, and the logs say more. A
// module finds what it needs wherever it was built.
func TestMatrixTrouble(t *testing.T) {
	k, dir, reports := kernels[0], source(t), filepath.Join(t.TempDir(), "reports")
	o := run(t, nil, "matrix", "--kernel", k, dir)
	if o.Status != 2 || !strings.HasSuffix(o.Stderr, "kedr: the build made crash, quiet_one: choose one with --module NAME\n") {
		t.Errorf("%+v", o)
	}
	o = run(t, nil, "matrix", "--kernel", k, "--module", "crash", "--format", "json", "--reports", reports, dir)
	table := readTable(t, []byte(o.Stdout))
	row := table.Kernels[0]
	if o.Status != 5 || row.Result != matrix.Crashed || !strings.Contains(row.Error, "BUG: kernel NULL pointer dereference") {
		t.Errorf("%+v", o)
	}
	if text, err := os.ReadFile(row.Log); err != nil || !strings.Contains(string(text), "crash_init+0x") {
		t.Errorf("%v\n%s", err, text)
	}
	o = run(t, nil, "matrix", "--kernel", k+",2.6.32", "--module", "quiet-one", "--make", "ccflags-y=-DBROKEN", "--format", "json", "--reports", reports, dir)
	table = readTable(t, []byte(o.Stdout))
	row = table.Kernels[0]
	if o.Status != 3 || row.Result != matrix.NotBuilt || !strings.Contains(row.Error, "not on this kernel") || table.Kernels[1].Result != matrix.Failed {
		t.Errorf("%+v", o)
	}
	if text, err := os.ReadFile(row.Log); err != nil || !strings.Contains(string(text), "quiet-one.c:6") {
		t.Errorf("%v\n%s", err, text)
	}
	o = run(t, nil, "matrix", "--kernel", k, "--module", "quiet-one", dir, "--", "false")
	if o.Status != 3 || !strings.Contains(o.Stdout, "\n"+k+": nothing leaked, but the workload ended with: exit status 1") || !strings.Contains(o.Stdout, "quiet_one: could not run on "+k) {
		t.Errorf("%+v", o)
	}
	nothingLeft(t)
}

// TestMatrixInterrupt: a Ctrl-C ends builds and machines, and leaves nothing.
func TestMatrixInterrupt(t *testing.T) {
	cmd := exec.Command(program, "matrix", "--kernel", strings.Join(kernels, ","), "--jobs", "2", chardev, "--", "sh", "-c", "echo here; exec sleep 600")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var said bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(said.String(), "| here\n") {
		n, err := r.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
	}
	start := time.Now()
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if s := cmd.ProcessState.ExitCode(); s != 3 || time.Since(start) > 20*time.Second {
		t.Errorf("exit status %d after %v", s, time.Since(start))
	}
	nothingLeft(t)
}

// TestCI runs the recipe for CI jobs on the example driver.
func TestCI(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "driver"), os.DirFS(chardev)); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../../examples/ci/ci.sh")
	if err != nil {
		t.Fatal(err)
	}
	ci := func(args ...string) (int, string) {
		cmd := exec.Command(script, append([]string{"driver", "chardev"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "KERNEL="+kernels[0])
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	status, out := ci("--", "driver/exercise.sh")
	if status != 1 || !strings.Contains(out, "exercise.sh: passed") || !strings.Contains(out, "2 possible leaks of 67 bytes") {
		t.Errorf("exit status %d\n%s", status, out)
	}
	for _, name := range []string{"kedr.json", "kedr.sarif", "kedr.junit"} {
		if st, err := os.Stat(filepath.Join(dir, "kedr-reports", name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if status, out := ci("fixed=1", "--", "driver/exercise.sh"); status != 0 {
		t.Errorf("fixed: exit status %d\n%s", status, out)
	}
	nothingLeft(t)
}
