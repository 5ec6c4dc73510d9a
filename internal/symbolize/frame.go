// Package symbolize turns return addresses into functions and source lines.
package symbolize

// Frame is one function of a call stack.
type Frame struct {
	Address  uint64 // return address; for an inferred frame, the end of the tail call
	Function string // empty when unknown
	Offset   uint64 // of Address in Function
	Size     uint64 // of Function, in bytes
	Module   string // empty for the kernel proper
	File     string // source file as the debug information names it; empty when unknown
	Line     int
	Inlined  bool // Function was inlined into the next frame that is not
	Inferred bool // not on the stack: its frame was given up by a tail call
}
