// Package fold makes a program of the probe layer's out of a generic one: what the loader
// has written into its constants is worked out once, before it is loaded, and what can't
// be reached then is left out.
//
// The kernel's verifier does half of that: it knows the constants and takes the branches
// out that they rule out, but leaves the loads of them, and is given each instruction to
// look at first. In the trace's programs a third of what runs were such loads.
package fold

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"
)

// ErrNotUnderstood says that a program is not made as the compiler makes them.
var ErrNotUnderstood = errors.New("not a program that can be folded")

// kind says what is known of a register.
type kind uint8

const (
	unvisited kind = iota
	constant       // its value
	data           // that it points into the constants, at value
	unknown
)

type value struct {
	kind kind
	n    uint64
}

const registers = 11

type state [registers]value

// merge is what is known where two ways meet.
func (s *state) merge(other *state) (changed bool) {
	for i := range s {
		a, b := s[i], other[i]
		if a == b || a.kind == unknown || b.kind == unvisited {
			continue
		}
		if a.kind == unvisited {
			s[i] = b
		} else {
			s[i] = value{kind: unknown}
		}
		changed = true
	}
	return changed
}

func anything() (s state) {
	for i := range s {
		s[i].kind = unknown
	}
	return s
}

type folder struct {
	in     asm.Instructions
	data   []byte
	name   string
	target []int          // of a jump, by instruction; -1: none
	starts map[string]int // functions
	at     []state        // what is known before each instruction
	seen   []bool
	todo   []int
}

// Program returns a program's instructions with constants folded: contents of the map of
// that name, which are never written. The instructions are those that the compiler made:
// jumps by offset, functions by name.
func Program(instructions asm.Instructions, name string, contents []byte) (asm.Instructions, error) {
	f := &folder{
		in: instructions, data: contents, name: name,
		at: make([]state, len(instructions)), seen: make([]bool, len(instructions)),
	}
	if err := f.link(); err != nil {
		return nil, err
	}
	f.spread()
	out := f.rewrite()
	for {
		// Nine lines of ten may be gone, which each step would look for what follows them.
		out = out.compact()
		out.thread()
		out.cut()
		live := liveness(out)
		buried := out.bury(live)
		if !out.join(live) && !buried {
			return out.emit()
		}
	}
}

// link finds where jumps lead, and functions begin.
func (f *folder) link() error {
	f.starts = make(map[string]int)
	position := make(map[int]int, len(f.in))
	raw := 0
	for i := range f.in {
		position[raw] = i
		raw += int(f.in[i].Width())
		if s := f.in[i].Symbol(); s != "" {
			f.starts[s] = i
		}
	}
	f.target = make([]int, len(f.in))
	raw = 0
	for i := range f.in {
		ins := &f.in[i]
		raw += int(ins.Width())
		f.target[i] = -1
		if !jumps(ins) {
			continue
		}
		to, ok := position[raw+int(ins.Offset)]
		if !ok || ins.Reference() != "" || ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja {
			return fmt.Errorf("%w: the jump in instruction %d", ErrNotUnderstood, i)
		}
		f.target[i] = to
	}
	return nil
}

// jumps says whether an instruction goes, or may go, to another of the same function.
func jumps(ins *asm.Instruction) bool {
	if !ins.OpCode.Class().IsJump() {
		return false
	}
	op := ins.OpCode.JumpOp()
	return op != asm.Call && op != asm.Exit
}

func (f *folder) reach(i int, s *state) {
	if i >= len(f.in) {
		return
	}
	if f.at[i].merge(s) || !f.seen[i] {
		f.seen[i] = true
		f.todo = append(f.todo, i)
	}
}

// spread follows every way through the program that the constants leave open.
func (f *folder) spread() {
	entry := anything()
	f.reach(0, &entry)
	for len(f.todo) > 0 {
		i := f.todo[len(f.todo)-1]
		f.todo = f.todo[:len(f.todo)-1]
		ins := &f.in[i]
		if ins.IsFunctionReference() {
			if start, ok := f.starts[ins.Reference()]; ok {
				f.reach(start, &entry)
			}
		}
		s := f.at[i]
		if jumps(ins) {
			taken, known := f.decide(ins, &s)
			if taken || !known {
				f.reach(f.target[i], &s)
			}
			if !taken || !known {
				f.reach(i+1, &s)
			}
			continue
		}
		f.step(ins, &s)
		if !(ins.OpCode.Class() == asm.JumpClass && ins.OpCode.JumpOp() == asm.Exit) {
			f.reach(i+1, &s)
		}
	}
}

// decide says whether a jump is taken.
func (f *folder) decide(ins *asm.Instruction, s *state) (taken, known bool) {
	op := ins.OpCode.JumpOp()
	if op == asm.Ja {
		return true, true
	}
	a, b := s[ins.Dst], operand(ins, s)
	if a.kind != constant || b.kind != constant {
		return false, false
	}
	x, y := a.n, b.n
	sx, sy := int64(x), int64(y)
	if ins.OpCode.Class() == asm.Jump32Class {
		x, y = uint64(uint32(x)), uint64(uint32(y))
		sx, sy = int64(int32(x)), int64(int32(y))
	}
	switch op {
	case asm.JEq:
		return x == y, true
	case asm.JNE:
		return x != y, true
	case asm.JGT:
		return x > y, true
	case asm.JGE:
		return x >= y, true
	case asm.JLT:
		return x < y, true
	case asm.JLE:
		return x <= y, true
	case asm.JSet:
		return x&y != 0, true
	case asm.JSGT:
		return sx > sy, true
	case asm.JSGE:
		return sx >= sy, true
	case asm.JSLT:
		return sx < sy, true
	case asm.JSLE:
		return sx <= sy, true
	}
	return false, false
}

// operand is the second one of an instruction that reckons or compares.
func operand(ins *asm.Instruction, s *state) value {
	if ins.OpCode.Source() == asm.RegSource {
		return s[ins.Src]
	}
	return value{constant, uint64(ins.Constant)}
}

// step is what is known behind an instruction.
func (f *folder) step(ins *asm.Instruction, s *state) {
	switch class := ins.OpCode.Class(); {
	case class.IsALU():
		s[ins.Dst] = reckon(ins, s)
	case ins.OpCode.IsDWordLoad():
		s[ins.Dst] = f.wide(ins)
	case class == asm.LdXClass:
		s[ins.Dst] = f.load(ins, s)
	case class == asm.LdClass: // packets: not ours
		s[asm.R0].kind = unknown
	case class == asm.StXClass && ins.OpCode.Mode() == asm.AtomicMode:
		// Those that fetch write a register.
		s[ins.Src], s[asm.R0] = value{kind: unknown}, value{kind: unknown}
	case class.IsJump():
		for r := asm.R0; r <= asm.R5; r++ {
			s[r] = value{kind: unknown}
		}
	}
}

func (f *folder) wide(ins *asm.Instruction) value {
	if ins.Src == 0 && ins.Reference() == "" {
		return value{constant, uint64(ins.Constant)}
	}
	if ins.Src == asm.PseudoMapValue && ins.Reference() == f.name {
		return value{data, uint64(ins.Constant) >> 32}
	}
	return value{kind: unknown}
}

func (f *folder) load(ins *asm.Instruction, s *state) value {
	size := uint64(ins.OpCode.Size().Sizeof())
	at := s[ins.Src].n + uint64(int64(ins.Offset))
	if s[ins.Src].kind != data || ins.OpCode.Mode() != asm.MemMode || at > uint64(len(f.data)) || uint64(len(f.data))-at < size {
		return value{kind: unknown}
	}
	v := value{kind: constant}
	for i := range size {
		v.n |= uint64(f.data[at+i]) << (8 * i)
	}
	return v
}

// reckon is what an instruction that reckons leaves in its register.
func reckon(ins *asm.Instruction, s *state) value {
	op := ins.OpCode.ALUOp()
	a, b := s[ins.Dst], operand(ins, s)
	narrow := ins.OpCode.Class() == asm.ALUClass
	switch {
	case op == asm.Mov && b.kind == data && !narrow:
		return b
	case op == asm.Mov && b.kind == constant:
		a = value{constant, 0}
	case op == asm.Add && a.kind == data && b.kind == constant && !narrow:
		return value{data, a.n + b.n}
	}
	if a.kind != constant || b.kind != constant {
		return value{kind: unknown}
	}
	x, y, bits := a.n, b.n, uint64(64)
	if narrow {
		x, y, bits = uint64(uint32(x)), uint64(uint32(y)), 32
	}
	switch op {
	case asm.Mov:
		x = y
	case asm.Add:
		x += y
	case asm.Sub:
		x -= y
	case asm.Mul:
		x *= y
	case asm.And:
		x &= y
	case asm.Or:
		x |= y
	case asm.Xor:
		x ^= y
	case asm.LSh:
		x <<= y & (bits - 1)
	case asm.RSh:
		x >>= y & (bits - 1)
	case asm.ArSh:
		if narrow {
			x = uint64(int32(x) >> (y & 31))
		} else {
			x = uint64(int64(x) >> (y & 63))
		}
	default:
		return value{kind: unknown}
	}
	if narrow {
		x = uint64(uint32(x))
	}
	return value{constant, x}
}

// program is a function after another, jumps by index.
type program []line

type line struct {
	asm.Instruction
	to    int  // where a jump leads; else -1
	first bool // of a function
	gone  bool
}

// rewrite puts what is known in the place of what works it out.
func (f *folder) rewrite() program {
	out := make(program, len(f.in))
	for i := range f.in {
		ins := f.in[i]
		out[i] = line{Instruction: ins, to: f.target[i], first: i == 0 || ins.Symbol() != "", gone: !f.seen[i]}
		if !f.seen[i] {
			continue
		}
		s := f.at[i]
		class := ins.OpCode.Class()
		if jumps(&ins) {
			taken, known := f.decide(&ins, &s)
			switch {
			case known && taken:
				out[i].replace(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja)})
			case known:
				out[i].replace(nothing)
				out[i].to, out[i].gone = -1, !out[i].first
			default:
				out[i].immediate(&s)
			}
			continue
		}
		if !class.IsALU() && class != asm.LdXClass {
			continue
		}
		f.step(&ins, &s)
		if s[ins.Dst].kind == constant {
			out[i].replace(set(ins.Dst, s[ins.Dst].n))
		} else if class.IsALU() {
			out[i].immediate(&f.at[i])
		}
	}
	return out
}

// nothing takes the place of what has to stay because a function begins there.
var nothing = asm.Mov.Imm(asm.R0, 0)

// set is the instruction that makes a register constant.
func set(r asm.Register, n uint64) asm.Instruction {
	switch {
	case int64(n) >= math.MinInt32 && int64(n) <= math.MaxInt32:
		return asm.Mov.Imm(r, int32(n))
	case n <= math.MaxUint32:
		return asm.Mov.Imm32(r, int32(n))
	}
	return asm.LoadImm(r, int64(n), asm.DWord)
}

// replace leaves what the loader knows of the place.
func (l *line) replace(ins asm.Instruction) {
	ins.Metadata = l.Metadata
	l.Instruction = ins
}

// immediate takes a second operand that is known into the instruction.
func (l *line) immediate(s *state) {
	if l.OpCode.Source() != asm.RegSource || s[l.Src].kind != constant {
		return
	}
	if class := l.OpCode.Class(); class.IsALU() {
		switch l.OpCode.ALUOp() {
		case asm.Add, asm.Sub, asm.Mul, asm.And, asm.Or, asm.Xor, asm.LSh, asm.RSh, asm.ArSh:
		default:
			return
		}
	}
	n := int64(s[l.Src].n)
	if class := l.OpCode.Class(); class == asm.ALUClass || class == asm.Jump32Class {
		n = int64(int32(n))
	}
	if n < math.MinInt32 || n > math.MaxInt32 {
		return
	}
	if op := l.OpCode.ALUOp(); l.OpCode.Class().IsALU() && (op == asm.LSh || op == asm.RSh || op == asm.ArSh) && (n < 0 || n > 31) {
		return
	}
	l.OpCode, l.Src, l.Constant = l.OpCode.SetSource(asm.ImmSource), 0, n
}

// falls says whether the next instruction follows this one.
func (l *line) falls() bool {
	if l.gone || !l.OpCode.Class().IsJump() {
		return true
	}
	op := l.OpCode.JumpOp()
	return op != asm.Exit && (op != asm.Ja || l.OpCode.Class() != asm.JumpClass)
}

// next is the first instruction from i on that has not been left out.
func (p program) next(i int) int {
	for i < len(p) && p[i].gone {
		i++
	}
	return i
}

// compact is the program without the lines that are gone.
func (p program) compact() program {
	at := make([]int, len(p)+1) // where each line goes to, or what follows it
	kept := 0
	for i := range p {
		at[i] = kept
		if !p[i].gone {
			kept++
		}
	}
	at[len(p)] = kept
	out := p[:0]
	for _, l := range p {
		if l.gone {
			continue
		}
		if l.to >= 0 {
			l.to = at[l.to]
		}
		out = append(out, l)
	}
	return out
}

// goes says whether an instruction does nothing but go to another.
func (l *line) goes() bool { return l.to >= 0 && l.OpCode.JumpOp() == asm.Ja }

// thread has jumps to jumps go where those go.
func (p program) thread() {
	for i := range p {
		if p[i].gone || p[i].to < 0 {
			continue
		}
		for range len(p) { // they may go round in a circle
			to := p.next(p[i].to)
			if to >= len(p) || !p[to].goes() || to == i {
				break
			}
			p[i].to = p[to].to
		}
	}
}

// cut leaves out what no way leads to, which the kernel would not have.
func (p program) cut() {
	reached := make([]bool, len(p))
	var todo []int
	visit := func(i int) {
		if i = p.next(i); i < len(p) && !reached[i] {
			reached[i] = true
			todo = append(todo, i)
		}
	}
	for i := range p {
		if p[i].first && !p[i].gone {
			visit(i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p[i].to >= 0 {
			visit(p[i].to)
		}
		if p[i].falls() {
			visit(i + 1)
		}
	}
	for i := range p {
		if !reached[i] {
			p[i].gone, p[i].to = true, -1
		}
	}
}

// join takes what a register is set to into the one instruction that looks at memory by
// it: a sum, which goes into the offset, or a copy.
func (p program) join(live []set16) (changed bool) {
	entered := make([]bool, len(p)+1)
	for i := range p {
		if !p[i].gone && p[i].to >= 0 {
			entered[p.next(p[i].to)] = true
		}
	}
	for i := range p {
		l := &p[i]
		j := p.next(i + 1)
		if l.gone || l.first || j == len(p) || l.OpCode.Class() != asm.ALU64Class || p[j].first || entered[j] {
			continue
		}
		sum := l.OpCode.ALUOp() == asm.Add && l.OpCode.Source() == asm.ImmSource
		copied := l.OpCode.ALUOp() == asm.Mov && l.OpCode.Source() == asm.RegSource && l.Src != l.Dst
		m := &p[j]
		var by *asm.Register
		switch m.OpCode.Class() {
		case asm.LdXClass:
			if by = &m.Src; m.Dst != l.Dst && live[j].has(l.Dst) {
				continue
			}
		case asm.StXClass:
			if by = &m.Dst; m.Src == l.Dst || live[j].has(l.Dst) {
				continue
			}
		default:
			continue
		}
		offset := int64(m.Offset) + l.Constant
		switch {
		case *by != l.Dst:
			continue
		case sum && offset >= math.MinInt16 && offset <= math.MaxInt16:
			m.Offset = int16(offset)
		case copied:
			*by = l.Src
		default:
			continue
		}
		l.gone, changed = true, true
	}
	return changed
}

// emit writes the program down, with the offsets of its jumps.
func (p program) emit() (asm.Instructions, error) {
	at := make([]int, len(p)+1)
	raw, kept := 0, 0
	for i := range p {
		at[i] = raw
		if !p[i].gone {
			raw += int(p[i].Width())
			kept++
		}
	}
	at[len(p)] = raw
	out := make(asm.Instructions, 0, kept)
	for i := range p {
		l := &p[i]
		if l.gone {
			continue
		}
		if l.to >= 0 {
			offset := at[l.to] - at[i] - 1
			if offset < math.MinInt16 || offset > math.MaxInt16 {
				return nil, fmt.Errorf("%w: a jump over %d instructions", ErrNotUnderstood, offset)
			}
			l.Offset = int16(offset)
		}
		out = append(out, l.Instruction)
	}
	return out, nil
}
