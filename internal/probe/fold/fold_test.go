package fold_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"kedr/internal/probe/fold"
)

const name = ".rodata"

func pointer(r asm.Register, offset uint32) asm.Instruction {
	return asm.LoadMapValue(r, 0, offset).WithReference(name)
}

// offset gives a jump its distance, as the compiler does.
func offset(ins asm.Instruction, n int16) asm.Instruction {
	return asm.Instruction{OpCode: ins.OpCode, Dst: ins.Dst, Src: ins.Src, Constant: ins.Constant, Offset: n}
}

// first is what a function begins with: it stays, for it has the function's name.
var first = asm.Mov.Reg(asm.R6, asm.R1)

func goTo(n int16) asm.Instruction { return offset(asm.Ja.Label(""), n) }

func lines(p asm.Instructions) (out []string) {
	for i := range p {
		s := fmt.Sprint(p[i])
		if p[i].Symbol() != "" {
			s = p[i].Symbol() + ": " + s
		}
		out = append(out, s)
	}
	return out
}

func TestProgram(t *testing.T) {
	data := make([]byte, 32)
	data[0] = 3
	binary.LittleEndian.PutUint32(data[4:], 0xffffffff)
	binary.LittleEndian.PutUint64(data[8:], 1<<40)
	call := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoCall, Constant: -1}
	for _, test := range []struct {
		name     string
		in, want asm.Instructions
	}{
		{
			"a constant of each size",
			asm.Instructions{
				first,
				pointer(asm.R1, 0),
				asm.LoadMem(asm.R0, asm.R1, 0, asm.Byte), asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
				asm.LoadMem(asm.R0, asm.R1, 4, asm.Word), asm.StoreMem(asm.R10, -16, asm.R0, asm.DWord),
				asm.LoadMem(asm.R0, asm.R1, 8, asm.DWord),
				asm.Return(),
			},
			asm.Instructions{
				first,
				asm.Mov.Imm(asm.R0, 3), asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
				asm.Mov.Imm32(asm.R0, -1), asm.StoreMem(asm.R10, -16, asm.R0, asm.DWord),
				asm.LoadImm(asm.R0, 1<<40, asm.DWord),
				asm.Return(),
			},
		},
		{
			"what lies behind the constants is not one",
			asm.Instructions{pointer(asm.R1, 28), asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), asm.Return()},
			asm.Instructions{pointer(asm.R1, 28), asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), asm.Return()},
		},
		{
			"the way that is not taken",
			asm.Instructions{
				first,
				pointer(asm.R1, 0), asm.LoadMem(asm.R1, asm.R1, 0, asm.Byte),
				offset(asm.JEq.Imm(asm.R1, 3, ""), 2),
				asm.Mov.Imm(asm.R0, 1), asm.Return(),
				asm.Mov.Imm(asm.R0, 2), asm.Return(),
			},
			asm.Instructions{first, asm.Mov.Imm(asm.R0, 2), asm.Return()},
		},
		{
			"a loop whose bound is constant stays one",
			asm.Instructions{
				first,
				pointer(asm.R1, 0), asm.LoadMem(asm.R2, asm.R1, 0, asm.Byte),
				asm.Mov.Imm(asm.R0, 0),
				asm.Add.Imm(asm.R0, 1),
				offset(asm.JLT.Reg(asm.R0, asm.R2, ""), -2),
				asm.Return(),
			},
			asm.Instructions{
				first,
				asm.Mov.Imm(asm.R0, 0),
				asm.Add.Imm(asm.R0, 1),
				offset(asm.JLT.Imm(asm.R0, 3, ""), -2),
				asm.Return(),
			},
		},
		{
			"a function that nobody calls",
			asm.Instructions{
				pointer(asm.R1, 0).WithSymbol("main"), asm.LoadMem(asm.R1, asm.R1, 1, asm.Byte),
				offset(asm.JEq.Imm(asm.R1, 0, ""), 1),
				call.WithReference("other"),
				call.WithReference("called"),
				asm.Return(),
				asm.Mov.Imm(asm.R0, 1).WithSymbol("other"), asm.Return(),
				asm.Mov.Imm(asm.R0, 2).WithSymbol("called"), asm.Return(),
			},
			asm.Instructions{
				pointer(asm.R1, 0).WithSymbol("main"), asm.Mov.Imm(asm.R1, 0),
				call.WithReference("called"),
				asm.Return(),
				asm.Mov.Imm(asm.R0, 2).WithSymbol("called"), asm.Return(),
			},
		},
		{
			"a helper without arguments does not look at what is left over",
			asm.Instructions{
				first,
				pointer(asm.R1, 0), asm.LoadMem(asm.R1, asm.R1, 0, asm.Byte),
				asm.FnKtimeGetNs.Call(),
				asm.Return(),
			},
			asm.Instructions{first, asm.FnKtimeGetNs.Call(), asm.Return()},
		},
		{
			"sums go into the load",
			asm.Instructions{
				first,
				asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, -64), asm.Add.Imm(asm.R2, 16),
				asm.LoadMem(asm.R0, asm.R2, 8, asm.DWord),
				asm.Return(),
			},
			asm.Instructions{first, asm.LoadMem(asm.R0, asm.R10, -40, asm.DWord), asm.Return()},
		},
		{
			"but not if they are looked at later",
			asm.Instructions{
				asm.Mov.Reg(asm.R2, asm.R1), asm.Add.Imm(asm.R2, 16),
				asm.LoadMem(asm.R0, asm.R2, 8, asm.DWord),
				asm.Add.Reg(asm.R0, asm.R2),
				asm.Return(),
			},
			asm.Instructions{
				asm.Mov.Reg(asm.R2, asm.R1), asm.Add.Imm(asm.R2, 16),
				asm.LoadMem(asm.R0, asm.R2, 8, asm.DWord),
				asm.Add.Reg(asm.R0, asm.R2),
				asm.Return(),
			},
		},
		{
			"jumps to jumps",
			asm.Instructions{
				offset(asm.JEq.Imm(asm.R1, 0, ""), 2),
				asm.Mov.Imm(asm.R0, 1), asm.Return(),
				goTo(1),
				goTo(-4),
				asm.Mov.Imm(asm.R0, 2), asm.Return(),
			},
			asm.Instructions{
				offset(asm.JEq.Imm(asm.R1, 0, ""), 2),
				asm.Mov.Imm(asm.R0, 1), asm.Return(),
				asm.Mov.Imm(asm.R0, 2), asm.Return(),
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := fold.Program(test.in, name, data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(lines(test.want), lines(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNotUnderstood(t *testing.T) {
	for _, p := range []asm.Instructions{
		{goTo(7), asm.Return()},
		{asm.Ja.Label("somewhere"), asm.Return()},
	} {
		if _, err := fold.Program(p, name, nil); !errors.Is(err, fold.ErrNotUnderstood) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

const (
	dataAt  = 1 << 40
	stackAt = 1 << 41
	stack   = 64
)

// run is what a program of those made below does: its result, and what it leaves on the
// stack.
func run(t *testing.T, p asm.Instructions, data []byte, args [5]uint64) (uint64, [stack]byte) {
	t.Helper()
	index := make(map[int]int)
	at := make([]int, len(p))
	raw := 0
	for i := range p {
		index[raw], at[i] = i, raw
		raw += int(p[i].Width())
	}
	var r [11]uint64
	var frame [stack]byte
	copy(r[1:], args[:])
	r[10] = stackAt + stack
	memory := func(address uint64, size int) []byte {
		switch {
		case address >= dataAt && address+uint64(size) <= dataAt+uint64(len(data)):
			return data[address-dataAt:][:size]
		case address >= stackAt && address+uint64(size) <= stackAt+stack:
			return frame[address-stackAt:][:size]
		}
		t.Fatalf("access to %#x in\n%v", address, p)
		return nil
	}
	for i, steps := 0, 0; ; steps++ {
		if i >= len(p) || steps > 10000 {
			t.Fatalf("no end in\n%v", p)
		}
		ins := &p[i]
		operand := uint64(ins.Constant)
		if ins.OpCode.Source() == asm.RegSource {
			operand = r[ins.Src]
		}
		class := ins.OpCode.Class()
		switch {
		case class.IsALU():
			a, b := r[ins.Dst], operand
			bits := uint64(64)
			if class == asm.ALUClass {
				a, b, bits = uint64(uint32(a)), uint64(uint32(b)), 32
			}
			switch ins.OpCode.ALUOp() {
			case asm.Mov:
				a = b
			case asm.Add:
				a += b
			case asm.Sub:
				a -= b
			case asm.Mul:
				a *= b
			case asm.And:
				a &= b
			case asm.Or:
				a |= b
			case asm.Xor:
				a ^= b
			case asm.LSh:
				a <<= b % bits
			case asm.RSh:
				a >>= b % bits
			case asm.ArSh:
				if bits == 32 {
					a = uint64(int32(a) >> (b % 32))
				} else {
					a = uint64(int64(a) >> (b % 64))
				}
			case asm.Neg:
				a = -a
			}
			if bits == 32 {
				a = uint64(uint32(a))
			}
			r[ins.Dst] = a
		case ins.OpCode.IsDWordLoad():
			r[ins.Dst] = uint64(ins.Constant)
			if ins.Reference() != "" {
				r[ins.Dst] = dataAt + uint64(ins.Constant)>>32
			}
		case class == asm.LdXClass:
			b := memory(r[ins.Src]+uint64(int64(ins.Offset)), ins.OpCode.Size().Sizeof())
			v := uint64(0)
			for k := range b {
				v |= uint64(b[k]) << (8 * k)
			}
			r[ins.Dst] = v
		case class == asm.StXClass:
			b := memory(r[ins.Dst]+uint64(int64(ins.Offset)), ins.OpCode.Size().Sizeof())
			for k := range b {
				b[k] = byte(r[ins.Src] >> (8 * k))
			}
		case class.IsJump():
			op := ins.OpCode.JumpOp()
			if op == asm.Exit {
				return r[0], frame
			}
			x, y := r[ins.Dst], operand
			sx, sy := int64(x), int64(y)
			if class == asm.Jump32Class {
				x, y, sx, sy = uint64(uint32(x)), uint64(uint32(y)), int64(int32(x)), int64(int32(y))
			}
			if map[asm.JumpOp]bool{
				asm.Ja: true, asm.JEq: x == y, asm.JNE: x != y, asm.JGT: x > y, asm.JGE: x >= y, asm.JLT: x < y,
				asm.JLE: x <= y, asm.JSet: x&y != 0, asm.JSGT: sx > sy, asm.JSGE: sx >= sy, asm.JSLT: sx < sy, asm.JSLE: sx <= sy,
			}[op] {
				i = index[at[i]+1+int(ins.Offset)]
				continue
			}
		}
		i++
	}
}

// random makes a program that ends, and looks only at what is there.
func random(r *rand.Rand, size int) asm.Instructions {
	p := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for reg := asm.R6; reg <= asm.R9; reg++ {
		p = append(p, asm.Mov.Imm(reg, int32(reg)))
	}
	for k := range stack / 8 {
		p = append(p, asm.StoreMem(asm.R10, int16(-8*(k+1)), asm.R6, asm.DWord))
	}
	sizes := []asm.Size{asm.Byte, asm.Half, asm.Word, asm.DWord}
	alu := []asm.ALUOp{asm.Mov, asm.Add, asm.Sub, asm.Mul, asm.And, asm.Or, asm.Xor, asm.LSh, asm.RSh, asm.ArSh, asm.Neg}
	jump := []asm.JumpOp{asm.Ja, asm.JEq, asm.JNE, asm.JGT, asm.JGE, asm.JLT, asm.JLE, asm.JSet, asm.JSGT, asm.JSGE, asm.JSLT, asm.JSLE}
	reg := func() asm.Register { return asm.Register(r.IntN(10)) }
	imm := func() int32 {
		if r.IntN(2) == 0 {
			return int32(r.IntN(5)) - 2
		}
		return int32(r.Uint32())
	}
	var open, starts []int // jumps whose distance is not known yet, and where they may lead
	for range size {
		starts = append(starts, len(p))
		switch r.IntN(7) {
		case 0, 1:
			op, dst, v := alu[r.IntN(len(alu))], reg(), imm()
			if op == asm.LSh || op == asm.RSh || op == asm.ArSh {
				v &= 31
			}
			switch r.IntN(4) {
			case 0:
				p = append(p, op.Imm(dst, v))
			case 1:
				p = append(p, op.Imm32(dst, v))
			case 2:
				p = append(p, op.Reg(dst, reg()))
			case 3:
				p = append(p, op.Reg32(dst, reg()))
			}
			if op == asm.Neg {
				last := &p[len(p)-1]
				last.OpCode, last.Src, last.Constant = last.OpCode.SetSource(asm.ImmSource), 0, 0
			}
		case 2:
			dst := reg()
			p = append(p, pointer(dst, uint32(r.IntN(16))))
			if r.IntN(2) == 0 {
				p = append(p, asm.Add.Imm(dst, int32(r.IntN(8))))
			}
			p = append(p, asm.LoadMem(reg(), dst, int16(r.IntN(8)), sizes[r.IntN(4)]))
			p = append(p, asm.Mov.Imm(dst, imm()))
		case 3:
			p = append(p, asm.LoadMem(reg(), asm.R10, int16(-8*(1+r.IntN(stack/8))), sizes[r.IntN(4)]))
		case 4:
			p = append(p, asm.StoreMem(asm.R10, int16(-8*(1+r.IntN(stack/8))), reg(), sizes[r.IntN(4)]))
		case 5:
			dst := reg()
			p = append(p, asm.Mov.Reg(dst, asm.R10), asm.Add.Imm(dst, -stack), asm.LoadMem(reg(), dst, int16(8*r.IntN(stack/8)), asm.DWord))
			if r.IntN(2) == 0 {
				p = append(p, asm.Mov.Imm(dst, 0))
			} else {
				p = append(p, asm.Sub.Reg(dst, asm.R10))
			}
		case 6:
			op := jump[r.IntN(len(jump))]
			ins := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(op)}
			if op != asm.Ja {
				ins.Dst = reg()
				if r.IntN(2) == 0 {
					ins.OpCode = asm.OpCode(asm.Jump32Class).SetJumpOp(op)
				}
				if r.IntN(2) == 0 {
					ins.OpCode, ins.Src = ins.OpCode.SetSource(asm.RegSource), reg()
				} else {
					ins.Constant = int64(imm())
				}
			}
			open = append(open, len(p))
			p = append(p, ins)
		}
	}
	starts = append(starts, len(p))
	p = append(p, asm.Return())
	at := make([]int, len(p))
	raw := 0
	for i := range p {
		at[i] = raw
		raw += int(p[i].Width())
	}
	for _, i := range open {
		next, _ := slices.BinarySearch(starts, i+1)
		to := starts[next+r.IntN(min(8, len(starts)-next))]
		p[i].Offset = int16(at[to] - at[i] - 1)
	}
	return p
}

// FuzzProgram compares what programs do with what they do folded.
func FuzzProgram(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, uint16(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, size uint16) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := random(r, int(size%300))
		data := make([]byte, 48)
		for i := range data {
			if r.IntN(3) == 0 {
				data[i] = byte(r.Uint32())
			}
		}
		folded, err := fold.Program(p, name, data)
		if err != nil {
			t.Fatal(err)
		}
		if len(folded) > len(p) {
			t.Errorf("%d instructions became %d", len(p), len(folded))
		}
		for range 4 {
			var args [5]uint64
			for i := range args {
				args[i] = r.Uint64() >> (r.IntN(4) * 16)
			}
			result, memory := run(t, p, data, args)
			result2, memory2 := run(t, folded, data, args)
			if result != result2 || memory != memory2 {
				t.Fatalf("with %#x:\n%v\n= %#x, %x\nfolded:\n%v\n= %#x, %x", args, p, result, memory, folded, result2, memory2)
			}
		}
	})
}
