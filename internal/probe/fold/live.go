package fold

import (
	"github.com/cilium/ebpf/asm"
)

// set16 is a set of registers.
type set16 uint16

func (s set16) has(r asm.Register) bool { return s>>r&1 != 0 }

func of(regs ...asm.Register) (s set16) {
	for _, r := range regs {
		s |= 1 << r
	}
	return s
}

const arguments set16 = 1<<asm.R1 | 1<<asm.R2 | 1<<asm.R3 | 1<<asm.R4 | 1<<asm.R5

// takes says how many arguments helpers have, of those that have few.
var takes = map[asm.BuiltinFunc]int{
	asm.FnKtimeGetNs: 0, asm.FnKtimeGetBootNs: 0, asm.FnGetSmpProcessorId: 0, asm.FnGetCurrentPidTgid: 0,
	asm.FnGetCurrentTaskBtf: 0, asm.FnGetFuncIp: 1, asm.FnGetAttachCookie: 1, asm.FnThisCpuPtr: 1,
	asm.FnMapLookupElem: 2, asm.FnMapDeleteElem: 2, asm.FnGetCurrentComm: 2, asm.FnRingbufSubmit: 2,
	asm.FnGetFuncRet: 2, asm.FnProbeReadKernel: 3, asm.FnProbeReadKernelStr: 3, asm.FnRingbufReserve: 3,
	asm.FnMapUpdateElem: 4, asm.FnGetStack: 4, asm.FnRingbufOutput: 4, asm.FnLoop: 4,
}

// takesNamed is the same for functions of the kernel that are none of its helpers.
var takesNamed = map[string]int{"bpf_rdonly_cast": 2, "bpf_session_cookie": 1, "bpf_session_is_return": 1}

// uses says which registers an instruction reads, and which it writes.
func uses(ins *asm.Instruction) (reads, writes set16) {
	class := ins.OpCode.Class()
	switch {
	case class.IsALU():
		writes = of(ins.Dst)
		if ins.OpCode.Source() == asm.RegSource && ins.OpCode.ALUOp() != asm.Swap {
			reads = of(ins.Src)
		}
		if ins.OpCode.ALUOp() != asm.Mov || ins.OpCode.Source() == asm.InvalidSource {
			reads |= of(ins.Dst)
		}
	case ins.OpCode.IsDWordLoad():
		writes = of(ins.Dst)
	case class == asm.LdXClass:
		reads, writes = of(ins.Src), of(ins.Dst)
	case class == asm.StClass:
		reads = of(ins.Dst)
	case class == asm.StXClass:
		reads = of(ins.Dst, ins.Src)
		if ins.OpCode.Mode() == asm.AtomicMode {
			reads |= of(asm.R0)
		}
	case jumps(ins):
		if ins.OpCode.JumpOp() != asm.Ja {
			reads = of(ins.Dst)
			if ins.OpCode.Source() == asm.RegSource {
				reads |= of(ins.Src)
			}
		}
	case class.IsJump() && ins.OpCode.JumpOp() == asm.Exit:
		reads = of(asm.R0)
	case class.IsJump():
		reads, writes = arguments, arguments|of(asm.R0)
		n, ok := takes[asm.BuiltinFunc(ins.Constant)]
		if !ins.IsBuiltinCall() {
			n, ok = takesNamed[ins.Reference()]
		}
		if ok {
			reads = arguments & (1<<(n+1) - 1)
		}
	default:
		reads = 1<<registers - 1
	}
	return reads, writes
}

// liveness says for each instruction which registers are looked at behind it.
func liveness(p program) []set16 {
	// What is asked of each line time and again; to: -1: it does not jump.
	type effect struct {
		reads, kept set16
		falls       bool
		to          int32
	}
	effects := make([]effect, len(p))
	for i := range p {
		l := &p[i]
		e := effect{kept: ^set16(0), falls: l.falls() && i+1 < len(p), to: -1}
		if !l.gone {
			reads, writes := uses(&l.Instruction)
			e.reads, e.kept, e.to = reads, ^writes, int32(l.to)
		}
		effects[i] = e
	}
	in, out := make([]set16, len(p)+1), make([]set16, len(p))
	for changed := true; changed; {
		changed = false
		for i := len(p) - 1; i >= 0; i-- {
			e := &effects[i]
			var behind set16
			if e.falls {
				behind = in[i+1]
			}
			if e.to >= 0 {
				behind |= in[e.to]
			}
			before := behind&e.kept | e.reads
			if before != in[i] || behind != out[i] {
				in[i], out[i], changed = before, behind, true
			}
		}
	}
	return out
}

// bury leaves out what nobody looks at the result of, and jumps to what follows anyway.
func (p program) bury(live []set16) (changed bool) {
	for i := range p {
		l := &p[i]
		if l.gone || l.first {
			continue
		}
		class := l.OpCode.Class()
		dead := (class.IsALU() || l.OpCode.IsDWordLoad()) && !live[i].has(l.Dst)
		// Of loads those that can't fail: the others are there for something.
		dead = dead || class == asm.LdXClass && l.Src == asm.R10 && !live[i].has(l.Dst)
		if class == asm.ALU64Class && l.OpCode.Source() == asm.ImmSource && l.Constant == 0 {
			switch l.OpCode.ALUOp() {
			case asm.Add, asm.Sub, asm.Or, asm.Xor, asm.LSh, asm.RSh, asm.ArSh:
				dead = true
			}
		}
		if l.goes() {
			dead = p.next(i+1) == p.next(l.to)
		}
		if dead {
			l.gone, l.to, changed = true, -1, true
		}
	}
	return changed
}
