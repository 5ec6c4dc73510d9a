// Pack writes the file of compiled programs (package object) that kedr has in it.
package main

import (
	"fmt"
	"os"

	"kedr/internal/probe/object"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pack OBJECT FILE")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(from, to string) error {
	elf, err := os.Open(from)
	if err != nil {
		return err
	}
	defer elf.Close()
	b, err := object.Pack(elf)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, b, 0o644)
}
