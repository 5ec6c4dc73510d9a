package report

import (
	"bytes"
	"testing"

	"kedr/internal/compare"
	"kedr/internal/leak"
	"kedr/internal/report/sample"
	"kedr/internal/report/wording"
)

func TestLeftOut(t *testing.T) {
	reports := sample.LeftOut(t)
	for format, write := range outputs() {
		var got bytes.Buffer
		if err := write(&got, reports); err != nil {
			t.Fatal(err)
		}
		sample.Golden(t, "leftout."+format, got.Bytes())
	}
}

// TestAllLeftOut: nothing that counts is not nothing.
func TestAllLeftOut(t *testing.T) {
	r := leak.New(sample.Captures(t)["hello"], nil)[0]
	compare.NewBaseline("base.json", []*leak.Report{r}).Apply(r)
	if got, want := wording.Verdict(r), "hello_kernel on 6.1.0-56-amd64: no other leaks (4 known from the baseline)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestDiff(t *testing.T) {
	old, now := sample.Reports(t, "odd"), sample.Reports(t, "odd")
	old[0].Kernel.Release = "5.10.0"
	// What is fixed, what is new, what is more and what is less.
	now[0].PossibleLeaks = now[0].PossibleLeaks[1:]
	old[0].PossibleLeaks = old[0].PossibleLeaks[:4]
	old[0].UnallocatedFrees[0].Count, now[0].UnallocatedFrees[1].Count, now[0].UnallocatedFrees[2].Count = 1, 3, 1
	old[0].UnallocatedFrees[2].Count = 4
	now[0].PossibleLeaks[0].Suppressed = "s"
	never := leak.New(sample.Captures(t)["never"], nil)[0]
	never.Target.Name = "new\x1b[2Jcomer"
	d, err := compare.Reports("old.json", "new.json", old, append(now, never))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Diffs {
		var got bytes.Buffer
		if err := f.Write(&got, d); err != nil {
			t.Fatal(err)
		}
		sample.Golden(t, "diff/odd."+f.Name, got.Bytes())
	}
}
