// Package plan decides which kernel functions to intercept for a target: the
// functions of the catalog that it imports, and the release paths of the kinds
// of objects that these hand out. Nothing else is touched.
package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/prototype"
	"kedr/internal/target"
)

// NoArg stands for "no argument".
const NoArg = 0xff

// Mechanism is how a probe is attached.
type Mechanism int

// The mechanisms there are.
const (
	Exit       Mechanism = iota // trampoline at a function's return (fexit). Requires Linux 5.5
	Entry                       // trampoline at a function's entry (fentry). Requires Linux 5.5
	Tracepoint                  // raw tracepoint. Requires Linux 4.17
)

func (m Mechanism) String() string {
	return [...]string{"fexit", "fentry", "raw tracepoint"}[m]
}

// Role is what a probe sees.
type Role int

// The roles there are.
const (
	Obtain Role = iota
	Release
)

// SizeFrom says where an object's size is found.
type SizeFrom int

// The sources of a size.
const (
	SizeUnknown SizeFrom = iota
	SizeArg              // argument A, times B if there is one
	SizeOrder            // page size << A; one page if there is no A
	SizeField            // 32 bits at Offset behind pointer A
	SizeString           // of the string returned, its end included
	SizePages            // page size * A
)

// Size is where an object's size is found.
type Size struct {
	From   SizeFrom
	A, B   uint8 // argument numbers
	Offset uint32
}

// AddressFrom says where an address is found.
type AddressFrom int

// The sources of an address.
const (
	FromReturn  AddressFrom = iota
	FromArg                 // argument Address
	FromArray               // array Address with Count elements
	FromRCUHead             // Address minus Count; Count itself if Address is NULL
)

// Probe is one program to attach.
type Probe struct {
	Role      Role
	Mechanism Mechanism
	Symbol    string // the kernel function or the tracepoint
	Kind      string
	Name      string // the catalog's name for it

	Params    []kernel.Param `json:"-"` // of the function
	Args      uint8          // how many it has
	From      AddressFrom
	Address   uint8
	Count     uint8
	Space     catalog.Space
	Size      Size
	CallSite  uint8 // argument of a tracepoint that names the caller
	Narrow    uint8 // arguments of 32 bits, a bit each: the rest of their slot is anything
	NotIf     uint8
	Replaces  uint8
	Owner     uint8
	List      uint8
	Fills     bool
	CheckOnly bool
	Foreign   bool
	Counted   bool
	Succeeds  string // as in the catalog

	// Pointer: the address is not argument Address, but the pointer at PointerOffset
	// in the structure that it points to.
	Pointer       bool
	PointerOffset uint32
	// Last is the argument with a reference count at LastOffset.
	Last       uint8
	LastOffset uint32
	// Link is where an object of a list has its link.
	Link uint32
	// Inside is where in its block an object lies.
	Inside uint32
	// Kinds are those whose releases take back what is handed out, or whose objects
	// are taken back: a bit each, by the index in Plan.Kinds.
	Kinds uint32
	// Tag keeps the addresses of this kind apart from all others; 0: they are memory.
	Tag uint8
	// CompareSize: the release names the size, and it has to be right.
	CompareSize bool

	// Through lists functions that are passed over in looking for the caller.
	Through []string
	// Imports lists the targets' imports that this probe stands for: a call of
	// another one that ends up here is not the target's own.
	Imports []string
}

// Unwatched is an import that cannot be intercepted here.
type Unwatched struct {
	Function string
	Reason   string
}

// Plan is what to attach for a set of targets.
type Plan struct {
	Targets   []*target.Module
	Probes    []Probe
	Jumps     []Jump
	Unwatched []Unwatched
	Kinds     []string // at most MaxKinds
	Pages     bool     // addresses of pages have to be turned into their struct page
	Trace     *Trace   // nil: calls are not traced
}

// MaxKinds is how many kinds one plan has room for.
const MaxKinds = 31

// AllKinds is the set of all kinds.
const AllKinds = 1<<MaxKinds - 1

// Kernel is what a plan has to know of the kernel it is for.
type Kernel interface {
	Params(function string) ([]kernel.Param, error)
	Tracepoint(name string) ([]kernel.Param, error)
	Field(structure, path string) (uint32, error)
	AtLeast(major, minor int) bool
}

// New makes the plan. It fails only where the kernel can't be asked at all; a
// function that can't be watched is listed in Unwatched.
func New(c *catalog.Catalog, k Kernel, targets ...*target.Module) (*Plan, error) {
	b := builder{catalog: c, kernel: k, plan: &Plan{Targets: targets}, seen: make(map[string]int)}
	kinds := make(map[string]bool)
	var imports []string
	for _, t := range targets {
		for _, im := range t.Imports {
			imports = append(imports, im.Name)
		}
	}
	slices.Sort(imports)
	imports = slices.Compact(imports)

	for _, name := range imports {
		if f, ok := c.Obtain(name); ok {
			kinds[f.Kind] = true
			for _, also := range f.Also {
				kinds[also] = true
			}
			if err := b.obtain(f, name); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range imports {
		if f, ok := c.Release(name); ok {
			if err := b.release(f, name, true); err != nil {
				return nil, err
			}
		}
	}
	for _, k := range c.Kinds {
		if !kinds[k.Name] {
			continue
		}
		for _, f := range k.Releases {
			if f.Imported {
				continue
			}
			for _, name := range f.Symbols {
				if err := b.release(f, name, false); err != nil {
					return nil, err
				}
			}
			if len(f.Symbols) == 0 {
				if err := b.via(f, Release, f.Name, nil); err != nil {
					return nil, err
				}
			}
		}
	}
	split := slices.Contains(imports, "split_page")
	for i := range b.plan.Probes {
		p := &b.plan.Probes[i]
		if p.Space != catalog.Memory {
			b.plan.Pages = true
			// Pages that were split are freed one by one; only the first is known.
			p.CompareSize = p.CompareSize && !split
			p.Foreign = p.Foreign || split
		}
	}
	if len(b.plan.Kinds) > MaxKinds {
		return nil, fmt.Errorf("the targets use %d kinds of objects, and there is room for %d", len(b.plan.Kinds), MaxKinds)
	}
	for i := range b.plan.Probes {
		p := &b.plan.Probes[i]
		// What was not seen to be obtained is not wrong to release.
		p.Foreign = p.Foreign || p.Role == Release && p.Kinds&b.unseen != 0
	}
	for i := range targets {
		jumps, err := b.plan.jumps(i)
		if err != nil {
			return nil, err
		}
		b.plan.Jumps = append(b.plan.Jumps, jumps...)
	}
	return b.plan, nil
}

type builder struct {
	catalog *catalog.Catalog
	kernel  Kernel
	plan    *Plan
	seen    map[string]int // index in the plan, by mechanism and symbol
	unseen  uint32         // kinds of which some are obtained unseen
}

func (b *builder) unwatched(name string, err error) {
	u := Unwatched{Function: name, Reason: err.Error()}
	if !slices.Contains(b.plan.Unwatched, u) {
		b.plan.Unwatched = append(b.plan.Unwatched, u)
	}
}

// add enters a probe, or what a further function wants of one that is there.
func (b *builder) add(p Probe) {
	key := fmt.Sprint(p.Role, p.Mechanism, p.Symbol)
	i, ok := b.seen[key]
	if !ok {
		i = len(b.plan.Probes)
		b.seen[key] = i
		b.plan.Probes = append(b.plan.Probes, p)
	}
	to := &b.plan.Probes[i]
	to.Through = union(to.Through, p.Through)
	to.Imports = union(to.Imports, p.Imports)
	to.Kinds |= p.Kinds
}

// kinds is the set of the named kinds.
func (b *builder) kinds(names ...string) uint32 {
	var set uint32
	for _, name := range names {
		i := slices.Index(b.plan.Kinds, name)
		if i < 0 {
			i = len(b.plan.Kinds)
			b.plan.Kinds = append(b.plan.Kinds, name)
		}
		set |= 1 << (i % MaxKinds)
	}
	return set
}

// tag is what keeps a kind's addresses apart, where that is needed.
func (b *builder) tag(kind string) uint8 {
	if k, ok := b.catalog.Kind(kind); !ok || !k.Handle {
		return 0
	}
	b.kinds(kind)
	return uint8(slices.Index(b.plan.Kinds, kind) + 1)
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

func (b *builder) obtain(f *catalog.Function, symbol string) error {
	if len(f.Via) > 0 {
		return b.via(f, Obtain, symbol, []string{symbol})
	}
	p, err := b.function(f, symbol)
	if err != nil {
		b.unseen |= b.kinds(f.Kind)
		return b.tolerate(symbol, err)
	}
	p.Role, p.Mechanism, p.Imports = Obtain, Exit, []string{symbol}
	b.add(p)
	return nil
}

func (b *builder) release(f *catalog.Function, symbol string, imported bool) error {
	var imports []string
	if imported {
		imports = []string{symbol}
	}
	if len(f.Via) > 0 {
		if err := b.via(f, Release, symbol, imports); err != nil {
			return err
		}
		// The tracepoint sees the release, the function whether it is a right one.
		if !imported || f.Address == "" || !b.owned(f.Kind) {
			return nil
		}
	}
	p, err := b.function(f, symbol)
	if err != nil {
		// Of a release that the target does not call itself, no kernel has all names.
		if !imported && errors.Is(err, kernel.ErrNoFunction) {
			return nil
		}
		return b.tolerate(symbol, err)
	}
	p.Role, p.Mechanism, p.Imports = Release, Entry, imports
	if len(f.Via) > 0 {
		p.CheckOnly, p.Foreign = true, true
	}
	b.add(p)
	return nil
}

// partial says whether BTF leaves out what the tracer can't see, as lib/ (up to 5.11).
func (b *builder) partial() bool {
	_, err := b.kernel.Params("kasprintf")
	return errors.Is(err, kernel.ErrNoFunction)
}

// owned says whether what objects of this kind are taken from is known.
func (b *builder) owned(kind string) bool {
	return slices.ContainsFunc(b.plan.Probes, func(p Probe) bool {
		return p.Role == Obtain && p.Kind == kind && p.Owner != NoArg
	})
}

// tolerate lists a function as unwatched, unless nothing at all can be planned.
func (b *builder) tolerate(symbol string, err error) error {
	if errors.Is(err, kernel.ErrNoBTF) {
		return err
	}
	b.unwatched(symbol, err)
	return nil
}

// via plans the tracepoints and functions that see a function's calls for it.
func (b *builder) via(f *catalog.Function, role Role, symbol string, imports []string) error {
	kind, _ := b.catalog.Kind(f.Kind)
	var through []string
	for _, t := range f.Through {
		// What a function does may be inlined, but then it has no call site either.
		if _, err := b.kernel.Params(t); !errors.Is(err, kernel.ErrNoFunction) || b.partial() {
			through = append(through, t)
		}
	}
	found := false
	var last error
	for _, name := range f.Via {
		var p Probe
		var err error
		i := slices.IndexFunc(kind.Tracepoints, func(t catalog.Tracepoint) bool { return t.Name == name })
		if i >= 0 {
			p, err = b.tracepoint(kind, &kind.Tracepoints[i])
		} else if at, ok := b.catalog.Obtain(name); ok {
			p, err = b.function(at, name)
			p.Mechanism = Exit
		}
		if errors.Is(err, kernel.ErrNoBTF) {
			return err
		}
		if err != nil {
			last = err
			continue
		}
		found = true
		p.Role, p.Imports, p.Through, p.Foreign = role, imports, through, f.Foreign
		if i >= 0 {
			p.Name = f.Name
		}
		if role == Release && f.Owner != "" {
			p.Kinds = AllKinds // the probe of the function tells
		}
		b.add(p)
	}
	if !found {
		b.unwatched(symbol, last)
	}
	return nil
}

func (b *builder) tracepoint(kind *catalog.Kind, t *catalog.Tracepoint) (Probe, error) {
	params, err := b.kernel.Tracepoint(t.Name)
	if err != nil {
		return Probe{}, err
	}
	p := b.blank(kind.Name, t.Name)
	p.Mechanism, p.Space, p.Args, p.From = Tracepoint, t.AddressIs, uint8(len(params)), FromArg
	if i, ok := index(params, "call_site"); ok {
		p.CallSite = i
	}
	if p.Address, err = lookup(params, t.Obtains+t.Releases); err != nil {
		return p, err
	}
	if i, ok := index(params, t.Owner); ok && params[i].Pointee != "" {
		p.Owner = i
	}
	p.Size, err = b.size(params, t.Size)
	return p, err
}

func (b *builder) blank(kind, symbol string) Probe {
	p := Probe{
		Kind: kind, Symbol: symbol, Kinds: b.kinds(kind), Tag: b.tag(kind),
		Address: NoArg, Count: NoArg, CallSite: NoArg, NotIf: NoArg, Replaces: NoArg,
		Owner: NoArg, List: NoArg, Last: NoArg,
		Size: Size{A: NoArg, B: NoArg},
	}
	if k, ok := b.catalog.Kind(kind); ok {
		p.Counted = k.Counted
	}
	return p
}

// maxArgs is how many arguments a trampoline passes in registers
// (arch/x86/net/bpf_jit_comp.c, arch_prepare_bpf_trampoline, up to 6.6).
const maxArgs = 6

// ErrStructure says that a kernel's trampolines do not take a function's parameters.
var ErrStructure = errors.New("is a structure, which trampolines take since Linux 6.1")

func (b *builder) function(f *catalog.Function, symbol string) (Probe, error) {
	params, err := b.kernel.Params(symbol)
	var unknown *prototype.UnknownError
	if errors.As(err, &unknown) && (f.Parameters != "" || !f.NamesParameters()) {
		params, err = nil, nil
		for _, name := range strings.Fields(f.Parameters) {
			params = append(params, kernel.Param{Name: name})
		}
	}
	if err != nil {
		return Probe{}, err
	}
	for _, p := range params {
		if p.Wide {
			return Probe{}, fmt.Errorf("%s: parameter %s takes two registers", symbol, p.Name)
		}
		if p.Structure && !b.kernel.AtLeast(6, 1) {
			return Probe{}, fmt.Errorf("%s: parameter %s %w", symbol, p.Name, ErrStructure)
		}
	}
	if len(params) > maxArgs {
		return Probe{}, fmt.Errorf("%s: %d parameters, and a trampoline takes %d", symbol, len(params), maxArgs)
	}
	p := b.blank(f.Kind, symbol)
	p.Name, p.Params, p.Args, p.Space = f.Name, params, uint8(len(params)), f.AddressIs
	for i, param := range params {
		if param.Size > 0 && param.Size <= 4 {
			p.Narrow |= 1 << i
		}
	}
	p.CheckOnly, p.Foreign, p.Fills, p.Succeeds = f.CheckOnly, f.Foreign, f.Fills, f.Succeeds
	p.Kinds |= b.kinds(f.Also...) | b.kinds(f.Takes...)
	switch {
	case f.Array != "":
		p.From = FromArray
		if p.Address, err = lookup(params, f.Array); err != nil {
			return p, err
		}
		if f.Count != "return" {
			if p.Count, err = lookup(params, f.Count); err != nil {
				return p, err
			}
		}
	case f.Address != "":
		if err := b.address(&p, params, f.Address); err != nil {
			return p, err
		}
	}
	for _, arg := range []struct {
		name string
		to   *uint8
	}{{f.NotIf, &p.NotIf}, {f.Replaces, &p.Replaces}, {f.Owner, &p.Owner}} {
		if arg.name != "" {
			if *arg.to, err = lookup(params, arg.name); err != nil {
				return p, err
			}
		}
	}
	// Some kernels' functions know no list.
	if i, ok := index(params, f.List); ok {
		p.List = i
		structure, member, _ := strings.Cut(f.Link, ".")
		if p.Link, err = b.kernel.Field(structure, member); err != nil {
			return p, err
		}
	}
	if f.Last != "" {
		if p.Last, p.LastOffset, err = b.field(params, f.Last); err != nil {
			return p, err
		}
	}
	if f.Inside != "" {
		structure, member, _ := strings.Cut(f.Inside, ".")
		if p.Inside, err = b.kernel.Field(structure, member); err != nil {
			return p, err
		}
	}
	p.Size, err = b.size(params, f.Size)
	p.CompareSize = f.Size != ""
	return p, err
}

// field resolves "parameter->member".
func (b *builder) field(params []kernel.Param, expr string) (uint8, uint32, error) {
	name, member, _ := strings.Cut(expr, "->")
	i, ok := index(params, name)
	if !ok {
		return NoArg, 0, noParam(expr, params)
	}
	off, err := b.kernel.Field(params[i].Pointee, member)
	return i, off, err
}

func (b *builder) address(p *Probe, params []kernel.Param, expr string) error {
	for _, alt := range catalog.Alternatives(expr) {
		if head, _, member := strings.Cut(alt, "->"); member {
			if _, ok := index(params, head); !ok {
				continue
			}
			var err error
			p.From, p.Pointer = FromArg, true
			p.Address, p.PointerOffset, err = b.field(params, alt)
			return err
		}
		head, off, minus := strings.Cut(alt, "-")
		a, ok := index(params, head)
		if !ok {
			continue
		}
		if !minus {
			p.From, p.Address = FromArg, a
			return nil
		}
		if c, ok := index(params, off); ok {
			p.From, p.Address, p.Count = FromRCUHead, a, c
			return nil
		}
	}
	return noParam(expr, params)
}

// size resolves a size expression of the catalog.
func (b *builder) size(params []kernel.Param, expr string) (Size, error) {
	s := Size{A: NoArg, B: NoArg}
	if expr == "" {
		return s, nil
	}
	for _, alt := range catalog.Alternatives(expr) {
		switch {
		case alt == "string":
			s.From = SizeString
			return s, nil
		case alt == "page":
			s.From = SizeOrder
			return s, nil
		}
		if order, ok := strings.CutPrefix(alt, "page<<"); ok {
			if a, ok := index(params, order); ok {
				s.From, s.A = SizeOrder, a
				return s, nil
			}
			continue
		}
		if pages, ok := strings.CutPrefix(alt, "page*"); ok {
			if a, ok := index(params, pages); ok {
				s.From, s.A = SizePages, a
				return s, nil
			}
			continue
		}
		if ptr, _, ok := strings.Cut(alt, "->"); ok {
			if _, ok := index(params, ptr); !ok {
				continue
			}
			a, off, err := b.field(params, alt)
			if errors.Is(err, kernel.ErrNoLayout) {
				return s, nil // it is watched even so, and the report says that the size is unknown
			}
			if err != nil {
				return s, err
			}
			s.From, s.A, s.Offset = SizeField, a, off
			return s, nil
		}
		one, two, product := strings.Cut(alt, "*")
		a, ok := index(params, one)
		if !ok {
			continue
		}
		s.From, s.A = SizeArg, a
		if !product {
			return s, nil
		}
		if s.B, ok = index(params, two); ok {
			return s, nil
		}
	}
	return Size{A: NoArg, B: NoArg}, noParam(expr, params)
}

func index(params []kernel.Param, name string) (uint8, bool) {
	i := slices.IndexFunc(params, func(p kernel.Param) bool { return p.Name == name })
	return uint8(i), i >= 0
}

func lookup(params []kernel.Param, names string) (uint8, error) {
	for _, name := range catalog.Alternatives(names) {
		if i, ok := index(params, name); ok {
			return i, nil
		}
	}
	return NoArg, noParam(names, params)
}

func noParam(want string, have []kernel.Param) error {
	names := make([]string, len(have))
	for i, p := range have {
		names[i] = p.Name
	}
	return fmt.Errorf("no parameter %s among (%s)", want, strings.Join(names, ", "))
}

// allocating and giving are the words in names of functions that hand something out,
// and of those that do not although they have such a word.
var (
	allocating = []string{"alloc", "create", "dup", "clone", "_new"}
	giving     = []string{"free", "destroy", "remove", "release", "unregister", "put", "delete", "dealloc", "is_", "newsize", "zero_", "unlock_", "kmalloc_caches"}
)

func looksLikeAllocator(name string) bool {
	has := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
	}
	return has(allocating) && !has(giving)
}
