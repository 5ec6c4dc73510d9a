package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"kedr/internal/trace"
	"kedr/internal/trace/format"
)

// A machine's kernel may crash before anything of its trace has come; what is shown says
// then that the trace is cut off, as ever.
func TestNothingCame(t *testing.T) {
	text, err := format.Find("text")
	if err != nil {
		t.Fatal(err)
	}
	for _, came := range []bool{false, true} {
		var out bytes.Buffer
		sink := &begunSink{traceSink: &formatSink{out: &out, format: text}, target: "crash"}
		if came {
			if err := sink.Header(&trace.Header{Version: trace.Version, Targets: []string{"crash"}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := sink.begin(); err != nil {
			t.Fatal(err)
		}
		sink.Close()
		if n := strings.Count(out.String(), "TIME CPU"); n != 1 {
			t.Errorf("begun %d times:\n%s", n, &out)
		}
		if !strings.Contains(out.String(), "the trace is cut off") {
			t.Errorf("not cut off:\n%s", &out)
		}
	}

	for _, f := range format.Formats {
		var out bytes.Buffer
		sink := &begunSink{traceSink: &formatSink{out: &out, format: &f}, target: "crash"}
		if err := sink.begin(); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if err := sink.Close(); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		// In JSON an object of its own says that a trace was ended: here there is none.
		if got, want := out.Len() == 0, f.Name == "json"; got != want {
			t.Errorf("%s: %q", f.Name, &out)
		}
	}

	var file bytes.Buffer
	sink := &begunSink{traceSink: &fileSink{w: &file}, target: "crash"}
	if err := sink.begin(); err != nil {
		t.Fatal(err)
	}
	sink.Close()
	r, err := trace.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var rec trace.Record
	if err := r.Next(&rec); !errors.Is(err, trace.ErrCutOff) {
		t.Errorf("%v", err)
	}
}
