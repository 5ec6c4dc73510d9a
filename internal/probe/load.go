package probe

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"kedr/internal/probe/fold"
)

// ErrLockedDown says that programs may not read kernel memory here.
var ErrLockedDown = errors.New("the kernel is locked down (confidentiality), and lets no program read its memory: boot without lockdown=confidentiality, or run in a machine with --vm=always")

// permission tells what the kernel forbids from what is wrong. In lockdown the
// helpers that read memory are unknown (kernel/trace/bpf_trace.c,
// LOCKDOWN_BPF_READ_KERNEL).
func permission(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) && slices.ContainsFunc(ve.Log, func(l string) bool { return strings.Contains(l, "unknown func bpf_probe_read") }) {
		return ErrLockedDown
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (%w)", ErrNotPermitted, err)
	}
	return err
}

// load makes one program out of a generic one.
func (s *Set) load(program string, constants map[string]any, attachTo string, extra map[string]*ebpf.Map) (*ebpf.Program, error) {
	spec, err := s.spec.Program(program)
	if err != nil {
		return nil, err
	}
	return s.loadSpec(spec, program, constants, attachTo, extra)
}

// constantMap holds the programs' constants.
const constantMap = ".rodata"

// constantsOf lays out the programs' constants, those named with other values than they
// were compiled with.
func (s *Set) constantsOf(constants map[string]any) ([]byte, error) {
	if s.compiled == nil {
		// Not by its variables: texts that are printed have no names.
		m := s.spec.Maps[constantMap]
		if len(m.Contents) != 1 {
			return nil, fmt.Errorf("%s: not the compiler's", constantMap)
		}
		compiled, ok := m.Contents[0].Value.([]byte)
		if !ok || len(compiled) != int(m.ValueSize) {
			return nil, fmt.Errorf("%s: not the compiler's", constantMap)
		}
		s.compiled = compiled
	}
	values := slices.Clone(s.compiled)
	for name, value := range constants {
		v := s.spec.Variables[name].Copy()
		if err := v.Set(value); err != nil {
			return nil, fmt.Errorf("constant %s: %w", name, err)
		}
		copy(values[v.Offset:], v.Value)
	}
	return values, nil
}

// loadSpec is load for a program of which more is told than by constants.
func (s *Set) loadSpec(prog *ebpf.ProgramSpec, program string, constants map[string]any, attachTo string, extra map[string]*ebpf.Map) (*ebpf.Program, error) {
	if attachTo != "" {
		prog.AttachTo = attachTo
	}
	values, err := s.constantsOf(constants)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", program, err)
	}
	if prog.Instructions, err = fold.Program(prog.Instructions, constantMap, values); err != nil {
		return nil, fmt.Errorf("program %s: %w", program, err)
	}
	c := &ebpf.CollectionSpec{
		Maps:      make(map[string]*ebpf.MapSpec),
		Programs:  map[string]*ebpf.ProgramSpec{program: prog},
		ByteOrder: prog.ByteOrder,
	}
	replace := make(map[string]*ebpf.Map)
	for _, ins := range prog.Instructions {
		name := ins.Reference()
		if m := s.spec.Maps[name]; m != nil && c.Maps[name] == nil {
			c.Maps[name] = m.Copy()
			if shared := s.shared[name]; shared != nil {
				replace[name] = shared
			}
		}
	}
	maps.Copy(replace, extra)
	if m := c.Maps[constantMap]; m != nil {
		// Some of them are looked up by what is not constant.
		m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: values}}
	}
	coll, err := ebpf.NewCollectionWithOptions(c, ebpf.CollectionOptions{MapReplacements: replace, Cache: s.kernel.Types})
	if err != nil {
		return nil, permission(err)
	}
	defer coll.Close()
	p := coll.DetachProgram(program)
	if Trace != nil {
		if info, err := p.Info(); err == nil {
			n, _ := info.VerifiedInstructions()
			Trace("%s for %s: %d instructions, of which the verifier has looked at %d", program, attachTo, len(prog.Instructions), n)
		}
	}
	return p, nil
}

func (s *Set) constants(spec kedrProbeSpec) map[string]any {
	spec.Targets = s.targets
	knowing := s.knowing
	// Of two programs the one that comes after the other has little to do (bpf/caller.h,
	// mine): it unwinds, which takes half of the instructions, and of the verifier's time.
	// Not where tasks are preempted in programs: there the first is often at work.
	if after := byte(1 + spec.Tracepoint); spec.Twin == after && !s.preempted() {
		knowing.On = 0
	}
	return map[string]any{"spec": spec, "layout": s.layout, "depths": s.depths, "tracing": s.life, "ringing": s.ring, "knowing": knowing}
}
