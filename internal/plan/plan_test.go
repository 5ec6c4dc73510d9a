package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/target"
)

// prototypes stands in for a kernel's BTF: functions and their parameters, as
// Debian's 6.1 and 6.12 have them.
type prototypes map[string]string

func (p prototypes) Params(function string) ([]kernel.Param, error) {
	list, ok := p[function]
	if !ok {
		return nil, fmt.Errorf("%s: %w", function, kernel.ErrNoFunction)
	}
	var params []kernel.Param
	for _, name := range strings.Fields(list) {
		if name == "..." {
			return params, fmt.Errorf("%s: %w", function, kernel.ErrVariadic)
		}
		param := kernel.Param{Name: name}
		if name == "s" {
			param.Pointee = "kmem_cache"
		}
		params = append(params, param)
	}
	return params, nil
}

func (p prototypes) Tracepoint(name string) ([]kernel.Param, error) { return p.Params("tp " + name) }

func (p prototypes) Field(structure, path string) (uint32, error) {
	if structure == "kmem_cache" && path == "object_size" {
		return 28, nil
	}
	return 0, kernel.ErrNoField
}

func (p prototypes) AtLeast(int, int) bool { return true }

var linux61 = prototypes{
	"vmalloc": "size", "vfree": "addr", "vfree_atomic": "addr", "kvfree": "addr",
	"kvmalloc_node": "size flags node", "kvfree_call_rcu": "head func",
	"kmem_cache_free_bulk": "s size p", "kmem_cache_alloc_bulk": "s flags size p",
	"krealloc": "p new_size flags", "kasprintf": "gfp fmt ...", "kvasprintf": "gfp fmt ap",
	"alloc_pages": "gfp order", "__free_pages": "page order", "get_zeroed_page": "gfp_mask",
	"vmalloc_array": "n size",
	"tp kmalloc":    "call_site ptr bytes_req bytes_alloc gfp_flags node", "tp kfree": "call_site ptr",
	"tp kmem_cache_alloc": "call_site ptr s gfp_flags node", "tp kmem_cache_free": "call_site ptr s",
	"tp mm_page_free": "page order",
}

var linux612 = prototypes{
	"vmalloc_noprof": "size", "vfree": "addr", "vfree_atomic": "addr",
	"__kvmalloc_node_noprof": "size b flags node", "kvfree_call_rcu": "head ptr",
}

func importing(names ...string) *target.Module {
	m := &target.Module{Name: "t"}
	for _, n := range names {
		m.Imports = append(m.Imports, target.Import{Name: n})
	}
	return m
}

// summary is a plan in one line a probe.
func summary(p *Plan) []string {
	var lines []string
	for _, pr := range p.Probes {
		s := fmt.Sprintf("%v %s", pr.Mechanism, pr.Symbol)
		if pr.Role == Release {
			s += fmt.Sprintf(" releases %d", pr.Address)
			if pr.From == FromRCUHead || pr.From == FromArray {
				s += fmt.Sprintf(",%d", pr.Count)
			}
		} else {
			s += fmt.Sprintf(" size %d:%d", pr.Size.From, pr.Size.A)
		}
		if pr.CheckOnly {
			s += " check"
		}
		if len(pr.Through) > 0 {
			s += " through " + strings.Join(pr.Through, ",")
		}
		lines = append(lines, s)
	}
	slices.Sort(lines)
	return lines
}

func TestNew(t *testing.T) {
	c, err := catalog.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		kernel    prototypes
		imports   []string
		want      []string
		unwatched []string
		pages     bool
	}{
		{
			name: "nothing to watch", kernel: linux61, imports: []string{"printk"},
		},
		{
			// The walkthrough's: no user of kmalloc is to pay for it.
			name: "vmalloc alone", kernel: linux61, imports: []string{"vmalloc", "vfree"},
			want: []string{
				"fentry kvfree_call_rcu releases 0,1", "fentry vfree releases 0", "fentry vfree_atomic releases 0",
				"fexit vmalloc size 1:0",
			},
		},
		{
			name: "another kernel's names", kernel: linux612, imports: []string{"vmalloc_noprof", "vfree"},
			want: []string{
				"fentry kvfree_call_rcu releases 1", "fentry vfree releases 0", "fentry vfree_atomic releases 0",
				"fexit vmalloc_noprof size 1:0",
			},
		},
		{
			name: "slab by tracepoint", kernel: linux61, imports: []string{"__kmalloc", "kasprintf", "kfree"},
			want: []string{
				"fentry kmem_cache_free_bulk releases 2,1", "fentry kvfree_call_rcu releases 0,1",
				"raw tracepoint kfree releases 1", "raw tracepoint kmalloc size 1:2 through kasprintf,kvasprintf",
				"raw tracepoint kmem_cache_free releases 1",
			},
		},
		{
			name: "kvmalloc from either side", kernel: linux61, imports: []string{"kvmalloc_node", "kvfree"},
			want: []string{
				"fentry kmem_cache_free_bulk releases 2,1", "fentry kvfree releases 0", "fentry kvfree_call_rcu releases 0,1",
				"fentry vfree releases 0", "fentry vfree_atomic releases 0",
				"fexit kvmalloc_node size 1:0",
				"raw tracepoint kfree releases 1", "raw tracepoint kmem_cache_free releases 1",
			},
		},
		{
			name: "pages", kernel: linux61, imports: []string{"alloc_pages", "get_zeroed_page", "__free_pages"}, pages: true,
			want: []string{
				"fentry __free_pages releases 0 check", "fexit alloc_pages size 2:1", "fexit get_zeroed_page size 2:255",
				"raw tracepoint mm_page_free releases 0",
			},
		},
		{
			name: "sizes", kernel: linux61, imports: []string{"kmem_cache_alloc_bulk", "vmalloc_array", "krealloc", "kmem_cache_alloc"},
			want: []string{
				"fentry kmem_cache_free_bulk releases 2,1", "fentry kvfree_call_rcu releases 0,1", "fentry vfree releases 0",
				"fentry vfree_atomic releases 0", "fexit kmem_cache_alloc_bulk size 3:0", "fexit krealloc size 1:1",
				"fexit vmalloc_array size 1:0", "raw tracepoint kfree releases 1",
				"raw tracepoint kmem_cache_alloc size 3:2", "raw tracepoint kmem_cache_free releases 1",
			},
		},
		{
			name: "only a release", kernel: linux61, imports: []string{"kfree"},
			want: []string{"raw tracepoint kfree releases 1"},
		},
		{
			name: "what the kernel lacks", kernel: linux612, imports: []string{"vzalloc"},
			want:      []string{"fentry kvfree_call_rcu releases 1", "fentry vfree releases 0", "fentry vfree_atomic releases 0"},
			unwatched: []string{"vzalloc"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := New(c, test.kernel, importing(test.imports...))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, summary(p)); d != "" {
				t.Errorf("plan differs (-want +got):\n%s", d)
			}
			var unwatched []string
			for _, u := range p.Unwatched {
				unwatched = append(unwatched, u.Function)
			}
			if d := cmp.Diff(test.unwatched, unwatched); d != "" {
				t.Errorf("unwatched differ (-want +got):\n%s", d)
			}
			if p.Pages != test.pages {
				t.Errorf("pages: %v", p.Pages)
			}
		})
	}
}

type noBTF struct{ prototypes }

func (noBTF) Params(string) ([]kernel.Param, error) { return nil, kernel.ErrNoBTF }

func TestNewWithoutBTF(t *testing.T) {
	c, err := catalog.Default()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, noBTF{}, importing("vmalloc")); !errors.Is(err, kernel.ErrNoBTF) {
		t.Errorf("error %v", err)
	}
}

func TestSites(t *testing.T) {
	m, err := target.Open("../target/testdata/hello-kernel.ko.xz")
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{Probes: []Probe{{Symbol: "vmalloc", Imports: []string{"vmalloc"}}, {Symbol: "vfree", Imports: []string{"vfree"}}}}
	got := make(map[string]int)
	for _, s := range p.Sites(m) {
		c, ok := m.CallEndingAt(s.Section, s.End)
		if !ok {
			t.Fatalf("no call at %+v", s)
		}
		got[fmt.Sprint(c.Symbol, s.Probes)]++
	}
	want := map[string]int{
		"vmalloc[0]": 6, "vfree[1]": 2, // with tail calls
		"myfunc1[0]": 1, "myfunc2[0]": 1, "myfunc3[1]": 1, "myfunc4[1]": 1,
		"_printk[]": 5, "__fentry__[]": 6,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sites differ (-want +got):\n%s", d)
	}
}
