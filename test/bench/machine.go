package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kedr/internal/distro"
)

const machineName = "machine"

// trial is one way from a command to its result.
type trial struct {
	Tool     string    `json:"tool"`
	Wall     []float64 `json:"wall_seconds"`
	CPU      []float64 `json:"cpu_seconds"`
	WallHalf float64   `json:"wall_median"`
	CPUHalf  float64   `json:"cpu_median"`

	command func() *exec.Cmd
	want    string // in what it prints
}

// runMachines has machines load and unload the walkthrough's module, by turns: by kedr,
// which reports what it leaks, and by virtme-ng.
func runMachines(ctx context.Context, store *distro.Store, v versions, kernel, out string) error {
	const times = 5
	k, err := store.Fetch(ctx, kernel, false)
	if err != nil {
		return err
	}
	program, err := filepath.Abs("bin/kedr")
	if err != nil {
		return err
	}
	dir, err := buildModules(program, kernel)
	if err != nil {
		return err
	}
	vng, err := store.Programs(ctx, "trixie", "virtme-ng")
	if err != nil {
		return err
	}
	ko := filepath.Join(dir, "hello-kernel.ko")
	run := func() *exec.Cmd { return exec.Command(program, "run", "--vm=always", ko) }
	trials := []*trial{
		{Tool: "kedr run --vm=always", want: "4 possible leaks", command: run},
		{Tool: "the same, where no machine sleeps", want: "4 possible leaks", command: func() *exec.Cmd {
			os.RemoveAll(filepath.Join(store.Dir, "machines"))
			return run()
		}},
		{Tool: "virtme-ng: insmod, rmmod", want: "unloaded", command: func() *exec.Cmd {
			line := []string{"/usr/bin/python3", filepath.Join(vng, "usr/bin/vng"), "--run", k.Image(),
				"--disable-kvm", "--cpus", "2", "--memory", "1024M", "--exec", fmt.Sprintf("'insmod %s && rmmod hello_kernel && echo unloaded'", ko)}
			// It wants a terminal.
			cmd := exec.Command("script", "-qec", strings.Join(line, " "), os.DevNull)
			cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(vng, "usr/lib/python3/dist-packages"),
				"PATH="+filepath.Join(vng, "usr/bin")+":"+os.Getenv("PATH"))
			return cmd
		}},
	}
	host, beside := processor(), packageVersion(vng, "virtme-ng")
	for i := range times + 1 {
		for _, t := range trials {
			cmd := t.command()
			start := time.Now()
			b, err := cmd.CombinedOutput()
			wall := time.Since(start)
			if !strings.Contains(string(b), t.want) {
				return fmt.Errorf("%s: %w: it has not come to its end: %q", t.Tool, errors.Join(err), lastLines(string(b)))
			}
			say("%s: %.1f s", t.Tool, wall.Seconds())
			if i > 0 { // the first fills the caches
				t.Wall = append(t.Wall, wall.Seconds())
				t.CPU = append(t.CPU, cpuOf(cmd).Seconds())
			}
		}
	}
	for _, t := range trials {
		t.WallHalf, t.CPUHalf = median(t.Wall), median(t.CPU)
	}
	v.Kernels = []string{k.Release}
	v.Memleak, v.Bpftrace, v.TraceCmd = "", "", ""
	text := machineMarkdown(v, host, beside, trials)
	if out == "" {
		_, err := os.Stdout.WriteString(text)
		return err
	}
	j, err := json.MarshalIndent(struct {
		Versions versions `json:"versions"`
		Beside   string   `json:"beside"`
		Host     string   `json:"host"`
		Trials   []*trial `json:"trials"`
	}{v, beside, host, trials}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(out, "machine.json"), append(j, '\n'), 0o644),
		os.WriteFile(filepath.Join(out, "machine.md"), []byte(text), 0o644))
}

// cpuOf is the CPU time of a command and all that it has waited for.
func cpuOf(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func lastLines(text string) string { return text[max(0, len(text)-300):] }

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// processor is what the host has, and how busy it is.
func processor() string {
	line := output("sh", "-c", "grep -m1 'model name' /proc/cpuinfo")
	_, name, _ := strings.Cut(line, ": ")
	load, _, _ := strings.Cut(output("cat", "/proc/loadavg"), " ")
	return fmt.Sprintf("%s, %s of them, load %s", name, output("nproc"), load)
}

func machineMarkdown(v versions, host, beside string, trials []*trial) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# How long a machine takes

Made by `+"`make bench`"+`. From the command to its end, in seconds of real time and of CPU
time; two emulated CPUs (no KVM), caches warm, taking turns, medians of %d. kedr arms its probes, loads
and unloads the walkthrough's module and reports what it leaks, in a machine that wakes from where its
kernel had booted, or boots it, and keeps what that has led to; virtme-ng (Debian's, whose init is a
shell script) boots the same kernel, loads the module and unloads it. A busy host makes all slower.

%s- beside: %s
- host: %s

| what | wall | CPU | wall, each | CPU, each |
| --- | ---: | ---: | --- | --- |
`, len(trials[0].Wall), v.markdown(), beside, host)
	each := func(all []float64) string {
		var words []string
		for _, s := range all {
			words = append(words, fmt.Sprintf("%.1f", s))
		}
		return strings.Join(words, " ")
	}
	for _, t := range trials {
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %s | %s |\n", t.Tool, t.WallHalf, t.CPUHalf, each(t.Wall), each(t.CPU))
	}
	return b.String()
}
