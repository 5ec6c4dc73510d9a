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
	"golang.org/x/term"

	"kedr/internal/symbolize"
	"kedr/internal/target"
	"kedr/internal/trace"
	"kedr/internal/trace/format"
)

// traceOutput says how a trace is shown, or kept.
type traceOutput struct {
	format  string
	summary bool
	file    string
	wall    bool

	lost bool // events; of the trace that was shown last
}

func (o *traceOutput) register(cmd *cobra.Command) {
	var docs []string
	for _, f := range format.Formats {
		docs = append(docs, f.Name+" ("+f.Doc+")")
	}
	cmd.Flags().StringVar(&o.format, "format", "", "how to show the trace: "+strings.Join(docs, ", "))
	cmd.Flags().BoolVar(&o.summary, "summary", false, "the same as --format summary")
	cmd.Flags().StringVarP(&o.file, "output", "o", "-", "`FILE` to keep the trace in, for --from; with --format, to write that to; - is the standard output")
	cmd.Flags().BoolVar(&o.wall, "wall", false, "show times of the day")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
}

// check finds mistakes before any work is done.
func (o *traceOutput) check() error {
	if o.summary {
		if o.format != "" && o.format != "summary" {
			return usage("--summary and --format %s: one of them", o.format)
		}
		o.format = "summary"
	}
	if o.format != "" {
		if _, err := format.Find(o.format); err != nil {
			return usage("--format: %w", err)
		}
	}
	if dir := filepath.Dir(o.file); o.file != "-" && unix.Access(dir, unix.W_OK) != nil {
		return fmt.Errorf("the trace can't be written to %s: no such directory, or not yours to write to", dir)
	}
	return nil
}

// open makes what takes the trace. modules are the targets, for names and lines; nil
// where there is no file.
func (o *traceOutput) open(cmd *cobra.Command, modules []*target.Module) (traceSink, error) {
	out, closer := cmd.OutOrStdout(), io.Closer(nil)
	color := false
	if o.file != "-" && o.file != "" {
		f, err := os.Create(o.file)
		if err != nil {
			return nil, fmt.Errorf("writing the trace: %w", err)
		}
		out, closer = f, f
	} else if f, ok := out.(*os.File); ok {
		color = term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	var sink traceSink
	if closer != nil && o.format == "" {
		sink = &fileSink{w: out, closer: closer}
	} else {
		name := o.format
		if name == "" {
			name = format.Formats[0].Name
		}
		f, err := format.Find(name)
		if err != nil {
			return nil, usage("--format: %w", err)
		}
		dir, _ := os.Getwd()
		sink = &formatSink{out: out, closer: closer, format: f, options: format.Options{Color: color, Dir: dir, Wall: o.wall}}
	}
	return &resolveSink{traceSink: sink, output: o, modules: modules}, nil
}

// finish closes what was opened, and says by an exit status whether the trace is whole.
func (o *traceOutput) finish(sink traceSink, err error) error {
	if cerr := sink.Close(); err == nil {
		err = cerr
	}
	switch {
	case errors.Is(err, unix.EPIPE):
		return nil // who reads has seen enough, as head has
	case errors.Is(err, trace.ErrCutOff):
		return &statusError{status: exitIncomplete, err: err}
	case err != nil:
		return err
	case o.lost:
		return &statusError{status: exitIncomplete}
	}
	return nil
}

// showFile shows a trace that was kept.
func (o *traceOutput) showFile(cmd *cobra.Command, name string) error {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return &statusError{status: exitUsage, err: fmt.Errorf("reading the trace: %w", err)}
		}
		defer f.Close()
		in = f
	}
	r, err := trace.NewReader(in)
	if err != nil {
		return &statusError{status: exitUsage, err: fmt.Errorf("%s: %w", name, err)}
	}
	defer r.Close()
	sink, err := o.open(cmd, nil)
	if err != nil {
		return err
	}
	return o.finish(sink, copyRecords(r, sink))
}

// copyTrace passes on a trace as it comes from a machine.
func copyTrace(in io.Reader, sink traceSink) error {
	r, err := trace.NewReader(in)
	if err != nil {
		return fmt.Errorf("reading the machine's trace: %w", err)
	}
	defer r.Close()
	return copyRecords(r, sink)
}

func copyRecords(r *trace.Reader, sink traceSink) error {
	if err := sink.Header(&r.Header); err != nil {
		return err
	}
	var rec trace.Record
	for {
		err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sink.Record(&rec); err != nil {
			return err
		}
	}
}

// fileSink keeps a trace.
type fileSink struct {
	w      io.Writer
	closer io.Closer
	trace  *trace.Writer
}

func (s *fileSink) Header(h *trace.Header) (err error) {
	s.trace, err = trace.NewWriter(s.w, h)
	return err
}

func (s *fileSink) Record(r *trace.Record) error { return s.trace.Write(r) }
func (s *fileSink) Flush() error                 { return s.trace.Flush() }

func (s *fileSink) Close() error {
	var err error
	if s.trace != nil {
		err = s.trace.Close()
	}
	if s.closer != nil {
		err = errors.Join(err, s.closer.Close())
	}
	return err
}

// formatSink shows a trace.
type formatSink struct {
	out     io.Writer
	closer  io.Closer
	format  *format.Format
	options format.Options
	w       format.Writer
}

func (s *formatSink) Header(h *trace.Header) error {
	s.w = s.format.New(s.out, h, s.options)
	return nil
}

func (s *formatSink) Record(r *trace.Record) error { return s.w.Record(r) }
func (s *formatSink) Flush() error                 { return s.w.Flush() }

func (s *formatSink) Close() error {
	var err error
	if s.w != nil {
		err = s.w.Close()
	}
	if s.closer != nil {
		err = errors.Join(err, s.closer.Close())
	}
	return err
}

// resolveSink gives sites their names and lines, and notes what is lost.
type resolveSink struct {
	traceSink
	output    *traceOutput
	modules   []*target.Module
	resolvers []*symbolize.Resolver
}

func (s *resolveSink) Header(h *trace.Header) error {
	s.output.lost = false
	s.resolvers = make([]*symbolize.Resolver, len(s.modules))
	for i, m := range s.modules {
		if m != nil {
			s.resolvers[i] = symbolize.New(m)
		}
	}
	return s.traceSink.Header(h)
}

func (s *resolveSink) Record(r *trace.Record) error {
	if site := r.Site; site != nil && len(site.Frames) == 0 && site.Section >= 0 && site.Target < len(s.resolvers) && s.resolvers[site.Target] != nil {
		// With the functions that have given up their frame on the way to what was called.
		frames, _ := s.resolvers[site.Target].Stack([]symbolize.Location{{Section: site.Section, Offset: site.Offset, Address: site.Address}}, "")
		for _, f := range frames {
			site.Frames = append(site.Frames, trace.Line{Function: f.Function, Offset: f.Offset, Size: f.Size, Module: f.Module, File: f.File, Line: f.Line})
		}
	}
	if r.End != nil && len(r.End.Lost) > 0 {
		s.output.lost = true
	}
	return s.traceSink.Record(r)
}
