package plan

import (
	"errors"
	"fmt"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
)

// Checked is what a kernel has of a function of the catalog.
type Checked struct {
	Kind, Function string
	Symbol         string // the one that the kernel has; empty: none
	Role           Role
	Err            error // why it can't be watched as the catalog says
}

// Check holds a catalog against a kernel: which of its functions that kernel has,
// under which names, and whether their parameters are what the catalog takes them
// for. It fails only where the kernel can't be asked at all.
func Check(c *catalog.Catalog, k Kernel) ([]Checked, error) {
	b := builder{catalog: c, kernel: k, plan: new(Plan), seen: make(map[string]int)}
	var out []Checked
	for i := range c.Kinds {
		kind := &c.Kinds[i]
		for role, functions := range [][]*catalog.Function{kind.Obtains, kind.Releases} {
			for _, f := range functions {
				found, err := b.check(kind, f, Role(role))
				if err != nil {
					return nil, err
				}
				out = append(out, found...)
			}
		}
	}
	return out, nil
}

func (b *builder) check(kind *catalog.Kind, f *catalog.Function, role Role) ([]Checked, error) {
	var out []Checked
	base := Checked{Kind: kind.Name, Function: f.Name, Role: role}
	symbols := f.Symbols
	if len(symbols) == 0 {
		symbols = f.Via
	}
	for _, symbol := range symbols {
		at := base
		at.Symbol = symbol
		_, err := b.kernel.Params(symbol)
		switch {
		case errors.Is(err, kernel.ErrNoBTF):
			return nil, err
		case errors.Is(err, kernel.ErrNoFunction) && len(f.Symbols) > 0:
			continue // another name is the one of this kernel
		case len(f.Via) > 0:
			err = b.checkVia(kind, f)
		default:
			err = b.checkFunction(f, symbol)
		}
		at.Err = err
		out = append(out, at)
	}
	if len(out) == 0 {
		out = append(out, base)
	}
	return out, nil
}

func (b *builder) checkVia(kind *catalog.Kind, f *catalog.Function) error {
	var last error
	for _, name := range f.Via {
		err := b.checkFunction(nil, name)
		for i := range kind.Tracepoints {
			if kind.Tracepoints[i].Name == name {
				_, err = b.tracepoint(kind, &kind.Tracepoints[i])
			}
		}
		if at, ok := b.catalog.Obtain(name); ok && err != nil {
			err = b.checkFunction(at, name)
		}
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

// checkFunction also wants addresses to be pointers, or numbers where pages are named
// so, and sizes to be numbers.
func (b *builder) checkFunction(f *catalog.Function, symbol string) error {
	if f == nil {
		return fmt.Errorf("%s: %w", symbol, kernel.ErrNoFunction)
	}
	p, err := b.function(f, symbol)
	if err != nil {
		return err
	}
	params := p.Params
	is := func(i uint8, what string, classes ...kernel.Class) error {
		if int(i) >= len(params) || params[i].Class == "" {
			return nil
		}
		for _, c := range classes {
			if params[i].Class == c {
				return nil
			}
		}
		return fmt.Errorf("%s: parameter %s is no %s", symbol, params[i].Name, what)
	}
	address := is(p.Address, "pointer", kernel.Pointer)
	if p.Space == catalog.PageAddress {
		address = is(p.Address, "address", kernel.Pointer, kernel.Integer)
	}
	size := error(nil)
	if p.Size.From == SizeArg || p.Size.From == SizeOrder || p.Size.From == SizePages {
		size = is(p.Size.A, "number", kernel.Integer)
	}
	return errors.Join(address, size,
		is(p.Owner, "pointer", kernel.Pointer), is(p.Replaces, "pointer", kernel.Pointer), is(p.List, "pointer", kernel.Pointer))
}

// Unknown lists the imports of the plan's targets that by their names hand out
// something, and that the catalog does not know.
func (p *Plan) Unknown(c *catalog.Catalog) []string {
	var out []string
	for _, t := range p.Targets {
		for _, im := range t.Imports {
			_, obtains := c.Obtain(im.Name)
			_, releases := c.Release(im.Name)
			if !obtains && !releases && looksLikeAllocator(im.Name) {
				out = union(out, []string{im.Name})
			}
		}
	}
	return out
}
