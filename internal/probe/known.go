package probe

import (
	"encoding/binary"
	"errors"
)

// know finds what bpf/known.h has to know of the kernel: where it is entered, and what
// tracers put in the place of return addresses. Where it can't be told, each call stack is
// unwound.
func (s *Set) know() error {
	if s.layout.Word != 8 || s.layout.FramePointers != 0 || !s.kernel.HasHelper("loop") {
		return nil
	}
	start, _, err := s.find("__entry_text_start")
	if err != nil {
		return ignoreMissing(err)
	}
	end, _, err := s.find("__entry_text_end")
	if err != nil {
		return ignoreMissing(err)
	}
	s.knowing.Entry[0].Base, s.knowing.Entry[0].Size = start, end-start
	// arch/x86/entry/entry_64_fred.S: since 6.9 it may be entered elsewhere, too.
	base, size, err := s.find("asm_fred_entrypoint_kernel")
	if err == nil {
		s.knowing.Entry[1].Base, s.knowing.Entry[1].Size = base, size
	} else if err = ignoreMissing(err); err != nil {
		return err
	}
	for i, name := range []string{"return_to_handler", "arch_rethook_trampoline", "__kretprobe_trampoline"} {
		address, _, err := s.find(name)
		if err == nil {
			s.knowing.Tracer[i] = address
		} else if err = ignoreMissing(err); err != nil {
			return err
		}
	}
	s.knowing.On = 1
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, errNoSymbol) {
		return nil
	}
	return err
}

// Verified tells how many call stacks were told by comparing, and unwound as well to see
// whether they are the same (Options.VerifyStacks).
func (s *Set) Verified() (uint64, error) {
	b, err := s.bssBytes()
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b[s.bss["verified"].Offset:]), nil
}
