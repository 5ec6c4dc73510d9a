package main

import (
	"slices"
	"testing"

	"kedr/internal/kernel"
	"kedr/internal/session"
)

func TestTargetNames(t *testing.T) {
	got, err := targetNames([]string{"a.ko,b.ko", "c", "d.ko, e ,", ","})
	if want := []string{"a.ko", "b.ko", "c", "d.ko", "e"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, words := range [][]string{nil, {""}, {",", " ,"}, {"a.ko", "p=1"}, {"a.ko,p=1"}} {
		if got, err := targetNames(words); err == nil {
			t.Errorf("%q: %q, and no error", words, got)
		}
	}
}

// TestFindTargets: a module that is named twice is one target, two with one name are none.
func TestFindTargets(t *testing.T) {
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	const dir = "../../internal/target/testdata/"
	got, err := findTargets(k, []string{dir + "hello-kernel.ko.xz", dir + "chain-dwarf4.ko.xz", dir + "/./hello-kernel.ko.xz"})
	if err != nil || len(got) != 2 || got[0].Name != "hello_kernel" || got[1].Path == got[0].Path {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := findTargets(k, []string{dir + "chain-dwarf4.ko.xz", dir + "chain-dwarf5.ko.xz"}); err == nil {
		t.Errorf("two files of one name: %+v", got)
	}
}

func TestRefusal(t *testing.T) {
	err := refusal("stopped", &session.ErrLoaded{Names: []string{"a", "b"}})
	const want = "Service cannot be stopped because the target module is still loaded: unload a, b first (rmmod a b), or give --force"
	if err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
