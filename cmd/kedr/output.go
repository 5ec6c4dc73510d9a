package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kedr/internal/leak"
	"kedr/internal/report"
	"kedr/internal/session"
	"kedr/internal/target"
)

// outputFlags are the flags of commands that write a report.
type outputFlags struct {
	format string
	file   string
}

func (o *outputFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.format, "format", report.Formats[0].Name, "format of the report: "+strings.Join(report.Names(), ", "))
	cmd.Flags().StringVarP(&o.file, "output", "o", "-", "`FILE` to write the report to; - is the standard output")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(report.Names(), cobra.ShellCompDirectiveNoFileComp))
}

// check finds mistakes before any work is done.
func (o *outputFlags) check() error {
	if _, err := report.Find(o.format); err != nil {
		return usage("--format: %w", err)
	}
	if dir := filepath.Dir(o.file); o.file != "-" && unix.Access(dir, unix.W_OK) != nil {
		return fmt.Errorf("the report can't be written to %s: no such directory, or not yours to write to", dir)
	}
	return nil
}

// write writes reports and returns the exit status that they mean.
func (o *outputFlags) write(stdout io.Writer, reports []*leak.Report) error {
	format, err := report.Find(o.format)
	if err != nil {
		return usage("--format: %w", err)
	}
	dir, _ := os.Getwd()
	out := stdout
	var f *os.File
	if o.file != "-" && o.file != "" {
		if f, err = os.Create(o.file); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		out = f
	}
	for i, r := range reports {
		if i > 0 && o.format == "text" {
			fmt.Fprintln(out)
		}
		if err := format.Write(out, r, report.Options{Dir: dir}); err != nil {
			if f != nil {
				f.Close()
			}
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if f != nil {
		if err := f.Close(); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		for _, r := range reports {
			fmt.Fprintf(os.Stderr, "kedr: %s: see %s\n", report.Verdict(r), o.file)
		}
	}
	return verdict(reports)
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
