package filter

import (
	"encoding/binary"
	"go/token"
	"math"

	"github.com/cilium/ebpf/asm"
)

// maxInstructions bounds what a filter becomes for one function.
const maxInstructions = 4096

// assembler writes a body of instructions. R1 stays what it is, a pointer to an Input; a
// value is computed into R0; R2 to R5 hold nothing for longer than one operation. What
// has to wait is on the stack, in as many words as value.hold says: as the heavier side
// goes first, these are few.
//
// The verifier looks at every way through a program. Conditions are written as jumps,
// after which nothing is known of a value that was not known before, so that ways that
// meet again are one.
type assembler struct {
	instructions asm.Instructions
	size         int // in words of 8 bytes, of which a constant of 64 bits takes two
	labels       []int
	jumps        []jump
	no           label // where a call goes that does not match
}

type (
	label int
	jump  struct {
		at, from int
		to       label
	}
)

func (a *assembler) emit(list ...asm.Instruction) {
	for _, ins := range list {
		a.instructions = append(a.instructions, ins)
		a.size += int(ins.Width())
	}
}

func (a *assembler) label() label {
	a.labels = append(a.labels, -1)
	return label(len(a.labels) - 1)
}

func (a *assembler) place(l label) { a.labels[l] = a.size }

func (a *assembler) jump(ins asm.Instruction, to label) {
	a.jumps = append(a.jumps, jump{at: len(a.instructions), to: to})
	a.emit(ins)
	a.jumps[len(a.jumps)-1].from = a.size
}

func goTo() asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja)}
}

// link writes down how far the jumps go. It is false if one goes too far.
func (a *assembler) link() bool {
	for _, j := range a.jumps {
		distance := a.labels[j.to] - j.from
		if distance > math.MaxInt16 || distance < 0 {
			return false
		}
		a.instructions[j.at].Offset = int16(distance)
	}
	return true
}

// body is a whole filter.
func (a *assembler) body(v *value) {
	a.no = a.label()
	if v.constant() {
		a.emit(asm.Mov.Imm(asm.R0, int32(boolean(v.number != 0))), asm.Return())
		return
	}
	a.condition(v, a.no, false, 0)
	a.emit(asm.Mov.Imm(asm.R0, 1), asm.Return())
	a.place(a.no)
	a.emit(asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// condition goes to a label if a value's truth is this, and on if it is not. The value
// is no constant: both can be.
func (a *assembler) condition(v *value, to label, truth bool, held int) {
	switch {
	case v.op == token.NOT:
		a.condition(v.x, to, !truth, held)
	case v.op == token.LAND && !truth, v.op == token.LOR && truth:
		a.condition(v.x, to, truth, held)
		a.condition(v.y, to, truth, held)
	case v.op == token.LAND, v.op == token.LOR:
		past := a.label()
		a.condition(v.x, past, !truth, held)
		a.condition(v.y, to, truth, held)
		a.place(past)
	case v.op == token.STRING:
		a.text(v, to, truth)
	case isComparison(v.op):
		op := jumps[v.op]
		if !truth {
			op = jumps[opposite[v.op]]
		}
		code := op.unsigned
		if signedPair(v.x, v.y) {
			code = op.signed
		}
		if imm, ok := a.operands(v.x, v.y, held); ok {
			a.jump(asm.Instruction{OpCode: code.Op(asm.ImmSource), Dst: asm.R0, Constant: int64(imm)}, to)
		} else {
			a.jump(asm.Instruction{OpCode: code.Op(asm.RegSource), Dst: asm.R0, Src: asm.R2}, to)
		}
	default:
		a.value(v, held)
		op := asm.JNE
		if !truth {
			op = asm.JEq
		}
		a.jump(asm.Instruction{OpCode: op.Op(asm.ImmSource), Dst: asm.R0}, to)
	}
}

var jumps = map[token.Token]struct{ unsigned, signed asm.JumpOp }{
	token.EQL: {asm.JEq, asm.JEq},
	token.NEQ: {asm.JNE, asm.JNE},
	token.LSS: {asm.JLT, asm.JSLT},
	token.LEQ: {asm.JLE, asm.JSLE},
	token.GTR: {asm.JGT, asm.JSGT},
	token.GEQ: {asm.JGE, asm.JSGE},
}

var opposite = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR,
}

// text compares a name up to its end, behind which is anything.
func (a *assembler) text(v *value, to label, truth bool) {
	var want [16]byte
	copy(want[:], v.text)
	differs := to
	if truth {
		differs = a.label()
	}
	for at := 0; at <= len(v.text); at += 8 {
		word := binary.LittleEndian.Uint64(want[at:])
		a.emit(asm.LoadMem(asm.R0, asm.R1, int16(v.offset+at), asm.DWord))
		if n := len(v.text) + 1 - at; n < 8 {
			a.emit(asm.LSh.Imm(asm.R0, int32(64-8*n)))
			word <<= 64 - 8*n
		}
		a.constant(asm.R2, word)
		a.jump(asm.Instruction{OpCode: asm.JNE.Op(asm.RegSource), Dst: asm.R0, Src: asm.R2}, differs)
	}
	if truth {
		a.jump(goTo(), to)
		a.place(differs)
	}
}

func (a *assembler) constant(to asm.Register, number uint64) {
	if n := int64(number); n >= math.MinInt32 && n <= math.MaxInt32 {
		a.emit(asm.Mov.Imm(to, int32(n)))
	} else {
		a.emit(asm.LoadImm(to, n, asm.DWord))
	}
}

// load puts a constant or an operand into a register.
func (a *assembler) load(to asm.Register, v *value) {
	if v.constant() {
		a.constant(to, v.number)
		return
	}
	size := map[int]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word, 8: asm.DWord}[v.size]
	a.emit(asm.LoadMem(to, asm.R1, int16(v.offset), size))
	if v.signed && v.size < 8 {
		bits := int32(64 - 8*v.size)
		a.emit(asm.LSh.Imm(to, bits), asm.ArSh.Imm(to, bits))
	}
}

// operands computes two values into R0 and R2; or one into R0, if the other is a
// constant that an instruction has room for.
func (a *assembler) operands(x, y *value, held int) (imm int32, ok bool) {
	switch {
	case y.constant() && int64(y.number) >= math.MinInt32 && int64(y.number) <= math.MaxInt32:
		a.value(x, held)
		return int32(y.number), true
	case y.leaf():
		a.value(x, held)
		a.load(asm.R2, y)
	case x.leaf():
		a.value(y, held)
		a.emit(asm.Mov.Reg(asm.R2, asm.R0))
		a.load(asm.R0, x)
	case x.hold() >= y.hold():
		a.value(x, held)
		a.emit(asm.StoreMem(asm.R10, slot(held), asm.R0, asm.DWord))
		a.value(y, held+1)
		a.emit(asm.Mov.Reg(asm.R2, asm.R0), asm.LoadMem(asm.R0, asm.R10, slot(held), asm.DWord))
	default:
		a.value(y, held)
		a.emit(asm.StoreMem(asm.R10, slot(held), asm.R0, asm.DWord))
		a.value(x, held+1)
		a.emit(asm.LoadMem(asm.R2, asm.R10, slot(held), asm.DWord))
	}
	return 0, false
}

func slot(n int) int16 { return int16(-8 * (n + 1)) }

// value computes a value into R0.
func (a *assembler) value(v *value, held int) {
	switch {
	case v.leaf():
		a.load(asm.R0, v)
	case v.truth():
		a.materialise(v, held)
	case v.y == nil:
		a.value(v.x, held)
		if v.op == token.SUB {
			a.emit(asm.Neg.Imm(asm.R0, 0))
		} else {
			a.emit(asm.Xor.Imm(asm.R0, -1))
		}
	case v.op == token.QUO || v.op == token.REM:
		a.divide(v, held)
	default:
		op := operations[v.op]
		if v.op == token.SHR && v.signed {
			op = asm.ArSh
		}
		imm, ok := a.operands(v.x, v.y, held)
		if ok {
			if v.op == token.AND_NOT {
				imm = ^imm
			}
			a.emit(op.Imm(asm.R0, imm))
			return
		}
		switch v.op {
		case token.AND_NOT:
			a.emit(asm.Xor.Imm(asm.R2, -1))
		case token.SHL, token.SHR:
			a.emit(asm.And.Imm(asm.R2, 63))
		}
		a.emit(op.Reg(asm.R0, asm.R2))
	}
}

var operations = map[token.Token]asm.ALUOp{
	token.ADD: asm.Add, token.SUB: asm.Sub, token.MUL: asm.Mul, token.AND: asm.And, token.OR: asm.Or, token.XOR: asm.Xor,
	token.AND_NOT: asm.And, token.SHL: asm.LSh, token.SHR: asm.RSh,
}

// materialise makes a number of a truth. Whether it is 0 or 1 is kept from the verifier,
// which would follow each on its own way, and from each further one twice as many: of the
// 3801 instructions of 200 such sums 6.1 looks at 5056, and without this at 581350.
func (a *assembler) materialise(v *value, held int) {
	not, end := a.label(), a.label()
	hide := []asm.Instruction{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.Xor.Reg(asm.R0, asm.R2),
		asm.Xor.Reg(asm.R0, asm.R2),
	}
	a.condition(v, not, false, held)
	a.emit(asm.Mov.Imm(asm.R0, 1))
	a.emit(hide...)
	a.jump(goTo(), end)
	a.place(not)
	a.emit(asm.Mov.Imm(asm.R0, 0))
	a.emit(hide...)
	a.place(end)
}

// divide divides R0 by R2. There is no instruction for signed numbers before Linux 6.6,
// so it is done without signs, which are put back: x = (x ^ s) - s for s = x >> 63
// negates where x is below zero.
func (a *assembler) divide(v *value, held int) {
	op := asm.Div
	if v.op == token.REM {
		op = asm.Mod
	}
	imm, ok := a.operands(v.x, v.y, held)
	switch {
	case ok && !v.signed && imm > 0:
		a.emit(op.Imm(asm.R0, imm))
		return
	case ok:
		a.constant(asm.R2, v.y.number)
	case !v.y.constant():
		a.jump(asm.Instruction{OpCode: asm.JEq.Op(asm.ImmSource), Dst: asm.R2}, a.no)
	}
	if !v.signed {
		a.emit(op.Reg(asm.R0, asm.R2))
		return
	}
	a.emit(
		asm.Mov.Reg(asm.R3, asm.R0), asm.ArSh.Imm(asm.R3, 63),
		asm.Xor.Reg(asm.R0, asm.R3), asm.Sub.Reg(asm.R0, asm.R3),
		asm.Mov.Reg(asm.R4, asm.R2), asm.ArSh.Imm(asm.R4, 63),
		asm.Xor.Reg(asm.R2, asm.R4), asm.Sub.Reg(asm.R2, asm.R4),
		op.Reg(asm.R0, asm.R2),
	)
	if v.op == token.QUO {
		a.emit(asm.Xor.Reg(asm.R3, asm.R4))
	}
	a.emit(asm.Xor.Reg(asm.R0, asm.R3), asm.Sub.Reg(asm.R0, asm.R3))
}
