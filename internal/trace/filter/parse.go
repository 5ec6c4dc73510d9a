// Package filter turns conditions on calls, as "size > 4096 && flags & __GFP_ZERO", into
// instructions of eBPF that judge a call where it happens. Nothing is evaluated
// afterwards: what does not match costs no more than to find that out.
//
// docs/filters.md says what the language is: the expressions of C with Go's precedence.
package filter

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Expr is a condition that has been read. What its names mean depends on the function
// whose calls it judges.
type Expr struct {
	source *source
	root   *node
}

func (e *Expr) String() string { return e.source.text }

// node is a part of a condition.
type node struct {
	kind  kind
	op    token.Token // of an operation; NOT, SUB, ADD and XOR may have one operand
	x, y  *node       // y is nil where there is one operand
	value uint64      // of a constant
	name  string      // or the text
	from  scope
	pos   int // in source.code
}

type kind uint8

const (
	operation kind = iota
	constant       // with op INT; a number above the largest signed one is unsigned
	name
	text
)

// scope is where a name is looked for.
type scope uint8

const (
	anywhere scope = iota
	ofArgs         // arg.NAME
	ofCall         // call.NAME
)

// maxName is the longest name of a process, 15 bytes (include/linux/sched.h,
// TASK_COMM_LEN).
const maxName = 15

// Parse reads a condition. Its error is an *Error.
func Parse(text string) (*Expr, error) {
	s, tree, err := read(text)
	if err != nil {
		return nil, err
	}
	r := reader{s}
	root, err := r.number(tree)
	if err != nil {
		return nil, err
	}
	return &Expr{source: s, root: root}, nil
}

// reader makes nodes of Go's syntax.
type reader struct{ *source }

func offset(n ast.Node) int { return int(n.Pos()) - 1 }

func (p *reader) node(e ast.Expr) (*node, error) {
	pos := offset(e)
	switch e := e.(type) {
	case *ast.ParenExpr:
		return p.node(e.X)
	case *ast.BasicLit:
		return p.literal(e)
	case *ast.Ident:
		return &node{kind: name, name: p.word(e), pos: pos}, nil
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			switch p.word(x) {
			case "arg":
				return &node{kind: name, from: ofArgs, name: p.word(e.Sel), pos: pos}, nil
			case "call":
				return &node{kind: name, from: ofCall, name: p.word(e.Sel), pos: pos}, nil
			}
		}
		return nil, p.fail(pos, "what a pointer points to can't be looked at by a filter; before a dot stands arg or call")
	case *ast.UnaryExpr:
		op := e.Op
		switch op {
		case token.TILDE:
			op = token.XOR
		case token.NOT, token.SUB, token.ADD, token.XOR:
		default:
			return nil, p.fail(pos, "%s can't be used in a filter", e.Op)
		}
		x, err := p.number(e.X)
		if err != nil {
			return nil, err
		}
		return &node{op: op, x: x, pos: pos}, nil
	case *ast.BinaryExpr:
		return p.binary(e)
	case *ast.StarExpr:
		return nil, p.fail(pos, "what a pointer points to can't be looked at by a filter")
	case *ast.CallExpr:
		return nil, p.fail(pos, "a filter can't call functions")
	}
	return nil, p.fail(pos, "this is no expression of numbers")
}

// number is a part that has to be a number.
func (p *reader) number(e ast.Expr) (*node, error) {
	n, err := p.node(e)
	if err == nil && n.kind == text {
		return nil, p.fail(n.pos, "a text can only be compared, with the name of the process: comm == %q", n.name)
	}
	return n, err
}

func (p *reader) word(i *ast.Ident) string {
	if w, ok := p.words[offset(i)]; ok {
		return w
	}
	return i.Name
}

func (p *reader) literal(l *ast.BasicLit) (*node, error) {
	n := &node{kind: constant, pos: offset(l)}
	switch l.Kind {
	case token.INT:
		value, err := strconv.ParseUint(l.Value, 0, 64)
		if err != nil {
			return nil, p.fail(n.pos, "%s is no number of 64 bits", l.Value)
		}
		n.value = value
		if unit, ok := p.units[n.pos]; ok {
			n.value *= unit
			if n.value/unit != value {
				return nil, p.fail(n.pos, "%s is no number of nanoseconds that 64 bits can hold", l.Value)
			}
		}
	case token.CHAR:
		r, _, _, err := strconv.UnquoteChar(strings.TrimPrefix(l.Value, "'"), '\'')
		if err != nil || r >= utf8.RuneSelf {
			return nil, p.fail(n.pos, "%s is no character of ASCII", l.Value)
		}
		n.value = uint64(r)
	case token.STRING:
		s, err := strconv.Unquote(l.Value)
		if err != nil {
			return nil, p.fail(n.pos, "%s is no text", l.Value)
		}
		if len(s) > maxName {
			return nil, p.fail(n.pos, "a process's name has %d bytes at most, and %s has %d", maxName, l.Value, len(s))
		}
		if strings.ContainsRune(s, 0) {
			return nil, p.fail(n.pos, "no process's name has a NUL in it")
		}
		n.kind, n.name = text, s
	default:
		return nil, p.fail(n.pos, "%s is no integer", l.Value)
	}
	return n, nil
}

func (p *reader) binary(e *ast.BinaryExpr) (*node, error) {
	pos := int(e.OpPos) - 1
	switch e.Op {
	case token.LAND, token.LOR, token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ,
		token.ADD, token.SUB, token.MUL, token.QUO, token.REM, token.AND, token.OR, token.XOR, token.AND_NOT, token.SHL, token.SHR:
	default:
		return nil, p.fail(pos, "%s can't be used in a filter", e.Op)
	}
	if err := p.precedence(e); err != nil {
		return nil, err
	}
	if (e.Op == token.EQL || e.Op == token.NEQ) && (isText(e.X) || isText(e.Y)) {
		return p.comparison(e)
	}
	x, err := p.number(e.X)
	if err != nil {
		return nil, err
	}
	y, err := p.number(e.Y)
	if err != nil {
		return nil, err
	}
	// A unit of time is one where it is multiplied with, and may be a parameter elsewhere.
	if e.Op == token.MUL {
		for _, pair := range [][2]*node{{x, y}, {y, x}} {
			unit, ok := units[pair[1].name]
			if ok && pair[0].kind == constant && pair[1].kind == name && pair[1].from == anywhere {
				*pair[1] = node{kind: constant, value: unit, pos: pair[1].pos}
			}
		}
	}
	return &node{op: e.Op, x: x, y: y, pos: pos}, nil
}

func isText(e ast.Expr) bool {
	l, ok := ast.Unparen(e).(*ast.BasicLit)
	return ok && l.Kind == token.STRING
}

// comparison reads one with a text.
func (p *reader) comparison(e *ast.BinaryExpr) (*node, error) {
	x, err := p.node(e.X)
	if err != nil {
		return nil, err
	}
	y, err := p.node(e.Y)
	if err != nil {
		return nil, err
	}
	if x.kind == text {
		x, y = y, x
	}
	if x.kind != name || x.name != "comm" || x.from == ofArgs {
		return nil, p.fail(y.pos, "a text can only be compared with the name of the process: comm == %q", y.name)
	}
	return &node{op: e.Op, x: x, y: y, pos: int(e.OpPos) - 1}, nil
}

func isComparison(op token.Token) bool {
	switch op {
	case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
		return true
	}
	return false
}

// inC is how tightly an operator binds in C.
func inC(op token.Token) int {
	switch op {
	case token.MUL, token.QUO, token.REM:
		return 10
	case token.ADD, token.SUB:
		return 9
	case token.SHL, token.SHR:
		return 8
	case token.LSS, token.LEQ, token.GTR, token.GEQ:
		return 7
	case token.EQL, token.NEQ:
		return 6
	case token.AND, token.AND_NOT:
		return 5
	case token.XOR:
		return 4
	case token.OR:
		return 3
	case token.LAND:
		return 2
	}
	return 1 // LOR
}

// precedence refuses what C would read otherwise than Go. But that & | ^ and &^ bind
// tighter than comparisons, as in flags & X == 0, is what everybody means, and in C a
// well-known mistake.
func (p *reader) precedence(e *ast.BinaryExpr) error {
	for _, operand := range []ast.Expr{e.X, e.Y} {
		inner, ok := operand.(*ast.BinaryExpr)
		if !ok {
			continue
		}
		if isComparison(e.Op) {
			if isComparison(inner.Op) {
				return p.fail(int(e.OpPos)-1, "two comparisons in a row compare a truth value: write a < b && b < c, or parentheses")
			}
			continue
		}
		same := inC(inner.Op) > inC(e.Op) || operand == e.X && inC(inner.Op) == inC(e.Op)
		if !same {
			return p.fail(int(e.OpPos)-1, "%s beside %s is read in one way by C, and in another by Go: write parentheses", inner.Op, e.Op)
		}
	}
	return nil
}
