package filter

import (
	"fmt"
	"go/token"
	"math"
	"slices"
	"strings"
	"unsafe"

	"kedr/internal/errno"
	"kedr/internal/near"
	"kedr/internal/trace"
)

// Input is what a filter judges: struct filter_in of the programs.
type Input struct {
	Args     [trace.MaxArgs]uint64 // by Param.Slot; what is behind a smaller value is anything
	Result   uint64
	Duration uint64 // ns
	PID, TID uint32
	CPU      uint32
	Context  uint32 // trace.InTask and so on
	Comm     [16]byte
}

// Where a result and a duration are used, the call has to be over.
var properties = map[string]struct {
	offset, size int
	atReturn     bool
}{
	"pid":      {int(unsafe.Offsetof(Input{}.PID)), 4, false},
	"tid":      {int(unsafe.Offsetof(Input{}.TID)), 4, false},
	"cpu":      {int(unsafe.Offsetof(Input{}.CPU)), 4, false},
	"context":  {int(unsafe.Offsetof(Input{}.Context)), 4, false},
	"comm":     {int(unsafe.Offsetof(Input{}.Comm)), 0, false},
	"duration": {int(unsafe.Offsetof(Input{}.Duration)), 8, true},
	"ret":      {int(unsafe.Offsetof(Input{}.Result)), 8, true},
	"failed":   {int(unsafe.Offsetof(Input{}.Result)), 0, true},
}

// contexts are names that mean something beside the property context only.
var contexts = map[string]uint64{"task": trace.InTask, "softirq": trace.InSoftirq, "hardirq": trace.InHardirq, "nmi": trace.InNMI}

// UnknownError says that a function has no operand of a name, so that the filter can't
// judge its calls.
type UnknownError struct {
	Function string
	Name     string
	Reason   string
	err      *Error
}

func (e *UnknownError) Error() string { return e.err.Error() }
func (e *UnknownError) Unwrap() error { return e.err }

// value is a part of a condition whose names mean something.
type value struct {
	op   token.Token // INT: a constant; IDENT: an operand; else an operation
	x, y *value
	pos  int

	// signed numbers are compared, divided and shifted as such. A signed constant is
	// what stands beside it.
	signed bool
	number uint64 // of a constant

	offset, size int    // of an operand in Input
	text         string // that comm is compared with
	depth        int    // how many values have to be held while it is computed
}

func (v *value) constant() bool { return v.op == token.INT }
func (v *value) leaf() bool     { return v.op == token.INT || v.op == token.IDENT }

// truth says whether a value is 0 or 1 for being true or not.
func (v *value) truth() bool {
	switch v.op {
	case token.LAND, token.LOR, token.NOT, token.STRING:
		return true
	}
	return isComparison(v.op)
}

// resolver says what the names of a condition mean for one function.
type resolver struct {
	*source
	function *trace.Function
	consts   map[string]uint64
	atReturn bool
}

func (r *resolver) unknown(n *node, reason string) error {
	operands := r.operands()
	text := fmt.Sprintf("%s has no operand %s", r.function.Name, n.name)
	if reason != "" {
		text = reason
	} else {
		var candidates []string
		candidates = append(candidates, operands...)
		for name := range properties {
			candidates = append(candidates, name)
		}
		for _, t := range r.types() {
			for _, v := range t.Names {
				candidates = append(candidates, v.Name)
			}
		}
		for name := range r.consts {
			candidates = append(candidates, name)
		}
		text += near.Hint(n.name, candidates)
	}
	return &UnknownError{Function: r.function.Name, Name: n.name, Reason: text, err: r.fail(n.pos, "%s", text)}
}

// operands are the names of the function's parameters.
func (r *resolver) operands() []string {
	var names []string
	for _, p := range r.function.Params {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// types are those whose values have names.
func (r *resolver) types() []trace.Type {
	var types []trace.Type
	for _, p := range r.function.Params {
		types = append(types, p.Type)
	}
	return append(types, r.function.Result)
}

func fixed(n *node, number uint64) *value {
	return &value{op: token.INT, number: number, signed: true, pos: n.pos}
}

func (r *resolver) resolve(n *node) (*value, error) {
	switch n.kind {
	case constant:
		v := fixed(n, n.value)
		v.signed = n.value <= math.MaxInt64
		return v, nil
	case name:
		return r.name(n)
	}
	if n.y != nil && n.y.kind == text {
		v, err := r.property(n.x, "comm")
		if err != nil {
			return nil, err
		}
		v = &value{op: token.STRING, text: n.y.name, offset: v.offset, pos: n.pos, signed: true}
		if n.op == token.NEQ {
			return &value{op: token.NOT, x: v, pos: n.pos, signed: true}, nil
		}
		return v, nil
	}
	if v, err := r.beside(n); v != nil || err != nil {
		return v, err
	}
	x, err := r.resolve(n.x)
	if err != nil {
		return nil, err
	}
	if n.y == nil {
		return r.unary(n, x), nil
	}
	y, err := r.resolve(n.y)
	if err != nil {
		return nil, err
	}
	return r.operation(n, x, y)
}

// beside resolves a comparison of a property with a name that means something there:
// context == hardirq, and ret == ENOMEM, which is -ENOMEM because no function returns
// anything else.
func (r *resolver) beside(n *node) (*value, error) {
	if n.y == nil || n.op != token.EQL && n.op != token.NEQ || n.x.kind != name || n.y.kind != name {
		return nil, nil
	}
	for _, pair := range [][2]*node{{n.x, n.y}, {n.y, n.x}} {
		of, word := pair[0], pair[1]
		if of.from == ofArgs || word.from != anywhere {
			continue
		}
		number, ok := contexts[word.name]
		ok = ok && of.name == "context"
		if of.name == "ret" {
			var e int
			if e, ok = errno.Number(word.name); ok {
				number = uint64(-int64(e))
			}
		}
		if !ok {
			continue
		}
		x, err := r.resolve(of)
		if err != nil {
			return nil, err
		}
		return r.operation(n, x, fixed(word, number))
	}
	return nil, nil
}

func (r *resolver) name(n *node) (*value, error) {
	_, isProperty := properties[n.name]
	isParam := slices.Contains(r.operands(), n.name)
	switch {
	case n.from == ofCall && !isProperty:
		return nil, r.fail(n.pos, "a call has no %s: it has %s", n.name, strings.Join(propertyNames(), ", "))
	case n.from == anywhere && n.name == "comm" && !isParam, n.from == ofCall && n.name == "comm":
		return nil, r.fail(n.pos, "the name of the process can only be compared with a text: comm == \"insmod\"")
	case n.from == ofCall || n.from == anywhere && isProperty:
		return r.property(n, n.name)
	case isParam:
		return r.param(n)
	case n.from == ofArgs:
		return nil, r.unknown(n, "")
	}
	if number, ok := r.lookUp(n.name); ok {
		return fixed(n, number), nil
	}
	return nil, r.unknown(n, "")
}

func propertyNames() []string {
	var names []string
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// lookUp finds the number of a name.
func (r *resolver) lookUp(name string) (uint64, bool) {
	switch name {
	case "true":
		return 1, true
	case "false", "NULL":
		return 0, true
	}
	for _, t := range r.types() {
		for _, v := range t.Names {
			if v.Name == name {
				return v.Value, true
			}
		}
	}
	if v, ok := r.consts[name]; ok {
		return v, true
	}
	if e, ok := errno.Number(name); ok {
		return uint64(e), true
	}
	return 0, false
}

func (r *resolver) param(n *node) (*value, error) {
	i := slices.IndexFunc(r.function.Params, func(p trace.Param) bool { return p.Name == n.name })
	p := r.function.Params[i]
	if p.Slot < 0 || p.Slot >= trace.MaxArgs {
		return nil, r.unknown(n, fmt.Sprintf("parameter %s of %s is not in a register, and its value is not known", p.Name, r.function.Name))
	}
	return r.operand(n, p.Type, int(unsafe.Sizeof(uint64(0)))*p.Slot, "parameter "+p.Name)
}

// operand reads a value of a type.
func (r *resolver) operand(n *node, t trace.Type, offset int, what string) (*value, error) {
	v := &value{op: token.IDENT, pos: n.pos, offset: offset, size: t.Size}
	switch t.Class {
	case trace.Int, trace.Char, trace.Enum, trace.Flags:
		v.signed = t.Signed
	case trace.Bool:
	case trace.Pointer, trace.String:
		v.size = 8
	case trace.Void:
		return nil, r.unknown(n, r.function.Name+" returns nothing")
	default:
		return nil, r.unknown(n, fmt.Sprintf("%s of %s is %s, which is no number", what, r.function.Name, t.Name))
	}
	switch v.size {
	case 1, 2, 4, 8:
		return v, nil
	}
	return nil, r.unknown(n, fmt.Sprintf("%s of %s has %d bytes, which is no number", what, r.function.Name, v.size))
}

func (r *resolver) property(n *node, name string) (*value, error) {
	if n.from == anywhere && slices.Contains(r.operands(), name) {
		return nil, r.fail(n.pos, "%s is a parameter of %s as well: write arg.%s, or call.%s", name, r.function.Name, name, name)
	}
	p := properties[name]
	r.atReturn = r.atReturn || p.atReturn
	v := &value{op: token.IDENT, offset: p.offset, size: p.size, pos: n.pos}
	switch name {
	case "ret":
		if !r.function.Known {
			return nil, r.unknown(n, "the types of "+r.function.Name+" are not known")
		}
		return r.operand(n, r.function.Result, p.offset, "the result")
	case "failed":
		return r.failed(n, p.offset), nil
	}
	return v, nil
}

// failed is true for a pointer that is NULL or an error, and for an integer that is one.
// What returns anything else does not fail.
func (r *resolver) failed(n *node, offset int) *value {
	t := r.function.Result
	no := fixed(n, 0)
	if !r.function.Known {
		return no
	}
	v, err := r.operand(n, t, offset, "the result")
	if err != nil {
		return no
	}
	compare := func(op token.Token, number int64) *value {
		return &value{op: op, x: v, y: fixed(n, uint64(number)), pos: n.pos, signed: true}
	}
	pointer := t.Class == trace.Pointer || t.Class == trace.String
	switch {
	case pointer:
		return &value{op: token.LOR, x: compare(token.EQL, 0), y: compare(token.GEQ, -errno.Max), pos: n.pos, signed: true}
	case t.Class == trace.Int && v.signed && t.Size >= 4:
		return &value{op: token.LAND, x: compare(token.LSS, 0), y: compare(token.GEQ, -errno.Max), pos: n.pos, signed: true}
	case t.Class == trace.Int && t.Size == 8: // as get_unmapped_area has it, IS_ERR_VALUE
		return compare(token.GEQ, -errno.Max)
	}
	return no
}

func (r *resolver) unary(n *node, x *value) *value {
	v := &value{op: n.op, x: x, pos: n.pos, signed: x.signed}
	if n.op == token.NOT {
		v.signed = true
	}
	if n.op == token.ADD {
		return x
	}
	if !x.constant() {
		return v
	}
	c := fixed(n, x.number)
	c.signed = x.signed
	switch n.op {
	case token.SUB:
		c.number = -x.number
		// The smallest number is written as the negative of one that is too large.
		c.signed = c.signed || x.number == 1<<63
	case token.XOR:
		c.number = ^x.number
	case token.NOT:
		c.number, c.signed = boolean(x.number == 0), true
	}
	return c
}

func (r *resolver) operation(n *node, x, y *value) (*value, error) {
	v := &value{op: n.op, x: x, y: y, pos: n.pos, signed: true}
	switch n.op {
	case token.LAND, token.LOR:
		return r.logical(n, x, y), nil
	case token.SHL, token.SHR:
		if y.constant() && y.number > 63 {
			return nil, r.fail(n.y.pos, "a value of 64 bits can't be shifted by %d", int64(y.number))
		}
		v.signed = x.signed
	default:
		v.x, v.y = adapted(x, y, n.op), adapted(y, x, n.op)
		v.signed = signedPair(x, y)
	}
	if (n.op == token.QUO || n.op == token.REM) && y.constant() && y.number == 0 {
		return nil, r.fail(n.y.pos, "division by zero")
	}
	signed := v.signed
	v.signed = signed || isComparison(n.op) // a truth value is
	if x.constant() && y.constant() {
		c := fixed(n, compute(n.op, v.x.number, v.y.number, signed))
		c.signed = v.signed
		return c, nil
	}
	return v, nil
}

// signedPair says whether an operation with these is one of signed numbers: it is if
// both are. A constant is what the other one is, unless it is too large for that.
func signedPair(x, y *value) bool {
	switch {
	case x.constant() && x.signed:
		return y.signed
	case y.constant() && y.signed:
		return x.signed
	}
	return x.signed && y.signed
}

// adapted is a constant as the type of the operand beside it has it: -1 beside 32
// unsigned bits is 0xffffffff, and that beside 32 signed ones is -1.
func adapted(c, operand *value, op token.Token) *value {
	if !c.constant() || !c.signed || operand.op != token.IDENT || operand.size == 8 || !isComparison(op) {
		return c
	}
	bits := 8 * operand.size
	a := *c
	switch {
	case !operand.signed && int64(c.number) < 0:
		a.number &= 1<<bits - 1
	case operand.signed && (op == token.EQL || op == token.NEQ) && int64(c.number) > 0 && c.number>>bits == 0:
		a.number = uint64(int64(c.number<<(64-bits)) >> (64 - bits))
	}
	return &a
}

func (r *resolver) logical(n *node, x, y *value) *value {
	decides := uint64(0) // false && y is false
	if n.op == token.LOR {
		decides = 1
	}
	for _, pair := range [][2]*value{{x, y}, {y, x}} {
		if c := pair[0]; c.constant() {
			if truth := boolean(c.number != 0); truth == decides {
				return fixed(n, truth)
			}
			other := pair[1]
			if other.constant() {
				return fixed(n, boolean(other.number != 0))
			}
			if other.truth() {
				return other
			}
			return &value{op: token.NEQ, x: other, y: fixed(n, 0), pos: n.pos, signed: true}
		}
	}
	return &value{op: n.op, x: x, y: y, pos: n.pos, signed: true}
}

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// compute is an operation of constants, none of which divides by zero.
func compute(op token.Token, x, y uint64, signed bool) uint64 {
	less, equal := x < y, x == y
	if signed {
		less = int64(x) < int64(y)
	}
	switch op {
	case token.ADD:
		return x + y
	case token.SUB:
		return x - y
	case token.MUL:
		return x * y
	case token.QUO:
		if signed {
			return uint64(int64(x) / int64(y))
		}
		return x / y
	case token.REM:
		if signed {
			return uint64(int64(x) % int64(y))
		}
		return x % y
	case token.AND:
		return x & y
	case token.OR:
		return x | y
	case token.XOR:
		return x ^ y
	case token.AND_NOT:
		return x &^ y
	case token.SHL:
		return x << y
	case token.SHR:
		if signed {
			return uint64(int64(x) >> y)
		}
		return x >> y
	case token.EQL:
		return boolean(equal)
	case token.NEQ:
		return boolean(!equal)
	case token.LSS:
		return boolean(less)
	case token.LEQ:
		return boolean(less || equal)
	case token.GTR:
		return boolean(!less && !equal)
	}
	return boolean(!less) // GEQ
}

// hold says how many values have to be held at once to compute this one, for which the
// side that needs more goes first.
func (v *value) hold() int {
	if v.leaf() || v.op == token.STRING {
		return 0
	}
	if v.depth > 0 {
		return v.depth - 1
	}
	n := v.x.hold()
	if v.y != nil {
		m := v.y.hold()
		switch {
		case v.x.leaf() || v.y.leaf() || v.op == token.LAND || v.op == token.LOR:
			n = max(n, m)
		default:
			n, m = max(n, m), min(n, m)
			n = max(n, m+1)
		}
	}
	v.depth = n + 1
	return n
}

// describe lists what functions have, for an error.
func describe(functions []trace.Function) string {
	var list []string
	for _, f := range functions[:min(len(functions), 4)] {
		r := resolver{function: &f}
		names := r.operands()
		if len(names) == 0 {
			names = []string{"none"}
		}
		list = append(list, f.Name+" has "+strings.Join(names, ", "))
	}
	if len(functions) > 4 {
		list = append(list, "and so on")
	}
	return strings.Join(list, "; ") + "; every call has " + strings.Join(propertyNames(), ", ")
}
