// Package oracle says whether a call matches a filter, in a way that has nothing in common
// with how filters are compiled: it walks Go's syntax tree and computes, as docs/filters.md
// has it. And it invents filters, and calls to judge by them.
package oracle

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"strconv"
	"strings"

	"kedr/internal/trace"
	"kedr/internal/trace/filter"
)

// errNoMatch ends a division by zero.
var errNoMatch = errors.New("division by zero")

// number is a value with what is known of it.
type number struct {
	bits     uint64
	signed   bool
	constant bool // as such it is what stands beside it, if it is signed
	width    int  // of an operand as it is, in bits; else 0
}

// Match judges a call. The text has to be one that filter.Parse takes, without a
// parameter that is a keyword of Go, and without units at numbers.
func Match(text string, f *trace.Function, consts map[string]uint64, in *filter.Input) (bool, error) {
	e, err := parser.ParseExpr(text)
	if err != nil {
		return false, err
	}
	j := judge{f, consts, in, make(map[ast.Expr][2]bool)}
	n, err := j.eval(e)
	if errors.Is(err, errNoMatch) {
		return false, nil
	}
	return n.bits != 0, err
}

type judge struct {
	f      *trace.Function
	consts map[string]uint64
	in     *filter.Input
	known  map[ast.Expr][2]bool // what decided has said
}

func truth(b bool) number {
	if b {
		return number{bits: 1, signed: true}
	}
	return number{signed: true}
}

func fixed(bits uint64) number { return number{bits: bits, signed: true, constant: true} }

// operand cuts off what is not the value's, and extends it.
func operand(word uint64, bits int, signed bool) number {
	n := number{signed: signed, width: bits}
	switch {
	case signed:
		n.bits = uint64(int64(word<<(64-bits)) >> (64 - bits))
	default:
		n.bits = word << (64 - bits) >> (64 - bits)
	}
	return n
}

func (j *judge) typed(word uint64, t trace.Type) number {
	if t.Class == trace.Pointer || t.Class == trace.String {
		return operand(word, 64, false)
	}
	return operand(word, 8*t.Size, t.Signed && t.Class != trace.Bool)
}

func (j *judge) name(name string) (number, error) {
	switch name {
	case "pid":
		return operand(uint64(j.in.PID), 32, false), nil
	case "tid":
		return operand(uint64(j.in.TID), 32, false), nil
	case "cpu":
		return operand(uint64(j.in.CPU), 32, false), nil
	case "duration":
		return operand(j.in.Duration, 64, false), nil
	case "ret":
		return j.typed(j.in.Result, j.f.Result), nil
	case "failed":
		r := j.typed(j.in.Result, j.f.Result)
		low := int64(r.bits) >= -4095 && int64(r.bits) < 0
		t := j.f.Result
		switch {
		case t.Class == trace.Pointer || t.Class == trace.String:
			return truth(low || r.bits == 0), nil
		case t.Class == trace.Int && (t.Signed && t.Size >= 4 || t.Size == 8):
			return truth(low), nil
		}
		return fixed(0), nil
	case "true":
		return fixed(1), nil
	case "false", "NULL":
		return fixed(0), nil
	case "ENOMEM":
		return fixed(12), nil
	}
	for _, p := range j.f.Params {
		if p.Name == name {
			return j.typed(j.in.Args[p.Slot], p.Type), nil
		}
		for _, v := range p.Type.Names {
			if v.Name == name {
				return fixed(v.Value), nil
			}
		}
	}
	if v, ok := j.consts[name]; ok {
		return fixed(v), nil
	}
	return number{}, fmt.Errorf("no %s", name)
}

func (j *judge) eval(e ast.Expr) (number, error) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return j.eval(e.X)
	case *ast.Ident:
		return j.name(e.Name)
	case *ast.SelectorExpr:
		return j.name(e.Sel.Name)
	case *ast.BasicLit:
		if e.Kind == token.CHAR {
			s, err := strconv.Unquote(e.Value)
			return fixed(uint64(s[0])), err
		}
		v, err := strconv.ParseUint(e.Value, 0, 64)
		return number{bits: v, signed: v>>63 == 0, constant: true}, err
	case *ast.UnaryExpr:
		x, err := j.eval(e.X)
		if err != nil {
			return x, err
		}
		switch e.Op {
		case token.NOT:
			n := truth(x.bits == 0)
			n.constant = x.constant
			return n, nil
		case token.ADD:
			return x, nil
		case token.SUB:
			signed := x.signed || x.constant && x.bits == 1<<63
			return number{bits: -x.bits, signed: signed, constant: x.constant}, nil
		default:
			return number{bits: ^x.bits, signed: x.signed, constant: x.constant}, nil
		}
	case *ast.BinaryExpr:
		return j.binary(e)
	}
	return number{}, fmt.Errorf("%T", e)
}

// decided is a part whose truth does not depend on the call.
func (j *judge) decided(e ast.Expr) (result, known bool) {
	e = ast.Unparen(e)
	if before, ok := j.known[e]; ok {
		return before[0], before[1]
	}
	result, known = j.decide(e)
	j.known[e] = [2]bool{result, known}
	return result, known
}

func (j *judge) decide(e ast.Expr) (result, known bool) {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		x, xKnown := j.decided(e.X)
		y, yKnown := j.decided(e.Y)
		switch e.Op {
		case token.LAND:
			if xKnown && !x || yKnown && !y {
				return false, true
			}
			return x && y, xKnown && yKnown
		case token.LOR:
			if xKnown && x || yKnown && y {
				return true, true
			}
			return x || y, xKnown && yKnown
		}
		if _, ok := j.decidedNumber(e.X); !ok {
			return false, false
		}
		if _, ok := j.decidedNumber(e.Y); !ok {
			return false, false
		}
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			x, known := j.decided(e.X)
			return !x, known
		}
		if _, ok := j.decidedNumber(e.X); !ok {
			return false, false
		}
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return false, false
		}
	}
	n, err := j.eval(e)
	return n.bits != 0, err == nil && n.constant
}

func (j *judge) decidedNumber(e ast.Expr) (number, bool) {
	if _, known := j.decided(e); !known {
		return number{}, false
	}
	n, err := j.eval(e)
	return n, err == nil
}

func (j *judge) binary(e *ast.BinaryExpr) (number, error) {
	if text, ok := ast.Unparen(e.Y).(*ast.BasicLit); ok && text.Kind == token.STRING {
		want, err := strconv.Unquote(text.Value)
		name, _, _ := strings.Cut(string(j.in.Comm[:]), "\x00")
		return truth((name == want) == (e.Op == token.EQL)), err
	}
	if e.Op == token.LAND || e.Op == token.LOR {
		stop := e.Op == token.LOR
		// What does not depend on the call goes before what might divide by zero.
		if b, known := j.decided(e); known {
			n := truth(b)
			n.constant = true
			return n, nil
		}
		for _, side := range []ast.Expr{e.X, e.Y} {
			if b, known := j.decided(side); known && b == stop {
				return truth(stop), nil
			}
		}
		x, err := j.eval(e.X)
		if err != nil || (x.bits != 0) == stop {
			return truth(x.bits != 0), err
		}
		y, err := j.eval(e.Y)
		return truth(y.bits != 0), err
	}
	x, err := j.eval(e.X)
	if err != nil {
		return x, err
	}
	y, err := j.eval(e.Y)
	if err != nil {
		return y, err
	}
	constant := x.constant && y.constant
	signed := x.signed && y.signed
	switch {
	case x.constant && x.signed && !y.constant:
		signed = y.signed
	case y.constant && y.signed && !x.constant:
		signed = x.signed
	}
	switch e.Op {
	case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
		order := e.Op != token.EQL && e.Op != token.NEQ
		a, b := converted(x, y, order).bits, converted(y, x, order).bits
		less := a < b
		if signed {
			less = int64(a) < int64(b)
		}
		n := truth(map[token.Token]bool{
			token.EQL: a == b, token.NEQ: a != b, token.LSS: less, token.LEQ: less || a == b, token.GTR: !less && a != b, token.GEQ: !less,
		}[e.Op])
		n.constant = constant
		return n, nil
	}
	n := number{signed: signed, constant: constant}
	a, b := x.bits, y.bits
	switch e.Op {
	case token.ADD:
		n.bits = a + b
	case token.SUB:
		n.bits = a - b
	case token.MUL:
		n.bits = a * b
	case token.AND:
		n.bits = a & b
	case token.OR:
		n.bits = a | b
	case token.XOR:
		n.bits = a ^ b
	case token.AND_NOT:
		n.bits = a &^ b
	case token.SHL:
		n.bits, n.signed = a<<(b&63), x.signed
	case token.SHR:
		n.bits, n.signed = a>>(b&63), x.signed
		if x.signed {
			n.bits = uint64(int64(a) >> (b & 63))
		}
	case token.QUO, token.REM:
		switch {
		case b == 0:
			return n, errNoMatch
		case e.Op == token.QUO && signed:
			n.bits = uint64(int64(a) / int64(b))
		case e.Op == token.QUO:
			n.bits = a / b
		case signed:
			n.bits = uint64(int64(a) % int64(b))
		default:
			n.bits = a % b
		}
	}
	return n, nil
}

// converted is a constant beside an operand of fewer than 64 bits.
func converted(c, beside number, order bool) number {
	if !c.constant || !c.signed || beside.width == 0 || beside.width == 64 {
		return c
	}
	switch negative := int64(c.bits) < 0; {
	case negative && !beside.signed:
		c.bits = c.bits << (64 - beside.width) >> (64 - beside.width)
	case !negative && beside.signed && !order && c.bits>>beside.width == 0:
		c.bits = uint64(int64(c.bits<<(64-beside.width)) >> (64 - beside.width))
	}
	return c
}

// Function has an operand of each type.
func Function() *trace.Function {
	integer := func(size int, signed bool) trace.Type {
		return trace.Type{Class: trace.Int, Size: size, Signed: signed}
	}
	return &trace.Function{
		Name: "f", Known: true,
		Params: []trace.Param{
			{Name: "u64", Type: integer(8, false), Slot: 0},
			{Name: "i32", Type: integer(4, true), Slot: 1},
			{Name: "u32", Type: trace.Type{Class: trace.Flags, Size: 4, Names: []trace.Name{{Value: 0xcc0, Name: "GFP_KERNEL"}, {Value: 0x100, Name: "__GFP_ZERO"}}}, Slot: 2},
			{Name: "i8", Type: trace.Type{Class: trace.Char, Size: 1, Signed: true}, Slot: 3},
			{Name: "u16", Type: integer(2, false), Slot: 4},
			{Name: "p", Type: trace.Type{Class: trace.Pointer, Size: 8}, Slot: 5},
		},
		Result: integer(8, true),
	}
}

// Functions are such ones, with other types.
func Functions() []*trace.Function {
	a, b, c := Function(), Function(), Function()
	b.Result = trace.Type{Class: trace.Pointer, Size: 8}
	for i := range b.Params {
		b.Params[i].Slot = 5 - i
	}
	c.Result = trace.Type{Class: trace.Int, Size: 4, Signed: true}
	c.Params[0].Type = trace.Type{Class: trace.Enum, Size: 4, Signed: true, Names: []trace.Name{{Value: ^uint64(0), Name: "MINUS"}}}
	c.Params[4].Type = trace.Type{Class: trace.Bool, Size: 1}
	return []*trace.Function{a, b, c}
}

var (
	names    = []string{"u64", "i32", "u32", "i8", "u16", "p", "pid", "tid", "cpu", "ret", "duration", "failed", "arg.u64", "call.ret"}
	literals = []string{"0", "1", "2", "3", "7", "10", "63", "4096", "0x100", "0xffffffff", "2147483648", "4294967296", "9223372036854775807",
		"9223372036854775808", "0xffffffffffffffff", "0xfffffff4", "-1", "-12", "-ENOMEM", "NULL", "true", "GFP_KERNEL", "__GFP_ZERO", "'a'", "255", "65535"}
	operators = []string{"&&", "||", "&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "&", "|", "^", "&^", "<<", ">>"}
)

// Filter invents one. Most are in parentheses throughout: what is not may be refused.
func Filter(r *rand.Rand, depth int) string {
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	if depth <= 0 || r.IntN(8) == 0 {
		switch r.IntN(8) {
		case 0, 1, 2:
			return pick(literals)
		case 3:
			return `(comm ` + pick([]string{"==", "!="}) + ` "` + pick([]string{"", "sh", "insmod", "kworker", "kworker/u", "fifteen-letters"}) + `")`
		}
		return pick(names)
	}
	if r.IntN(6) == 0 {
		return pick([]string{"!", "-", "^"}) + "(" + Filter(r, depth-1) + ")"
	}
	op := pick(operators)
	x, y := Filter(r, depth-1), Filter(r, depth-1)
	if (op == "<<" || op == ">>") && r.IntN(2) == 0 {
		y = strconv.Itoa(r.IntN(64))
	}
	if r.IntN(5) == 0 {
		return x + " " + op + " " + y
	}
	return "(" + x + " " + op + " " + y + ")"
}

// Input invents a call. Values are often those where types end, and what is behind a
// smaller value is anything.
func Input(r *rand.Rand) *filter.Input {
	edges := []uint64{0, 1, 2, 3, 7, 10, 12, 63, 64, 100, 127, 128, 255, 256, 0xcc0, 4096, 32768, 65535, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, ^uint64(0), ^uint64(11), ^uint64(4094), ^uint64(4095), 0xfffffff4}
	word := func() uint64 {
		switch r.IntN(4) {
		case 0:
			return r.Uint64()
		case 1:
			return r.Uint64()<<32 | edges[r.IntN(len(edges))]&0xffffffff
		case 2:
			return uint64(r.IntN(20))
		}
		return edges[r.IntN(len(edges))]
	}
	in := &filter.Input{Result: word(), Duration: word(), PID: uint32(word()), TID: uint32(word()), CPU: uint32(r.IntN(4)), Context: uint32(r.IntN(4))}
	for i := range in.Args {
		in.Args[i] = word()
	}
	for i := range in.Comm {
		in.Comm[i] = byte(r.Uint32())
	}
	comm := []string{"", "sh", "insmod", "insmo", "insmod2", "kworker", "kworker/u", "kworker/u4", "fifteen-letters", "fifteen-letterS"}[r.IntN(10)]
	in.Comm[copy(in.Comm[:], comm)] = 0
	return in
}
