package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kedr/internal/distro"
	"kedr/internal/matrix"
	"kedr/internal/report"
)

// matrixFlags are what "kedr matrix" is told.
type matrixFlags struct {
	analysis runFlags
	kernels  []string
	module   string
	jobs     int
	makeArgs []string
	reports  string   // directory to keep the kernels' reports in
	formats  []string // of these
	format   string
	file     string
}

func newMatrix() *cobra.Command {
	var f matrixFlags
	cmd := &cobra.Command{
		Use:   "matrix --kernel VERSION,... [flags] SOURCE-DIR [param=value ...] [-- WORKLOAD [ARG ...]]",
		Short: "Build a module for several kernels, run it on each, show what leaks where",
		Long: `Matrix builds the module in SOURCE-DIR for each kernel, in a copy of the directory,
as "kedr vm build" does, and makes the analysis of "kedr run" in a machine with that
kernel; several machines run side by side. It ends in one table, kernel by result, and
one of what was found, by kernel.

SOURCE-DIR is what make gets as M=: nothing is written into it, and nothing beside it
comes along. Where it makes several modules, --module says which one is meant; what that
one needs of the others is loaded first.

What WORKLOAD prints is shown as it comes, each line with its kernel. With --reports, each
kernel leaves in DIR its report (6.1.json, 6.1.txt), the log of its build (6.1.build.log),
what was printed in its machine (6.1.log) and, if it crashed, its oops (6.1.oops.txt).

What --suppressions and --baseline leave out is in neither table and does not count for
the exit status; how much it was is below the table.

Exit status, the worst of all kernels, in this order:
  5  a kernel crashed or hung in its machine
  3  a module could not be built, or not be run; or nothing leaked, but WORKLOAD failed
  4  a result is incomplete: events were lost, or a function was not watched
  1  leaks or wrong frees found
  0  nothing leaked on any kernel
and 2 for wrong usage.`,
		Example: `  kedr matrix --kernel 5.10,6.1,6.12,7.3 ./mydriver
  kedr matrix --kernel 6.1,6.12 --reports reports ./mydriver debug=1 -- ./exercise-driver.sh
  kedr matrix --kernel 6.1,6.12 --suppressions known.supp --baseline main.json ./mydriver
  kedr matrix --kernel 6.1,6.12 --make CONFIG_MYDRIVER=m --module mydriver .
  kedr matrix --kernel 6.1,6.12 --format markdown -o summary.md ./mydriver`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || cmd.ArgsLenAtDash() == 0 {
				return usage("no SOURCE-DIR given: see %s --help", cmd.CommandPath())
			}
			source, params, workload, err := moduleArgs(cmd, args)
			if err != nil {
				return err
			}
			return f.run(cmd, source, params, workload)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.kernels, "kernel", nil, "`VERSION`s of the kernels (6.1, 6.1-cloud, or a full release), with commas between")
	fl.StringVar(&f.module, "module", "", "`NAME` of the module, where SOURCE-DIR makes several")
	fl.IntVar(&f.jobs, "jobs", 0, "how many machines run at a time; 0: as CPUs and memory allow")
	fl.StringArrayVar(&f.makeArgs, "make", nil, "further `ARG` for make, as CONFIG_X=m; may be given several times")
	fl.StringVar(&f.reports, "reports", "", "`DIR` to keep each kernel's report and logs in")
	fl.StringSliceVar(&f.formats, "reports-format", []string{"json", "text"}, "formats of the reports in DIR: "+strings.Join(report.Names(), ", "))
	fl.StringVar(&f.format, "format", matrix.Formats[0].Name, "format of the table: "+strings.Join(matrix.Names(), ", "))
	fl.StringVarP(&f.file, "output", "o", "-", "`FILE` to write the table to; - is the standard output")
	f.analysis.registerMachine(cmd)
	f.analysis.registerAnalysis(cmd)
	f.analysis.suppress.registerFiles(cmd)
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(matrix.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("reports-format", cobra.FixedCompletions(report.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.MarkFlagDirname("reports")
	return cmd
}

// check finds mistakes before any work is done.
func (f *matrixFlags) check(cmd *cobra.Command, source string) error {
	if len(f.kernels) == 0 {
		return usage("matrix: which kernels? as in kedr matrix --kernel 6.1,6.12 %s", source)
	}
	if err := matrix.CheckKernels(f.kernels); err != nil {
		return usage("--kernel: %w", err)
	}
	if f.jobs < 0 {
		return usage("--jobs: must not be negative")
	}
	if _, err := matrix.Find(f.format); err != nil {
		return usage("--format: %w", err)
	}
	for _, name := range f.formats {
		format, err := report.Find(name)
		if err != nil {
			return usage("--reports-format: %w", err)
		}
		f.analysis.sites = f.analysis.sites || format.Sites && f.reports != ""
	}
	if dir := filepath.Dir(f.file); f.file != "-" && unix.Access(dir, unix.W_OK) != nil {
		return fmt.Errorf("the table can't be written to %s: no such directory, or not yours to write to", dir)
	}
	if st, err := os.Stat(source); err != nil {
		return fmt.Errorf("the module's source: %w", err)
	} else if !st.IsDir() {
		return usage("%s is no directory: matrix takes the source of a module, to build it for each kernel", source)
	}
	if err := f.analysis.suppress.checkFiles(cmd); err != nil {
		return err
	}
	return f.analysis.check()
}

func (f *matrixFlags) run(cmd *cobra.Command, source string, params, workload []string) (err error) {
	if err := f.check(cmd, source); err != nil {
		return err
	}
	talk := newMatrixTalk(f.kernels)
	defer talk.clear()
	store, err := distro.NewStore(talk.say)
	if err != nil {
		return err
	}
	if f.reports != "" {
		if err := os.MkdirAll(f.reports, 0o755); err != nil {
			return fmt.Errorf("no place for the reports: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "kedr-matrix-")
	if err != nil {
		return fmt.Errorf("no place to build in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := newMatrixSteps(f, store, talk, source, dir, f.analysis.job(params, workload))
	jobs := f.jobs
	if jobs == 0 {
		jobs = machinesAtOnce(runtime.NumCPU(), availableMemory(), f.analysis.memory)
	}
	results, err := matrix.Run(cmd.Context(), f.kernels, s, jobs, talk.change)
	talk.clear()
	if err != nil {
		return err
	}
	table := matrix.NewTable(s.module(), source, s.rows(), results, matrixStatus)
	interrupted := cmd.Context().Err()
	if interrupted == nil && anyReport(results) {
		f.analysis.suppress.unused(cmd.ErrOrStderr())
	}
	if interrupted == nil || anyReport(results) {
		if err := f.write(cmd.OutOrStdout(), table); err != nil {
			return err
		}
	}
	switch {
	case interrupted != nil:
		return interrupted
	case table.Status != exitClean:
		return &statusError{status: table.Status}
	}
	return nil
}

func anyReport(results []matrix.Result) bool {
	for _, r := range results {
		if r.Report != nil {
			return true
		}
	}
	return false
}

// matrixStatus is the exit status that an outcome means.
func matrixStatus(o matrix.Outcome) int {
	switch o {
	case matrix.Clean:
		return exitClean
	case matrix.Found:
		return exitFound
	case matrix.Incomplete:
		return exitIncomplete
	case matrix.Hung, matrix.Crashed:
		return exitCrashed
	}
	return exitFailed
}

// write writes the table, for programs also beside the reports.
func (f *matrixFlags) write(stdout io.Writer, t *matrix.Table) error {
	format, err := matrix.Find(f.format)
	if err != nil {
		return usage("--format: %w", err)
	}
	if f.reports != "" {
		asJSON, err := matrix.Find("json")
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(f.reports, "matrix.json"), func(w io.Writer) error { return asJSON.Write(w, t) }); err != nil {
			return fmt.Errorf("writing the table: %w", err)
		}
	}
	if f.file == "-" || f.file == "" {
		err = format.Write(stdout, t)
	} else if err = writeFile(f.file, func(w io.Writer) error { return format.Write(w, t) }); err == nil {
		fmt.Fprintf(os.Stderr, "kedr: %s: see %s\n", t.Verdict(), f.file)
	}
	if err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}

// writeFile makes a file of what write writes.
func writeFile(name string, write func(io.Writer) error) error {
	w, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(w), w.Close())
}

// machineOverhead is what a machine takes beside its own memory, in MiB: the emulator,
// and kedr's reading of the result.
const machineOverhead = 256

// machinesAtOnce is how many machines a host can run side by side: half as many as it
// has CPUs, for the next module is being built meanwhile, and as its memory, in MiB, allows.
func machinesAtOnce(cpus, available, memory int) int {
	return max(1, min(cpus/2, available/(memory+machineOverhead)))
}

// availableMemory is what the host can spare, in MiB.
func availableMemory() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib / 1024
		}
	}
	return 0
}
