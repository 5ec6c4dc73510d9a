package filter

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"slices"
	"strings"
)

// maxText bounds the text of a filter, and with it how deep expressions are.
const maxText = 4096

// Error says what is wrong with a filter, and where.
type Error struct {
	Text   string
	Column int // from 1, in bytes; 0: the whole of it
	Reason string
}

func (e *Error) Error() string {
	text := e.Text
	if len(text) > 80 {
		text = text[:77] + "..."
	}
	if e.Column == 0 {
		return fmt.Sprintf("filter %q: %s", text, e.Reason)
	}
	return fmt.Sprintf("filter %q, column %d: %s", text, e.Column, e.Reason)
}

// source is a text made ready for Go's parser, which reads the expressions of C but for
// a few words and spellings.
type source struct {
	text string
	code []byte
	// from are the positions of tokens: in code, and in text.
	from [][2]int
	// words are names that are keywords of Go, as type; units what a number is to be
	// multiplied with, as in 10ms. By their positions in code.
	words map[int]string
	units map[int]uint64
}

// units of time, which are known in nanoseconds.
var units = map[string]uint64{"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}

func (s *source) fail(pos int, format string, args ...any) *Error {
	return &Error{Text: s.text, Column: s.column(pos), Reason: fmt.Sprintf(format, args...)}
}

// column is the place in the text of what is at a position of code.
func (s *source) column(pos int) int {
	i, found := slices.BinarySearchFunc(s.from, pos, func(f [2]int, pos int) int { return f[0] - pos })
	if !found {
		i--
	}
	if i < 0 {
		return 1
	}
	return min(s.from[i][1]+1, len(s.text)+1)
}

func (s *source) put(at int, text string) {
	s.from = append(s.from, [2]int{len(s.code), at})
	s.code = append(append(s.code, text...), ' ')
}

// read turns the text into an expression of Go.
func read(text string) (*source, ast.Expr, error) {
	s := &source{text: text, words: make(map[int]string), units: make(map[int]uint64)}
	if len(text) > maxText {
		return nil, nil, &Error{Text: text, Reason: fmt.Sprintf("it has %d bytes, and %d are the most", len(text), maxText)}
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil, &Error{Text: text, Reason: "it is empty"}
	}
	if err := s.tokens(); err != nil {
		return nil, nil, err
	}
	e, err := parser.ParseExprFrom(token.NewFileSet(), "", s.code, 0)
	if err != nil {
		var list scanner.ErrorList
		if errors.As(err, &list) && len(list) > 0 {
			return nil, nil, s.fail(list[0].Pos.Offset, "%s", plain(list[0].Msg))
		}
		return nil, nil, &Error{Text: text, Reason: err.Error()}
	}
	return s, e, nil
}

// plain says in other words what Go's parser says most often.
func plain(message string) string {
	switch {
	case strings.HasPrefix(message, "expected operand, found"):
		return "an operand is missing" + strings.TrimPrefix(strings.TrimSuffix(message, " 'EOF'"), "expected operand, found")
	case strings.HasPrefix(message, "expected ')'"):
		return "a parenthesis is not closed"
	case strings.HasPrefix(message, "expected 'EOF'") || strings.HasPrefix(message, "expected end"):
		return "an operator is missing"
	}
	return message
}

// tokens writes the text anew, token by token, so that what C and Go take for different
// ones is separated.
func (s *source) tokens() error {
	var failed *Error
	fset := token.NewFileSet()
	file := fset.AddFile("", fset.Base(), len(s.text))
	fail := func(at int, reason string) {
		if failed == nil {
			failed = &Error{Text: s.text, Column: at + 1, Reason: reason}
		}
	}
	var scan scanner.Scanner
	scan.Init(file, []byte(s.text), func(pos token.Position, message string) { fail(pos.Offset, message) }, scanner.ScanComments)
	number, end := -1, -1 // the last token if it is an integer, and where it ends in the text
	minus := -1           // where the last token ends if it is a minus
	for {
		pos, tok, literal := scan.Scan()
		if tok == token.EOF || failed != nil {
			break
		}
		at := file.Offset(pos)
		after := number
		number = -1
		afterMinus := minus == at
		minus = -1
		switch {
		case tok == token.SEMICOLON && literal == "\n":
			continue
		case tok == token.COMMENT:
			fail(at, "a filter has no comments")
		case tok == token.ASSIGN:
			fail(at, "= assigns, == compares")
		case tok == token.ARROW: // "a<-1", without spaces
			s.put(at, "<")
			s.put(at+1, "-")
			minus = at + 2
			continue
		case tok == token.GTR && afterMinus:
			fail(at-1, "what a pointer points to can't be looked at by a filter; --expand shows it")
		case tok == token.IDENT && after >= 0 && at == end:
			// What stands at a number: 4096UL, 10ms.
			if unit, ok := units[literal]; ok {
				s.units[after] = unit
			} else if strings.Trim(literal, "uUlL") != "" {
				fail(at, fmt.Sprintf("%s is no unit: ns, us, ms and s are", literal))
			}
			continue
		case tok.IsKeyword():
			s.words[len(s.code)] = literal
			literal = strings.ToUpper(literal[:1]) + literal[1:]
		case tok == token.INT:
			number, end = len(s.code), at+len(literal)
		case tok == token.SUB:
			minus = at + 1
		}
		if literal == "" {
			literal = tok.String()
		}
		s.put(at, literal)
	}
	s.from = append(s.from, [2]int{len(s.code), len(s.text)})
	if failed != nil {
		return failed
	}
	return nil
}
