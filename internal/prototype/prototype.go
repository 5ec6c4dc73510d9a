// Package prototype knows what parameters kernel functions take, for kernels that do
// not tell themselves (no BTF): what Debian's kernels say of the catalog's functions,
// by version.
package prototype

import (
	"bufio"
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Param is a parameter of a function.
type Param struct {
	Name    string
	Kind    Kind
	Size    int    // in bytes; 0: a word of the machine
	Pointee string // the structure that a pointer leads to
}

// Kind is what a parameter is, as far as it matters here.
type Kind byte

// The kinds there are.
const (
	Pointer   Kind = 'p'
	Integer   Kind = 'i'
	Structure Kind = 's' // by value
	Other     Kind = 'o'
)

//go:embed data/prototypes.txt
var data string

// entry is one prototype, and the versions whose kernels have it.
type entry struct {
	versions []int // index in table.versions
	params   []Param
}

// table is the file: versions in ascending order, functions by name.
type table struct {
	versions  []string
	functions map[string][]entry
}

var known = sync.OnceValues(func() (*table, error) { return read(strings.NewReader(data)) })

// Of returns a function's parameters in the kernel of a release. A release between two
// that are known has what both of them have; of any other nothing is known. The
// error is a sentence about the function.
func Of(function, release string) ([]Param, error) {
	t, err := known()
	if err != nil {
		return nil, err
	}
	return t.of(function, release)
}

// UnknownError says that nothing certain is known of a function.
type UnknownError struct{ Function, Release string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("what %s takes in %s is not known: the kernel has no BTF (give a file with --btf, or its parameters in a catalog)", e.Function, e.Release)
}

func (t *table) of(function, release string) ([]Param, error) {
	unknown := &UnknownError{function, release}
	below, above := -1, -1
	for i, v := range t.versions {
		switch c := compare(v, series(release)); {
		case c == 0:
			below, above = i, i
		case c < 0:
			below = i
		case above < 0:
			above = i
		}
	}
	if below < 0 || above < 0 {
		return nil, unknown
	}
	for _, e := range t.functions[function] {
		if slices.Contains(e.versions, below) && slices.Contains(e.versions, above) {
			return e.params, nil
		}
	}
	return nil, unknown
}

// series is a release's version, "6.1" of "6.1.0-56-amd64".
func series(release string) string {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return release
	}
	minor := parts[1]
	if i := strings.IndexFunc(minor, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = minor[:i]
	}
	return parts[0] + "." + minor
}

func compare(a, b string) int {
	var a1, a2, b1, b2 int
	fmt.Sscanf(a, "%d.%d", &a1, &a2)
	fmt.Sscanf(b, "%d.%d", &b1, &b2)
	return cmp.Or(cmp.Compare(a1, b1), cmp.Compare(a2, b2))
}

// Write writes prototypes as read reads them: those of several versions, ascending.
func Write(w io.Writer, versions []string, byVersion []map[string][]Param) error {
	fmt.Fprintf(w, "# What Debian's kernels say of the catalog's functions (make prototypes):\n# function, versions, parameters.\nversions %s\n", strings.Join(versions, " "))
	var names []string
	for _, functions := range byVersion {
		for name := range functions {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		lines := make(map[string][]string)
		var order []string
		for i, functions := range byVersion {
			params, ok := functions[name]
			if !ok {
				continue
			}
			words := make([]string, len(params))
			for j, p := range params {
				words[j] = p.String()
			}
			line := strings.Join(words, " ")
			if lines[line] == nil {
				order = append(order, line)
			}
			lines[line] = append(lines[line], versions[i])
		}
		for _, line := range order {
			if _, err := fmt.Fprintf(w, "%s\t%s\t%s\n", name, strings.Join(lines[line], " "), line); err != nil {
				return err
			}
		}
	}
	return nil
}

// String is the parameter as the file has it: "name:i4", "name:p/page", "name:i" for a
// word of the machine.
func (p Param) String() string {
	s := p.Name + ":" + string(p.Kind)
	if p.Size > 0 {
		s += strconv.Itoa(p.Size)
	}
	if p.Pointee != "" {
		s += "/" + p.Pointee
	}
	return s
}

func parseParam(word string) (Param, error) {
	name, rest, ok := strings.Cut(word, ":")
	if !ok || rest == "" || !strings.ContainsRune("piso", rune(rest[0])) {
		return Param{}, fmt.Errorf("parameter %q", word)
	}
	p := Param{Name: name, Kind: Kind(rest[0])}
	size, pointee, _ := strings.Cut(rest[1:], "/")
	p.Pointee = pointee
	if size != "" {
		n, err := strconv.ParseUint(size, 10, 16)
		if err != nil {
			return p, fmt.Errorf("parameter %q: %w", word, err)
		}
		p.Size = int(n)
	}
	return p, nil
}

func read(r io.Reader) (*table, error) {
	t := &table{functions: make(map[string][]entry)}
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "versions "); ok {
			t.versions = strings.Fields(rest)
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 3 {
			return nil, fmt.Errorf("prototypes, line %d: %d fields in place of 3", n, len(f))
		}
		var e entry
		for _, v := range strings.Fields(f[1]) {
			i := slices.Index(t.versions, v)
			if i < 0 {
				return nil, fmt.Errorf("prototypes, line %d: version %q is not in the list", n, v)
			}
			e.versions = append(e.versions, i)
		}
		for _, word := range strings.Fields(f[2]) {
			p, err := parseParam(word)
			if err != nil {
				return nil, fmt.Errorf("prototypes, line %d: %w", n, err)
			}
			e.params = append(e.params, p)
		}
		t.functions[f[0]] = append(t.functions[f[0]], e)
	}
	return t, sc.Err()
}
