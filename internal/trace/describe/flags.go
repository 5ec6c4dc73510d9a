package describe

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/cilium/ebpf/btf"

	"kedr/internal/trace"
)

//go:embed data/flags.toml
var flagsFile string

// tables are what flags.toml says.
type tables struct {
	Flags []table  `toml:"flags"`
	Bases []number `toml:"base"`
	Texts struct {
		Typedefs   []string `toml:"typedefs"`
		Parameters []string `toml:"parameters"`
	} `toml:"texts"`

	release string // of the kernel that choose was told
}

// table names the bits of a word, in some kernels.
type table struct {
	Name   string `toml:"name"`   // of the word
	Source string `toml:"source"` // where in the kernel's source it is
	Since  string `toml:"since"`  // the first kernel for which it holds
	Before string `toml:"before"` // the first for which it does not; empty: none yet

	where
	Values map[string]uint64 `toml:"values"`
	// Enum is an enumeration in BTF with the numbers of the bits instead, which are named
	// there with Prefix.
	Enum   string `toml:"enum"`
	Prefix string `toml:"prefix"`
}

// number is how people write a number.
type number struct {
	where
	Base int `toml:"base"`
}

// where tells values by their types' names, as "function:parameter" with a glob for the
// function, or as "structure.field".
type where struct {
	Typedefs   []string `toml:"typedefs"`
	Parameters []string `toml:"parameters"`
	Fields     []string `toml:"fields"`
}

func (w *where) has(typedefs []string, p place) bool {
	for _, t := range typedefs {
		if slices.Contains(w.Typedefs, t) {
			return true
		}
	}
	if p.structure != "" {
		return slices.Contains(w.Fields, p.structure+"."+p.name)
	}
	return slices.ContainsFunc(w.Parameters, func(s string) bool {
		function, name, _ := strings.Cut(s, ":")
		ok, _ := path.Match(function, p.function)
		return ok && name == p.name
	})
}

func readTables(text string) (*tables, error) {
	t := new(tables)
	md, err := toml.Decode(text, t)
	if err != nil {
		return nil, err
	}
	if extra := md.Undecoded(); len(extra) > 0 {
		return nil, fmt.Errorf("unknown key %q", extra[0].String())
	}
	for _, f := range t.Flags {
		if f.Name == "" || f.Source == "" || f.Since == "" || (len(f.Values) == 0) == (f.Enum == "") {
			return nil, fmt.Errorf("flags %q: give name, source, since, and values or enum", f.Name)
		}
	}
	return t, nil
}

// choose leaves those tables that hold for a kernel.
func (t *tables) choose(release string) {
	t.release = release
	t.Flags = slices.DeleteFunc(t.Flags, func(f table) bool {
		return older(release, f.Since) || f.Before != "" && !older(release, f.Before)
	})
}

// older says whether a kernel's release comes before a version.
func older(release, version string) bool {
	var a, b [2]int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a[0], &a[1]); n < 2 {
		return true
	}
	fmt.Sscanf(version, "%d.%d", &b[0], &b[1])
	return slices.Compare(a[:], b[:]) < 0
}

func (t *tables) base(typedefs []string, p place) int {
	for _, n := range t.Bases {
		if n.has(typedefs, p) {
			return n.Base
		}
	}
	return 0
}

func (t *tables) isText(typ btf.Type, p place) bool {
	if slices.Contains(t.Texts.Parameters, p.name) {
		return true
	}
	return slices.ContainsFunc(typedefsOf(typ), func(name string) bool { return slices.Contains(t.Texts.Typedefs, name) })
}

// flagNames are the names of a word's bits, in the order in which they are to be looked
// for: groups of bits come before their parts.
func (d *Describer) flagNames(typedefs []string, p place) []trace.Name {
	for _, t := range typedefs {
		if names := d.words[t]; len(names) > 0 {
			return names
		}
	}
	for i := range d.tables.Flags {
		t := &d.tables.Flags[i]
		if !t.has(typedefs, p) {
			continue
		}
		// Several tables may be of one word, in different kernels.
		if names := d.values(t); len(names) > 0 {
			return names
		}
	}
	return nil
}

func (d *Describer) values(t *table) []trace.Name {
	key := t.Name + " " + t.Since
	if names, ok := d.words[key]; ok {
		return names
	}
	var names []trace.Name
	var e *btf.Enum
	if t.Enum != "" && d.kernel.TypeByName(t.Enum, &e) == nil {
		for _, v := range e.Values {
			name, ok := strings.CutPrefix(v.Name, t.Prefix)
			if ok && v.Value < 64 && !strings.HasSuffix(name, "_LAST_BIT") {
				names = append(names, trace.Name{Value: 1 << v.Value, Name: name})
			}
		}
	}
	for name, value := range t.Values {
		names = append(names, trace.Name{Value: value, Name: name})
	}
	slices.SortFunc(names, func(a, b trace.Name) int {
		return cmp.Or(cmp.Compare(bits.OnesCount64(b.Value), bits.OnesCount64(a.Value)),
			cmp.Compare(a.Value, b.Value), cmp.Compare(a.Name, b.Name))
	})
	d.words[key] = names
	return names
}

// formats are the events that print a gfp_t; not every kernel has all of them.
var formats = []string{"kmem/kmalloc", "kmem/kmem_cache_alloc", "kmem/mm_page_alloc"}

// gfp finds the names of gfp_t, whose values differ from kernel to kernel and with their
// configuration.
func (d *Describer) gfp(tracing fs.FS) []trace.Name {
	bit := d.enumerator()
	if tracing != nil {
		for _, event := range formats {
			b, err := fs.ReadFile(tracing, "events/"+event+"/format")
			if err != nil {
				continue
			}
			if names, err := parseFormat(string(b), "gfp", bit); err == nil {
				return names
			}
		}
	}
	// From 6.10 on each bit has a number in an enumeration (include/linux/gfp_types.h).
	// Before, nothing is left to ask.
	if older(d.tables.release, "6.10") {
		return nil
	}
	return d.gfpBits()
}

// gfpBits names single bits only.
func (d *Describer) gfpBits() []trace.Name {
	var names []trace.Name
	for t, err := range d.kernel.All() {
		if err != nil {
			return nil
		}
		e, ok := t.(*btf.Enum)
		if !ok || len(e.Values) == 0 || e.Values[0].Name != "___GFP_DMA_BIT" {
			continue
		}
		for _, v := range e.Values {
			name, ok := strings.CutSuffix(v.Name, "_BIT")
			name, under := strings.CutPrefix(name, "_")
			if ok && under && v.Value < 64 && !strings.Contains(name, "LAST") && !strings.Contains(name, "UNUSED") {
				names = append(names, trace.Name{Value: 1 << v.Value, Name: name})
			}
		}
		break
	}
	return names
}

// enumerator looks up a value of any enumeration of the kernel. BTF knows no other way
// to it than to read all types, which is done when first needed.
func (d *Describer) enumerator() func(string) (uint64, bool) {
	var values map[string]uint64
	return func(name string) (uint64, bool) {
		if values == nil {
			values = make(map[string]uint64)
			for t, err := range d.kernel.All() {
				if err != nil {
					break
				}
				if e, ok := t.(*btf.Enum); ok {
					for _, v := range e.Values {
						values[v.Name] = v.Value
					}
				}
			}
		}
		v, ok := values[name]
		return v, ok
	}
}

var errNoTable = errors.New("the event prints no names of flags")
