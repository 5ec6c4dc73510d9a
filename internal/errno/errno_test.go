package errno

import "testing"

func TestNames(t *testing.T) {
	for n, name := range map[int]string{1: "EPERM", 12: "ENOMEM", 11: "EAGAIN", 35: "EDEADLK", 95: "EOPNOTSUPP", 133: "EHWPOISON", 517: "EPROBE_DEFER", 0: "", -12: "", 4000: "", 1 << 20: ""} {
		if got := Name(n); got != name {
			t.Errorf("%d is %q, want %q", n, got, name)
		}
	}
	for name, n := range map[string]int{"ENOMEM": 12, "EWOULDBLOCK": 11, "EAGAIN": 11, "EOPNOTSUPP": 95, "ENOTSUP": 95, "ERESTARTSYS": 512, "EPERM": 1} {
		if got, ok := Number(name); !ok || got != n {
			t.Errorf("%s is %d, %v, want %d", name, got, ok, n)
		}
	}
	for _, name := range []string{"", "ENOTHING", "enomem"} {
		if n, ok := Number(name); ok {
			t.Errorf("%s is %d", name, n)
		}
	}
}
