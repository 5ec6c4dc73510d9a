package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"kedr/internal/trace"
)

// Program judges the calls of one function.
type Program struct {
	// AtReturn: the filter needs to know how the call ended.
	AtReturn bool
	// Instructions are the body of int filter(struct filter_in *in): 1 if the call
	// matches, else 0. They use R0 to R5 and some of their own stack, and call nothing.
	Instructions asm.Instructions
}

// Compile makes the program for one function. Consts are names that are known beside
// those of the function's own types. The error is an *UnknownError if the function has not
// what the filter asks for, and else an *Error.
func (e *Expr) Compile(f *trace.Function, consts map[string]uint64) (*Program, error) {
	r := resolver{source: e.source, function: f, consts: consts}
	v, err := r.resolve(e.root)
	if err != nil {
		return nil, err
	}
	var a assembler
	a.body(v)
	if a.size > maxInstructions || !a.link() {
		return nil, &Error{Text: e.source.text, Reason: fmt.Sprintf("it becomes %d instructions, and %d are the most", a.size, maxInstructions)}
	}
	return &Program{AtReturn: r.atReturn, Instructions: a.instructions}, nil
}

// Set is a filter for many functions.
type Set struct {
	Programs map[uint32]*Program // by the index of the function
	AtReturn bool
	Never    []Never
}

// Never is a function whose calls never match, because it has not what the filter asks
// for.
type Never struct {
	Function string
	Reason   string
}

// CompileAll makes the programs of all functions that a filter can judge. It is an error
// if there are none of them.
func (e *Expr) CompileAll(functions []trace.Function, consts map[string]uint64) (*Set, error) {
	s := &Set{Programs: make(map[uint32]*Program)}
	var first *UnknownError
	for i := range functions {
		p, err := e.Compile(&functions[i], consts)
		var unknown *UnknownError
		switch {
		case errors.As(err, &unknown):
			s.Never = append(s.Never, Never{Function: functions[i].Name, Reason: unknown.Reason})
			if first == nil {
				first = unknown
			}
		case err != nil:
			return nil, err
		default:
			s.Programs[uint32(i)] = p
			s.AtReturn = s.AtReturn || p.AtReturn
		}
	}
	if len(s.Programs) == 0 && first != nil {
		err := *first.err
		if len(functions) > 1 {
			err.Reason = "none of the functions that are traced can be judged by it: " + err.Reason
		}
		err.Reason += " (" + describe(functions) + ")"
		return nil, &UnknownError{Function: first.Function, Name: first.Name, Reason: err.Reason, err: &err}
	}
	return s, nil
}

// Dispatch makes one body of many, for a program that sees the calls of several
// functions: int filter(struct filter_in *in, __u32 function). A function that has no
// program does not match.
func Dispatch(programs map[uint32]*Program) (asm.Instructions, error) {
	// The functions in ranges that have the same body, with what is between them: most
	// bodies are those of other functions as well.
	type segment struct {
		from uint32
		body string
	}
	bodies := make(map[string]asm.Instructions)
	const none = ""
	segments := []segment{{0, none}}
	put := func(from uint32, body string) {
		if last := &segments[len(segments)-1]; last.from == from {
			last.body = body
		} else {
			segments = append(segments, segment{from, body})
		}
		// Two in a row may have become the same.
		if n := len(segments); n > 1 && segments[n-1].body == segments[n-2].body {
			segments = segments[:n-1]
		}
	}
	for _, index := range slices.Sorted(maps.Keys(programs)) {
		if index > math.MaxInt32-1 {
			return nil, fmt.Errorf("filter of function %d: there are too many functions", index)
		}
		var key strings.Builder
		if err := programs[index].Instructions.Marshal(&key, binary.LittleEndian); err != nil {
			return nil, fmt.Errorf("filter of function %d: %w", index, err)
		}
		bodies[key.String()] = programs[index].Instructions
		put(index, key.String())
		put(index+1, none)
	}

	var a assembler
	labels := make(map[string]label)
	var order []string
	target := func(body string) label {
		if _, ok := labels[body]; !ok {
			labels[body] = a.label()
			order = append(order, body)
		}
		return labels[body]
	}
	var search func(list []segment)
	search = func(list []segment) {
		if len(list) == 1 {
			a.jump(goTo(), target(list[0].body))
			return
		}
		middle := len(list) / 2
		above := a.label()
		a.jump(asm.Instruction{OpCode: asm.JGE.Op(asm.ImmSource), Dst: asm.R2, Constant: int64(list[middle].from)}, above)
		search(list[:middle])
		a.place(above)
		search(list[middle:])
	}
	// The upper half of the register may be anything.
	a.emit(asm.Mov.Reg32(asm.R2, asm.R2))
	search(segments)
	for _, body := range order {
		a.place(labels[body])
		if body == none {
			a.emit(asm.Mov.Imm(asm.R0, 0), asm.Return())
		} else {
			a.emit(bodies[body]...)
		}
	}
	if !a.link() {
		return nil, fmt.Errorf("the filter becomes %d instructions for %d functions, which is too long: make it shorter, or trace fewer of them", a.size, len(programs))
	}
	return a.instructions, nil
}

// Replace puts a body in the place of a function of a program, which calls it with the
// arguments of Dispatch or, where that is all that the body needs, with a pointer alone.
//
// In the program's source the function has to be one that the compiler can neither leave
// out nor look into: __noinline, with a result that comes from an asm volatile.
func Replace(spec *ebpf.ProgramSpec, function string, body asm.Instructions) error {
	if len(body) == 0 {
		return fmt.Errorf("program %s: nothing to put in the place of %s", spec.Name, function)
	}
	start := slices.IndexFunc(spec.Instructions, func(i asm.Instruction) bool { return i.Symbol() == function })
	if start < 0 {
		return fmt.Errorf("program %s has no function %s", spec.Name, function)
	}
	end := start + 1
	for end < len(spec.Instructions) && spec.Instructions[end].Symbol() == "" {
		end++
	}
	old := spec.Instructions[start]
	body = slices.Clone(body)
	first := body[0].WithSymbol(function)
	// What the kernel is told of the function's type and of its first line stays; that of
	// the lines that are gone goes with them.
	if source := old.Source(); source != nil {
		first = first.WithSource(source)
	}
	if fn := btf.FuncMetadata(&old); fn != nil {
		// A global function is verified by itself, where before 5.13 it takes no pointers
		// and since then one that may be NULL.
		static := *fn
		static.Linkage = btf.StaticFunc
		first = btf.WithFuncMetadata(first, &static)
	}
	body[0] = first
	spec.Instructions = slices.Concat(spec.Instructions[:start], body, spec.Instructions[end:])
	return nil
}
