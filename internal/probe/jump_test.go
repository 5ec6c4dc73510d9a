package probe

import "testing"

func TestParseProfile(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint64
		bad  bool
	}{
		{"", 0, false},
		{"  t0_0                                                   12               3\n  t1_4 1 4\n", 7, false},
		{"  p_vfs_read_0  5  9\n", 0, false}, // somebody else's
		{"  t0_0 1 x\n", 0, true},
		{"  t0_0 1\n", 0, false},
	} {
		got, err := parseProfile([]byte(test.text))
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%q: %d, %v", test.text, got, err)
		}
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte("  t0_0 12 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) { parseProfile(b) })
}
