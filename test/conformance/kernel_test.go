//go:build guest

package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/plan"
)

// TestKernel says what this kernel has of what kedr builds on; test/kernels makes a
// table of it. The catalog has to fit every kernel.
func TestKernel(t *testing.T) {
	types := ""
	if slices.Contains(flags, "--btf=none") {
		types = kernel.NoBTF
	}
	k, err := kernel.RunningWith(types)
	if err != nil {
		t.Fatal(err)
	}
	feature := func(name, format string, args ...any) {
		t.Logf("feature: %s: %s", name, fmt.Sprintf(format, args...))
	}
	choose := func(has bool, yes, no string) string {
		if has {
			return yes
		}
		return no
	}
	feature("release", "%s", k.Release)
	feature("functions are intercepted by", "%s", choose(k.OwnTypes(), "trampolines", "kprobes: no BTF"))
	feature("symbols by name (5.16)", "%s", choose(k.HasHelper("kallsyms_lookup_name"), "yes", "from /proc/kallsyms"))
	feature("objects in one bulk call (5.17)", "%s", choose(k.HasHelper("loop"), "65536", "128"))
	feature("a tracepoint's program may interrupt itself (up to 6.0)", "%s", choose(!k.AtLeast(6, 1), "yes", "no: two programs each"))
	feature("jumps of callbacks seen in detached sessions (5.15)", "%s", choose(k.AtLeast(5, 15), "yes", "no: named, and incomplete"))
	params, err := k.Tracepoint("kmem_cache_alloc")
	if err != nil {
		t.Fatal(err)
	}
	cache := false
	for _, p := range params {
		cache = cache || p.Pointee == "kmem_cache"
	}
	feature("a release to the wrong cache is told (6.1)", "%s", choose(cache, "yes", "no"))
	layout := "core and init"
	if _, err := k.Enum("mod_mem_type", "MOD_TEXT"); err == nil {
		layout = "one a type of memory"
	}
	feature("areas of a module's text (6.4)", "%s", layout)

	c, err := catalog.Default()
	if err != nil {
		t.Fatal(err)
	}
	checked, err := plan.Check(c, k)
	if err != nil {
		t.Fatal(err)
	}
	var fits int
	var missing, unwatched, unknown []string
	for _, f := range checked {
		switch {
		case f.Symbol == "":
			missing = append(missing, f.Function)
		case errors.Is(f.Err, plan.ErrStructure):
			unwatched = append(unwatched, f.Symbol)
		case errors.Is(f.Err, kernel.ErrNoLayout) && !k.OwnTypes():
			unknown = append(unknown, f.Symbol)
		case f.Err != nil:
			t.Errorf("the catalog does not fit: %+v", f)
		default:
			fits++
		}
	}
	feature("names of the catalog", "%d", fits)
	feature("names of the catalog that can't be watched", "%s", cmp.Or(strings.Join(unwatched, ", "), "none"))
	feature("names of the catalog that want the module's debug information, or the kernel's code", "%s", cmp.Or(strings.Join(unknown, ", "), "none"))
	feature("functions of the catalog that it does not have", "%s", strings.Join(missing, ", "))
}
