package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"kedr/internal/leak"
)

// writeJSON writes a document a report: one alone with line breaks, several on a line
// each, so that those who read line by line find a document in each.
func writeJSON(out io.Writer, reports []*leak.Report, _ Options) error {
	w := bufio.NewWriter(out)
	e := encoder{w: w, indent: "  "}
	if len(reports) != 1 {
		e.indent = ""
	}
	for _, r := range reports {
		if err := e.value(reflect.ValueOf(r).Elem(), 0); err != nil {
			return err
		}
		w.WriteByte('\n')
	}
	return w.Flush()
}

// encoder writes what encoding/json would, but piece by piece: a report with a million
// objects is some 200 MB, of which encoding/json would have two copies in memory. Strings
// and floating-point numbers that need thought are left to it.
type encoder struct {
	w      *bufio.Writer
	indent string // "": no line breaks
	buf    []byte
}

// field is a field of a structure as it is written.
type field struct {
	name      string // quoted
	omitEmpty bool
}

var fields sync.Map // []field by type

func fieldsOf(t reflect.Type) []field {
	if known, ok := fields.Load(t); ok {
		return known.([]field)
	}
	list := make([]field, t.NumField())
	for i := range list {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		list[i] = field{strconv.Quote(name), options == "omitempty"}
	}
	fields.Store(t, list)
	return list
}

func (e *encoder) value(v reflect.Value, depth int) error {
	e.buf = e.buf[:0]
	switch v.Kind() {
	case reflect.Struct:
		return e.structure(v, depth)
	case reflect.Pointer:
		if !v.IsNil() {
			return e.value(v.Elem(), depth)
		}
	case reflect.Slice:
		if !v.IsNil() {
			return e.list(v, depth)
		}
	case reflect.Bool:
		e.buf = strconv.AppendBool(e.buf, v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		e.buf = strconv.AppendInt(e.buf, v.Int(), 10)
	case reflect.Uint64:
		if v.Type() == reflect.TypeFor[leak.Address]() {
			e.buf = append(strconv.AppendUint(append(e.buf, `"0x`...), v.Uint(), 16), '"')
			break
		}
		fallthrough
	case reflect.Uint32:
		e.buf = strconv.AppendUint(e.buf, v.Uint(), 10)
	case reflect.String:
		if s := v.String(); plain(s) {
			e.buf = append(append(append(e.buf, '"'), s...), '"')
		}
	}
	if len(e.buf) == 0 {
		b := bytes.NewBuffer(e.buf)
		j := json.NewEncoder(b)
		j.SetEscapeHTML(false)
		if err := j.Encode(v.Interface()); err != nil {
			return err
		}
		e.buf = bytes.TrimRight(b.Bytes(), "\n")
	}
	_, err := e.w.Write(e.buf)
	return err
}

// plain tells whether a string is JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func (e *encoder) structure(v reflect.Value, depth int) error {
	e.w.WriteByte('{')
	empty := true
	for i, f := range fieldsOf(v.Type()) {
		x := v.Field(i)
		if f.omitEmpty && (x.IsZero() || x.Kind() == reflect.Slice && x.Len() == 0) {
			continue
		}
		e.next(&empty, depth)
		e.w.WriteString(f.name)
		e.w.WriteByte(':')
		if e.indent != "" {
			e.w.WriteByte(' ')
		}
		if err := e.value(x, depth+1); err != nil {
			return err
		}
	}
	e.end(empty, depth)
	return e.w.WriteByte('}')
}

func (e *encoder) list(v reflect.Value, depth int) error {
	e.w.WriteByte('[')
	empty := true
	for i := range v.Len() {
		e.next(&empty, depth)
		if err := e.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	e.end(empty, depth)
	return e.w.WriteByte(']')
}

// next separates what comes from what was there.
func (e *encoder) next(empty *bool, depth int) {
	if !*empty {
		e.w.WriteByte(',')
	}
	*empty = false
	if e.indent != "" {
		e.line(depth + 1)
	}
}

func (e *encoder) end(empty bool, depth int) {
	if !empty && e.indent != "" {
		e.line(depth)
	}
}

func (e *encoder) line(depth int) {
	e.w.WriteByte('\n')
	for range depth {
		e.w.WriteString(e.indent)
	}
}

// MaxRead is the size in bytes up to which a saved report is read.
const MaxRead = 1 << 30

// Read reads reports that were written as json, one a target. It gives an error where
// there is none, where there is something else, and where a report is of a version of
// the format that is not known.
func Read(in io.Reader) ([]*leak.Report, error) { return read(in, MaxRead) }

func read(in io.Reader, limit int64) ([]*leak.Report, error) {
	limited := &io.LimitedReader{R: in, N: limit + 1}
	d := json.NewDecoder(limited)
	var reports []*leak.Report
	for {
		r := new(leak.Report)
		err := d.Decode(r)
		switch {
		case limited.N == 0:
			return nil, fmt.Errorf("it is larger than %d bytes, which is more than kedr reads", limit)
		case err == io.EOF && len(reports) == 0:
			return nil, errors.New("it is empty: a report in the format json is needed")
		case err == io.EOF:
			return reports, nil
		case err != nil:
			return nil, fmt.Errorf("it is no report in the format json: %w", err)
		case r.Schema == 0 || r.Target.Name == "":
			return nil, errors.New("it is JSON, but no report of kedr's (kedr run --format json writes one)")
		case r.Schema != leak.Schema:
			return nil, fmt.Errorf("it is a report of version %d, and this kedr reads version %d: make it again with this kedr, or read it with the one that made it", r.Schema, leak.Schema)
		}
		r.Complete()
		reports = append(reports, r)
	}
}
