package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/catalog"
)

func TestCheck(t *testing.T) {
	c := new(catalog.Catalog)
	err := c.Add("mine.toml", `
kind = "mine"
obtain = [
	{symbols = ["vmalloc", "vmalloc_noprof"], size = "size"},
	{symbols = ["kvmalloc_node"], size = "bytes"},
	{symbols = ["mine_get"], size = "n"},
]
release = [{symbols = ["vfree"], address = "addr"}]
`)
	if err != nil {
		t.Fatal(err)
	}
	checked, err := Check(c, linux61)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range checked {
		got = append(got, fmt.Sprint(f.Function, " ", f.Symbol, " ", f.Err))
	}
	want := []string{
		"vmalloc vmalloc <nil>",
		"kvmalloc_node kvmalloc_node no parameter bytes among (size, flags, node)",
		"mine_get  <nil>",
		"vfree vfree <nil>",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestCheckDefault: of what a kernel has, all fits.
func TestCheckDefault(t *testing.T) {
	c, err := catalog.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []prototypes{linux61, linux612} {
		checked, err := Check(c, k)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range checked {
			// These stand-ins have no structures and few tracepoints.
			if f.Err != nil && !strings.Contains(f.Err.Error(), "no such") {
				t.Errorf("%+v", f)
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	c, err := catalog.Default()
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{}
	p.Targets = append(p.Targets, importing("kmalloc_trace", "vfree", "alloc_workqueue", "d_alloc", "put_device", "mempool_free", "is_vmalloc_addr", "printk"))
	got := p.Unknown(c)
	if want := []string{"alloc_workqueue", "d_alloc"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
