package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"kedr/internal/leak"
	"kedr/internal/report"
	"kedr/internal/report/wording"
	"kedr/internal/session"
	"kedr/internal/target"
)

// outputFlags are the flags of commands that write a report.
type outputFlags struct {
	format  string
	file    string
	also    []string // FORMAT=FILE
	all     bool
	classic bool
	source  sourceFlags

	outputs []output // what they come to, once checked
}

// output is one file that is written.
type output struct {
	format report.Format
	file   string // "-" is the standard output
}

func (o *outputFlags) register(cmd *cobra.Command) {
	names := strings.Join(report.Names(), ", ")
	fl := cmd.Flags()
	fl.StringVar(&o.format, "format", report.Formats[0].Name, "format of the report: "+names)
	fl.StringVarP(&o.file, "output", "o", "-", "`FILE` to write the report to; - is the standard output")
	fl.StringArrayVar(&o.also, "report", nil, "also write the report as `FORMAT=FILE`; may be given several times")
	fl.BoolVar(&o.all, "all", false, "list each object in the text, not only the oldest of each call stack")
	fl.BoolVar(&o.classic, "classic", false, "write the text as the first KEDR did, to the letter")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(report.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("report", completeReport)
	o.source.register(cmd)
}

// completeReport completes FORMAT=, and leaves FILE to the shell.
func completeReport(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if strings.Contains(typed, "=") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var formats []cobra.Completion
	for _, f := range report.Formats {
		formats = append(formats, cobra.CompletionWithDesc(f.Name+"=", f.About))
	}
	return formats, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// check finds mistakes before any work is done.
func (o *outputFlags) check(cmd *cobra.Command) error {
	format, err := report.Find(o.format)
	if err != nil {
		return usage("--format: %w", err)
	}
	main := output{format, cmp.Or(o.file, "-")}
	o.outputs = []output{main}
	for _, a := range o.also {
		name, file, ok := strings.Cut(a, "=")
		if !ok || file == "" {
			return usage("--report %s: want FORMAT=FILE, as in --report json=leaks.json", a)
		}
		format, err := report.Find(name)
		if err != nil {
			return usage("--report: %w", err)
		}
		o.outputs = append(o.outputs, output{format, file})
	}
	// Who wants something else on the standard output does not want the text there, too.
	if fl := cmd.Flags(); !fl.Changed("format") && !fl.Changed("output") &&
		slices.ContainsFunc(o.outputs[1:], func(out output) bool { return out.file == "-" }) {
		o.outputs = o.outputs[1:]
	}
	for name, given := range map[string]bool{"--all": o.all, "--classic": o.classic} {
		if given && !slices.ContainsFunc(o.outputs, func(out output) bool { return out.format.Name == "text" }) {
			return usage("%s is for the text: there is none among the formats asked for", name)
		}
	}
	if o.all && o.classic {
		return usage("--all and --classic: one of them; the first KEDR listed one object of each call stack")
	}
	if err := o.source.check(); err != nil {
		return err
	}
	return o.checkFiles(cmd.OutOrStdout())
}

// sites tells whether any of the outputs shows what was given back, too.
func (o *outputFlags) sites() bool {
	return slices.ContainsFunc(o.outputs, func(out output) bool { return out.format.Sites })
}

func (o *outputFlags) checkFiles(stdout io.Writer) error {
	places := make(map[string]bool)
	for _, out := range o.outputs {
		place := out.file
		if out.file == "-" {
			if _, ok := terminal(stdout); ok && out.format.Binary {
				return usage("the format %s is not for a terminal: write it to a file (-o FILE)", out.format.Name)
			}
		} else {
			if err := writable(out); err != nil {
				return err
			}
			// The same file by another way.
			if dir, err := filepath.EvalSymlinks(filepath.Dir(out.file)); err == nil {
				place = filepath.Join(dir, filepath.Base(out.file))
			}
			if abs, err := filepath.Abs(place); err == nil {
				place = abs
			}
		}
		if places[place] {
			return usage("two reports can't both be written to %s", out.file)
		}
		places[place] = true
	}
	return nil
}

// writable tells why a file can't be written, without touching it.
func writable(out output) error {
	info, err := os.Stat(out.file)
	if err != nil {
		if dir := filepath.Dir(out.file); unix.Access(dir, unix.W_OK) != nil {
			return fmt.Errorf("the report can't be written to %s: no such directory, or not yours to write to", dir)
		}
		return nil
	}
	switch {
	case info.IsDir():
		return usage("the report can't be written to %s: it is a directory", out.file)
	case unix.Access(out.file, unix.W_OK) != nil:
		return fmt.Errorf("the report can't be written to %s: it is there, and not yours to write to", out.file)
	case out.format.Binary && info.Mode()&os.ModeCharDevice != 0:
		f, err := os.OpenFile(out.file, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("the report can't be written: %w", err)
		}
		defer f.Close()
		if _, ok := terminal(f); ok {
			return usage("the format %s is not for a terminal, as %s is: write it to another file", out.format.Name, out.file)
		}
	}
	return nil
}

// terminal tells whether something is written to a terminal, and how wide that is.
func terminal(w io.Writer) (width int, ok bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		width = 0
	}
	return width, true
}

// options are those of one output.
func (o *outputFlags) options(w io.Writer) report.Options {
	dir, _ := os.Getwd()
	opts := report.Options{Dir: dir, All: o.all, Classic: o.classic, Version: version(), Sources: o.source.tree(dir)}
	if width, ok := terminal(w); ok {
		opts.Width = width
		// https://no-color.org: any value but the empty one.
		opts.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return opts
}

// write writes reports and returns the exit status that they mean.
func (o *outputFlags) write(stdout io.Writer, reports []*leak.Report) error {
	var files []string
	for _, out := range o.outputs {
		if err := o.writeOne(out, stdout, reports); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		if out.file != "-" {
			files = append(files, out.file)
		}
	}
	if len(files) > 0 {
		for _, r := range reports {
			fmt.Fprintf(os.Stderr, "kedr: %s: see %s\n", wording.Verdict(r), strings.Join(files, ", "))
		}
	}
	return verdict(reports)
}

func (o *outputFlags) writeOne(out output, stdout io.Writer, reports []*leak.Report) error {
	if out.file == "-" {
		return out.format.Write(stdout, reports, o.options(stdout))
	}
	f, err := os.Create(out.file)
	if err != nil {
		return err
	}
	return errors.Join(out.format.Write(f, reports, o.options(f)), f.Close())
}

// verdict turns findings into an exit status. What is incomplete is neither
// clean nor proof of a leak.
func verdict(reports []*leak.Report) error {
	status := exitClean
	for _, r := range reports {
		switch {
		case r.Incomplete():
			return &statusError{status: exitIncomplete}
		case len(r.Loads) == 0:
			return &statusError{status: exitFailed} // nothing was seen: not clean either
		case !r.Clean():
			status = exitFound
		}
	}
	if status != exitClean {
		return &statusError{status: status}
	}
	return nil
}

// makeReports names what was captured. A target's file that is gone, or is
// another one by now, costs the source lines only.
func makeReports(c *session.Capture) []*leak.Report {
	modules := make(map[string]*target.Module)
	for _, t := range c.Targets {
		m, err := target.Open(t.Path)
		if err == nil && m.BuildID == t.BuildID {
			modules[t.Name] = m
		}
	}
	return leak.New(c, modules)
}

// readReports reads a report that was saved; - is the standard input.
func readReports(cmd *cobra.Command, name string) ([]*leak.Report, error) {
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading a report: %w", err)
		}
		defer f.Close()
		in = f
	}
	reports, err := report.Read(in)
	if err != nil {
		return nil, usage("%s: %w", name, err)
	}
	return reports, nil
}

// openTarget opens a module's file, with the exit statuses for what is wrong.
func openTarget(path string) (*target.Module, error) {
	m, err := target.Open(path)
	if err == nil {
		return m, nil
	}
	for _, usageErr := range []error{target.ErrNotELF, target.ErrNotModule, target.ErrTruncated, target.ErrArch} {
		if errors.Is(err, usageErr) {
			return nil, &statusError{status: exitUsage, err: err}
		}
	}
	return nil, err
}
