// Package conformance holds kedr against modules whose faults are known, on the
// kernel that runs. Its tests are made with -tags guest and run in a machine:
//
//	go test -tags guest -exec 'kedr vm exec --kernel 6.1 --' ./test/conformance
//
// with KEDR naming the program and KEDR_MODULES the directory of test modules
// built for that kernel; "make test" does it all.
package conformance
