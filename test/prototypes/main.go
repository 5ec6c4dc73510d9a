// Prototypes writes what kernels say of the catalog's functions into a table, for
// kernels that say nothing: make prototypes.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"kedr/internal/catalog"
	"kedr/internal/kernel"
	"kedr/internal/plan"
	"kedr/internal/prototype"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "prototypes:", err)
		os.Exit(1)
	}
}

// run takes version=file, by ascending version, the file being BTF.
func run(args []string) error {
	c, err := catalog.Default()
	if err != nil {
		return err
	}
	names := plan.Symbols(c)
	var versions []string
	var functions []map[string][]prototype.Param
	for _, arg := range args {
		version, file, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not version=file", arg)
		}
		k, err := kernel.FromBTF(file)
		if err != nil {
			return err
		}
		found := make(map[string][]prototype.Param)
		for _, name := range names {
			p, err := k.Prototype(name)
			switch {
			case errors.Is(err, kernel.ErrNoFunction):
				continue
			case err != nil:
				return err
			}
			found[name] = p
		}
		versions, functions = append(versions, version), append(functions, found)
	}
	return prototype.Write(os.Stdout, versions, functions)
}
