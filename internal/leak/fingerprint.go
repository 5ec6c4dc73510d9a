package leak

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
)

// fingerprint knows a find again: in another load, on another machine, with another
// kernel, and after a change of the module that moved its lines. It is 16 hexadecimal
// digits over what was found, the kind of object, and the functions of the target on the
// stack with the files that they are in. Lines, offsets, addresses and the kernel's own
// functions, those of its headers too, are not in it. Two places in one function that leak the same kind have one
// fingerprint: only their lines tell them apart, and these move.
//
// The kernel's functions stand in where none of the target's is known.
func fingerprint(found, kind, module string, stack []Frame) string {
	h := sha256.New()
	// No name has a NUL in it, so that no two lists of words are one text.
	add := func(words ...string) {
		for _, w := range words {
			h.Write([]byte(w))
			h.Write([]byte{0})
		}
	}
	add("1", found, kind) // the number of this recipe
	named := false
	for _, f := range stack {
		if f.Module == module && f.Function != "" && !f.Header() {
			named = true
			add(plain(f.Function), base(f.File))
		}
	}
	if !named {
		for _, f := range stack {
			add(f.Module, plain(f.Function))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// plain is a function's name in the source: the compiler names its variants
// "name.isra.0", "name.constprop.0", "name.part.0", "name.cold", from build to build
// differently.
func plain(function string) string {
	if i := strings.IndexByte(function, '.'); i > 0 {
		return function[:i]
	}
	return function
}

// base is the last part of a file's name; "" stays "".
func base(file string) string {
	if file == "" {
		return ""
	}
	return path.Base(file)
}
