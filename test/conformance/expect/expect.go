// Package expect reads what a test module's source says of itself. In a comment on
// the line of a call stands what kedr has to find there:
//
//	// LEAK <size>[,<size>...] <kind> [x<count>] [irq] [stack=<f>,<g>,...]   (size ?: unknown, *: any;
//		64/32: on 64 and on 32 bits; 64~: unknown where the kernel has no BTF)
//	// WRONG-FREE <kind> [x<count>] [irq] [stack=<f>,<g>,...]
//	// DOUBLE-FREE <kind> ...
//	// MISMATCH <kind> ...
//
// and on lines of their own
//
//	// TOTAL allocations=<n> leaks=<n> wrong-frees=<n>
//	// NEEDS <module>...
//	// RUN [<parameter>=<value>...] [-- <workload>...]
//
// TOTALs are added up. Lines that the preprocessor takes out for a kernel's version
// do not count for that kernel.
package expect

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// File is what a source says.
type File struct {
	Name  string // without directory
	Finds []Find
	Total Total
	Needs []string // modules that are loaded before, and not watched

	Unwatched []string // functions that this kernel does not let be watched
	Runs      []Run
}

// Run is one way to run the module by itself.
type Run struct {
	Params, Workload []string
}

// Find is one thing to be found at a line.
type Find struct {
	Line  int
	Wrong string // "" for a leak, else as reports have it: "unallocated", "double", "mismatched"
	Size  uint64 // of a leaked object; 0: unknown
	Any   bool   // the size depends on the kernel
	Kind  string
	Count uint64
	IRQ   bool
	Stack []string // functions, innermost first, from the source's first
}

// Total is what the file adds up to.
type Total struct {
	Allocations, Leaks, WrongFrees uint64
}

// Version is a kernel's version, and what else expectations depend on.
type Version struct {
	Major, Minor, Patch int

	Narrow bool // 32 bits
	Bare   bool // without BTF
}

// ParseVersion reads the beginning of a kernel's release: "6.1.0-56-amd64".
func ParseVersion(release string) (Version, error) {
	m := regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`).FindStringSubmatch(release)
	if m == nil {
		return Version{}, fmt.Errorf("no kernel release: %q", release)
	}
	var v Version
	v.Major, _ = strconv.Atoi(m[1])
	v.Minor, _ = strconv.Atoi(m[2])
	v.Patch, _ = strconv.Atoi(m[3])
	v.Narrow = strings.HasSuffix(release, "-686-pae")
	v.Bare = v.Narrow
	return v, nil
}

// Code is LINUX_VERSION_CODE.
func (v Version) Code() int { return v.Major<<16 | v.Minor<<8 | min(v.Patch, 255) }

// Read reads the file for a kernel.
func Read(name string, v Version) (*File, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.Base(name), string(b), v)
}

// Parse reads a source for a kernel.
func Parse(name, source string, v Version) (*File, error) {
	f := &File{Name: name}
	var conds conditions
	totals := 0
	n := 0
	for line := range strings.Lines(source) {
		n++
		if err := conds.directive(line, v); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if !conds.active() {
			continue
		}
		// The first part is the code.
		for _, comment := range strings.Split(line, "// ")[1:] {
			isTotal, err := f.comment(n, strings.Fields(comment), v)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
			if isTotal {
				totals++
			}
		}
	}
	if len(conds) > 0 {
		return nil, fmt.Errorf("%s: #if without #endif", name)
	}
	if totals == 0 {
		if len(f.Finds)+len(f.Runs) > 0 {
			return nil, fmt.Errorf("%s: no TOTAL", name)
		}
		return f, nil
	}
	var leaks, wrong uint64
	for _, x := range f.Finds {
		if x.Wrong != "" {
			wrong += x.Count
		} else {
			leaks += x.Count
		}
	}
	if leaks != f.Total.Leaks || wrong != f.Total.WrongFrees {
		return nil, fmt.Errorf("%s: the lines add up to leaks=%d wrong-frees=%d, the TOTAL says leaks=%d wrong-frees=%d",
			name, leaks, wrong, f.Total.Leaks, f.Total.WrongFrees)
	}
	return f, nil
}

var wrongs = map[string]string{
	"WRONG-FREE": "unallocated", "DOUBLE-FREE": "double", "MISMATCH": "mismatched",
}

func (f *File) comment(line int, words []string, v Version) (isTotal bool, err error) {
	if len(words) == 0 {
		return false, nil
	}
	switch words[0] {
	case "TOTAL":
		return true, f.Total.add(words[1:])
	case "NEEDS":
		f.Needs = append(f.Needs, words[1:]...)
	case "RUN":
		r := Run{Params: words[1:]}
		if i := slices.Index(r.Params, "--"); i >= 0 {
			r.Params, r.Workload = r.Params[:i], r.Params[i+1:]
		}
		f.Runs = append(f.Runs, r)
	case "LEAK":
		if len(words) < 3 {
			return false, fmt.Errorf("LEAK needs a size and a kind: %q", words)
		}
		for s := range strings.SplitSeq(words[1], ",") {
			x := Find{Line: line, Kind: words[2], Count: 1}
			x.Any = s == "*"
			if wide, narrow, ok := strings.Cut(s, "/"); ok {
				if s = wide; v.Narrow {
					s = narrow
				}
			}
			if known, ok := strings.CutSuffix(s, "~"); ok {
				if s = known; v.Bare {
					s = "?"
				}
			}
			if s != "?" && s != "*" {
				if x.Size, err = strconv.ParseUint(s, 10, 64); err != nil {
					return false, err
				}
			}
			if err := x.options(words[3:]); err != nil {
				return false, err
			}
			f.Finds = append(f.Finds, x)
		}
	case "UNWATCHED":
		f.Unwatched = append(f.Unwatched, words[1:]...)
	case "WRONG-FREE", "DOUBLE-FREE", "MISMATCH":
		if len(words) < 2 {
			return false, fmt.Errorf("%s needs a kind: %q", words[0], words)
		}
		x := Find{Line: line, Wrong: wrongs[words[0]], Kind: words[1], Count: 1}
		if err := x.options(words[2:]); err != nil {
			return false, err
		}
		f.Finds = append(f.Finds, x)
	}
	return false, nil
}

func (x *Find) options(words []string) error {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case w == "irq":
			x.IRQ = true
		case key == "stack":
			x.Stack = strings.Split(value, ",")
		case strings.HasPrefix(w, "x"):
			n, err := strconv.ParseUint(w[1:], 10, 64)
			if err != nil {
				return err
			}
			x.Count = n
		default:
			return fmt.Errorf("unknown word %q", w)
		}
	}
	return nil
}

func (t *Total) add(words []string) error {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return err
		}
		switch key {
		case "allocations":
			t.Allocations += n
		case "leaks":
			t.Leaks += n
		case "wrong-frees":
			t.WrongFrees += n
		default:
			return fmt.Errorf("unknown total %q", key)
		}
	}
	return nil
}

// conditions are the #if that a line is in, outermost first.
type conditions []condition

type condition struct {
	active bool // its present branch
	done   bool // one of its branches has been active
}

func (c conditions) active() bool {
	return !slices.ContainsFunc(c, func(x condition) bool { return !x.active })
}

// directive follows the preprocessor. It understands conditions on the kernel's
// version. #ifdef is taken for true, both ways: what the tests expect must not
// depend on it.
func (c *conditions) directive(line string, v Version) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	top := len(*c) - 1
	switch word {
	case "#if":
		ok, err := evaluate(rest, v)
		if err != nil {
			return err
		}
		*c = append(*c, condition{ok, ok})
	case "#ifdef", "#ifndef":
		*c = append(*c, condition{true, false})
	case "#elif", "#else":
		if top < 0 {
			return fmt.Errorf("%s without #if", word)
		}
		x := &(*c)[top]
		ok := true
		if word == "#elif" {
			var err error
			if ok, err = evaluate(rest, v); err != nil {
				return err
			}
		}
		x.active = ok && !x.done
		x.done = x.done || x.active
	case "#endif":
		if top < 0 {
			return fmt.Errorf("#endif without #if")
		}
		*c = (*c)[:top]
	}
	return nil
}

var comparison = regexp.MustCompile(`^LINUX_VERSION_CODE (>=|<) KERNEL_VERSION\((\d+), (\d+), (\d+)\)$`)

// evaluate evaluates comparisons of the kernel's version that are joined by &&.
func evaluate(expr string, v Version) (bool, error) {
	all := true
	for part := range strings.SplitSeq(expr, "&&") {
		m := comparison.FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			return false, fmt.Errorf("the condition %q is none on the kernel's version", part)
		}
		var w Version
		w.Major, _ = strconv.Atoi(m[2])
		w.Minor, _ = strconv.Atoi(m[3])
		w.Patch, _ = strconv.Atoi(m[4])
		all = all && (v.Code() >= w.Code()) == (m[1] == ">=")
	}
	return all, nil
}
