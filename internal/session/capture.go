package session

import "time"

// Capture is what a session saw, as read from the kernel's side and before any
// source is looked at. It travels as JSON from a machine to its host.
type Capture struct {
	Release string `json:"release"` // of the kernel, as uname -r has it
	Machine string `json:"machine"` // as uname -m has it

	Targets []Target `json:"targets"`
	Loads   []Load   `json:"loads"`
	Stacks  []Stack  `json:"stacks"`

	Objects    []Object    `json:"objects"`     // obtained and not given back
	WrongFrees []WrongFree `json:"wrong_frees"` // given back and never obtained

	// Sites are all call stacks that obtained something, where that was asked for, and
	// Kinds the kinds of what the targets' imports hand out.
	Sites []Site            `json:"sites,omitempty"`
	Kinds map[string]string `json:"kinds,omitempty"`

	// Symbols names the addresses in Stacks that lie in the kernel or in
	// modules that are no target.
	Symbols map[uint64]Symbol `json:"symbols,omitempty"`

	Lost      []Lost      `json:"lost,omitempty"`
	Unwatched []Unwatched `json:"unwatched,omitempty"`

	Settle time.Duration `json:"settle"` // waited after the last unload

	Verified uint64 `json:"verified,omitempty"` // call stacks; see probe.Options.VerifyStacks

	// LoadError is why the module did not stay: its init, or what comes before it,
	// has failed.
	LoadError string `json:"load_error,omitempty"`
	// WorkloadError is how the workload ended, if not well.
	WorkloadError string `json:"workload_error,omitempty"`
}

// Target is one module under analysis.
type Target struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	BuildID string `json:"build_id,omitempty"`
}

// Load is one stay of a target in the kernel, from its loading to its removal.
type Load struct {
	ID     uint32 `json:"id"`     // 1 for the session's first
	Target int    `json:"target"` // index in Capture.Targets

	Core uint64 `json:"core"` // address of the core area
	Init uint64 `json:"init"` // address of the init area, 0 when it has none

	// Sections holds the address of each of target.Module.Sections, or is
	// empty when the module that was loaded is not the file that was given.
	Sections []uint64 `json:"sections,omitempty"`

	Loaded   time.Duration `json:"loaded"`             // since boot
	Unloaded time.Duration `json:"unloaded,omitempty"` // since boot, 0 while it is loaded

	Allocations     uint64 `json:"allocations"`
	AllocatedBytes  uint64 `json:"allocated_bytes"`
	Frees           uint64 `json:"frees"`
	UnallocatedFree uint64 `json:"unallocated_frees"`
	Mismatched      uint64 `json:"mismatched"`
}

// Stack is a call stack, innermost frame first. The first frame is the return
// address of the intercepted call.
type Stack struct {
	ID     uint64   `json:"id"`
	Frames []uint64 `json:"frames"`
	Cut    bool     `json:"cut,omitempty"` // there were more frames, or it could not be unwound
	// Site is the address behind a jump by which the target got to the function, so
	// that it left no frame: the first of Frames is the jumping function's caller.
	Site uint64 `json:"site,omitempty"`
}

// Object is something that a target obtained.
type Object struct {
	Load     uint32        `json:"load"`
	Stack    uint64        `json:"stack"` // Stack.ID
	Address  uint64        `json:"address"`
	Size     uint64        `json:"size"` // as requested, in bytes
	Kind     string        `json:"kind"`
	Function string        `json:"function,omitempty"` // empty: the call site tells
	PID      int32         `json:"pid"`                // of the thread
	Comm     string        `json:"comm"`
	IRQ      bool          `json:"irq,omitempty"`  // in hard or soft interrupt context
	Time     time.Duration `json:"time,omitempty"` // since boot
}

// Site is what has been obtained by one call stack, given back or not.
type Site struct {
	Load    uint32 `json:"load"`
	Stack   uint64 `json:"stack"` // Stack.ID
	Objects uint64 `json:"objects"`
	Bytes   uint64 `json:"bytes"`
}

// What is wrong with a release.
const (
	Unallocated = "unallocated" // no target had obtained it
	Double      = "double"      // a target had, and it was released already
	Mismatched  = "mismatched"  // it is not this function's to release
)

// WrongFree is a call stack that gave back what it should not have.
type WrongFree struct {
	Load     uint32 `json:"load"`
	Wrong    string `json:"wrong"`
	Address  uint64 `json:"address"` // of the first
	Kind     string `json:"kind"`
	Function string `json:"function,omitempty"`
	Count    uint64 `json:"count"`
	Party

	// Object is what is known of it, where a target had obtained it.
	Object *Released `json:"object,omitempty"`
}

// Released is an object that was released wrongly.
type Released struct {
	Size     uint64 `json:"size"`
	Kind     string `json:"kind"`
	Function string `json:"function,omitempty"`
	Obtained Party  `json:"obtained"`
	First    *Party `json:"first,omitempty"` // its first release, of two
}

// Party is who did something, and by which call stack.
type Party struct {
	Stack uint64 `json:"stack"`
	PID   int32  `json:"pid"`
	Comm  string `json:"comm"`
	IRQ   bool   `json:"irq,omitempty"`
}

// Symbol is a kernel address by name.
type Symbol struct {
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	Size     uint64 `json:"size"`
	Module   string `json:"module,omitempty"`
}

// Lost counts events that were not accounted for.
type Lost struct {
	Function string `json:"function"` // the probed function, or empty
	Reason   string `json:"reason"`
	Count    uint64 `json:"count"`
	// Check: the probe only holds releases against what was obtained; the account
	// is whole.
	Check bool `json:"check,omitempty"`
}

// Unwatched is a function that the target imports and that could not be
// intercepted.
type Unwatched struct {
	Function string `json:"function"`
	Reason   string `json:"reason"`
}
