package trace

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kedr/internal/errno"
)

// number takes a value's own bytes out of its 64-bit word: of what lies above them nothing
// is known.
func (t *Type) number(raw uint64) uint64 {
	if t.Size <= 0 || t.Size >= 8 {
		return raw
	}
	bits := uint(8 * t.Size)
	if raw &= 1<<bits - 1; t.Signed && raw>>(bits-1) != 0 {
		raw |= ^uint64(0) << bits
	}
	return raw
}

// Error returns the name of the error that a result is, without its sign, and whether it
// is one. A call that returns no pointer where it should has failed, and names no error.
func (t *Type) Error(raw uint64) (name string, failed bool) {
	v := t.number(raw)
	switch t.Class {
	case Int:
		if !t.Signed || t.Size < 4 {
			return "", false
		}
	case Pointer, String:
		if v == 0 {
			return "", true
		}
	default:
		return "", false
	}
	if n := -v; n >= 1 && n <= errno.Max {
		return errno.Name(int(n)), true
	}
	return "", false
}

// Format shows a value. A String is shown by Captured.Format.
func (t *Type) Format(raw uint64) string {
	v := t.number(raw)
	switch t.Class {
	case Void:
		return ""
	case Bool:
		if v&0xff != 0 {
			return "true"
		}
		return "false"
	case Char:
		if c := byte(v); c >= ' ' && c < 0x7f {
			return strconv.QuoteRune(rune(c))
		}
		return strconv.FormatInt(int64(v), 10)
	case Enum:
		for _, n := range t.Names {
			if t.number(n.Value) == v {
				return n.Name
			}
		}
	case Flags:
		return t.flags(v)
	case Pointer, String:
		return t.pointer(v)
	case Struct:
		return "{...}"
	}
	switch {
	case t.Base == 16:
		return fmt.Sprintf("%#x", v)
	case t.Base == 8:
		return fmt.Sprintf("%#o", v)
	case t.Signed:
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatUint(v, 10)
}

// FormatResult shows what a function returned; "" for nothing. A small negative number is
// an error.
func (t *Type) FormatResult(raw uint64) string {
	if name, failed := t.Error(raw); failed && name != "" {
		return "-" + name
	}
	return t.Format(raw)
}

func (t *Type) pointer(v uint64) string {
	if v == 0 {
		return "NULL"
	}
	if n := -v; n <= errno.Max {
		if name := errno.Name(int(n)); name != "" {
			return "-" + name
		}
		return "-" + strconv.FormatUint(n, 10)
	}
	if t.Class == Pointer && t.Name != "" && t.Name != "void *" && t.Name != "const void *" {
		return fmt.Sprintf("(%s)%#x", Clean(t.Name), v)
	}
	return fmt.Sprintf("%#x", v)
}

// flags names the groups of bits first that have most of them.
func (t *Type) flags(v uint64) string {
	names := slices.Clone(t.Names)
	slices.SortStableFunc(names, func(a, b Name) int { return ones(b.Value) - ones(a.Value) })
	var out []string
	rest := v
	for _, n := range names {
		if n.Value != 0 && rest&n.Value == n.Value {
			out = append(out, n.Name)
			rest &^= n.Value
		}
	}
	if rest != 0 || len(out) == 0 {
		if i := slices.IndexFunc(names, func(n Name) bool { return n.Value == 0 }); rest == 0 && i >= 0 {
			return names[i].Name
		}
		if rest == 0 {
			return "0"
		}
		out = append(out, fmt.Sprintf("%#x", rest))
	}
	return strings.Join(out, "|")
}

func ones(v uint64) (n int) {
	for ; v != 0; v &= v - 1 {
		n++
	}
	return n
}

// Clean keeps what a terminal would act upon out of a name.
func Clean(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r > 0x7e }) {
		return s
	}
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}

// Format shows what was found in memory, as its type has it.
func (c *Captured) Format(t *Type) string {
	switch {
	case c.Failed:
		return "(unreadable)"
	case t.Class == String:
		s := strconv.QuoteToASCII(string(c.Data))
		if c.Cut {
			s += "..."
		}
		return s
	}
	var raw uint64
	for i, b := range c.Data[:min(len(c.Data), 8)] {
		raw |= uint64(b) << (8 * i)
	}
	return t.Format(raw)
}

// Arg is an argument of a call, shown.
type Arg struct {
	Name  string
	Value string
	Raw   uint64
	Known bool // Raw was recorded
}

// Args shows the arguments of a call.
func (f *Function) Args(e *Event) []Arg {
	args := make([]Arg, 0, len(f.Params))
	for i := range f.Params {
		p := &f.Params[i]
		a := Arg{Name: Clean(p.Name), Value: "?"}
		if p.Slot < len(e.Args) {
			a.Raw, a.Known = p.Type.number(e.Args[p.Slot]), true
			a.Value = p.Type.Format(e.Args[p.Slot])
		}
		a.Value = f.captured(e, i, a.Raw, a.Value)
		args = append(args, a)
	}
	return args
}

// Error is Type.Error of the result. Of a function that is not Known it is not known whether
// it returns anything; an error is not there by chance.
func (f *Function) Error(result uint64) (name string, failed bool) {
	if !f.Known {
		t := Type{Class: Int, Size: 4, Signed: true}
		return t.Error(result)
	}
	return f.Result.Error(result)
}

// ResultOf shows what a call returned; "" for nothing.
func (f *Function) ResultOf(result uint64, captured []Captured) string {
	if !f.Known {
		if name, failed := f.Error(result); failed && name != "" {
			return "-" + name
		}
		return ""
	}
	if f.Result.Class == Void {
		return ""
	}
	e := Event{Captured: captured}
	return f.captured(&e, -1, result, f.Result.FormatResult(result))
}

// captured adds what was found where an argument points: its text takes the place of the
// pointer, fields stand behind it.
func (f *Function) captured(e *Event, param int, raw uint64, shown string) string {
	var fields []string
	for i := range e.Captured {
		c := &e.Captured[i]
		if c.Capture < 0 || c.Capture >= len(f.Captures) {
			continue
		}
		to := &f.Captures[c.Capture]
		if to.Param != param || raw == 0 || -raw <= errno.Max {
			continue
		}
		switch {
		case to.Field != "":
			fields = append(fields, Clean(to.Field)+"="+c.Format(&to.Type))
		case c.Failed:
			shown += " (unreadable)"
		default:
			shown = c.Format(&to.Type)
		}
	}
	if len(fields) > 0 {
		shown += "{" + strings.Join(fields, ", ") + "}"
	}
	return shown
}
