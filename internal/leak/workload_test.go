package leak

import (
	"slices"
	"testing"

	"kedr/internal/session"
)

// A module is not shown clean by a workload that did not get to it.
func TestWorkloadFailed(t *testing.T) {
	c := &session.Capture{Targets: []session.Target{{Name: "m"}}}
	const note = "the workload ended with: exit status 1: it may not have done all that it was to do"
	if notes := New(c, nil)[0].Notes; slices.Contains(notes, note) {
		t.Errorf("notes of one that went well: %q", notes)
	}
	c.WorkloadError = "exit status 1"
	if notes := New(c, nil)[0].Notes; !slices.Contains(notes, note) {
		t.Errorf("notes: %q", notes)
	}
}
