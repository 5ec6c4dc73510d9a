package trace

//go:generate sh -c "go tool bpf2go -target bpfel -tags guest -cflags \"-O2 -mcpu=v3 -Wall -Werror -I/usr/include/$(gcc -print-multiarch)\" judge bpf/judge.bpf.c"
