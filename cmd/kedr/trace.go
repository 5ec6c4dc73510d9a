package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"kedr/internal/kernel"
	"kedr/internal/machine"
	"kedr/internal/plan"
	"kedr/internal/probe"
	"kedr/internal/session"
	"kedr/internal/target"
	"kedr/internal/trace"
	"kedr/internal/trace/describe"
	"kedr/internal/trace/filter"
)

// traceFlags are what "kedr trace" is told.
type traceFlags struct {
	hostFlags
	choice traceChoice
	out    traceOutput
	leaks  bool
	from   string
	attach bool
	follow bool
	drain  bool
}

// traceChoice says what is traced; "kedr start" takes it, too.
type traceChoice struct {
	opts   session.TraceOptions
	pids   []uint
	expand []string
}

func (c *traceChoice) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringSliceVar(&c.opts.Only, "only", nil, "trace only functions that match this `GLOB`; may be repeated")
	fl.StringSliceVar(&c.opts.Except, "except", nil, "trace no functions that match this `GLOB`; may be repeated")
	fl.BoolVar(&c.opts.All, "all", false, "trace hot imports, too (spinlocks, memcpy, mutexes)")
	fl.BoolVar(&c.opts.Errors, "errors", false, "keep only calls that fail")
	fl.StringVar(&c.opts.Where, "where", "", "keep only calls for which this `EXPRESSION` over arguments, ret, pid, comm ... is true")
	fl.UintSliceVar(&c.pids, "pid", nil, "keep only calls by this `PROCESS`; may be repeated")
	fl.StringSliceVar(&c.opts.From, "site", nil, "keep only calls from functions of the module that match this `GLOB`; may be repeated")
	fl.StringSliceVar(&c.expand, "expand", nil, "show this field of structures, as file.f_flags, with each call; may be repeated")
	fl.IntVar(&c.opts.Buffer, "buffer", 16<<20, "`BYTES` of events that may wait to be read: a power of two")
	fl.StringVar((*string)(&c.opts.How), "probes", probe.TraceAttaches[0], "how to attach: "+strings.Join(probe.TraceAttaches, ", "))
	cmd.RegisterFlagCompletionFunc("probes", cobra.FixedCompletions(probe.TraceAttaches, cobra.ShellCompDirectiveNoFileComp))
}

// given names one of the flags that has been given; "": none.
func (c *traceChoice) given(cmd *cobra.Command) string {
	for _, name := range []string{"only", "except", "all", "errors", "where", "pid", "site", "expand", "buffer", "probes"} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// check finds mistakes before any work is done.
func (c *traceChoice) check() error {
	if !slices.Contains(probe.TraceAttaches, string(c.opts.How)) {
		return usage("--probes=%s: must be one of %s", c.opts.How, strings.Join(probe.TraceAttaches, ", "))
	}
	c.opts.PIDs = nil
	for _, p := range c.pids {
		c.opts.PIDs = append(c.opts.PIDs, uint32(p))
	}
	c.opts.Expand = c.expand
	if err := c.opts.Check(); err != nil {
		return usage("%w", err)
	}
	return nil
}

// words are the flags again, for a kedr in a machine.
func (c *traceChoice) words() []string {
	w := []string{"--buffer", fmt.Sprint(c.opts.Buffer), "--probes", string(c.opts.How)}
	for _, f := range []struct {
		name   string
		values []string
	}{{"--only", c.opts.Only}, {"--except", c.opts.Except}, {"--site", c.opts.From}, {"--expand", c.expand}} {
		for _, v := range f.values {
			w = append(w, f.name+"="+v)
		}
	}
	for _, p := range c.pids {
		w = append(w, fmt.Sprintf("--pid=%d", p))
	}
	if c.opts.All {
		w = append(w, "--all")
	}
	if c.opts.Errors {
		w = append(w, "--errors")
	}
	if c.opts.Where != "" {
		w = append(w, "--where="+c.opts.Where)
	}
	return w
}

func newTrace() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace [flags] MODULE [param=value ...] [-- WORKLOAD [ARG ...]]",
		Short: "Show the calls that a module makes into the kernel, and the kernel's into it",
		Long: `Trace loads MODULE and what it depends on, runs WORKLOAD if one is given, unloads
the module, and shows every call that the module makes into the kernel as it comes: when,
on which CPU, by whom, with its arguments, its result, how long it took, and the place
in the source that called. The module's own functions that the kernel calls (init,
exit, callbacks) are shown too, with what they call inside.

MODULE is a .ko file (also .ko.xz, .ko.zst, .ko.gz) or the name of an installed module.
As with kedr run, it happens in a disposable machine where this host can't do it.

With --attach, MODULE is the name of a module that "kedr start --trace" watches: its
trace is shown from where the last reader left off, until the module is unloaded; with
--follow, until the session is stopped, over any number of loads; with --drain, what is there.
With --from, a trace is read that -o has kept.

An EXPRESSION is one of Go: --where 'size > 4096 && flags & __GFP_ZERO != 0'. Its names are
the parameters of the functions, ret, duration (ns), pid, tid, cpu, comm, flags and
enumeration values by name, and error names: docs/filters.md has all of it. It is part
of the probes: what it does not keep leaves no record.

Exit status: 0 if the trace is whole, 2 for wrong usage, 3 if it could not run, 4 if
events were lost, 5 if the kernel crashed in the machine.`,
		Example: `  kedr trace hello-kernel.ko
  kedr trace --summary ext4 -- sh -c 'modprobe loop; mount -o loop disk.img /mnt && umount /mnt'
  kedr trace --only 'k*alloc*' --where 'size > 4096' mydriver.ko
  kedr trace --errors --site 'mydrv_*' mydriver.ko
  kedr trace -o mydriver.trace mydriver.ko; kedr trace --from mydriver.trace --format chrome -o t.json

  kedr start --trace mydriver.ko
  kedr trace --attach mydriver --follow`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.hostFlags.register(cmd)
	f.choice.register(cmd)
	f.out.register(cmd)
	cmd.Flags().BoolVar(&f.leaks, "live", false, "also account for what the module obtains, and record the bytes outstanding")
	cmd.Flags().StringVar(&f.from, "from", "", "show the trace in this `FILE`")
	cmd.Flags().BoolVar(&f.attach, "attach", false, "show the trace of a module that kedr start --trace watches")
	cmd.Flags().BoolVar(&f.follow, "follow", false, "with --attach: go on when the module is unloaded")
	cmd.Flags().BoolVar(&f.drain, "drain", false, "with --attach: show what is there, and wait for nothing")
	return cmd
}

func (f *traceFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.choice.check(); err != nil {
		return err
	}
	if err := f.out.check(); err != nil {
		return err
	}
	switch {
	case f.from != "" && f.attach:
		return usage("--from and --attach: one of them")
	case (f.follow || f.drain) && !f.attach:
		return usage("--follow and --drain go with --attach")
	case f.follow && f.drain:
		return usage("--follow and --drain: one of them")
	case f.from != "":
		if len(args) > 0 {
			return usage("--from %s: no MODULE, it is in the file", f.from)
		}
		return f.out.showFile(cmd, f.from)
	case f.attach:
		if len(args) != 1 {
			return usage("--attach: give the name of one module")
		}
		return f.attached(cmd, args[0])
	}
	name, params, workload, err := moduleArgs(cmd, args)
	if err != nil {
		return err
	}
	k, err := kernel.Running()
	if err != nil {
		return err
	}
	if os.Getenv(machine.ResultEnv) != "" && f.vm == "never" {
		return f.inGuest(cmd.Context(), k, name, params, workload)
	}
	why, err := f.place(k, name)
	if err != nil {
		return err
	}
	if why != nil {
		return f.onHost(cmd, name, params, workload, why)
	}
	m, err := findTarget(k, name)
	if err != nil {
		return err
	}
	if err := hostCanWatch(k, []*target.Module{m}); err != nil {
		return err
	}
	sink, err := f.out.open(cmd, []*target.Module{m})
	if err != nil {
		return err
	}
	err = f.here(cmd.Context(), k, m, params, workload, sink)
	return f.out.finish(sink, err)
}

// traceSink takes a trace: its header first, then its records.
type traceSink interface {
	Header(h *trace.Header) error
	Record(r *trace.Record) error
	// Flush shows what there is; more may come.
	Flush() error
	Close() error
}

// begunSink knows whether a trace has begun.
type begunSink struct {
	traceSink
	target string
	begun  bool
}

func (s *begunSink) Header(h *trace.Header) error {
	s.begun = true
	return s.traceSink.Header(h)
}

// begin begins a trace of which nothing came, not even its header: a kernel may crash
// sooner than that is on its way. Without it the output would not say that something is missing.
func (s *begunSink) begin() error {
	if s.begun {
		return nil
	}
	return s.Header(&trace.Header{Version: trace.Version, Targets: []string{s.target}})
}

// here traces on this kernel.
func (f *traceFlags) here(ctx context.Context, k *kernel.Kernel, m *target.Module, params, workload []string, sink traceSink) error {
	opts := session.Options{Trace: &f.choice.opts, NoLeaks: !f.leaks}
	var s *session.Session
	var copied chan error
	over, stop := context.WithCancel(context.Background())
	defer stop()
	var reader *session.TraceReader
	defer func() {
		if reader != nil {
			stop()
			reader.Close()
		}
		if s != nil {
			s.Close()
		}
	}()
	arm := func() (err error) {
		if s, err = armTrace(k, opts, m); err != nil {
			return err
		}
		if reader, err = s.Trace(); err != nil {
			return err
		}
		if err := sink.Header(reader.Header()); err != nil {
			return err
		}
		copied = make(chan error, 1)
		go func() { copied <- reader.Copy(over, sink.Record, sink.Flush) }()
		return nil
	}
	return exercise(ctx, k, m, params, workload, arm, func(loadErr, _ error) error {
		stop()
		if err := <-copied; err != nil {
			return err
		}
		lost, err := reader.Lost()
		if err != nil {
			return err
		}
		if err := sink.Record(&trace.Record{End: &trace.End{Time: session.Clock(), Lost: lost}}); err != nil {
			return err
		}
		if loadErr != nil {
			return fmt.Errorf("loading %s: %w", m.Name, loadErr)
		}
		return nil
	})
}

// inGuest traces in a machine: the trace goes to the host as a file does.
func (f *traceFlags) inGuest(ctx context.Context, k *kernel.Kernel, name string, params, workload []string) error {
	m, out, err := guestTarget(k, name)
	if err != nil {
		return err
	}
	sink := &fileSink{w: out}
	err = f.here(ctx, k, m, params, workload, sink)
	return errors.Join(err, sink.Close(), out.Close())
}

// onHost has a machine trace, and shows what it sends.
func (f *traceFlags) onHost(cmd *cobra.Command, name string, params, workload []string, why error) error {
	r, w := io.Pipe()
	var wg sync.WaitGroup
	var sink *begunSink
	var showErr error
	job := machineJob{verb: append([]string{"trace"}, f.choice.words()...), params: params, workload: workload}
	if f.leaks {
		job.verb = append(job.verb, "--live")
	}
	_, err := f.inMachine(cmd, name, why, &job, func(m *target.Module) io.Writer {
		var out traceSink
		if out, showErr = f.out.open(cmd, []*target.Module{m}); showErr != nil {
			return w
		}
		sink = &begunSink{traceSink: out, target: m.Name}
		wg.Go(func() {
			showErr = copyTrace(r, sink)
			// A machine that is not listened to would wait for ever.
			r.CloseWithError(showErr)
		})
		return w
	})
	w.Close()
	wg.Wait()
	if err == nil {
		err = showErr
	}
	if sink == nil {
		return err
	}
	if _, crashed := lastWords(err); crashed {
		if beginErr := sink.begin(); beginErr != nil {
			err = beginErr
		}
	}
	return f.out.finish(sink, err)
}

// attached shows the trace of a detached session.
func (f *traceFlags) attached(cmd *cobra.Command, name string) error {
	s, err := openSession()
	if err != nil {
		return err
	}
	defer s.Close()
	i := slices.IndexFunc(s.Targets(), func(t session.Target) bool { return t.Name == kernel.ModuleName(name) })
	if i < 0 {
		return fmt.Errorf("module %s is not being watched: kedr status lists the modules that are", name)
	}
	reader, err := s.Trace()
	if err != nil {
		return err
	}
	defer reader.Close()
	var modules []*target.Module
	for _, t := range s.Targets() {
		// What is gone costs the source lines only.
		m, err := target.Open(t.Path)
		if err != nil || m.BuildID != t.BuildID {
			m = nil
		}
		modules = append(modules, m)
	}
	sink, err := f.out.open(cmd, modules)
	if err != nil {
		return err
	}
	err = f.copyAttached(cmd.Context(), reader, sink, i)
	return f.out.finish(sink, err)
}

// copyAttached passes on what a reader gives until it is time to end: a Ctrl-C is one of
// the ways, and no error.
func (f *traceFlags) copyAttached(ctx context.Context, reader *session.TraceReader, sink traceSink, target int) error {
	if err := sink.Header(reader.Header()); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if f.drain {
		stop()
	}
	pass := func(r *trace.Record) error {
		if e := r.Event; e != nil && e.Target != target {
			return nil
		}
		if e := r.Event; e != nil && e.What == trace.Unloaded && !f.follow {
			stop()
		}
		return sink.Record(r)
	}
	idle := func() error {
		if !session.Running() {
			stop()
		}
		return sink.Flush()
	}
	if err := reader.Copy(ctx, pass, idle); err != nil {
		return err
	}
	var lost []trace.Lost
	if session.Running() {
		var err error
		if lost, err = reader.Lost(); err != nil {
			return err
		}
	}
	return sink.Record(&trace.Record{End: &trace.End{Time: session.Clock(), Lost: lost}})
}

// armTrace starts a session that traces.
func armTrace(k *kernel.Kernel, opts session.Options, m *target.Module) (*session.Session, error) {
	var flag catalogFlag
	cat, err := flag.load()
	if err != nil {
		return nil, err
	}
	s, err := session.Arm(cat, k, opts, m)
	return s, choiceError(err)
}

// choiceError gives what can only be told wrong when the functions are known the exit
// status of wrong usage.
func choiceError(err error) error {
	var expression *filter.Error
	var field *describe.ExpandError
	if errors.As(err, &expression) || errors.As(err, &field) || errors.Is(err, plan.ErrNothing) {
		return &statusError{status: exitUsage, err: err}
	}
	return err
}
