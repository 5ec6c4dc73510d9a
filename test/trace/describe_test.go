//go:build guest

package trace

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"kedr/internal/kernel"
	"kedr/internal/target"
	"kedr/internal/trace"
	"kedr/internal/trace/describe"
)

func describer(t *testing.T) (*describe.Describer, *kernel.Kernel, *btf.Spec) {
	t.Helper()
	k, err := kernel.Running()
	if err != nil {
		t.Fatal(err)
	}
	types, err := k.Spec()
	if err != nil {
		t.Fatal(err)
	}
	d, err := describe.New(types, k.Release, os.DirFS("/sys/kernel/tracing"))
	if err != nil {
		t.Fatal(err)
	}
	return d, k, types
}

// exported are the functions and variables that the kernel exports.
func exported(t *testing.T) []string {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 3 {
			if name, ok := strings.CutPrefix(fields[2], "__ksymtab_"); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

// TestDescribeAll: every function that a module may call can be described.
func TestDescribeAll(t *testing.T) {
	d, _, _ := describer(t)
	names := exported(t)
	if len(names) < 5000 {
		t.Fatalf("the kernel exports %d symbols", len(names))
	}
	x, err := describe.ParseExpansions([]string{"file.f_flags", "inode.i_mode", "sk_buff.len", "task_struct.comm", "ret.f_mode"})
	if err != nil {
		t.Fatal(err)
	}
	known, gfp := 0, 0
	start := time.Now()
	for _, name := range names {
		f, err := d.Function(nil, name, x)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !f.Known {
			continue
		}
		known++
		if len(f.Captures) > trace.MaxCaptures {
			t.Errorf("%s: %d captures", name, len(f.Captures))
		}
		slot := -1
		for _, p := range f.Params {
			if p.Slot < trace.MaxArgs && p.Slot <= slot {
				t.Errorf("%s: parameter %s is in register %d, as is one before it", name, p.Name, p.Slot)
			}
			if p.Slot < trace.MaxArgs {
				slot = p.Slot
			}
			if p.Type.Name == "" || p.Type.Class == trace.Void || strings.Contains(p.Type.Name, "?") {
				t.Errorf("%s: parameter %s: %+v", name, p.Name, p.Type)
			}
			if p.Type.Name == "gfp_t" && p.Type.Class == trace.Flags {
				gfp++
			}
		}
		for _, c := range f.Captures {
			if c.Param >= len(f.Params) || c.Type.Size < 1 || c.Type.Size > trace.MaxCapture {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
	if err := x.Unused(); err != nil {
		t.Error(err)
	}
	if known < len(names)/4 || gfp < 50 {
		t.Errorf("of %d exported symbols %d are known functions, of which %d take flags of allocations", len(names), known, gfp)
	}
	t.Logf("%d exported symbols, %d known functions, %d parameters gfp_t, in %v", len(names), known, gfp, time.Since(start))
}

// TestDescribe: what is the same in all kernels, but for its numbers.
func TestDescribe(t *testing.T) {
	d, k, types := describer(t)
	value := func(names []trace.Name, name string) uint64 {
		t.Helper()
		i := slices.IndexFunc(names, func(n trace.Name) bool { return n.Name == name })
		if i < 0 {
			t.Errorf("no %s in %v", name, names)
			return 0
		}
		return names[i].Value
	}
	function := func(expand []string, names ...string) trace.Function {
		t.Helper()
		x, err := describe.ParseExpansions(expand)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			f, err := d.Function(nil, name, x)
			if err != nil {
				t.Fatal(err)
			}
			if f.Known {
				return f
			}
		}
		t.Fatalf("none of %v", names)
		panic("unreachable")
	}
	f := function(nil, "__kmalloc", "__kmalloc_noprof")
	flags := f.Params[1]
	if f.Params[0].Type.Name != "size_t" || flags.Type.Class != trace.Flags || flags.Slot != 1 || f.Result.Class != trace.Pointer {
		t.Errorf("%+v", f)
	}
	if kernelFlags := value(flags.Type.Names, "GFP_KERNEL"); kernelFlags != 0xcc0 {
		t.Errorf("GFP_KERNEL is %#x", kernelFlags)
	}
	f = function([]string{"ret.f_flags"}, "filp_open")
	field, err := k.Field("file", "f_flags")
	if err != nil {
		t.Fatal(err)
	}
	last := f.Captures[len(f.Captures)-1]
	if last.Param != -1 || last.Offset != field || last.Field != "f_flags" || value(last.Type.Names, "O_CREAT") != 0x40 {
		t.Errorf("%+v", last)
	}
	if f.Params[2].Type.Name != "umode_t" || f.Params[2].Type.Base != 8 || f.Captures[0].Param != 0 {
		t.Errorf("%+v", f)
	}
	f = function(nil, "kmem_cache_create", "__kmem_cache_create_args")
	i := slices.IndexFunc(f.Params, func(p trace.Param) bool { return p.Type.Name == "slab_flags_t" })
	if i < 0 {
		t.Errorf("%+v", f)
	} else if bits, err := k.Enum("_slab_flag_bits", "_SLAB_HWCACHE_ALIGN"); err == nil {
		if got := value(f.Params[i].Type.Names, "SLAB_HWCACHE_ALIGN"); got != 1<<bits {
			t.Errorf("SLAB_HWCACHE_ALIGN is %#x", got)
		}
	} else if got := value(f.Params[i].Type.Names, "SLAB_HWCACHE_ALIGN"); got != 0x2000 {
		t.Errorf("SLAB_HWCACHE_ALIGN is %#x", got)
	}
	if f = function(nil, "_printk", "printk"); !f.Variadic || len(f.Captures) != 1 {
		t.Errorf("%+v", f)
	}

	// Without tracefs there is BTF, from 6.10 on.
	bare, err := describe.New(types, k.Release, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"__kmalloc", "__kmalloc_noprof"} {
		if f, err = bare.Function(nil, name, nil); err != nil || !f.Known {
			continue
		}
		if k.AtLeast(6, 10) {
			if got, want := value(f.Params[1].Type.Names, "__GFP_ZERO"), value(flags.Type.Names, "__GFP_ZERO"); got != want {
				t.Errorf("__GFP_ZERO is %#x, want %#x", got, want)
			}
		} else if f.Params[1].Type.Names != nil || f.Params[1].Type.Base != 16 {
			t.Errorf("%+v", f.Params[1])
		}
	}
}

// TestModuleTypes: types of modules, from their files and from the kernel.
func TestModuleTypes(t *testing.T) {
	d, k, _ := describer(t)
	_, err := k.Types.Module("9p")
	loaded := err == nil
	files, err := filepath.Glob("/lib/modules/" + k.Release + "/kernel/drivers/net/dummy.ko*")
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	m, err := target.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	types, err := d.ModuleTypes(m.Image())
	if !loaded {
		if !errors.Is(err, describe.ErrNoTypes) {
			t.Errorf("modules of this kernel have no types; error %v", err)
		}
		t.Skip("modules have no types before 5.11")
	}
	if err != nil {
		t.Fatal(err)
	}
	x, err := describe.ParseExpansions([]string{"skb.len"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Callback(types, "dummy_xmit", 3, x)
	if err != nil {
		t.Fatal(err)
	}
	offset, err := k.Field("sk_buff", "len")
	if err != nil {
		t.Fatal(err)
	}
	if !f.Known || !f.Callback || f.Target != 3 || len(f.Params) != 2 || f.Params[0].Type.Name != "struct sk_buff *" ||
		f.Params[1].Type.Name != "struct net_device *" || f.Result.Name != "netdev_tx_t" || f.Result.Class != trace.Enum ||
		len(f.Captures) != 1 || f.Captures[0].Offset != offset {
		t.Errorf("%+v", f)
	}
	// An import may be another module's export.
	types, err = k.Types.Module("9pnet")
	if err != nil {
		t.Fatal(err)
	}
	if f, err = d.Function(types, "p9_client_create", nil); err != nil || !f.Known || f.Result.Name != "struct p9_client *" {
		t.Errorf("%+v, %v", f, err)
	}
}
