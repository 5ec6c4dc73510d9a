package catalog

import (
	"strings"
	"testing"
)

func TestDefault(t *testing.T) {
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for symbol, kind := range map[string]string{
		"kmalloc_trace": "slab", "__kmalloc_cache_noprof": "slab", "kasprintf": "slab", "krealloc": "slab",
		"vmalloc": "vmalloc", "__kvmalloc_node_noprof": "vmalloc",
		"alloc_pages": "page", "get_free_pages_noprof": "page",
	} {
		if f, ok := c.Obtain(symbol); !ok || f.Kind != kind {
			t.Errorf("%s: %+v, %v; want kind %s", symbol, f, ok, kind)
		}
	}
	for _, symbol := range []string{"kfree", "kvfree_call_rcu", "kmem_cache_free_bulk", "vfree", "__free_pages"} {
		if _, ok := c.Release(symbol); !ok {
			t.Errorf("%s releases nothing", symbol)
		}
	}
	if _, ok := c.Obtain("printk"); ok {
		t.Error("printk obtains something")
	}
	if k, ok := c.Kind("slab"); !ok || k.Name != "slab" {
		t.Error("no kind slab")
	}
	// A symbol that is in two functions would be watched as the one or the other.
	seen := make(map[string]string)
	for _, k := range c.Kinds {
		for _, f := range k.Obtains {
			for _, s := range f.Symbols {
				if other, ok := seen[s]; ok {
					t.Errorf("%s is in %s and in %s", s, other, f.Name)
				}
				seen[s] = f.Name
			}
		}
	}
}

func TestAddRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"syntax", "kind = ", "line 1"},
		{"no kind", "[[obtain]]\nname = \"f\"\nsymbols = [\"f\"]", "no kind"},
		{"unknown key", "kind = \"k\"\n[[obtain]]\nname = \"f\"\nsymbols = [\"f\"]\nsizes = \"n\"", "unknown key"},
		{"no symbols", "kind = \"k\"\n[[obtain]]\nname = \"f\"", "symbols"},
		{"unknown tracepoint", "kind = \"k\"\n[[obtain]]\nname = \"f\"\nsymbols = [\"f\"]\nvia = [\"x\"]", "no tracepoint or function \"x\""},
		{"tracepoint that does nothing", "kind = \"k\"\n[[tracepoint]]\nname = \"t\"", "obtains or releases"},
		{"release without address", "kind = \"k\"\n[[release]]\nname = \"f\"\nsymbols = [\"f\"]", "parameter with the address"},
		{"space", "kind = \"k\"\n[[release]]\nname = \"f\"\nsymbols = [\"f\"]\naddress = \"p\"\naddress_is = \"folio\"", "address_is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := new(Catalog).Add("user.toml", test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "user.toml") {
				t.Errorf("error %v; want one with %q", err, test.want)
			}
		})
	}
}

// TestAdd is a driver's own allocator, in five lines.
func TestAdd(t *testing.T) {
	c := new(Catalog)
	if err := c.Add("mine.toml", `kind = "mine"
obtain = [{name = "my_alloc", symbols = ["my_alloc"], size = "len"}]
release = [{name = "my_free", symbols = ["my_free"], address = "p"}]
`); err != nil {
		t.Fatal(err)
	}
	if f, ok := c.Obtain("my_alloc"); !ok || f.Kind != "mine" || f.Size != "len" {
		t.Errorf("%+v, %v", f, ok)
	}
}
