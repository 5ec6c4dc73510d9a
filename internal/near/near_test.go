package near

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	for _, test := range []struct {
		name       string
		candidates []string
		want       []string
	}{
		{"szie", []string{"size", "flags", "node"}, []string{"size"}},
		{"GFP_KERNAL", []string{"GFP_KERNEL", "GFP_KERNEL_ACCOUNT", "GFP_NOFS"}, []string{"GFP_KERNEL"}},
		{"flag", []string{"f_flags", "flags", "f_mode"}, []string{"flags", "f_flags"}},
		{"n", []string{"p", "q"}, nil},
		{"anything", nil, nil},
		{"", []string{"", "a"}, []string{""}},
		{"size", []string{"size", "size"}, []string{"size"}},
	} {
		if got := Names(test.name, test.candidates); !slices.Equal(got, test.want) {
			t.Errorf("%s among %v: %v, want %v", test.name, test.candidates, got, test.want)
		}
	}
	if got := Hint("sice", []string{"size", "slice"}); got != "; did you mean size or slice?" {
		t.Errorf("hint %q", got)
	}
}
