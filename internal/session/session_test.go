package session

import (
	"slices"
	"testing"

	"kedr/internal/probe"
)

// TestSince: what was lost before a clear is not told again, what was lost after it is.
func TestSince(t *testing.T) {
	before := []probe.Lost{
		{Probe: 1, Symbol: "kfree", Reason: "busy", Count: 2},
		{Probe: 2, Symbol: "vfree", Reason: "busy", Count: 3},
	}
	now := []probe.Lost{
		{Probe: 1, Symbol: "kfree", Reason: "busy", Count: 5},
		{Probe: 1, Symbol: "kfree", Reason: "full", Count: 7},
		{Probe: 2, Symbol: "vfree", Reason: "busy", Count: 3},
	}
	want := []probe.Lost{
		{Probe: 1, Symbol: "kfree", Reason: "busy", Count: 3},
		{Probe: 1, Symbol: "kfree", Reason: "full", Count: 7},
	}
	if got := since(now, before); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := since(now, nil); !slices.Equal(got, now) {
		t.Errorf("without a clear: got %+v, want %+v", got, now)
	}
}
