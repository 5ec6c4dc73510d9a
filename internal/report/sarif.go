package report

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
	"kedr/internal/session"
)

// The parts of SARIF 2.1.0 that are written, by its own names
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html). A dozen structures
// are less than a library that knows all of them, and the tests hold them against the
// published schema.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool             `json:"tool"`
		Automation  sarifAutomation       `json:"automationDetails"`
		Invocations []sarifInvocation     `json:"invocations"`
		Bases       map[string]sarifPlace `json:"originalUriBaseIds,omitempty"`
		Results     []sarifResult         `json:"results"`
		Properties  map[string]any        `json:"properties"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID      string       `json:"id"`
		Name    string       `json:"name"`
		Short   sarifMessage `json:"shortDescription"`
		Full    sarifMessage `json:"fullDescription"`
		Help    sarifMessage `json:"help"`
		Default sarifConfig  `json:"defaultConfiguration"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string       `json:"level"`
		Message sarifMessage `json:"message"`
	}
	sarifResult struct {
		Rule         string            `json:"ruleId"`
		Index        int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifMessage      `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Stacks       []sarifStack      `json:"stacks"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Count        uint64            `json:"occurrenceCount,omitempty"`
		Properties   map[string]any    `json:"properties"`

		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
		Baseline     string             `json:"baselineState,omitempty"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Justification string `json:"justification"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
		Message  *sarifMessage  `json:"message,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifPlace   `json:"artifactLocation"`
		Region   *sarifRegion `json:"region,omitempty"`
	}
	sarifPlace struct {
		URI  string `json:"uri"`
		Base string `json:"uriBaseId,omitempty"`
	}
	sarifRegion struct {
		Line int `json:"startLine"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
	sarifStack struct {
		Message sarifMessage `json:"message"`
		Frames  []sarifFrame `json:"frames"`
	}
	sarifFrame struct {
		Location sarifLocation `json:"location"`
		Module   string        `json:"module,omitempty"`
	}
)

const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	// sarifBase stands for the working directory; it is the name that code hosts know.
	sarifBase = "%SRCROOT%"
)

// sarifRules are what can be found. That an object may be meant to stay, or may have been
// obtained before kedr watched, is why two of them are warnings.
var sarifRules = []sarifRule{
	sarifFind("possible-leak", "PossibleLeak", "warning", "Obtained and never given back",
		"The module obtained these objects from the kernel, and they were not given back by the time it was unloaded, and what is freed late had been waited for.",
		"Follow the stack to where the object was obtained, and give it back on every way out, the error paths included. Where the kernel keeps the object on purpose it is no leak."),
	sarifFind("unallocated-free", "UnallocatedFree", "warning", "Given back and never obtained",
		"The module released an object that no watched module had obtained.",
		"Find out where the object comes from. One of another module's, or of the kernel's own, is released by its owner, or with the function that its documentation names."),
	sarifFind("double-free", "DoubleFree", "error", "Given back twice",
		"The module released an object that had been released already.",
		"Of the two releases, whose stacks are both given, one is too much; set the pointer to NULL after the first, or make clear who owns the object."),
	sarifFind("mismatched-release", "MismatchedRelease", "error", "Given back by the wrong function",
		"The module released an object by a function, or to an owner, that is not for objects of this kind.",
		"Use the function that belongs to the one that handed the object out."),
}

func sarifFind(id, name, level, short, full, help string) sarifRule {
	return sarifRule{id, name, sarifMessage{short + "."}, sarifMessage{full}, sarifMessage{help}, sarifConfig{level}}
}

// writeSARIF writes a log with a run a target, and in it a result a call stack. Places in
// the source are those of the innermost function of the target.
func writeSARIF(w io.Writer, reports []*leak.Report, o Options) error {
	log := sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{}}
	for _, r := range reports {
		log.Runs = append(log.Runs, sarifWriter{r, o}.run())
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(log)
}

// sarifWriter is one target's report on its way.
type sarifWriter struct {
	*leak.Report
	Options
}

func (s sarifWriter) run() sarifRun {
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "kedr", Version: s.Version, Rules: sarifRules}},
		Automation:  sarifAutomation{"kedr/" + wording.Printable(s.Target.Name) + "/"},
		Invocations: []sarifInvocation{s.invocation()},
		Results:     []sarifResult{},
		Properties:  map[string]any{"kernel": wording.Printable(s.Kernel.Release), "machine": wording.Printable(s.Kernel.Machine), "verdict": wording.Verdict(s.Report)},
	}
	if s.Dir != "" {
		run.Bases = map[string]sarifPlace{sarifBase: {URI: fileURI(s.Dir + "/")}}
	}
	for i := range s.PossibleLeaks {
		l := &s.PossibleLeaks[i]
		run.Results = append(run.Results, s.account(s.leak(l), l.Suppressed, l.Known, l.Count))
	}
	for i := range s.UnallocatedFrees {
		u := &s.UnallocatedFrees[i]
		run.Results = append(run.Results, s.account(s.wrong(u), u.Suppressed, u.Known, u.Count))
	}
	return run
}

func (s sarifWriter) invocation() sarifInvocation {
	in := sarifInvocation{Successful: !s.Incomplete() && len(s.Loads) > 0}
	say := func(level, text string) {
		in.Notifications = append(in.Notifications, sarifNotification{level, sarifMessage{text}})
	}
	for _, line := range wording.Unsure(s.Report) {
		say("error", line)
	}
	for _, n := range s.Notes {
		say("note", wording.Printable(n))
	}
	return in
}

func (s sarifWriter) leak(l *leak.Leak) sarifResult {
	text := amount(l) + ": not given back. Obtained"
	if f := wording.Innermost(l.Stack, s.Target.Name); f != nil && f.Function != "" {
		text += " in " + wording.Printable(f.Function)
	}
	text += " by " + wording.Who(&leak.Party{Comm: l.Comm, PID: l.PID, IRQ: l.IRQ}) + "."
	return sarifResult{
		Rule: sarifRules[0].ID, Level: sarifRules[0].Default.Level, Message: sarifMessage{text},
		Locations: s.locations(l.Stack), Stacks: []sarifStack{s.stack("allocation", l.Stack)},
		Fingerprints: map[string]string{"kedr/v1": wording.Printable(l.Fingerprint)}, Count: l.Count,
		Properties: map[string]any{"bytes": l.Bytes, "kind": wording.Printable(l.Kind), "function": wording.Printable(l.Function), "load": l.Load},
	}
}

func (s sarifWriter) wrong(u *leak.Wrong) sarifResult {
	index := 1
	switch u.Wrong {
	case session.Double:
		index = 2
	case session.Mismatched:
		index = 3
	}
	what := "What no watched module had obtained was released"
	stacks := []sarifStack{s.stack("deallocation", u.Stack)}
	if o := u.Object; o != nil {
		what = fmt.Sprintf("An object from %s (%s), obtained by %s, was released", wording.Printable(o.Function), wording.Printable(o.Kind), wording.Who(&o.Obtained))
		if o.First != nil {
			stacks = append(stacks, s.stack("first deallocation", o.First.Stack))
		}
		stacks = append(stacks, s.stack("allocation", o.Obtained.Stack))
	}
	if u.Function != "" {
		what += " by " + wording.Printable(u.Function)
	}
	if index == 2 {
		what += " a second time"
	}
	text := fmt.Sprintf("%s, %s, by %s.", what, times(u.Count), wording.Who(&leak.Party{Comm: u.Comm, PID: u.PID, IRQ: u.IRQ}))
	return sarifResult{
		Rule: sarifRules[index].ID, Index: index, Level: sarifRules[index].Default.Level, Message: sarifMessage{text},
		Locations: s.locations(u.Stack), Stacks: stacks,
		Fingerprints: map[string]string{"kedr/v1": wording.Printable(u.Fingerprint)}, Count: u.Count,
		Properties: map[string]any{"kind": wording.Printable(u.Kind), "function": wording.Printable(u.Function), "load": u.Load},
	}
}

// account says of a result whether it counts.
func (s sarifWriter) account(res sarifResult, suppressed string, known, count uint64) sarifResult {
	if suppressed != "" {
		res.Suppressions = []sarifSuppression{{"external", wording.Printable(suppressed)}}
	}
	switch {
	case s.Baseline == "", suppressed != "":
	case known == 0:
		res.Baseline = "new"
	case known < count:
		res.Baseline = "updated"
	default:
		res.Baseline = "unchanged"
	}
	return res
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// locations is where a find is shown: without lines at the module itself, since those who
// show results need a file.
func (s sarifWriter) locations(stack []leak.Frame) []sarifLocation {
	f := wording.Innermost(stack, s.Target.Name)
	if f == nil {
		f = &leak.Frame{}
	}
	l := s.location(*f)
	if l.Physical == nil && s.Target.Path != "" {
		l.Physical = &sarifPhysical{Artifact: s.place(s.Target.Path)}
	}
	l.Message = nil
	if l.Physical == nil && l.Logical == nil {
		return []sarifLocation{}
	}
	return []sarifLocation{l}
}

func (s sarifWriter) location(f leak.Frame) sarifLocation {
	l := sarifLocation{Message: &sarifMessage{location(f)}}
	if f.Function != "" {
		l.Logical = []sarifLogical{{wording.Printable(f.Function), "function"}}
	}
	if f.File != "" {
		l.Physical = &sarifPhysical{Artifact: s.place(f.File)}
		if f.Line > 0 {
			l.Physical.Region = &sarifRegion{f.Line}
		}
	}
	return l
}

func (s sarifWriter) stack(what string, frames []leak.Frame) sarifStack {
	out := sarifStack{Message: sarifMessage{"stack trace of the " + what}, Frames: []sarifFrame{}}
	for _, f := range frames {
		out.Frames = append(out.Frames, sarifFrame{s.location(f), wording.Printable(f.Module)})
	}
	return out
}

// place is a file as seen from the working directory, if it lies below it.
func (s sarifWriter) place(name string) sarifPlace {
	name = filepath.Clean(wording.Relative(s.Dir, name))
	if filepath.IsAbs(name) {
		return sarifPlace{URI: fileURI(name)}
	}
	place := sarifPlace{URI: (&url.URL{Path: name}).String()}
	if s.Dir != "" && name != ".." && !strings.HasPrefix(name, "../") {
		place.Base = sarifBase
	}
	return place
}

func fileURI(name string) string {
	uri := (&url.URL{Scheme: "file", Path: path.Clean(name)}).String()
	if strings.HasSuffix(name, "/") && !strings.HasSuffix(uri, "/") {
		uri += "/"
	}
	return uri
}
