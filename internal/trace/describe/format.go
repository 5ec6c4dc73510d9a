package describe

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"

	"kedr/internal/trace"
)

// Bounds of what is read; in 7.3 it is 5 KB, and one table.
const (
	maxFormat = 64 << 10
	maxTables = 16
)

// parseFormat reads the names of flags that an event prints, from its format file in
// tracefs: the first table of __print_flags whose word's name contains this one. The
// values there are what the preprocessor of C has left of them, with numbers, with
// shifts, or with names of an enumeration, which are looked up by enumerator. What can't
// be understood is left out.
func parseFormat(format, word string, enumerator func(name string) (uint64, bool)) ([]trace.Name, error) {
	const call = "__print_flags("
	if len(format) > maxFormat {
		return nil, fmt.Errorf("%d bytes are no format of an event", len(format))
	}
	rest := format
	for range maxTables {
		_, after, found := strings.Cut(rest, call)
		if !found {
			break
		}
		rest = after
		args := arguments(after)
		if len(args) < 3 || !strings.Contains(args[0], word) {
			continue
		}
		var names []trace.Name
		for _, entry := range args[2:] {
			entry = strings.TrimSpace(entry)
			if !strings.HasPrefix(entry, "{") || !strings.HasSuffix(entry, "}") {
				continue
			}
			pair := arguments(entry[1:len(entry)-1] + ")")
			if len(pair) != 2 {
				continue
			}
			name, err := strconv.Unquote(strings.TrimSpace(pair[1]))
			if err != nil || name == "" {
				continue // the NULL at the end of 7.x
			}
			value, err := constantOf(pair[0], enumerator)
			if err != nil || value == 0 {
				continue
			}
			names = append(names, trace.Name{Value: value, Name: name})
		}
		if len(names) > 0 {
			return names, nil
		}
	}
	return nil, errNoTable
}

// arguments splits what follows an opening parenthesis at its commas, up to the closing
// one.
func arguments(s string) []string {
	var list []string
	depth, start := 0, 0
	quoted := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(' || c == '{' || c == '[':
			depth++
		case c == ')' || c == '}' || c == ']':
			if depth == 0 {
				return append(list, s[start:i])
			}
			depth--
		case c == ',' && depth == 0:
			list = append(list, s[start:i])
			start = i + 1
		}
	}
	return nil
}

// constantOf evaluates a constant expression of C. Casts are dropped and ~ is written as
// Go has it; then Go's parser reads it. Operators that bind otherwise in C than in Go
// have to stand in parentheses.
func constantOf(s string, enumerator func(string) (uint64, bool)) (uint64, error) {
	tokens, err := tokensOf(s)
	if err != nil {
		return 0, err
	}
	e, err := parser.ParseExpr(strings.Join(dropCasts(tokens), " "))
	if err != nil {
		return 0, err
	}
	return evaluate(e, enumerator)
}

func tokensOf(s string) ([]string, error) {
	var list []string
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n':
			i++
		case isDigit(c):
			j := i
			for j < len(s) && isWord(s[j]) {
				j++
			}
			list = append(list, strings.TrimRight(s[i:j], "uUlL"))
			i = j
		case isWord(c):
			j := i
			for j < len(s) && isWord(s[j]) {
				j++
			}
			list = append(list, s[i:j])
			i = j
		case strings.HasPrefix(s[i:], "<<") || strings.HasPrefix(s[i:], ">>"):
			list = append(list, s[i:i+2])
			i += 2
		case strings.IndexByte("()|&^~+-*", c) >= 0:
			list = append(list, s[i:i+1])
			i++
		default:
			return nil, fmt.Errorf("%q in a constant", c)
		}
	}
	return list, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWord(c byte) bool {
	return isDigit(c) || c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// dropCasts leaves out what is a type in parentheses, and turns ~ into ^.
func dropCasts(tokens []string) []string {
	var list []string
	for i := 0; i < len(tokens); i++ {
		switch t := tokens[i]; t {
		case "~":
			list = append(list, "^")
		case "(":
			j := i + 1
			for j < len(tokens) && (isType(tokens[j]) || tokens[j] == "*" && j > i+1) {
				j++
			}
			if j > i+1 && j < len(tokens) && tokens[j] == ")" {
				i = j
				continue
			}
			list = append(list, t)
		default:
			list = append(list, t)
		}
	}
	return list
}

func isType(word string) bool {
	switch word {
	case "unsigned", "signed", "long", "int", "short", "char", "void", "const", "__force", "u8", "u16", "u32", "u64":
		return true
	}
	return strings.HasSuffix(word, "_t")
}

func evaluate(e ast.Expr, enumerator func(string) (uint64, bool)) (uint64, error) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return evaluate(e.X, enumerator)
	case *ast.BasicLit:
		if e.Kind != token.INT {
			return 0, fmt.Errorf("%s in a constant", e.Value)
		}
		return strconv.ParseUint(e.Value, 0, 64)
	case *ast.Ident:
		if v, ok := enumerator(e.Name); ok {
			return v, nil
		}
		return 0, fmt.Errorf("%s is not known", e.Name)
	case *ast.CallExpr:
		// BIT(n) is left where a table was not preprocessed.
		fun, ok := e.Fun.(*ast.Ident)
		if !ok || len(e.Args) != 1 || !strings.HasSuffix(strings.TrimSuffix(fun.Name, "UL"), "BIT") {
			return 0, fmt.Errorf("a call in a constant")
		}
		n, err := evaluate(e.Args[0], enumerator)
		return 1 << n, err
	case *ast.UnaryExpr:
		x, err := evaluate(e.X, enumerator)
		if err != nil {
			return 0, err
		}
		switch e.Op {
		case token.XOR:
			return ^x, nil
		case token.SUB:
			return -x, nil
		case token.ADD:
			return x, nil
		}
	case *ast.BinaryExpr:
		if !sameInC(e) {
			return 0, fmt.Errorf("%s needs parentheses", e.Op)
		}
		x, err := evaluate(e.X, enumerator)
		if err != nil {
			return 0, err
		}
		y, err := evaluate(e.Y, enumerator)
		if err != nil {
			return 0, err
		}
		switch e.Op {
		case token.OR:
			return x | y, nil
		case token.AND:
			return x & y, nil
		case token.XOR:
			return x ^ y, nil
		case token.SHL:
			return x << y, nil
		case token.SHR:
			return x >> y, nil
		case token.ADD:
			return x + y, nil
		case token.SUB:
			return x - y, nil
		case token.MUL:
			return x * y, nil
		}
	}
	return 0, fmt.Errorf("%T in a constant", e)
}

// sameInC says whether C reads the operands of an operator as Go does.
func sameInC(e *ast.BinaryExpr) bool {
	for _, operand := range []ast.Expr{e.X, e.Y} {
		inner, ok := operand.(*ast.BinaryExpr)
		if !ok || inner.Op == e.Op && operand == e.X {
			continue
		}
		if e.Op != token.OR || inner.Op != token.AND && inner.Op != token.SHL {
			return false
		}
	}
	return true
}
