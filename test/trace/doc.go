// Package trace holds what a trace is made of against real kernels: the descriptions
// of their functions, and filters as their verifiers take them and their processors run
// them. Its tests are made with -tags guest and run in a machine:
//
//	go test -tags guest -exec 'kedr vm exec --kernel 6.1 --' ./test/trace
package trace
