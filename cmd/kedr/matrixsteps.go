package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kedr/internal/distro"
	"kedr/internal/leak"
	"kedr/internal/machine"
	"kedr/internal/matrix"
	"kedr/internal/report"
	"kedr/internal/session"
	"kedr/internal/target"
)

// matrixSteps builds and runs a module for each kernel of a matrix.
type matrixSteps struct {
	flags  *matrixFlags
	store  *distro.Store
	talk   *matrixTalk
	source string // as it was given
	dir    string // for all that is made
	job    *machineJob
	cells  map[string]*matrixCell
}

// matrixCell is what is known of one kernel; its steps come one after the other.
type matrixCell struct {
	row    matrix.Row
	kernel distro.Kernel
	module *target.Module
	path   string // of the module below the source
}

func newMatrixSteps(f *matrixFlags, store *distro.Store, talk *matrixTalk, source, dir string, job *machineJob) *matrixSteps {
	s := &matrixSteps{flags: f, store: store, talk: talk, source: source, dir: dir, job: job, cells: make(map[string]*matrixCell)}
	for _, k := range f.kernels {
		s.cells[k] = &matrixCell{row: matrix.Row{Kernel: k}}
	}
	return s
}

// module is the name of what was built.
func (s *matrixSteps) module() string {
	for _, c := range s.cells {
		if c.module != nil {
			return c.module.Name
		}
	}
	return ""
}

func (s *matrixSteps) rows() []matrix.Row {
	var rows []matrix.Row
	for _, k := range s.flags.kernels {
		rows = append(rows, s.cells[k].row)
	}
	return rows
}

// file is where something of a kernel is kept: with the reports, or with what goes.
func (s *matrixSteps) file(kernel, suffix string) string {
	dir := s.dir
	if s.flags.reports != "" {
		dir = s.flags.reports
	}
	return filepath.Join(dir, matrix.FileName(kernel)+suffix)
}

// Build fetches a kernel and builds the module for it.
func (s *matrixSteps) Build(ctx context.Context, version string) matrix.Result {
	c := s.cells[version]
	var err error
	if c.kernel, err = s.store.Fetch(ctx, version, false); err != nil {
		return matrix.Result{Err: err}
	}
	c.row.Release = c.kernel.Release
	if _, err := s.store.Headers(ctx, c.kernel); err != nil {
		return matrix.Result{Err: err}
	}
	dir := filepath.Join(s.dir, matrix.FileName(version))
	build, modules := filepath.Join(dir, "source"), filepath.Join(dir, "modules")
	if err := matrix.CopySource(build, s.source, s.dir, s.flags.reports, s.store.Dir); err != nil {
		return matrix.Result{Err: err}
	}
	name := s.file(version, ".build.log")
	err = writeFile(name, func(log io.Writer) error { return s.make(ctx, c.kernel, build, log) })
	if ctx.Err() != nil {
		return matrix.Result{Err: ctx.Err()}
	}
	if err != nil {
		return matrix.Result{Outcome: matrix.NotBuilt, Err: s.buildError(c, name, err)}
	}
	all, err := matrix.Modules(build)
	if err != nil {
		return matrix.Result{Err: err}
	}
	chosen, err := matrix.Choose(all, s.flags.module)
	switch {
	case errors.Is(err, matrix.ErrChoose):
		return matrix.Result{Err: &matrix.StopError{Err: usage("%w", err)}}
	case err != nil:
		return matrix.Result{Outcome: matrix.NotBuilt, Err: err}
	}
	// Wherever below the source they are: what a module needs is looked for beside it.
	if err := os.Mkdir(modules, 0o755); err != nil {
		return matrix.Result{Err: err}
	}
	for _, m := range all {
		if err := os.Rename(filepath.Join(build, m.Path), filepath.Join(modules, filepath.Base(m.Path))); err != nil {
			return matrix.Result{Err: err}
		}
	}
	c.path = chosen.Path
	if c.module, err = openTarget(filepath.Join(modules, filepath.Base(chosen.Path))); err != nil {
		return matrix.Result{Err: err}
	}
	return matrix.Result{}
}

// make builds the module in a copy of its source. Its debug information names the source,
// not the copy, which is gone when somebody reads the report.
func (s *matrixSteps) make(ctx context.Context, k distro.Kernel, build string, log io.Writer) error {
	args := s.flags.makeArgs
	source, err := filepath.Abs(s.source)
	if err == nil && !strings.ContainsAny(source, " \t\n\"'$#\\=") {
		flags := strings.TrimSpace(os.Getenv("KCFLAGS") + " -ffile-prefix-map=" + build + "=" + source)
		args = append([]string{"KCFLAGS=" + flags}, args...)
	}
	return s.store.Build(ctx, k, build, args, log, log)
}

// buildError says why a build failed: the log's word for it, if there is one.
func (s *matrixSteps) buildError(c *matrixCell, name string, err error) error {
	log, openErr := os.Open(name)
	if openErr != nil {
		return err
	}
	defer log.Close()
	first := matrix.FirstError(log)
	if first == "" {
		return err
	}
	if s.flags.reports != "" {
		c.row.Log = name
	} else {
		s.talk.tail(c.row.Kernel, log)
	}
	return errors.New(first)
}

// Exercise runs the module in a machine.
func (s *matrixSteps) Exercise(ctx context.Context, version string) (res matrix.Result) {
	c := s.cells[version]
	var log io.Writer = io.Discard
	if s.flags.reports != "" {
		f, err := os.Create(s.file(version, ".log"))
		if err != nil {
			return matrix.Result{Err: err}
		}
		defer f.Close()
		log = f
	}
	said := s.talk.lines(version, log)
	var data limitedBuffer
	err := s.flags.analysis.work(ctx, s.store, c.kernel, c.module, s.job, &data, said, nil)
	last := said.end()
	var failed *statusError
	switch words, crashed := lastWords(err); {
	case crashed:
		return s.crashed(c, err, words)
	case errors.As(err, &failed) && failed.err == nil && last != "":
		// The kedr in the machine has said why.
		return matrix.Result{Err: errors.New(last)}
	case err != nil:
		return matrix.Result{Err: err}
	}
	capture, err := readCapture(&data.Buffer)
	if err != nil {
		return matrix.Result{Err: err}
	}
	return s.judge(c, capture)
}

// judge makes the report of what a machine has sent, and of that the result.
func (s *matrixSteps) judge(c *matrixCell, capture *session.Capture) (res matrix.Result) {
	for i := range capture.Targets {
		capture.Targets[i].Path = c.module.Path
	}
	reports := makeReports(capture)
	if len(reports) != 1 {
		return matrix.Result{Err: fmt.Errorf("the machine sent the results of %d modules", len(reports))}
	}
	res.Report = reports[0]
	res.Report.Target.Path = filepath.Join(s.source, c.path)
	s.flags.analysis.suppress.mark(reports)
	res.Outcome = outcome(verdict(reports))
	if res.Outcome == matrix.Clean {
		res.Err = unproven(capture)
	} else if capture.LoadError != "" {
		res.Remark = unproven(capture).Error()
	} else if capture.WorkloadError != "" {
		res.Remark = "the workload ended with: " + capture.WorkloadError
	}
	if len(res.Report.Loads) == 0 {
		res.Err = fmt.Errorf("%s was not seen loading", c.module.Name)
	}
	if err := s.keep(c.row.Kernel, res.Report); err != nil {
		res.Err = err
	}
	return res
}

// crashed keeps the last words of a machine, and its oops.
func (s *matrixSteps) crashed(c *matrixCell, err error, words string) matrix.Result {
	res := matrix.Result{Outcome: matrix.Crashed, Err: err}
	var hang *machine.HangError
	if errors.As(err, &hang) {
		res.Outcome = matrix.Hung
	}
	if words == "" {
		return res
	}
	// An oops begins with what happened.
	if first, _, _ := strings.Cut(words, "\n"); res.Outcome == matrix.Crashed {
		res.Err = fmt.Errorf("%w: %s", err, stamp(first))
	}
	if s.flags.reports == "" {
		w := s.talk.lines(c.row.Kernel, io.Discard)
		fmt.Fprintln(w, words)
		return res
	}
	c.row.Log = s.file(c.row.Kernel, ".oops.txt")
	if err := os.WriteFile(c.row.Log, []byte(words+"\n"), 0o644); err != nil {
		res.Err = errors.Join(res.Err, err)
	}
	return res
}

// stamp takes the time away that a line of the kernel's log begins with.
func stamp(line string) string {
	if rest, ok := strings.CutPrefix(line, "["); ok {
		if _, text, ok := strings.Cut(rest, "] "); ok {
			return text
		}
	}
	return line
}

// outcome is what the exit status of a report means.
func outcome(verdict error) matrix.Outcome {
	var se *statusError
	switch {
	case verdict == nil:
		return matrix.Clean
	case errors.As(verdict, &se) && se.status == exitFound:
		return matrix.Found
	case errors.As(verdict, &se) && se.status == exitIncomplete:
		return matrix.Incomplete
	}
	return matrix.Failed
}

// suffixes are how files of a format end, where that is not its name.
var suffixes = map[string]string{"text": "txt", "junit": "xml", "pprof": "pb.gz"}

// keep writes the report of a kernel, where reports are kept.
func (s *matrixSteps) keep(version string, r *leak.Report) error {
	if s.flags.reports == "" {
		return nil
	}
	dir, _ := os.Getwd()
	for _, name := range s.flags.formats {
		format, err := report.Find(name)
		if err != nil {
			return err
		}
		suffix := suffixes[name]
		if suffix == "" {
			suffix = name
		}
		err = writeFile(s.file(version, "."+suffix), func(w io.Writer) error {
			return format.Write(w, []*leak.Report{r}, report.Options{Dir: dir})
		})
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	return nil
}

// matrixTalk tells what is going on: on a terminal in one line for all kernels, else in a
// line for each change.
type matrixTalk struct {
	mu       sync.Mutex
	progress *progress
	kernels  []string
	states   map[string]string
}

func newMatrixTalk(kernels []string) *matrixTalk {
	t := &matrixTalk{progress: newProgress(), kernels: kernels, states: make(map[string]string)}
	for _, k := range kernels {
		t.states[k] = "waiting"
	}
	return t
}

func (t *matrixTalk) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress.say(format, args...)
	t.show()
}

func (t *matrixTalk) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress.clear()
}

// show is called with the lock held.
func (t *matrixTalk) show() {
	var parts []string
	for _, k := range t.kernels {
		parts = append(parts, k+" "+t.states[k])
	}
	t.progress.show(strings.Join(parts, " | "))
}

// change takes note of a state.
func (t *matrixTalk) change(kernel string, s matrix.State, r *matrix.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := map[matrix.State]string{matrix.Building: "building", matrix.Ready: "built", matrix.Running: "running"}[s]
	if s == matrix.Done {
		state = fmt.Sprintf("%v (%v)", r.Outcome, r.Took.Round(100*time.Millisecond))
	}
	t.states[kernel] = state
	if t.progress.w == nil && s != matrix.Ready {
		t.progress.say("%s: %s", kernel, state)
	}
	t.show()
}

// maxTail is how many lines of a log are shown that is not kept.
const maxTail = 40

// tail shows the end of a log, of a kernel.
func (t *matrixTalk) tail(kernel string, log *os.File) {
	const most = 64 << 10
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return
	}
	b, err := io.ReadAll(io.NewSectionReader(log, max(0, end-most), most))
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	w := t.lines(kernel, io.Discard)
	for _, l := range lines[max(0, len(lines)-maxTail):] {
		fmt.Fprintln(w, l)
	}
}

// lineWriter shows what a machine prints, line by line: several do.
type lineWriter struct {
	talk   *matrixTalk
	kernel string
	log    io.Writer // gets it as it is
	mu     sync.Mutex
	rest   []byte
	last   string
}

func (t *matrixTalk) lines(kernel string, log io.Writer) *lineWriter {
	return &lineWriter{talk: t, kernel: kernel, log: log}
}

// maxLine is where a line is cut that does not end.
const maxLine = 4096

func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A full disk costs the log, not the analysis.
	w.log.Write(b)
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok && len(line) < maxLine {
			return len(b), nil
		}
		w.show(string(line))
		w.rest = rest
	}
}

func (w *lineWriter) show(line string) {
	line = strings.TrimRight(strings.Map(printable, line), " ")
	if line == "" {
		return
	}
	w.last = strings.TrimPrefix(line, "kedr: ")
	w.talk.mu.Lock()
	defer w.talk.mu.Unlock()
	w.talk.progress.clear()
	fmt.Fprintf(os.Stderr, "%s| %s\n", w.kernel, line)
	w.talk.show()
}

// end shows what has no end of line, and returns the last line.
func (w *lineWriter) end() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.show(string(w.rest))
	w.rest = nil
	return w.last
}
