package suppress

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// glob is a pattern over a name: * is any text, ? any one character, and a backslash
// takes the next character as it is.
type glob struct {
	runes   []rune // and these two
	literal string // where there are none of them
}

const (
	anyText rune = -1
	anyRune rune = -2
)

func parseGlob(s string) (glob, error) {
	var g glob
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
			continue
		case r == '*':
			r = anyText
			if len(g.runes) > 0 && g.runes[len(g.runes)-1] == anyText {
				continue
			}
		case r == '?':
			r = anyRune
		}
		g.runes = append(g.runes, r)
	}
	if escaped {
		return glob{}, errors.New(`nothing comes after the \ at its end`)
	}
	if len(g.runes) == 0 {
		return glob{}, errors.New("it is empty: * is any")
	}
	if !slices.ContainsFunc(g.runes, func(r rune) bool { return r < 0 }) {
		g.literal = string(g.runes)
	}
	return g, nil
}

// match goes back to the last * only: what an earlier one could take in addition, the
// last one can take as well.
func (g *glob) match(s string) bool {
	if g.literal != "" {
		return g.literal == s
	}
	p, star, from := 0, -1, 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case p < len(g.runes) && g.runes[p] == anyText:
			star, from = p, i
			p++
			continue
		case p < len(g.runes) && (g.runes[p] == anyRune || g.runes[p] == r):
			p++
			i += size
			continue
		case star < 0:
			return false
		}
		_, size = utf8.DecodeRuneInString(s[from:])
		from += size
		p, i = star+1, from
	}
	for p < len(g.runes) && g.runes[p] == anyText {
		p++
	}
	return p == len(g.runes)
}

func anyMatches(globs []glob, s string) bool {
	return slices.ContainsFunc(globs, func(g glob) bool { return g.match(s) })
}

// quote writes a name as a pattern for just this name. What can't stand in a file
// becomes a ?.
func quote(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case !writable(r) || r == '\t' || r == utf8.RuneError:
			r = '?'
		case strings.ContainsRune(`\*? ,`, r):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
