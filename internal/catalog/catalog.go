// Package catalog says what kernel functions do with objects: which hand one
// out, which take it back, and where its address and size are found.
//
// It is data, in one readable file a kind (data/*.toml). Functions are named
// once, with the symbols they go by in the kernels there are; parameters are
// named as the kernel's sources name them, never numbered, because their
// positions change.
package catalog

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

//go:embed data/*.toml
var builtin embed.FS

// Catalog is a set of kinds.
type Catalog struct {
	Kinds []Kind

	obtains  map[string]*Function
	releases map[string]*Function
}

// Kind is a family of functions that hand out and take back the same objects.
type Kind struct {
	Name string `toml:"kind"`
	// Handle: an object's address is, or may be, that of an object of another kind
	// as well (a mempool's element is somebody's block, an open file has a seq_file).
	Handle bool `toml:"handle"`
	// Counted: an address may be obtained several times, and is given back as often
	// (kmem_cache_create, which merges caches).
	Counted bool `toml:"counted"`
	// Foreign: the kernel hands such objects to modules to release, so that a
	// release of what no target obtained is nothing wrong.
	Foreign bool `toml:"foreign"`

	Tracepoints []Tracepoint `toml:"tracepoint"`
	Obtains     []*Function  `toml:"obtain"`
	Releases    []*Function  `toml:"release"`
}

// Tracepoint is an event of the group kmem whose arguments say all that a probe
// of the function would. Parameter names are those of __traceiter_<name>.
type Tracepoint struct {
	Name      string `toml:"name"`
	Obtains   string `toml:"obtains"`    // parameter with the address handed out
	Releases  string `toml:"releases"`   // parameter with the address taken back
	Size      string `toml:"size"`       // see Function.Size
	Owner     string `toml:"owner"`      // see Function.Owner
	AddressIs Space  `toml:"address_is"` // what the address names
}

// Function is a function of the kernel, under all its names. Where a parameter is
// asked for, a "|" separates the names that it has had.
type Function struct {
	Kind    string   `toml:"-"`
	Name    string   `toml:"name"` // the first symbol where it is left out
	Symbols []string `toml:"symbols"`

	// Via names tracepoints of this kind, or symbols of functions of this kind, that
	// see every call of this function, so that it needs no probe of its own.
	Via []string `toml:"via"`
	// Through lists functions that reach those for their caller, who is then looked
	// for beyond them on the stack. Names that the kernel does not have are passed
	// over.
	Through []string `toml:"through"`

	// Address is the parameter with the address. A function that obtains returns it
	// where there is none. "a-b" is the address of a's object when b is its offset
	// there, as kfree_rcu has it up to 6.3, and "a->field" the pointer there.
	Address string `toml:"address"`
	// Array is the parameter with an array of addresses instead, and Count the one
	// with its length, or "return".
	Array string `toml:"array"`
	Count string `toml:"count"`
	// AddressIs says what the address names.
	AddressIs Space `toml:"address_is"`
	// Inside is where in the block that is released the object lies: "struct.member".
	Inside string `toml:"inside"`

	// Succeeds is "zero" or "nonzero" where the result tells whether an object was
	// obtained, and is not its address.
	Succeeds string `toml:"succeeds"`

	// Size is the size in bytes: a parameter, "a*b", "page<<a", "page*a", "page",
	// "a->field" (32 bits), or "string": that of the string returned, its end
	// included. A release that names the size has to name the object's.
	Size string `toml:"size"`
	// Owner is the parameter with what the object is taken from, and has to go back
	// to: a cache, a pool.
	Owner string `toml:"owner"`

	NotIf    string   `toml:"not_if"`   // no object when the result is this parameter
	Replaces string   `toml:"replaces"` // parameter with the object that the result takes over
	Also     []string `toml:"also"`     // further kinds whose releases take these objects back
	Takes    []string `toml:"takes"`    // further kinds whose objects this release takes back

	// List is a parameter with a list to put the objects in front of instead of the
	// array, and Link what links them: "struct.member".
	List string `toml:"list"`
	Link string `toml:"link"`
	// Fills: entries of the array that hold an object already are left alone.
	Fills bool `toml:"fills"`
	// Last is a 32-bit reference count, "a->field": only a release at 1 is one.
	Last string `toml:"last"`

	// Imported functions are probed only for a target that calls them itself:
	// they end in others of the catalog.
	Imported bool `toml:"imported"`
	// CheckOnly: tells a wrong release; the release itself is seen elsewhere.
	CheckOnly bool `toml:"check_only"`
	// Foreign is Kind.Foreign for this function alone.
	Foreign bool `toml:"foreign"`

	// Parameters are the names of all of the function's parameters, for kernels without
	// BTF; each takes a word of the machine.
	Parameters string `toml:"parameters"`
}

// Space is what an address names.
type Space string

// The spaces there are.
const (
	Memory      Space = ""             // the object's own address
	Page        Space = "page"         // a struct page
	PageAddress Space = "page address" // the linear address of a page
)

// Default returns the catalog that comes with kedr.
func Default() (*Catalog, error) {
	files, err := fs.Glob(builtin, "data/*.toml")
	if err != nil {
		return nil, err
	}
	c := new(Catalog)
	for _, name := range files {
		b, err := builtin.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if err := c.Add(path.Base(name), string(b)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Add reads one kind from TOML text; name is for error messages.
func (c *Catalog) Add(name, text string) error {
	var k Kind
	md, err := toml.Decode(text, &k)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return fmt.Errorf("catalog %s, line %d: %s", name, pe.Position.Line, pe.Message)
		}
		return fmt.Errorf("catalog %s: %w", name, err)
	}
	if extra := md.Undecoded(); len(extra) > 0 {
		return fmt.Errorf("catalog %s: unknown key %q", name, extra[0].String())
	}
	if c.obtains == nil {
		c.obtains = make(map[string]*Function)
		c.releases = make(map[string]*Function)
	}
	for _, f := range slices.Concat(k.Obtains, k.Releases) {
		f.Kind = k.Name
		f.Foreign = f.Foreign || k.Foreign
		if f.Name == "" && len(f.Symbols) > 0 {
			f.Name = f.Symbols[0]
		}
	}
	// A kind may be added to: blocks from a driver's own allocator that kfree takes.
	whole := k
	known, extends := c.Kind(k.Name)
	if extends {
		whole = *known
		whole.Tracepoints = slices.Concat(known.Tracepoints, k.Tracepoints)
		whole.Obtains = slices.Concat(known.Obtains, k.Obtains)
		whole.Releases = slices.Concat(known.Releases, k.Releases)
	}
	if err := whole.validate(); err != nil {
		return fmt.Errorf("catalog %s: %w", name, err)
	}
	for _, f := range k.Obtains {
		for _, s := range f.Symbols {
			c.obtains[s] = f
		}
	}
	for _, f := range k.Releases {
		for _, s := range f.Symbols {
			// Several kinds may share a release; any of them tells the same.
			if c.releases[s] == nil {
				c.releases[s] = f
			}
		}
	}
	if extends {
		*known = whole
	} else {
		c.Kinds = append(c.Kinds, whole)
	}
	return nil
}

func (k *Kind) validate() error {
	if k.Name == "" {
		return errors.New(`no kind: the file must begin with kind = "..."`)
	}
	points := make(map[string]bool)
	for _, t := range k.Tracepoints {
		points[t.Name] = true
		if (t.Obtains == "") == (t.Releases == "") {
			return fmt.Errorf("tracepoint %q: give obtains or releases", t.Name)
		}
		if err := t.AddressIs.validate(); err != nil {
			return fmt.Errorf("tracepoint %q: %w", t.Name, err)
		}
	}
	for _, f := range k.Obtains {
		for _, s := range f.Symbols {
			points[s] = true
		}
	}
	for _, f := range slices.Concat(k.Obtains, k.Releases) {
		if f.Name == "" || len(f.Symbols) == 0 && len(f.Via) == 0 {
			return fmt.Errorf("function %q: give its symbols", f.Name)
		}
		for _, v := range f.Via {
			if !points[v] {
				return fmt.Errorf("function %q: no tracepoint or function %q in this file", f.Name, v)
			}
		}
		if err := f.AddressIs.validate(); err != nil {
			return fmt.Errorf("function %q: %w", f.Name, err)
		}
		switch f.Succeeds {
		case "", "zero", "nonzero":
		default:
			return fmt.Errorf("function %q: succeeds = %q: must be \"zero\" or \"nonzero\"", f.Name, f.Succeeds)
		}
	}
	for _, f := range k.Releases {
		if len(f.Via) == 0 && f.Address == "" && f.Array == "" {
			return fmt.Errorf("function %q: give the parameter with the address", f.Name)
		}
	}
	return nil
}

func (s Space) validate() error {
	switch s {
	case Memory, Page, PageAddress:
		return nil
	}
	return fmt.Errorf("address_is = %q: must be %q or %q", string(s), Page, PageAddress)
}

// NamesParameters says whether any parameter of the function is named.
func (f *Function) NamesParameters() bool {
	for _, s := range []string{f.Address, f.Array, f.Owner, f.NotIf, f.Replaces, f.List, f.Last} {
		if s != "" {
			return true
		}
	}
	return f.Size != "" && f.Size != "string" && f.Size != "page"
}

// Obtain returns the function that hands out objects under this symbol.
func (c *Catalog) Obtain(symbol string) (*Function, bool) {
	f, ok := c.obtains[symbol]
	return f, ok
}

// Release returns the function that takes objects back under this symbol.
func (c *Catalog) Release(symbol string) (*Function, bool) {
	f, ok := c.releases[symbol]
	return f, ok
}

// Kind returns a kind by name.
func (c *Catalog) Kind(name string) (*Kind, bool) {
	for i := range c.Kinds {
		if c.Kinds[i].Name == name {
			return &c.Kinds[i], true
		}
	}
	return nil, false
}

// Alternatives splits the names that a parameter has had.
func Alternatives(s string) []string { return strings.Split(s, "|") }
