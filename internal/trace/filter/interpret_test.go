package filter_test

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/asm"

	"kedr/internal/trace/filter"
)

// run executes a body as the kernel would, and refuses what its verifier refuses: code
// that cannot be reached, ways that do not end, reads of what was never written. It
// knows the instructions of version 3, without calls.
func run(body asm.Instructions, in *filter.Input, function uint32) (uint64, error) {
	var raw bytes.Buffer
	if err := body.Marshal(&raw, binary.LittleEndian); err != nil {
		return 0, err
	}
	var memory bytes.Buffer
	if err := binary.Write(&memory, binary.LittleEndian, in); err != nil {
		return 0, err
	}
	m := machine{code: raw.Bytes(), input: memory.Bytes()}
	m.set(1, pointer)
	m.set(2, 0xdeadbeef<<32|uint64(function))
	return m.run()
}

const pointer = 1 << 60 // where Input is

type machine struct {
	code, input []byte
	registers   [10]uint64
	written     [10]bool
	stack       [256]byte
	stored      [256]bool
}

func (m *machine) set(r int, v uint64) { m.registers[r], m.written[r] = v, true }

func (m *machine) get(r int) (uint64, error) {
	if r == 1 || r < 6 && m.written[r] {
		return m.registers[r], nil
	}
	return 0, fmt.Errorf("r%d has nothing", r)
}

func (m *machine) run() (uint64, error) {
	for pc, steps := 0, 0; ; pc++ {
		if steps++; steps > 1<<16 {
			return 0, fmt.Errorf("does not end")
		}
		if 8*pc+8 > len(m.code) {
			return 0, fmt.Errorf("runs out of its code")
		}
		ins := m.code[8*pc:]
		op, dst, src := ins[0], int(ins[1]&15), int(ins[1]>>4)
		off, imm := int16(binary.LittleEndian.Uint16(ins[2:])), int32(binary.LittleEndian.Uint32(ins[4:]))
		y := uint64(int64(imm))
		var err error
		if class := op & 7; (class == 7 || class == 5 || class == 4) && op&8 != 0 {
			if y, err = m.get(src); err != nil {
				return 0, fmt.Errorf("%d: %w", pc, err)
			}
		}
		switch op & 7 {
		case 0: // ld
			if op != 0x18 {
				return 0, fmt.Errorf("%d: instruction %#x", pc, op)
			}
			m.set(dst, uint64(uint32(imm))|uint64(binary.LittleEndian.Uint32(ins[12:]))<<32)
			pc++
		case 1: // ldx
			n := map[byte]int{0: 4, 0x08: 2, 0x10: 1, 0x18: 8}[op&0x18]
			var word [8]byte
			switch {
			case src == 1 && off >= 0 && int(off)+n <= len(m.input) && int(off)%n == 0:
				copy(word[:n], m.input[off:])
			case src == 10 && off >= -256 && off <= -8 && n == 8 && off%8 == 0 && m.stored[256+int(off)]:
				copy(word[:], m.stack[256+int(off):])
			default:
				return 0, fmt.Errorf("%d: reads %d bytes at r%d%+d", pc, n, src, off)
			}
			m.set(dst, binary.LittleEndian.Uint64(word[:]))
		case 3: // stx
			v, err := m.get(src)
			if op != 0x7b || dst != 10 || off < -256 || off > -8 || off%8 != 0 || err != nil || src == 1 {
				return 0, fmt.Errorf("%d: writes at r%d%+d", pc, dst, off)
			}
			binary.LittleEndian.PutUint64(m.stack[256+int(off):], v)
			m.stored[256+int(off)] = true
		case 4: // alu32
			if op != 0xbc {
				return 0, fmt.Errorf("%d: instruction %#x", pc, op)
			}
			m.set(dst, uint64(uint32(y)))
		case 7:
			if dst == 1 {
				return 0, fmt.Errorf("%d: r1 is written", pc)
			}
			if op == 0xb7 || op == 0xbf {
				m.set(dst, y)
				continue
			}
			x, err := m.get(dst)
			if err != nil {
				return 0, fmt.Errorf("%d: %w", pc, err)
			}
			constant := op&8 == 0
			switch op >> 4 {
			case 0x0:
				x += y
			case 0x1:
				x -= y
			case 0x2:
				x *= y
			case 0x3:
				if y == 0 {
					return 0, fmt.Errorf("%d: division by zero", pc)
				}
				x /= y
			case 0x9:
				if y == 0 {
					return 0, fmt.Errorf("%d: division by zero", pc)
				}
				x %= y
			case 0x4:
				x |= y
			case 0x5:
				x &= y
			case 0xa:
				x ^= y
			case 0x8:
				x = -x
			case 0x6, 0x7, 0xc:
				if y > 63 {
					return 0, fmt.Errorf("%d: shifts by %d, constant %v", pc, y, constant)
				}
				switch op >> 4 {
				case 0x6:
					x <<= y
				case 0x7:
					x >>= y
				default:
					x = uint64(int64(x) >> y)
				}
			default:
				return 0, fmt.Errorf("%d: instruction %#x", pc, op)
			}
			m.set(dst, x)
		case 5:
			if op == 0x95 {
				return m.get(0)
			}
			if off < 0 {
				return 0, fmt.Errorf("%d: jumps back", pc)
			}
			x := uint64(0)
			if op != 0x05 {
				if x, err = m.get(dst); err != nil {
					return 0, fmt.Errorf("%d: %w", pc, err)
				}
			}
			taken, known := map[byte]bool{
				0x0: true, 0x1: x == y, 0x5: x != y, 0x2: x > y, 0x3: x >= y, 0xa: x < y, 0xb: x <= y,
				0x6: int64(x) > int64(y), 0x7: int64(x) >= int64(y), 0xc: int64(x) < int64(y), 0xd: int64(x) <= int64(y),
			}[op>>4]
			if !known {
				return 0, fmt.Errorf("%d: instruction %#x", pc, op)
			}
			if taken {
				pc += int(off)
			}
		default:
			return 0, fmt.Errorf("%d: instruction %#x", pc, op)
		}
	}
}

// unreachable lists the words of a body that no way leads to, which verifiers refuse.
func unreachable(body asm.Instructions) []int {
	var raw bytes.Buffer
	if err := body.Marshal(&raw, binary.LittleEndian); err != nil {
		return []int{-1}
	}
	code := raw.Bytes()
	seen := make([]bool, len(code)/8)
	for todo := []int{0}; len(todo) > 0; {
		pc := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if pc >= len(seen) || seen[pc] {
			continue
		}
		seen[pc] = true
		op, off := code[8*pc], int(int16(binary.LittleEndian.Uint16(code[8*pc+2:])))
		switch {
		case op == 0x18:
			seen[pc+1] = true
			todo = append(todo, pc+2)
		case op == 0x95:
		case op == 0x05:
			todo = append(todo, pc+1+off)
		case op&7 == 5:
			todo = append(todo, pc+1, pc+1+off)
		default:
			todo = append(todo, pc+1)
		}
	}
	var list []int
	for pc, ok := range seen {
		if !ok {
			list = append(list, pc)
		}
	}
	return list
}
