package kernel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const kmallocFormat = `name: kmalloc
ID: 500
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long call_site;	offset:8;	size:4;	signed:0;
	field:const void * ptr;	offset:12;	size:4;	signed:0;
	field:size_t bytes_req;	offset:16;	size:4;	signed:0;
	field:char name[16];	offset:20;	size:16;	signed:0;
	field:__data_loc char[] text;	offset:36;	size:4;	signed:0;

print fmt: "call_site=%pS", (void *)REC->call_site
`

func TestFormatFields(t *testing.T) {
	got := formatFields(kmallocFormat)
	if d := cmp.Diff([]string{"call_site", "ptr", "bytes_req", "name", "text"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestSameOrder(t *testing.T) {
	params := func(names string) []Param {
		var p []Param
		for _, n := range strings.Fields(names) {
			p = append(p, Param{Name: n})
		}
		return p
	}
	for _, test := range []struct {
		params, fields string
		ok             bool
	}{
		{"call_site ptr bytes_req", "call_site ptr bytes_req", true},
		{"call_site ptr s gfp_flags", "call_site ptr bytes_req gfp_flags", true}, // the event has other things, too
		{"page order", "pfn order", true},
		{"ptr call_site", "call_site ptr", false},
		{"call_site ptr", "address", false},
		{"", "a b", true},
	} {
		err := sameOrder("event", params(test.params), strings.Fields(test.fields))
		if (err == nil) != test.ok {
			t.Errorf("(%s) and (%s): %v", test.params, test.fields, err)
		}
	}
}
