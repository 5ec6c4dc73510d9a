// Package trace is the record of the calls between a target and the kernel: what the
// target called, with which arguments, from where, with what result; and what the
// kernel called in the target meanwhile.
//
// A trace is a Header and then Records in the order in which they were read from the
// kernel: of one CPU that is the order in which things happened, between CPUs the
// times tell. It is complete in itself: types, names and source lines are in it, so that
// it can be read on another machine, without the module.
package trace

import "time"

// Version of the format; a reader refuses a later one.
const Version = 1

// Header says what was traced, and how to read the values.
type Header struct {
	Version   int        `cbor:"1,keyasint" json:"version"`
	Release   string     `cbor:"2,keyasint" json:"release"` // of the kernel, as uname -r has it
	Machine   string     `cbor:"3,keyasint" json:"machine"` // as uname -m has it
	Started   time.Time  `cbor:"4,keyasint" json:"started"`
	Boot      uint64     `cbor:"5,keyasint" json:"boot"` // the kernel's clock at Started, ns (CLOCK_MONOTONIC)
	Targets   []string   `cbor:"6,keyasint" json:"targets"`
	Functions []Function `cbor:"7,keyasint" json:"functions"`
	Untraced  []Untraced `cbor:"8,keyasint,omitempty" json:"untraced,omitempty"` // asked for, and could not be
	Off       []string   `cbor:"9,keyasint,omitempty" json:"off,omitempty"`      // hot imports that were not asked for
}

// Untraced is a function that could not be attached to.
type Untraced struct {
	Function string `cbor:"1,keyasint" json:"function"`
	Reason   string `cbor:"2,keyasint" json:"reason"`
}

// Function is one that was traced: an import of the target or, as a callback, one of
// its own that the kernel calls.
type Function struct {
	Name     string    `cbor:"1,keyasint" json:"name"`
	Callback bool      `cbor:"2,keyasint,omitempty" json:"callback,omitempty"`
	Target   int       `cbor:"3,keyasint,omitempty" json:"target,omitempty"` // of a callback: index in Header.Targets
	Known    bool      `cbor:"4,keyasint,omitempty" json:"known,omitempty"`  // Params and Result are known; else nothing was recorded of them
	Params   []Param   `cbor:"5,keyasint,omitempty" json:"params,omitempty"`
	Variadic bool      `cbor:"6,keyasint,omitempty" json:"variadic,omitempty"` // more may follow that are not recorded
	Result   Type      `cbor:"7,keyasint,omitempty" json:"result"`
	Captures []Capture `cbor:"8,keyasint,omitempty" json:"captures,omitempty"`
}

// MaxArgs is how many arguments of a call are recorded: those in registers
// (System V ABI, x86-64).
const MaxArgs = 6

// MaxCaptures is how many pieces of memory are recorded with one call, and
// MaxCapture the bytes of one of them.
const (
	MaxCaptures = 8
	MaxCapture  = 64
)

// Param is a parameter of a function.
type Param struct {
	Name string `cbor:"1,keyasint" json:"name"`
	Type Type   `cbor:"2,keyasint" json:"type"`
	// Slot is the 64-bit word that it begins in: 0 for the first argument register. A
	// parameter that is not in a register (MaxArgs) is known, and its value is not.
	Slot int `cbor:"3,keyasint" json:"slot"`
}

// Class is how a value is read.
type Class uint8

// The classes.
const (
	Void Class = iota
	Int        // Signed or not
	Bool
	Char    // of C: a small integer, shown as one
	Enum    // Names holds its values
	Flags   // Names holds its bits, or groups of bits
	String  // pointer to char: captured, if it could be read
	Pointer // to what Name says
	Struct  // passed by value; not decoded
)

// Type is the type of a value, as far as showing it needs.
type Type struct {
	Class  Class  `cbor:"1,keyasint" json:"class"`
	Name   string `cbor:"2,keyasint,omitempty" json:"name,omitempty"` // as C has it: "struct file *", "gfp_t"
	Size   int    `cbor:"3,keyasint,omitempty" json:"size,omitempty"` // in bytes
	Signed bool   `cbor:"4,keyasint,omitempty" json:"signed,omitempty"`
	Base   int    `cbor:"5,keyasint,omitempty" json:"base,omitempty"` // 8 and 16 where people write it so; 0: 10
	Names  []Name `cbor:"6,keyasint,omitempty" json:"names,omitempty"`
}

// Name is a value of an enumeration, or a bit (or a group of bits) of a flag word.
type Name struct {
	Value uint64 `cbor:"1,keyasint" json:"value"`
	Name  string `cbor:"2,keyasint" json:"name"`
}

// Capture is memory that is recorded with a call: a string, or a field of a structure
// that was asked for.
type Capture struct {
	// Param is the parameter that points there: an index in Function.Params, or -1 for the
	// result, which is looked at when the function returns.
	Param  int    `cbor:"1,keyasint" json:"param"`
	Offset uint32 `cbor:"2,keyasint,omitempty" json:"offset,omitempty"` // behind the pointer, in bytes
	Field  string `cbor:"3,keyasint,omitempty" json:"field,omitempty"`  // of the structure; empty: the string itself
	Type   Type   `cbor:"4,keyasint" json:"type"`                       // String: text up to its NUL, at most MaxCapture bytes
}

// Record is one entry of a trace; one of its fields is set.
type Record struct {
	Site  *Site  `cbor:"1,keyasint,omitempty" json:"site,omitempty"`
	Event *Event `cbor:"2,keyasint,omitempty" json:"event,omitempty"`
	End   *End   `cbor:"3,keyasint,omitempty" json:"end,omitempty"`
}

// Site is a place in a target that calls; it precedes the first Event that names it.
type Site struct {
	ID      uint32 `cbor:"1,keyasint" json:"id"`
	Address uint64 `cbor:"2,keyasint" json:"address"`
	Frames  []Line `cbor:"3,keyasint" json:"frames"`            // innermost inlined function first, the function itself last; none: not looked up yet
	Target  int    `cbor:"4,keyasint,omitempty" json:"target"`  // index in Header.Targets
	Section int    `cbor:"5,keyasint,omitempty" json:"section"` // number of the executable section in the target's file; -1: unknown
	Offset  uint64 `cbor:"6,keyasint,omitempty" json:"offset"`  // in that section, in bytes
}

// Line is a function and a line of its source.
type Line struct {
	Function string `cbor:"1,keyasint" json:"function"`
	Offset   uint64 `cbor:"2,keyasint,omitempty" json:"offset,omitempty"` // in the function, of the last frame only
	Size     uint64 `cbor:"3,keyasint,omitempty" json:"size,omitempty"`
	Module   string `cbor:"4,keyasint,omitempty" json:"module,omitempty"`
	File     string `cbor:"5,keyasint,omitempty" json:"file,omitempty"`
	Line     int    `cbor:"6,keyasint,omitempty" json:"line,omitempty"`
}

// What an Event is.
const (
	Call     = 1 // a function was entered
	Return   = 2 // it returned
	Whole    = 3 // both in one, of a trace that keeps a call only when its result is known
	Loaded   = 4 // a target has come, and has not run yet
	Unloaded = 5 // a target has gone
)

// The context in which something ran.
const (
	InTask    = 0
	InSoftirq = 1
	InHardirq = 2
	InNMI     = 3
)

// Event is something that happened.
type Event struct {
	What    uint8  `cbor:"1,keyasint" json:"what"`
	Time    uint64 `cbor:"2,keyasint" json:"time"` // the kernel's clock, ns (CLOCK_MONOTONIC)
	CPU     uint32 `cbor:"3,keyasint,omitempty" json:"cpu"`
	PID     uint32 `cbor:"4,keyasint,omitempty" json:"pid"` // of the process
	TID     uint32 `cbor:"5,keyasint,omitempty" json:"tid"` // of the thread
	Comm    string `cbor:"6,keyasint,omitempty" json:"comm"`
	Context uint8  `cbor:"7,keyasint,omitempty" json:"context,omitempty"`

	// ID joins the Return to its Call: of the calls that have not returned, no two have
	// the same. It may be used again afterwards.
	ID       uint64 `cbor:"8,keyasint,omitempty" json:"id,omitempty"`
	Function int    `cbor:"9,keyasint,omitempty" json:"function"`  // index in Header.Functions
	Target   int    `cbor:"10,keyasint,omitempty" json:"target"`   // index in Header.Targets
	Site     uint32 `cbor:"11,keyasint,omitempty" json:"site"`     // Site.ID; 0: not in a target (of a callback)
	Duration uint64 `cbor:"12,keyasint,omitempty" json:"duration"` // of a Whole, ns; its Time is when it was entered

	Args     []uint64   `cbor:"13,keyasint,omitempty" json:"args,omitempty"` // by Param.Slot
	Result   uint64     `cbor:"14,keyasint,omitempty" json:"result,omitempty"`
	Captured []Captured `cbor:"15,keyasint,omitempty" json:"captured,omitempty"`

	// Jump: the target got there by a jump that ends a function of its own, which the
	// kernel had called. There is no Return; the result is that of the function.
	Jump bool `cbor:"17,keyasint,omitempty" json:"jump,omitempty"`

	// Live is what the target has obtained and not given back, in bytes, where leaks are
	// looked for as well; nil: unknown.
	Live *int64 `cbor:"16,keyasint,omitempty" json:"live,omitempty"`
}

// Captured is what was found in memory.
type Captured struct {
	Capture int    `cbor:"1,keyasint" json:"capture"` // index in Function.Captures
	Data    []byte `cbor:"2,keyasint,omitempty" json:"data,omitempty"`
	Cut     bool   `cbor:"3,keyasint,omitempty" json:"cut,omitempty"`    // a string went on
	Failed  bool   `cbor:"4,keyasint,omitempty" json:"failed,omitempty"` // the memory could not be read
}

// End is the last record of a trace that was ended, and not cut off.
type End struct {
	Time uint64 `cbor:"1,keyasint" json:"time"`
	Lost []Lost `cbor:"2,keyasint,omitempty" json:"lost,omitempty"`
}

// Lost counts events that are not in the trace.
type Lost struct {
	Function string `cbor:"1,keyasint,omitempty" json:"function,omitempty"` // empty: of which is not known
	Reason   string `cbor:"2,keyasint" json:"reason"`
	Count    uint64 `cbor:"3,keyasint" json:"count"`
}
