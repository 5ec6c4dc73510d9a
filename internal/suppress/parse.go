package suppress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"kedr/internal/near"
)

// Bounds of what is read. No stack has more frames than maxFrames, inlined ones included.
const (
	maxFile   = 4 << 20
	maxLine   = 4096
	maxBlocks = 10000
	maxFrames = 256
)

// Parse reads a file of suppressions. file is its name, for messages: they say where,
// as FILE:LINE.
func Parse(r io.Reader, file string) ([]*Suppression, error) {
	p := parser{file: file}
	read := &io.LimitedReader{R: r, N: maxFile + 1}
	in := bufio.NewScanner(read)
	in.Buffer(make([]byte, 0, maxLine), maxLine)
	for in.Scan() {
		p.line++
		if err := p.next(in.Text()); err != nil {
			return nil, p.errorf("%w", err)
		}
	}
	switch err := in.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		p.line++
		return nil, p.errorf("the line is longer than %d bytes", maxLine)
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", file, err)
	case read.N == 0:
		return nil, p.errorf("the file is larger than %d bytes", maxFile)
	case p.block != nil:
		p.line = p.block.Line
		return nil, p.errorf("this { has no }")
	}
	return p.list, nil
}

type parser struct {
	file  string
	line  int
	list  []*Suppression
	block *Suppression // the one that is open
	typed bool         // it has its line kedr:...
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", p.file, p.line, fmt.Errorf(format, args...))
}

func (p *parser) next(line string) error {
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !writable(r) }) {
		return errors.New("there is a character in this line that is no text")
	}
	line = trim(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	b := p.block
	switch {
	case b == nil && line != "{":
		return fmt.Errorf("%q: a suppression begins with a { on a line of its own", line)
	case b == nil:
		if len(p.list) == maxBlocks {
			return fmt.Errorf("these are more than %d suppressions", maxBlocks)
		}
		p.block, p.typed = &Suppression{File: p.file, Line: p.line}, false
		return nil
	case line == "}":
		return p.close()
	case line == "{":
		return fmt.Errorf("the suppression of line %d has no }", b.Line)
	case b.Name == "":
		b.Name = line
		return nil
	case !p.typed:
		p.typed = true
		return b.setFinding(line)
	case strings.HasPrefix(line, "match-kinds:"):
		return b.setKinds(strings.TrimPrefix(line, "match-kinds:"))
	case b.end:
		return fmt.Errorf("%q: nothing comes after end", line)
	case line == "end":
		b.end = true
		return nil
	case len(b.frames) == maxFrames:
		return fmt.Errorf("these are more than %d frames", maxFrames)
	}
	f, err := parseFrame(line)
	b.frames = append(b.frames, f)
	return err
}

func (p *parser) close() error {
	b := p.block
	switch {
	case b.Name == "":
		return errors.New("the suppression has no name: that is its first line")
	case !p.typed:
		return errors.New("what to suppress? kedr:Leak is wanted after the name, or another of " + findingNames())
	case len(b.frames) == 0 && !b.end:
		return errors.New("the suppression has no frames, and would suppress everything: if that is meant, ... is the line for it")
	}
	p.list = append(p.list, b)
	p.block = nil
	return nil
}

func (s *Suppression) setFinding(line string) error {
	tool, what, ok := strings.Cut(line, ":")
	if !ok || tool != "kedr" {
		return fmt.Errorf("%q: what to suppress comes after the name, as in kedr:Leak", line)
	}
	f, ok := findings[what]
	if !ok {
		return fmt.Errorf("kedr:%s: there is %s%s", what, findingNames(), near.Hint(what, slices.Collect(maps.Keys(findings))))
	}
	s.finding = f
	return nil
}

func findingNames() string {
	names := slices.Sorted(maps.Keys(findings))
	for i, n := range names {
		names[i] = "kedr:" + n
	}
	return strings.Join(names, ", ")
}

func (s *Suppression) setKinds(list string) error {
	if len(s.kinds) > 0 || len(s.frames) > 0 || s.end {
		return errors.New("match-kinds: comes once, before the frames")
	}
	for _, w := range split(list, ",") {
		g, err := parseGlob(trim(w))
		if err != nil {
			return fmt.Errorf("match-kinds: %w", err)
		}
		s.kinds = append(s.kinds, g)
	}
	return nil
}

func parseFrame(line string) (frame, error) {
	switch line {
	case "...":
		return frame{any: all}, nil
	case "others":
		return frame{any: others}, nil
	}
	var f frame
	for _, w := range split(line, " \t") {
		if w == "" {
			continue
		}
		key, value, _ := strings.Cut(w, ":")
		var to **glob
		switch key {
		case "fun":
			to = &f.fun
			f.plain = !strings.Contains(value, ".")
		case "src":
			to = &f.src
			f.base = !strings.Contains(value, "/")
		case "obj":
			to = &f.obj
			value = moduleName(strings.TrimSuffix(value, ".ko"))
		default:
			return frame{}, fmt.Errorf("%q: a frame is fun:NAME, src:FILE, obj:MODULE or several of these, or ..., others, end", w)
		}
		if *to != nil {
			return frame{}, fmt.Errorf("%s: is there twice for one frame", key)
		}
		g, err := parseGlob(value)
		if err != nil {
			return frame{}, fmt.Errorf("%s:%s: %w", key, value, err)
		}
		*to = &g
	}
	return f, nil
}

// split takes a text apart at these characters, unless a backslash is before them.
func split(s, at string) []string {
	var words []string
	begin, escaped := 0, false
	for i := range len(s) {
		switch {
		case escaped:
			escaped = false
		case s[i] == '\\':
			escaped = true
		case strings.IndexByte(at, s[i]) >= 0:
			words = append(words, s[begin:i])
			begin = i + 1
		}
	}
	return append(words, s[begin:])
}

// trim leaves out the blanks around a line, but for one at its end that a backslash is
// before.
func trim(s string) string {
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	t := strings.TrimRightFunc(s, unicode.IsSpace)
	if n := len(t) - len(strings.TrimRight(t, `\`)); n%2 == 1 && len(s) > len(t) {
		t = s[:len(t)+1]
	}
	return t
}

// writable says whether a character can stand in a file of suppressions.
func writable(r rune) bool { return strconv.IsPrint(r) || r == '\t' }
