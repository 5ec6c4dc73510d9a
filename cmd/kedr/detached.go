package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/leak"
	"kedr/internal/session"
	"kedr/internal/target"
)

func newStart() *cobra.Command {
	var opts session.Options
	var cat catalogFlag
	var calls bool
	var choice traceChoice
	cmd := &cobra.Command{
		Use:   "start MODULE[,MODULE...]...",
		Short: "Watch modules from now on, whoever loads them",
		Long: `Start arms the probes for one or more modules that are not loaded yet, and
returns. Nothing of kedr runs until the next kedr command: the kernel keeps the
account. The modules may be loaded and unloaded any number of times; see "kedr
report", or read the files in ` + session.FilesDir + `/<module>/.

MODULE is a .ko file (also .ko.xz, .ko.zst, .ko.gz) or the name of an installed
module. Several are separated by commas or are words of their own; they share one
account: what one obtains another may give back. Module parameters are not for
start: whoever loads the module gives them.

With --trace, calls are recorded, too: kedr trace --attach MODULE shows them. What is
not read before the buffer is full is lost, and counted.

Exit status:
  0  the modules are being watched
  2  wrong usage
  3  refused, as one of the modules is loaded or another session goes on, or
     could not be done`,
		Example: `  kedr start hello-kernel.ko
  insmod hello-kernel.ko && rmmod hello-kernel
  cat ` + session.FilesDir + `/hello_kernel/possible_leaks
  kedr stop

  kedr start mybus.ko,mydriver.ko
  kedr start mybus.ko ./build/mydriver.ko ext4`,
		Args: func(cmd *cobra.Command, args []string) error {
			_, err := targetNames(args)
			return err
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if calls {
				if err := choice.check(); err != nil {
					return err
				}
				opts.Trace = &choice.opts
			} else if name := choice.given(cmd); name != "" {
				return usage("--%s says what to trace: give --trace, too", name)
			}
			return start(cmd, opts, &cat, args)
		},
	}
	limitFlags(cmd, &opts)
	cat.register(cmd)
	cmd.Flags().BoolVar(&calls, "trace", false, "record the modules' calls as well")
	choice.register(cmd)
	return cmd
}

func limitFlags(cmd *cobra.Command, opts *session.Options) {
	cmd.Flags().Uint32Var(&opts.MaxObjects, "max-objects", 131072, "objects outstanding at one time that there is room for")
	cmd.Flags().Uint32Var(&opts.MaxStacks, "max-stacks", 16384, "different call stacks that there is room for")
	cmd.Flags().BoolVar(&opts.VerifyStacks, "verify-stacks", false, "unwind every call stack, also those that are known again, and compare (slow; to find bugs in kedr)")
	opts.Backend = session.Auto
	cmd.Flags().Var((*backendFlag)(&opts.Backend), "backend", "intercept functions by `MEANS`: auto, trampoline, kprobe")
	cmd.Flags().StringVar(&opts.BTF, "btf", "", "take the kernel's types from `FILE`, where it has none itself; none: do without")
	cmd.RegisterFlagCompletionFunc("backend", cobra.FixedCompletions([]string{"auto", "trampoline", "kprobe"}, cobra.ShellCompDirectiveNoFileComp))
}

// backendFlag is --backend.
type backendFlag session.Backend

func (b *backendFlag) String() string { return string(*b) }
func (b *backendFlag) Type() string   { return "MEANS" }
func (b *backendFlag) Set(s string) error {
	if !slices.Contains(session.Backends, session.Backend(s)) {
		return errors.New("must be auto, trampoline or kprobe")
	}
	*b = backendFlag(s)
	return nil
}

// targetNames takes the words that name modules apart, at their commas.
func targetNames(words []string) ([]string, error) {
	var names []string
	for _, w := range words {
		for name := range strings.SplitSeq(w, ",") {
			name = strings.TrimSpace(name)
			switch {
			case name == "":
				continue
			case strings.Contains(name, "="):
				return nil, usage("%q is a module parameter: these are given when the module is loaded (insmod, modprobe), not to start", name)
			}
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, usage("name of the target module should be specified for 'start' command: see kedr start --help")
	}
	return names, nil
}

// findTargets opens the modules of these names, each of them once.
func findTargets(k *kernel.Kernel, names []string) ([]*target.Module, error) {
	var targets []*target.Module
	for _, name := range names {
		m, err := findTarget(k, name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(targets, func(t *target.Module) bool { return t.Name == m.Name })
		switch {
		case i < 0:
			targets = append(targets, m)
		case targets[i].Path != m.Path:
			return nil, usage("%s and %s are both called %s in the kernel: give one of them", targets[i].Path, m.Path, m.Name)
		}
	}
	return targets, nil
}

func start(cmd *cobra.Command, opts session.Options, cat *catalogFlag, args []string) error {
	names, err := targetNames(args)
	if err != nil {
		return err
	}
	k, err := kernel.RunningWith(opts.BTF)
	if err != nil {
		return err
	}
	if opts.BTF != "" && opts.BTF != kernel.NoBTF {
		if opts.BTF, err = filepath.Abs(opts.BTF); err != nil {
			return err
		}
	}
	targets, err := findTargets(k, names)
	if err != nil {
		return err
	}
	if session.Running() {
		return session.ErrRunning
	}
	if err := hostCanWatch(k, targets); err != nil {
		return refusal("started", err)
	}
	c, err := cat.load()
	if err != nil {
		return err
	}
	if opts.Catalogs, err = cat.paths(); err != nil {
		return err
	}
	return begin(cmd, k, c, opts, targets)
}

// begin starts a session, and says what it watches.
func begin(cmd *cobra.Command, k *kernel.Kernel, c *catalog.Catalog, opts session.Options, targets []*target.Module) error {
	out := cmd.OutOrStdout()
	fmt.Fprintln(out, "Starting KEDR...")
	if err := session.Start(c, k, opts, targets...); err != nil {
		return choiceError(refusal("started", err))
	}
	s, err := session.Open(k)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, u := range s.Unwatched() {
		fmt.Fprintf(cmd.ErrOrStderr(), "kedr: calls of %s will not be seen: %s\n", u.Function, u.Reason)
	}
	for _, t := range targets {
		if !k.OwnTypes() {
			fmt.Fprintf(out, "watching %s with %d probes; without BTF there are no files: kedr report shows what was seen\n", t.Name, s.Probes())
			continue
		}
		fmt.Fprintf(out, "watching %s with %d probes; files in %s\n", t.Name, s.Probes(), filepath.Join(session.FilesDir, t.Name))
	}
	fmt.Fprintln(out, "\nKEDR started.")
	return nil
}

// refusedError says what a loaded target keeps the service from. It is a sentence,
// unlike other errors: the one that users of the first KEDR look for.
type refusedError struct {
	verb  string // "started", "stopped", "restarted"
	names []string
}

func (e *refusedError) Error() string {
	still, remedy := "still", ""
	switch e.verb {
	case "started":
		still = "already"
	case "stopped":
		remedy = ", or give --force"
	}
	return fmt.Sprintf("Service cannot be %s because the target module is %s loaded: unload %s first (rmmod %s)%s",
		e.verb, still, strings.Join(e.names, ", "), strings.Join(e.names, " "), remedy)
}

// refusal turns an error about targets that are loaded into one about the service.
func refusal(verb string, err error) error {
	var loaded *session.ErrLoaded
	if errors.As(err, &loaded) {
		return &refusedError{verb, loaded.Names}
	}
	return err
}

// findTarget opens a module by file name or, as modprobe takes it, by name.
func findTarget(k *kernel.Kernel, name string) (*target.Module, error) {
	if strings.ContainsRune(name, '/') || strings.Contains(name, ".ko") {
		return openTarget(name)
	}
	path, err := kernel.FindModule("/lib/modules/"+k.Release, name)
	if err != nil {
		if _, statErr := os.Stat(name); statErr == nil {
			return openTarget(name)
		}
		return nil, fmt.Errorf("%w: give the path of its .ko file", err)
	}
	return openTarget(path)
}

// hostCanWatch says why this host can't watch these modules.
func hostCanWatch(k *kernel.Kernel, targets []*target.Module) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can watch the kernel: run as root, or in a machine (kedr run --vm=always)")
	}
	if !kernel.HasModules() {
		return fmt.Errorf("the running kernel %s can't load modules: use a machine (kedr run --vm=always)", k.Release)
	}
	for _, t := range targets {
		if r := t.Release(); r != "" && r != k.Release {
			return fmt.Errorf("%s is built for kernel %s, and this is %s: build it for this kernel, or use a machine (kedr run --kernel %s)", t.Path, r, k.Release, r)
		}
	}
	return session.NotLoaded(targets...)
}

// root says so where this process may not know of a session: its directories are
// root's.
func root() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can look at the session: run as root")
	}
	return nil
}

func openSession() (*session.Session, error) {
	if err := root(); err != nil {
		return nil, err
	}
	k, err := kernel.Running()
	if err != nil {
		return nil, err
	}
	return session.Open(k)
}

func newStop() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop watching, and remove the files",
		Long: `Stop ends the session and removes its files: read what you want to keep first
(kedr report -o FILE). It is refused while a target is loaded: what that frees later
could not be seen. With --force it stops all the same.

Exit status:
  0  stopped
  2  wrong usage
  3  refused, as a target is loaded or no session goes on, or could not be done`,
		Example: `  kedr stop
  kedr stop --force`,
		Args: exactArgs(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := openSession()
			if errors.Is(err, session.ErrNotRunning) {
				// What a killed start may have left goes as well.
				if session.Stop() == nil {
					return nil
				}
				return err
			}
			if err != nil && !force {
				return err
			}
			if err == nil {
				loaded := s.Loaded()
				s.Close() // what is open can't be removed
				if len(loaded) > 0 && !force {
					return &refusedError{"stopped", loaded}
				}
			}
			return halt(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while a target is loaded")
	return cmd
}

func newReport() *cobra.Command {
	var o outputFlags
	var sup suppressFlags
	var from string
	cmd := &cobra.Command{
		Use:   "report [MODULE]",
		Short: "Report what the watched modules have leaked so far",
		Long: `Report writes what the session that "kedr start" began has seen, also while it
goes on. Each load of a module is accounted for by itself.

With --from it writes a report that was saved in the format json in another format.
That needs neither a session nor root.

Exit status:
  0  nothing leaked
  1  leaks or wrong frees found
  2  wrong usage
  3  no load was seen, no session goes on, or the report could not be made
  4  the result is incomplete: events were lost, or a function was not watched`,
		Example: `  kedr report hello_kernel
  kedr report --format json -o leaks.json
  kedr report --from leaks.json --classic
  kedr report --from leaks.json --format pprof -o leaks.pb.gz; go tool pprof -http=: leaks.pb.gz`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("report: name one module, or none for all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			if err := sup.check(cmd, &o); err != nil {
				return err
			}
			reports, err := o.reports(cmd, from)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				name := leak.Name(args[0])
				reports = slices.DeleteFunc(reports, func(r *leak.Report) bool { return r.Target.Name != name })
				switch {
				case len(reports) > 0:
				case from != "":
					return usage("%s has no report of module %s", from, name)
				default:
					return usage("module %s is not being watched: see kedr status", name)
				}
			}
			return sup.report(cmd, &o, reports)
		},
	}
	o.register(cmd)
	sup.register(cmd)
	cmd.Flags().StringVar(&from, "from", "", "read `FILE.json`, a report that was saved, and not the session; - is the standard input")
	cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt))
	return cmd
}

// reports are those of the session, or of a file.
func (o *outputFlags) reports(cmd *cobra.Command, from string) ([]*leak.Report, error) {
	if from != "" {
		return readReports(cmd, from)
	}
	s, err := openSession()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	c, err := s.Capture(0, o.sites())
	if err != nil {
		return nil, err
	}
	return makeReports(c), nil
}
