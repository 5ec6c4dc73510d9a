package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Where tracefs and, before, debugfs have it.
var formats = []string{"/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"}

// holdAgainstFormat holds what is known of a tracepoint's parameters against the fields
// of its event: those that both have must come in the same order. Where there is no
// event of that name, as for those that only probes are for, nothing is to be compared.
func holdAgainstFormat(name string, params []Param) error {
	for _, dir := range formats {
		files, err := filepath.Glob(filepath.Join(dir, "*", name, "format"))
		if err != nil || len(files) == 0 {
			continue
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			return fmt.Errorf("tracepoint %s: %w", name, err)
		}
		return sameOrder(name, params, formatFields(string(b)))
	}
	return nil
}

// formatField is a line of an event's format (kernel/trace/trace_events.c, f_show):
//
//	field:unsigned long call_site;	offset:8;	size:8;	signed:0;
var formatField = regexp.MustCompile(`(?m)^\tfield:[^;]*?(\w+)(?:\[[^;]*\])?;`)

func formatFields(text string) []string {
	var names []string
	for _, m := range formatField.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], "common_") {
			names = append(names, m[1])
		}
	}
	return names
}

func sameOrder(name string, params []Param, fields []string) error {
	last := -1
	for _, p := range params {
		i := slices.Index(fields, p.Name)
		if i < 0 {
			continue
		}
		if i < last {
			return fmt.Errorf("tracepoint %s: its event has the fields %s, which is not what is known of its parameters", name, strings.Join(fields, ", "))
		}
		last = i
	}
	if last < 0 && len(params) > 0 && slices.ContainsFunc(params, func(p Param) bool { return p.Name == "call_site" }) {
		return fmt.Errorf("tracepoint %s: its event has none of the known fields", name)
	}
	return nil
}
