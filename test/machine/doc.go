// Package machine tests kedr from outside: what a user of a host sees for whom
// all is done in disposable machines. Its tests are made with -tags machine.
package machine
