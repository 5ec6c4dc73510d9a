package report

import (
	"strings"
	"testing"

	"kedr/internal/leak"
	"kedr/internal/report/sample"
)

// The source that is shown is the module's own, too.
func TestInnermostSource(t *testing.T) {
	r := sample.Report(t, "hello")
	header := leak.Frame{Function: "kmalloc", Module: "hello_kernel", File: "/usr/src/linux-headers-6.1.0-56-common/include/linux/slab.h", Line: 568, Inlined: true}
	r.PossibleLeaks = r.PossibleLeaks[:1]
	r.PossibleLeaks[0].Stack = append([]leak.Frame{header}, r.PossibleLeaks[0].Stack...)
	o := Options{Sources: sample.Examples(t)}
	var text strings.Builder
	if err := writeText(&text, []*leak.Report{r}, o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "myfunc4, line 45:\n") {
		t.Errorf("no source of myfunc4:\n%s", text.String())
	}
}
